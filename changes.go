package agentkey

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// event begins an event of this unit.
func (u *unit) event(w who, action audit.Action) *entry {
	e := &entry{Event: audit.Event{
		Organization: u.organization, Time: u.now, Action: action, Outcome: audit.OutcomeOK,
		Actor: w.actor, Salt: audit.NewSalt(),
		Request: idOrNone(w.context.Request), ClientRequest: idOrNone(w.context.ClientRequest), Trace: idOrNone(w.context.Trace),
	}}
	e.personal = audit.Personal{ActorLabel: label(w.label), UserAgent: label(w.context.UserAgent)}
	if w.context.Address.IsValid() {
		e.personal.Address = w.context.Address.Unmap().WithZone("").String()
	}
	u.events = append(u.events, e)
	return e
}

// change seals a row and notes in the event what it became.
func (u *unit) change(e *entry, r vault.Row) ([]byte, error) {
	seal, err := u.ring.rows.Seal(r)
	if err != nil {
		return nil, fmt.Errorf("agentkey: seal row: %w", err)
	}
	state := r.State(e.Salt)
	e.Changes = append(e.Changes, audit.Change{Kind: r.Kind, ID: r.Record, Revision: r.Revision, State: state[:]})
	return seal, nil
}

func (u *unit) removed(e *entry, kind, id string, revision int64) {
	e.Changes = append(e.Changes, audit.Change{Kind: kind, ID: id, Revision: revision + 1, Removed: true})
}

func (u *unit) putOrganization(e *entry, o storage.Organization) (err error) {
	o.UpdatedAt = u.now
	if o.Seal, err = u.change(e, o.Row(u.installation)); err != nil {
		return err
	}
	u.org = &o
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutOrganization(ctx, o) })
	return nil
}

func (u *unit) putAgent(e *entry, a storage.Agent) (err error) {
	a.UpdatedAt = u.now
	if a.Seal, err = u.change(e, a.Row(u.installation)); err != nil {
		return err
	}
	u.agents[a.ID] = a
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutAgent(ctx, a) })
	return nil
}

func (u *unit) putKey(e *entry, k storage.Key) (err error) {
	k.UpdatedAt = u.now
	if k.Seal, err = u.change(e, k.Row(u.installation)); err != nil {
		return err
	}
	u.keys[k.ID] = k
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutKey(ctx, k) })
	return nil
}

func (u *unit) putTool(e *entry, t storage.Tool) (err error) {
	t.UpdatedAt = u.now
	if t.Seal, err = u.change(e, t.Row(u.installation)); err != nil {
		return err
	}
	u.tools[t.ID] = t
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutTool(ctx, t) })
	return nil
}

func (u *unit) deleteTool(e *entry, t storage.Tool) {
	u.removed(e, audit.KindTool, t.ID, t.Revision)
	delete(u.tools, t.ID)
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.DeleteTool(ctx, t.ID, t.Revision)
	})
}

// putCredential writes a credential. With fresh, its value was just sealed.
func (u *unit) putCredential(e *entry, c storage.Credential, fresh bool) (err error) {
	if fresh {
		if err := u.justSealed(e, audit.KindCredential, c.ID, c.Sealed); err != nil {
			return err
		}
	}
	c.UpdatedAt = u.now
	if c.Seal, err = u.change(e, c.Row(u.installation)); err != nil {
		return err
	}
	u.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}] = c
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutCredential(ctx, c) })
	return nil
}

func (u *unit) deleteCredential(e *entry, c storage.Credential) {
	u.removed(e, audit.KindCredential, c.ID, c.Revision)
	delete(u.credentials, storage.CredentialRef{Tool: c.Tool, Grant: c.Grant})
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.DeleteCredential(ctx, c.ID, c.Revision)
	})
}

func (u *unit) putGrant(e *entry, g grants.Grant) (err error) {
	if g.Seal, err = u.change(e, storage.GrantRow(u.installation, g)); err != nil {
		return err
	}
	u.grants[storage.Pair{Agent: g.Agent, Tool: g.Tool}] = g
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutGrant(ctx, g) })
	return nil
}

func (u *unit) putApproval(e *entry, a grants.Approval) (err error) {
	if a.Seal, err = u.change(e, storage.ApprovalRow(u.installation, a)); err != nil {
		return err
	}
	u.approvals[a.Grant] = append(slices.DeleteFunc(slices.Clone(u.approvals[a.Grant]), func(b grants.Approval) bool {
		return storage.ApprovalID(a) == storage.ApprovalID(b)
	}), a)
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutApproval(ctx, a) })
	return nil
}

func (u *unit) putDataKey(e *entry, k storage.DataKey) (err error) {
	k.UpdatedAt = u.now
	if k.Seal, err = u.change(e, k.Row(u.installation)); err != nil {
		return err
	}
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutDataKey(ctx, k) })
	return nil
}

func (u *unit) putRecord(e *entry, r storage.Record) (err error) {
	r.Organization, r.UpdatedAt = u.organization, u.now
	if r.Seal, err = u.change(e, r.Row(u.installation)); err != nil {
		return err
	}
	u.records[recordRef{r.Kind, r.ID}] = r
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutRecord(ctx, r) })
	return nil
}

func (u *unit) deleteRecord(e *entry, r storage.Record) {
	u.removed(e, r.Kind, r.ID, r.Revision)
	delete(u.records, recordRef{r.Kind, r.ID})
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.DeleteRecord(ctx, r.Kind, r.ID, r.Revision)
	})
}

// sortedGrants gives the grants read that match, in the order of their ids, so
// that events come in the same order in every run.
func (u *unit) sortedGrants(match func(grants.Grant) bool) []grants.Grant {
	var found []grants.Grant
	for _, g := range u.grants {
		if match(g) {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, func(a, b grants.Grant) int { return strings.Compare(a.ID, b.ID) })
	return found
}

func every(grants.Grant) bool { return true }

func (u *unit) sortedKeys() []storage.Key {
	return slices.SortedFunc(maps.Values(u.keys), func(a, b storage.Key) int { return strings.Compare(a.ID, b.ID) })
}

// usable says whether a sealed value's key may still open it.
func (u *unit) usable(sealed []byte) error {
	id, err := vault.SealedKeyID(sealed)
	if err != nil {
		return err
	}
	switch u.states[id] {
	case vault.KeyActive, vault.KeyDecryptOnly:
		return nil
	}
	return vault.ErrUnknownKey
}

// then notes what follows the commit.
func (u *unit) then(f func()) { u.committed = append(u.committed, f) }

// idOrNone leaves out what can't stand in an event as an id: whoever sent it,
// the event itself must not fail by it.
func idOrNone(s string) string {
	if len(s) > 128 || !isID(s) {
		return ""
	}
	return s
}

// label makes any text fit to be a label.
func label(s string) string {
	return cut(strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD"), 1024)
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}

// fromMicros is the time of a record, the zero Time for none.
func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
