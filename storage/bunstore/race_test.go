package bunstore_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// vend reads a grant under the head and, if it is approved, appends a line. It
// answers the line's number, or -1.
func vend(ctx context.Context, s storage.Store, org, agent string) (seq int64, err error) {
	q := storage.BulkQuery{Pairs: []storage.Pair{{Agent: agent, Tool: "tool"}}}
	err = storage.UpdateBulk(ctx, s, org, q, func(ctx context.Context, tx storage.Tx) error {
		seq = -1
		p, err := storage.ReadBulk(ctx, tx, q)
		if err != nil || p.Grants[0].Status != grants.StatusApproved {
			return err
		}
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		seq = head.Size
		return appendEvents(ctx, tx, org, event(agent, "tool", p.Grants[0].ID))
	})
	return seq, err
}

// setStatus writes a grant's status with its event, and answers the number.
func setStatus(ctx context.Context, s storage.Store, org, agent string, status grants.Status) (seq int64, err error) {
	err = s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
		p, err := tx.Grants(ctx, storage.GrantQuery{Pairs: []storage.Pair{{Agent: agent, Tool: "tool"}}})
		if err != nil {
			return err
		}
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		seq = head.Size
		g := p.Grants[0]
		g.Status, g.Revision = status, g.Revision+1
		var done puts
		done.put(tx.PutGrant(ctx, g))
		if done.err != nil {
			return done.err
		}
		return appendEvents(ctx, tx, org, event(agent, "tool", g.ID))
	})
	return seq, err
}

// TestNoVendAfterRevoke is law 2: eight agents' processes vend without a pause,
// over two stores, while the grant is revoked and given back 200 times. Between
// a revocation's number and that of the approval after it stands no vend.
func TestNoVendAfterRevoke(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		const vendors, revocations = 8, 200
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stores := []storage.Store{p.open(t), p.open(t)}
		furnish(t, stores[0], "acme", 1)

		var vends sync.Map // by number
		var vended atomic.Int64
		var group sync.WaitGroup
		for i := range vendors {
			group.Go(func() {
				for ctx.Err() == nil {
					switch seq, err := vend(ctx, stores[i%2], "acme", "agent-000"); {
					case errors.Is(err, storage.ErrBusy): // the machine is, and others came first
					case err != nil && ctx.Err() == nil:
						t.Errorf("vend: %v", err)
						return
					case err == nil && seq >= 0:
						vends.Store(seq, true)
						vended.Add(1)
					}
				}
			})
		}
		type span struct{ revoked, approved int64 }
		var forbidden []span
		for range revocations {
			for before := vended.Load(); vended.Load() == before && !t.Failed(); {
				runtime.Gosched() // at least one vend in each round
			}
			set := func(s storage.Store, status grants.Status) int64 {
				for {
					seq, err := setStatus(ctx, s, "acme", "agent-000", status)
					if !errors.Is(err, storage.ErrBusy) {
						is.NoErr(err)
						return seq
					}
				}
			}
			revoked := set(stores[0], grants.StatusRevoked)
			approved := set(stores[1], grants.StatusApproved)
			forbidden = append(forbidden, span{revoked, approved})
		}
		cancel()
		group.Wait()
		for _, s := range forbidden {
			for seq := s.revoked + 1; seq < s.approved; seq++ {
				if _, ok := vends.Load(seq); ok {
					t.Errorf("vend %d stands between revocation %d and approval %d", seq, s.revoked, s.approved)
				}
			}
		}
		t.Logf("%d vends, %d revocations", vended.Load(), revocations)
	})
}

// TestReadAhead: what is read together with the taking of the head is read once it
// is held: who waits for it behind a revocation finds the revocation.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	s := migrated(t, p)
	furnish(t, s, "acme", 1)
	ctx := context.Background()
	holder, err := p.raw.BeginTx(ctx, nil)
	is.NoErr(err)
	defer func() { _ = holder.Rollback() }()
	var pid int64
	is.NoErr(holder.QueryRow(`SELECT pg_backend_pid() FROM ` + p.table("logs") + ` FOR UPDATE`).Scan(&pid))
	vended := make(chan error, 1)
	var seq int64
	go func() {
		var err error
		seq, err = vend(ctx, s, "acme", "agent-000")
		vended <- err
	}()
	for waits := false; !waits; {
		is.NoErr(p.raw.QueryRow(`SELECT count(*) > 0 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))`, pid).Scan(&waits))
	}
	_, err = holder.Exec(`UPDATE ` + p.table("grants") + ` SET status = 'revoked'`)
	is.NoErr(err)
	is.NoErr(holder.Commit())
	is.NoErr(<-vended)
	is.Equal(seq, int64(-1)) // refused
}

// TestStaleDecision shows why the head is locked by a statement of its own: on
// Postgres, one that locks the head and reads the grant sees the head as it is
// after the wait and the grant as it was before. The statement that comes after
// the lock sees both as they are.
func TestStaleDecision(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	s := migrated(t, p)
	furnish(t, s, "acme", 1)
	ctx := context.Background()
	lockAndDecide := `SELECT l.size, g.status FROM ` + p.table("logs") + ` AS l JOIN ` + p.table("grants") +
		` AS g ON g.organization = l.organization WHERE l.organization = 'acme' FOR UPDATE OF l`
	decide := `SELECT status FROM ` + p.table("grants") + ` WHERE organization = 'acme'`

	holder, err := p.raw.BeginTx(ctx, nil)
	is.NoErr(err)
	defer func() { _ = holder.Rollback() }()
	_, err = holder.Exec(`UPDATE ` + p.table("logs") + ` SET epoch = epoch + 1`)
	is.NoErr(err)
	_, err = holder.Exec(`UPDATE ` + p.table("grants") + ` SET status = 'revoked'`)
	is.NoErr(err)

	waiter, err := p.raw.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	is.NoErr(err)
	defer func() { _ = waiter.Rollback() }()
	var pid int64
	is.NoErr(waiter.QueryRow(`SELECT pg_backend_pid()`).Scan(&pid))
	var size int64
	var stale, fresh string
	answered := make(chan error, 1)
	go func() { answered <- waiter.QueryRow(lockAndDecide).Scan(&size, &stale) }()
	for waits := false; !waits; {
		is.NoErr(p.raw.QueryRow(`SELECT count(*) > 0 FROM pg_locks WHERE pid = $1 AND NOT granted`, pid).Scan(&waits))
	}
	is.NoErr(holder.Commit())
	is.NoErr(<-answered)
	is.NoErr(waiter.QueryRow(decide).Scan(&fresh))
	is.Equal(stale, "approved") // forbidden: the grant had been revoked before the lock was had
	is.Equal(fresh, "revoked")
}
