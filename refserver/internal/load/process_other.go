//go:build !linux

package load

import "time"

// cpuTime is the processor time that a process has used, if that is known.
func cpuTime(int) (time.Duration, bool) { return 0, false }

// Memory is what a process holds in memory, in bytes; 0: not known.
func Memory(int) int64 { return 0 }
