package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Providers is a KeyProvider that moves an installation from one provider to
// another: the first wraps, all unwrap. Once everything is wrapped by the first,
// the others can be left out. Make one with NewProviders. It is safe for concurrent
// use if they are.
//
// A wrapped key is unwrapped by the first provider that does not answer
// ErrUnknownKey for its id: providers name their keys each in their own way, so
// that at most one of them knows it.
type Providers struct {
	Redacted
	all func() []KeyProvider
}

// NewProviders makes one of the provider that wraps and those before it. It fails
// with ErrProvider when one of them is nil.
func NewProviders(current KeyProvider, former ...KeyProvider) (*Providers, error) {
	all := append([]KeyProvider{current}, former...)
	for _, p := range all {
		if p == nil {
			return nil, fmt.Errorf("%w: one of several is nil", ErrProvider)
		}
	}
	return &Providers{all: func() []KeyProvider { return all }}, nil
}

// CurrentKey names the key that the first provider wraps with now.
func (p *Providers) CurrentKey(ctx context.Context) (string, error) {
	return p.all()[0].CurrentKey(ctx)
}

// WrapKey has the first provider wrap.
func (p *Providers) WrapKey(ctx context.Context, key []byte, c Context) (Wrapped, error) {
	return p.all()[0].WrapKey(ctx, key, c)
}

// UnwrapKey has the provider unwrap that knows the key.
func (p *Providers) UnwrapKey(ctx context.Context, w Wrapped, c Context) ([]byte, error) {
	var unknown []string
	for _, one := range p.all() {
		key, err := one.UnwrapKey(ctx, w, c)
		if !errors.Is(err, ErrUnknownKey) {
			return key, err
		}
		unknown = append(unknown, strings.TrimPrefix(err.Error(), ErrUnknownKey.Error()+": "))
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownKey, strings.Join(unknown, "; "))
}

// HoldsKey says whether one of them holds a key. It fails with ErrUnavailable when
// one that does not hold it can't tell.
func (p *Providers) HoldsKey(ctx context.Context, id string) (bool, error) {
	var failed error
	for _, one := range p.all() {
		h, ok := one.(KeyHolder)
		if !ok {
			failed = fmt.Errorf("%w: a provider does not tell which keys it holds", ErrUnavailable)
			continue
		}
		held, err := h.HoldsKey(ctx, id)
		if held && err == nil {
			return true, nil
		}
		failed = errors.Join(failed, err)
	}
	return false, failed
}

// OwnKey gives the first provider's key of an organization, if that has any.
func (p *Providers) OwnKey(organization string) (own KeyProvider, ok bool) {
	if o, has := p.all()[0].(OrganizationKeys); has {
		return o.OwnKey(organization)
	}
	return nil, false
}

// DestroyKey has the provider destroy an organization's own key whose it is.
func (p *Providers) DestroyKey(ctx context.Context, organization, id string) (gone bool, err error) {
	for _, one := range p.all() {
		o, ok := one.(OrganizationKeys)
		if !ok {
			continue
		}
		if gone, err = o.DestroyKey(ctx, organization, id); !errors.Is(err, ErrProvider) {
			return gone, err
		}
	}
	return false, fmt.Errorf("%w: not a key of an organization's own", ErrProvider)
}

// Close closes those of them that have a Close.
func (p *Providers) Close() error {
	var failed error
	for _, one := range p.all() {
		if c, ok := one.(io.Closer); ok {
			failed = errors.Join(failed, c.Close())
		}
	}
	return failed
}

// Run does what those of them do that have a Run, such as renewing a token, until
// ctx ends.
func (p *Providers) Run(ctx context.Context) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, one := range p.all() {
		if r, ok := one.(interface{ Run(context.Context) error }); ok {
			all.Go(func() {
				err := r.Run(ctx)
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			})
		}
	}
	all.Wait()
	return failed
}
