package agentkey_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	_ "modernc.org/sqlite"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/internal/histories"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// What two Managers on one storage answer to concurrent clients is what one
// serial order would have answered.
func TestLinearizableInMemory(t *testing.T) {
	t.Parallel()
	proveLinearizable(t, 9, nil, func(testing.TB) func(testing.TB) storage.Store {
		store := memstore.New()
		return func(testing.TB) storage.Store { return store }
	})
}

func TestLinearizableOnSQLite(t *testing.T) {
	t.Parallel()
	proveLinearizable(t, 2, nil, func(t testing.TB) func(testing.TB) storage.Store {
		path := filepath.Join(t.TempDir(), "agentkey.db")
		return func(t testing.TB) storage.Store {
			store, err := bunstore.OpenSQLite(path)
			return migrated(t, store, err)
		}
	})
}

// On Postgres the windows of the limits are shared, and so ride in the
// transactions that are put in order.
func TestLinearizableOnPostgres(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	share := func(c *agentkey.Config) {
		c.SharedLimits, c.Policies = true, ratelimit.DefaultPolicies()
		for tier := range c.Policies { // far from used up: what is over a limit shows nothing else
			c.Policies[tier] = ratelimit.Policy{Limit: 1000, Window: time.Second}
		}
	}
	proveLinearizable(t, 2, share, func(t testing.TB) func(testing.TB) storage.Store {
		schema := "linear_" + strings.ToLower(rand.Text())
		t.Cleanup(func() {
			db, err := sql.Open("pgx", dsn)
			if err == nil {
				_, err = db.Exec(`DROP SCHEMA IF EXISTS "` + schema + `" CASCADE`)
				_ = db.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
		return func(t testing.TB) storage.Store { return dbtest.Clockless{Store: openSchema(t, dsn, schema)} }
	})
}

func openSchema(t testing.TB, dsn, schema string) *bunstore.Store {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	store, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: schema, Pipeline: pgxpipe.Send})
	return migrated(t, store, err)
}

func migrated(t testing.TB, store *bunstore.Store, err error) *bunstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

// checkTime is how long checking one history may take.
const checkTime = time.Minute

// manyVends are so many that every answer should have occurred among them.
const manyVends = 700

// lanes is how many databases the long form uses at the same time: while one
// waits for its disk, another one's history is checked.
const lanes = 4

// proveLinearizable records histories on two Managers over two stores of one
// database: a few, or 200 of 800 operations with AGENTKEY_PROVE set. database
// makes a new one and answers how it is opened.
func proveLinearizable(t *testing.T, few int, change func(*agentkey.Config), database func(testing.TB) func(testing.TB) storage.Store) {
	plan := histories.Plan{Clients: 8, Operations: 200, Weights: histories.Weights(), Trusted: true, Ends: true}
	n := 1
	if os.Getenv("AGENTKEY_PROVE") != "" {
		few, plan.Operations, n = 200, 800, lanes
	}
	var all []*lane
	for range n {
		all = append(all, newLane(t, change, database(t)))
	}
	var seeds atomic.Int64
	var working sync.WaitGroup
	for _, l := range all {
		working.Go(func() {
			for seed := seeds.Add(1) - 1; seed < int64(few) && !t.Failed(); seed = seeds.Add(1) - 1 {
				plan := plan
				plan.Seed = uint64(seed)
				if err := l.prove(t.Context(), plan); err != nil {
					t.Errorf("history %d: %v", seed, err)
				}
			}
		})
	}
	working.Wait()
	var total tally
	for _, l := range all {
		total.join(l.total)
	}
	total.check(t)
}

// lane is a database with two Managers and a clock of its own.
type lane struct {
	kit   *agentkeytest.Kit
	other *agentkey.Manager
	total tally
}

func newLane(t *testing.T, change func(*agentkey.Config), open func(testing.TB) storage.Store) *lane {
	t.Helper()
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.Storage = open(t)
		if change != nil {
			change(c)
		}
	})
	config := k.Config
	config.Storage, config.Node = open(t), "other"
	other, err := agentkey.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	return &lane{kit: k, other: other}
}

