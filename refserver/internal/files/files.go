// Package files has what it takes that a file lasts, and that an error does not name it.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// SyncDirectory makes the names in a directory last: what was made, renamed or
// removed there.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrInvalid) {
		err = nil // some systems can't sync a directory
	}
	return errors.Join(err, d.Close())
}

// Cause is an error without the name of the file: what was tried, and why it failed.
func Cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}
