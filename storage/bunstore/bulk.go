package bunstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
)

var _ storage.BulkReader = (*reader)(nil)

// sort is what a column holds, as far as both databases tell it.
type sort int

const (
	sortText sort = iota
	sortInteger
	sortBytes
	sortFlag
	sorts
)

// sortNames are the types that a missing column is cast to.
var sortNames = [sorts]string{"text", "bigint", "bytea", "boolean"}

func sortOf(field any) sort {
	switch field.(type) {
	case *int64:
		return sortInteger
	case *[]byte:
		return sortBytes
	case *bool:
		return sortFlag
	}
	return sortText
}

// arm is one relation's part of a statement that reads several: its columns, what
// each holds, and where its rows come from.
type arm struct {
	columns []string
	sorts   []sort
	from    string
}

func armOf[T any](rel *relation[T], alias, from string) arm {
	a := arm{from: from}
	for i, field := range rel.fields(new(T)) {
		a.columns = append(a.columns, alias+"."+rel.columns[i])
		a.sorts = append(a.sorts, sortOf(field))
	}
	return a
}

// wide is a statement that reads rows of several relations in one round trip. A
// row has the number of its arm, and then as many columns of each sort as the arm
// with the most has; what an arm does not have is NULL.
type wide struct {
	text   statement
	places [][]int // by arm and column: where in a row it stands
	width  int
}

func union(arms ...arm) wide {
	var most [sorts]int
	for _, a := range arms {
		var count [sorts]int
		for _, s := range a.sorts {
			count[s]++
			most[s] = max(most[s], count[s])
		}
	}
	var first [sorts]int
	w := wide{width: 1}
	for s := range sorts {
		first[s] = w.width
		w.width += most[s]
	}
	var texts []string
	for n, a := range arms {
		row := make([]string, w.width)
		row[0] = fmt.Sprint(n)
		for s := range sorts {
			for i := range most[s] {
				row[first[s]+i] = "CAST(NULL AS " + sortNames[s] + ")"
			}
		}
		next, places := first, make([]int, len(a.columns))
		for i, s := range a.sorts {
			places[i], row[next[s]] = next[s], a.columns[i]
			next[s]++
		}
		w.places = append(w.places, places)
		texts = append(texts, "SELECT "+strings.Join(row, ", ")+" "+a.from)
	}
	w.text = statement(strings.Join(texts, " UNION ALL "))
	return w
}

// nothing takes a column that a row does not have.
type nothing struct{}

// Scan implements sql.Scanner.
func (nothing) Scan(any) error { return nil }

// read calls take for every row, with the number of its arm and a function that
// scans it into the fields of that arm's relation.
func (w wide) read(ctx context.Context, r *reader, args []any, take func(arm int64, scan func(fields []any) error) error) error {
	into := make([]any, w.width)
	var absent any = nothing{}
	if r.pipe != nil {
		absent = nil
	}
	return r.each(ctx, w.text, args, func(rows Row) error {
		var n int64
		for i := range into {
			into[i] = absent
		}
		into[0] = &n
		if err := scan(rows, into...); err != nil {
			return err
		}
		return take(n, func(fields []any) error {
			for i, place := range w.places[n] {
				into[place] = fields[i]
			}
			return scan(rows, into...)
		})
	})
}

// The arms of ReadBulk.
const (
	armOrganization = iota
	armDataKeys
	armKeys
	armGrants
	armAgents
	armTools
	armToolCredentials
	armGrantCredentials
	armWindows
)

var windowRelation = newRelation("windows", `organization tier subject times updated_at`, 3, 3, func(w *storage.Window) []any {
	return []any{new(string), &w.Tier, &w.Subject, &w.Times, &w.UpdatedAt}
})

// selectBulk reads what a BulkQuery asks for, by whether it is Postgres.
var selectBulk = map[bool]wide{false: readsBulk(false), true: readsBulk(true)}

