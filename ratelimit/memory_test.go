package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/matryer/is"
	"pgregory.net/rapid"
)

func memory(t testing.TB, p ratelimit.Policy, subjects int) *ratelimit.Memory {
	t.Helper()
	m, err := ratelimit.NewMemory(ratelimit.Policies{ratelimit.TierCredential: p, ratelimit.TierRead: p, ratelimit.TierAdmin: {}}, subjects)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMemorySubjectsAndTiersAreApart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, ratelimit.Policy{Limit: 1, Window: time.Minute}, 10)
	take := func(tier ratelimit.Tier, subject string) bool {
		d, err := m.Take(t.Context(), tier, subject, 5)
		is.NoErr(err)
		return d.Allowed
	}
	is.True(take(ratelimit.TierCredential, "a"))
	is.True(!take(ratelimit.TierCredential, "a"))
	is.True(take(ratelimit.TierCredential, "b"))
	is.True(take(ratelimit.TierRead, "a"))
	for range 5 {
		is.True(take(ratelimit.TierAdmin, "")) // off
	}
}

// What can't be decided is an error, and an error is a refusal.
func TestMemoryErrors(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, perMinute, 10)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		ctx     context.Context
		tier    ratelimit.Tier
		subject string
		want    error
	}{
		{t.Context(), ratelimit.TierPreauth, "a", ratelimit.ErrTier}, // without a policy
		{t.Context(), "unheard of", "a", ratelimit.ErrTier},
		{t.Context(), ratelimit.TierRead, "", ratelimit.ErrSubject},
		{t.Context(), ratelimit.TierRead, strings.Repeat("a", ratelimit.MaxSubject+1), ratelimit.ErrSubject},
		{cancelled, ratelimit.TierRead, "a", context.Canceled},
	} {
		d, err := m.Take(tc.ctx, tc.tier, tc.subject, 5)
		is.True(errors.Is(err, tc.want))
		is.True(!d.Allowed)
	}
	for _, n := range []int{0, -1} {
		_, err := ratelimit.NewMemory(ratelimit.DefaultPolicies(), n)
		is.True(err != nil)
	}
}

// Full of live subjects, a new one is refused and the known ones are served;
// room comes back as subjects become idle.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, perMinute, 2)
	take := func(subject string, now int64) error {
		d, err := m.Take(t.Context(), ratelimit.TierRead, subject, now)
		is.Equal(d.Allowed, err == nil)
		return err
	}
	is.NoErr(take("a", 0))
	is.NoErr(take("b", 1))
	is.True(errors.Is(take("c", 2), ratelimit.ErrFull))
	is.NoErr(take("a", 3))
	_, err := m.Take(t.Context(), ratelimit.TierCredential, "c", 3) // another tier has its own room
	is.NoErr(err)
	is.True(errors.Is(take("c", 60*second), ratelimit.ErrFull)) // b lives for one more microsecond
	is.NoErr(take("c", 60*second+1))
	is.True(errors.Is(take("d", 60*second+2), ratelimit.ErrFull)) // a was called at 3
	is.NoErr(take("d", 60*second+3))
}

// A clock that goes back admits no more, also for subjects that have been
// dropped meanwhile.
func TestMemoryClockGoesBack(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, ratelimit.Policy{Limit: 1, Window: time.Minute}, 10)
	take := func(subject string, now int64) ratelimit.Decision {
		d, err := m.Take(t.Context(), ratelimit.TierRead, subject, now)
		is.NoErr(err)
		return d
	}
	is.True(take("a", 100*second).Allowed)
	is.True(take("b", 200*second).Allowed) // a is idle now, and dropped
	is.True(take("a", 100*second).Allowed) // counts at 200 s
	d := take("a", 170*second)
	is.True(!d.Allowed)
	is.Equal(d.Reset, 260*second)
	is.Equal(d.RetryAfter, 90*time.Second) // by the caller's clock
	is.True(!take("a", 259*second).Allowed)
	is.True(take("a", 260*second).Allowed)
}

// Memory decides as the oracle does, for several subjects and any clock,
// whatever it drops meanwhile.
func TestMemoryProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		p := ratelimit.Policy{Limit: rapid.IntRange(1, 4).Draw(rt, "limit"), Window: time.Second}
		m := memory(t, p, 3)
		admitted := map[string][]int64{}
		var now, high int64
		for range rapid.IntRange(1, 80).Draw(rt, "calls") {
			now = max(0, now+rapid.SampledFrom([]int64{0, 0, 1, second / 3, second - 1, second, -1, -second}).Draw(rt, "step"))
			high = max(high, now)
			subject := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "subject")
			d, err := m.Take(t.Context(), ratelimit.TierRead, subject, now)
			live := 0
			for _, times := range admitted {
				if high-times[len(times)-1] < second {
					live++
				}
			}
			switch {
			case errors.Is(err, ratelimit.ErrFull):
				if live < 3 {
					rt.Fatal("full with room")
				}
				continue
			case err != nil:
				rt.Fatal(err)
			case d.Allowed:
				admitted[subject] = append(admitted[subject], high)
			}
			checkDecision(rt, d, p, admitted[subject], high)
		}
	})
}

// Sixteen goroutines never get more than the limit between them.
func TestMemoryConcurrently(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, perMinute, 100)
	var clock atomic.Int64
	var mu sync.Mutex
	admitted := map[string][]int64{}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 2000 {
				subject := fmt.Sprint("subject", (g+i)%4)
				// The clock is read before the call, as callers do, so
				// that calls arrive out of order.
				now := clock.Add(second / 100)
				d, err := m.Take(t.Context(), ratelimit.TierCredential, subject, now)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed {
					mu.Lock()
					admitted[subject] = append(admitted[subject], now)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	minutes := int(clock.Load() / (60 * second))
	is.Equal(len(admitted), 4)
	for _, times := range admitted {
		is.True(len(times) <= 60*(minutes+1))
		is.True(len(times) >= 60*(minutes-1)) // and calls do get through
	}
}

// With one time for all, the limit is met exactly.
func TestMemoryBurst(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	m := memory(t, perMinute, 100)
	for round := range 50 {
		var n atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 20 {
					if d, err := m.Take(t.Context(), ratelimit.TierRead, "a", int64(round)*60*second); err == nil && d.Allowed {
						n.Add(1)
					}
				}
			})
		}
		wg.Wait()
		is.Equal(n.Load(), int64(60))
	}
}

// Refused calls cost no memory, and idle subjects give theirs back.
// Not parallel: it measures the heap of the process.
func TestMemoryIsBounded(t *testing.T) {
	is := is.New(t)
	const subjects = 2000
	m := memory(t, ratelimit.Policy{Limit: 10, Window: time.Minute}, subjects)
	empty := heap()
	fill := func(calls int, now int64) {
		for i := range subjects {
			for range calls {
				_, err := m.Take(t.Context(), ratelimit.TierRead, fmt.Sprint("subject", now, i), now)
				is.NoErr(err)
			}
		}
	}
	fill(10, second)
	full := heap() - empty
	is.True(full > 0 && full < subjects*1000) // bytes
	fill(50, second)
	is.True(heap()-empty < full+full/4) // refused ones
	for round := range int64(5) {
		fill(10, (100+100*round)*second)
		is.True(heap()-empty < 2*full) // new subjects take the place of idle ones
	}
	for range 2 * subjects {
		_, err := m.Take(t.Context(), ratelimit.TierRead, "last", 10_000*second)
		is.NoErr(err)
	}
	is.True(heap()-empty < full/2) // only the map's own table is left
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
