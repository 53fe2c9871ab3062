package agentkey

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Operator is whoever runs the installation itself: the actor that creates
// organizations. It has no access to any organization's records.
func Operator(label string) Actor {
	return Actor{Organization: storage.System, Kind: "operator", ID: "operator", Label: label, Role: RoleOwner, Auth: "local"}
}

// CreateOrganization makes an organization with its data keys, its log, its
// first owner and that owner's token. The actor is an Operator. With First it
// fails with ErrNotFirst when the installation has a first organization.
//
// It is registered in the reserved log first and then begins its own. If it is
// cut off in between, Reconcile of the reserved organization names it.
func (m *Manager) CreateOrganization(ctx context.Context, a Actor, in CreateOrganizationInput) (CreatedOrganization, error) {
	if err := m.authorize(ctx, a, OpCreateOrganization); err != nil {
		return CreatedOrganization{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return CreatedOrganization{}, err
	}
	if err := checkPreset(in.Token); err != nil {
		return CreatedOrganization{}, err
	}
	if err := m.enter(); err != nil {
		return CreatedOrganization{}, err
	}
	defer m.leave()
	if err := m.checkFree(ctx, in.Token); err != nil {
		if in.First && errors.Is(err, ErrTokenTaken) {
			err = ErrNotFirst // who has the token has an organization
		}
		return CreatedOrganization{}, err
	}
	// Its keys come first: with a provider that is away nothing is registered.
	id, now := newID(), micros(m.config.Clock())
	keys, rows, err := m.newKeys(ctx, id, now, vault.PurposeRow, vault.PurposeSeal)
	if err != nil {
		return CreatedOrganization{}, err
	}
	defer func() { destroyKeys(keys.keys) }()
	registered, err := m.register(ctx, a, id, in.First)
	if err != nil {
		return CreatedOrganization{}, err
	}
	if registered != id { // the first one, which somebody registered before
		destroyKeys(keys.keys)
		if keys, rows, err = m.newKeys(ctx, registered, now, vault.PurposeRow, vault.PurposeSeal); err != nil {
			keys = &ring{}
			return CreatedOrganization{}, err
		}
	}
	return m.beginOrganization(ctx, a, in, registered, now, keys, rows)
}

// checkFree refuses a token that somebody has already.
func (m *Manager) checkFree(ctx context.Context, token *Secret) error {
	if token == nil {
		return nil
	}
	found, err := m.store.FindRecord(ctx, kindToken, hex.EncodeToString(digestOf(token)))
	if err != nil {
		return storageError(err)
	}
	if len(found) > 0 {
		return ErrTokenTaken
	}
	return nil
}

// firstOrganization is the record that says which organization is the first.
var firstOrganization = recordRef{kindRegistration, "first"}

type registrationPayload struct {
	Organization string `json:"organization"`
}

// register writes into the reserved log that an organization is about to begin
// under the id new, and answers its id. The first one is registered once: whoever
// comes later, also after a crash, gets the same id, and only one can begin it.
func (m *Manager) register(ctx context.Context, a Actor, new string, first bool) (id string, err error) {
	n := needs{}
	if first {
		n.records = []recordRef{firstOrganization}
	}
	err = m.act(ctx, a, OpCreateOrganization, n, func(u *unit) error {
		if r, ok := u.records[firstOrganization]; ok {
			var p registrationPayload
			if err := json.Unmarshal(r.Payload, &p); err != nil {
				return &integrityError{kind: r.Kind, id: r.ID}
			}
			id = p.Organization
			return nil
		}
		id = new
		e := u.event(a.who(), audit.ActionOrganizationRegistered)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: id}
		if !first {
			return nil
		}
		payload, err := json.Marshal(registrationPayload{Organization: id})
		if err != nil {
			return err
		}
		return u.putRecord(e, storage.Record{Kind: kindRegistration, ID: firstOrganization.id, Payload: payload, Revision: 1})
	})
	return id, err
}

func (m *Manager) beginOrganization(ctx context.Context, a Actor, in CreateOrganizationInput, id string, now int64, keys *ring, rows []storage.DataKey) (CreatedOrganization, error) {
	signing, err := m.keys.acquire(ctx, storage.System, false)
	if err != nil {
		return CreatedOrganization{}, err
	}
	defer signing.release()
	secret := in.Token
	if secret == nil {
		secret = newKey(tokenPrefix)
	}
	var out CreatedOrganization
	err = m.update(ctx, id, func(ctx context.Context, tx storage.Tx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		if head.Size > 0 {
			return ErrNotFirst
		}
		u := m.firstUnit(id, now, keys)
		if out, err = u.firstRecords(a, in, id, rows, secret); err != nil {
			return err
		}
		for _, w := range u.writes {
			ok, err := w(ctx, tx)
			if err != nil {
				return err
			}
			if !ok {
				return errConflict
			}
		}
		_, err = m.appendEvents(ctx, tx, u, u.events, storage.Head{}, audit.Tree{}, signing.signer)
		return err
	})
	m.anchors.changed(id)
	if err != nil {
		return CreatedOrganization{}, fmt.Errorf("agentkey: begin organization: %w", storageError(err))
	}
	return out, nil
}

