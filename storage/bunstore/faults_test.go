package bunstore_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// TestBusy: a head that another process holds is waited for, but not for ever,
// while views go on.
func TestBusy(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		ctx := context.Background()
		holder, err := p.raw.Begin()
		is.NoErr(err)
		defer func() { _ = holder.Rollback() }()
		_, err = holder.Exec(p.named(`UPDATE @logs SET epoch = epoch WHERE organization = 'acme'`))
		is.NoErr(err)
		err = vendNothing(ctx, s)
		is.True(errors.Is(err, storage.ErrBusy))
		is.NoErr(s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) error {
			_, err := tx.Head(ctx)
			return err
		}))
		is.NoErr(holder.Rollback())
		is.NoErr(vendNothing(ctx, s))
	})
}

// TestNothingAfterFailure: on SQLite a statement that fails may end the
// transaction by itself. What follows in the same Update must not be committed
// on its own.
func TestNothingAfterFailure(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		ctx := context.Background()
		if p.prefix == "" { // ends the transaction when the tool is written
			_, err := p.raw.Exec(`CREATE TRIGGER doom BEFORE UPDATE ON agentkey_tools BEGIN SELECT RAISE(ROLLBACK, 'doom'); END`)
			is.NoErr(err)
		} else {
			_, err := p.raw.Exec(p.named(`CREATE TRIGGER doom BEFORE UPDATE ON @tools FOR EACH ROW EXECUTE FUNCTION @refuse()`))
			is.NoErr(err)
		}
		err := s.Update(ctx, "acme", func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PutTool(ctx, storage.Tool{Organization: "acme", ID: "tool", ConfigKey: "linear", Revision: 2})
			is.True(errors.Is(err, storage.ErrInvalid))
			_, err = tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: "late", Revision: 1})
			is.True(errors.Is(err, storage.ErrPoisoned))
			return nil
		})
		is.True(errors.Is(err, storage.ErrInvalid))
		var n int64
		is.NoErr(p.raw.QueryRow(p.named(`SELECT count(*) FROM @agents WHERE id = 'late'`)).Scan(&n))
		is.Equal(n, int64(0))
		_, err = vend(ctx, s, "acme", "agent-000")
		is.NoErr(err) // the connection is usable
	})
}

// TestUnavailable: a database that is away is reported as such, in words that
// say nothing about where it was.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	db, err := sql.Open("pgx", "postgres://someone:pg_test_password@127.0.0.1:1/nowhere")
	is.NoErr(err)
	defer db.Close()
	s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New())})
	is.NoErr(err)
	ctx := context.Background()
	_, _, findErr := s.FindKey(ctx, make([]byte, 32))
	for _, err := range []error{vendNothing(ctx, s), findErr, s.Ping(ctx), s.Validate(ctx), s.Migrate(ctx)} {
		is.True(errors.Is(err, storage.ErrUnavailable))
		for _, word := range []string{"someone", "pg_test_password", "nowhere", "127.0.0.1"} {
			is.True(!strings.Contains(err.Error(), word))
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	is.Equal(vendNothing(cancelled, s), context.Canceled)
}

// TestCutConnection: a session that the server ends is an error, once.
func TestCutConnection(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	s := migrated(t, p)
	furnish(t, s, "acme", 1)
	ctx := context.Background()
	err := s.Update(ctx, "acme", func(ctx context.Context, tx storage.Tx) error {
		_, err := p.raw.Exec(`SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
			JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND l.pid <> pg_backend_pid()`, p.where)
		is.NoErr(err)
		_, _, err = tx.Organization(ctx)
		is.True(errors.Is(err, storage.ErrUnavailable))
		return nil
	})
	is.True(errors.Is(err, storage.ErrUnavailable))
	_, err = vend(ctx, s, "acme", "agent-000")
	is.NoErr(err)
}

// TestTimeLimits: a transaction says for itself how long it may take and that
// its commit is durable, whatever the role's defaults are.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newPostgres(t)
	config, err := pgx.ParseConfig(p.dsn)
	is.NoErr(err)
	config.RuntimeParams["synchronous_commit"] = "off"
	config.RuntimeParams["default_transaction_isolation"] = "serializable"
	db := stdlib.OpenDB(*config)
	defer db.Close()
	s, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Schema: p.where})
	is.NoErr(err)
	is.NoErr(s.Migrate(context.Background()))
	update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
		want := map[string]string{
			"statement_timeout": "2s", "idle_in_transaction_session_timeout": "1800ms",
			"synchronous_commit": "on", "transaction_isolation": "read committed",
		}
		for name, value := range want {
			var is string
			if err := bunstore.Conn(tx).QueryRowContext(ctx, `SELECT current_setting($1)`, name).Scan(&is); err != nil || is != value {
				t.Errorf("%s is %q, not %q: %v", name, is, value, err)
			}
		}
		return nil
	})
}

