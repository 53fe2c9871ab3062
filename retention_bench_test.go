package agentkey_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// timed measures how long the longest transaction took from the moment at which
// it held the head.
type timed struct {
	storage.Store
	longest atomic.Int64
	n       atomic.Int64
}

func (s *timed) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	var began time.Time
	err := s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		began = time.Now()
		return fn(ctx, tx)
	})
	took := int64(time.Since(began))
	s.n.Add(1)
	for was := s.longest.Load(); took > was && !s.longest.CompareAndSwap(was, took); was = s.longest.Load() {
	}
	return err
}

// What a vend waits for at most while retention removes: one transaction of 256
// events, of which each is in the index of the log.
func BenchmarkRetain(b *testing.B) {
	for name, open := range map[string]func(testing.TB) dbtest.Database{"sqlite": dbtest.SQLite, "postgres": dbtest.Postgres} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				clock := agentkeytest.NewClock(time.Now())
				store := &timed{Store: open(b)(b)}
				kit := agentkeytest.New(b, func(c *agentkey.Config) { c.Storage, c.Clock = store, clock.Now })
				recordMany(b, kit.Manager, kit.Owner, 5000)
				clock.Advance(40 * days)
				_, err := kit.SetRetention(b.Context(), kit.Owner, agentkey.RetentionPolicy{ContentDays: 30})
				noErr(b, err)
				_, err = kit.Events(b.Context(), kit.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: "x.example.happened"}}) // which writes the index
				noErr(b, err)
				store.longest.Store(0)
				store.n.Store(0)
				b.StartTimer()
				noErr(b, kit.Retain(b.Context()))
				b.ReportMetric(float64(store.longest.Load())/1e6, "ms/longest-transaction")
				b.ReportMetric(float64(store.n.Load()), "transactions")
			}
		})
	}
}
