// Package localkey is a vault.KeyProvider over keys that the process itself holds:
// from the environment, from a key file, or from the caller.
//
// A [Provider] holds one or more 32-byte keys, the newest first. The newest wraps,
// all unwrap. To change keys, put a new one first, start again, and remove the old
// one once nothing names it any more.
//
// Keys are 32 random bytes in standard base64 with padding. There is no other
// spelling, and passphrases are refused: a key that a person made up is guessed.
//
// Whoever reads the key and the database reads everything; keep and back up the
// two apart.
package localkey

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// A wrapped key, version 1:
//
//	offset  length
//	0       1       version, 0x01
//	1       1       algorithm, 0x01: AES-256-GCM, 12-byte random nonce, 16-byte tag
//	2       16      id of the local key that wrapped
//	18      12      nonce
//	30      32      ciphertext
//	62      16      tag
//
// The associated data are, each after its length as four bytes, big endian: the
// label, version, algorithm, id, installation, organization, purpose and key.
const (
	wrappedLabel   = "agentkey/wrapped/v1"
	wrappedVersion = 0x01
	algAES256GCM   = 0x01
	idSize         = 16
	headerSize     = 2 + idSize
	wrappedSize    = headerSize + 12 + vault.KeySize + 16

	idLabel  = "agentkey/local-key-id/v1"
	idPrefix = "local:"
)

// Provider is a vault.KeyProvider over keys in memory. It is safe for concurrent
// use and prints as "[redacted]". Its keys stay in memory as long as it does. Build
// one with [NewRing], [FromEnv] or [FromFile].
type Provider struct {
	vault.Redacted
	// ring is a closure so that no walker by reflection reaches the keys.
	ring func() []wrappingKey
}

// wrappingKey is one key of the ring; its bytes exist only within aead.
type wrappingKey struct {
	id   [idSize]byte
	aead cipher.AEAD
}

func (k wrappingKey) name() string { return idPrefix + hex.EncodeToString(k.id[:]) }

var _ vault.KeyProvider = (*Provider)(nil)

// NewRing returns a Provider over the keys, newest first: the first wraps, all
// unwrap. The slices stay the caller's, who zeroes them. It fails with [ErrNoKey]
// without keys and with [ErrBadKey] if one does not have 32 bytes, is not random
// or stands there twice.
func NewRing(keys ...[]byte) (*Provider, error) {
	if len(keys) == 0 {
		return nil, ErrNoKey
	}
	ring := make([]wrappingKey, 0, len(keys))
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		k, err := newWrappingKey(key)
		if err != nil {
			return nil, err
		}
		for _, other := range ring {
			if other.id == k.id {
				return nil, fmt.Errorf("key %d: %w: it is there twice", i+1, ErrBadKey)
			}
		}
		ring = append(ring, k)
	}
	return &Provider{ring: func() []wrappingKey { return ring }}, nil
}

func newWrappingKey(key []byte) (wrappingKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return wrappingKey{}, fmt.Errorf("localkey: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return wrappingKey{}, fmt.Errorf("localkey: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(idLabel))
	return wrappingKey{id: [idSize]byte(mac.Sum(nil)[:idSize]), aead: aead}, nil
}

// keys returns the ring, empty for a Provider that was not built here.
func (p *Provider) keys() []wrappingKey {
	if p == nil || p.ring == nil {
		return nil
	}
	return p.ring()
}

// CurrentKey returns the id of the newest key: "local:" and 32 hexadecimal digits
// derived from the key.
func (p *Provider) CurrentKey(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ring := p.keys()
	if len(ring) == 0 {
		return "", ErrNoKey
	}
	return ring[0].name(), nil
}

// WrapKey wraps key, 32 bytes, with the newest key.
func (p *Provider) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if err := ctx.Err(); err != nil {
		return vault.Wrapped{}, err
	}
	if len(key) != vault.KeySize {
		return vault.Wrapped{}, vault.ErrKeyLength
	}
	ring := p.keys()
	if len(ring) == 0 {
		return vault.Wrapped{}, ErrNoKey
	}
	k := ring[0]
	blob := append(make([]byte, 0, wrappedSize), wrappedVersion, algAES256GCM)
	blob = append(blob, k.id[:]...)
	blob = k.aead.Seal(blob, nil, key, associatedData(blob, c))
	return vault.Wrapped{Provider: k.name(), Blob: blob}, nil
}

// UnwrapKey unwraps w with the key that it names.
func (p *Provider) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ring := p.keys()
	held := make([]string, len(ring))
	for i, k := range ring {
		if k.name() == w.Provider {
			return k.unwrap(w.Blob, c)
		}
		held[i] = k.name()
	}
	return nil, fmt.Errorf("%w: need %s, hold [%s]", vault.ErrUnknownKey, printableID(w.Provider), strings.Join(held, " "))
}

// HoldsKey says whether a key of the ring has that id. Copies of a key that are kept
// elsewhere are not seen.
func (p *Provider) HoldsKey(ctx context.Context, id string) (bool, error) {
	for _, k := range p.keys() {
		if k.name() == id {
			return true, ctx.Err()
		}
	}
	return false, ctx.Err()
}

func (k wrappingKey) unwrap(blob []byte, c vault.Context) ([]byte, error) {
	if len(blob) != wrappedSize || blob[0] != wrappedVersion || blob[1] != algAES256GCM {
		return nil, fmt.Errorf("%w: %w", vault.ErrUnwrap, vault.ErrFormat)
	}
	if [idSize]byte(blob[2:headerSize]) != k.id {
		return nil, fmt.Errorf("%w: it names another key inside", vault.ErrUnwrap)
	}
	key, err := k.aead.Open(nil, nil, blob[headerSize:], associatedData(blob, c))
	if err != nil {
		return nil, vault.ErrUnwrap
	}
	return key, nil
}

// associatedData binds a wrapped key to its header and context.
func associatedData(header []byte, c vault.Context) []byte {
	var b []byte
	for _, part := range [][]byte{[]byte(wrappedLabel), header[:1], header[1:2], header[2:headerSize]} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return c.AppendEncoded(b)
}

// printableID keeps what a database says is a key id from writing anything else
// into an error.
func printableID(id string) string {
	if id == "" || len(id) > vault.MaxProviderKeyID {
		return "a key without a proper id"
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return "a key without a proper id"
		}
	}
	return id
}
