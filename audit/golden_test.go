package audit_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// The vectors in testdata are the format: a change that breaks one of these tests breaks every log ever written. There is no
// switch that writes the files anew.

func golden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func goldenLines(t *testing.T, name string) []string {
	t.Helper()
	return strings.Split(strings.TrimSuffix(golden(t, name), "\n"), "\n")
}

// goldenEvents returns the events of testdata/events.jsonl: one with every field, the smallest, an aggregate, one with all
// that JSON may escape, and one of the host.
func goldenEvents() []audit.Event {
	salt := []byte("0123456789abcdef")
	full := audit.Event{
		Seq: 0, Time: 1795416014128567, Organization: "0199a0c0-0000-7000-8000-000000000001",
		Actor:  audit.Actor{Kind: audit.ActorHuman, ID: "user-1", Auth: "token", Credential: "token-1", Behalf: "team-1"},
		Action: audit.ActionGrantApproved, Outcome: audit.OutcomeOK, Reason: "on_call",
		Target: audit.Ref{Kind: audit.KindGrant, ID: "grant-1"}, Agent: "agent-1", Tool: "tool-1",
		Grant:      audit.GrantRef{ID: "grant-1", Revision: 2, Cycle: 1},
		Credential: audit.CredentialRef{ID: "credential-1", Revision: 3}, From: "pending", To: "approved",
		Changes: []audit.Change{
			{Kind: audit.KindGrant, ID: "grant-1", Revision: 2, State: hashState(salt, []byte("grant's state"))},
			{Kind: audit.KindApproval, ID: "approval-1", Revision: 4, Removed: true},
		},
		Sealed:    []audit.SealedRef{{Kind: audit.KindCredential, ID: "credential-1", Digest: bytes.Repeat([]byte{0xab}, 32)}},
		Approvals: []audit.Approval{{Actor: audit.Ref{Kind: audit.ActorHuman, ID: "user-1"}, Verdict: "approve"}},
		Ticket:    "OPS-17", Request: "request-1", ClientRequest: "client-1", Trace: "4bf92f3577b34da6a3ce929d0e0e4736",
		Node: "node-1", Software: "1.0.0", Count: 2, Span: 60_000_000,
		Details: map[string]string{"scopes": "read,write", "duration": "28800"}, Salt: salt,
	}
	encoded, _ := goldenPersonal().Encode()
	full.Personal = audit.HashPersonal(encoded)
	smallest := audit.Event{
		Seq: 1, Time: full.Time, Organization: full.Organization, Actor: audit.Actor{Kind: audit.ActorSystem},
		Action: audit.ActionServerStarted, Outcome: audit.OutcomeOK, Salt: salt,
	}
	aggregate := smallest
	aggregate.Seq, aggregate.Actor = 2, audit.Actor{Kind: audit.ActorUnknown}
	aggregate.Action, aggregate.Outcome, aggregate.Reason = audit.ActionAuthFailed, audit.OutcomeRefused, "unknown_key"
	aggregate.Count, aggregate.Span = audit.MaxInteger, 60_000_000
	escaped := smallest
	escaped.Seq = 3
	escaped.Details = map[string]string{
		"ascii": "\x01\x02\x07\b\t\n\v\f\r\x0e\x1f \"\\/<>&'\x7f", "unicode": "é€\u2028\u2029\u202e\ufeff\ufffd\uffff😀", "empty": "",
	}
	host := smallest
	host.Seq, host.Action, host.Outcome, host.Reason = 4, "x.acme.backup_taken", audit.OutcomeFailed, "disk_full"
	return []audit.Event{full, smallest, aggregate, escaped, host}
}

func goldenPersonal() audit.Personal {
	return audit.Personal{
		Salt: []byte("fedcba9876543210"), ActorLabel: "Zoë <zoe@example.org>", AgentLabel: "Bot", ToolLabel: "Linear",
		Address: "192.0.2.7", UserAgent: "curl/8.9", Text: "for the \"weekly\" report\n",
		Extra: map[string]string{"deny_text": "später", "a": ""},
	}
}

func TestGoldenEvents(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	contents, leaves, roots := goldenLines(t, "events.jsonl"), goldenLines(t, "leaves.txt"), goldenLines(t, "roots.txt")
	events := goldenEvents()
	is.Equal(len(contents), len(events))
	var tree audit.Tree
	root := tree.Root()
	is.Equal(hex.EncodeToString(root[:]), roots[0])
	for i, e := range events {
		content, err := e.Encode()
		is.NoErr(err)
		is.Equal(string(content), contents[i])
		back, err := audit.Parse([]byte(contents[i]))
		is.NoErr(err)
		is.Equal(back, e)
		leaf := audit.LeafHash(content)
		is.Equal(hex.EncodeToString(leaf[:]), leaves[i])
		tree.Append(leaf)
		root := tree.Root()
		is.Equal(hex.EncodeToString(root[:]), roots[i+1])
	}
}

func TestGoldenPersonal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	encoded, err := goldenPersonal().Encode()
	is.NoErr(err)
	is.Equal(string(encoded)+"\n", golden(t, "personal.json"))
	back, err := audit.ParsePersonal(encoded)
	is.NoErr(err)
	is.Equal(back, goldenPersonal())
	is.Equal(hex.EncodeToString(audit.HashPersonal(encoded))+"\n", golden(t, "personal.sha256"))
}

// TestGoldenCheckpoint signs with a fixed seed, the bytes 0 to 31. Ed25519 signatures are deterministic.
func TestGoldenCheckpoint(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	s, err := audit.NewSigner(audit.SignerName("0199a0c0-0000-7000-8000-00000000000f"), seed)
	is.NoErr(err)
	is.Equal(s.PublicKey()+"\n", golden(t, "public_key.txt"))
	var tree audit.Tree
	for _, content := range goldenLines(t, "events.jsonl") {
		tree.Append(audit.LeafHash([]byte(content)))
	}
	organization := goldenEvents()[0].Organization
	c := audit.Checkpoint{Origin: audit.Origin("0199a0c0-0000-7000-8000-00000000000f", organization, 1), Size: 5, Root: tree.Root()}
	signed, err := s.Sign(c)
	is.NoErr(err)
	is.Equal(string(signed), golden(t, "checkpoint.txt"))
	opened, err := audit.OpenCheckpoint(signed, verifiersOf(t, s))
	is.NoErr(err)
	is.Equal(opened, c)
}

// TestGoldenExport verifies a whole file that was written once.
func TestGoldenExport(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	file := golden(t, "export.jsonl")
	reader, err := audit.NewExportReader(strings.NewReader(file))
	is.NoErr(err)
	installation, organization, _, err := audit.ParseOrigin(reader.Header().Origin)
	is.NoErr(err)
	v, err := audit.NewVerifiers(strings.TrimSpace(golden(t, "public_key.txt")))
	is.NoErr(err)
	r, err := audit.Verify(t.Context(), audit.Log{Installation: installation, Organization: organization, Entries: reader, Verifiers: v, ContentFrom: 1})
	is.NoErr(err)
	is.Equal(r.Findings, nil)
	is.Equal([]int64{r.Events, r.ContentVerified, r.HashVerified, r.PersonalErased, r.Proven}, []int64{5, 4, 1, 0, 5})
}
