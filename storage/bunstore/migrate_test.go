package bunstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// released are the digests of the migrations that were released. None of them
// may ever change: a new one is added instead.
var released = map[string]string{
	"postgres/0002_lists.sql":   "93be7ad8f143b3d31aa654c418a2333f8ed2f9e445e85e85199fb5c73b3c6bae",
	"postgres/0003_actors.sql":  "5b8ec4dff1b6d434d5eba4182e8ef62070b5b2957dd98b7bbd5b897b66a8710b",
	"postgres/0004_entries.sql": "3e0a1941caaea3618e50f8804c0cfb339b47ec534b8c73ed27f51e2680af1c42",
	"postgres/0001_initial.sql": "8efed18a5ed58380d999b3d8296bb472e4d0b0d555fe94f36aa5ea9c1b93adc8",
	"sqlite/0002_lists.sql":     "8e30fee0023d4310b42d5f2e0612ab67df26137db7505f5e97a1a85f65f1053f",
	"sqlite/0003_actors.sql":    "b2207df5d996c2ca35ba12a8ed1f5fb4ecd6fc1268201f329fa98ba009fe3034",
	"sqlite/0004_entries.sql":   "25e5f251d39e03f66bde6a46181256e9ebbab09022d9dafe5297354c7796399e",
	"sqlite/0001_initial.sql":   "4462269adc5b897e374bf43732a27822d10f53022541f151eb9480527385ebdb",
}

func TestReleasedMigrationsStay(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	files, err := filepath.Glob("migrations/*/*.sql")
	is.NoErr(err)
	is.Equal(len(files), len(released))
	for _, f := range files {
		text, err := os.ReadFile(f)
		is.NoErr(err)
		sum := sha256.Sum256(text)
		is.Equal(hex.EncodeToString(sum[:]), released[strings.TrimPrefix(filepath.ToSlash(f), "migrations/")])
	}
}

// TestMigrationNumbers: a number means the same on every database.
func TestMigrationNumbers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	sqlite, err := filepath.Glob("migrations/sqlite/*.sql")
	is.NoErr(err)
	is.True(len(sqlite) > 0)
	postgres, err := filepath.Glob("migrations/postgres/*.sql")
	is.NoErr(err)
	is.Equal(len(sqlite), len(postgres))
	for i := range sqlite {
		is.Equal(filepath.Base(sqlite[i]), filepath.Base(postgres[i]))
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			ctx := context.Background()
			p := d.make(t)
			s := p.open(t)

			is.True(errors.Is(s.Validate(ctx), storage.ErrSchema)) // empty
			is.True(errors.Is(vendNothing(ctx, s), storage.ErrSchema))
			var nodes sync.WaitGroup
			for range 5 { // start together
				node := p.open(t)
				nodes.Go(func() {
					if err := node.Migrate(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			nodes.Wait()
			is.NoErr(s.Migrate(ctx)) // again
			is.NoErr(s.Validate(ctx))
			is.NoErr(vendNothing(ctx, s)) // the store recovers from having been too early
			furnish(t, s, "acme", 1)

			_, err := p.raw.Exec(`INSERT INTO ` + p.table("migrations") + ` (version) VALUES (9999)`)
			is.NoErr(err)
			is.True(errors.Is(s.Validate(ctx), storage.ErrSchema)) // from the future
			is.True(errors.Is(s.Migrate(ctx), storage.ErrSchema))
			_, err = p.raw.Exec(`DELETE FROM ` + p.table("migrations") + ` WHERE version <> 0`)
			is.NoErr(err)
			is.True(errors.Is(s.Validate(ctx), storage.ErrSchema)) // behind
			is.True(s.Migrate(ctx) != nil)                         // its tables are there, whoever made them
		})
	}
}

func vendNothing(ctx context.Context, s storage.Store) error {
	return s.Update(ctx, "acme", func(context.Context, storage.Tx) error { return nil })
}

// TestMigrateAfterCrash: a step that did not come to its end leaves nothing.
func TestMigrateAfterCrash(t *testing.T) {
	t.Parallel()
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			ctx := context.Background()
			p := d.make(t)
			s := p.open(t)
			var dump bytes.Buffer
			is.NoErr(s.Dump(&dump))
			if schema := strings.Trim(p.prefix, `".`); schema != "" {
				_, err := p.raw.Exec(`CREATE SCHEMA "` + schema + `"`)
				is.NoErr(err)
			}
			conn, err := p.raw.Conn(ctx)
			is.NoErr(err)
			_, err = conn.ExecContext(ctx, "BEGIN")
			is.NoErr(err)
			_, err = conn.ExecContext(ctx, dump.String())
			is.NoErr(err)
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the connection goes away

			is.True(errors.Is(s.Validate(ctx), storage.ErrSchema))
			is.NoErr(s.Migrate(ctx))
			is.NoErr(s.Validate(ctx))
			furnish(t, s, "acme", 1)
		})
	}
}

// TestMigrateWaitsForTheFile: whatever Migrate is at when it finds the file locked,
// by who migrates at the same time or ends, it waits and goes on.
func TestMigrateWaitsForTheFile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newHandles(t)
	is.NoErr(p.open(t).Migrate(context.Background()))
	calls := p.faults.calls.Load()
	is.True(calls > 20)
	for n := int64(1); n <= calls; n++ {
		p := newHandles(t)
		p.faults.until.Store(n + 3)
		p.faults.locked.Store(n)
		s := p.open(t)
		if err := s.Migrate(context.Background()); err != nil {
			t.Fatalf("locked at call %d of %d: %v", n, calls, err)
		}
		is.True(p.faults.calls.Load() > n)
		p.faults.locked.Store(0)
		is.NoErr(s.Validate(context.Background()))
		is.NoErr(s.Close())
	}
}

// TestMigratedTakesNoLock: where nothing is missing, Migrate does not wait for
// who holds the lock.
func TestMigratedTakesNoLock(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	s := migrated(t, p)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := p.raw.Conn(ctx)
	is.NoErr(err)
	defer conn.Close()
	_, err = conn.ExecContext(ctx, `SELECT pg_advisory_lock(('x' || substr(md5('agentkey migrations ' || $1), 1, 16))::bit(64)::bigint)`, p.where)
	is.NoErr(err)
	is.NoErr(s.Migrate(ctx))
}
