package bunstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// relaxed opens a database of its own whose commits are answered before they are
// on disk, by one of the ways to say so. The database and the role go away with
// the test.
func relaxed(t *testing.T, statement string) *sql.DB {
	t.Helper()
	config, err := pgx.ParseConfig(pgtest.DSN(t))
	if err != nil {
		t.Fatal("the test server's URL is not valid")
	}
	server := stdlib.OpenDB(*config)
	name := "relaxed_" + strings.ToLower(rand.Text())
	do := func(statement string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // both wait for a checkpoint
		defer cancel()
		if _, err := server.ExecContext(ctx, strings.ReplaceAll(statement, "$name", `"`+name+`"`)); err != nil {
			t.Error(err)
		}
	}
	do(`CREATE ROLE $name LOGIN`)
	do(`CREATE DATABASE $name OWNER $name ENCODING 'UTF8' TEMPLATE template0`)
	do(statement)
	config.Database = name
	if strings.Contains(statement, "ROLE") {
		config.User = name
	}
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() {
		_ = db.Close()
		do(`DROP DATABASE $name WITH (FORCE)`)
		do(`DROP ROLE $name`)
		_ = server.Close()
	})
	return db
}

// TestCommitsAreDurable: what a host set for its own database or role does not
// make AgentKey's commits less than durable.
func TestCommitsAreDurable(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"database": `ALTER DATABASE $name SET synchronous_commit = off`,
		"role":     `ALTER ROLE $name SET synchronous_commit = off`,
		"both":     `ALTER ROLE $name IN DATABASE $name SET synchronous_commit = off`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			ctx := context.Background()
			db := relaxed(t, statement)
			s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: "agentkey"})
			s = opened(t, s, err)
			is.NoErr(s.Migrate(ctx))
			show := func(q interface {
				QueryRowContext(context.Context, string, ...any) *sql.Row
			}) (value string) {
				is.NoErr(q.QueryRowContext(ctx, `SHOW synchronous_commit`).Scan(&value))
				return value
			}
			is.Equal(show(db), "off") // or this test shows nothing
			for range 3 {
				update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
					is.Equal(show(bunstore.Conn(tx)), "on")
					return appendEvents(ctx, tx, "acme", event("agent", "tool", "grant"))
				})
			}
			is.Equal(show(db), "off") // the host's own stays the host's
		})
	}
}
