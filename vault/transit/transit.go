// Package transit is a vault.KeyProvider over the transit secrets engine of Vault
// and OpenBao, which keep the wrapping key and never give it away. It needs
// nothing but net/http.
//
// A data key is encrypted by the service together with a proof of its context; the
// context is also bound as the service's associated_data. Both are checked when it
// is unwrapped: the one by the service, the other here.
//
// The key must be of an authenticated type with 256 bits: aes256-gcm96,
// chacha20-poly1305 or xchacha20-poly1305, and not derived. The provider's id of a
// key names its path, its version and when that was made, such as
//
//	transit:transit/agentkey:v3:1763900000
//
// so that a key which was deleted and made again under the same name is told apart.
// After the key was rotated in the service, WrapKey uses the new version, and what
// older versions wrapped unwraps until min_decryption_version forbids it.
package transit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/internal/bound"
)

// ErrConfig says that a Config can't be used. The error says which field and why,
// and never what it holds.
var ErrConfig = errors.New("transit: bad configuration")

// Config says where the key is and how to get at it.
type Config struct {
	// Address is the service's URL, without a path: https://vault.example:8200.
	// Plain http is taken for a loopback address only. Required.
	Address string

	// Mount is where the secrets engine is mounted. Empty: transit.
	Mount string

	// Key is the name of the key in it, which must exist. Required.
	Key string

	// OrganizationKeys wraps what seals an organization's values by a key of its own,
	// which is named after Key and the organization, made when it is needed and
	// destroyed with the organization. Zero: everything is wrapped by Key.
	OrganizationKeys bool

	// Namespace is the namespace of mount, key and login. Empty: the root.
	Namespace string

	// Auth is how to log in: Token or AppRole. Required.
	Auth Auth

	// CA is PEM with the authorities that may sign the service's certificate.
	// Empty: those of the system. Not with Transport.
	CA []byte

	// ServerName is the name that the certificate must be for. Empty: the host of
	// Address. Not with Transport.
	ServerName string

	// Timeout bounds every call of the provider with all its attempts. Zero: 2
	// seconds. At most a minute.
	Timeout time.Duration

	// Clock tells when a token ends. Nil: time.Now.
	Clock func() time.Time

	// Transport carries the requests, for hosts with a proxy or certificates of
	// their own. Nil: one of the provider's own, with TLS 1.2 at least and no proxy.
	Transport http.RoundTripper
}

// Provider is a vault.KeyProvider over a key of the transit secrets engine. It is
// safe for concurrent use and prints as "[redacted]". Make one with New.
type Provider struct {
	vault.Redacted
	// client is a closure so that no walker by reflection reaches the token.
	client func() *client
	own    string // the organization of whose own key it is; empty: of the common one
	owned  bool   // organizations have keys of their own
}

var (
	_ vault.KeyProvider      = (*Provider)(nil)
	_ vault.OrganizationKeys = (*Provider)(nil)
)

// New checks the configuration and returns a Provider. It calls nobody: a service
// that is away shows at the first use.
func New(c Config) (*Provider, error) {
	cl, err := newClient(c)
	if err != nil {
		return nil, err
	}
	return &Provider{client: func() *client { return cl }, owned: c.OrganizationKeys}, nil
}

// Close ends the connections that are not in use. The token is not revoked: it may
// be shared, and ends by itself. The Provider can still be used afterwards.
func (p *Provider) Close() error {
	p.client().http.CloseIdleConnections()
	return nil
}

// Run renews the token in time until ctx ends, and returns nil then. Without it
// the token is renewed by the calls alone, which is enough as long as there is one
// within each half of the token's life.
func (p *Provider) Run(ctx context.Context) error {
	p.client().keep(ctx)
	return nil
}

// CurrentKey asks the service for the newest version of the key. Besides the errors
// of vault.KeyProvider it fails with vault.ErrProvider if the key is of a type that
// can't bind a context.
func (p *Provider) CurrentKey(ctx context.Context) (string, error) {
	c := p.ref()
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	k, err := c.readKey(ctx)
	if err != nil {
		return "", c.ended(ctx, err)
	}
	return c.name(k.latest, k.versions[k.latest]), nil
}

// WrapKey has key, 32 bytes, encrypted with the newest version of the service's key.
func (p *Provider) WrapKey(ctx context.Context, key []byte, kc vault.Context) (vault.Wrapped, error) {
	c := p.ref()
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return vault.Wrapped{}, err
	}
	defer done()
	w, err := c.wrap(ctx, key, kc)
	return w, c.ended(ctx, err)
}

