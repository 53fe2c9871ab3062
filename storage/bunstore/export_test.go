package bunstore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Statements are the fixed statements as the database gets them.
func (s *Store) Statements() (all []string) {
	for _, q := range append(s.readStatements(), s.writeStatements()...) {
		all = append(all, s.sql(q))
	}
	return all
}

// Watch calls see with the text of every query that bun builds for a read.
func (s *Store) Watch(see func(query string)) {
	s.reader.bun = s.reader.bun.WithQueryHook(watcher(see))
}

type watcher func(string)

func (w watcher) BeforeQuery(ctx context.Context, e *bun.QueryEvent) context.Context {
	if strings.HasPrefix(e.Query, "SELECT") {
		w(e.Query)
	}
	return ctx
}

func (w watcher) AfterQuery(context.Context, *bun.QueryEvent) {}

// Conn is the connection under a Tx.
func Conn(t storage.Tx) interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
} {
	if r := t.(*tx); r.pipe != nil {
		return r.pipe.conn.Conn
	}
	if h, ok := t.(*tx).sql.(*held); ok {
		return h.conn.Conn
	}
	return t.(*tx).sql.(*sql.Tx)
}

// ShareFor has shared transactions take others for so long.
func (s *Store) ShareFor(d time.Duration) { s.sharing = d }

// Waiting is how many are in the gate of SQLite's writer, or wait for it.
func (s *Store) Waiting() int { return 1 + s.gates.Waiting("") }

// Gates are gates of any names.
type Gates = gates

func (g *gates) Enter(done <-chan struct{}, name string) (leave func(), ok bool) {
	return g.enter(done, name)
}

// Waiting is how many wait for a gate; -1: nobody is in it.
func (g *gates) Waiting(name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.open[name]; w != nil {
		return len(w.waiting)
	}
	return -1
}
