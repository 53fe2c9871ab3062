package agentkey_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// BenchmarkVend measures vends in process, of one organization on each storage,
// with 1, 16 and 64 callers at a time.
func BenchmarkVend(b *testing.B) {
	storages := []struct {
		name string
		open func(b *testing.B) storage.Store
	}{
		{"memory", func(*testing.B) storage.Store { return memstore.New() }},
		{"sqlite", func(b *testing.B) storage.Store { return dbtest.SQLite(b)(b) }},
		{"postgres", func(b *testing.B) storage.Store { return dbtest.Postgres(b)(b) }},
	}
	for _, s := range storages {
		for _, clients := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("storage=%s/clients=%d", s.name, clients), func(b *testing.B) {
				store := s.open(b)
				k := agentkeytest.New(b, func(c *agentkey.Config) {
					c.Storage = store
					c.Clock = time.Now // a Postgres compares it with its own
				})
				agent, _ := k.Agent("bot")
				tool := k.Tool("Linear", "lin_api_test_bench")
				k.Allow(agent, tool)
				caller := agentkey.TrustedAgent(k.Organization.ID, agent.ID)
				share(b, clients, func() error {
					v, err := k.Vend(b.Context(), caller, tool.ID)
					if err == nil {
						v.Credential.Destroy()
					}
					return err
				})
			})
		}
	}
}

// BenchmarkOrganizations measures vends in process, of 16 organizations with 4
// callers each on one SQLite, and what they would come to if each organization
// had transactions of its own.
func BenchmarkOrganizations(b *testing.B) {
	for _, commits := range []string{"shared", "apart"} {
		b.Run("commits="+commits, func(b *testing.B) {
			store := storage.Store(dbtest.SQLite(b)(b))
			if commits == "apart" {
				store = apart{store}
			}
			k := agentkeytest.New(b, func(c *agentkey.Config) { c.Storage = store })
			vends := make([]func(context.Context) error, 16)
			for i := range vends {
				one := *k
				one.Organization, one.Owner = k.NewOrganization(fmt.Sprintf("Organization %d", i))
				vends[i] = vender(&one)
			}
			var begun atomic.Int64
			share(b, 4*len(vends), func() error {
				return vends[begun.Add(1)%int64(len(vends))](b.Context())
			})
		})
	}
}

// apart is a store that gives each Update a transaction of its own: it shares only
// those whose time is bounded.
type apart struct{ storage.Store }

func (s apart) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(context.WithoutCancel(ctx), organization, fn)
}

// share has b.N operations done by so many goroutines, after as many as make
// every connection and prepare every statement.
func share(b *testing.B, goroutines int, operation func() error) {
	spread(b, 2*goroutines, goroutines, operation)
	b.ReportAllocs()
	b.ResetTimer()
	spread(b, b.N, goroutines, operation)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "vends/s")
}

func spread(b *testing.B, n, goroutines int, operation func() error) {
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for begun.Add(1) <= int64(n) {
				if err := operation(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
