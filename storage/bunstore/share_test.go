package bunstore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

var errFate = errors.New("fn has failed")

// crowd is a store on SQLite with organizations that have a head.
type crowd struct {
	*bunstore.Store
	t     *testing.T
	place *place
}

func newCrowd(t *testing.T) *crowd {
	p := newHandles(t)
	c := &crowd{migrated(t, p), t, p}
	c.ShareFor(time.Minute)
	for i := range 6 {
		furnish(t, c, organizationOf(i), 1)
	}
	return c
}

func organizationOf(i int) string { return fmt.Sprintf("org-%d", i) }

// together has an Update of each organization queue up for the writer, one after
// another, behind the first one, and answers what became of them and how often
// SQLite committed. Each writes an event and then does what it is given.
func (c *crowd) together(fates ...func(context.Context, storage.Tx) error) (errs []error, commits int64) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	before := c.place.faults.commits.Load()
	holding, letGo := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{}, len(fates))
	errs = make([]error, len(fates))
	for i, fate := range fates {
		first := true
		go func() {
			defer func() { ended <- struct{}{} }()
			defer func() {
				if p := recover(); p != nil {
					errs[i] = p.(error)
				}
			}()
			errs[i] = c.Update(ctx, organizationOf(i), func(ctx context.Context, tx storage.Tx) error {
				if i == 0 && first {
					first = false
					close(holding)
					<-letGo
				}
				if err := appendEvents(ctx, tx, organizationOf(i), event("agent-000", "tool", "grant-agent-000")); err != nil {
					return err
				}
				return fate(ctx, tx)
			})
		}()
		if i == 0 {
			<-holding
		}
		for c.Waiting() <= i {
			runtime.Gosched()
		}
	}
	close(letGo)
	for range fates {
		<-ended
	}
	return errs, c.place.faults.commits.Load() - before
}

// stands says whether the organization's log has the event of together.
func (c *crowd) stands(i int) bool {
	var size int64
	err := c.View(c.t.Context(), organizationOf(i), func(ctx context.Context, tx storage.ReadTx) error {
		head, err := tx.Head(ctx)
		size = head.Size
		return err
	})
	if err != nil {
		c.t.Error(err)
	}
	return size == 2
}

func succeeds(context.Context, storage.Tx) error { return nil }

// TestOrganizationsShareACommit: what queues up for the writer shares one commit,
// and who fails in it fails alone.
func TestOrganizationsShareACommit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newCrowd(t)
	errs, commits := c.together(
		succeeds,
		func(context.Context, storage.Tx) error { return errFate },
		succeeds,
		func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PutKey(ctx, storage.Key{Organization: organizationOf(3), ID: "key", Agent: "nobody", Digest: make([]byte, 32), Revision: 1})
			return err
		},
		func(context.Context, storage.Tx) error { panic(errFate) },
		succeeds,
	)
	is.Equal(commits, int64(1))
	for i, want := range []error{nil, errFate, nil, storage.ErrInvalid, errFate, nil} {
		is.True(errors.Is(errs[i], want))
		is.Equal(c.stands(i), want == nil)
	}
}

// TestFirstOfManyFails: who began the transaction fails, and those behind it have
// one of their own.
func TestFirstOfManyFails(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newCrowd(t)
	errs, commits := c.together(func(context.Context, storage.Tx) error { return errFate }, succeeds, succeeds)
	is.Equal(commits, int64(1))
	is.True(errors.Is(errs[0], errFate))
	is.Equal([]bool{c.stands(0), c.stands(1), c.stands(2)}, []bool{false, true, true})
}

// TestUndoneTogether: when SQLite ends the whole transaction for what one of many
// did, or may have, nothing of it stands, and the others have their own.
func TestUndoneTogether(t *testing.T) {
	t.Parallel()
	for name, disaster := range map[string]func(context.Context, storage.Tx) error{
		"rolled back": func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PutAgent(ctx, storage.Agent{Organization: organizationOf(2), ID: "disaster", Revision: 1})
			return err
		},
		"disk full": func(ctx context.Context, tx storage.Tx) error {
			pages := func(n int) {
				if _, err := bunstore.Conn(tx).ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
					t.Error(err)
				}
			}
			pages(1) // no more than there are
			_, err := tx.PutRecord(ctx, storage.Record{Organization: organizationOf(2), Kind: "large", ID: "a", Payload: make([]byte, 1<<20), Revision: 1})
			pages(1 << 30)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			c := newCrowd(t)
			_, err := c.place.raw.ExecContext(t.Context(), `CREATE TRIGGER disaster BEFORE INSERT ON agentkey_agents
				WHEN new.id = 'disaster' BEGIN SELECT RAISE(ROLLBACK, 'disaster'); END`)
			is.NoErr(err)
			errs, commits := c.together(succeeds, succeeds, func(ctx context.Context, tx storage.Tx) error {
				is.True(disaster(ctx, tx) != nil)
				return nil // it dooms the Update all the same
			}, succeeds)
			for i, err := range errs {
				is.Equal(err == nil, i != 2)
				is.Equal(c.stands(i), i != 2)
			}
			is.True(commits > 1)
		})
	}
}

// TestSharedCommitUnanswered: when the answer to a commit is lost, each of those
// that shared it finds out for itself what stands.
func TestSharedCommitUnanswered(t *testing.T) {
	t.Parallel()
	for lose, want := range map[int32]error{loseAfter: nil, loseBefore: storage.ErrUnknown} {
		is := is.New(t)
		c := newCrowd(t)
		c.place.faults.says = ioError{}
		c.place.faults.lose.Store(lose)
		errs, commits := c.together(succeeds, succeeds, succeeds)
		is.Equal(commits, int64(1))
		for i, err := range errs {
			is.True(errors.Is(err, want))
			is.Equal(c.stands(i), want == nil)
		}
	}
}

// TestLongUpdatesShareNothing: who has no bound to its time has a transaction of
// its own, and ends the one that is open first.
func TestLongUpdatesShareNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newCrowd(t)
	before := c.place.faults.commits.Load()
	done := make(chan error, 1)
	errs, _ := c.together(func(context.Context, storage.Tx) error {
		go func() {
			done <- c.Update(t.Context(), organizationOf(1), func(ctx context.Context, tx storage.Tx) error {
				is.Equal(c.place.faults.commits.Load()-before, int64(1)) // of who came before
				return appendEvents(ctx, tx, organizationOf(1), event("agent-000", "tool", "grant-agent-000"))
			})
		}()
		for c.Waiting() < 2 {
			runtime.Gosched()
		}
		return nil
	})
	is.NoErr(errs[0])
	is.NoErr(<-done)
	is.Equal(c.place.faults.commits.Load()-before, int64(2))
}
