package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Config is what a Store is made of.
type Config struct {
	// DB is required: the database, by a handle whose dialect says whether it is
	// SQLite or Postgres. Its query hooks are not used. On SQLite its connections
	// must be set up as OpenSQLite does it.
	DB *bun.DB
	// Reader, on SQLite, is a second handle for reads, so that they find a
	// connection whatever the writers do. Nil: reads go through DB, which must
	// then have more than one connection. On Postgres it must be nil: reads that
	// decide never come from a replica.
	Reader *bun.DB
	// Schema, on Postgres, is the schema of all tables: lower-case letters,
	// digits and underscores, at most 63. Empty: "public". No statement relies on
	// the search path. On SQLite it must be empty.
	Schema string
	// Pipeline, on Postgres, sends several statements in one round trip: a vend then
	// takes two, and without it five. With pgx it is pgxpipe.Send. Nil, or where the
	// connections of DB are not of its driver: statements go one by one.
	Pipeline Pipeline
	// Unprepared prepares no statement, which is slower. It is for Postgres behind
	// a pooler that gives each transaction another connection and does not carry
	// prepared statements along; see the package's comment for what else that
	// needs. On SQLite it must be false.
	Unprepared bool
}

// Store is a storage.Store in a database. It is safe for concurrent use by many
// goroutines, and any number of Stores, in any number of processes, may share a
// database. Make one with New or OpenSQLite.
type Store struct {
	postgres bool
	pipeline Pipeline
	schema   string
	writer   *pool
	reader   *pool
	gates    gates
	open     *shared       // on SQLite, of who is in the gate
	sharing  time.Duration // of the tests, instead of shareTime
	texts    sync.Map      // of statements, as the database gets them
	finder   finder
	rowids   *rowids   // on SQLite
	owned    []*sql.DB // the handles that Close closes
	closed   atomic.Bool
	close    sync.Once
}

var (
	_ storage.Store  = (*Store)(nil)
	_ storage.Pinger = (*Store)(nil)
)

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// New returns a Store over the given handles, which stay the caller's. It sends
// nothing to the database and starts no goroutine; see Migrate and Validate.
func New(cfg Config) (*Store, error) {
	if cfg.DB == nil {
		return nil, errors.New("bunstore: Config.DB is required")
	}
	s := &Store{schema: cfg.Schema, pipeline: cfg.Pipeline}
	switch name := cfg.DB.Dialect().Name(); name {
	case dialect.PG:
		s.postgres = true
		if s.schema == "" {
			s.schema = "public"
		}
		if !schemaName.MatchString(s.schema) {
			return nil, errors.New("bunstore: Config.Schema is not a plain lower-case name")
		}
		if cfg.Reader != nil {
			return nil, errors.New("bunstore: Config.Reader is for SQLite only")
		}
	case dialect.SQLite:
		if s.schema != "" {
			return nil, errors.New("bunstore: Config.Schema is for Postgres only")
		}
		if cfg.Pipeline != nil {
			return nil, errors.New("bunstore: Config.Pipeline is for Postgres only")
		}
		if cfg.Unprepared {
			return nil, errors.New("bunstore: Config.Unprepared is for Postgres only")
		}
		if cfg.Reader != nil && cfg.Reader.Dialect().Name() != dialect.SQLite {
			return nil, errors.New("bunstore: Config.Reader has another dialect than Config.DB")
		}
		s.rowids = newRowids()
	default:
		return nil, fmt.Errorf("bunstore: no support for %v", name)
	}
	if cfg.Unprepared {
		s.writer = newPool(s, cfg.DB.DB)
	} else {
		s.writer = newPool(s, cfg.DB.DB, s.readStatements(), s.writeStatements())
	}
	s.reader = s.writer
	if cfg.Reader != nil {
		s.reader = newPool(s, cfg.Reader.DB, s.readStatements())
	}
	return s, nil
}

// bare is the handle under a bun.DB of our own: without the host's hooks.
func (s *Store) bare(db *sql.DB) *bun.DB {
	if s.postgres {
		return bun.NewDB(db, pgdialect.New())
	}
	return bun.NewDB(db, sqlitedialect.New())
}

// Close ends the store: transactions that were not committed fail, and every
// later call answers storage.ErrClosed. It closes handles that the Store opened
// itself, and none that it was given. It may be called more than once.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		s.closed.Store(true)
		err = errors.Join(s.writer.close(), s.reader.close())
		for _, db := range s.owned {
			err = errors.Join(err, db.Close())
		}
	})
	return err
}

// Ping makes one cheap round trip to the database.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	ctx, caller, cancel := bounded(ctx)
	defer cancel()
	var one int64
	return s.translate(caller, s.reader.db.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// enter is what every method begins with.
func (s *Store) enter(ctx context.Context, texts ...string) error {
	if s.closed.Load() {
		return storage.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return storage.CheckText(texts...)
}

// bounded gives a statement's context our own patience, and keeps the caller's
// context apart, because only that one's end is reported as such.
func bounded(caller context.Context) (ctx, same context.Context, cancel context.CancelFunc) {
	ctx, cancel = context.WithTimeout(caller, patience)
	return ctx, caller, cancel
}

// patience is how long a statement may take as seen from here. The database's
// own limit is shorter, so that this one only ends what hears no answer.
const patience = storage.UpdateTime + storage.UpdateTime/4

// invalid is an ErrInvalid that says what.
func invalid(what string) error { return fmt.Errorf("%w: %s", storage.ErrInvalid, what) }

func checkLimit(limit int) error {
	if limit < 1 || limit > storage.MaxPage {
		return invalid("limit")
	}
	return nil
}

func checkIDs(n int) error {
	if n > storage.MaxIDs {
		return invalid("too many ids")
	}
	return nil
}
