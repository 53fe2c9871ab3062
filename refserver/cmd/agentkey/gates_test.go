package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// gates are figures of one run: of every round one value each.
type gates struct {
	names  []string
	values map[string][]float64
}

func (g *gates) add(name string, value float64) {
	if g.values[name] == nil {
		g.names = append(g.names, name)
	}
	g.values[name] = append(g.values[name], value)
}

// subject is what adds figures to those of a round.
type subject struct {
	name    string
	measure func(*gates)
}

// middle is the median of a figure, with the least and the most.
func (g *gates) middle(name string) (median, least, most float64) {
	v := slices.Sorted(slices.Values(g.values[name]))
	if len(v) == 0 {
		return 0, 0, 0
	}
	return v[len(v)/2], v[0], v[len(v)-1]
}

// gate is one bound on a ratio of two figures, or on a figure.
type gate struct {
	name        string
	figure, per string
	least, most float64 // 0: no such bound
}

// TestGates measures what vends must cost, in one run, round by round in turn, and
// prints a table: each figure with its spread, each gate with its bound and
// verdict. It fails for no gate: the machine decides about them, see
// docs/benchmarks.md. It runs with AGENTKEY_GATES=1: make gates.
func TestGates(t *testing.T) {
	if os.Getenv("AGENTKEY_GATES") == "" {
		t.Skip("make gates")
	}
	g := &gates{values: map[string][]float64{}}
	g.add("fsync p50, ms", fsync(t))
	only, err := regexp.Compile(os.Getenv("AGENTKEY_GATES_ONLY"))
	if err != nil {
		t.Fatal(err)
	}
	subjects := append(inProcess(t), overHTTP(t, g)...)
	for range wholeNumber("AGENTKEY_GATES_ROUNDS", 5) {
		for _, s := range subjects {
			if only.MatchString(s.name) {
				s.measure(g)
			}
		}
	}
	g.add("fsync p50, ms", fsync(t))
	g.print(t, []gate{
		{name: "SQLite, 1: by hand to raw insert and commit", figure: "sqlite/1 by hand", per: "sqlite/1 raw", least: 0.6},
		{name: "SQLite, 1: by hand to raw of all rows that a vend writes", figure: "sqlite/1 by hand", per: "sqlite/1 raw, all rows", least: 0.6},
		{name: "SQLite, 1: Vend to by hand", figure: "sqlite/1 Vend", per: "sqlite/1 by hand", least: 0.95},
		{name: "SQLite, 64: Vend to by hand", figure: "sqlite/64 Vend", per: "sqlite/64 by hand", least: 5},
		{name: "SQLite: Vend of 64 to raw, as by hand at 0.6 of that would have it", figure: "sqlite/64 Vend", per: "sqlite/1 raw", least: 3},
		{name: "Postgres, 1: by hand to raw insert and commit", figure: "postgres/1 by hand", per: "postgres/1 raw", least: 0.6},
		{name: "Postgres, 1: by hand to raw of all rows that a vend writes", figure: "postgres/1 by hand", per: "postgres/1 raw, all rows", least: 0.6},
		{name: "Postgres, 1: Vend to by hand", figure: "postgres/1 Vend", per: "postgres/1 by hand", least: 0.95},
		{name: "Postgres, 64: Vend to by hand", figure: "postgres/64 Vend", per: "postgres/64 by hand", least: 12},
		{name: "Postgres: Vend of 64 to raw, as by hand at 0.6 of that would have it", figure: "postgres/64 Vend", per: "postgres/1 raw", least: 7.2},
		{name: "HTTP on SQLite to bare", figure: "http sqlite, /s", per: "http bare, /s", least: 0.33},
		{name: "HTTP on Postgres to bare", figure: "http postgres, /s", per: "http bare, /s", least: 0.28},
		{name: "CPU of the server on SQLite to bare", figure: "http sqlite, CPU µs", per: "http bare, CPU µs", most: 3.5},
		{name: "CPU of the server on Postgres to bare", figure: "http postgres, CPU µs", per: "http bare, CPU µs", most: 3.5},
		{name: "p99 on SQLite to bare", figure: "http sqlite, p99 ms", per: "http bare, p99 ms", most: 2},
		{name: "p99 on Postgres to bare", figure: "http postgres, p99 ms", per: "http bare, p99 ms", most: 2},
		{name: "two processes on one Postgres, loaded like one alone, to that", figure: "http two on postgres, /s", per: "http postgres, /s", least: 1},
		{name: "idle server, MiB", figure: "http sqlite, idle MiB", most: 40},
		{name: "idle server on Postgres, MiB", figure: "http postgres, idle MiB", most: 40},
		{name: "256 connections, MiB", figure: "http sqlite, 256 MiB", most: 80},
		{name: "256 connections on Postgres, MiB", figure: "http postgres, 256 MiB", most: 80},
		{name: "SQLite: a lone vend beside a flooded organization, to the flood's own", figure: "sqlite/lone beside a flood, ms", per: "sqlite/vend in the flood, ms", most: 3},
		{name: "Postgres: a lone vend beside a flooded organization, to the flood's own", figure: "postgres/lone beside a flood, ms", per: "postgres/vend in the flood, ms", most: 3},
	})
}

