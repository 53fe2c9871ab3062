package bunstore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// The log is searched by an inverted index: for every line the terms that a
// filter may name, each with its value. It is written by those who search, in
// transactions of their own, and never by those who append.

// term is a property of an event that a filter selects by.
type term struct{ name, value string }

// terms are those of an event, each once: what Filter.Match looks at.
func terms(e *audit.Event) []term {
	all := []term{
		{"grant", e.Grant.ID}, {"target", e.Target.ID}, {"agent", e.Agent}, {"tool", e.Tool}, {"actor", e.Actor.ID},
		{"action", string(e.Action)}, {"outcome", string(e.Outcome)},
	}
	switch e.Target.Kind {
	case audit.KindGrant, audit.KindAgent, audit.KindTool:
		all = append(all, term{e.Target.Kind, e.Target.ID})
	}
	if e.Actor.Kind == audit.ActorAgent {
		all = append(all, term{"agent", e.Actor.ID})
	}
	all = named(unique(all))
	return append(all, pairTerms(all)...)
}

// Terms of two values, for pairs that are asked for together and of which each
// alone may be in most of a log: their intersection is one range of the index.
const (
	agentAction = "agent_action"
	agentTool   = "agent_tool"
	toolAction  = "tool_action"
	agentActor  = "agent_actor"
	toolActor   = "tool_actor"
)

// joined is the value of a term of two. No id holds a space.
func joined(a, b string) string { return a + " " + b }

// pairTerms are those of terms of one value. Whatever an agent did itself concerns
// it, so that the actor alone says as much.
func pairTerms(all []term) (pairs []term) {
	for _, pair := range [][3]string{
		{agentAction, "agent", "action"}, {agentTool, "agent", "tool"}, {toolAction, "tool", "action"},
		{agentActor, "agent", "actor"}, {toolActor, "tool", "actor"},
	} {
		for _, a := range all {
			for _, b := range all {
				if a.name == pair[1] && b.name == pair[2] && (pair[0] != agentActor || a.value != b.value) {
					pairs = append(pairs, term{pair[0], joined(a.value, b.value)})
				}
			}
		}
	}
	return pairs
}

// filterTerms are those that a filter asks for, the rarest kind first.
func filterTerms(f *audit.Filter) []term {
	wanted := named([]term{{"grant", f.Grant}, {"target", f.Target}})
	singles := named([]term{{"agent", f.Agent}, {"tool", f.Tool}, {"action", string(f.Action)}, {"actor", f.Actor}})
	pairs := pairTerms(singles)
	wanted = append(wanted, pairs...)
	for _, t := range singles {
		if !slices.ContainsFunc(pairs, func(p term) bool { return p.holds(t) }) {
			wanted = append(wanted, t)
		}
	}
	return append(wanted, named([]term{{"outcome", string(f.Outcome)}})...)
}

// holds reports whether a term of two is of one value as well.
func (t term) holds(one term) bool {
	first, second, _ := strings.Cut(t.name, "_")
	a, b, _ := strings.Cut(t.value, " ")
	return one == term{first, a} || one == term{second, b}
}

// named leaves out terms without a value.
func named(all []term) []term {
	return slices.DeleteFunc(all, func(t term) bool { return t.value == "" })
}

const (
	makeCursor statement = `INSERT INTO @event_cursors (organization, next_seq) VALUES (?, 0) ON CONFLICT DO NOTHING`
	// The no-op update locks the cursor's row on both databases.
	lockCursor   statement = `UPDATE @event_cursors SET next_seq = next_seq WHERE organization = ?`
	readCursor   statement = `SELECT next_seq FROM @event_cursors WHERE organization = ?`
	moveCursor   statement = `UPDATE @event_cursors SET next_seq = ? WHERE organization = ?`
	nextContents statement = `SELECT seq, content FROM @events WHERE organization = ? AND seq >= ? ORDER BY seq LIMIT ?`
	insertTimes  statement = `INSERT INTO @event_times (organization, seq, time)
		SELECT ?, CAST(p.v ->> 0 AS bigint), CAST(p.v ->> 1 AS bigint) FROM @list WHERE true ON CONFLICT DO NOTHING`
	insertTerms statement = `INSERT INTO @event_terms (organization, term, value, seq)
		SELECT ?, p.v ->> 0, p.v ->> 1, CAST(p.v ->> 2 AS bigint) FROM @list WHERE true ON CONFLICT DO NOTHING`
	dropTimes statement = `DELETE FROM @event_times WHERE organization = ?
		AND seq IN (SELECT CAST(p.v ->> 0 AS bigint) FROM @list)`
	dropTerms statement = `DELETE FROM @event_terms WHERE organization = ?
		AND (term, value, seq) IN (SELECT p.v ->> 0, p.v ->> 1, CAST(p.v ->> 2 AS bigint) FROM @list)`
	firstSince statement = `SELECT seq FROM @event_times WHERE organization = ? AND time >= ? ORDER BY time, seq LIMIT 1`
	lastUntil  statement = `SELECT seq FROM @event_times WHERE organization = ? AND time <= ? ORDER BY time DESC, seq DESC LIMIT 1`
	timeOf     statement = `SELECT time FROM @event_times WHERE organization = ? AND seq = ?`
)

