package vault

import (
	"context"
	"fmt"
)

// Limits of what a KeyProvider may answer.
const (
	// MaxBlob is the largest wrapped key in bytes.
	MaxBlob = 4096
	// MaxProviderKeyID is the longest id of a provider's key, in bytes.
	MaxProviderKeyID = 128
)

// KeyProvider wraps and unwraps data keys with keys that it alone holds. Package
// vaulttest has a test for each clause, of the same name:
//
//  1. CurrentKey: CurrentKey names the key that WrapKey uses now, in 1 to 128
//     printable ASCII characters without spaces; while the key is not changed, the
//     name stays, and Wrapped.Provider is that name.
//  2. RoundTrip: UnwrapKey returns the 32 bytes that were given to WrapKey with an
//     equal context.
//  3. Ownership: WrapKey neither changes nor keeps the key it is given. UnwrapKey
//     returns a slice of its own for each call, which the caller zeroes, and
//     changes nothing of Wrapped.
//  4. KeyLength: WrapKey refuses a key that does not have 32 bytes with
//     ErrKeyLength.
//  5. ContextBound: UnwrapKey with a context that differs in any field, or in
//     where one field ends and the next begins, fails with ErrUnwrap.
//  6. Authenticated: UnwrapKey of a blob that was changed, cut, extended or
//     emptied fails with ErrUnwrap and does not panic.
//  7. UnknownKey: UnwrapKey of a Wrapped whose Provider names a key that is not
//     held fails with ErrUnknownKey; the error names the id needed, and the ids
//     held where the provider knows them.
//  8. CrossKey: what another key wrapped fails with ErrUnknownKey under that
//     key's name, and with ErrUnwrap under the name of a key that is held.
//  9. Bounded: a blob has 1 to 4096 bytes.
//  10. Concurrent: all methods may be called from many goroutines at once.
//  11. Cancelled: with a context that is done, every method fails with the
//     context's error, at once.
//  12. Unavailable: when the service that holds the key can't be reached, every
//     method that needs it fails with ErrUnavailable, in bounded time.
//  13. Redacted: neither errors nor the printed or encoded provider nor the blob
//     show a byte of the wrapped key or of the provider's own.
type KeyProvider interface {
	// CurrentKey names the key that WrapKey uses now.
	CurrentKey(ctx context.Context) (string, error)
	// WrapKey wraps a key of 32 bytes, bound to c.
	WrapKey(ctx context.Context, key []byte, c Context) (Wrapped, error)
	// UnwrapKey returns the key that was wrapped as w with a context equal to c.
	UnwrapKey(ctx context.Context, w Wrapped, c Context) ([]byte, error)
}

// KeyHolder is an optional power of a KeyProvider: to say whether it holds a key,
// of those that CurrentKey ever named. Without it the Manager finds out, for the
// key of the moment at which an organization was destroyed, by a key that it had
// wrapped then.
type KeyHolder interface {
	// HoldsKey says whether what that key wrapped can be unwrapped. It fails with
	// ErrUnavailable when that can't be found out now.
	HoldsKey(ctx context.Context, id string) (bool, error)
}

// OrganizationKeys is an optional power of a KeyProvider: to have, for each
// organization, a key that wraps nothing else, and to destroy it. With it the copies
// of an organization's wrapped keys in backups end with that key. It is used for the
// data keys that seal values; those that seal rows stay under the provider's common
// key, for the log of a destroyed organization has to be verified.
//
// A provider with this power has that of a KeyHolder, and its own UnwrapKey and
// HoldsKey know the organizations' keys too.
type OrganizationKeys interface {
	// OwnKey gives a KeyProvider over the organization's own key. Its WrapKey makes
	// the key if it is not there; until then its CurrentKey fails with ErrUnknownKey.
	// It calls nobody. ok is false where the power is switched off: then new data keys
	// are wrapped by the common key, and those under own keys still unwrap.
	OwnKey(organization string) (own KeyProvider, ok bool)
	// DestroyKey destroys a key of the organization's own, by the id that its
	// CurrentKey named, for ever and with all its versions. gone says that nothing
	// unwraps with it any more; false, that the service has begun with it and needs
	// its time. A key that is gone already is no error. It fails with ErrProvider for an
	// id that is no such key, as the common one's, and with ErrUnavailable when the
	// service can't be reached or refuses.
	DestroyKey(ctx context.Context, organization, id string) (gone bool, err error)
}

// Wrapped is a data key as a provider wrapped it. It is stored and not secret.
type Wrapped struct {
	// Provider is the id of the provider's key that wrapped.
	Provider string
	// Blob is what the provider needs to unwrap; only it knows the form.
	Blob []byte
}

func (w Wrapped) check() error {
	if len(w.Blob) == 0 || len(w.Blob) > MaxBlob {
		return fmt.Errorf("%w: size of wrapped key", ErrProvider)
	}
	if w.Provider == "" || len(w.Provider) > MaxProviderKeyID {
		return fmt.Errorf("%w: length of key id", ErrProvider)
	}
	for i := range len(w.Provider) {
		if w.Provider[i] <= ' ' || w.Provider[i] > '~' {
			return fmt.Errorf("%w: characters of key id", ErrProvider)
		}
	}
	return nil
}

// Context says which data key is wrapped. Providers bind it as associated data, so
// that a wrapped key moved to another organization or purpose does not unwrap.
// Every field has 1 to 1024 bytes.
type Context struct {
	// Installation is the id of the installation.
	Installation string
	// Organization is the id of the tenant, or the reserved one for keys of none.
	Organization string
	// Purpose is the Purpose of the data key.
	Purpose string
	// Key is the id of the data key.
	Key string
}

// AppendEncoded appends the fields to b, each after its length as four bytes, big
// endian. No two contexts have the same encoding; providers that take associated
// data as bytes bind this.
func (c Context) AppendEncoded(b []byte) []byte {
	b = appendPart(b, c.Installation)
	b = appendPart(b, c.Organization)
	b = appendPart(b, c.Purpose)
	return appendPart(b, c.Key)
}

// forKey completes c for the key of that id and purpose.
func (c Context) forKey(id string, p Purpose) (Context, error) {
	if c.Purpose == "" {
		c.Purpose = string(p)
	}
	if c.Key == "" {
		c.Key = id
	}
	if c.Purpose != string(p) || c.Key != id {
		return Context{}, fmt.Errorf("%w: context of another key", ErrPlace)
	}
	return c, checkParts([]string{"installation", "organization", "purpose", "key"},
		c.Installation, c.Organization, c.Purpose, c.Key)
}