func wholeNumber(variable string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// span is how long each figure is measured in each round.
func span() time.Duration {
	return time.Duration(wholeNumber("AGENTKEY_GATES_MS", 1000)) * time.Millisecond
}

func (g *gates) print(t *testing.T, all []gate) {
	t.Helper()
	for _, name := range g.names {
		median, least, most := g.middle(name)
		fmt.Printf("%-44s %12.2f  (%.2f to %.2f, n=%d)\n", name, median, least, most, len(g.values[name]))
	}
	for _, x := range all {
		value, _, _ := g.middle(x.figure)
		if x.per != "" {
			by, _, _ := g.middle(x.per)
			if by == 0 {
				continue
			}
			value /= by
		}
		if len(g.values[x.figure]) == 0 {
			continue
		}
		bound, held := "at least "+fmt.Sprint(x.least), value >= x.least
		if x.most != 0 {
			bound, held = "at most "+fmt.Sprint(x.most), value <= x.most
		}
		verdict := "held"
		if !held {
			verdict = "MISSED"
		}
		fmt.Printf("%-66s %8.2f   %-14s %s\n", x.name, value, bound, verdict)
	}
}

// fsync is what a write of a page and its fsync take, in milliseconds.
func fsync(t *testing.T) float64 {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fsync"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	times := make([]time.Duration, 200)
	for i := range times {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return milliseconds(percentile(times, 50))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate has an operation done by so many goroutines for the span, and answers how
// often in a second, and how long each took.
func rate(t *testing.T, goroutines int, operation func() error) (perSecond float64, took []time.Duration) {
	t.Helper()
	var done atomic.Int64
	var working sync.WaitGroup
	all := make([][]time.Duration, goroutines)
	began := time.Now()
	until := began.Add(span())
	for i := range goroutines {
		working.Go(func() {
			for at := time.Now(); at.Before(until); {
				if err := operation(); err != nil {
					t.Error(err)
					return
				}
				now := time.Now()
				all[i] = append(all[i], now.Sub(at))
				at = now
				done.Add(1)
			}
		})
	}
	working.Wait()
	took = slices.Concat(all...)
	slices.Sort(took)
	return float64(done.Load()) / time.Since(began).Seconds(), took
}

// inProcess are vends in this process on each database: by the Manager, by hand in
// one transaction each, and a loop that only inserts and commits.
func inProcess(t *testing.T) (subjects []subject) {
	databases := []struct {
		name string
		open func() storage.Store
		raw  func() (one, all func() error)
	}{
		{"sqlite", func() storage.Store { return dbtest.SQLite(t)(t) }, func() (one, all func() error) {
			path := filepath.Join(t.TempDir(), "raw.db")
			return rawLoops(t, "sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate", "blob")
		}},
		{"postgres", func() storage.Store { return dbtest.Postgres(t)(t) }, func() (one, all func() error) {
			dsn, err := createDatabase(pgtest.DSN(t))
			if err != nil {
				t.Fatal(err)
			}
			return rawLoops(t, "pgx", dsn, "bytea")
		}},
	}
	for _, d := range databases {
		// Each has a database of its own: where organizations share one, lines of all
		// but the last go into the middle of its trees, and one more page in two commits.
		kit := func(store storage.Store) *agentkeytest.Kit {
			return agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Clock = store, time.Now })
		}
		store := d.open()
		k := kit(store)
		vend := managed(t, k)
		byHand := newByHand(t, d.open())
		hand := func() error { // with the time that a vend has
			ctx, cancel := context.WithTimeout(context.Background(), storage.UpdateTime)
			defer cancel()
			return byHand.vend(ctx)
		}
		apart := func() error { return byHand.vend(context.Background()) } // with a deadline, 64 would share commits on SQLite
		if n, m := bytesOf(t, store, k.Organization.ID, vend), bytesOf(t, byHand.store, byHand.organization, hand); max(n-m, m-n) > 16 {
			t.Fatal("a vend by hand writes more or less than a vend: ", m, n)
		}
		raw, rows := d.raw()
		one := func(name string, goroutines int, operation func() error) {
			name = fmt.Sprintf("%s/%d %s", d.name, goroutines, name)
			subjects = append(subjects, subject{name, func(g *gates) {
				n, _ := rate(t, goroutines, operation)
				g.add(name, n)
			}})
		}
		one("raw", 1, raw)
		one("raw, all rows", 1, rows)
		one("by hand", 1, hand)
		one("Vend", 1, vend)
		one("by hand", 64, apart)
		one("Vend", 64, vend)
		k = kit(d.open())
		flood := managed(t, k)
		k.Organization, k.Owner = k.NewOrganization("Globex")
		lone := managed(t, k)
		subjects = append(subjects, subject{d.name + " flood", func(g *gates) { besideFlood(t, g, d.name, flood, lone) }})
	}
	return subjects
}

// bytesOf is how many bytes a vend writes.
func bytesOf(t *testing.T, store storage.Store, organization string, vend func() error) (n int) {
	t.Helper()
	if err := vend(); err != nil {
		t.Fatal(err)
	}
	err := store.View(t.Context(), organization, func(ctx context.Context, tx storage.ReadTx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		lines, err := tx.Lines(ctx, head.Size-1, 1)
		for _, l := range lines {
			n += len(l.Content) + len(l.Personal) + len(head.Signed)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// managed is a vend of the kit's organization by its Manager.
func managed(t *testing.T, k *agentkeytest.Kit) func() error {
	agent, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_gates")
	k.Allow(agent, tool)
	caller := agentkey.TrustedAgent(k.Organization.ID, agent.ID)
	return func() error {
		v, err := k.Vend(t.Context(), caller, tool.ID)
		if err == nil {
			v.Credential.Destroy()
		}
		return err
	}
}

// besideFlood measures lone vends of one organization while another is flooded, and
// the flood's own: with as many callers as share a transaction, each of those waits
// for the rest of one commit, and for its own.
func besideFlood(t *testing.T, g *gates, database string, flood, lone func() error) {
	var flooding sync.WaitGroup
	var took []time.Duration
	flooding.Go(func() { _, took = rate(t, 256, flood) })
	var times []time.Duration
	flooded := make(chan struct{})
	go func() { flooding.Wait(); close(flooded) }()
	for busy := true; busy; {
		began := time.Now()
		if err := lone(); err != nil {
			t.Error(err)
			return
		}
		times = append(times, time.Since(began))
		select {
		case <-flooded:
			busy = false
		default:
		}
	}
	slices.Sort(times)
	g.add(database+"/lone beside a flood, ms", milliseconds(percentile(times, 50)))
	g.add(database+"/vend in the flood, ms", milliseconds(percentile(took, 50)))
}

// rawLoops are transactions that read nothing and decide nothing: one inserts a row of
// a vend's size and commits, the other all that a vend writes, which is a line, its
// leaf and the head.
func rawLoops(t *testing.T, driver, dsn, octets string) (one, all func() error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	for _, create := range []string{
		"create table raw (seq integer primary key, content " + octets + ", personal " + octets + ")",
		"create table events (org text, seq bigint, content " + octets + ", personal " + octets + ", primary key (org, seq))",
		"create table leaves (org text, seq bigint, hash " + octets + ", primary key (org, seq))",
		"create table heads (org text primary key, size bigint, edge " + octets + ", signed " + octets + ")",
		"insert into heads values ('acme', 0, '', '')",
	} {
		if _, err := db.Exec(create); err != nil {
			t.Fatal(err)
		}
	}
	prepared := func(text string) *sql.Stmt {
		stmt, err := db.Prepare(text)
		if err != nil {
			t.Fatal(err)
		}
		return stmt
	}
	row := prepared("insert into raw values ($1, $2, $3)")
	event, leaf := prepared("insert into events values ($1, $2, $3, $4)"), prepared("insert into leaves values ($1, $2, $3)")
	head := prepared("update heads set size = $1, edge = $2, signed = $3 where org = $4")
	var seq int64
	content, personal, hash, edge, signed := make([]byte, 700), make([]byte, 120), make([]byte, 32), make([]byte, 320), make([]byte, 300)
	committed := func(write func(*sql.Tx) error) error {
		seq++
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if err := write(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
	one = func() error {
		return committed(func(tx *sql.Tx) error {
			_, err := tx.Stmt(row).Exec(seq, content, personal)
			return err
		})
	}
	all = func() error {
		return committed(func(tx *sql.Tx) error {
			var errs [3]error
			_, errs[0] = tx.Stmt(event).Exec("acme", seq, content, personal)
			_, errs[1] = tx.Stmt(leaf).Exec("acme", seq, hash)
			_, errs[2] = tx.Stmt(head).Exec(seq, edge, signed, "acme")
			return errors.Join(errs[:]...)
		})
	}
	return one, all
}
