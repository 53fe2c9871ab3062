package transit_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

// owned is config with keys of organizations.
func owned(c transit.Config) transit.Config {
	c.OrganizationKeys = true
	return c
}

func TestOrganizationKeys(t *testing.T) {
	t.Parallel()
	now := newClock().Now
	s := service(now)
	ours := func(t *testing.T) vault.KeyProvider { return open(t, owned(config(s, now))) }
	vaulttest.TestOrganizationKeys(t, ours)
	t.Run("among several", func(t *testing.T) {
		before := service(now)
		vaulttest.TestOrganizationKeys(t, func(t *testing.T) vault.KeyProvider {
			both, err := vault.NewProviders(ours(t), open(t, config(before, now)))
			is.New(t).NoErr(err)
			return both
		})
	})
}

// Switched off, no key is made, and what own keys wrapped unwraps; after a rotation of
// an own key both versions are the organization's.
func TestOrganizationKeysSwitchedOff(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	on, off := open(t, owned(config(s, now))), open(t, config(s, now))
	_, ok := off.OwnKey("organization-1")
	is.True(!ok)
	own, ok := on.OwnKey("organization-1")
	is.True(ok)
	first, err := own.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	s.Rotate("transit/agentkey-organization-1")
	current, err := own.CurrentKey(t.Context())
	is.NoErr(err)
	is.True(current != first.Provider)
	_, err = off.UnwrapKey(t.Context(), first, sample())
	is.NoErr(err)
	moved := sample()
	moved.Organization = "organization-2"
	_, err = off.UnwrapKey(t.Context(), first, moved) // the key of another is not even asked
	is.True(errors.Is(err, vault.ErrUnknownKey))
	gone, err := on.DestroyKey(t.Context(), "organization-1", first.Provider)
	is.NoErr(err)
	is.True(gone)
	held, err := off.HoldsKey(t.Context(), current)
	is.NoErr(err)
	is.True(!held)
}

// A service that refuses to delete keeps the key, and says so.
func TestDestroyKeyRefused(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	p := open(t, owned(config(s, now)))
	own, _ := p.OwnKey("organization-1")
	w, err := own.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	s.Fail(refuseMethod("DELETE"))
	gone, err := p.DestroyKey(t.Context(), "organization-1", w.Provider)
	is.True(!gone && errors.Is(err, vault.ErrUnavailable))
	s.Fail(nil)
	_, err = p.UnwrapKey(t.Context(), w, sample())
	is.NoErr(err)
	gone, err = p.DestroyKey(t.Context(), "organization-1", w.Provider)
	is.NoErr(err)
	is.True(gone)
}

func refuseMethod(method string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			w.WriteHeader(http.StatusForbidden)
		}
		return r.Method == method
	}
}
