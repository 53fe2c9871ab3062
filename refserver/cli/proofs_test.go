package cli_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// auditor is somebody with files and a public key, and nothing else.
type auditor struct {
	t      *testing.T
	dir    string
	signer *audit.Signer
	main   mainFunc
}

func newAuditor(t *testing.T) *auditor {
	t.Helper()
	return &auditor{t: t, dir: t.TempDir(), signer: signerOf(t, 7), main: program(t).Main}
}

func signerOf(t *testing.T, seed byte) *audit.Signer {
	t.Helper()
	signer, err := audit.NewSigner(audit.SignerName("inst"), bytes.Repeat([]byte{seed}, 32))
	is.New(t).NoErr(err)
	return signer
}

func (a *auditor) file(name string, content any) string {
	a.t.Helper()
	text, ok := content.([]byte)
	if !ok {
		var err error
		text, err = json.Marshal(content)
		is.New(a.t).NoErr(err)
	}
	path := filepath.Join(a.dir, name)
	is.New(a.t).NoErr(os.WriteFile(path, text, 0o600))
	return path
}

// grow appends n events to a log, and answers what one commit made of it.
func (a *auditor) grow(h audit.Head, tree audit.Tree, n int, salt byte) audit.Extension {
	a.t.Helper()
	var events []audit.Event
	for i := range n {
		events = append(events, audit.Event{
			Seq: tree.Size() + int64(i), Time: 1795416000_000000, Organization: "org", Action: audit.ActionServerStarted, Outcome: audit.OutcomeOK,
			Actor: audit.Actor{Kind: audit.ActorSystem}, Salt: bytes.Repeat([]byte{salt}, 16),
		})
	}
	x, err := audit.Extend(h, tree, events, a.signer)
	is.New(a.t).NoErr(err)
	return x
}

func (a *auditor) says(status int, want string, args ...string) {
	a.t.Helper()
	r := runBy(a.main, a.t.Context(), nil, "", append(args, "--public-key", a.signer.PublicKey())...)
	if r.status != status || !strings.Contains(r.out+r.errors, want) {
		a.t.Errorf("%v: status %d, %s%s", args, r.status, r.out, r.errors)
	}
}

// stored are the hashes of a tree over some leaves.
func stored(t *testing.T, leaves ...audit.Hash) audit.HashReader {
	t.Helper()
	var all []audit.Hash
	r := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = all[index]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(i), leaf, r)
		is.New(t).NoErr(err)
		all = append(all, more...)
	}
	return r
}

// each reads lines one after the other.
func each(lines []audit.Line) func(context.Context) (audit.Line, error) {
	return func(context.Context) (audit.Line, error) {
		if len(lines) == 0 {
			return audit.Line{}, io.EOF
		}
		l := lines[0]
		lines = lines[1:]
		return l, nil
	}
}

// TestProofsAreCheckedOffline checks receipts, proofs and signed heads with files
// alone: sound ones, edited ones, and those of another history of the same log.
func TestProofsAreCheckedOffline(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := newAuditor(t)
	first := a.grow(audit.Head{Epoch: 1}, audit.Tree{}, 3, 1)
	next := a.grow(first.Head, first.Tree, 4, 1)
	hashes := stored(t, append(append([]audit.Hash{}, first.Leaves...), next.Leaves...)...)

	receipt := a.file("receipt.json", first.Receipt(1))
	a.says(0, "ok, event 1 with leaf hash "+first.Leaves[1].String()+" is in agentkey/inst/org/1 at 3 events", "audit", "verify-receipt", receipt)
	edited := first.Receipt(1)
	edited.Index = 2
	a.says(1, "the proof does not hold", "audit", "verify-receipt", a.file("edited.json", edited))
	a.says(1, "malformed", "audit", "verify-receipt", a.file("empty.json", []byte("{}")))
	a.says(1, "no such file", "audit", "verify-receipt", filepath.Join(a.dir, "none"))

	path, err := audit.ProveInclusion(1, 7, hashes)
	is.NoErr(err)
	later := audit.Receipt{Origin: edited.Origin, Index: 1, Leaf: first.Leaves[1], Size: 7, Proof: path, Checkpoint: string(next.Head.Signed)}
	proof := a.file("later.json", later)
	a.says(0, "ok, it is still there at 7 events", "audit", "verify-receipt", receipt, "--proof", proof)
	a.says(0, "ok, event 1", "audit", "check", proof)
	other := next.Receipt(0)
	a.says(1, "of another event", "audit", "verify-receipt", receipt, "--proof", a.file("other.json", other))

	early, late := a.file("early.txt", first.Head.Signed), a.file("late.txt", next.Head.Signed)
	a.says(0, "ok, agentkey/inst/org/1 was signed at 3 events", "audit", "check", early)
	a.says(1, "no valid signature", "audit", "check", a.file("edited.txt", bytes.Replace(first.Head.Signed, []byte("\n3\n"), []byte("\n4\n"), 1)))
	a.says(2, "needs a proof", "audit", "check", early, "--against", late)
	later.Checkpoint = ""
	unsigned := a.file("unsigned.json", later)
	a.says(2, "--against", "audit", "check", unsigned)
	a.says(0, "ok, event 1", "audit", "check", unsigned, "--against", late)
	a.says(1, "for another size", "audit", "check", unsigned, "--against", early)

	grown, err := audit.ProveConsistency(3, 7, hashes)
	is.NoErr(err)
	c := audit.Consistency{Origin: edited.Origin, From: 3, To: 7, Proof: grown, Later: string(next.Head.Signed)}
	growth := a.file("growth.json", c)
	a.says(2, "kept no checkpoint of 3 events", "audit", "check", growth)
	a.says(0, "ok, agentkey/inst/org/1 at 7 events extends itself at 3 events", "audit", "check", growth, "--against", early)
	c.Earlier = string(first.Head.Signed)
	a.says(0, "extends itself", "audit", "check", a.file("both.json", c))
	nothing := audit.Consistency{Origin: edited.Origin, To: 7, Proof: []audit.Hash{}, Later: string(next.Head.Signed)}
	a.says(0, "extends itself at 0 events", "audit", "check", a.file("nothing.json", nothing))

	// Another history of the same log, signed by the same key.
	fork := a.grow(audit.Head{Epoch: 1}, audit.Tree{}, 3, 2)
	forked := a.file("fork.txt", fork.Head.Signed)
	a.says(1, "the proof does not hold", "audit", "check", growth, "--against", forked)
	is.Equal(runBy(a.main, t.Context(), nil, "", "audit", "check", growth, "--public-key", "nonsense").status, 2)
}

