//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package anchor

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lockFile takes the file's lock, for which it waits as long as ctx lasts.
func lockFile(ctx context.Context, file *os.File) error {
	const pause = 5 * time.Millisecond
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
