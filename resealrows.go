package agentkey

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// moveRows seals rows with the active row key: each gets its next revision, as the
// log has to know it, and stays as it is otherwise.
func (s *resealer) moveRows(ctx context.Context, rows []rowRef) error {
	moved := 0
	err := s.m.commit(ctx, &operation{organization: s.organization, needs: rowNeeds(rows), decide: func(u *unit) error {
		moved = 0
		if err := s.sameKeys(u); err != nil {
			return err
		}
		x := &rowMover{u: u}
		err := x.all()
		moved = x.moved
		return err
	}})
	switch {
	case errors.Is(err, ErrIntegrity) && len(rows) > 1:
		for i := range rows {
			if err := s.moveRows(ctx, rows[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	case errors.Is(err, ErrIntegrity):
		damaged := (*integrityError)(nil)
		if !errors.As(err, &damaged) || damaged.kind == audit.KindDataKey {
			return err
		}
		for id := range s.old { // nobody can say which key its seal is of
			s.stuck[id]++
		}
		return nil
	case err != nil:
		return err
	}
	s.progress.Done += int64(min(moved, len(rows)))
	return nil
}

// rowNeeds reads rows by what they are.
func rowNeeds(rows []rowRef) (n needs) {
	for _, r := range rows {
		switch r.kind {
		case audit.KindOrganization, audit.KindDataKey: // are always read
		case audit.KindAgent:
			n.agents = both(n.agents, []string{r.id})
		case audit.KindKey:
			n.keys = both(n.keys, []string{r.id})
		case audit.KindTool:
			n.tools = both(n.tools, []string{r.id})
		case audit.KindGrant:
			n.grants = both(n.grants, []string{r.id})
		case audit.KindApproval:
			n.grants, n.approvals = both(n.grants, []string{r.of.Grant}), true
		case audit.KindCredential:
			n.credentials = true
			if r.of.Grant != "" {
				n.grants = both(n.grants, []string{r.of.Grant})
			} else {
				n.tools = both(n.tools, []string{r.of.Tool})
			}
		default:
			n.records = append(n.records, recordRef{r.kind, r.id})
		}
	}
	return n
}

// rowMover seals anew, of what a unit has read, whatever is sealed with another key
// than the active one.
type rowMover struct {
	u     *unit
	e     *entry
	in    int // rows in e
	moved int
}

// maxRows is how many rows one event names: it has a bounded length.
const maxRows = 100

// one puts a row that is sealed with an older key.
func (x *rowMover) one(seal []byte, put func(e *entry) error) error {
	if !older(x.u, seal) {
		return nil
	}
	if x.e == nil || x.in == maxRows {
		x.e, x.in = x.u.event(system, audit.ActionRowsResealed), 0
		x.e.Target = audit.Ref{Kind: audit.KindDataKey, ID: x.u.ring.rows.KeyID()}
	}
	x.in++
	x.e.Count = int64(x.in)
	x.moved++
	return put(x.e)
}

func (x *rowMover) all() error {
	u := x.u
	for _, step := range []func() error{x.singles, x.accounts, x.catalog, x.access} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, r := range sorted(u.records, func(r storage.Record) string { return r.Kind + "/" + r.ID }) {
		err := x.one(r.Seal, func(e *entry) error { r.Revision++; return u.putRecord(e, r) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *rowMover) singles() error {
	u := x.u
	if o := u.org; o != nil {
		err := x.one(o.Seal, func(e *entry) error { next := *o; next.Revision++; return u.putOrganization(e, next) })
		if err != nil {
			return err
		}
	}
	for _, d := range u.dataKeys {
		d.Organization = u.organization
		if err := x.one(d.Seal, func(e *entry) error { d.Revision++; return u.putDataKey(e, d) }); err != nil {
			return err
		}
	}
	return nil
}

func (x *rowMover) accounts() error {
	u := x.u
	for _, a := range sorted(u.agents, func(a storage.Agent) string { return a.ID }) {
		if err := x.one(a.Seal, func(e *entry) error { a.Revision++; return u.putAgent(e, a) }); err != nil {
			return err
		}
	}
	for _, k := range u.sortedKeys() {
		if err := x.one(k.Seal, func(e *entry) error { k.Revision++; return u.putKey(e, k) }); err != nil {
			return err
		}
	}
	return nil
}

func (x *rowMover) catalog() error {
	u := x.u
	for _, t := range sorted(u.tools, func(t storage.Tool) string { return t.ID }) {
		if err := x.one(t.Seal, func(e *entry) error { t.Revision++; return u.putTool(e, t) }); err != nil {
			return err
		}
	}
	for _, c := range sorted(u.credentials, func(c storage.Credential) string { return c.ID }) {
		if err := x.one(c.Seal, func(e *entry) error { c.Revision++; return u.putCredential(e, c, false) }); err != nil {
			return err
		}
	}
	return nil
}

func (x *rowMover) access() error {
	u := x.u
	for _, g := range u.sortedGrants(every) {
		if err := x.one(g.Seal, func(e *entry) error { g.Revision++; return u.putGrant(e, g) }); err != nil {
			return err
		}
	}
	for _, of := range slices.Sorted(maps.Keys(u.approvals)) {
		for _, a := range slices.Clone(u.approvals[of]) {
			if err := x.one(a.Seal, func(e *entry) error { return x.approval(e, a) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *rowMover) approval(e *entry, a grants.Approval) error {
	a.Revision++
	return x.u.putApproval(e, a)
}

// sorted gives the values of a map in the order of their ids, so that events come in
// the same order in every run.
func sorted[K comparable, V any](m map[K]V, id func(V) string) []V {
	return slices.SortedFunc(maps.Values(m), func(a, b V) int { return strings.Compare(id(a), id(b)) })
}

// sealCounts is how much is sealed with each data key.
type sealCounts struct {
	values, rows map[string]int64
	older        int64 // of both, what is sealed with a key that is not active
}

// countSeals counts what is sealed with each data key, by reading all of it.
func (m *Manager) countSeals(ctx context.Context, organization string) (sealCounts, error) {
	c := sealCounts{values: make(map[string]int64), rows: make(map[string]int64)}
	active := make(map[string]bool)
	count := func(by map[string]int64, id string, err error) {
		if err == nil {
			by[id]++
			if !active[id] {
				c.older++
			}
		}
	}
	walk := rowWalk{
		organization: organization,
		page: func(ctx context.Context, fn func(context.Context, storage.ReadTx, *unit) error) error {
			return m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
				if err := u.load(ctx, tx, &needs{ended: true}); err != nil {
					return err
				}
				clear(active)
				for _, id := range activeKeys(u.dataKeys) {
					active[id] = true
				}
				return fn(ctx, tx, u)
			})
		},
		check: func(_ *unit, _ vault.Row, seal []byte) {
			id, err := vault.RowSealKeyID(seal)
			count(c.rows, id, err)
		},
		sealed: func(_ *unit, v sealedValue) {
			id, err := vault.SealedKeyID(v.sealed)
			count(c.values, id, err)
		},
	}
	return c, walk.run(ctx)
}
