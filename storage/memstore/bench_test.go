package memstore_test

import (
	"context"
	"fmt"
	"math/bits"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// BenchmarkVend reads what a vend reads and appends a line, in an organization
// with many agents and a log that grows.
func BenchmarkVend(b *testing.B) {
	const agents = 1000
	ctx := context.Background()
	s := memstore.New()
	update := func(fn func(ctx context.Context, tx storage.Tx) error) {
		if err := s.Update(ctx, "acme", fn); err != nil {
			b.Fatal(err)
		}
	}
	update(func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PutTool(ctx, storage.Tool{Organization: "acme", ID: "tool", Revision: 1})
		for i := range agents {
			id := fmt.Sprint("agent-", i)
			_, _ = tx.PutAgent(ctx, storage.Agent{Organization: "acme", ID: id, Revision: 1})
			_, err = tx.PutGrant(ctx, grants.Grant{Organization: "acme", ID: id, Agent: id, Tool: "tool", Revision: 1})
		}
		return err
	})
	content := make([]byte, 600)
	n := 0
	for b.Loop() {
		n++
		id := fmt.Sprint("agent-", n%agents)
		update(func(ctx context.Context, tx storage.Tx) error {
			_, _ = tx.Agents(ctx, storage.AgentQuery{IDs: []string{id}})
			_, _ = tx.Tools(ctx, storage.ToolQuery{IDs: []string{"tool"}})
			_, _ = tx.Grants(ctx, storage.GrantQuery{Pairs: []storage.Pair{{Agent: id, Tool: "tool"}}})
			_, _ = tx.Credentials(ctx, []storage.CredentialRef{{Tool: "tool"}, {Tool: "tool", Grant: id}})
			head, err := tx.Head(ctx)
			if err != nil {
				return err
			}
			size := head.Size + 1
			next := audit.Head{Size: size, Edge: make([]byte, 32*bits.OnesCount64(uint64(size))), Signed: content[:200]}
			return tx.Append(ctx, storage.Append{Lines: []audit.Line{{Seq: head.Size, Content: content}}, Head: next})
		})
	}
}

func BenchmarkView(b *testing.B) {
	ctx := context.Background()
	s := memstore.New()
	for b.Loop() {
		err := s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) error {
			_, err := tx.Head(ctx)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
