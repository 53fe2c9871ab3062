package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// Only what fails on a machine that stood still runs again, and once.
func TestRun(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		stood time.Duration
		errs  []error // of one time after the other
		want  error
		times int
	}{
		"passes":                    {0, []error{nil}, nil, 1},
		"passes, still":             {3 * still, []error{nil}, nil, 1},
		"fails":                     {still - 1, []error{failed, nil}, failed, 1},
		"fails, still":              {still, []error{failed, nil}, nil, 2},
		"fails again and again":     {still, []error{failed, failed, nil}, failed, 2},
		"fails, and again, still":   {3 * still, []error{failed, failed}, failed, 2},
		"fails on a steady machine": {0, []error{failed}, failed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			var said strings.Builder
			times := 0
			err := run(&said, func() (time.Duration, error) {
				times++
				return c.stood, c.errs[times-1]
			})
			is.Equal(err, c.want)
			is.Equal(times, c.times)
			is.Equal(strings.Contains(said.String(), "stood still for"), times > 1)
		})
	}
}

// A disk that stands still once shows, and one that can't be used does not.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx, end := context.WithCancel(t.Context())
		syncs := 0
		longest := watch(ctx, func() error {
			switch syncs++; syncs {
			case 3:
				time.Sleep(2 * time.Second)
			case 5:
				time.Sleep(5 * time.Second)
				return errors.New("read-only file system")
			}
			return nil
		})
		time.Sleep(time.Minute)
		is.Equal(longest(), 2*time.Second)
		end()
		synctest.Wait()
		time.Sleep(time.Second) // they end
	})
}

func TestSyncFile(t *testing.T) {
	t.Parallel()
	is.New(t).NoErr(syncFile())
}
