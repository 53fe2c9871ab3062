package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
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

// apart is a statement for each arm.
func apart(arms []arm) (each []statement) {
	for _, a := range arms {
		each = append(each, statement("SELECT "+strings.Join(a.columns, ", ")+" "+a.from))
	}
	return each
}

// wide is a statement that reads rows of several relations in one round trip. A
// row has the number of its arm, and then as many columns of each sort as the arm
// with the most has; what an arm does not have is NULL.
type wide struct {
	text   statement
	places [][]int // by arm and column: where in a row it stands
	width  int
}

func union(postgres bool, arms ...arm) wide {
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
				row[first[s]+i] = "NULL"
				if postgres {
					row[first[s]+i] = "CAST(NULL AS " + sortNames[s] + ")"
				}
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

// rows returns a function that adds a row to b.
func (w wide) rows(b *storage.Bulk) func(Row) error {
	row := &wideRow{wide: w, bulk: b}
	slots := make([]slot, w.width)
	all := make([]any, w.width)
	for i := range slots {
		slots[i] = slot{row, i}
		all[i] = &slots[i]
	}
	return func(rows Row) error {
		row.fields = nil
		return scan(rows, all...)
	}
}

// wideRow is the row that is being read: its first column says what the others are.
type wideRow struct {
	wide
	bulk   *storage.Bulk
	fields []any // by column; nil: none
}

// slot takes one column.
type slot struct {
	row *wideRow
	at  int
}

// Scan implements sql.Scanner.
func (s *slot) Scan(column any) error {
	r := s.row
	if s.at > 0 {
		if r.fields == nil {
			return errors.New("bunstore: a row without its arm")
		}
		if f := r.fields[s.at]; f != nil {
			return assign(f, column)
		}
		return nil
	}
	arm, ok := column.(int64)
	if !ok || arm < 0 || arm >= int64(len(r.places)) {
		return errors.New("bunstore: no such arm")
	}
	r.fields = make([]any, r.width)
	for i, f := range another(r.bulk, arm) {
		r.fields[r.places[arm][i]] = f
	}
	return nil
}

// assign is what database/sql does with a column, for what a wide row holds.
func assign(field, column any) error {
	switch f := field.(type) {
	case sql.Scanner:
		return f.Scan(column)
	case *int64:
		if n, ok := column.(int64); ok {
			*f = n
			return nil
		}
	case *bool:
		switch c := column.(type) {
		case bool:
			*f = c
			return nil
		case int64: // SQLite knows no other
			*f = c != 0
			return nil
		}
	case *[]byte:
		switch c := column.(type) {
		case []byte:
			*f = append(make([]byte, 0, len(c)), c...)
			return nil
		case nil:
			*f = nil
			return nil
		}
	default:
		var text string
		switch c := column.(type) {
		case string:
			text = c
		case []byte:
			text = string(c)
		default:
			return errors.New("bunstore: column is no text")
		}
		if s, ok := field.(*string); ok {
			*s = text
			return nil
		}
		if v := reflect.ValueOf(field).Elem(); v.Kind() == reflect.String {
			v.SetString(text)
			return nil
		}
	}
	return errors.New("bunstore: column of another type")
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

// selectOne reads what a BulkQuery asks for, by whether it is Postgres, where that
// is one of each at most. Where it is more, on Postgres, selectArms do, or selectBulk
// where each of those would be a round trip.
var (
	selectOne  = map[bool]wide{false: readsOne(false), true: readsOne(true)}
	selectArms = apart(bulkArms)
	selectBulk = union(true, bulkArms...)
)

// nobody is a list in which nothing is.
const nobody = "[]"

const (
	pairOf  = "g.organization = ? AND g.agent_id = p.v ->> 0 AND g.tool_id = p.v ->> 1"
	ownOf   = "c.organization = ? AND c.tool_id = g.tool_id AND coalesce(c.grant_id, '') = g.id"
	sharing = "c.organization = ? AND c.tool_id = p.v AND coalesce(c.grant_id, '') = ''"
)

// by finds each row by its own key, whatever the planner thinks of how many are
// wanted, or knows of a table that was empty when it looked.
func by(alias, table, condition string) string {
	return " CROSS JOIN LATERAL (SELECT * FROM @" + table + " AS " + alias + " WHERE " + condition + " LIMIT 1) AS " + alias
}

var bulkArms = []arm{
	armOf(organizationRelation, "o", "FROM @organizations AS o WHERE o.id = ?"),
	armOf(dataKeyRelation, "k", "FROM @data_keys AS k WHERE k.organization = ?"),
	armOf(keyRelation, "k", "FROM @each"+by("k", "keys", "k.organization = ? AND k.id = p.v")),
	armOf(grantRelation, "g", "FROM @list"+by("g", "grants", pairOf)),
	armOf(agentRelation, "a", "FROM @each"+by("a", "agents", "a.organization = ? AND a.id = p.v")),
	armOf(toolRelation, "t", "FROM @each"+by("t", "tools", "t.organization = ? AND t.id = p.v")),
	armOf(credentialRelation, "c", "FROM @each"+by("c", "credentials", sharing)),
	armOf(credentialRelation, "c", "FROM @list"+by("g", "grants", pairOf)+by("c", "credentials", ownOf)),
	armOf(windowRelation, "w", "FROM @list"+by("w", "windows", "w.organization = ? AND w.tier = p.v ->> 0 AND w.subject = p.v ->> 1")),
}

// readsOne has the same arms: much of what few rows cost is taking lists apart.
func readsOne(postgres bool) wide {
	one := strings.NewReplacer("p.v ->> 0", "?", "p.v ->> 1", "?", "p.v", "?").Replace
	return union(postgres,
		armOf(organizationRelation, "o", "FROM @organizations AS o WHERE o.id = ?"),
		armOf(dataKeyRelation, "k", "FROM @data_keys AS k WHERE k.organization = ?"),
		armOf(keyRelation, "k", "FROM @keys AS k WHERE k.organization = ? AND k.id = ?"),
		armOf(grantRelation, "g", "FROM @grants AS g WHERE "+one(pairOf)),
		armOf(agentRelation, "a", "FROM @agents AS a WHERE a.organization = ? AND a.id = ?"),
		armOf(toolRelation, "t", "FROM @tools AS t WHERE t.organization = ? AND t.id = ?"),
		armOf(credentialRelation, "c", "FROM @credentials AS c WHERE "+one(sharing)),
		armOf(credentialRelation, "c", "FROM @grants AS g CROSS JOIN @credentials AS c WHERE "+one(pairOf)+" AND "+ownOf),
		armOf(windowRelation, "w", "FROM @windows AS w WHERE w.organization = ? AND w.tier = ? AND w.subject = ?"),
	)
}

// single says whether a query asks for one of each at most.
func single(q storage.BulkQuery) bool {
	return max(len(q.Keys), len(q.Agents), len(q.Tools), len(q.Pairs), len(q.Windows)) <= 1
}

// oneArgs are the arguments of selectOne. A NULL finds nothing.
func oneArgs(organization string, q storage.BulkQuery) []any {
	only := func(ids []string) any {
		if len(ids) == 0 {
			return nil
		}
		return ids[0]
	}
	var agent, tool, tier, subject any
	for _, p := range q.Pairs {
		agent, tool = p.Agent, p.Tool
	}
	for _, w := range q.Windows {
		tier, subject = w.Tier, w.Subject
	}
	toolOf, agentOf := only(q.Tools), agent
	if !q.Credentials {
		toolOf, agentOf = nil, nil
	}
	o := organization
	return []any{o, o, o, only(q.Keys), o, agent, tool, o, only(q.Agents), o, only(q.Tools), o, toolOf, o, agentOf, tool, o, o, tier, subject}
}

// bulkArgs are the arguments of each of the bulkArms.
func bulkArgs(organization string, q storage.BulkQuery) ([][]any, error) {
	pairs := make([][2]string, len(q.Pairs))
	for i, p := range q.Pairs {
		pairs[i] = [2]string{p.Agent, p.Tool}
	}
	windows := make([][2]string, len(q.Windows))
	for i, w := range q.Windows {
		windows[i] = [2]string{w.Tier, w.Subject}
	}
	var failed error
	args := make([][]any, armWindows+1)
	add := func(text string, err error, arms ...int) {
		failed = errors.Join(failed, err)
		for _, arm := range arms {
			args[arm] = []any{text, organization}
		}
	}
	keys, err := list(unique(q.Keys))
	add(keys, err, armKeys)
	agents, err := list(unique(q.Agents))
	add(agents, err, armAgents)
	tools, err := list(unique(q.Tools))
	add(tools, err, armTools, armToolCredentials)
	paired, err := list(unique(pairs))
	add(paired, err, armGrants, armGrantCredentials)
	windowed, err := list(unique(windows))
	add(windowed, err, armWindows)
	if !q.Credentials {
		add(nobody, nil, armToolCredentials, armGrantCredentials)
	}
	args[armOrganization], args[armDataKeys] = []any{organization}, []any{organization}
	args[armGrantCredentials] = append(args[armGrantCredentials], organization)
	return args, failed
}

// ReadBulk implements storage.BulkReader.
func (r *reader) ReadBulk(ctx context.Context, q storage.BulkQuery) (b storage.Bulk, err error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return b, err
	}
	if a := r.ahead; a != nil {
		if r.ahead = nil; a.query.Covers(q) {
			return a.bulk, nil
		}
	}
	return b, r.fail(ctx, r.readInto(ctx, q, &b))
}

// readInto reads what q asks for: by one statement if it is little, or if each would
// be a round trip, and else relation by relation, because rows of many relations that
// are made alike are mostly columns of NULL.
func (r *reader) readInto(ctx context.Context, q storage.BulkQuery, b *storage.Bulk) error {
	if single(q) {
		w := selectOne[r.store.postgres]
		return r.each(ctx, w.text, oneArgs(r.organization, q), w.rows(b))
	}
	if !r.store.postgres {
		var err error
		*b, err = storage.ReadBulk(ctx, nearby{r, r}, q)
		return err
	}
	args, err := bulkArgs(r.organization, q)
	if err != nil {
		return err
	}
	if r.pipe == nil {
		return r.each(ctx, selectBulk.text, slices.Concat(args...), selectBulk.rows(b))
	}
	for arm, text := range selectArms {
		if args[arm][0] == nobody {
			continue
		}
		each := func(row Row) error { return scan(row, another(b, int64(arm))...) }
		if r.pipe.keep(r.store.sql(text), args[arm], each) {
			continue
		}
		if err := r.each(ctx, text, args[arm], each); err != nil {
			return err
		}
	}
	ctx, _, cancel := bounded(ctx)
	defer cancel()
	return r.pipe.flush(ctx)
}

// another is the fields of one more row of an arm.
func another(b *storage.Bulk, arm int64) []any {
	switch arm {
	case armOrganization:
		b.Organization = new(storage.Organization)
		return organizationRelation.fields(b.Organization)
	case armDataKeys:
		return dataKeyRelation.fields(added(&b.DataKeys))
	case armKeys:
		return keyRelation.fields(added(&b.Keys))
	case armGrants:
		return grantRelation.fields(added(&b.Grants))
	case armAgents:
		return agentRelation.fields(added(&b.Agents))
	case armTools:
		return toolRelation.fields(added(&b.Tools))
	case armToolCredentials, armGrantCredentials:
		return credentialRelation.fields(added(&b.Credentials))
	}
	return windowRelation.fields(added(&b.Windows))
}

// added is a new last element of a list.
func added[T any](items *[]T) *T {
	*items = append(*items, *new(T))
	return &(*items)[len(*items)-1]
}
