package load

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Sync measures how long the disk of a directory takes to keep 4 KiB that are
// written at the end of a file: the median of 200 times.
func Sync(dir string, clock func() time.Time) (_ time.Duration, err error) {
	f, err := os.CreateTemp(dir, "agentkey-bench-*.sync")
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4<<10)
	took := make([]time.Duration, 200)
	for i := range took {
		began := clock()
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		took[i] = clock().Sub(began)
	}
	slices.Sort(took)
	return percentile(took, 500), nil
}
