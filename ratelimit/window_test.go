package ratelimit_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/matryer/is"
	"pgregory.net/rapid"
)

const second int64 = 1_000_000

var perMinute = ratelimit.Policy{Limit: 60, Window: time.Minute}

// most is the oracle: the largest number of the times in any half-open window
// [s, s+window). It is enough to look at windows that begin at one of them.
func most(times []int64, window int64) int {
	best := 0
	for _, start := range times {
		n := 0
		for _, t := range times {
			if t >= start && t < start+window {
				n++
			}
		}
		best = max(best, n)
	}
	return best
}

// The contract's fixed windows let 120 calls pass around a boundary.
func TestBurstAcrossAMinute(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var times, admitted []int64
	for _, now := range []int64{59 * second, 61 * second} {
		for range 60 {
			var d ratelimit.Decision
			if times, d = ratelimit.Admit(times, perMinute, now); d.Allowed {
				admitted = append(admitted, now)
			}
		}
	}
	is.Equal(len(admitted), 60)
	is.Equal(most(admitted, 60*second), 60)
}

func TestBoundary(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ratelimit.Policy{Limit: 2, Window: time.Second}
	times, d := ratelimit.Admit(nil, p, 100)
	is.Equal(d, ratelimit.Decision{Allowed: true, Policy: p, Limit: 2, Remaining: 1, Reset: 100 + second})
	times, d = ratelimit.Admit(times, p, 200)
	is.Equal(d, ratelimit.Decision{Allowed: true, Policy: p, Limit: 2, Remaining: 0, Reset: 100 + second})
	times, d = ratelimit.Admit(times, p, 99+second)
	is.Equal(d, ratelimit.Decision{Policy: p, Limit: 2, Reset: 100 + second, RetryAfter: time.Microsecond})
	is.Equal(times, []int64{100, 200}) // a refused call is not kept
	times, d = ratelimit.Admit(times, p, 100+second)
	is.True(d.Allowed) // exactly a window after the oldest
	is.Equal(d.Reset, 200+second)
	is.Equal(times, []int64{200, 100 + second})
}

func TestOffKeepsNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	times, d := ratelimit.Admit([]int64{1, 2}, ratelimit.Policy{}, 7)
	is.Equal(times, nil)
	is.Equal(d, ratelimit.Decision{Allowed: true, Reset: 7})
}

func TestLoweredLimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ratelimit.Policy{Limit: 2, Window: time.Second}
	times, d := ratelimit.Admit([]int64{1, 2, 3, 4, 5}, p, 10)
	is.True(!d.Allowed)
	is.Equal(d.Remaining, 0)
	is.Equal(d.Reset, 4+second) // when only the last one is left, and not before
	times, d = ratelimit.Admit(times, p, d.Reset-1)
	is.True(!d.Allowed)
	_, d = ratelimit.Admit(times, p, 4+second)
	is.True(d.Allowed)
}

// Times at the ends of int64 neither overflow nor admit more.
func TestExtremeTimes(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ratelimit.Policy{Limit: 1, Window: time.Minute}
	times, d := ratelimit.Admit(nil, p, math.MinInt64)
	is.True(d.Allowed)
	is.Equal(times, []int64{0})
	times, d = ratelimit.Admit(times, p, math.MinInt64)
	is.True(!d.Allowed)
	is.Equal(d.RetryAfter, time.Duration(math.MaxInt64))
	times, d = ratelimit.Admit(times, p, math.MaxInt64)
	is.True(d.Allowed)
	is.Equal(d.Reset, int64(math.MaxInt64))
	_, d = ratelimit.Admit(times, p, 0)
	is.True(!d.Allowed)
}

// Against the oracle: any sequence of calls, also with a clock that goes back,
// admits at most the limit in any window of the effective time; a refusal is
// deserved; and the promise of Reset is kept.
func TestAdmitProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := ratelimit.Policy{
			Limit:  rapid.IntRange(1, 5).Draw(t, "limit"),
			Window: time.Duration(rapid.IntRange(1, 3).Draw(t, "window")) * time.Second,
		}
		window := p.Window.Microseconds()
		var times, admitted []int64
		var now, high int64
		for range rapid.IntRange(1, 80).Draw(t, "calls") {
			now = max(0, now+rapid.SampledFrom([]int64{0, 0, 1, window / 3, window - 1, window, -1, -window, 3 * window}).Draw(t, "step"))
			if len(admitted) > 0 {
				high = max(now, admitted[len(admitted)-1])
			} else {
				high = now
			}
			before := slices.Clone(times)
			var d ratelimit.Decision
			times, d = ratelimit.Admit(times, p, now)
			if d.Allowed {
				admitted = append(admitted, high)
			}
			checkDecision(t, d, p, admitted, high)
			if !d.Allowed && !slices.Equal(times, before[len(before)-len(times):]) {
				t.Fatal("a refused call was kept")
			}
			if len(times) > p.Limit {
				t.Fatal("more times are kept than calls can count")
			}
			times = reencode(t, times)
		}
	})
}

