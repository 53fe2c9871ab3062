package agentkey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// DestructionPlan says what DestroyOrganization would do. It changes nothing.
type DestructionPlan struct {
	Organization string
	Name         string
	DataKeys     []string // that would be destroyed
	// Outer are the ids of the provider's keys that wrapped them: whoever has a
	// backup and one of these can open what is in the backup.
	Outer []string
	// Confirmation is what DestroyOrganization wants to be given. It is of what the
	// plan says, and of nothing else.
	Confirmation string
}

// DestroyOrganizationInput confirms a destruction twice: by the organization's name
// and by the plan that was read.
type DestroyOrganizationInput struct {
	Name         string `validate:"required,max=500" json:"name"`
	Confirmation string `validate:"required,max=128" json:"confirmation"`
	Reason       string `validate:"utf16max=500,text" json:"reason"`
}

// Destruction is what became of a destroyed organization.
type Destruction struct {
	DestroyedAt time.Time
	// Pending says that backups may still be opened: Outer says by which keys.
	Pending bool
	Outer   []OuterKey
}

// OuterKey is a key of the provider that wrapped data keys of a destroyed
// organization.
type OuterKey struct {
	ID string
	// State is gone when the provider can't unwrap with it any more, held when it
	// can, and unknown when it does not tell. Of copies that somebody keeps elsewhere
	// nobody but them knows.
	State string
	// InUse says that it wraps data keys that are needed: those have to be wrapped by
	// another one, by RewrapDataKeys, before it can go.
	InUse bool
}

// The states of an OuterKey.
const (
	OuterGone    = "gone"
	OuterHeld    = "held"
	OuterUnknown = "unknown"
)

// kindDestruction is the kind of the record that says that an organization was
// destroyed.
const kindDestruction = "destruction"

var destroyed = recordRef{kindDestruction, "self"}

type destructionPayload struct {
	At    int64    `json:"at"`
	Outer []string `json:"outer"`
	Gone  []string `json:"gone,omitempty"` // of Outer, the organization's own that the provider has destroyed
	// Probe is a random key that is used for nothing, wrapped by the provider's key of
	// that moment: whether it unwraps tells whether that key is still there.
	Probe *probe `json:"probe,omitempty"`
}

type probe struct {
	Key      string `json:"key"`
	Provider string `json:"provider"`
	Blob     []byte `json:"blob"`
}

// destroyedKeys says whether nothing of an organization can be opened any more.
func destroyedKeys(keys []storage.DataKey) bool {
	n := 0
	for _, d := range keys {
		if d.Purpose == vault.PurposeSeal {
			if d.State != vault.KeyDestroyed {
				return false
			}
			n++
		}
	}
	return n > 0
}

// PlanDestruction says what DestroyOrganization would destroy, and gives the
// confirmation that it wants.
//
// The errors: ErrForbidden, ErrLimited, ErrOrganizationDestroyed, ErrUnavailable.
func (m *Manager) PlanDestruction(ctx context.Context, a Actor) (p DestructionPlan, err error) {
	if err := m.authorize(ctx, a, OpPlanDestruction); err != nil {
		return p, err
	}
	none := false
	err = m.view(ctx, a.Organization, needs{recordKinds: []string{kindOuterKey}}, func(u *unit) {
		if none = u.org == nil; !none {
			p = u.destructionPlan()
		}
	})
	if err == nil && none {
		err = ErrNoOrganization
	}
	return p, err
}

