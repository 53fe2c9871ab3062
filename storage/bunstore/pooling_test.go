package bunstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
)

// pooler gives each transaction, and each statement outside of one, the server's
// connection that was used least recently, as a pooler of transactions does. It
// carries no prepared statements.
type pooler struct {
	servers chan driver.Conn
	all     []driver.Conn
	moved   atomic.Int64 // how often a client got another connection than before
}

var errPrepared = errors.New("a statement was prepared on a connection that somebody else gets")

// newPooler opens connections, which must be in pgx's mode exec.
func newPooler(t testing.TB, dsn string, connections int) *pooler {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal("the test server's URL is not valid")
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	p := &pooler{servers: make(chan driver.Conn, connections)}
	for range connections {
		c, err := stdlib.GetConnector(*config).Connect(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		p.all = append(p.all, c)
		p.servers <- c
	}
	return p
}

func (p *pooler) Connect(context.Context) (driver.Conn, error) { return &client{pooler: p}, nil }
func (p *pooler) Driver() driver.Driver                        { return nil }

// client is a connection to the pooler.
type client struct {
	pooler *pooler
	held   driver.Conn // by a transaction
	before driver.Conn
}

// server answers the connection for a statement, and what to do after it.
func (c *client) server(ctx context.Context) (driver.Conn, func(), error) {
	if c.held != nil {
		return c.held, func() {}, nil
	}
	select {
	case s := <-c.pooler.servers:
		if c.before != nil && c.before != s {
			c.pooler.moved.Add(1)
		}
		c.before = s
		return s, func() { c.pooler.servers <- s }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (c *client) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	s, release, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := s.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		release()
		return nil, err
	}
	c.held = s
	return &clientTx{Tx: tx, end: func() { c.held = nil; release() }}, nil
}

type clientTx struct {
	driver.Tx
	end func()
}

func (t *clientTx) Commit() error   { defer t.end(); return t.Tx.Commit() }
func (t *clientTx) Rollback() error { defer t.end(); return t.Tx.Rollback() }

func (c *client) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, release, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *client) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, release, err := c.server(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.(driver.QueryerContext).QueryContext(ctx, query, args)
	if err != nil {
		release()
		return nil, err
	}
	return &clientRows{Rows: rows, end: release}, nil
}

type clientRows struct {
	driver.Rows
	end func()
}

func (r *clientRows) Close() error { defer r.end(); return r.Rows.Close() }

func (c *client) CheckNamedValue(*driver.NamedValue) error { return nil } // pgx takes every value
func (c *client) Prepare(string) (driver.Stmt, error)      { return nil, errPrepared }
func (c *client) Begin() (driver.Tx, error)                { return nil, driver.ErrSkip }
func (c *client) Close() error                             { return nil }

// pooled is a store behind a new pooler, on a migrated database.
func pooled(t *testing.T) (*bunstore.Store, *pooler) {
	t.Helper()
	place := newPostgres(t)
	migrated(t, place) // past the pooler
	p := newPooler(t, place.dsn, 4)
	db := sql.OpenDB(p)
	db.SetMaxOpenConns(10)
	t.Cleanup(func() {
		_ = db.Close()
		for _, c := range p.all {
			_ = c.Close()
		}
	})
	s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: place.where, Unprepared: true})
	return opened(t, s, err), p
}

// TestSuiteBehindPooler: the whole contract, with each transaction on another
// connection.
func TestSuiteBehindPooler(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s, _ := pooled(t)
		return s
	})
}

// TestPoolerIsLeftClean: nothing of a transaction stays on the connection that
// the next one gets.
func TestPoolerIsLeftClean(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := context.Background()
	s, p := pooled(t)
	is.NoErr(s.Migrate(ctx)) // nothing is missing
	furnish(t, s, "acme", 2)
	for range 20 {
		seq, err := vend(ctx, s, "acme", "agent-000")
		is.NoErr(err)
		is.True(seq > 0)
		_, _, err = s.FindKey(ctx, make([]byte, 32))
		is.NoErr(err)
	}
	is.True(p.moved.Load() > 20) // or this test shows nothing
	const left = `SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
		(SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit'))`
	for range p.all {
		server := <-p.servers
		rows, err := server.(driver.QueryerContext).QueryContext(ctx, left, nil)
		is.NoErr(err)
		found := make([]driver.Value, 3)
		is.NoErr(rows.Next(found))
		is.NoErr(rows.Close())
		is.Equal(found, []driver.Value{int64(0), int64(0), int64(0)})
	}
}

// TestPreparedNeedsItsConnection: without Unprepared such a pooler is found out
// by Validate, before anything is served.
func TestPreparedNeedsItsConnection(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	place := newPostgres(t)
	migrated(t, place)
	p := newPooler(t, place.dsn, 2)
	db := sql.OpenDB(p)
	defer func() {
		_ = db.Close()
		for _, c := range p.all {
			_ = c.Close()
		}
	}()
	s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: place.where})
	s = opened(t, s, err)
	is.True(errors.Is(s.Validate(context.Background()), storage.ErrUnavailable))
}

func TestUnpreparedIsForPostgres(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	db := bun.NewDB(newSQLite(t).raw, sqlitedialect.New())
	_, err := bunstore.New(bunstore.Config{DB: db, Unprepared: true})
	is.True(err != nil)
}
