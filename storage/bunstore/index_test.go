package bunstore_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// many appends n events of three agents in turn.
func many(ctx context.Context, s storage.Store, n int) error {
	return s.Update(ctx, "acme", func(ctx context.Context, tx storage.Tx) error {
		events := make([]audit.Event, n)
		for i := range events {
			events[i] = event(fmt.Sprintf("agent-%d", i%3), "tool", "grant")
		}
		return appendEvents(ctx, tx, "acme", events...)
	})
}

// searches fails unless every line of the log is found by what it is searched by.
func searches(t *testing.T, s storage.Store) {
	t.Helper()
	is := is.New(t)
	ctx := t.Context()
	want := make(map[string][]int64) // by agent, newest first
	total, newest := int64(0), int64(0)
	is.NoErr(s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) error {
		lines, err := tx.Lines(ctx, 0, storage.MaxPage)
		for _, l := range slices.Backward(lines) {
			if l.Content == nil {
				continue
			}
			e, err := audit.Parse(l.Content)
			is.NoErr(err)
			want[e.Agent] = append(want[e.Agent], l.Seq)
			total, newest = total+1, max(newest, e.Time)
		}
		return err
	}))
	count, err := s.Events(ctx, "acme", storage.EventQuery{Count: true})
	is.NoErr(err)
	is.Equal(count.Count, total)
	is.Equal(count.Latest, newest)
	for agent, seqs := range want {
		var found []int64
		page, err := s.Events(ctx, "acme", storage.EventQuery{Filter: audit.Filter{Agent: agent, From: 1}, Limit: storage.MaxPage})
		is.NoErr(err)
		for _, l := range page.Lines {
			found = append(found, l.Seq)
		}
		is.Equal(found, seqs)
	}
}

// TestIndexLosesLines: however the index was emptied or cut off, the next search
// finds every line, and the index holds all of them again.
func TestIndexLosesLines(t *testing.T) {
	const n, middle = 1300, 650
	all := []string{"event_cursors", "event_times", "event_terms"}
	for name, damage := range map[string]struct {
		tables []string
		from   int
	}{
		"emptied":                  {all, 0},
		"emptied but for a cursor": {all[1:], 0},
		"times emptied":            {all[1:2], 0},
		"terms emptied":            {all[2:], 0},
		"cut off":                  {all[1:], middle},
		"times cut off":            {all[1:2], middle},
		"terms cut off":            {all[2:], middle},
		"last line gone":           {all[1:], n - 1},
	} {
		t.Run(name, func(t *testing.T) {
			eachDialect(t, func(t *testing.T, p *place) {
				is := is.New(t)
				s := p.open(t)
				is.NoErr(many(t.Context(), s, n))
				searches(t, s)
				size := func() (rows [3]int64) {
					for i, table := range all {
						is.NoErr(p.raw.QueryRow("SELECT count(*) FROM " + p.table(table)).Scan(&rows[i]))
					}
					return rows
				}
				whole := size()
				for _, table := range damage.tables {
					where := ""
					if table != "event_cursors" {
						where = fmt.Sprintf(" WHERE seq >= %d", damage.from)
					}
					_, err := p.raw.Exec("DELETE FROM " + p.table(table) + where)
					is.NoErr(err)
				}
				is.True(size() != whole)
				// What is erased before it is indexed again is found by nothing.
				update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
					return tx.Erase(ctx, []storage.Erasure{{Seq: 7, Content: true, Personal: true}})
				})
				searches(t, s)
				is.NoErr(many(t.Context(), s, 5))
				searches(t, s)
				var left int64
				is.NoErr(p.raw.QueryRow("SELECT count(*) FROM " + p.table("event_terms") + " WHERE seq = 7").Scan(&left))
				is.Equal(left, int64(0))
				is.Equal(size()[1], whole[1]-1+5)
			})
		})
	}
}

// TestCrashIndexer is a process that TestIndexerKilled kills: it says the number of
// the log's last line before it indexes up to that.
func TestCrashIndexer(t *testing.T) {
	where := os.Getenv(crashPlace)
	if where == "" {
		t.Skip("runs as a process of TestIndexerKilled")
	}
	s := placeAt(t, where).open(t)
	for ctx := t.Context(); ; {
		if err := many(ctx, s, 1200); err != nil {
			t.Fatalf("append: %v", err)
		}
		var head storage.Head
		if err := s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) (err error) {
			head, err = tx.Head(ctx)
			return err
		}); err != nil {
			t.Fatalf("read the head: %v", err)
		}
		fmt.Printf("committed %d\n", head.Size-1)
		if _, err := s.Events(ctx, "acme", storage.EventQuery{Count: true}); err != nil {
			t.Fatalf("search: %v", err)
		}
	}
}

// TestIndexerKilled: when the process that indexes is killed, the next one finds
// every line.
func TestIndexerKilled(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		s := p.open(t)
		for range 2 {
			killWhileWriting(t, p, "TestCrashIndexer", 1)
			searches(t, s)
		}
	})
}
