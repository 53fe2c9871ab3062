package bunstore_test

import (
	"sync"
	"testing"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
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