// TestSyncFails: a commit that the disk refuses to sync may stand or not, and the
// answer says what came of it, or that nobody can tell: on SQLite what can't be
// seen may yet be found by a recovery. The next one is as good as ever.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		make   func(testing.TB) *place
		undone error
	}{
		{"sqlite", newHandles, storage.ErrUnknown},
		{"postgres", newPostgres, storage.ErrUnavailable},
		{"postgres, one by one", newSingle, storage.ErrUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			ctx := context.Background()
			p := tt.make(t)
			s := migrated(t, p)
			furnish(t, s, "acme", 1)
			next, err := vend(ctx, s, "acme", "agent-000")
			is.NoErr(err)
			p.faults.says = ioError{}
			for lose, want := range map[int32]error{loseAfter: nil, loseBefore: tt.undone} {
				p.faults.lose.Store(lose)
				_, err := vend(ctx, s, "acme", "agent-000")
				is.True(errors.Is(err, want))
				if want == nil {
					next++
				}
				seq, err := vend(ctx, s, "acme", "agent-000")
				is.NoErr(err)
				next++
				is.Equal(seq, next)
			}
		})
	}
}

// TestSQLiteFile: the file and its companions are for their owner alone, a name
// is a name whatever is in it, and what can't be a file is refused.
func TestSQLiteFile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a b?c#d%41&mode=memory.db")
	is.NoErr(os.WriteFile(path, nil, 0o666))
	is.NoErr(os.Chmod(path, 0o666))
	s, err := bunstore.OpenSQLite(path)
	s = opened(t, s, err)
	is.NoErr(s.Migrate(context.Background()))
	furnish(t, s, "acme", 1)
	files, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(files), 3) // with -wal and -shm
	for _, f := range files {
		info, err := f.Info()
		is.NoErr(err)
		is.Equal(info.Mode().Perm(), os.FileMode(0o600))
	}
	for _, path := range []string{"", ":memory:", filepath.Join(dir, "none", "a.db"), dir} {
		_, err := bunstore.OpenSQLite(path)
		is.True(err != nil)
	}
	update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
		for pragma, want := range map[string]int64{"synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "recursive_triggers": 1} {
			var n int64
			is.NoErr(bunstore.Conn(tx).QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&n))
			is.Equal(n, want)
		}
		return nil
	})
}

