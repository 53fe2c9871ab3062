// Package storagetest proves that a storage backend keeps the contract of
// [storage.Store].
//
// A backend's test calls [Run]:
//
//	func TestStore(t *testing.T) {
//		storagetest.Run(t, func(t *testing.T) storage.Store {
//			s := mystore.New(…)
//			t.Cleanup(func() { s.Close() })
//			return s
//		})
//	}
//
// Every clause of the contract is a subtest of the same name, in the group
// basic, atomicity or contention, and so is every role. Each gets an empty store
// of its own, fails by itself, says which sentence was broken and what was seen,
// and ends within ten seconds, also when the backend panics or never answers.
// So one can begin with stubs and go clause by clause:
//
//	go test -run 'TestStore/basic/insert'
//
// The suite imports nothing beyond the standard library and the contract.
package storagetest

import (
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Option says what a backend claims beyond the rest of the contract. Subtests of
// what is not claimed are skipped, by name.
type Option func(*claims)

type claims struct {
	most       time.Duration // that a clause may take; 0: clauseTime
	reopen     func(*testing.T, storage.Store) storage.Store
	openSecond func(*testing.T, storage.Store) storage.Store
	loseCommit func(*testing.T, storage.Store, bool)
}

// Durable claims the clause durable. The function ends the store, as close to
// the end of its process as the backend can come, and returns a new one on the
// same data.
func Durable(reopen func(t *testing.T, s storage.Store) storage.Store) Option {
	return func(c *claims) { c.reopen = reopen }
}

// Processes claims that several processes may use one database. The function
// returns another store on the data of s that shares no memory with it. The
// clauses of contention then run a second time over both.
func Processes(openSecond func(t *testing.T, s storage.Store) storage.Store) Option {
	return func(c *claims) { c.openSecond = openSecond }
}

// LostCommits claims the clause unknown. The function makes the answer to the
// next commit of s get lost, after the database applied it or before.
func LostCommits(lose func(t *testing.T, s storage.Store, applied bool)) Option {
	return func(c *claims) { c.loseCommit = lose }
}

// Run runs the suite. The function open is called once for each subtest and
// returns an empty store; it closes it with t.Cleanup. Whoever's Store has the
// method Close() error is also tested for the clause closed.
func Run(t *testing.T, open func(t *testing.T) storage.Store, opts ...Option) {
	t.Helper()
	var claimed claims
	for _, o := range opts {
		o(&claimed)
	}
	for _, group := range []string{"basic", "atomicity", "contention", "processes", "roles"} {
		t.Run(group, func(t *testing.T) {
			for _, cl := range clauses() {
				if cl.group == group {
					t.Run(cl.name, func(t *testing.T) { cl.test(t, open, claimed) })
				}
			}
		})
	}
}

func (cl clause) test(t *testing.T, open func(*testing.T) storage.Store, claimed claims) {
	t.Parallel()
	switch r := cl.run(t, open, claimed); {
	case r.skipped != "":
		t.Skipf("clause %s is not claimed: %s", cl.name, r.skipped)
	case r.seen != "":
		t.Errorf("clause %s: %s\nseen: %s", cl.name, cl.sentence, r.seen)
	}
}
