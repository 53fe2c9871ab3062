package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

const (
	installation = "inst-1"
	organization = "org-1"
	epochMicros  = int64(1795416000_000000)
)

// seeded returns n bytes that depend on the label alone.
func seeded(label string, n int) []byte {
	var out []byte
	for i := 0; len(out) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", label, i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func newSigner(tb testing.TB, installation, label string) *audit.Signer {
	tb.Helper()
	s, err := audit.NewSigner(audit.SignerName(installation), seeded("test-seed/"+label, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func verifiersOf(tb testing.TB, signers ...*audit.Signer) *audit.Verifiers {
	tb.Helper()
	var keys []string
	for _, s := range signers {
		keys = append(keys, s.PublicKey())
	}
	v, err := audit.NewVerifiers(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// A logbook is a log as a store keeps it, for tests to damage.
type logbook struct {
	organization string
	signer       *audit.Signer
	head         audit.Head
	tree         audit.Tree
	lines        []audit.Line
	kept         []audit.Kept
	signedHead   []byte
	contentFrom  int64
}

// newLogbook returns a sound log of n events, with kept checkpoints of the given sizes.
func newLogbook(tb testing.TB, organization string, n int, kept ...int64) *logbook {
	tb.Helper()
	b := &logbook{organization: organization, signer: newSigner(tb, installation, "a"), head: audit.Head{Epoch: 1}}
	for i := range n {
		b.append(tb, sampleEvent(organization, int64(i)))
		if slices.Contains(kept, int64(i+1)) {
			b.kept = append(b.kept, audit.Kept{Size: b.head.Size, Signed: b.head.Signed})
		}
	}
	return b
}

func (b *logbook) append(tb testing.TB, e audit.Event) {
	tb.Helper()
	var personal []byte
	if e.Seq%3 == 0 {
		personal, _ = samplePersonal(e.Organization, e.Seq).Encode()
		e.Personal = audit.HashPersonal(personal)
	}
	x, err := audit.Extend(b.head, b.tree, []audit.Event{e}, b.signer)
	if err != nil {
		tb.Fatal(err)
	}
	b.head, b.tree, b.signedHead = x.Head, x.Tree, x.Head.Signed
	b.lines = append(b.lines, audit.Line{Seq: e.Seq, Content: x.Contents[0], Personal: personal, Leaf: x.Leaves[0]})
}

// clone returns a copy that can be damaged by replacing slices, lines and single bytes of content.
func (b *logbook) clone() *logbook {
	c := *b
	c.lines = slices.Clone(b.lines)
	for i := range c.lines {
		c.lines[i].Content = bytes.Clone(c.lines[i].Content)
	}
	c.kept = slices.Clone(b.kept)
	return &c
}

// around returns a copy that keeps content only within two lines of the given ones, as after a retention that went by other
// rules: what a test damages there is judged as in the whole log, and thousands of such logs are verified in seconds.
func (b *logbook) around(seqs ...int) *logbook {
	c := *b
	c.contentFrom = audit.MaxInteger
	c.kept = slices.Clone(b.kept)
	c.lines = make([]audit.Line, len(b.lines))
	for i, l := range b.lines {
		c.lines[i] = audit.Line{Seq: l.Seq, Leaf: l.Leaf}
		if slices.ContainsFunc(seqs, func(seq int) bool { return i-2 <= seq && seq <= i+2 }) {
			c.lines[i].Content, c.lines[i].Personal = bytes.Clone(l.Content), l.Personal
		}
	}
	return &c
}

// renumber files the lines under the numbers of their places, as rows whose keys were rewritten.
func (b *logbook) renumber() {
	for i := range b.lines {
		b.lines[i].Seq = int64(i)
	}
}

func (b *logbook) source() *audit.Source {
	i, k := 0, 0
	return &audit.Source{
		Lines: func(context.Context) (audit.Line, error) {
			if i == len(b.lines) {
				return audit.Line{}, io.EOF
			}
			i++
			return b.lines[i-1], nil
		},
		Checkpoints: func(context.Context) (audit.Kept, error) {
			if k == len(b.kept) {
				return audit.Kept{}, io.EOF
			}
			k++
			return b.kept[k-1], nil
		},
		Head: b.signedHead,
	}
}

func (b *logbook) log(tb testing.TB) audit.Log {
	return audit.Log{
		Installation: installation, Organization: organization, Entries: b.source(), Verifiers: verifiersOf(tb, b.signer),
		ContentFrom: b.contentFrom,
	}
}

func (b *logbook) verify(tb testing.TB) audit.Report {
	tb.Helper()
	report, err := audit.Verify(context.Background(), b.log(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return report
}

// hashState stands for what the keeper of a record hashes: some digest that
// depends on the event's salt and the record's state.
func hashState(salt, state []byte) []byte {
	sum := sha256.Sum256(append(append([]byte("agentkey/state/v1\n"), salt...), state...))
	return sum[:]
}

func samplePersonal(organization string, seq int64) audit.Personal {
	return audit.Personal{
		Salt:       seeded(fmt.Sprint("personal-salt/", organization, seq), 16),
		ActorLabel: "Zoë <zoe@example.org>", Address: "192.0.2.7", Text: "needs it for the \"weekly\" report\n",
	}
}

// sampleEvent returns an event that depends on its arguments alone. The kinds of events take turns.
func sampleEvent(organization string, seq int64) audit.Event {
	e := audit.Event{
		Seq: seq, Time: epochMicros + seq/2*1_500_000, Organization: organization, Outcome: audit.OutcomeOK,
		Actor:   audit.Actor{Kind: audit.ActorAgent, ID: "0199a0c0-0000-7000-8000-00000000a001", Auth: "key", Credential: "key-1"},
		Agent:   "0199a0c0-0000-7000-8000-00000000a001",
		Tool:    "0199a0c0-0000-7000-8000-00000000b001",
		Request: fmt.Sprintf("req-%d", seq), Node: "node-1", Software: "1.0.0",
		Salt: seeded(fmt.Sprint("salt/", organization, seq), 16),
	}
	grant := fmt.Sprintf("grant-%d", seq/4)
	switch seq % 4 {
	case 0:
		e.Action, e.To, e.Target = audit.ActionGrantRequested, "pending", audit.Ref{Kind: audit.KindGrant, ID: grant}
		e.Changes = []audit.Change{{Kind: audit.KindGrant, ID: grant, Revision: 1, State: hashState(e.Salt, []byte("pending"))}}
	case 1:
		e.Action, e.From, e.To = audit.ActionGrantApproved, "pending", "approved"
		e.Target = audit.Ref{Kind: audit.KindGrant, ID: grant}
		e.Actor = audit.Actor{Kind: audit.ActorHuman, ID: "user-1", Auth: "token", Credential: "token-1"}
		e.Approvals = []audit.Approval{{Actor: audit.Ref{Kind: audit.ActorHuman, ID: "user-1"}, Verdict: "approve"}}
		e.Changes = []audit.Change{{Kind: audit.KindGrant, ID: grant, Revision: 2, State: hashState(e.Salt, []byte("approved"))}}
		e.Sealed = []audit.SealedRef{{Kind: audit.KindCredential, ID: "cred-1", Digest: seeded("sealed", 32)}}
		e.Ticket = "OPS-17 – Größe"
	case 2:
		e.Action = audit.ActionCredentialVended
		e.Grant = audit.GrantRef{ID: grant, Revision: 2, Cycle: 1}
		e.Credential = audit.CredentialRef{ID: "cred-1", Revision: 3}
		e.Details = map[string]string{"auth_type": "api_key", "leaf": `","leaf":"`}
	case 3:
		e.Action, e.Outcome, e.Reason = audit.ActionCredentialRefused, audit.OutcomeRefused, "no_grant"
		e.Count, e.Span = 12, 60_000_000
	}
	return e
}
