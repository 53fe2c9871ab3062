//go:build unix

package cli

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// filesHaveModes says whether a file's mode tells who else may read it.
const filesHaveModes = true

// harden keeps secrets in memory out of core files, and files that are made from
// the eyes of others.
func harden() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	return nil
}
