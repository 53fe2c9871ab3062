package bunstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage"
)

var organizationRelation = newRelation("organizations",
	`id revision name locked created_at updated_at seal`,
	1, 1, func(o *storage.Organization) []any {
		return []any{&o.ID, &o.Revision, &o.Name, &o.Locked, &o.CreatedAt, &o.UpdatedAt, &o.Seal}
	})

var agentRelation = newRelation("agents",
	`organization id revision name description owner created_by created_by_label status created_at updated_at seal`,
	2, 2, func(a *storage.Agent) []any {
		return []any{
			&a.Organization, &a.ID, &a.Revision, &a.Name, &a.Description, &a.Owner, &a.CreatedBy, &a.CreatedByLabel,
			&a.Status, &a.CreatedAt, &a.UpdatedAt, &a.Seal,
		}
	})

var keyRelation = newRelation("keys",
	`organization id agent_id digest revision status expires_at addresses created_at updated_at seal`,
	2, 4, func(k *storage.Key) []any {
		return []any{
			&k.Organization, &k.ID, &k.Agent, &k.Digest, &k.Revision, &k.Status, &k.ExpiresAt, texts{&k.Addresses},
			&k.CreatedAt, &k.UpdatedAt, &k.Seal,
		}
	})

var (
	selectOrganization = "SELECT " + organizationRelation.list("o") + " FROM @organizations AS o WHERE o.id = ?"
	selectAgents       = "SELECT " + agentRelation.list("a") + " FROM @agents AS a WHERE a.organization = ? AND a.id @any ORDER BY a.id DESC"
	selectKeys         = "SELECT " + keyRelation.list("k") + " FROM @keys AS k WHERE k.organization = ? AND k.id @any ORDER BY k.id DESC"
	selectAgentsKeys   = "SELECT " + keyRelation.list("k") + " FROM @keys AS k WHERE k.organization = ? AND k.agent_id @any ORDER BY k.id DESC"
	selectKeyByDigest  = "SELECT " + keyRelation.list("k") + " FROM @keys AS k WHERE k.digest = ?"
)

func (r *reader) Organization(ctx context.Context) (o storage.Organization, ok bool, err error) {
	if err := r.enter(ctx); err != nil {
		return o, false, err
	}
	found, err := selected(ctx, r, organizationRelation, selectOrganization, r.organization)
	if err != nil || len(found) == 0 {
		return o, false, r.fail(ctx, err)
	}
	return found[0], true, nil
}

func (t *tx) PutOrganization(ctx context.Context, o storage.Organization) (bool, error) {
	if err := t.enter(ctx, o.Check(t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, organizationRelation, o, o.Revision)
}

func (r *reader) Agents(ctx context.Context, q storage.AgentQuery) (p storage.AgentPage, err error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return p, err
	}
	if len(q.IDs) > 0 {
		p.Agents, err = byIDs(ctx, r, agentRelation, selectAgents, q.IDs)
		p.Total = found(q.Total, p.Agents)
		return p, r.fail(ctx, err)
	}
	conditions := []condition{{"name = ?", q.Name}, {"status = ?", string(q.Status)}}
	p.Agents, p.Total, err = page(ctx, r, agentRelation, "agents", conditions, q.After, q.Limit, q.Total)
	return p, r.fail(ctx, err)
}

func (t *tx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	if err := t.enter(ctx, a.Check(t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, agentRelation, a, a.Revision)
}

func (r *reader) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return nil, err
	}
	keys, err := byIDs(ctx, r, keyRelation, selectKeys, q.IDs)
	if err == nil && len(q.Agents) > 0 {
		var more []storage.Key
		more, err = byIDs(ctx, r, keyRelation, selectAgentsKeys, q.Agents)
		keys = merge(keys, more, func(k *storage.Key) string { return k.ID })
	}
	return keys, r.fail(ctx, err)
}

// AgentKeys implements storage.KeyLister.
func (r *reader) AgentKeys(ctx context.Context, agent, after string, limit int) ([]storage.Key, error) {
	checks := []error{storage.CheckText(agent, after)}
	if limit < 1 || limit > storage.MaxPage || agent == "" {
		checks = append(checks, fmt.Errorf("%w: page of keys", storage.ErrInvalid))
	}
	if err := r.enter(ctx, checks...); err != nil {
		return nil, err
	}
	found, _, err := page(ctx, r, keyRelation, "keys", []condition{{"agent_id = ?", agent}}, after, limit, false)
	return found, r.fail(ctx, err)
}

// merge joins two lists of rows in descending order of ids, each row once.
func merge[T any](a, b []T, id func(*T) string) []T {
	if len(a) == 0 {
		return b
	}
	all := append(a, b...)
	slices.SortStableFunc(all, func(x, y T) int { return strings.Compare(id(&y), id(&x)) })
	return slices.CompactFunc(all, func(x, y T) bool { return id(&x) == id(&y) })
}

func (t *tx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	if err := t.enter(ctx, k.Check(t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, keyRelation, k, k.Revision)
}

// byIDs reads rows by a list of ids.
func byIDs[T any](ctx context.Context, r *reader, rel *relation[T], q statement, ids []string) ([]T, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	wanted, err := list(ids)
	if err != nil {
		return nil, err
	}
	return selected(ctx, r, rel, q, r.organization, wanted)
}

// found is the total of a query by ids.
func found[T any](total bool, rows []T) int64 {
	if !total {
		return 0
	}
	return int64(len(rows))
}

// condition holds for rows of which the expression, with its one argument, is
// true; for all rows when the argument is empty.
type condition struct {
	expression string
	value      any
}

func (c condition) empty() bool {
	if text, ok := c.value.(string); ok {
		return text == ""
	}
	return c.value == nil
}

// page lists rows in descending order of ids, and counts them when asked.
func page[T any](
	ctx context.Context, r *reader, rel *relation[T], table string, conditions []condition, after string, limit int, total bool,
) (rows []T, n int64, err error) {
	where := func() *bun.SelectQuery {
		q := r.bun.NewSelect().TableExpr(r.store.table(table)+" AS t").Where("t.organization = ?", r.organization)
		for _, c := range conditions {
			if !c.empty() {
				q = q.Where("t."+c.expression, c.value)
			}
		}
		return q
	}
	if limit > 0 {
		q := where().ColumnExpr(string(rel.list("t"))).OrderExpr("t.id DESC").Limit(int64(limit))
		if after != "" {
			q = q.Where("t.id < ?", after)
		}
		if rows, err = listed(ctx, r, rel, q); err != nil {
			return nil, 0, err
		}
	}
	if total {
		ctx, _, cancel := bounded(ctx)
		defer cancel()
		rows, err := r.built(ctx, where().ColumnExpr("count(*)"))
		err = drain(rows, err, func(rows Row) error { return scan(rows, &n) })
		if err != nil {
			return nil, 0, err
		}
	}
	return rows, n, nil
}
