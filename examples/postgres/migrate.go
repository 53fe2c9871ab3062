package console

import (
	"context"
	"embed"
	"errors"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings both schemas to what this build needs. Several nodes may call
// it at the same time. It takes locks that belong to a session: where a pooler
// stands in front of Postgres, db must go around it.
func Migrate(ctx context.Context, db *bun.DB) error {
	store, err := open(db)
	if err != nil {
		return err
	}
	return errors.Join(migrateOwn(ctx, db), store.Migrate(ctx), store.Close())
}

// open is AgentKey's storage: the host's own handle, and a schema apart.
func open(db *bun.DB) (*bunstore.Store, error) {
	return bunstore.New(bunstore.Config{DB: db, Schema: "agentkey", Pipeline: pgxpipe.Send})
}

// migrateOwn is how this host has always migrated its own tables. AgentKey's
// versions are in a table of AgentKey's, so that neither sees the other's.
func migrateOwn(ctx context.Context, db *bun.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db.DB, files,
		goose.WithTableName("console_migrations"), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}