func checkDecision(t *rapid.T, d ratelimit.Decision, p ratelimit.Policy, admitted []int64, high int64) {
	window := p.Window.Microseconds()
	if most(admitted, window) > p.Limit {
		t.Fatalf("more than %d admitted in a window: %v", p.Limit, admitted)
	}
	if !d.Allowed && most(append(slices.Clone(admitted), high), window) <= p.Limit {
		t.Fatalf("refused at %d without need: %v", high, admitted)
	}
	live := 0
	for _, at := range admitted {
		if high-at < window {
			live++
		}
	}
	if d.Remaining != p.Limit-live {
		t.Fatalf("remaining is %d, should be %d", d.Remaining, p.Limit-live)
	}
	if !d.Allowed && d.RetryAfter <= 0 || d.Allowed && d.RetryAfter != 0 {
		t.Fatalf("wait for %s", d.RetryAfter)
	}
	kept := slices.DeleteFunc(slices.Clone(admitted), func(at int64) bool { return high-at >= window })
	if _, early := ratelimit.Admit(slices.Clone(kept), p, d.Reset-1); !d.Allowed && early.Allowed {
		t.Fatal("admitted before the reset")
	}
	if _, again := ratelimit.Admit(slices.Clone(kept), p, d.Reset); !again.Allowed {
		t.Fatal("refused at the reset")
	}
}

func reencode(t *rapid.T, times []int64) []int64 {
	back, err := ratelimit.ParseTimes(ratelimit.AppendTimes(nil, times))
	if err != nil || !slices.Equal(back, times) {
		t.Fatalf("%v came back as %v: %v", times, back, err)
	}
	return back
}

func TestTimesEncoding(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	// Pinned: databases hold it.
	is.Equal(ratelimit.AppendTimes([]byte("x"), []int64{5, 5, 305, 1_795_000_000_000_000}),
		[]byte{'x', 1, 5, 0, 0xac, 0x02, 0xcf, 0xdd, 0xfc, 0x8a, 0xb0, 0x91, 0x98, 0x03})
	is.Equal(ratelimit.AppendTimes(nil, nil), []byte{1})
	times, err := ratelimit.ParseTimes([]byte{1})
	is.NoErr(err)
	is.Equal(len(times), 0)
	extreme := []int64{0, math.MaxInt64}
	times, err = ratelimit.ParseTimes(ratelimit.AppendTimes(nil, extreme))
	is.NoErr(err)
	is.Equal(times, extreme)
	for name, b := range map[string][]byte{
		"nothing":           {},
		"version 0":         {0, 5},
		"version 2":         {2, 5},
		"cut off":           {1, 0x80},
		"not the shortest":  {1, 0x80, 0x00},
		"not the shortest2": {1, 0x85, 0x80, 0x00},
		"beyond 64 bits":    {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
		"beyond int64":      {1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
		"sum beyond int64":  {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1},
		"too many":          append([]byte{1}, bytes.Repeat([]byte{1}, ratelimit.MaxLimit+1)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ratelimit.ParseTimes(b)
			if !errors.Is(err, ratelimit.ErrTimes) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// What parses is exactly what would be written, and Admit works with it.
func FuzzParseTimes(f *testing.F) {
	f.Add([]byte{1})
	f.Add(ratelimit.AppendTimes(nil, []int64{5, 5, 305, math.MaxInt64}))
	f.Add([]byte{1, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		times, err := ratelimit.ParseTimes(b)
		if err != nil {
			return
		}
		if !slices.IsSorted(times) || len(times) > 0 && times[0] < 0 {
			t.Fatal("times out of order")
		}
		if !bytes.Equal(ratelimit.AppendTimes(nil, times), b) {
			t.Fatal("two encodings of the same times")
		}
		ratelimit.Admit(times, perMinute, 1<<50)
	})
}
