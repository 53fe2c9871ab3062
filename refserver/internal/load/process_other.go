//go:build !linux

package load

import "time"

// CPUTime is the processor time that a process has used, to a hundredth of a second,
// if that is known.
func CPUTime(int) (time.Duration, bool) { return 0, false }

// Memory is what a process holds in memory, in bytes; 0: not known.
func Memory(int) int64 { return 0 }
