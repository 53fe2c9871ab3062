package load

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// ticks is the unit of processor time in /proc, which is the same on every
// architecture that Go runs on.
const ticks = 100

// CPUTime is the processor time that a process has used, to a hundredth of a second,
// if that is known.
func CPUTime(process int) (time.Duration, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/stat")
	// The name of the program stands in parentheses and may hold anything.
	end := bytes.LastIndexByte(b, ')')
	if err != nil || end < 0 {
		return 0, false
	}
	fields := bytes.Fields(b[end+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * time.Second / ticks, err1 == nil && err2 == nil
}

// Memory is what a process holds in memory, in bytes; 0: not known.
func Memory(process int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, found := bytes.CutPrefix(line, []byte("VmRSS:")); found {
			kib, _ := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte(" kB"))), 10, 64)
			return kib << 10
		}
	}
	return 0
}
