//go:build unix

package localkey

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openNoWait opens for reading without waiting for the other end of a pipe.
func openNoWait(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// checkAccess wants a file that nobody but its owner may touch, and an owner who
// could read the process's memory anyway.
func checkAccess(info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 != 0 {
		return errors.New("others than its owner may use it; run chmod 600 on it and, if it was exposed, make a new key")
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner is unknown")
	}
	if stat.Uid != 0 && int64(stat.Uid) != int64(os.Geteuid()) {
		return errors.New("it belongs to another user")
	}
	return nil
}
