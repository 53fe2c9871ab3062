package bunstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/uptrace/bun"
)

// Pipeline sends statements to Postgres in one round trip, on the driver's own
// connection that database/sql holds, and reads the answers. The database runs
// them one after another, each with a snapshot of its own, and after the first
// that fails none. Package pgxpipe has the one for pgx.
//
// It answers the first error: one of the database's as the driver has it, with its
// SQLSTATE, and one of Each as it is. On a connection of another driver, and only
// there, it answers driver.ErrSkip, also when there is nothing to send.
type Pipeline func(ctx context.Context, conn any, parcels []*Parcel) error

// Parcel is a statement of a Pipeline, and its answer.
type Parcel struct {
	Text string
	// Args are of the types that every driver takes, and lists: []int64, [][]byte.
	Args []any
	// Each, if not nil, is called for every row, which it must not keep.
	Each func(Row) error

	Tag   string // what the database called what it did, as "COMMIT"
	Count int64  // of rows that it changed or answered
}

// Row is a row of an answer. A destination that is nil passes a column over.
type Row interface{ Scan(into ...any) error }

// pipe is the connection of a transaction where there is a Pipeline. Statements
// whose answer nobody waits for are kept, and travel with the next one: the
// beginning with what locks the head, what was written with the commit.
type pipe struct {
	through Pipeline
	conn    bun.Conn
	kept    []*Parcel
	sent    bool // something was, and what began may have to be ended
}

// maxKept bounds what is kept, so that nothing large is held for long.
const maxKept = 16

const commitText = "COMMIT"

// errRolledBack is a commit that the database answered by undoing all.
var errRolledBack = errors.New("rolled back instead")

// openPipe takes a connection for a transaction that begins with this text, or
// answers nil where statements go one by one.
func (p *pool) openPipe(wait context.Context, begin string) (*pipe, error) {
	through := p.store.pipeline
	if through == nil || p.single.Load() {
		return nil, nil
	}
	conn, err := p.bun.Conn(wait)
	if err != nil {
		return nil, err
	}
	err = conn.Raw(func(c any) error {
		err := through(wait, c, nil)
		p.single.Store(errors.Is(err, driver.ErrSkip))
		return err
	})
	switch {
	case p.single.Load():
		return nil, conn.Close()
	case err != nil:
		return nil, errors.Join(err, conn.Close())
	}
	return &pipe{through: through, conn: conn, kept: []*Parcel{{Text: begin}}}, nil
}

// keep has a statement sent with the next one, and its rows read then. It reports
// whether there was room.
func (p *pipe) keep(text string, args []any, each func(Row) error) bool {
	if len(p.kept) >= maxKept {
		return false
	}
	p.kept = append(p.kept, &Parcel{Text: text, Args: args, Each: each})
	return true
}

// run sends what was kept and a statement, and answers how many rows that changed
// or has.
func (p *pipe) run(ctx context.Context, text string, args []any, each func(Row) error) (int64, error) {
	last := &Parcel{Text: text, Args: args, Each: each}
	p.kept = append(p.kept, last)
	err := p.flush(ctx)
	return last.Count, err
}

// flush sends what was kept.
func (p *pipe) flush(ctx context.Context) error {
	all := p.kept
	if len(all) == 0 {
		return nil
	}
	p.kept, p.sent = nil, true
	return p.conn.Raw(func(c any) error { return p.through(ctx, c, all) })
}

// commit sends what was kept and the commit behind it, which the database does not
// come to if one of those fails.
func (p *pipe) commit(ctx context.Context) error {
	end := &Parcel{Text: commitText}
	p.kept = append(p.kept, end)
	if err := p.flush(ctx); err != nil {
		return err
	}
	if end.Tag != commitText {
		return errRolledBack
	}
	p.sent = false
	return nil
}

// close ends a transaction that was not committed, and gives the connection back. One
// that does not answer in time is closed: it must not hold a lock.
func (p *pipe) close(most time.Duration) {
	if p.sent {
		ctx, cancel := context.WithTimeout(context.Background(), most)
		defer cancel()
		if _, err := p.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			_ = p.conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}
	_ = p.conn.Close()
}
