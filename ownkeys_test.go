package agentkey_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

// ownKeys is a provider with keys of organizations, in memory.
type ownKeys struct {
	*localkey.Provider
	off bool

	mu      sync.Mutex
	made    int
	own     map[string]*localkey.Provider
	waits   map[string]bool // organizations whose keys are on their way out
	fails   error           // of DestroyKey
	waiting bool            // DestroyKey only begins
}

func newOwnKeys(common *localkey.Provider) *ownKeys {
	return &ownKeys{Provider: common, own: make(map[string]*localkey.Provider), waits: make(map[string]bool)}
}

func (o *ownKeys) all() []*localkey.Provider {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append(slices.Collect(maps.Values(o.own)), o.Provider)
}

func (o *ownKeys) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) (key []byte, err error) {
	for _, p := range o.all() {
		if key, err = p.UnwrapKey(ctx, w, c); !errors.Is(err, vault.ErrUnknownKey) {
			return key, err
		}
	}
	return nil, err
}

func (o *ownKeys) HoldsKey(ctx context.Context, id string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return slices.ContainsFunc(o.all(), func(p *localkey.Provider) bool { held, err := p.CurrentKey(ctx); return err == nil && held == id }), nil
}

func (o *ownKeys) OwnKey(organization string) (vault.KeyProvider, bool) {
	return &ownKey{o, organization}, !o.off
}

func (o *ownKeys) DestroyKey(ctx context.Context, organization, id string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	prefix := fmt.Sprintf("%x", sha256.Sum256([]byte(organization)))
	p := o.own[organization]
	known := p != nil && second(p.CurrentKey(ctx)) == nil && current(p) == id
	switch {
	case known && o.fails != nil:
		return false, o.fails
	case known && o.waiting:
		return false, nil
	case known:
		delete(o.own, organization)
		o.waits[prefix+id] = true
		return true, nil
	case o.waits[prefix+id]:
		return true, nil
	}
	return false, fmt.Errorf("%w: not the organization's own key", vault.ErrProvider)
}

func current(p vault.KeyProvider) string {
	id, _ := p.CurrentKey(context.Background())
	return id
}

// ownKey is the key of one organization.
type ownKey struct {
	all          *ownKeys
	organization string
}

func (k *ownKey) get(make bool) *localkey.Provider {
	k.all.mu.Lock()
	defer k.all.mu.Unlock()
	if p := k.all.own[k.organization]; p != nil || !make {
		return p
	}
	k.all.made++
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d", k.organization, k.all.made))
	p, err := localkey.NewRing(key[:])
	if err != nil {
		panic(err)
	}
	k.all.own[k.organization] = p
	return p
}

func (k *ownKey) CurrentKey(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if p := k.get(false); p != nil {
		return p.CurrentKey(ctx)
	}
	return "", fmt.Errorf("%w: not made", vault.ErrUnknownKey)
}

func (k *ownKey) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	return k.get(true).WrapKey(ctx, key, c)
}

func (k *ownKey) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	return k.all.UnwrapKey(ctx, w, c)
}

func TestOwnKeysConform(t *testing.T) {
	t.Parallel()
	shared := newOwnKeys(ring(t, 1))
	vaulttest.TestOrganizationKeys(t, func(*testing.T) vault.KeyProvider { return shared })
}

// owned is a Manager over the scene's storage, whose provider has keys of
// organizations and knows the scene's key.
func (s *scene) owned(keys *ownKeys) *agentkey.Manager {
	s.t.Helper()
	both, err := vault.NewProviders(keys, s.keys.KeyProvider)
	s.noErr(err)
	m, err := agentkey.New(s.t.Context(), agentkey.Config{Storage: s.inner, Keys: both, Clock: s.Clock.Now, Node: "owned", Policies: agentkeytest.Unlimited()})
	s.noErr(err)
	return m
}

// moved has everything wrapped anew by m.
func (s *scene) moved(m *agentkey.Manager) {
	s.t.Helper()
	s.noErr(second(m.RewrapDataKeys(s.t.Context(), agentkey.Operator("test"))))
	done, err := m.ContinueRotations(s.t.Context())
	s.noErr(err)
	if !done {
		s.t.Fatal("the rewrapping is not done")
	}
}

// wrappedBy are the ids of the keys that wrap the organization's keys, by purpose.
func (s *scene) wrappedBy(organization string) map[vault.Purpose]string {
	s.t.Helper()
	out := make(map[vault.Purpose]string)
	for _, k := range s.keysOf(organization)[vault.KeyActive] {
		out[k.Purpose] = k.Provider
	}
	return out
}

