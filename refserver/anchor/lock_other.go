//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package anchor

import (
	"context"
	"os"
)

// lockFile locks nothing: one process writes a directory here.
func lockFile(context.Context, *os.File) error { return nil }
