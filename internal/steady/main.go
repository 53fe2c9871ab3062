// Command steady runs another command and watches the machine beside it:
//
//	steady go test ./...
//
// Tests hold the deadlines of AgentKey, which gives up a database after two seconds.
// On a machine that stands still for as long, or whose disk does, they fail whatever
// the code is like. So if the command fails and the machine stood still meanwhile,
// steady says so and runs it once more. For go test that is what failed: what passed
// is cached. On a machine that did not stand still, what fails fails: running all of
// it again, as gotestsum can, would hide races.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// still is from when on the machine stands still: a test's database answers within
// some milliseconds, and half its patience is gone.
const still = time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: steady COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(os.Stderr, func() (time.Duration, error) {
		watching, end := context.WithCancel(ctx)
		defer end()
		longest := watch(watching, syncFile)
		cmd := exec.CommandContext(ctx, os.Args[1], os.Args[2:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err := cmd.Run()
		return longest(), err
	})
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "steady:", err)
		os.Exit(1)
	}
}

// run does something, and does it again if it failed while the machine stood still.
func run(stderr io.Writer, do func() (stood time.Duration, err error)) error {
	stood, err := do()
	if err != nil && stood >= still {
		fmt.Fprintf(stderr, "steady: the machine stood still for %s; what failed runs once more\n", stood.Round(100*time.Millisecond))
		_, err = do()
	}
	return err
}

// watch watches until ctx ends, and says for how long at most nothing went on: for a
// program that wants to run, or one that wants its data on the disk.
func watch(ctx context.Context, sync func() error) (longest func() time.Duration) {
	var most atomic.Int64
	often := func(pause time.Duration, do func() error) {
		for {
			began := time.Now()
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			err := do()
			if took := time.Since(began) - pause; err == nil {
				for was := most.Load(); int64(took) > was && !most.CompareAndSwap(was, int64(took)); was = most.Load() {
				}
			}
		}
	}
	go often(50*time.Millisecond, func() error { return nil })
	go often(250*time.Millisecond, sync)
	return func() time.Duration { return time.Duration(most.Load()) }
}

// syncFile brings a page of a file to the disk that the tests' databases are on.
func syncFile() error {
	f, err := os.CreateTemp("", "steady-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}
