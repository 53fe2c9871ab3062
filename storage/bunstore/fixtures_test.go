package bunstore_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// noon is the fixed time of the tests.
const noon int64 = 1_767_268_800_000_000

// event is a credential's vend to an agent.
func event(agent, tool, grant string) audit.Event {
	return audit.Event{
		Actor: audit.Actor{Kind: audit.ActorAgent, ID: agent}, Action: audit.ActionCredentialVended, Outcome: audit.OutcomeOK,
		Target: audit.Ref{Kind: audit.KindTool, ID: tool}, Agent: agent, Tool: tool, Grant: audit.GrantRef{ID: grant, Revision: 1},
		Salt: make([]byte, 16),
	}
}

// following is what adds events to a log with this head. Its heads aren't signed.
func following(head storage.Head, org string, events ...audit.Event) (storage.Append, error) {
	tree, err := audit.ParseTree(head.Size, head.Edge)
	if err != nil {
		return storage.Append{}, err
	}
	var a storage.Append
	at := max(head.Time, noon)
	for i, e := range events {
		at++
		e.Organization, e.Seq, e.Time = org, head.Size+int64(i), at
		content, err := e.Encode()
		if err != nil {
			return a, err
		}
		leaf := audit.LeafHash(content)
		tree.Append(leaf)
		a.Lines = append(a.Lines, audit.Line{Seq: e.Seq, Content: content, Personal: []byte(`{"of":"nobody"}`), Leaf: leaf})
	}
	a.Head = audit.Head{Epoch: 1, Size: tree.Size(), Edge: tree.Edge(), Signed: []byte("head"), Time: at}
	a.Seal = []byte("seal")
	return a, nil
}

// appendEvents adds events to the log of a running Update.
func appendEvents(ctx context.Context, tx storage.Tx, org string, events ...audit.Event) error {
	head, err := tx.Head(ctx)
	if err != nil {
		return err
	}
	a, err := following(head, org, events...)
	if err != nil {
		return err
	}
	a.Keep = head.Size == 0
	return tx.Append(ctx, a)
}

// update runs an Update that must succeed.
func update(t testing.TB, s storage.Store, org string, fn func(context.Context, storage.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), org, fn); err != nil {
		t.Fatal(err)
	}
}

// each returns the first error of a row of Puts, and an error for a conflict.
type puts struct{ err error }

func (p *puts) put(ok bool, err error) {
	switch {
	case p.err != nil:
	case err != nil:
		p.err = err
	case !ok:
		p.err = fmt.Errorf("conflict")
	}
}

// furnish gives an organization n agents with a key and a grant each, one tool
// with its credential, and a first event.
func furnish(t testing.TB, s storage.Store, org string, n int) {
	t.Helper()
	update(t, s, org, func(ctx context.Context, tx storage.Tx) error {
		var p puts
		p.put(tx.PutOrganization(ctx, storage.Organization{ID: org, Name: org, Revision: 1}))
		p.put(tx.PutTool(ctx, storage.Tool{Organization: org, ID: "tool", ConfigKey: "linear", Revision: 1, RequiredApprovals: 1, Mode: storage.Shared}))
		p.put(tx.PutCredential(ctx, storage.Credential{
			Organization: org, ID: "credential", Tool: "tool", Revision: 1, Status: storage.CredentialActive,
			ExpiresAt: noon, Sealed: []byte("sealed"), SealedRevision: 1,
		}))
		p.put(tx.PutDataKey(ctx, storage.DataKey{
			Organization: org, ID: "seal-key", Purpose: vault.PurposeSeal, State: vault.KeyActive, Wrapped: []byte("wrapped"), Revision: 1,
		}))
		for i := range n {
			agent := fmt.Sprintf("agent-%03d", i)
			digest := sha256.Sum256([]byte(org + agent))
			p.put(tx.PutAgent(ctx, storage.Agent{Organization: org, ID: agent, Status: storage.AgentActive, Revision: 1}))
			p.put(tx.PutKey(ctx, storage.Key{
				Organization: org, ID: "key-" + agent, Agent: agent, Digest: digest[:], Status: storage.KeyActive, ExpiresAt: noon, Revision: 1,
			}))
			p.put(tx.PutGrant(ctx, grants.Grant{
				Organization: org, ID: "grant-" + agent, Agent: agent, Tool: "tool", Status: grants.StatusApproved, Cycle: 1,
				ExpiresAt: noon, RequiredApprovals: 1, Approvals: 1, Revision: 1,
			}))
		}
		if p.err != nil {
			return p.err
		}
		return appendEvents(ctx, tx, org, event("agent-000", "tool", "grant-agent-000"))
	})
}
