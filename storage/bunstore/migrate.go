package bunstore

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/agentkey-dev/agentkey-go/storage"
)

//go:embed migrations
var migrationFiles embed.FS

// migration is one step of the schema. A number means the same on every
// database, and a step that was released is never changed.
type migration struct {
	version int64
	name    string
	text    string
}

// migrations are the steps for the store's database, in their order.
func (s *Store) migrations() ([]migration, error) {
	dir := "migrations/sqlite"
	if s.postgres {
		dir = "migrations/postgres"
	}
	files, err := migrationFiles.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("bunstore: migration %s has no number", f.Name())
		}
		text, err := migrationFiles.ReadFile(path.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		in := strings.ReplaceAll(string(text), "${schema}", `"`+s.schema+`"`)
		all = append(all, migration{version: version, name: f.Name(), text: in})
	}
	slices.SortFunc(all, func(a, b migration) int { return cmp.Compare(a.version, b.version) })
	return all, nil
}

// Dump writes the SQL of all migrations, for those who review or apply the
// schema by other means. It does not touch the database.
func (s *Store) Dump(w io.Writer) error {
	all, err := s.migrations()
	if err != nil {
		return err
	}
	for _, m := range all {
		if _, err := fmt.Fprintf(w, "-- %s\n\n%s\n", m.name, m.text); err != nil {
			return err
		}
	}
	return nil
}

// Validate answers storage.ErrSchema when the database is not migrated to
// exactly the version that this build needs. It changes nothing there, and
// prepares the statements of what comes.
func (s *Store) Validate(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	all, err := s.migrations()
	if err != nil {
		return err
	}
	bounded, _, cancel := bounded(ctx)
	defer cancel()
	version, err := s.version(bounded)
	if err != nil {
		return s.translate(ctx, err)
	}
	if needed := all[len(all)-1].version; version != needed {
		return fmt.Errorf("%w: the database is at %d, this build needs %d", storage.ErrSchema, version, needed)
	}
	return s.translate(ctx, s.warm(ctx))
}

// warm prepares the statements, so that the first request need not.
func (s *Store) warm(ctx context.Context) error {
	for _, p := range []*pool{s.writer, s.reader} {
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// version is the number of the newest migration, 0 when there is none.
func (s *Store) version(ctx context.Context) (version int64, err error) {
	v := versionTable{s}
	exists, err := v.TableExists(ctx, s.writer.db)
	if err != nil || !exists {
		return 0, err
	}
	return v.latest(ctx, s.writer.db)
}

// Migrate brings the database to the version that this build needs. Each step
// is one transaction, so that a crash leaves the steps that were done and no
// other. Several processes may migrate at the same time: one does, the others
// wait as long as ctx lasts and find it done. A database that is newer than this
// build is left as it is, and answers storage.ErrSchema.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	all, err := s.migrations()
	if err != nil {
		return err
	}
	return s.translate(ctx, s.unlessBusy(ctx, func() error { return s.migrate(ctx, all) }))
}

func (s *Store) migrate(ctx context.Context, all []migration) error {
	if s.postgres {
		if err := s.prepareSchema(ctx); err != nil {
			return err
		}
	}
	for {
		before, err := s.version(ctx)
		if err != nil {
			return err
		}
		if newest := all[len(all)-1].version; before > newest {
			return fmt.Errorf("%w: the database is at %d, newer than this build", storage.ErrSchema, before)
		}
		err = s.up(ctx, all)
		if err == nil {
			return s.warm(ctx)
		}
		// On SQLite there is no lock over all steps; who comes second fails on a
		// table that is there, and goes on from what is done.
		after, lost := s.version(ctx)
		if lost != nil {
			return lost
		}
		if after == before {
			return err
		}
	}
}

// unlessBusy waits, on SQLite, for another process's writing as long as ctx lasts.
func (s *Store) unlessBusy(ctx context.Context, try func() error) error {
	if s.postgres {
		return try()
	}
	return whenFree(ctx, try)
}

// up runs the steps that are missing.
func (s *Store) up(ctx context.Context, all []migration) error {
	var steps []*goose.Migration
	for _, m := range all {
		steps = append(steps, goose.NewGoMigration(m.version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, m.text)
				return err
			},
		}, nil))
	}
	options := []goose.ProviderOption{
		goose.WithStore(versionTable{s}), goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true),
	}
	if s.postgres {
		options = append(options, goose.WithSessionLocker(sessionLock{s}))
	}
	provider, err := goose.NewProvider(goose.DialectCustom, s.writer.db, nil, options...)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// prepareSchema makes the schema unless it is there, and refuses a database
