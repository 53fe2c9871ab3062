package storagetest_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
)

func open(t *testing.T) storage.Store {
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sameStore stands for another process on the same database, and for the same
// database after a new start.
func sameStore(_ *testing.T, s storage.Store) storage.Store { return s }

func loseHonestly(_ *testing.T, s storage.Store, applied bool) {
	f := s.(*flaky)
	f.applied = applied
	f.lose.Store(true)
}

func TestSoundStoreKeepsEveryClause(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Store { return &flaky{Store: open(t), honest: true} },
		storagetest.Durable(sameStore), storagetest.Processes(sameStore), storagetest.LostCommits(loseHonestly))
}

// brokenStores break one rule each; fails names all clauses of the fast groups
// that have to notice, and of the slow ones those that are to be run. With … at
// its end it leaves out some, where the fault is one that hardly any clause
// could miss.
var brokenStores = []struct {
	name  string
	wrap  func(storage.Store) storage.Store
	fails string
	opts  []storagetest.Option
}{
	{"ignores a failed statement", onTx(func(tx storage.Tx, org string) storage.Tx { return forgivingTx{tx, org} }), "atomicity/poison basic/insert basic/tenant basic/text roles/records atomicity/done", nil},
	{"applies although fn failed", appliesAnyway, "atomicity/atomic", nil},
	{"keeps a part of a failed transaction", partial, "atomicity/atomic atomicity/poison", nil},
	{"decides in the statement that locks", decidesWhileLocking, "contention/head-first contention/revocation", nil},
	{"reads a stale head", staleHead, "contention/serial contention/head-first", nil},
	{"undoes neighbours with who fails", dragsAlong, "contention/alone", nil},
	{"runs fn before it has the head", optimistic, "contention/serial contention/head-first", nil},
	{"loses an update", onTx(func(tx storage.Tx, _ string) storage.Tx { return lossyTx{tx} }), "basic/update atomicity/conflict-is-result", nil},
	{"inserts any revision", onTx(func(tx storage.Tx, org string) storage.Tx { return insertsTx{tx, org} }), "basic/insert basic/tenant", nil},
	{"lies about the commit", liar, "basic/insert basic/update atomicity/atomic …", nil},
	{"forgets with its process", func(s storage.Store) storage.Store { return s }, "atomicity/durable", []storagetest.Option{storagetest.Durable(func(t *testing.T, _ storage.Store) storage.Store { return open(t) })}},
	{"has two databases", func(s storage.Store) storage.Store { return s }, "processes/serial processes/alone processes/head-first processes/revocation processes/digest", []storagetest.Option{storagetest.Processes(func(t *testing.T, _ storage.Store) storage.Store { return open(t) })}},
	{"reads across tenants", func(s storage.Store) storage.Store {
		return withTx{s, func(tx storage.Tx, _ string) storage.Tx { return strayingTx{tx, s} }}
	}, "basic/tenant roles/records", nil},
	{"takes rows of others", onTx(func(tx storage.Tx, org string) storage.Tx { return adoptingTx{tx, org} }), "basic/tenant basic/text", nil},
	{"keeps the caller's slice", func(s storage.Store) storage.Store {
		k := &keeper{payloads: make(map[string][]byte)}
		return withTx{s, func(tx storage.Tx, org string) storage.Tx { return keepingTx{tx, org, k} }}
	}, "basic/owned", nil},
	{"lists in another order", func(s storage.Store) storage.Store {
		return withView{s, func(ctx context.Context, org string, fn viewFn) error {
			return s.View(ctx, org, func(ctx context.Context, tx storage.ReadTx) error { return fn(ctx, collatingView{tx}) })
		}}
	}, "basic/order", nil},
	{"answers a conflict with an error", onTx(func(tx storage.Tx, _ string) storage.Tx { return strictTx{tx} }), "atomicity/conflict-is-result", nil},
	{"allows a gap in the log", onTx(func(tx storage.Tx, _ string) storage.Tx { return gappyTx{tx} }), "roles/log", nil},
	{"lets a key refer to nothing", onTx(func(tx storage.Tx, org string) storage.Tx { return laxTx{tx, org} }), "basic/reference atomicity/poison", nil},
	{"mends text", onTx(func(tx storage.Tx, _ string) storage.Tx { return repairingTx{tx} }), "basic/text", nil},
	{"rounds times", onTx(func(tx storage.Tx, _ string) storage.Tx { return roundingTx{tx} }), "basic/roundtrip basic/update basic/owned", nil},
	{"has no largest page", onTx(func(tx storage.Tx, _ string) storage.Tx { return generousTx{tx} }), "basic/limits", nil},
	{"misses the newest event", func(s storage.Store) storage.Store { return laggingStore{s} }, "roles/events", nil},
	{"leases twice", func(s storage.Store) storage.Store {
		return doubleStore{s, new(sync.Mutex), new([]storage.Delivery)}
	}, "roles/outbox contention/lease processes/lease", []storagetest.Option{storagetest.Processes(sameStore)}},
	{"nests", nests, "atomicity/nested", nil},
	{"answers after the end", onTx(func(tx storage.Tx, _ string) storage.Tx { return undeadTx{tx} }), "atomicity/done", nil},
	{"goes on after its context", tireless, "atomicity/cancelled contention/context", nil},
	{"lets a View wait", lockedView, "contention/view", nil},
	{"reads anew in a View", func(s storage.Store) storage.Store {
		return withView{s, func(ctx context.Context, org string, fn viewFn) error {
			return s.View(ctx, org, func(ctx context.Context, tx storage.ReadTx) error { return fn(ctx, fickleTx{tx, s, org}) })
		}}
	}, "contention/view", nil},
	{"has endless Views", endlessView, "contention/view", nil},
	{"confuses its errors", confused, "contention/context", nil},
	{"keeps what an earlier run did", twiceRun, "atomicity/rerun", nil},
	{"goes on after Close", func(s storage.Store) storage.Store { return immortal{s} }, "basic/closed", nil},
	{"gives a digest twice", onTx(func(tx storage.Tx, org string) storage.Tx { return sharingTx{tx, org} }), "contention/digest", nil},
	{"has two active data keys", onTx(func(tx storage.Tx, _ string) storage.Tx { return hoarderTx{tx} }), "roles/data-keys", nil},
	{"says unavailable for a commit it doesn't know", func(s storage.Store) storage.Store { return &flaky{Store: s} }, "atomicity/unknown", []storagetest.Option{storagetest.LostCommits(loseHonestly)}},
}

