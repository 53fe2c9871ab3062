package bunstore_test

import (
	"context"
	"testing"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// vendReads are the reads of a vend, under the head.
func vendReads(ctx context.Context, tx storage.Tx) error {
	_, err := storage.ReadBulk(ctx, tx, storage.BulkQuery{
		Keys: []string{"key-agent-000"}, Agents: []string{"agent-000"}, Tools: []string{"tool"},
		Pairs: []storage.Pair{{Agent: "agent-000", Tool: "tool"}}, Credentials: true,
	})
	return err
}

func eachBenchmark(b *testing.B, run func(*testing.B, storage.Store)) {
	for _, d := range dialects {
		b.Run(d.name, func(b *testing.B) {
			s := migrated(b, d.make(b))
			furnish(b, s, "acme", 50)
			b.ResetTimer()
			run(b, s)
		})
	}
}

// BenchmarkVend is a vend's transaction: its reads, one line, a durable commit.
func BenchmarkVend(b *testing.B) {
	eachBenchmark(b, func(b *testing.B, s storage.Store) {
		for b.Loop() {
			update(b, s, "acme", func(ctx context.Context, tx storage.Tx) error {
				if err := vendReads(ctx, tx); err != nil {
					return err
				}
				return appendEvents(ctx, tx, "acme", event("agent-000", "tool", "grant-agent-000"))
			})
		}
	})
}

// BenchmarkVendReads is the same without the line, so that nothing is committed.
func BenchmarkVendReads(b *testing.B) {
	eachBenchmark(b, func(b *testing.B, s storage.Store) {
		for b.Loop() {
			update(b, s, "acme", vendReads)
		}
	})
}

func BenchmarkFindKey(b *testing.B) {
	eachBenchmark(b, func(b *testing.B, s storage.Store) {
		digest := make([]byte, 32)
		for b.Loop() {
			if _, _, err := s.FindKey(context.Background(), digest); err != nil {
				b.Fatal(err)
			}
		}
	})
}