// TestExportExtendsAKeptHead holds an exported log against heads that were kept:
// its own, and one of another history, which is named.
func TestExportExtendsAKeptHead(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := newAuditor(t)
	first := a.grow(audit.Head{Epoch: 1}, audit.Tree{}, 3, 1)
	next := a.grow(first.Head, first.Tree, 4, 1)
	fork := a.grow(audit.Head{Epoch: 1}, audit.Tree{}, 3, 2)
	further := a.grow(next.Head, next.Tree, 1, 1)
	var lines []audit.Line
	for _, x := range []audit.Extension{first, next} {
		for i, content := range x.Contents {
			lines = append(lines, audit.Line{Seq: int64(len(lines)), Content: content, Leaf: x.Leaves[i]})
		}
	}
	var export bytes.Buffer
	is.NoErr(audit.Export(t.Context(), &export, audit.ExportHeader{
		Origin: audit.Origin("inst", "org", 1), PublicKeys: []string{a.signer.PublicKey()},
	}, &audit.Source{Lines: each(lines), Head: next.Head.Signed}))
	file := a.file("log.jsonl", export.Bytes())
	early, forked := a.file("early.txt", first.Head.Signed), a.file("fork.txt", fork.Head.Signed)
	a.says(0, "ok, 7 events", "audit", "verify", file)
	a.says(0, "ok, 7 events", "audit", "verify", file, "--against", early)
	a.says(0, "of the log agentkey/inst/org/1", "audit", "verify", file)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(export.Bytes())
	is.NoErr(err)
	is.NoErr(z.Close())
	a.says(0, "ok, 7 events", "audit", "verify", a.file("log.jsonl.gz", packed.Bytes()))
	for name, wrong := range map[string]struct {
		text []byte
		says string
	}{
		"empty":         {nil, "export is empty"},
		"packed, cut":   {packed.Bytes()[:packed.Len()-20], "unexpected EOF"},
		"packed, begun": {packed.Bytes()[:2], "unexpected EOF"},
		"cut":           {export.Bytes()[:export.Len()-5], "there is no signed head: the end is missing"},
		"by lines":      {bytes.Join(bytes.SplitAfter(export.Bytes(), []byte("\n"))[:4], nil), "events 0 to 2: there is no signed head"},
		"twice":         {append(bytes.Clone(export.Bytes()), export.Bytes()...), "an entry after the head"},
		"other lines":   {bytes.ReplaceAll(export.Bytes(), []byte("\n"), []byte("\r\n")), "first line is not the header"},
		"no lines":      {bytes.Repeat([]byte("x"), 1<<20), "first line is not the header"},
	} {
		a.says(1, wrong.says, "audit", "verify", a.file(name, wrong.text))
	}
	in := runBy(a.main, t.Context(), nil, export.String(), "audit", "verify", "-", "--json", "--public-key", a.signer.PublicKey())
	is.Equal(in.status, 0)
	is.True(strings.Contains(in.out, `"origin": "agentkey/inst/org/1"`))
	stranger := signerOf(t, 8).PublicKey()
	is.Equal(runBy(a.main, t.Context(), nil, "", "audit", "verify", file, "--public-key", stranger).status, 1)
	is.Equal(runBy(a.main, t.Context(), nil, "", "audit", "verify", file, "--public-key", stranger, "--public-key", a.signer.PublicKey()).status, 0)
	a.says(1, "events 0 to 2: lines are not those that a checkpoint kept elsewhere covers", "audit", "verify", file, "--against", forked)
	a.says(1, "event 7: lines that a checkpoint kept elsewhere covers are missing", "audit", "verify", file, "--against", a.file("further.txt", further.Head.Signed))
	a.says(1, "events 0 to 2", "audit", "verify", file, "--against", early, "--against", forked)
	is.Equal(runBy(a.main, t.Context(), nil, "", "audit", "verify", file).status, 2)
	is.Equal(runBy(a.main, t.Context(), nil, "", "audit", "verify", "--against", early).status, 2)
}