func onTx(wrap func(storage.Tx, string) storage.Tx) func(storage.Store) storage.Store {
	return func(s storage.Store) storage.Store { return withTx{s, wrap} }
}

func TestBrokenStoresAreRejected(t *testing.T) {
	t.Parallel()
	for _, b := range brokenStores {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			fails, more := strings.CutSuffix(b.fails, " …")
			want := slices.Sorted(slices.Values(strings.Fields(fails)))
			v := storagetest.Examine(t, func(t *testing.T) storage.Store { return b.wrap(open(t)) }, func(group, name string) bool {
				fast := group != "contention" && group != "processes"
				return fast || slices.Contains(want, group+"/"+name)
			}, b.opts...)
			for clause, seen := range v.Failed {
				t.Logf("%s: %s", clause, seen)
			}
			failed := slices.Sorted(maps.Keys(v.Failed))
			if more {
				failed = slices.DeleteFunc(failed, func(clause string) bool { return !slices.Contains(want, clause) })
			}
			is.Equal(failed, want) // the right clauses, and no other
		})
	}
}

// Every clause of the contract is broken by one of the stores above.
func TestEveryClauseIsBrokenOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	broken := make(map[string]bool)
	for _, b := range brokenStores {
		for _, clause := range strings.Fields(b.fails) {
			broken[clause] = true
		}
	}
	for _, s := range storagetest.Sentences() {
		is.True(s.Group == "roles" || broken[s.Group+"/"+s.Name]) // s.Group/s.Name is broken by a store
	}
}

// A storage author begins with stubs. Each clause fails by itself, none panics,
// hangs or passes.
func TestStubsFailEveryClause(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]storage.Store{
		"nothing":                 nil,
		"zero values":             stub{},
		"errors":                  stub{err: errStub},
		"zero values with fn run": stub{run: true},
		"errors with fn run":      stub{run: true, err: errStub},
		"busy":                    stub{err: storage.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			v := storagetest.Examine(t, func(*testing.T) storage.Store { return s },
				func(string, string) bool { return true }, storagetest.Durable(sameStore), storagetest.Processes(sameStore))
			for _, c := range storagetest.Sentences() {
				clause := c.Group + "/" + c.Name
				if _, skipped := v.Skipped[clause]; !skipped && v.Failed[clause] == "" {
					t.Errorf("%s passes", clause)
				}
			}
			is.True(len(v.Skipped) <= 2) // unknown, and closed where there is no Close
		})
	}
}

func TestHangingStoreFailsInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	is := is.New(t)
	v := storagetest.Examine(t, func(t *testing.T) storage.Store { return hanging{open(t)} }, func(group, _ string) bool {
		return group == "contention" || group == "atomicity"
	})
	is.Equal(len(v.Failed), 15) // all but durable and unknown
}

// The clauses are those of storage.Store's comment, word for word.
func TestSentencesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f, err := parser.ParseFile(token.NewFileSet(), "../storage.go", nil, parser.ParseComments)
	is.NoErr(err)
	var doc string
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.GenDecl); ok && len(d.Specs) == 1 {
			if s, ok := d.Specs[0].(*ast.TypeSpec); ok && s.Name.Name == "Store" {
				doc = d.Doc.Text()
			}
		}
		return true
	})
	suite := make(map[string]string)
	for _, s := range storagetest.Sentences() {
		if s.Group != "roles" {
			suite[s.Name] = s.Text
		}
	}
	clauses := regexp.MustCompile(`(?ms)^  - ([a-z, -]+): (.*?)(?:\n  - |\z)`)
	found := 0
	for rest := doc; ; {
		m := clauses.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		text := strings.Join(strings.Fields(rest[m[4]:m[5]]), " ")
		for name := range strings.SplitSeq(rest[m[2]:m[3]], ", ") {
			is.Equal(suite[name], text) // the sentence of the clause
			found++
		}
		rest = rest[m[5]:]
	}
	is.Equal(found, 24) // clauses in the comment
}

// A backend written today compiles for as long as no role grows.
func TestContractHasAtMostFortyMethods(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.True(reflect.TypeFor[storage.Store]().NumMethod()+reflect.TypeFor[storage.Tx]().NumMethod() <= 40)
}
