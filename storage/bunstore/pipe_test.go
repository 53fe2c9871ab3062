package bunstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
)

// TestRoundTrips: a vend takes two round trips to Postgres, of one line as of
// many: the head's lock has a statement of its own, and what is decided on is read
// by a later one. Who asks for more than was foreseen has a round trip more.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	furnish(t, migrated(t, p), "acme", 1)
	var sent []string
	db := bun.NewDB(p.raw, pgdialect.New())
	s, err := bunstore.New(bunstore.Config{DB: db, Schema: p.where, Pipeline: recorded(&sent)})
	is.NoErr(err)
	q := storage.BulkQuery{Agents: []string{"agent-000"}, Tools: []string{"tool"}, Pairs: []storage.Pair{{Agent: "agent-000", Tool: "tool"}}, Credentials: true}
	more := q
	more.Keys = []string{"key-agent-000"}
	many := q
	many.Agents = []string{"agent-000", "agent-001"}
	for range 2 { // a connection that is new, and one that is not
		for lines, last := range map[int]string{1: "INSERT INSERT WITH COMMIT", 300: "WITH COMMIT"} {
			sent = nil
			vend := func(asked, foreseen storage.BulkQuery) error {
				return s.UpdateBulk(t.Context(), "acme", foreseen, func(ctx context.Context, tx storage.Tx) error {
					_, err := storage.ReadBulk(ctx, tx, asked)
					is.NoErr(err)
					events := make([]audit.Event, lines)
					for i := range events {
						events[i] = event("agent-000", "tool", "grant-agent-000")
					}
					return appendEvents(ctx, tx, "acme", events...)
				})
			}
			is.NoErr(vend(q, q))
			is.Equal(sent, []string{"BEGIN WITH SELECT", last})
			sent = nil
			is.NoErr(vend(more, q))
			is.Equal(sent, []string{"BEGIN WITH SELECT", "SELECT", last})
			sent = nil
			is.NoErr(vend(q, many)) // where many are wanted, a statement for each relation
			is.Equal(sent, []string{"BEGIN WITH SELECT SELECT SELECT SELECT SELECT SELECT SELECT", last})
		}
	}
}

// recorded is a pipeline that writes down the first words of what is sent.
func recorded(sent *[]string) bunstore.Pipeline {
	return func(ctx context.Context, conn any, parcels []*bunstore.Parcel) error {
		var words []string
		for _, p := range parcels {
			words = append(words, strings.Fields(p.Text)[0])
		}
		if len(words) > 0 {
			*sent = append(*sent, strings.Join(words, " "))
		}
		return pgxpipe.Send(ctx, conn, parcels)
	}
}

// TestMovedHead: where the head is not the one that was locked, which nobody but a
// defect can bring about, nothing is committed, although the commit has been sent.
func TestMovedHead(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		err := s.Update(t.Context(), "acme", func(ctx context.Context, tx storage.Tx) error {
			ok, err := tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: "late", Status: storage.AgentActive, Revision: 1})
			is.NoErr(err)
			is.True(ok)
			_, err = bunstore.Conn(tx).ExecContext(ctx, p.named(`UPDATE @logs SET size = size + 1 WHERE organization = 'acme'`))
			is.NoErr(err)
			return appendEvents(ctx, tx, "acme", event("agent-000", "tool", "grant-agent-000"))
		})
		is.True(errors.Is(err, storage.ErrCorrupt))
		update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
			head, err := tx.Head(ctx)
			is.NoErr(err)
			is.Equal(head.Size, int64(1))
			page, err := tx.Agents(ctx, storage.AgentQuery{IDs: []string{"late"}})
			is.Equal(len(page.Agents), 0)
			return err
		})
	})
}

// TestLateFailure: what was put off fails with the commit that it travels with, and
// nothing stands.
func TestLateFailure(t *testing.T) {
	for _, make := range []func(testing.TB) *place{newPostgres, newSingle} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p := make(t)
			s := migrated(t, p)
			furnish(t, s, "acme", 1)
			_, err := p.raw.Exec(p.named(`ALTER TABLE @leaves ADD CONSTRAINT doom CHECK (seq < 1)`))
			is.NoErr(err)
			_, err = vend(t.Context(), s, "acme", "agent-000")
			is.True(errors.Is(err, storage.ErrInvalid))
			_, err = p.raw.Exec(p.named(`ALTER TABLE @leaves DROP CONSTRAINT doom`))
			is.NoErr(err)
			seq, err := vend(t.Context(), s, "acme", "agent-000")
			is.NoErr(err)
			is.Equal(seq, int64(1))
		})
	}
}

// TestWrittenThenRead: what was put off is there for whatever is read after it, also
// by the queries that bun builds.
func TestWrittenThenRead(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
			ref := storage.WindowRef{Tier: "read", Subject: "agent-000"}
			is.NoErr(tx.PutWindows(ctx, []storage.Window{{WindowRef: ref, Times: []byte("first")}, {WindowRef: ref, Times: []byte("second"), UpdatedAt: noon}}))
			found, err := tx.Windows(ctx, []storage.WindowRef{ref})
			is.NoErr(err)
			is.Equal(len(found), 1)
			is.Equal(string(found[0].Times), "second")
			is.NoErr(appendEvents(ctx, tx, "acme", event("agent-000", "tool", "grant-agent-000")))
			lines, err := tx.Lines(ctx, 1, 10)
			is.NoErr(err)
			is.Equal(len(lines), 1)
			is.NoErr(appendEvents(ctx, tx, "acme", event("agent-000", "tool", "grant-agent-000")))
			page, err := tx.Agents(ctx, storage.AgentQuery{Limit: 10, Total: true})
			is.NoErr(err)
			is.Equal(page.Total, int64(1))
			return nil
		})
	})
}

// TestViewBeginsWithAList: a view is of one state also where the first that it reads
// is a query that bun builds.
func TestViewBeginsWithAList(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		is.NoErr(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
			for i := range 2 {
				page, err := tx.Agents(ctx, storage.AgentQuery{Total: true})
				is.NoErr(err)
				is.Equal(page.Total, int64(1))
				update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
					_, err := tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: fmt.Sprint("late-", i), Status: storage.AgentActive, Revision: 1})
					return err
				})
			}
			return nil
		}))
	})
}

// TestCommitUndone: a commit that the database answers by undoing everything is none.
func TestCommitUndone(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := migrated(t, newPostgres(t))
	furnish(t, s, "acme", 1)
	err := s.Update(t.Context(), "acme", func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: "late", Status: storage.AgentActive, Revision: 1})
		is.NoErr(err)
		_, err = bunstore.Conn(tx).ExecContext(ctx, "SELECT 1 / 0") // and the store is not told
		is.True(err != nil)
		return nil
	})
	is.True(errors.Is(err, storage.ErrUnavailable))
}
