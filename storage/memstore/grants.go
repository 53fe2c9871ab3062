package memstore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

func (r *reader) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return storage.GrantPage{}, err
	}
	if len(q.IDs)+len(q.Pairs) > 0 {
		ids := slices.Clone(q.IDs)
		for _, p := range q.Pairs {
			if id, ok := r.grantFor.get(key(p.Agent, p.Tool)); ok {
				ids = append(ids, id)
			}
		}
		return storage.GrantPage{Grants: byID(r.grants, ids, copyGrant)}, nil
	}
	match := func(g *grants.Grant) bool {
		return (q.Agent == "" || q.Agent == g.Agent) && (q.Tool == "" || q.Tool == g.Tool) &&
			(len(q.Statuses) == 0 || slices.Contains(q.Statuses, g.Status))
	}
	var p storage.GrantPage
	p.Grants, p.Total = list(r.grants, q.After, q.Limit, q.Total, match, copyGrant)
	return p, nil
}

func (t *tx) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	if err := t.enter(ctx, storage.CheckGrant(g, t.name)); err != nil {
		return false, err
	}
	old, ok := t.grants.get(g.ID)
	switch {
	case !ok && g.Revision == 1:
		if !t.agents.has(g.Agent) || !t.tools.has(g.Tool) {
			return false, t.invalid("grant of no agent or no tool")
		}
		if t.grantFor.has(key(g.Agent, g.Tool)) {
			return false, nil
		}
		t.grantFor = t.grantFor.put(key(g.Agent, g.Tool), g.ID)
	case !ok || !follows(g.Revision, old.Revision):
		return false, nil
	case g.Agent != old.Agent || g.Tool != old.Tool:
		return false, t.invalid("identity of a grant changed")
	}
	stored := copyGrant(g)
	t.grants = t.grants.put(g.ID, stored)
	t.atEnd(grantEnd(old), grantEnd(stored))
	return true, nil
}

func (r *reader) Approvals(ctx context.Context, grantIDs []string) ([]grants.Approval, error) {
	if err := r.enter(ctx, checkIDs(len(grantIDs)), storage.CheckText(grantIDs...)); err != nil {
		return nil, err
	}
	wanted := slices.Compact(slices.Sorted(slices.Values(grantIDs)))
	var found []grants.Approval
	for _, grant := range wanted {
		prefix := key(grant, "")
		for k, a := range r.approvals.ascend(prefix) {
			if !strings.HasPrefix(k, prefix) {
				break
			}
			found = append(found, *copyApproval(*a))
		}
	}
	slices.SortStableFunc(found, func(a, b grants.Approval) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Cycle, b.Cycle))
	})
	return found, nil
}

func (t *tx) PutApproval(ctx context.Context, a grants.Approval) (bool, error) {
	if err := t.enter(ctx, storage.CheckApproval(a, t.name)); err != nil {
		return false, err
	}
	id := key(a.Grant, timeKey(a.Cycle)+a.ActorKind, a.Actor)
	var stands int64
	if old, ok := t.approvals.get(id); ok {
		stands = old.Revision
	}
	if !follows(a.Revision, stands) {
		return false, nil
	}
	if !t.grants.has(a.Grant) {
		return false, t.invalid("approval of no grant")
	}
	t.approvals = t.approvals.put(id, copyApproval(a))
	return true, nil
}