func (u *unit) firstRecords(a Actor, in CreateOrganizationInput, id string, rows []storage.DataKey, secret *Secret) (out CreatedOrganization, err error) {
	e := u.event(a.who(), audit.ActionOrganizationCreated)
	e.Target = audit.Ref{Kind: audit.KindOrganization, ID: id}
	if err := u.putOrganization(e, storage.Organization{ID: id, Name: in.Name, CreatedAt: u.now, Revision: 1}); err != nil {
		return out, err
	}
	for _, d := range rows {
		if err := u.putDataKey(e, d); err != nil {
			return out, err
		}
	}
	admin := newID()
	e = u.event(a.who(), audit.ActionAdministratorCreated)
	e.Target, e.To = audit.Ref{Kind: audit.KindAdministrator, ID: admin}, string(RoleOwner)
	e.personal.Extra = map[string]string{"label": in.Owner}
	out.Administrator, err = u.putAdministrator(e, admin, 1, administratorPayload{
		Label: in.Owner, Kind: audit.ActorHuman, Role: RoleOwner, CreatedAt: u.now,
	})
	if err != nil {
		return out, err
	}
	out.Organization = *u.org
	out.Token.Secret = secret
	out.Token.Token, err = u.issueToken(a.who(), CreateTokenInput{Administrator: admin, Name: "first"}, secret)
	return out, err
}

// Organization reads the actor's organization.
func (m *Manager) Organization(ctx context.Context, a Actor) (Organization, error) {
	if err := m.authorize(ctx, a, OpReadOrganization); err != nil {
		return Organization{}, err
	}
	var out *Organization
	err := m.view(ctx, a.Organization, needs{ended: true}, func(u *unit) { out = u.org })
	switch {
	case err != nil:
		return Organization{}, err
	case out == nil:
		return Organization{}, ErrNoOrganization
	}
	return *out, nil
}

// Organizations names every organization, for an Operator.
func (m *Manager) Organizations(ctx context.Context, a Actor) ([]Organization, error) {
	if err := m.authorize(ctx, a, OpCreateOrganization); err != nil {
		return nil, err
	}
	out := []Organization{}
	err := m.eachOrganization(ctx, func(id string) error {
		if id == storage.System {
			return nil
		}
		return m.view(ctx, id, needs{ended: true}, func(u *unit) {
			if u.org != nil {
				out = append(out, *u.org)
			}
		})
	})
	return out, err
}

// eachOrganization calls fn for every organization that has a log.
func (m *Manager) eachOrganization(ctx context.Context, fn func(id string) error) error {
	const page = 500
	after := ""
	for {
		ids, err := m.store.Organizations(ctx, after, page)
		if err != nil {
			return storageError(err)
		}
		for _, id := range ids {
			if err := fn(id); err != nil {
				return err
			}
			after = id
		}
		if len(ids) < page {
			return nil
		}
	}
}

// UpdateOrganization renames the organization.
func (m *Manager) UpdateOrganization(ctx context.Context, a Actor, name string) (Organization, error) {
	if err := m.authorize(ctx, a, OpUpdateOrganization); err != nil {
		return Organization{}, err
	}
	in := struct {
		Name string `validate:"utf16min=2,utf16max=120,plain" json:"name"`
	}{name}
	if err := m.validation.input(&in); err != nil {
		return Organization{}, err
	}
	return m.changeOrganization(ctx, a, OpUpdateOrganization, audit.ActionOrganizationUpdated, "", func(o *Organization) bool {
		o.Name = in.Name
		return true
	})
}

// Lock refuses every vend and every request of the organization from the moment
// it returns until it is unlocked: one field, one event. Locking a locked
// organization changes nothing.
func (m *Manager) Lock(ctx context.Context, a Actor, reason string) (Organization, error) {
	return m.setLocked(ctx, a, OpLockdown, audit.ActionOrganizationLocked, reason, true)
}

// Unlock ends a lock. After AcceptRestore it says that the grants were reviewed, and
// the event names the epoch.
func (m *Manager) Unlock(ctx context.Context, a Actor, reason string) (Organization, error) {
	return m.setLocked(ctx, a, OpUnlock, audit.ActionOrganizationUnlocked, reason, false)
}

func (m *Manager) setLocked(ctx context.Context, a Actor, op Operation, action audit.Action, reason string, locked bool) (Organization, error) {
	if err := m.authorize(ctx, a, op); err != nil {
		return Organization{}, err
	}
	in := struct {
		Reason string `validate:"utf16max=500,text" json:"reason"`
	}{reason}
	if err := m.validation.input(&in); err != nil {
		return Organization{}, err
	}
	return m.changeOrganization(ctx, a, op, action, in.Reason, func(o *Organization) bool {
		changed := o.Locked != locked
		o.Locked = locked
		return changed
	})
}

func (m *Manager) changeOrganization(ctx context.Context, a Actor, op Operation, action audit.Action, text string, change func(o *Organization) bool) (Organization, error) {
	var out Organization
	var n needs
	if action == audit.ActionOrganizationUnlocked {
		n.records = []recordRef{restoreReview}
	}
	err := m.act(ctx, a, op, n, func(u *unit) error {
		out = *u.org
		if !change(&out) {
			return nil
		}
		e := u.event(a.who(), action)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: out.ID}
		e.personal.Text = text
		out.Revision++
		if err := u.putOrganization(e, out); err != nil {
			return err
		}
		out = *u.org
		if action == audit.ActionOrganizationUnlocked {
			return u.endReview(e)
		}
		return nil
	})
	return out, err
}
