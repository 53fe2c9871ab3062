package load

import (
	"context"
	"time"
)

const (
	idleStep  = 250 * time.Millisecond
	idleSteps = 12 // three seconds, in which a server gives back what memory is left over
	idleShare = 25 // a process that uses less than 1/25 of a processor is idle
)

// Idle waits until a process has had nothing to do for some time, but no
// longer than a bound. Where that can't be known it returns at once.
func Idle(ctx context.Context, process int, bound time.Duration) error {
	enough := time.NewTimer(bound)
	defer enough.Stop()
	last, known := CPUTime(process)
	tick := time.NewTicker(idleStep)
	defer tick.Stop()
	for quiet := 0; known && quiet < idleSteps; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-enough.C:
			return nil
		case <-tick.C:
		}
		now, _ := CPUTime(process)
		if quiet++; now-last > idleStep/idleShare {
			quiet = 0
		}
		last = now
	}
	return nil
}
