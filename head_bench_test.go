package agentkey_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// headCost is what each commit does for its head, and nothing else.
type headCost struct {
	signer    *audit.Signer
	verifiers *audit.Verifiers
	rows      *vault.RowSealer
	event     audit.Event
	head      storage.Head
	tree      audit.Tree
}

const headOrg = "org"

// newHeadCost is a log of so many events, of which only the leaf hashes are there:
// a head knows no more of them.
func newHeadCost(b *testing.B, size int64) *headCost {
	b.Helper()
	signer, err := audit.NewSigner(audit.SignerName("inst"), bytes.Repeat([]byte{7}, 32))
	noErr(b, err)
	key, err := vault.NewDataKey(vault.PurposeRow)
	noErr(b, err)
	c := &headCost{signer: signer}
	c.rows, err = vault.NewRowSealer(key)
	noErr(b, err)
	c.verifiers, err = audit.NewVerifiers(signer.PublicKey())
	noErr(b, err)
	for n := range size - 1 {
		c.tree.Append(audit.LeafHash(fmt.Append(nil, n)))
	}
	c.event = audit.Event{
		Seq: size - 1, Time: 1, Organization: headOrg, Action: audit.ActionCredentialVended, Outcome: audit.OutcomeOK, Salt: make([]byte, 16),
		Actor: audit.Actor{Kind: audit.ActorAgent, ID: "agent", Auth: "key", Credential: "key"}, Agent: "agent", Tool: "tool",
		Grant: audit.GrantRef{ID: "grant", Revision: 2, Cycle: 1}, Credential: audit.CredentialRef{ID: "credential", Revision: 3},
	}
	c.head.Head = audit.Head{Epoch: 1, Size: size - 1}
	c.head, c.tree = c.extend(b)
	c.event.Seq++
	return c
}

// extend appends an event, signs the head and seals its row.
func (c *headCost) extend(b *testing.B) (storage.Head, audit.Tree) {
	x, err := audit.Extend(c.head.Head, c.tree, []audit.Event{c.event}, c.signer)
	noErr(b, err)
	seal, err := c.rows.Seal(storage.HeadRow("inst", headOrg, x.Head))
	noErr(b, err)
	return storage.Head{Head: x.Head, Seal: seal}, x.Tree
}

// prove proves a head that another process wrote.
func (c *headCost) prove(b *testing.B) {
	_, err := audit.CheckHead(c.head.Head, "inst", headOrg, c.verifiers)
	noErr(b, err)
	noErr(b, c.rows.Verify(storage.HeadRow("inst", headOrg, c.head.Head), c.head.Seal))
}

// BenchmarkHeadCost measures what a commit's head costs, in signatures by the same
// key that are made in turn with it: when the last head was this process's own, which
// may be three, and when it was another's, which may be six. The event's own bytes and hash are
// in it. Both are medians. The sizes have the longest edges there are below 10^3 to 10^6.
func BenchmarkHeadCost(b *testing.B) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	for _, size := range []int64{1<<10 - 1, 1<<13 - 1, 1<<17 - 1, 1<<20 - 1} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			c := newHeadCost(b, size)
			var sign, own, others []time.Duration
			took := func(all *[]time.Duration, work func()) {
				begun := time.Now()
				work()
				*all = append(*all, time.Since(begun))
			}
			for b.Loop() {
				took(&sign, func() { ed25519.Sign(key, c.head.Signed) })
				took(&own, func() { c.extend(b) })
				took(&others, func() { c.prove(b); c.extend(b) })
			}
			unit := float64(median(sign))
			b.ReportMetric(unit, "ns/signature")
			b.ReportMetric(float64(median(own))/unit, "signatures-own")
			b.ReportMetric(float64(median(others))/unit, "signatures-other")
			if b.N > 100 && (float64(median(own)) > 3*unit || float64(median(others)) > 6*unit) {
				b.Errorf("a head of %d events costs too much", size)
			}
		})
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}
