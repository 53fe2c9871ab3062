package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// transaction is what statements run in that go one by one: database/sql's own, or
// that of a session.
type transaction interface {
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	Commit() error
	Rollback() error // after the end it does nothing
}

// session is the connection that writes to a file of OpenSQLite. The pool keeps it
// together with its statements, also those that begin and end a transaction:
// database/sql would have these parsed for each, and a goroutine watch over it.
type session struct {
	conn  bun.Conn
	stmts map[statement]*sql.Stmt
}

const (
	beginSession    statement = `BEGIN IMMEDIATE`
	commitSession   statement = `COMMIT`
	rollbackSession statement = `ROLLBACK`
)

// keepSession has the pool keep one session for all transactions.
func (p *pool) keepSession() {
	p.kept = make(chan *session, 1)
	p.kept <- nil
}

// takeSession waits for the session, or makes one. It goes back by giveBack.
func (p *pool) takeSession(wait context.Context) (*session, error) {
	select {
	case x := <-p.kept:
		if x != nil {
			return x, nil
		}
	case <-wait.Done():
		return nil, fmt.Errorf("%w: this process writes", storage.ErrBusy)
	}
	x, err := p.openSession(wait)
	if err != nil {
		p.kept <- nil
	}
	return x, err
}

func (p *pool) openSession(ctx context.Context) (*session, error) {
	conn, err := p.bun.Conn(ctx)
	if err != nil {
		return nil, err
	}
	x := &session{conn: conn, stmts: make(map[statement]*sql.Stmt, len(p.wanted))}
	for _, q := range append([]statement{beginSession, commitSession, rollbackSession}, p.wanted...) {
		if x.stmts[q] != nil {
			continue
		}
		// Without a context's end: the driver would start a goroutine for each.
		stmt, err := conn.PrepareContext(context.WithoutCancel(ctx), p.store.sql(q))
		if err != nil {
			return nil, errors.Join(schemaFault(err), x.close())
		}
		x.stmts[q] = stmt
	}
	return x, nil
}

// giveBack takes a session back, or nil in place of one that was discarded.
func (p *pool) giveBack(x *session) {
	p.kept <- x
	if p.store.closed.Load() {
		_ = p.endSession()
	}
}

// endSession closes the session, unless it is in use.
func (p *pool) endSession() error {
	select {
	case x := <-p.kept:
		p.kept <- nil
		if x != nil {
			return x.close()
		}
	default:
	}
	return nil
}

// close closes the statements as well: database/sql does not, and SQLite would leave
// the file open for them.
func (x *session) close() error {
	var err error
	for _, stmt := range x.stmts {
		err = errors.Join(err, stmt.Close())
	}
	return errors.Join(err, x.conn.Close())
}

// begin begins a transaction that holds the file's write lock.
func (x *session) begin(wait context.Context, p *pool) (*held, error) {
	err := whenFree(wait, func() error { return x.run(beginSession) })
	if err != nil {
		p.giveBack(x.unless(err))
		return nil, err
	}
	return &held{session: x, pool: p}, nil
}

func (x *session) run(q statement) error {
	_, err := x.stmts[q].ExecContext(context.Background())
	return err
}

// unless is x, or nil once it is discarded because of an error that is more than
// another's lock.
func (x *session) unless(err error) *session {
	if code, ok := sqliteCode(err); err == nil || ok && code == sqliteBusy {
		return x
	}
	_ = x.close() // the pool keeps no idle connection
	return nil
}

// held is a session's transaction.
type held struct {
	*session
	pool *pool
	done bool
}

func (h *held) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return h.conn.ExecContext(ctx, text, args...)
}

func (h *held) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return h.conn.QueryContext(ctx, text, args...)
}

// Commit ends the transaction, also where it fails.
func (h *held) Commit() error {
	if h.done {
		return sql.ErrTxDone
	}
	err := h.run(commitSession)
	if err == nil {
		h.end(nil)
	} else {
		h.end(h.run(rollbackSession))
	}
	return err
}

// Rollback ends the transaction. One that SQLite has rolled back by itself is not
// there any more, and its connection is not used again.
func (h *held) Rollback() error {
	if h.done {
		return sql.ErrTxDone
	}
	err := h.run(rollbackSession)
	h.end(err)
	return err
}

func (h *held) end(err error) {
	h.done = true
	h.pool.giveBack(h.unless(err))
}
