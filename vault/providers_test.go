package vault_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

func localRing(t *testing.T) *localkey.Provider {
	t.Helper()
	key := make([]byte, vault.KeySize)
	_, _ = rand.Read(key)
	p, err := localkey.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The first of several providers wraps and all unwrap; a key that none of them
// has is named with those that they have.
func TestProviders(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	first, second, third := localRing(t), localRing(t), localRing(t)
	both, err := vault.NewProviders(first, second)
	is.NoErr(err)
	ctx, c := t.Context(), keyContext()
	key := make([]byte, vault.KeySize)
	_, _ = rand.Read(key)
	current, err := both.CurrentKey(ctx)
	is.NoErr(err)
	wanted, err := first.CurrentKey(ctx)
	is.NoErr(err)
	is.Equal(current, wanted)
	for _, p := range []vault.KeyProvider{both, second} {
		w, err := p.WrapKey(ctx, key, c)
		is.NoErr(err)
		got, err := both.UnwrapKey(ctx, w, c)
		is.NoErr(err)
		is.Equal(got, key)
		held, err := both.HoldsKey(ctx, w.Provider)
		is.NoErr(err)
		is.True(held)
		w.Blob[len(w.Blob)-1] ^= 1
		_, err = both.UnwrapKey(ctx, w, c)
		is.True(errors.Is(err, vault.ErrUnwrap)) // damage is not taken for another's key
	}
	w, err := third.WrapKey(ctx, key, c)
	is.NoErr(err)
	_, err = both.UnwrapKey(ctx, w, c)
	is.True(errors.Is(err, vault.ErrUnknownKey))
	for _, p := range []vault.KeyProvider{first, second, third} {
		id, err := p.CurrentKey(ctx)
		is.NoErr(err)
		is.True(strings.Contains(errText(both, w, c, t), id))
	}
	held, err := both.HoldsKey(ctx, w.Provider)
	is.NoErr(err)
	is.True(!held)
	mixed, err := vault.NewProviders(first, fixed("a provider that does not tell what it holds"))
	is.NoErr(err)
	_, err = mixed.HoldsKey(ctx, w.Provider)
	is.True(errors.Is(err, vault.ErrUnavailable))
	_, err = vault.NewProviders(first, nil)
	is.True(errors.Is(err, vault.ErrProvider))
	is.Equal(fmt.Sprintf("%v %+v %#v", both, both, both), "[redacted] [redacted] [redacted]")
	is.NoErr(both.Close())
	is.NoErr(both.Run(ctx))
}

func errText(p vault.KeyProvider, w vault.Wrapped, c vault.Context, t *testing.T) string {
	_, err := p.UnwrapKey(t.Context(), w, c)
	return err.Error()
}
