package bunstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
)

// faulty is a connector whose connections can lose the answer to a commit, or
// find the file locked.
type faulty struct {
	driver.Connector
	calls  atomic.Int64 // but for commits
	locked atomic.Int64 // the first of those that find it locked; none if 0
	until  atomic.Int64 // the first after it that does not
	// lose is what becomes of the next commit.
	lose    atomic.Int32
	commits atomic.Int64
	// says is what is answered instead: nil for the end of the connection. It is
	// set before the commit.
	says error
}

// ioError is what a driver answers when the disk refuses to sync.
type ioError struct{}

func (ioError) Error() string    { return "disk I/O error" }
func (ioError) Code() int        { return 10 | 4<<8 } // SQLITE_IOERR_FSYNC
func (ioError) SQLState() string { return "58030" }   // io_error

// lockedError is what SQLite answers to who has waited for a lock.
type lockedError struct{}

func (lockedError) Error() string { return "database is locked" }
func (lockedError) Code() int     { return 5 }

// call counts a call, and fails those that find the file locked.
func (f *faulty) call() error {
	n := f.calls.Add(1)
	if first := f.locked.Load(); first > 0 && first <= n && n < f.until.Load() {
		return lockedError{}
	}
	return nil
}

const (
	keepAnswers int32 = iota
	loseAfter         // the commit is done, and its answer is lost
	loseBefore        // the commit never arrives
)

type faultyConn struct {
	driver.Conn
	from   *faulty
	broken bool
}

type faultyTx struct {
	driver.Tx
	conn *faultyConn
}

func (f *faulty) Connect(ctx context.Context) (driver.Conn, error) {
	if err := f.call(); err != nil {
		return nil, err
	}
	c, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, from: f}, nil
}

func (c *faultyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.from.call(); err != nil {
		return nil, err
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &faultyTx{Tx: tx, conn: c}, nil
}

// Commit answers io.ErrUnexpectedEOF, as a connection does that was cut, or what
// it is told to say.
func (t *faultyTx) Commit() error {
	t.conn.from.commits.Add(1)
	lose := t.conn.from.lose.Swap(keepAnswers)
	if lose == keepAnswers {
		return t.Tx.Commit()
	}
	t.conn.broken = true
	if lose == loseAfter {
		if err := t.Tx.Commit(); err != nil {
			return err
		}
	} else if err := t.Tx.Rollback(); err != nil {
		return err
	}
	if says := t.conn.from.says; says != nil {
		return says
	}
	return io.ErrUnexpectedEOF
}

// send is a pipeline whose commits can be lost as well, whatever travels with them.
func (f *faulty) send(ctx context.Context, conn any, parcels []*bunstore.Parcel) error {
	c := conn.(*faultyConn)
	if last := len(parcels) - 1; last >= 0 && parcels[last].Text == "COMMIT" {
		switch lose := f.lose.Swap(keepAnswers); lose {
		case loseAfter, loseBefore:
			c.broken = true
			if lose == loseBefore {
				parcels[last].Text = "ROLLBACK"
			}
			if err := pgxpipe.Send(ctx, c.Conn, parcels); err != nil {
				return err
			}
			if f.says != nil {
				return f.says
			}
			return io.ErrUnexpectedEOF
		}
	}
	return pgxpipe.Send(ctx, c.Conn, parcels)
}

func (c *faultyConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.from.call(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
}

func (c *faultyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.from.call(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.from.call(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *faultyConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *faultyConn) IsValid() bool { return !c.broken }

func (c *faultyConn) ResetSession(ctx context.Context) error {
	if c.broken {
		return driver.ErrBadConn
	}
	if resetter, ok := c.Conn.(driver.SessionResetter); ok {
		return resetter.ResetSession(ctx)
	}
	return nil
}

// connector opens what a handle opens.
type connector struct {
	db  *sql.DB
	dsn string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.db.Driver().Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.db.Driver() }
