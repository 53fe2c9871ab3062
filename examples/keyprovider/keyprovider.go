// Package keyprovider is an example of a vault.KeyProvider of one's own: it asks
// a key service over HTTP, which alone holds the wrapping key.
//
// A provider wraps and unwraps 32-byte keys and names its current key; all else
// is the library's. Its test runs the suite that every provider has to pass.
package keyprovider

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// The service answers GET /current with the name of its key, POST /wrap with a
// wrapped key, and POST /unwrap with a key. Bodies are raw bytes. It answers 404
// for a key that it does not hold and 422 for a blob that does not authenticate.
const (
	headerKey     = "Agentkey-Key"     // the name of the service's key
	headerContext = "Agentkey-Context" // vault.Context.AppendEncoded in base64
)

// Provider is a client of the key service. It is safe for concurrent use and
// prints as "[redacted]". Make one with New.
type Provider struct {
	vault.Redacted
	call func(ctx context.Context, method, path, key string, c vault.Context, body []byte) (*http.Response, error)
}

var _ vault.KeyProvider = (*Provider)(nil)

// New returns a Provider that asks the service at url, which should be https, and
// authenticates by the token. A call ends after three seconds.
func New(url string, token *vault.Secret) *Provider {
	client := &http.Client{
		Timeout:       3 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	// A closure, so that nothing that prints a Provider gets at the token.
	return &Provider{call: func(ctx context.Context, method, path, key string, c vault.Context, body []byte) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(body))
		if err != nil {
			return nil, errors.New("keyprovider: the service's URL is not valid")
		}
		req.Header.Set("Authorization", "Bearer "+string(token.Bytes()))
		req.Header.Set(headerKey, key)
		req.Header.Set(headerContext, base64.StdEncoding.EncodeToString(c.AppendEncoded(nil)))
		res, err := client.Do(req)
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case err != nil:
			err = vault.ErrUnavailable // the cause would name the URL
		default:
			return res, nil
		}
		if res != nil {
			_ = res.Body.Close()
		}
		return nil, err
	}}
}

// CurrentKey asks for the name of the key that wraps now.
func (p *Provider) CurrentKey(ctx context.Context) (string, error) {
	name, err := p.ask(ctx, http.MethodGet, "/current", "", vault.Context{}, nil, vault.MaxProviderKeyID)
	return string(name), err
}

// WrapKey has a key wrapped, bound to c.
func (p *Provider) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if len(key) != vault.KeySize {
		return vault.Wrapped{}, vault.ErrKeyLength
	}
	name, err := p.CurrentKey(ctx)
	if err != nil {
		return vault.Wrapped{}, err
	}
	blob, err := p.ask(ctx, http.MethodPost, "/wrap", name, c, key, vault.MaxBlob)
	return vault.Wrapped{Provider: name, Blob: blob}, err
}

// UnwrapKey has a key unwrapped.
func (p *Provider) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	key, err := p.ask(ctx, http.MethodPost, "/unwrap", w.Provider, c, w.Blob, vault.KeySize)
	if err == nil && len(key) != vault.KeySize {
		clear(key)
		return nil, fmt.Errorf("%w: length of key", vault.ErrProvider)
	}
	return key, err
}

// ask calls the service and reads at most limit bytes of its answer into a slice
// that is the caller's.
func (p *Provider) ask(ctx context.Context, method, path, key string, c vault.Context, body []byte, limit int) ([]byte, error) {
	res, err := p.call(ctx, method, path, key, c, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%w: need %s", vault.ErrUnknownKey, key)
	case res.StatusCode == http.StatusUnprocessableEntity:
		return nil, vault.ErrUnwrap
	case res.StatusCode >= 500:
		return nil, vault.ErrUnavailable
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", vault.ErrProvider, res.StatusCode)
	}
	answer := make([]byte, limit+1) // one byte more tells too many
	n, err := io.ReadFull(res.Body, answer)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return answer[:n:n], nil
	case err == nil:
		clear(answer)
		return nil, fmt.Errorf("%w: length of answer", vault.ErrProvider)
	}
	clear(answer)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, vault.ErrUnavailable
}
