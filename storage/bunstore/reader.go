package bunstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// reader reads one organization within one transaction.
type reader struct {
	store        *Store
	pool         *pool
	sql          transaction // nil: there is a pipe
	pipe         *pipe       // nil: the transaction is sql
	bun          queries
	cancel       context.CancelFunc
	deadline     time.Time // of who waits for it; zero: none
	organization string
	head         storage.Head
	loaded       bool       // head is what stands
	ahead        *readAhead // nil: nothing was read that still stands
	failed       error
	done         atomic.Bool
}

// queries builds queries that run in the transaction.
type queries interface{ NewSelect() *bun.SelectQuery }

// enter is what every method begins with. It dooms the transaction when the
// context has ended or a check has failed.
func (r *reader) enter(ctx context.Context, checks ...error) error {
	switch {
	case r.done.Load():
		return storage.ErrClosed
	case r.failed != nil:
		return storage.ErrPoisoned
	}
	if err := ctx.Err(); err != nil {
		return r.fail(ctx, err)
	}
	for _, err := range checks {
		if err != nil {
			return r.fail(ctx, err)
		}
	}
	return nil
}

// fail dooms the transaction: from now on no statement of it reaches the
// database but the rollback. SQLite may have rolled back by itself, and would
// keep what followed.
func (r *reader) fail(ctx context.Context, err error) error {
	if err != nil {
		err = r.store.translate(ctx, err)
		r.failed = err
	}
	return err
}

// stmt is the prepared form of a fixed statement within the transaction, or nil.
func (r *reader) stmt(ctx context.Context, q statement) *sql.Stmt {
	switch t := r.sql.(type) {
	case *held:
		return t.stmts[q]
	case *sql.Tx:
		if stmt := (*r.pool.prepared.Load())[q]; stmt != nil {
			return t.StmtContext(ctx, stmt)
		}
	}
	return nil
}

func (r *reader) query(ctx context.Context, q statement, args ...any) (*sql.Rows, error) {
	if stmt := r.stmt(ctx, q); stmt != nil {
		return stmt.QueryContext(ctx, args...)
	}
	return r.sql.QueryContext(ctx, r.store.sql(q), args...)
}

// patient is the context that a statement runs in.
func (r *reader) patient(ctx context.Context, q statement) (context.Context, context.CancelFunc) {
	if !r.store.postgres && brief(q) {
		return context.WithoutCancel(ctx), func() {}
	}
	ctx, _, cancel := bounded(ctx)
	return ctx, cancel
}

// exec answers how many rows were changed.
func (r *reader) exec(ctx context.Context, q statement, args ...any) (int64, error) {
	r.ahead = nil
	ctx, cancel := r.patient(ctx, q)
	defer cancel()
	if r.pipe != nil {
		return r.pipe.run(ctx, r.store.sql(q), args, nil)
	}
	var result sql.Result
	var err error
	if stmt := r.stmt(ctx, q); stmt != nil {
		result, err = stmt.ExecContext(ctx, args...)
	} else {
		result, err = r.sql.ExecContext(ctx, r.store.sql(q), args...)
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// later runs a statement whose answer nobody waits for: on a pipe together with
// what comes next, the commit at the latest, whose error is then its own.
func (r *reader) later(ctx context.Context, q statement, args ...any) error {
	r.ahead = nil
	if r.pipe != nil && r.pipe.keep(r.store.sql(q), args, nil) {
		return nil
	}
	_, err := r.exec(ctx, q, args...)
	return err
}

// find reports whether a query has a row.
func (r *reader) find(ctx context.Context, q statement, args ...any) (bool, error) {
	found := false
	err := r.each(ctx, q, args, func(Row) error { found = true; return nil })
	return found, err
}

// each calls fn for every row of a query.
func (r *reader) each(ctx context.Context, q statement, args []any, fn func(Row) error) error {
	ctx, cancel := r.patient(ctx, q)
	defer cancel()
	if r.pipe != nil {
		_, err := r.pipe.run(ctx, r.store.sql(q), args, fn)
		return err
	}
	rows, err := r.query(ctx, q, args...)
	return drain(rows, err, fn)
}

// drain reads all rows. A row that can't be read is corrupt: the statements are
// fixed, so that only the row can be at fault.
func drain(rows *sql.Rows, err error, fn func(Row) error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := fn(rows); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// scan reads one row.
func scan(rows Row, into ...any) error {
	if err := rows.Scan(into...); err != nil {
		return fmt.Errorf("%w: a column does not hold what it should", storage.ErrCorrupt)
	}
	return nil
}

// list is a list of strings or of pairs as an argument for @any and @list.
func list[T any](items []T) (string, error) {
	if len(items) == 0 {
		return nobody, nil
	}
	b, err := json.Marshal(items)
	return string(b), err
}

// selected reads all rows of a fixed statement into records.
func selected[T any](ctx context.Context, r *reader, rel *relation[T], q statement, args ...any) ([]T, error) {
	var found []T
	err := r.each(ctx, q, args, rel.collect(&found))
	return found, err
}

// listed reads all rows of a query that bun built.
func listed[T any](ctx context.Context, r *reader, rel *relation[T], q *bun.SelectQuery) ([]T, error) {
	ctx, _, cancel := bounded(ctx)
	defer cancel()
	var found []T
	rows, err := r.built(ctx, q)
	return found, drain(rows, err, rel.collect(&found))
}

// built runs a query that bun built.
func (r *reader) built(ctx context.Context, q *bun.SelectQuery) (*sql.Rows, error) {
	if r.pipe != nil {
		if err := r.pipe.flush(ctx); err != nil {
			return nil, err
		}
	}
	return q.Rows(ctx)
}
