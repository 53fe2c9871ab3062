package bunstore

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// SQLiteReaders is how many connections OpenSQLite keeps for reads.
const SQLiteReaders = 8

// OpenSQLite opens the database file at path, which it creates when it is not
// there, with mode 0600, and so are the -wal and -shm files beside it. The
// program must have imported a driver that registers as "sqlite" and reads its
// DSN as modernc.org/sqlite does.
//
// One connection writes, SQLiteReaders connections read. Commits are on disk
// before they are answered (WAL, synchronous=FULL). Several processes may open
// the same file, on one machine: not over a network file system. Close closes
// all connections. OpenSQLite does not migrate.
func OpenSQLite(path string) (*Store, error) {
	path, err := createPrivate(path)
	if err != nil {
		return nil, err
	}
	writer, err := sql.Open("sqlite", sqliteDSN(path, false))
	if err != nil {
		return nil, errors.New("bunstore: no driver is registered as sqlite")
	}
	reader, err := sql.Open("sqlite", sqliteDSN(path, true))
	if err != nil {
		return nil, errors.Join(errors.New("bunstore: no driver is registered as sqlite"), writer.Close())
	}
	writer.SetMaxOpenConns(2) // the session, and who migrates
	writer.SetMaxIdleConns(-1)
	reader.SetMaxOpenConns(SQLiteReaders)
	reader.SetMaxIdleConns(SQLiteReaders)
	s := &Store{owned: []*sql.DB{writer, reader}, rowids: newRowids()}
	s.writer = newPool(s, writer, s.readStatements(), s.writeStatements())
	s.writer.keepSession()
	s.reader = newPool(s, reader, s.readStatements())
	return s, nil
}

// sqliteDSN sets every connection up. A reader can't write by mistake.
func sqliteDSN(path string, reader bool) string {
	q := url.Values{}
	// First of all: whatever follows may have to wait for a lock.
	q.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	q.Set("_txlock", "immediate")
	q.Add("_pragma", "journal_mode(WAL)")
	q.Add("_pragma", "synchronous(FULL)")
	q.Add("_pragma", "foreign_keys(ON)")
	q.Add("_pragma", "recursive_triggers(ON)") // so that REPLACE meets the triggers too
	q.Add("_pragma", "trusted_schema(OFF)")
	q.Add("_pragma", "secure_delete(ON)") // what is erased or replaced leaves the file as well
	if reader {
		q.Set("_txlock", "deferred")
		q.Add("_pragma", "query_only(ON)")
		q.Add("_pragma", "cache_size(-512)") // KiB, a quarter of the usual: there are several, and what they read lies apart
	} else {
		q.Add("_pragma", "cache_size(-4096)") // KiB, twice the usual: inner pages of a million records
		q.Add("_pragma", "busy_timeout(5)")   // last: from here on whenFree is patient
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

// busyTimeout leaves room for the answer within storage.UpdateTime.
const busyTimeout = storage.UpdateTime - 100*time.Millisecond

// createPrivate makes the file, or takes from an existing one and its
// companions what group and others may do, and returns its full path.
func createPrivate(path string) (string, error) {
	full, err := filepath.Abs(path)
	if err != nil || path == "" || path == ":memory:" {
		return "", errors.New("bunstore: SQLite needs the path of a file")
	}
	f, err := os.OpenFile(full, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("bunstore: open database file: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("bunstore: open database file: %w", err)
	}
	for _, name := range []string{full, full + "-wal", full + "-shm"} {
		if err := makePrivate(name); err != nil {
			return "", err
		}
	}
	return full, nil
}

func makePrivate(name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(name, 0o600)
	}
	if err != nil {
		return fmt.Errorf("bunstore: make database file private: %w", err)
	}
	return nil
}
