package ratelimit_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

func BenchmarkTake(b *testing.B) {
	for name, step := range map[string]int64{"admitted": second, "refused": 1} {
		b.Run(name, func(b *testing.B) {
			m := memory(b, perMinute, 10)
			b.ReportAllocs()
			var now int64
			for b.Loop() {
				now += step
				if _, err := m.Take(b.Context(), ratelimit.TierCredential, "agent", now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Many subjects from all processors at once, each call a tenth of a
// millisecond after the last.
func BenchmarkTakeParallel(b *testing.B) {
	const subjects = 10_000
	names := make([]string, subjects)
	for i := range names {
		names[i] = "agent" + strconv.Itoa(i)
	}
	m := memory(b, ratelimit.Policy{Limit: 600, Window: time.Minute}, subjects)
	ctx := b.Context()
	b.ReportAllocs()
	var clock atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			now := clock.Add(100)
			if _, err := m.Take(ctx, ratelimit.TierCredential, names[now/100%subjects], now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// New subjects only, each of which drops an idle one: what strangers cause.
func BenchmarkTakeNewSubjects(b *testing.B) {
	m := memory(b, ratelimit.Policy{Limit: 600, Window: time.Second}, 1100)
	b.ReportAllocs()
	var now int64
	for b.Loop() {
		now += 1000
		if _, err := m.Take(b.Context(), ratelimit.TierCredential, strconv.FormatInt(now, 36), now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTimes(b *testing.B) {
	times := make([]int64, 60)
	for i := range times {
		times[i] = 1_795_000_000*second + int64(i)*second
	}
	encoded := ratelimit.AppendTimes(nil, times)
	b.ReportAllocs()
	b.ReportMetric(float64(len(encoded)), "bytes")
	for b.Loop() {
		parsed, err := ratelimit.ParseTimes(encoded)
		if err != nil {
			b.Fatal(err)
		}
		encoded = ratelimit.AppendTimes(encoded[:0], parsed)
	}
}