func readsBulk(postgres bool) wide {
	// Each row is found by its own key, whatever the planner thinks of how many are
	// wanted, or knows of a table that was empty when it looked.
	by := func(alias, table, condition string) string {
		if postgres {
			return " CROSS JOIN LATERAL (SELECT * FROM @" + table + " AS " + alias + " WHERE " + condition + " LIMIT 1) AS " + alias
		}
		return " CROSS JOIN @" + table + " AS " + alias
	}
	from := func(list, alias, table, condition string) string {
		text := "FROM " + list + by(alias, table, condition)
		if !postgres {
			text += " WHERE " + condition
		}
		return text
	}
	const (
		pair = "g.organization = ? AND g.agent_id = p.v ->> 0 AND g.tool_id = p.v ->> 1"
		own  = "c.organization = ? AND c.tool_id = g.tool_id AND coalesce(c.grant_id, '') = g.id"
	)
	owned := "FROM @list" + by("g", "grants", pair) + by("c", "credentials", own)
	if !postgres {
		owned += " WHERE " + pair + " AND " + own
	}
	return union(
		armOf(organizationRelation, "o", "FROM @organizations AS o WHERE o.id = ?"),
		armOf(dataKeyRelation, "k", "FROM @data_keys AS k WHERE k.organization = ?"),
		armOf(keyRelation, "k", from("@each", "k", "keys", "k.organization = ? AND k.id = p.v")),
		armOf(grantRelation, "g", from("@list", "g", "grants", pair)),
		armOf(agentRelation, "a", from("@each", "a", "agents", "a.organization = ? AND a.id = p.v")),
		armOf(toolRelation, "t", from("@each", "t", "tools", "t.organization = ? AND t.id = p.v")),
		armOf(credentialRelation, "c", from("@each", "c", "credentials", "c.organization = ? AND c.tool_id = p.v AND coalesce(c.grant_id, '') = ''")),
		armOf(credentialRelation, "c", owned),
		armOf(windowRelation, "w", from("@list", "w", "windows", "w.organization = ? AND w.tier = p.v ->> 0 AND w.subject = p.v ->> 1")),
	)
}

// bulkArgs are the arguments of selectBulk.
func bulkArgs(organization string, q storage.BulkQuery) ([]any, error) {
	pairs := make([][2]string, len(q.Pairs))
	for i, p := range q.Pairs {
		pairs[i] = [2]string{p.Agent, p.Tool}
	}
	windows := make([][2]string, len(q.Windows))
	for i, w := range q.Windows {
		windows[i] = [2]string{w.Tier, w.Subject}
	}
	keys, err := list(unique(q.Keys))
	if err != nil {
		return nil, err
	}
	agents, err := list(unique(q.Agents))
	if err != nil {
		return nil, err
	}
	tools, err := list(unique(q.Tools))
	if err != nil {
		return nil, err
	}
	paired, err := list(unique(pairs))
	if err != nil {
		return nil, err
	}
	windowed, err := list(unique(windows))
	if err != nil {
		return nil, err
	}
	toolsOf, pairsOf := "[]", "[]"
	if q.Credentials {
		toolsOf, pairsOf = tools, paired
	}
	o := organization
	return []any{o, o, keys, o, paired, o, agents, o, tools, o, toolsOf, o, pairsOf, o, o, windowed, o}, nil
}

// ReadBulk implements storage.BulkReader.
func (r *reader) ReadBulk(ctx context.Context, q storage.BulkQuery) (b storage.Bulk, err error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return b, err
	}
	args, err := bulkArgs(r.organization, q)
	if err != nil {
		return b, r.fail(ctx, err)
	}
	err = selectBulk[r.store.postgres].read(ctx, r, args, func(arm int64, scan func([]any) error) error {
		switch arm {
		case armOrganization:
			b.Organization = new(storage.Organization)
			return scan(organizationRelation.fields(b.Organization))
		case armDataKeys:
			return scan(dataKeyRelation.fields(another(&b.DataKeys)))
		case armKeys:
			return scan(keyRelation.fields(another(&b.Keys)))
		case armGrants:
			return scan(grantRelation.fields(another(&b.Grants)))
		case armAgents:
			return scan(agentRelation.fields(another(&b.Agents)))
		case armTools:
			return scan(toolRelation.fields(another(&b.Tools)))
		case armToolCredentials, armGrantCredentials:
			return scan(credentialRelation.fields(another(&b.Credentials)))
		}
		return scan(windowRelation.fields(another(&b.Windows)))
	})
	return b, r.fail(ctx, err)
}

// another is a new last element of a list.
func another[T any](items *[]T) *T {
	*items = append(*items, *new(T))
	return &(*items)[len(*items)-1]
}
