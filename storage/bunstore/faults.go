package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Drivers are known only by these: pgconn.PgError and sqlite.Error have them.
type (
	stateError interface{ SQLState() string }
	codeError  interface{ Code() int }
)

// SQLite's primary result codes, https://www.sqlite.org/rescode.html.
const (
	sqliteError      = 1
	sqliteBusy       = 5
	sqliteLocked     = 6
	sqliteInterrupt  = 9
	sqliteIOErr      = 10
	sqliteCorrupt    = 11
	sqliteFull       = 13
	sqliteTooBig     = 18
	sqliteConstraint = 19
	sqliteMismatch   = 20
	sqliteNotADB     = 26
)

func sqliteCode(err error) (int, bool) {
	var e codeError
	if !errors.As(err, &e) {
		return 0, false
	}
	return e.Code() & 0xff, true
}

// translate turns what a driver answered into one of storage's errors. Of the
// driver's text nothing is kept: it may name the host and the user, or quote
// the arguments. The end of the caller's own context is reported as such.
func (s *Store) translate(caller context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load():
		return storage.ErrClosed
	case caller.Err() != nil:
		return caller.Err()
	case known(err):
		return err
	case err.Error() == "sql: database is closed":
		return storage.ErrClosed
	}
	if s.postgres {
		return postgresFault(err)
	}
	return sqliteFault(err)
}

// known reports whether err was translated already.
func known(err error) bool {
	for _, e := range []error{
		storage.ErrInvalid, storage.ErrPoisoned, storage.ErrBusy, storage.ErrUnavailable, storage.ErrUnknown,
		storage.ErrClosed, storage.ErrNested, storage.ErrSchema, storage.ErrCorrupt,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func sqliteFault(err error) error {
	code, ok := sqliteCode(err)
	if !ok {
		return otherFault(err)
	}
	sentinel := storage.ErrUnavailable
	switch code {
	case sqliteBusy, sqliteLocked:
		sentinel = storage.ErrBusy
	case sqliteConstraint, sqliteTooBig, sqliteMismatch:
		sentinel = storage.ErrInvalid
	case sqliteCorrupt, sqliteNotADB:
		sentinel = storage.ErrCorrupt
	}
	return fmt.Errorf("%w: sqlite result code %d", sentinel, code)
}

func postgresFault(err error) error {
	var e stateError
	if !errors.As(err, &e) {
		return otherFault(err)
	}
	state := e.SQLState()
	sentinel := storage.ErrUnavailable
	switch {
	case len(state) != 5:
	case state == "22012": // only the check in appendLines divides
		sentinel = storage.ErrCorrupt
	case state == "55P03" || state[:2] == "40": // lock_timeout, or the deadlock's victim
		sentinel = storage.ErrBusy
	case state == "42P01" || state == "42703" || state == "3F000" || state == "42883":
		sentinel = storage.ErrSchema
	case state[:2] == "22" || state[:2] == "23" || state[:2] == "54" || state == "P0001":
		sentinel = storage.ErrInvalid
	case state == "XX001" || state == "XX002":
		sentinel = storage.ErrCorrupt
	}
	return fmt.Errorf("%w: SQLSTATE %s", sentinel, state)
}

// otherFault is what is no answer of the database: no connection, no answer in
// our time, or a value that database/sql can't turn into what it should be.
func otherFault(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: no answer in time", storage.ErrUnavailable)
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, errRolledBack):
		return fmt.Errorf("%w: the transaction has ended", storage.ErrUnavailable)
	}
	return fmt.Errorf("%w: %T", storage.ErrUnavailable, err)
}

// surelyUndone says what an error of COMMIT, or of what travelled with it, leaves
// open: whether the transaction is surely undone. It does not matter which of those
// statements the error came for: whoever stands between, a pooler or a server that
// ends, answers to the first of them, wherever it had come to.
func (s *Store) surelyUndone(err error) bool {
	if s.postgres {
		if errors.Is(err, errRolledBack) {
			return true
		}
		var e stateError
		if !errors.As(err, &e) || len(e.SQLState()) != 5 {
			return false
		}
		switch e.SQLState()[:2] {
		case "08", "57", "58", "XX", "F0":
			return false
		}
		return true
	}
	// A failed write or sync of the log file may yet have brought the commit to
	// disk, where a recovery after a crash would find it.
	code, ok := sqliteCode(err)
	return ok && code != sqliteIOErr && code != sqliteFull && code != sqliteInterrupt
}
