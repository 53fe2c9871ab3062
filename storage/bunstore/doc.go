// Package bunstore is a [storage.Store] in SQLite or Postgres, on bun.
//
// It imports no driver. A program brings a handle: for SQLite by [OpenSQLite],
// which uses the driver registered as "sqlite" (modernc.org/sqlite), for
// Postgres with any database/sql driver, of which pgx is the one tested:
//
//	import _ "modernc.org/sqlite"
//	store, err := bunstore.OpenSQLite("agentkey.db")
//
//	import _ "github.com/jackc/pgx/v5/stdlib"
//	db, err := sql.Open("pgx", url)
//	store, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New())})
//
// Nothing migrates by itself: call [Store.Migrate] once, by hand or at start,
// and [Store.Validate] before serving.
//
// # How it keeps the contract
//
// On Postgres, the lock of a log's head is the row of that log, taken FOR UPDATE
// by a statement of its own under READ COMMITTED; everything that an Update
// decides on is read by later statements, each of which has a snapshot from
// after the wait. On SQLite there is one writer at a time; an Update takes the
// database's write lock before it reads anything. Within one process, callers
// of one head wait for it in order, without holding a connection.
//
// What a statement's arguments are never shows in its text where the text is
// fixed: those are prepared. Lists with changing conditions and bulk inserts
// are built by bun, which quotes the arguments into the text; they go through
// a bun.DB without hooks, so that no query hook of the host's can print them.
//
// Bun's dialects must be of bun's own version.
package bunstore
