package bunstore_test

import (
	"context"
	"reflect"
	"sync"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
	"github.com/matryer/is"
)

// runSuite runs storagetest, each subtest on a database of its own.
func runSuite(t *testing.T, newPlace func(testing.TB) *place) {
	var places sync.Map // of each store
	of := func(s storage.Store) *place { p, _ := places.Load(s); return p.(*place) }
	on := func(t *testing.T, p *place) storage.Store {
		s := migrated(t, p)
		places.Store(storage.Store(s), p)
		return s
	}
	claims := []storagetest.Option{
		storagetest.Durable(func(t *testing.T, s storage.Store) storage.Store {
			if err := s.(*bunstore.Store).Close(); err != nil {
				t.Error(err)
			}
			return on(t, of(s))
		}),
		storagetest.Processes(func(t *testing.T, s storage.Store) storage.Store { return on(t, of(s)) }),
	}
	if newPlace(t).faults != nil {
		claims = append(claims, storagetest.LostCommits(func(t *testing.T, s storage.Store, applied bool) {
			lose := loseBefore
			if applied {
				lose = loseAfter
			}
			of(s).faults.lose.Store(lose)
		}))
	}
	storagetest.Run(t, func(t *testing.T) storage.Store { return on(t, newPlace(t)) }, claims...)
}

func TestSuiteOnSQLite(t *testing.T) {
	t.Parallel()
	runSuite(t, newSQLite)
}

func TestSuiteOnHandles(t *testing.T) {
	t.Parallel()
	runSuite(t, newHandles)
}

func TestSuiteOnPostgres(t *testing.T) {
	t.Parallel()
	runSuite(t, newPostgres)
}

func TestSuiteOnPostgresOneByOne(t *testing.T) {
	t.Parallel()
	runSuite(t, newSingle)
}

// A transaction may append more lines than one statement takes, with and without
// a personal part: what is read back is what was written, byte for byte.
func TestAppendMany(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := migrated(t, p)
		var written storage.Append
		var read []audit.Line
		update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
			events := make([]audit.Event, 2500)
			for i := range events {
				events[i] = event("agent", "tool", "grant")
			}
			head, err := tx.Head(ctx)
			is.NoErr(err)
			written, err = following(head, "acme", events...)
			is.NoErr(err)
			for i := range written.Lines {
				if i%3 == 0 {
					written.Lines[i].Personal = nil
				}
			}
			return tx.Append(ctx, written)
		})
		for len(read) < len(written.Lines) {
			is.NoErr(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				some, err := tx.Lines(ctx, int64(len(read)), 500)
				is.True(len(some) > 0)
				read = append(read, some...)
				return err
			}))
		}
		is.True(reflect.DeepEqual(read, written.Lines))
	})
}