// chunk is how many lines are indexed in one transaction, so that none holds
// SQLite's write lock for long.
const chunk = 500

// Events implements storage.Store. Lines whose content was removed are left
// out: nothing is known of them that a filter could select by.
func (s *Store) Events(ctx context.Context, organization string, q storage.EventQuery) (p storage.EventPage, err error) {
	if err := cmp.Or(s.enter(ctx, organization), q.Check()); err != nil {
		return p, err
	}
	if q.Count || q.Filter != (audit.Filter{}) {
		if err := s.catchUp(ctx, organization); err != nil {
			return p, err
		}
	}
	bounded, cancel := context.WithTimeout(ctx, storage.ViewTime)
	defer cancel()
	err = s.read(bounded, organization, func(r *reader) (err error) {
		p, err = r.events(bounded, q)
		return s.translate(ctx, err)
	})
	return p, err
}

// catchUp indexes what of a log is not yet.
func (s *Store) catchUp(ctx context.Context, organization string) error {
	for {
		if done, err := s.index(ctx, organization); done || err != nil {
			return err
		}
	}
}

// index indexes the next lines of a log, and reports whether they were the last.
// From an index that has lost lines it begins anew: what is there already stays.
func (s *Store) index(ctx context.Context, organization string) (done bool, err error) {
	behind, lost, err := s.behind(ctx, organization)
	if err != nil || !behind && !lost {
		return true, err
	}
	err = s.withWrite(ctx, organization, func(ctx context.Context, r *reader) error {
		next, err := r.takeCursor(ctx)
		if err != nil {
			return err
		}
		if lost {
			next = 0
		}
		done, err = r.indexFrom(ctx, next)
		return err
	})
	return done, err
}

// indexState says whether a log has lines above its cursor, and whether the index
// has lost some below: whether the last line there that has content has its time,
// and the last one that has its time has an outcome, as every event does. So a
// table that was emptied is noticed, and one that was cut off. Rows taken from
// between others are not: nothing but indexing all anew could tell.
const indexState statement = `SELECT at.size > at.next, EXISTS (SELECT 1 FROM @events AS e
		WHERE e.organization = at.organization AND e.seq > at.last AND e.seq < at.next AND e.content IS NOT NULL)
	OR at.last >= 0 AND NOT EXISTS (SELECT 1 FROM @event_terms AS o
		WHERE o.organization = at.organization AND o.term = 'outcome' AND o.value IN ('ok', 'refused', 'failed') AND o.seq = at.last)
	FROM (SELECT n.organization, n.size, n.next, coalesce((SELECT max(t.seq) FROM @event_times AS t
		WHERE t.organization = n.organization AND t.seq < n.next), -1) AS last
		FROM (SELECT l.organization, l.size, coalesce((SELECT c.next_seq FROM @event_cursors AS c WHERE c.organization = l.organization), 0) AS next
			FROM @logs AS l WHERE l.organization = ?) AS n) AS at`

func (s *Store) behind(ctx context.Context, organization string) (behind, lost bool, err error) {
	err = s.ask(ctx, indexState, []any{organization}, func(rows Row) error { return scan(rows, &behind, &lost) })
	return behind, lost, err
}

