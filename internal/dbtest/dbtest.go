// Package dbtest gives tests a new database of each kind that package bunstore
// supports. The database goes away with the test.
package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
)

// Database opens stores on one database, which is migrated: as many as are asked
// for, each with connections of its own, as separate processes would have.
type Database func(t testing.TB) *bunstore.Store

// SQLite is a new file.
func SQLite(t testing.TB) Database {
	t.Helper()
	return SQLiteFile(t, filepath.Join(t.TempDir(), "agentkey.db"))
}

// SQLiteFile is a file that stays, new or not.
func SQLiteFile(t testing.TB, path string) Database {
	t.Helper()
	return ready(t, func(t testing.TB) *bunstore.Store {
		t.Helper()
		s, err := bunstore.OpenSQLite(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}

// PostgresConnections is how many connections each store has.
const PostgresConnections = 10

// Postgres is a new schema on a throwaway cluster. Without Postgres the test is
// skipped, see package pgtest.
func Postgres(t testing.TB) Database {
	t.Helper()
	dsn := pgtest.DSN(t)
	schema := "test_" + strings.ToLower(rand.Text())
	t.Cleanup(func() { drop(t, dsn, schema) })
	return ready(t, func(t testing.TB) *bunstore.Store {
		t.Helper()
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal("open Postgres")
		}
		db.SetMaxOpenConns(PostgresConnections)
		db.SetMaxIdleConns(PostgresConnections)
		s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: schema, Pipeline: pgxpipe.Send})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = s.Close()
			_ = db.Close()
		})
		return s
	})
}

// Each runs a test on a database of each kind.
func Each(t *testing.T, test func(t *testing.T, open Database)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, Postgres(t))
	})
}

func ready(t testing.TB, open Database) Database {
	t.Helper()
	if err := open(t).Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return open
}

func drop(t testing.TB, dsn, schema string) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Error("open Postgres")
		return
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, `DROP SCHEMA IF EXISTS "`+schema+`" CASCADE`); err != nil {
		t.Error(err)
	}
}
