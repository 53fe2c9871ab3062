package cli

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// databaseFlags say where the records and the log are kept.
type databaseFlags struct {
	Database string `env:"AGENTKEY_DATABASE" placeholder:"URL" help:"sqlite:PATH, or postgres://… (in the variable rather than here: others can read arguments). Default: a SQLite file in the state directory."`

	Schema           string `env:"AGENTKEY_DATABASE_SCHEMA" placeholder:"NAME" help:"Schema of the tables, on Postgres. Default: public."`
	InsecureDatabase bool   `env:"AGENTKEY_INSECURE_DATABASE" help:"Take a Postgres on another machine without sslmode=verify-full, on a network that is trusted by other means."`
	Unprepared       bool   `env:"AGENTKEY_UNPREPARED" help:"Prepare no statement: for a Postgres behind a pooler that gives each transaction another connection. The database must have been migrated past the pooler."`
}

// maxPostgres bounds the connections that one server keeps.
const maxPostgres = 20

// location is a database as the setting names it.
type location struct {
	path       string // of a SQLite file
	dsn        string // of Postgres; may hold a password
	name       string // for people; holds none
	schema     string // of Postgres; empty is public
	unchecked  bool   // Postgres elsewhere, without proof that it is the right one
	unprepared bool   // Postgres behind a pooler of transactions
}

func (l location) sqlite() bool { return l.path != "" }

var errDatabase = &usageError{"AGENTKEY_DATABASE (or --database) must be sqlite:PATH or postgres://HOST/NAME"}

// locate reads the setting.
func (f databaseFlags) locate(s *session) (location, error) {
	switch {
	case strings.HasPrefix(f.Database, "postgres://"), strings.HasPrefix(f.Database, "postgresql://"):
		return f.locatePostgres()
	case f.Schema != "" || f.InsecureDatabase || f.Unprepared:
		return location{}, &usageError{"--schema, --insecure-database and --unprepared are for Postgres"}
	case f.Database == "":
		dir, err := s.directory("XDG_STATE_HOME", ".local/state")
		if err != nil {
			return location{}, err
		}
		return sqliteAt(filepath.Join(dir, "agentkey.db"))
	case strings.HasPrefix(f.Database, "sqlite:"):
		return sqliteAt(strings.TrimPrefix(f.Database, "sqlite:"))
	}
	return location{}, errDatabase
}

func sqliteAt(path string) (location, error) {
	if path == "" || strings.HasPrefix(path, ":") || strings.ContainsAny(path, "?#\x00") {
		return location{}, &usageError{"the database must be a file: sqlite:PATH, and nothing after the path"}
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return location{}, fmt.Errorf("database: %w", err)
	}
	return location{path: full, name: "sqlite:" + full}, nil
}

// directory is agentkey's own below the one that a variable of the XDG Base
// Directory Specification names, or below a default in the home directory.
func (s *session) directory(variable, fallback string) (string, error) {
	base, _ := s.getenv(variable)
	if !filepath.IsAbs(base) { // the specification: relative paths are ignored
		home, _ := s.getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", usagef("neither %s nor HOME is set: name the files with --database and --key-file", variable)
		}
		base = filepath.Join(home, fallback)
	}
	return filepath.Join(base, "agentkey"), nil
}

// makePrivate makes the directory that holds secrets or data, for us alone. One
// that is there stays as it is.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	return nil
}

// open opens the database, and migrates it where that can be done: Migrate takes
// a lock of its session, which a pooler of transactions would leave behind.
func (l location) open(ctx context.Context) (*bunstore.Store, func() error, error) {
	store, closeAll, err := l.handle()
	if err != nil {
		return nil, nil, err
	}
	if l.unprepared {
		err = store.Validate(ctx)
		if errors.Is(err, storage.ErrSchema) {
			err = fmt.Errorf("%w: start once with the database's own URL and without --unprepared, which migrates it", err)
		}
	} else {
		err = store.Migrate(ctx)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("migrate %s: %w", l.name, err), closeAll())
	}
	return store, closeAll, nil
}

func (l location) handle() (*bunstore.Store, func() error, error) {
	if l.sqlite() {
		if err := makePrivate(filepath.Dir(l.path)); err != nil {
			return nil, nil, err
		}
		store, err := bunstore.OpenSQLite(l.path)
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	}
	db, err := sql.Open("pgx", l.dsn)
	if err != nil { // its text may quote the DSN
		return nil, nil, usagef("the database's URL can't be read, or this build has no driver for it")
	}
	db.SetMaxOpenConns(maxPostgres)
	db.SetMaxIdleConns(maxPostgres)
	store, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: l.schema, Pipeline: pgxpipe.Send, Unprepared: l.unprepared})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// eachOrganization calls fn for every organization in the database, the reserved
// one too.
func eachOrganization(ctx context.Context, store storage.Store, fn func(id string) error) error {
	after := ""
	for {
		organizations, err := store.Organizations(ctx, after, storage.MaxPage)
		if err != nil {
			return fmt.Errorf("read the database: %w", err)
		}
		if len(organizations) == 0 {
			return nil
		}
		for _, id := range organizations {
			if err := fn(id); err != nil {
				return err
			}
			after = id
		}
	}
}

// wrappers names the provider's keys that a database was sealed with, sorted. A
// database without any is empty.
func wrappers(ctx context.Context, store storage.Store) ([]string, error) {
	var ids []string
	err := eachOrganization(ctx, store, func(organization string) error {
		err := store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
			keys, err := tx.DataKeys(ctx)
			for _, k := range keys {
				if k.State != vault.KeyDestroyed {
					ids = append(ids, k.Provider)
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read the database: %w", err)
		}
		return nil
	})
	slices.Sort(ids)
	return slices.Compact(ids), err
}