// takeCursor locks the organization's cursor and reads it.
func (r *reader) takeCursor(ctx context.Context) (next int64, err error) {
	if _, err := r.exec(ctx, makeCursor, r.organization); err != nil {
		return 0, err
	}
	if _, err := r.exec(ctx, lockCursor, r.organization); err != nil {
		return 0, err
	}
	err = r.each(ctx, readCursor, []any{r.organization}, func(rows Row) error { return scan(rows, &next) })
	return next, err
}

func (r *reader) indexFrom(ctx context.Context, next int64) (done bool, err error) {
	var times [][2]string
	var found [][3]string
	n := 0
	err = r.each(ctx, nextContents, []any{r.organization, next, int64(chunk)}, func(rows Row) error {
		var seq int64
		var content []byte
		if err := scan(rows, &seq, &content); err != nil {
			return err
		}
		n++
		next = seq + 1
		if content == nil {
			return nil
		}
		e, err := audit.Parse(content)
		if err != nil {
			return fmt.Errorf("%w: line %d", storage.ErrCorrupt, seq)
		}
		number := strconv.FormatInt(seq, 10)
		times = append(times, [2]string{number, strconv.FormatInt(e.Time, 10)})
		for _, t := range terms(&e) {
			found = append(found, [3]string{t.name, t.value, number})
		}
		return nil
	})
	if err != nil || n == 0 {
		return true, err
	}
	// In the order of the index, so that what lies together is written together.
	slices.SortFunc(found, func(a, b [3]string) int { return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1])) })
	if err := insertAll(ctx, r, insertTimes, times); err != nil {
		return false, err
	}
	if err := insertAll(ctx, r, insertTerms, found); err != nil {
		return false, err
	}
	_, err = r.exec(ctx, moveCursor, next, r.organization)
	return n < chunk, err
}

// insertAll inserts the rows of a list by one statement.
func insertAll[T any](ctx context.Context, r *reader, q statement, rows []T) error {
	text, err := list(rows)
	if err == nil {
		_, err = r.exec(ctx, q, r.organization, text)
	}
	return err
}