// that can't hold all text.
func (s *Store) prepareSchema(ctx context.Context) error {
	var encoding string
	if err := s.writer.db.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w: the database's encoding is not UTF8", storage.ErrSchema)
	}
	var exists bool
	err := s.writer.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)`, s.schema).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = s.writer.db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS "`+s.schema+`"`)
	var e stateError
	if errors.As(err, &e) && (e.SQLState() == "23505" || e.SQLState() == "42P06") {
		return nil // another node made it at this moment
	}
	return err
}

// versionTable is where goose keeps the versions: a table of our own, without
// a clock or a counter.
type versionTable struct{ store *Store }

var (
	_ database.StoreExtender = versionTable{}
	_ lock.SessionLocker     = sessionLock{}
)

func (v versionTable) Tablename() string { return v.store.table("migrations") }

func (v versionTable) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	columns := " (version INTEGER NOT NULL PRIMARY KEY) STRICT"
	if v.store.postgres {
		columns = " (version bigint NOT NULL PRIMARY KEY)"
	}
	_, err := db.ExecContext(ctx, "CREATE TABLE "+v.Tablename()+columns)
	return err
}

func (v versionTable) TableExists(ctx context.Context, db database.DBTxConn) (exists bool, err error) {
	q := v.store.sql(`SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'agentkey_migrations' AND ? = ''`)
	if v.store.postgres {
		q = v.store.sql(`SELECT count(*) FROM pg_catalog.pg_tables WHERE tablename = 'agentkey_migrations' AND schemaname = ?`)
	}
	var n int64
	err = db.QueryRowContext(ctx, q, v.store.schema).Scan(&n)
	return n > 0, err
}

func (v versionTable) Insert(ctx context.Context, db database.DBTxConn, r database.InsertRequest) error {
	_, err := db.ExecContext(ctx, v.store.sql(`INSERT INTO @migrations (version) VALUES (?)`), r.Version)
	return err
}

func (v versionTable) Delete(ctx context.Context, db database.DBTxConn, version int64) error {
	_, err := db.ExecContext(ctx, v.store.sql(`DELETE FROM @migrations WHERE version = ?`), version)
	return err
}

func (v versionTable) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	var found int64
	err := db.QueryRowContext(ctx, v.store.sql(`SELECT version FROM @migrations WHERE version = ?`), version).Scan(&found)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, database.ErrVersionNotFound
	case err != nil:
		return nil, err
	}
	return &database.GetMigrationResult{IsApplied: true}, nil
}

func (v versionTable) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	version, err := v.latest(ctx, db)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, database.ErrVersionNotFound
	}
	return version, err
}

func (v versionTable) latest(ctx context.Context, db database.DBTxConn) (version int64, err error) {
	err = db.QueryRowContext(ctx, v.store.sql(`SELECT version FROM @migrations ORDER BY version DESC LIMIT 1`)).Scan(&version)
	return version, err
}

func (v versionTable) ListMigrations(ctx context.Context, db database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	var all []*database.ListMigrationsResult
	rows, err := db.QueryContext(ctx, v.store.sql(`SELECT version FROM @migrations ORDER BY version DESC`))
	err = drain(rows, err, func(rows Row) error {
		m := &database.ListMigrationsResult{IsApplied: true}
		all = append(all, m)
		return scan(rows, &m.Version)
	})
	return all, err
}

// sessionLock lets one node at a time migrate a schema. The session holds it,
// so that it ends with a node that dies.
type sessionLock struct{ store *Store }

const lockKey = `('x' || substr(md5('agentkey migrations ' || $1), 1, 16))::bit(64)::bigint`

// SessionLock waits for the lock as long as ctx lasts.
func (l sessionLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(`+lockKey+`)`, l.store.schema)
	return err
}

// SessionUnlock gives it back.
func (l sessionLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock(`+lockKey+`)`, l.store.schema)
	return err
}