// UnwrapKey has w decrypted with the version of the key that w names.
func (p *Provider) UnwrapKey(ctx context.Context, w vault.Wrapped, kc vault.Context) ([]byte, error) {
	c := p.ref()
	if !strings.HasPrefix(w.Provider, c.names) {
		c = c.of(w.Provider, kc.Organization)
	}
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	key, err := c.unwrap(ctx, w, kc)
	return key, c.ended(ctx, err)
}

// ref is the key that p wraps with.
func (p *Provider) ref() ref {
	if p.own != "" {
		return p.client().own(p.own)
	}
	return p.client().common()
}

func (c ref) wrap(ctx context.Context, key []byte, kc vault.Context) (vault.Wrapped, error) {
	plain, err := bound.Append(make([]byte, 0, bound.Size), key, kc)
	if err != nil {
		return vault.Wrapped{}, err
	}
	defer clear(plain)
	// The key is known before it is used: the service would make one that is
	// missing, of a type that nobody chose.
	_, err = c.knownKey(ctx, 0)
	if errors.Is(err, vault.ErrUnknownKey) && c.makes {
		err = c.make(ctx)
	}
	if err != nil {
		return vault.Wrapped{}, err
	}
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	err = c.call(ctx, request{
		what: "encrypt", method: http.MethodPost, path: c.mount + "/encrypt/" + c.key,
		body: map[string]any{"plaintext": plain, "associated_data": kc.AppendEncoded(nil)},
	}, &answer)
	if err != nil {
		return vault.Wrapped{}, err
	}
	version, ok := ciphertextVersion(answer.Data.Ciphertext)
	if !ok || len(answer.Data.Ciphertext) > vault.MaxBlob {
		return vault.Wrapped{}, fmt.Errorf("%w: transit: encrypt: not a ciphertext", vault.ErrUnavailable)
	}
	k, err := c.knownKey(ctx, version)
	if err != nil {
		return vault.Wrapped{}, err
	}
	made, ok := k.versions[version]
	if !ok {
		return vault.Wrapped{}, fmt.Errorf("%w: transit: encrypt: the key's version is gone already", vault.ErrUnavailable)
	}
	return vault.Wrapped{Provider: c.name(version, made), Blob: []byte(answer.Data.Ciphertext)}, nil
}

func (c ref) unwrap(ctx context.Context, w vault.Wrapped, kc vault.Context) ([]byte, error) {
	version, made, ours := c.parseName(w.Provider)
	k, err := c.knownKey(ctx, version)
	switch {
	case errors.Is(err, vault.ErrUnknownKey), err == nil && (!ours || k.versions[version] != made):
		return nil, c.unknown(w.Provider, k)
	case err != nil:
		return nil, err
	}
	if v, ok := ciphertextVersion(string(w.Blob)); !ok || v != version {
		return nil, fmt.Errorf("%w: %w", vault.ErrUnwrap, vault.ErrFormat)
	}
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	err = c.call(ctx, request{
		what: "decrypt", method: http.MethodPost, path: c.mount + "/decrypt/" + c.key,
		body: map[string]any{"ciphertext": string(w.Blob), "associated_data": kc.AppendEncoded(nil)},
	}, &answer)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusBadRequest {
		return nil, c.refusedCiphertext(ctx, w.Provider, version, made)
	}
	if err != nil {
		return nil, err
	}
	return bound.Open(answer.Data.Plaintext, kc)
}

// refusedCiphertext tells what it means that the service did not decrypt: the
// version is no longer held, or the ciphertext is not of it and this context.
func (c ref) refusedCiphertext(ctx context.Context, name string, version int, made int64) error {
	k, err := c.readKey(ctx)
	switch {
	case errors.Is(err, vault.ErrUnknownKey):
		return c.unknown(name, key{})
	case err != nil:
		return err
	case k.versions[version] != made:
		return c.unknown(name, k)
	}
	return vault.ErrUnwrap
}

// ciphertextVersion is the version of the key in a ciphertext, vault:v3:BASE64, if
// that has the one spelling which the service writes. Others that decode alike
// are refused, because nobody has authenticated how a text is spelled.
func ciphertextVersion(text string) (version int, ok bool) {
	rest, ok := strings.CutPrefix(text, "vault:v")
	number, encoded, found := strings.Cut(rest, ":")
	if !ok || !found {
		return 0, false
	}
	version, ok = parseVersion(number)
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(raw) == 0 || base64.StdEncoding.EncodeToString(raw) != encoded {
		return 0, false
	}
	return version, true
}
