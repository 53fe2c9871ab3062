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
//	import "github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
//	db, err := sql.Open("pgx", url)
//	store, err := bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Pipeline: pgxpipe.Send})
//
// Nothing migrates by itself: call [Store.Migrate] once, by hand or at start,
// and [Store.Validate] before serving.
//
// # How it keeps the contract
//
// On Postgres, the lock of a log's head is the row of that log, taken FOR UPDATE
// by a statement of its own under READ COMMITTED; everything that an Update
// decides on is read by later statements, each of which has a snapshot from
// after the wait. With a [Pipeline] statements travel together, and still run
// one after another. On SQLite there is one writer at a time; an Update takes the
// database's write lock before it reads anything, and those that queue up for it
// share a transaction and its commit. Within one process, callers
// of one head wait for it in order, without holding a connection.
//
// What a statement's arguments are never shows in its text where the text is
// fixed: those are prepared. Lists with changing conditions and bulk inserts
// are built by bun, which quotes the arguments into the text; they go through
// a bun.DB without hooks, so that no query hook of the host's can print them.
//
// # Behind a pooler
//
// A pooler that gives each client a connection for as long as the client is
// connected (PgBouncer's pool_mode = session) needs nothing. One that gives each
// transaction another connection (pool_mode = transaction) works on two terms:
//
//   - Prepared statements. They belong to a connection of Postgres, and a Store
//     keeps its own. PgBouncer carries them along from 1.21 on, with
//     max_prepared_statements above 0; make it at least 200. With any other, set
//     Config.Unprepared, and keep the driver from preparing by itself: with pgx,
//     default_query_exec_mode=exec in the URL. Either alone is not enough: requests
//     then fail, with SQLSTATE 26000 or 42P05.
//   - Migrate takes a lock that belongs to its session, and needs a connection of
//     its own, past the pooler. Through it the lock may stay behind on a
//     connection that nobody ends, and the next Migrate waits for it.
//
// pool_mode = statement can't work: it has no transactions. Nothing else of a
// session is relied on. Each transaction sets its own limits and
// synchronous_commit = on, whatever database, role or pooler say, and takes no
// lock that outlives it. A pooler's own query_timeout, if any, should be longer
// than [storage.UpdateTime], and its pool larger than the number of organizations
// that are busy at once: a transaction that waits for a head holds a connection.
//
// Bun's dialects must be of bun's own version.
package bunstore
