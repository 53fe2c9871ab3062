package storage

import "errors"

var (
	// ErrInvalid: the arguments break the contract (text that is not UTF-8, a row
	// of another organization, a gap in the log, a reference to nothing). It is a
	// fault of the caller; the transaction is doomed.
	ErrInvalid = errors.New("storage: invalid argument")
	// ErrPoisoned: an earlier method of this transaction failed; nothing of it
	// will be kept.
	ErrPoisoned = errors.New("storage: transaction has failed")
	// ErrBusy: the head could not be had in time; nothing was done. Try again.
	ErrBusy = errors.New("storage: busy")
	// ErrUnavailable: the database is away, full or slow; nothing was done.
	ErrUnavailable = errors.New("storage: unavailable")
	// ErrUnknown: whether the transaction was committed can't be told. Whatever
	// depends on it must not be revealed.
	ErrUnknown = errors.New("storage: outcome of the commit is unknown")
	// ErrClosed: the store was closed, or a transaction used after its end.
	ErrClosed = errors.New("storage: closed")
	// ErrNested: an Update or View was called inside another.
	ErrNested = errors.New("storage: nested transaction")
	// ErrSchema: the database is not migrated to the version this build needs.
	ErrSchema = errors.New("storage: schema version differs")
	// ErrCorrupt: a row can't be read as what it should be.
	ErrCorrupt = errors.New("storage: corrupt row")
)
