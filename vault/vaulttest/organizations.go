package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// TestOrganizationKeys tests a provider that has the power vault.OrganizationKeys,
// switched on. open returns one ready for use; those from several calls share their
// keys. The keys that it makes are destroyed again.
func TestOrganizationKeys(t *testing.T, open func(t *testing.T) vault.KeyProvider) {
	t.Helper()
	for name, clause := range map[string]func(c *owned){
		"Conforms": (*owned).conforms, "Apart": (*owned).apart, "MadeByWrapKey": (*owned).madeByWrapKey,
		"OnlyOwn": (*owned).onlyOwn, "Destroyed": (*owned).destroyed,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), clauseTimeout)
			defer cancel()
			p := open(t)
			keys, ok := p.(vault.OrganizationKeys)
			if !ok {
				t.Fatal("the provider has no keys of organizations")
			}
			clause(&owned{T: t, ctx: ctx, open: open, p: p, keys: keys})
		})
	}
}

// owned is one run of one clause.
type owned struct {
	*testing.T
	ctx  context.Context
	open func(t *testing.T) vault.KeyProvider
	p    vault.KeyProvider
	keys vault.OrganizationKeys
}

func (c *owned) own(organization string) vault.KeyProvider {
	c.Helper()
	own, ok := c.keys.OwnKey(organization)
	if !ok {
		c.Fatal("organizations have no keys of their own: it is switched off")
	}
	return own
}

// wrap wraps a key by the organization's own, which is destroyed after the test.
func (c *owned) wrap(organization string) (vault.Wrapped, vault.Context) {
	c.Helper()
	kc := sample()
	kc.Organization = organization
	w, err := c.own(organization).WrapKey(c.ctx, sampleKey(1), kc)
	if err != nil {
		c.Fatalf("WrapKey: %v", err)
	}
	c.Cleanup(func() {
		if _, err := c.keys.DestroyKey(context.WithoutCancel(c.ctx), organization, w.Provider); err != nil {
			c.Errorf("DestroyKey: %v", err)
		}
	})
	return w, kc
}

// unwraps wants p, and another provider, to unwrap.
func (c *owned) unwraps(w vault.Wrapped, kc vault.Context) {
	c.Helper()
	for _, p := range []vault.KeyProvider{c.p, c.own(kc.Organization), c.open(c.T)} {
		key, err := p.UnwrapKey(c.ctx, w, kc)
		if err != nil || !bytes.Equal(key, sampleKey(1)) {
			c.Errorf("UnwrapKey gave other bytes, or the error %v", err)
		}
	}
}

// conforms: the own key's provider keeps to every clause of a KeyProvider.
func (c *owned) conforms() {
	const organization = "organization-1" // that of the suite's samples
	c.wrap(organization)
	TestProvider(c.T, func(t *testing.T) vault.KeyProvider { return c.own(organization) })
}

// apart: each organization's key is another, and none is the common one.
func (c *owned) apart() {
	common, err := c.p.CurrentKey(c.ctx)
	if err != nil {
		c.Fatalf("CurrentKey: %v", err)
	}
	names := map[string]bool{common: true}
	for _, organization := range []string{"organization-1", "organization-2", "0198f3c2-0000-7000-8000-000000000001", "Of Other Characters/.."} {
		w, kc := c.wrap(organization)
		if names[w.Provider] {
			c.Errorf("%q is wrapped by a key that something else is wrapped by", organization)
		}
		names[w.Provider] = true
		c.unwraps(w, kc)
	}
}

// madeByWrapKey: CurrentKey makes nothing.
func (c *owned) madeByWrapKey() {
	const organization = "organization-3"
	for range 2 {
		if _, err := c.own(organization).CurrentKey(c.ctx); !errors.Is(err, vault.ErrUnknownKey) {
			c.Errorf("CurrentKey gave the error %v before the key was made, want ErrUnknownKey", err)
		}
	}
	w, _ := c.wrap(organization)
	if id, err := c.own(organization).CurrentKey(c.ctx); err != nil || id != w.Provider {
		c.Errorf("CurrentKey gave %q (error %v), WrapKey %q", id, err, w.Provider)
	}
}

// onlyOwn: neither the common key nor that of another organization is destroyed.
func (c *owned) onlyOwn() {
	common, err := c.p.WrapKey(c.ctx, sampleKey(1), sample())
	if err != nil {
		c.Fatalf("WrapKey: %v", err)
	}
	theirs, kc := c.wrap("organization-2")
	c.wrap("organization-1")
	for _, id := range []string{common.Provider, theirs.Provider, "vaulttest:no-such-key", ""} {
		if gone, err := c.keys.DestroyKey(c.ctx, "organization-1", id); gone || !errors.Is(err, vault.ErrProvider) {
			c.Errorf("DestroyKey of %q gave %t and the error %v, want ErrProvider", id, gone, err)
		}
	}
	c.unwraps(theirs, kc)
	if _, err := c.p.UnwrapKey(c.ctx, common, sample()); err != nil {
		c.Errorf("the common key does not unwrap any more: %v", err)
	}
}

// destroyed: nobody unwraps with a key that is gone, also who used it before, and
// nothing else changes.
func (c *owned) destroyed() {
	other, otherContext := c.wrap("organization-2")
	w, kc := c.wrap("organization-1")
	before := c.open(c.T)
	if _, err := before.UnwrapKey(c.ctx, w, kc); err != nil {
		c.Fatalf("UnwrapKey: %v", err)
	}
	cancelled, cancel := context.WithCancel(c.ctx)
	cancel()
	if gone, err := c.keys.DestroyKey(cancelled, kc.Organization, w.Provider); gone || !errors.Is(err, context.Canceled) {
		c.Errorf("DestroyKey with a context that is done gave %t and the error %v", gone, err)
	}
	c.unwraps(w, kc)
	gone, err := c.keys.DestroyKey(c.ctx, kc.Organization, w.Provider)
	if err != nil {
		c.Fatalf("DestroyKey: %v", err)
	}
	if again, err := c.keys.DestroyKey(c.ctx, kc.Organization, w.Provider); err != nil || again != gone {
		c.Errorf("DestroyKey gave %t and the error %v when it was called again", again, err)
	}
	c.unwraps(other, otherContext)
	if !gone {
		c.Skip("the service needs its time: that nothing unwraps then is not tested")
	}
	for _, p := range []vault.KeyProvider{c.p, before, c.own(kc.Organization)} {
		if key, err := p.UnwrapKey(c.ctx, w, kc); key != nil || !errors.Is(err, vault.ErrUnknownKey) {
			c.Errorf("UnwrapKey gave %d bytes and the error %v after the key was destroyed, want ErrUnknownKey", len(key), err)
		}
	}
	holder, ok := c.p.(vault.KeyHolder)
	if !ok {
		c.Fatal("the provider does not tell which keys it holds")
	}
	if held, err := holder.HoldsKey(c.ctx, w.Provider); held || err != nil {
		c.Errorf("HoldsKey gave %t and the error %v after the key was destroyed", held, err)
	}
}
