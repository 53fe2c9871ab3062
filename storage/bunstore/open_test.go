package bunstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// place is a database that stores can be opened on, with a handle of our own
// that goes around them.
type place struct {
	raw    *sql.DB
	prefix string // of table names
	dsn    string // of the server, if there is one
	where  string // the file or the schema, for another process
	open   func(testing.TB) *bunstore.Store
	faults *faulty // of the stores that open returns
	single bool    // they have no pipeline
}

// table is the full name of a table.
func (p *place) table(name string) string { return p.prefix + "agentkey_" + name }

// dialects are the two kinds of places.
var dialects = []struct {
	name string
	make func(testing.TB) *place
}{
	{"sqlite", newSQLite},
	{"postgres", newPostgres},
}

// eachDialect runs a test on an empty, migrated database of each kind.
func eachDialect(t *testing.T, test func(*testing.T, *place)) {
	t.Parallel()
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			p := d.make(t)
			if err := p.open(t).Migrate(context.Background()); err != nil {
				t.Fatal(err)
			}
			test(t, p)
		})
	}
}

// placeAt is a place that another process made.
func placeAt(t testing.TB, where string) *place {
	if filepath.IsAbs(where) {
		return sqliteAt(t, where)
	}
	return postgresAt(t, where)
}

// newSQLite is a new file. Its stores are those of OpenSQLite.
func newSQLite(t testing.TB) *place { return sqliteAt(t, filepath.Join(t.TempDir(), "agentkey.db")) }

func sqliteAt(t testing.TB, path string) *place {
	p := &place{raw: sqliteHandle(t, path, 1), where: path}
	p.open = func(t testing.TB) *bunstore.Store {
		s, err := bunstore.OpenSQLite(path)
		return opened(t, s, err)
	}
	return p
}

// newHandles is a new file whose stores are made of a handle that can fail.
func newHandles(t testing.TB) *place {
	path := filepath.Join(t.TempDir(), "agentkey.db")
	raw := sqliteHandle(t, path, 1)
	fast := sqliteDSN(path) + "&_pragma=synchronous(OFF)" // the suite on OpenSQLite waits for the disk already
	p := &place{raw: raw, faults: &faulty{Connector: connector{raw, fast}}}
	p.open = func(t testing.TB) *bunstore.Store {
		db := sql.OpenDB(p.faults)
		db.SetMaxOpenConns(6)
		t.Cleanup(func() { _ = db.Close() })
		s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, sqlitedialect.New())})
		return opened(t, s, err)
	}
	return p
}

func sqliteDSN(path string) string {
	return "file:" + path + "?_busy_timeout=1900&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)"
}

func sqliteHandle(t testing.TB, path string, connections int) *sql.DB {
	db, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(connections)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// newPostgres is a new schema, which goes away with the test.
func newPostgres(t testing.TB) *place {
	p := postgresAt(t, "test_"+strings.ToLower(rand.Text()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel() // whoever still holds a lock is a failed test's own trace
		if _, err := p.raw.ExecContext(ctx, `DROP SCHEMA IF EXISTS "`+p.where+`" CASCADE`); err != nil {
			t.Error(err)
		}
		_ = p.raw.Close()
	})
	return p
}

// postgresAt is a schema. Its stores' connections can fail.
func postgresAt(t testing.TB, schema string) *place {
	dsn := os.Getenv(crashServer)
	if dsn == "" {
		dsn = pgtest.DSN(t)
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	raw := stdlib.OpenDB(*config)
	p := &place{raw: raw, prefix: `"` + schema + `".`, where: schema, dsn: dsn, faults: &faulty{Connector: stdlib.GetConnector(*config)}}
	p.open = func(t testing.TB) *bunstore.Store {
		db := sql.OpenDB(p.faults)
		db.SetMaxOpenConns(10)
		db.SetMaxIdleConns(10)
		t.Cleanup(func() { _ = db.Close() })
		cfg := bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: schema}
		if !p.single {
			cfg.Pipeline = p.faults.send
		}
		s, err := bunstore.New(cfg)
		return opened(t, s, err)
	}
	return p
}

// newSingle is a schema whose stores send statements one by one, as with a driver
// that knows nothing else.
func newSingle(t testing.TB) *place {
	p := newPostgres(t)
	p.single = true
	return p
}

func opened(t testing.TB, s *bunstore.Store, err error) *bunstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// migrated is a store on a new database.
func migrated(t testing.TB, p *place) *bunstore.Store {
	t.Helper()
	s := p.open(t)
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestNothingStaysOpen: a store that is closed, at rest or in an Update, leaves no
// file open, and no log of writes beside the database, which is then all there is.
func TestNothingStaysOpen(t *testing.T) {
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "agentkey.db")
	for _, busy := range []bool{false, true} {
		s, err := bunstore.OpenSQLite(path)
		is.NoErr(err)
		is.NoErr(s.Migrate(t.Context()))
		is.NoErr(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
			_, _, err := tx.Organization(ctx)
			return err
		}))
		err = s.Update(t.Context(), "acme", func(context.Context, storage.Tx) error {
			if busy {
				return s.Close()
			}
			return nil
		})
		is.Equal(errors.Is(err, storage.ErrClosed), busy)
		is.NoErr(s.Close())
		for _, companion := range []string{"-wal", "-shm"} {
			_, err = os.Stat(path + companion)
			is.True(errors.Is(err, fs.ErrNotExist))
		}
	}
}