// An organization moves from the common key to its own and back by a rewrapping, a
// new one begins with its own, and only what seals values is under it.
func TestOwnKeys(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	keys := newOwnKeys(ring(t, 2))
	m := s.owned(keys)
	status, err := m.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.Equal(status.Rewrap, 2)
	is.Equal(keys.made, 0) // looking makes no key
	s.moved(m)
	by := s.wrappedBy(s.Organization.ID)
	is.Equal(by[vault.PurposeSeal], current(&ownKey{keys, s.Organization.ID}))
	is.Equal(by[vault.PurposeRow], current(keys))
	for _, id := range s.wrappedBy(storage.System) {
		is.Equal(id, current(keys))
	}
	created, err := m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Other", Owner: "eve@example.com"})
	is.NoErr(err)
	is.Equal(s.wrappedBy(created.Organization.ID)[vault.PurposeSeal], current(&ownKey{keys, created.Organization.ID}))
	is.Equal(keys.made, 2)
	status, err = m.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.Equal(status.Rewrap, 0)
	_, err = m.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	is.Equal(s.wrappedBy(s.Organization.ID)[vault.PurposeSeal], by[vault.PurposeSeal])
	v, err := m.Vend(t.Context(), s.botKey, s.linear.ID)
	is.NoErr(err)
	v.Credential.Destroy()
	found, err := m.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
	is.Equal(found.Rewrap, int64(0))

	// A process that is set up otherwise leaves a rewrapping alone.
	_, err = m.RewrapDataKeys(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	keys.off = true
	done, err := m.ContinueRotations(t.Context())
	is.NoErr(err)
	is.True(!done)
	s.moved(m)
	is.Equal(s.wrappedBy(s.Organization.ID)[vault.PurposeSeal], current(keys))
	status, err = m.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.Equal(status.Rewrap, 0)
}

// With the organization its own key goes, and with that every backup since it had
// one; that of another organization stays, and the log can be verified. A provider that
// can't is asked again, and until it has it is pending.
func TestDestroyOrganizationsOwnKey(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(k *ownKeys) (mend func()){
		"at once": nil,
		"away":    func(k *ownKeys) func() { k.fails = vault.ErrUnavailable; return func() { k.fails = nil } },
		"slow":    func(k *ownKeys) func() { k.waiting = true; return func() { k.waiting = false } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			destroyOwnKey(t, fail)
		})
	}
}

func destroyOwnKey(t *testing.T, fail func(k *ownKeys) (mend func())) {
	is := is.New(t)
	keys := newOwnKeys(ring(t, 2))
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Keys = keys })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	k.Allow(agent, tool)
	other, err := k.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Other", Owner: "eve@example.com"})
	is.NoErr(err)
	theirs, ours := current(&ownKey{keys, other.Organization.ID}), current(&ownKey{keys, k.Organization.ID})
	mend := func() {}
	if fail != nil {
		mend = fail(keys)
	}
	plan, err := k.PlanDestruction(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(plan.Outer, []string{ours})
	d, err := k.DestroyOrganization(t.Context(), k.Owner, agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation})
	is.NoErr(err)
	is.Equal(d.Pending, fail != nil)
	_, err = k.Vend(t.Context(), caller, tool.ID)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	if fail != nil {
		is.Equal(d.Outer, []agentkey.OuterKey{{ID: ours, State: agentkey.OuterHeld}})
		mend()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		until(t, func() bool {
			s, err := k.KeysStatus(t.Context(), asHost(k.Owner), agentkey.KeysStatusInput{})
			return err == nil && !s.Destruction.Pending
		})
		stop()
		is.NoErr(<-ended)
	}
	status, err := k.KeysStatus(t.Context(), asHost(k.Owner), agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.True(!status.Destruction.Pending)
	is.Equal(status.Destruction.Outer, []agentkey.OuterKey{{ID: ours, State: agentkey.OuterGone}})
	is.Equal(status.Rewrap, 0)
	is.Equal(current(&ownKey{keys, k.Organization.ID}), "")
	is.Equal(current(&ownKey{keys, other.Organization.ID}), theirs)
	report, err := k.Verify(t.Context(), asHost(k.Owner))
	is.NoErr(err)
	is.True(report.OK())
	agreed, err := k.Reconcile(t.Context(), asHost(k.Owner))
	is.NoErr(err)
	is.True(agreed.OK())
	found, err := k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
	var export strings.Builder
	is.NoErr(k.Export(t.Context(), asHost(k.Owner), &export))
	is.Equal(strings.Count(export.String(), string(audit.ActionOuterKeyDestroyed)), 1)
	k.Clock.Advance(time.Hour)
	is.NoErr(k.Sweep(t.Context()))
}