func (u *unit) destructionPlan() DestructionPlan {
	p := DestructionPlan{Organization: u.organization, Name: u.org.Name}
	for _, d := range u.dataKeys {
		if d.Purpose != vault.PurposeSeal {
			continue
		}
		p.Outer = append(p.Outer, d.Provider)
		if d.State != vault.KeyDestroyed {
			p.DataKeys = append(p.DataKeys, d.ID)
		}
	}
	for ref := range u.records {
		if ref.kind == kindOuterKey {
			p.Outer = append(p.Outer, ref.id)
		}
	}
	slices.Sort(p.DataKeys)
	slices.Sort(p.Outer)
	p.Outer = slices.Compact(p.Outer)
	h := sha256.New()
	for _, part := range append(append([]string{"agentkey/destroy", u.organization, p.Name}, p.DataKeys...), p.Outer...) {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	p.Confirmation = hex.EncodeToString(h.Sum(nil)[:16])
	return p
}

// DestroyOrganization destroys the keys of everything that an organization has
// sealed, at once and for ever: from the commit on no process opens any of it, and
// nothing but the log can be read. Its log stays, can be verified and exported, and
// still writes down what comes to its end.
//
// Copies of the wrapped keys in backups can be unwrapped for as long as the
// provider's key exists that wrapped them. A provider with the power
// vault.OrganizationKeys is asked to destroy those that are the organization's own;
// one that can't now is asked again by Run. What is answered, and KeysStatus later,
// says which have to go: it is Pending until the provider has none of them.
//
// The errors: ErrForbidden, ErrInvalid, ErrChanged when the confirmation is of
// another plan, ErrOrganizationDestroyed, ErrUnavailable.
func (m *Manager) DestroyOrganization(ctx context.Context, a Actor, in DestroyOrganizationInput) (Destruction, error) {
	if err := m.authorize(ctx, a, OpDestroyOrganization); err != nil {
		return Destruction{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Destruction{}, err
	}
	if err := m.enter(); err != nil {
		return Destruction{}, err
	}
	defer m.leave()
	// A provider that is away must not keep anybody from destroying keys: without a
	// probe it is only unknown what became of the provider's key.
	probe := m.probe(ctx, a.Organization)
	n := needs{records: []recordRef{reseal}, recordKinds: []string{kindOuterKey}}
	err := m.act(ctx, a, OpDestroyOrganization, n, func(u *unit) error {
		p := u.destructionPlan()
		switch {
		case in.Name != p.Name:
			return invalid("name", "is not the organization's")
		case in.Confirmation != p.Confirmation:
			return ErrChanged
		}
		return u.destroy(a, p, in.Reason, probe)
	})
	if err != nil {
		return Destruction{}, err
	}
	m.keys.forget(a.Organization)
	if err := m.destroyOwnKeys(ctx, a.Organization); err != nil {
		m.log.LogAttrs(ctx, slog.LevelWarn, "destroy an organization's own key", slog.String("organization", a.Organization), slog.Any("error", err))
	}
	d, err := afterCommit(m.destruction(ctx, a.Organization))
	if err != nil {
		return Destruction{}, err
	}
	return *d, nil
}

// destroy destroys the seal keys, locks the organization and notes what became.
func (u *unit) destroy(a Actor, p DestructionPlan, reason string, probe *probe) error {
	e := u.event(a.who(), audit.ActionOrganizationDestroyed)
	e.Target = audit.Ref{Kind: audit.KindOrganization, ID: u.organization}
	e.personal.Text = reason
	org := *u.org
	org.Locked = true
	org.Revision++
	if err := u.putOrganization(e, org); err != nil {
		return err
	}
	for _, d := range u.dataKeys {
		if d.Purpose != vault.PurposeSeal || d.State == vault.KeyDestroyed {
			continue
		}
		if err := u.destroyKey(a.who(), d); err != nil {
			return err
		}
	}
	if job, ok := u.records[reseal]; ok {
		u.deleteRecord(e, job)
	}
	return u.putPayload(e, storage.Record{Kind: destroyed.kind, ID: destroyed.id, Revision: 1},
		destructionPayload{At: u.now, Outer: p.Outer, Probe: probe})
}

// destroyOwnKeys has the provider destroy the outer keys that are the organization's
// own. Its values can't be opened by then: this ends the copies in backups. What the
// provider has done is noted, in the log too.
func (m *Manager) destroyOwnKeys(ctx context.Context, organization string) error {
	owner, ok := m.config.Keys.(vault.OrganizationKeys)
	if !ok {
		return nil
	}
	p, err := lookUp[destructionPayload](ctx, m, organization, destroyed.kind, destroyed.id)
	if err != nil {
		return err
	}
	bounded, cancel := m.keys.bounded(ctx)
	defer cancel()
	var failed error
	for _, id := range p.Outer {
		if slices.Contains(p.Gone, id) {
			continue
		}
		switch gone, err := owner.DestroyKey(bounded, organization, id); {
		case errors.Is(err, vault.ErrProvider): // it is not the organization's own
		case err != nil:
			failed = errors.Join(failed, keyError(err))
		case gone:
			failed = errors.Join(failed, m.ownKeyGone(ctx, organization, id))
		}
	}
	return failed
}

func (m *Manager) ownKeyGone(ctx context.Context, organization, id string) error {
	return m.commit(ctx, &operation{organization: organization, needs: needs{records: []recordRef{destroyed}, ended: true}, decide: func(u *unit) error {
		p, r, err := payloadOf[destructionPayload](u, destroyed)
		if err != nil || r.Revision == 0 || slices.Contains(p.Gone, id) {
			return err
		}
		e := u.event(system, audit.ActionOuterKeyDestroyed)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: organization}
		e.Details = map[string]string{"provider": id}
		p.Gone = append(slices.Clip(p.Gone), id)
		r.Revision++
		return u.putPayload(e, r, p)
	}})
}

// finishDestructions asks the provider again for what it could not destroy.
func (m *Manager) finishDestructions(ctx context.Context) error {
	if _, ok := m.config.Keys.(vault.OrganizationKeys); !ok {
		return nil
	}
	organizations, err := m.store.FindRecord(ctx, destroyed.kind, destroyed.id)
	failed := storageError(err)
	for _, id := range organizations {
		failed = errors.Join(failed, m.destroyOwnKeys(ctx, id))
	}
	return failed
}

// probe has a key wrapped that is used for nothing; nil when that fails. Where an
// organization has a key of its own none is made for that: the provider tells.
func (m *Manager) probe(ctx context.Context, organization string) *probe {
	if m.keys.ownKeys() {
		return nil
	}
	key, row, err := m.keys.wrap(ctx, organization, vault.PurposeSeal, 0)
	if err != nil {
		return nil
	}
	key.Destroy()
	return &probe{Key: row.ID, Provider: row.Provider, Blob: row.Wrapped}
}

// destruction is what became of an organization; nil when it was not destroyed.
func (m *Manager) destruction(ctx context.Context, organization string) (*Destruction, error) {
	p, err := lookUp[destructionPayload](ctx, m, organization, destroyed.kind, destroyed.id)
	if err != nil || p.At == 0 {
		return nil, err
	}
	out := &Destruction{DestroyedAt: fromMicros(p.At)}
	for _, id := range p.Outer {
		k := OuterKey{ID: id, State: OuterGone}
		if !slices.Contains(p.Gone, id) {
			k.State = m.outerState(ctx, organization, id, p.Probe)
		}
		if k.State != OuterGone {
			out.Pending = true
			if k.InUse, err = m.wraps(ctx, id); err != nil {
				return nil, err
			}
		}
		out.Outer = append(out.Outer, k)
	}
	return out, nil
}

// outerState asks the provider whether it still has a key.
func (m *Manager) outerState(ctx context.Context, organization, id string, p *probe) string {
	ctx, cancel := m.keys.bounded(ctx)
	defer cancel()
	if h, ok := m.config.Keys.(vault.KeyHolder); ok {
		switch held, err := h.HoldsKey(ctx, id); {
		case err == nil && held:
			return OuterHeld
		case err == nil:
			return OuterGone
		}
	}
	if p == nil || p.Provider != id {
		return OuterUnknown
	}
	key, err := vault.Unwrap(ctx, m.config.Keys, vault.Wrapped{Provider: p.Provider, Blob: p.Blob}, p.Key, vault.PurposeSeal, vault.Context{
		Installation: m.installation, Organization: organization, Purpose: string(vault.PurposeSeal), Key: p.Key,
	})
	switch {
	case err == nil:
		key.Destroy()
		return OuterHeld
	case errors.Is(err, vault.ErrUnknownKey):
		return OuterGone
	}
	return OuterUnknown
}

var errWraps = errors.New("agentkey: found")

// wraps says whether a key of the provider wraps any data key.
func (m *Manager) wraps(ctx context.Context, provider string) (bool, error) {
	err := m.eachOrganization(ctx, func(id string) error {
		keys, err := m.dataKeys(ctx, id)
		for _, d := range keys {
			if d.State != vault.KeyDestroyed && d.Provider == provider {
				return errWraps
			}
		}
		return err
	})
	if errors.Is(err, errWraps) {
		return true, nil
	}
	return false, err
}