// TestNotADatabase: another file is refused and left as it is.
func TestNotADatabase(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "letter.txt")
	text := []byte(strings.Repeat("Dear Ann, this is no database. ", 100))
	is.NoErr(os.WriteFile(path, text, 0o600))
	s, err := bunstore.OpenSQLite(path)
	s = opened(t, s, err)
	is.True(errors.Is(s.Migrate(context.Background()), storage.ErrCorrupt))
	is.True(errors.Is(vendNothing(context.Background(), s), storage.ErrCorrupt))
	after, err := os.ReadFile(path)
	is.NoErr(err)
	is.Equal(after, text)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	db := sqliteHandle(t, filepath.Join(t.TempDir(), "a.db"), 1)
	lite, pg := bun.NewDB(db, sqlitedialect.New()), bun.NewDB(db, pgdialect.New())
	for _, c := range []bunstore.Config{
		{}, {DB: lite, Schema: "agentkey"}, {DB: lite, Reader: pg}, {DB: pg, Reader: pg},
		{DB: pg, Schema: "Agent"}, {DB: pg, Schema: `a"b`}, {DB: pg, Schema: "1a"}, {DB: pg, Schema: strings.Repeat("a", 64)},
	} {
		_, err := bunstore.New(c)
		is.True(err != nil)
	}
	_, err := bunstore.New(bunstore.Config{DB: lite, Reader: lite})
	is.NoErr(err)
	_, err = bunstore.New(bunstore.Config{DB: pg, Schema: "agentkey"})
	is.NoErr(err)
}

// TestForeignText: no text is taken for a placeholder, a quote or an escape, in
// statements that bun builds either.
func TestForeignText(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		names := []string{"?", "a?0b", `\`, `\'`, "'", "''", `"`, "$1", "@agents", "%s", "--", "/*", "é\u2028\U0001F511", "\x01\x7f", "a\nb"}
		for i, name := range names {
			id := string(rune('a' + i))
			update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
				var p puts
				p.put(tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: id, Name: name, Revision: 1}))
				p.put(tx.PutRecord(ctx, storage.Record{
					Organization: "acme", Kind: "kind", ID: name, Revision: 1, Payload: []byte(name),
					Index: []storage.IndexEntry{{Name: name, Value: name}},
				}))
				return p.err
			})
			is.NoErr(s.View(context.Background(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				p, err := tx.Agents(ctx, storage.AgentQuery{Name: name, Limit: 5, Total: true})
				is.NoErr(err)
				is.Equal(len(p.Agents), 1)
				is.Equal(p.Total, int64(1))
				is.Equal(p.Agents[0].Name, name)
				records, err := tx.ScanRecords(ctx, storage.Scan{Kind: "kind", Index: name, From: name, Limit: 5})
				is.NoErr(err)
				is.Equal(len(records), 1)
				is.Equal(records[0].Index, []storage.IndexEntry{{Name: name, Value: name}})
				records, err = tx.ScanRecords(ctx, storage.Scan{Kind: "kind", From: name, Limit: 1})
				is.NoErr(err)
				is.Equal(records[0].ID, name)
				return nil
			}))
		}
	})
}

// TestManyLines: an Append of many lines, with any bytes, reads back equal, and
// what the log is searched by catches up in more than one step.
func TestManyLines(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		const n = 1300
		ctx := context.Background()
		var written storage.Append
		update(t, s, "acme", func(ctx context.Context, tx storage.Tx) (err error) {
			head, err := tx.Head(ctx)
			is.NoErr(err)
			events := slices.Repeat([]audit.Event{event("agent", "tool", "grant")}, n)
			written, err = following(head, "acme", events...)
			is.NoErr(err)
			for i := range written.Lines {
				written.Lines[i].Personal = []byte{byte(i), 0, '?', '\'', '\\', byte(i >> 8)}
			}
			return tx.Append(ctx, written)
		})
		is.NoErr(s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) error {
			lines, err := tx.Lines(ctx, 0, storage.MaxPage)
			is.NoErr(err)
			is.Equal(lines, written.Lines)
			return nil
		}))
		page, err := s.Events(ctx, "acme", storage.EventQuery{Count: true})
		is.NoErr(err)
		is.Equal(page.Count, int64(n))
		is.Equal(page.Latest, written.Head.Time)
		// What is erased is gone from it too.
		update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
			return tx.Erase(ctx, []storage.Erasure{{Seq: 7, Content: true, Personal: true}})
		})
		var left int64
		is.NoErr(p.raw.QueryRow("SELECT count(*) FROM " + p.table("event_terms") + " WHERE seq = 7").Scan(&left))
		is.Equal(left, int64(0))
	})
}
