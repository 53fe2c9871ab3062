package bunstore

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

var (
	_ storage.Summarizer = (*reader)(nil)
	_ storage.KeyLister  = (*reader)(nil)
	_ storage.Recency    = (*Store)(nil)
)

// newest is the newest grants of each id of a list, of one status. Both databases
// walk an index for each id and stop at the limit; they are told so in their own
// words.
func newest(column statement, postgres bool) statement {
	of := statement(" FROM @grants AS x WHERE x.organization = ? AND x.") + column + " = "
	const rest = " AND x.status = ? ORDER BY x.id DESC LIMIT ?"
	if postgres {
		return "SELECT " + grantRelation.list("g") + " FROM @list CROSS JOIN LATERAL (SELECT x.*" + of + "p.v ->> 0" + rest + ") AS g"
	}
	return "SELECT " + grantRelation.list("g") + " FROM @list CROSS JOIN @grants AS g WHERE g.rowid IN (SELECT x.rowid" + of + "p.v ->> 0" + rest + ")"
}

// counted is how many grants of one status each id of a list has.
func counted(column statement) statement {
	return "SELECT p.v ->> 0, (SELECT count(*) FROM @grants AS x WHERE x.organization = ? AND x." + column +
		" = p.v ->> 0 AND x.status = ?) FROM @list"
}

// GrantSummaries implements storage.Summarizer.
func (r *reader) GrantSummaries(ctx context.Context, q storage.SummaryQuery) ([]storage.GrantSummary, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return nil, err
	}
	column, ids := statement("agent_id"), q.Agents
	of := func(g *grants.Grant) string { return g.Agent }
	if len(q.Tools) > 0 {
		column, ids = "tool_id", q.Tools
		of = func(g *grants.Grant) string { return g.Tool }
	}
	if len(ids) == 0 {
		return nil, nil
	}
	wanted := make([][1]string, 0, len(ids))
	for _, id := range unique(ids) {
		wanted = append(wanted, [1]string{id})
	}
	text, err := list(wanted)
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	var all []storage.GrantSummary
	for _, status := range unique(q.Statuses) {
		some, err := r.summaries(ctx, column, text, status, q.Limit, of)
		if err != nil {
			return nil, r.fail(ctx, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

func (r *reader) summaries(
	ctx context.Context, column statement, ids string, status grants.Status, limit int, of func(*grants.Grant) string,
) (all []storage.GrantSummary, err error) {
	place := make(map[string]int)
	args := []any{r.organization, string(status), ids}
	err = r.each(ctx, counted(column), args, func(rows Row) error {
		s := storage.GrantSummary{Status: status}
		err := scan(rows, &s.ID, &s.Count)
		if err == nil && s.Count > 0 {
			shown := int(min(s.Count, int64(limit)))
			s.Grants = make([]grants.Grant, 0, shown)
			place[s.ID] = len(all)
			all = append(all, s)
		}
		return err
	})
	if err != nil || len(all) == 0 {
		return all, err
	}
	args = []any{ids, r.organization, string(status), int64(limit)}
	one := make([]grants.Grant, 0, 1)
	collect := grantRelation.collect(&one)
	err = r.each(ctx, newest(column, r.store.postgres), args, func(rows Row) error {
		one = one[:0]
		err := collect(rows)
		if err != nil {
			return err
		}
		if i, ok := place[of(&one[0])]; ok {
			all[i].Grants = append(all[i].Grants, one[0])
		}
		return nil
	})
	for _, s := range all {
		if !r.store.postgres { // which finds them by their rows, and mostly the oldest first
			slices.Reverse(s.Grants)
		}
		slices.SortFunc(s.Grants, func(a, b grants.Grant) int { return strings.Compare(b.ID, a.ID) })
	}
	return all, err
}

// latestOf is, for each pair of a list, the first and the time of the newest event
// that has the second as a value of a term.
const latestOf statement = `SELECT p.v ->> 0, (SELECT e.time FROM @event_times AS e WHERE e.organization = ? AND e.seq = (
		SELECT max(t.seq) FROM @event_terms AS t WHERE t.organization = ? AND t.term = ? AND t.value = p.v ->> 1)) FROM @list`

// LatestEvents implements storage.Recency.
func (s *Store) LatestEvents(ctx context.Context, organization string, agents []string, actions []audit.Action) (map[string]int64, error) {
	if err := cmp.Or(s.enter(ctx, append([]string{organization}, agents...)...), checkIDs(len(agents))); err != nil {
		return nil, err
	}
	latest := make(map[string]int64, len(agents))
	var pairs [][2]string
	for _, agent := range unique(agents) {
		for _, action := range actions {
			pairs = append(pairs, [2]string{agent, joined(agent, string(action))})
		}
	}
	if len(pairs) == 0 {
		return latest, nil
	}
	wanted, err := list(pairs)
	if err != nil {
		return nil, err
	}
	if err := s.catchUp(ctx, organization); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, storage.ViewTime)
	defer cancel()
	err = s.read(bounded, organization, func(r *reader) error {
		err := r.each(bounded, latestOf, []any{organization, organization, agentAction, wanted}, func(rows Row) error {
			var agent string
			var at sql.NullInt64
			err := scan(rows, &agent, &at)
			if at.Valid {
				latest[agent] = max(latest[agent], at.Int64)
			}
			return err
		})
		return s.translate(ctx, err)
	})
	return latest, err
}