// forget takes lines whose content is being erased out of the index. It holds
// the cursor, so that nobody who read the content before can index it after.
func (t *tx) forget(ctx context.Context, erasures []storage.Erasure) error {
	if !slices.ContainsFunc(erasures, func(e storage.Erasure) bool { return e.Content }) {
		return nil
	}
	t.wrote = true
	if _, err := t.takeCursor(ctx); err != nil {
		return err
	}
	// Also above the cursor: an index that begins anew has lines there.
	text, err := list(numbers(erasures, func(e storage.Erasure) bool { return e.Content }))
	if err != nil {
		return err
	}
	var found [][3]string
	err = t.each(ctx, selectContents, []any{t.organization, text}, func(rows Row) error {
		var seq int64
		var content []byte
		if err := scan(rows, &seq, &content); err != nil {
			return err
		}
		e, err := audit.Parse(content)
		if err != nil {
			return fmt.Errorf("%w: line %d", storage.ErrCorrupt, seq)
		}
		for _, term := range terms(&e) {
			found = append(found, [3]string{term.name, term.value, strconv.FormatInt(seq, 10)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, dropTimes, t.organization, text); err != nil || len(found) == 0 {
		return err
	}
	if text, err = list(found); err != nil {
		return err
	}
	_, err = t.exec(ctx, dropTerms, t.organization, text)
	return err
}

// span is a range of sequence numbers: from low up to below high.
type span struct{ low, high int64 }

// events answers the query from the index.
func (r *reader) events(ctx context.Context, q storage.EventQuery) (p storage.EventPage, err error) {
	within, err := r.span(ctx, &q.Filter)
	if err != nil {
		return p, err
	}
	if q.Before > 0 && !q.Count {
		within.high = min(within.high, q.Before)
	}
	if q.Count {
		return r.count(ctx, within, &q.Filter)
	}
	wanted, err := r.rarestFirst(ctx, within, filterTerms(&q.Filter))
	if err != nil {
		return p, err
	}
	query, seq := r.matching(within, wanted, "events")
	query = query.ColumnExpr(seq + ", e.content, e.personal, l.hash").
		Join("JOIN " + r.store.table("leaves") + " AS l ON l.organization = e.organization AND l.seq = e.seq").
		Where("e.content IS NOT NULL").OrderExpr(seq + " DESC").Limit(int64(q.Limit) + 1)
	rows, err := r.built(ctx, query)
	if err := drain(rows, err, collectLines(&p.Lines)); err != nil {
		return p, err
	}
	if len(p.Lines) > q.Limit {
		p.Lines = p.Lines[:q.Limit]
		p.Next = p.Lines[q.Limit-1].Seq
	}
	return p, nil
}

// span is where the filter's range of time lies. Times never go back in a log,
// so that it is one range of numbers.
func (r *reader) span(ctx context.Context, f *audit.Filter) (span, error) {
	s := span{0, audit.MaxInteger}
	if f.From > 0 {
		s.low = s.high
		err := r.each(ctx, firstSince, []any{r.organization, f.From}, func(rows Row) error { return scan(rows, &s.low) })
		if err != nil {
			return s, err
		}
	}
	if f.To > 0 {
		last := int64(-1)
		err := r.each(ctx, lastUntil, []any{r.organization, f.To}, func(rows Row) error { return scan(rows, &last) })
		if err != nil {
			return s, err
		}
		s.high = last + 1
	}
	return s, nil
}

// rarity counts the lines of a term within a span, up to a limit.
const rarity statement = `SELECT count(*) FROM (SELECT 1 FROM @event_terms AS t
	WHERE t.organization = ? AND t.term = ? AND t.value = ? AND t.seq >= ? AND t.seq < ? LIMIT ?) AS few`

// rare is how many lines of a term are few enough to look at each.
const rare = 1000

// rarestFirst puts a term that few lines have before the others: the query walks
// the first one's lines and looks each up under the rest.
func (r *reader) rarestFirst(ctx context.Context, within span, wanted []term) ([]term, error) {
	if len(wanted) < 2 {
		return wanted, nil
	}
	least, first := int64(rare), 0
	for i, t := range wanted {
		var n int64
		args := []any{r.organization, t.name, t.value, within.low, within.high, int64(rare)}
		if err := r.each(ctx, rarity, args, func(rows Row) error { return scan(rows, &n) }); err != nil {
			return nil, err
		}
		if n < least {
			least, first = n, i
		}
	}
	wanted[0], wanted[first] = wanted[first], wanted[0]
	return wanted, nil
}

// matching begins the query for the lines that a filter selects: from the terms
// when it names one, otherwise from the table itself, called e. It answers the
// column of their numbers as well.
func (r *reader) matching(within span, wanted []term, table string) (q *bun.SelectQuery, seq string) {
	seq, owner := "e.seq", "e.organization"
	q = r.bun.NewSelect()
	if len(wanted) == 0 {
		q = q.TableExpr(r.store.table(table) + " AS e")
	} else {
		seq, owner = "t.seq", "t.organization"
		q = q.TableExpr(r.store.table("event_terms")+" AS t").
			Join("JOIN "+r.store.table(table)+" AS e ON e.organization = t.organization AND e.seq = t.seq").
			Where("t.term = ? AND t.value = ?", wanted[0].name, wanted[0].value)
		for _, w := range wanted[1:] {
			q = q.Where("EXISTS (SELECT 1 FROM "+r.store.table("event_terms")+
				" AS o WHERE o.organization = t.organization AND o.term = ? AND o.value = ? AND o.seq = t.seq)", w.name, w.value)
		}
	}
	return q.Where(owner+" = ?", r.organization).Where(seq+" >= ? AND "+seq+" < ?", within.low, within.high), seq
}

// count counts the lines that match, and finds the time of the newest.
func (r *reader) count(ctx context.Context, within span, f *audit.Filter) (p storage.EventPage, err error) {
	wanted, err := r.rarestFirst(ctx, within, filterTerms(f))
	if err != nil {
		return p, err
	}
	q, seq := r.matching(within, wanted, "event_times")
	var newest sql.NullInt64
	rows, err := r.built(ctx, q.ColumnExpr("count(*), max("+seq+")"))
	err = drain(rows, err, func(rows Row) error { return scan(rows, &p.Count, &newest) })
	if err != nil || !newest.Valid {
		return p, err
	}
	err = r.each(ctx, timeOf, []any{r.organization, newest.Int64}, func(rows Row) error { return scan(rows, &p.Latest) })
	return p, err
}
