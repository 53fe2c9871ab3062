//go:build unix

package main

import (
	"database/sql"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
)

// frozenDelay is how long a frozen node delays the others at most.
const frozenDelay = 3 * time.Second

// holding asks how many sessions of a program hold the lock of a log's row in a
// transaction that waits for its program.
const holding = `SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
	JOIN pg_class c ON c.oid = l.relation
	WHERE a.datname = current_database() AND a.application_name = $1 AND a.state = 'idle in transaction'
	AND c.relname = 'agentkey_logs' AND l.mode = 'RowShareLock' AND l.granted`

// A node that is frozen while it holds a log's head delays the others for a short
// time, and goes on when it is thawed.
func TestFrozenNode(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	database, err := createDatabase(pgtest.DSN(t))
	is.NoErr(err)
	db, err := sql.Open("pgx", database)
	is.NoErr(err)
	defer func() { _ = db.Close() }()
	in := newInstallation(t, database)
	binary := program(t)
	healthy, _ := in.start(t, binary, freeAddress(t))
	freezing := in
	freezing.environment = append(in.environment[:len(in.environment):len(in.environment)], "AGENTKEY_DATABASE="+named(t, database, "frozen"))
	frozen, _ := freezing.start(t, binary, freeAddress(t))
	defer func() { _ = frozen.thaw() }() // so that it can be ended

	l := newLoad(t, in.token, crashClients, healthy.url())
	other := newLoad(t, in.token, crashClients, frozen.url())
	stop, stopOther := l.run(t), other.run(t)
	var delays []time.Duration
	for range rounds(1, 30) {
		l.advance(t, 5)
		other.advance(t, 5)
		freezeHolding(t, db, frozen, func() { l.takeSlowest() })
		l.advance(t, crashClients+1) // more than those that were under way
		delays = append(delays, l.takeSlowest())
		is.NoErr(frozen.thaw())
		other.advance(t, crashClients+1)
		is.Equal(status(frozen.url()+"/readyz"), http.StatusOK)
		is.Equal(status(healthy.url()+"/readyz"), http.StatusOK)
	}
	stop()
	stopOther()
	spread(t, "answers of others after a node froze with the head", delays, within(frozenDelay))
	l.check(t)
	other.check(t)
}

// freezeHolding freezes the node, again and again, until it is caught with a
// head. Each try begins with a call of begin.
func freezeHolding(t *testing.T, db *sql.DB, node *process, begin func()) {
	t.Helper()
	until(t, time.Minute, "the node is frozen with the head", func() bool {
		begin()
		if err := node.freeze(); err != nil {
			t.Fatal(err)
		}
		// What it has sent by now may still be worked on: twice.
		for range 2 {
			var n int
			if err := db.QueryRow(holding, "frozen").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				if err := node.thaw(); err != nil {
					t.Fatal(err)
				}
				return false
			}
		}
		return true
	})
}

// named is the database's URL with a name for the program that uses it.
func named(t *testing.T, database, name string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("application_name", name)
	u.RawQuery = q.Encode()
	return u.String()
}
