package cli

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A server is quiet when it allocates less than quietBytes from one look to the
// next, as one with hardly a request does.
const (
	quietLook  = time.Second
	quietBytes = 1 << 20
)

// giveBack returns what memory is left over to the system, once, each time that
// the server has become quiet: what the replay of a long log at the start took, or
// a flood. The runtime collects what is small only minutes later, and gives it back
// after that. A collection of a heap so small takes a few milliseconds, and nobody
// waits then.
func giveBack(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() {
		look := time.NewTicker(quietLook)
		defer look.Stop()
		whenQuiet(ctx, look.C, allocated, debug.FreeOSMemory)
	})
	return func() { cancel(); all.Wait() }
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func whenQuiet(ctx context.Context, look <-chan time.Time, allocated func() uint64, do func()) {
	last, done := allocated(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
		}
		now := allocated()
		quiet := now-last < quietBytes
		last = now
		if quiet && !done {
			do()
		}
		done = quiet
	}
}