// prove records a history in an organization of its own, checks it, and replays
// the log to the records.
func (l *lane) prove(ctx context.Context, plan histories.Plan) error {
	created, err := l.kit.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "history", Owner: "owner@example.com"})
	if err != nil {
		return err
	}
	owner, err := l.kit.Authenticate(ctx, created.Token.Secret, agentkey.RequestContext{})
	if err != nil {
		return err
	}
	history, err := histories.Record(ctx, plan,
		&histories.Manager{Manager: l.kit.Manager, Actor: owner, Move: l.kit.Clock.Advance},
		&histories.Manager{Manager: l.other, Actor: owner, Move: l.kit.Clock.Advance})
	if err != nil {
		return err
	}
	if err := history.Check(checkTime); err != nil {
		return err
	}
	l.total.add(history)
	report, err := l.kit.Reconcile(ctx, owner)
	if err == nil && !report.OK() {
		err = errors.New("the log does not replay to the records")
	}
	return err
}

// tally is what the histories of a test covered.
type tally map[histories.Kind]map[string]int

func (c *tally) add(h histories.History) { c.join(h.Tally()) }

func (c *tally) join(other map[histories.Kind]map[string]int) {
	if *c == nil {
		*c = make(tally)
	}
	for kind, codes := range other {
		if (*c)[kind] == nil {
			(*c)[kind] = make(map[string]int)
		}
		for code, n := range codes {
			(*c)[kind][code] += n
		}
	}
}

// check wants the histories to have seen what they are about.
func (c tally) check(t *testing.T) {
	t.Helper()
	t.Logf("%v", c)
	all, vends, unanswered := 0, 0, 0
	for _, codes := range c {
		for _, n := range codes {
			all += n
		}
		unanswered += codes[histories.Unavailable] + codes[histories.Unknown]
		if codes[histories.Internal] > 0 {
			t.Errorf("%d internal errors", codes[histories.Internal])
		}
	}
	for _, n := range c[histories.Vend] {
		vends += n
	}
	if given := c[histories.Vend][histories.Done]; given*6 < vends {
		t.Errorf("only %d of %d vends succeeded: the histories show little", given, vends)
	}
	t.Logf("%d of %d operations were not answered", unanswered, all)
	most := all / 10 // none on a machine that does nothing else
	if os.Getenv("AGENTKEY_PROVE") != "" {
		most = all / 50
	}
	if unanswered > most {
		t.Errorf("%d of %d operations were not answered: the histories show little", unanswered, all)
	}
	if vends < manyVends {
		return
	}
	for _, kind := range histories.Kinds() {
		if c[kind][histories.Done] == 0 {
			t.Errorf("no %s succeeded", kind)
		}
	}
	for _, code := range []string{"revoked", "key_revoked", "agent_suspended", "organization_locked", "expired", "used_up"} {
		if c[histories.Vend][code] == 0 {
			t.Errorf("no vend was refused with %s", code)
		}
	}
	if c[histories.Learn]["instructions_dismissed"] == 0 || c[histories.Accept]["instructions_changed"] == 0 {
		t.Error("nothing was seen of what agents learn")
	}
	if c[histories.Approve]["already_decided"] == 0 || c[histories.Assign]["approvals_required"] == 0 {
		t.Error("nothing was seen of two approvals")
	}
}

// An agent that is reactivated between being seen suspended and being refused is
// let in: its key is as good as it was.
func TestReactivatedMeanwhile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &hooked{Store: memstore.New()}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_meanwhile")
	_, err := k.SuspendAgent(t.Context(), k.Owner, agent.ID)
	is.NoErr(err)
	seen := 0
	store.viewed = func() {
		if seen++; seen == 1 {
			_, err := k.ReactivateAgent(t.Context(), k.Owner, agent.ID)
			is.NoErr(err)
		}
	}
	_, err = k.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
	is.NoErr(err)
	is.True(seen > 0)
}

// hooked calls viewed after every View.
type hooked struct {
	storage.Store
	viewed func()
}

func (s *hooked) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	err := s.Store.View(ctx, organization, fn)
	if s.viewed != nil {
		s.viewed()
	}
	return err
}
