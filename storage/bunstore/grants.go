package bunstore

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

var grantRelation = newRelation("grants",
	`organization id agent_id tool_id revision cycle status asked_duration asked_max_vends asked_scopes
	granted_duration granted_max_vends granted_scopes reason denial_reason ticket requested_at decided_at approved_at
	expires_at vends_used decided_by decided_by_label decided_by_kind required_approvals approvals created_at updated_at seal`,
	2, 4, func(g *grants.Grant) []any {
		return []any{
			&g.Organization, &g.ID, &g.Agent, &g.Tool, &g.Revision, &g.Cycle, &g.Status,
			&g.Asked.Duration, &g.Asked.MaxVends, texts{&g.Asked.Scopes},
			&g.Granted.Duration, &g.Granted.MaxVends, texts{&g.Granted.Scopes},
			&g.Reason, &g.DenialReason, &g.Ticket, &g.RequestedAt, &g.DecidedAt, &g.ApprovedAt, &g.ExpiresAt, &g.VendsUsed,
			&g.DecidedBy, &g.DecidedByLabel, &g.DecidedByKind, &g.RequiredApprovals, &g.Approvals,
			&g.CreatedAt, &g.UpdatedAt, &g.Seal,
		}
	})

var approvalRelation = newRelation("approvals",
	`organization grant_id cycle actor_kind actor revision actor_label verdict reason time
	granted_duration granted_max_vends granted_scopes owner_alone seal`,
	5, 5, func(a *grants.Approval) []any {
		return []any{
			&a.Organization, &a.Grant, &a.Cycle, &a.ActorKind, &a.Actor, &a.Revision, &a.ActorLabel, &a.Verdict, &a.Reason,
			&a.Time, &a.Terms.Duration, &a.Terms.MaxVends, texts{&a.Terms.Scopes}, &a.OwnerAlone, &a.Seal,
		}
	})

var dataKeyRelation = newRelation("data_keys",
	`organization id purpose revision state provider wrapped reserved created_at updated_at seal`,
	2, 3, func(k *storage.DataKey) []any {
		return []any{
			&k.Organization, &k.ID, &k.Purpose, &k.Revision, &k.State, &k.Provider, &k.Wrapped, &k.Reserved,
			&k.CreatedAt, &k.UpdatedAt, &k.Seal,
		}
	})

var (
	selectGrants = "SELECT " + grantRelation.list("g") + " FROM @grants AS g WHERE g.organization = ? AND g.id @any ORDER BY g.id DESC"
	selectPairs  = "SELECT " + grantRelation.list("g") + " FROM @list CROSS JOIN @grants AS g" +
		" WHERE g.organization = ? AND g.agent_id = p.v ->> 0 AND g.tool_id = p.v ->> 1 ORDER BY g.id DESC"
	selectApprovals = "SELECT " + approvalRelation.list("a") + " FROM @approvals AS a WHERE a.organization = ? AND a.grant_id @any" +
		" ORDER BY a.time, a.cycle, a.grant_id, a.actor_kind, a.actor"
	selectDataKeys = "SELECT " + dataKeyRelation.list("k") + " FROM @data_keys AS k WHERE k.organization = ? ORDER BY k.id DESC"
)

const (
	otherActive  statement = `SELECT 1 FROM @data_keys WHERE organization = ? AND purpose = ? AND state = 'active' AND id <> ?`
	reserveSeals statement = `UPDATE @data_keys SET reserved = reserved + ? WHERE organization = ? AND id = ?`
	readReserved statement = `SELECT reserved FROM @data_keys WHERE organization = ? AND id = ?`
)

func (r *reader) Grants(ctx context.Context, q storage.GrantQuery) (p storage.GrantPage, err error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return p, err
	}
	if len(q.IDs)+len(q.Pairs) > 0 {
		p.Grants, err = r.namedGrants(ctx, q)
		p.Total = found(q.Total, p.Grants)
		return p, r.fail(ctx, err)
	}
	conditions := []condition{{"agent_id = ?", q.Agent}, {"tool_id = ?", q.Tool}}
	if len(q.Statuses) > 0 {
		conditions = append(conditions, condition{"status IN (?)", bun.List(q.Statuses)})
	}
	p.Grants, p.Total, err = page(ctx, r, grantRelation, "grants", conditions, q.After, q.Limit, q.Total)
	return p, r.fail(ctx, err)
}

// namedGrants reads grants by their ids, their pairs, or both.
func (r *reader) namedGrants(ctx context.Context, q storage.GrantQuery) ([]grants.Grant, error) {
	named, err := byIDs(ctx, r, grantRelation, selectGrants, q.IDs)
	if err != nil || len(q.Pairs) == 0 {
		return named, err
	}
	pairs := make([][2]string, len(q.Pairs))
	for i, p := range q.Pairs {
		pairs[i] = [2]string{p.Agent, p.Tool}
	}
	paired, err := byPairs(ctx, r, grantRelation, selectPairs, pairs)
	return merge(named, paired, func(g *grants.Grant) string { return g.ID }), err
}

func (t *tx) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	if err := t.enter(ctx, storage.CheckGrant(g, t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, grantRelation, g, g.Revision)
}

func (r *reader) Approvals(ctx context.Context, grantIDs []string) ([]grants.Approval, error) {
	if err := r.enter(ctx, checkIDs(len(grantIDs)), storage.CheckText(grantIDs...)); err != nil {
		return nil, err
	}
	found, err := byIDs(ctx, r, approvalRelation, selectApprovals, grantIDs)
	return found, r.fail(ctx, err)
}

func (t *tx) PutApproval(ctx context.Context, a grants.Approval) (bool, error) {
	if err := t.enter(ctx, storage.CheckApproval(a, t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, approvalRelation, a, a.Revision)
}

func (r *reader) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	found, err := selected(ctx, r, dataKeyRelation, selectDataKeys, r.organization)
	return found, r.fail(ctx, err)
}

func (t *tx) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	if err := t.enter(ctx, k.Check(t.organization)); err != nil {
		return false, err
	}
	if k.State == vault.KeyActive {
		other, err := t.find(ctx, otherActive, t.organization, string(k.Purpose), k.ID)
		if other || err != nil {
			return false, t.fail(ctx, err)
		}
	}
	return put(ctx, t, dataKeyRelation, k, k.Revision)
}

func (t *tx) ReserveSeals(ctx context.Context, id string, n int64) (total int64, ok bool, err error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return 0, false, err
	}
	changed, err := t.exec(ctx, reserveSeals, n, t.organization, id)
	if ok, err = t.changed(ctx, changed, err); !ok || err != nil {
		return 0, false, err
	}
	err = t.each(ctx, readReserved, []any{t.organization, id}, func(rows Row) error { return scan(rows, &total) })
	return total, err == nil, t.fail(ctx, err)
}
