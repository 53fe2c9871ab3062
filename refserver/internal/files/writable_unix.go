//go:build unix

package files

import "golang.org/x/sys/unix"

// Writable says whether this process may make files in a directory.
func Writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
