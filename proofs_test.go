package agentkey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// recordMany makes a log longer by n events, many of them in each commit.
func recordMany(t testing.TB, m *agentkey.Manager, a agentkey.Actor, n int) {
	t.Helper()
	var wg sync.WaitGroup
	failed := make(chan error, n)
	width := make(chan struct{}, 128)
	for range n {
		width <- struct{}{}
		wg.Go(func() {
			defer func() { <-width }()
			err := insistently(func() error {
				return second(m.Record(context.WithoutCancel(t.Context()), a, agentkey.RecordInput{Action: "x.example.happened"}))
			})
			if err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}

// leavesOf reads the leaf hashes as they are stored, and the roots of every size.
func leavesOf(t testing.TB, store storage.Store, organization string) (leaves, roots []audit.Hash) {
	t.Helper()
	var tree audit.Tree
	roots = append(roots, tree.Root())
	for from := int64(0); ; {
		var lines []audit.Line
		noErr(t, store.View(t.Context(), organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			lines, err = tx.Lines(ctx, from, 1000)
			return err
		}))
		if len(lines) == 0 {
			return leaves, roots
		}
		for _, l := range lines {
			tree.Append(l.Leaf)
			leaves, roots = append(leaves, l.Leaf), append(roots, tree.Root())
		}
		from += int64(len(lines))
	}
}

func verifiersOf(t testing.TB, m *agentkey.Manager) *audit.Verifiers {
	t.Helper()
	v, err := audit.NewVerifiers(m.PublicKeys()...)
	noErr(t, err)
	return v
}

// spots are the numbers around which a tree of a size changes its shape, up to it.
func spots(size int64) (out []int64) {
	for _, n := range []int64{0, 1, 2, 100, 255, 256, 257, 300, 511, 512, 513, size / 2, size - 2, size - 1, size} {
		if n >= 0 && n <= size {
			out = append(out, n)
		}
	}
	return out
}

// TestProofsOfALog holds every proof against the leaf hashes themselves, with
// tiles and without, and again by a process that finds tiles of others.
func TestProofsOfALog(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 230, 256, 600} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			store := memstore.New()
			k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
			recordMany(t, k.Manager, k.Owner, n/2)
			proveAll(t, store, k.Manager, k.Owner)
			recordMany(t, k.Manager, k.Owner, n-n/2)
			proveAll(t, store, k.Manager, k.Owner)
		})
	}
}

func proveAll(t *testing.T, store storage.Store, m *agentkey.Manager, a agentkey.Actor) {
	t.Helper()
	is := is.New(t)
	v := verifiersOf(t, m)
	leaves, roots := leavesOf(t, store, a.Organization)
	head, err := m.LatestCheckpoint(t.Context(), a)
	is.NoErr(err)
	size := int64(len(leaves))
	is.Equal(head.Size, size)
	is.Equal(head.Root, roots[size])
	opened, err := audit.OpenCheckpoint(head.Signed, v)
	is.NoErr(err)
	is.Equal(opened, head.Checkpoint)
	at := func(n int64) audit.Checkpoint { return audit.Checkpoint{Origin: head.Origin, Size: n, Root: roots[n]} }
	for _, to := range spots(size) {
		if to == 0 {
			continue // which asks for the latest
		}
		for _, from := range spots(to) {
			p, err := m.ConsistencyProof(t.Context(), a, from, to)
			is.NoErr(err)
			if err := p.Verify(at(from), at(to)); err != nil || to == size != (p.Later == string(head.Signed)) {
				t.Fatalf("from %d to %d: %v", from, to, err)
			}
			if from == to {
				continue
			}
			r, err := m.InclusionProof(t.Context(), a, from, to)
			is.NoErr(err)
			if err := r.VerifyIn(at(to)); err != nil || r.Leaf != leaves[from] || r.Index != from {
				t.Fatalf("%d in %d: %v", from, to, err)
			}
			if r.Checkpoint != "" {
				_, err := r.Verify(v)
				is.NoErr(err)
			}
		}
	}
	latest, err := m.InclusionProof(t.Context(), a, 0, 0)
	is.NoErr(err)
	_, err = latest.Verify(v)
	is.NoErr(err)
}

// TestReceiptIsProvenLater keeps a receipt of a vend, and proves with the log as
// it has become since that the vend is still there, and that the log only grew.
func TestReceiptIsProvenLater(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	bot, key := k.Agent("bot")
	linear := k.Tool("Linear", "lin_api_test_1")
	k.Allow(bot, linear)
	vended, err := k.Vend(t.Context(), key, linear.ID)
	is.NoErr(err)
	vended.Credential.Destroy()
	v := verifiersOf(t, k.Manager)
	early, err := vended.Receipt.Verify(v)
	is.NoErr(err)
	recordMany(t, k.Manager, k.Owner, 700)

	later, err := k.InclusionProof(t.Context(), k.Owner, vended.Receipt.Index, 0)
	is.NoErr(err)
	is.Equal(later.Leaf, vended.Receipt.Leaf)
	late, err := later.Verify(v)
	is.NoErr(err)
	is.True(late.Size > early.Size+600)
	grown, err := k.ConsistencyProof(t.Context(), k.Owner, early.Size, late.Size)
	is.NoErr(err)
	is.NoErr(grown.Verify(early, late))

	page, err := k.Events(t.Context(), k.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionCredentialVended}})
	is.NoErr(err)
	is.Equal(page.Events[0].Seq, vended.Receipt.Index)
	is.Equal(page.Events[0].Leaf, vended.Receipt.Leaf)

	for _, kept := range []int64{1, 256, late.Size - 1} { // what was kept comes signed
		r, err := k.InclusionProof(t.Context(), k.Owner, 0, kept)
		is.NoErr(err)
		if r.Checkpoint != "" {
			c, err := r.Verify(v)
			is.NoErr(err)
			is.Equal(c.Size, kept)
		}
	}
}

// TestSharedCommitsGiveReceipts has vends share commits: every receipt holds and
// they name the same heads.
func TestSharedCommitsGiveReceipts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	bot, key := k.Agent("bot")
	linear := k.Tool("Linear", "lin_api_test_1")
	k.Allow(bot, linear)
	v := verifiersOf(t, k.Manager)
	var wg sync.WaitGroup
	receipts := make([]audit.Receipt, 300)
	for i := range receipts {
		wg.Go(func() {
			vended, err := k.Vend(context.WithoutCancel(t.Context()), key, linear.ID)
			if err != nil {
				t.Error(err)
				return
			}
			vended.Credential.Destroy()
			receipts[i] = vended.Receipt
		})
	}
	wg.Wait()
	heads, numbers := make(map[int64]int), make(map[int64]bool)
	for _, r := range receipts {
		c, err := r.Verify(v)
		is.NoErr(err)
		heads[c.Size]++
		numbers[r.Index] = true
	}
	is.Equal(len(numbers), len(receipts)) // every vend has an event of its own
	shared := 0
	for _, n := range heads {
		shared = max(shared, n)
	}
	is.True(shared > 1)
}

func TestProofsOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	k := agentkeytest.New(t)
	head, err := k.LatestCheckpoint(t.Context(), k.Owner)
	noErr(t, err)
	for _, at := range [][2]int64{{-1, 0}, {head.Size, 0}, {1, 1}, {0, head.Size + 1}, {0, -1}} {
		if _, err := k.InclusionProof(t.Context(), k.Owner, at[0], at[1]); !errors.Is(err, agentkey.ErrInvalid) {
			t.Errorf("%d in %d: %v", at[0], at[1], err)
		}
	}
	for _, at := range [][2]int64{{-1, 0}, {2, 1}, {0, head.Size + 1}, {0, -1}, {head.Size + 1, 0}} {
		if _, err := k.ConsistencyProof(t.Context(), k.Owner, at[0], at[1]); !errors.Is(err, agentkey.ErrInvalid) {
			t.Errorf("from %d to %d: %v", at[0], at[1], err)
		}
	}
}

// TestTilesAreNotTrusted changes tiles in every way: proofs hold all the same,
// because what does not fit the signed root is made anew.
func TestTilesAreNotTrusted(t *testing.T) {
	t.Parallel()
	const kind = "log_tile"
	store := memstore.New()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	recordMany(t, k.Manager, k.Owner, 900)
	prove := func(t *testing.T) {
		t.Helper()
		v := verifiersOf(t, k.Manager)
		for _, seq := range []int64{0, 300, 700} {
			r, err := k.InclusionProof(t.Context(), k.Owner, seq, 0)
			noErr(t, err)
			_, err = r.Verify(v)
			noErr(t, err)
		}
	}
	prove(t)
	change := func(t *testing.T, fn func(r storage.Record) storage.Record) {
		t.Helper()
		noErr(t, store.Update(t.Context(), k.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
			found, err := tx.ScanRecords(ctx, storage.Scan{Kind: kind, Limit: 10})
			if err != nil || len(found) != 1 {
				return fmt.Errorf("%d tiles: %w", len(found), err)
			}
			old := found[0]
			if _, err := tx.DeleteRecord(ctx, kind, old.ID, old.Revision); err != nil {
				return err
			}
			next := fn(old)
			next.Organization, next.Revision = k.Organization.ID, 1
			if next.ID != "" {
				_, err = tx.PutRecord(ctx, next)
			}
			return err
		}))
	}
	for name, fn := range map[string]func(r storage.Record) storage.Record{
		"removed":    func(storage.Record) storage.Record { return storage.Record{} },
		"emptied":    func(r storage.Record) storage.Record { r.Payload = nil; return r },
		"cut short":  func(r storage.Record) storage.Record { r.Payload = r.Payload[:40]; return r },
		"shorter":    func(r storage.Record) storage.Record { r.Payload = r.Payload[:32]; return r },
		"longer":     func(r storage.Record) storage.Record { r.Payload = append(r.Payload, make([]byte, 32)...); return r },
		"a bit":      func(r storage.Record) storage.Record { r.Payload[5] ^= 4; return r },
		"moved":      func(r storage.Record) storage.Record { r.ID = "1/0000000000000007"; return r },
		"misspelled": func(r storage.Record) storage.Record { r.ID = "1/7"; return r },
	} {
		t.Run(name, func(t *testing.T) {
			prove(t)
			change(t, fn)
			prove(t)
			change(t, fn)
			recordMany(t, k.Manager, k.Owner, 10)
			prove(t)
		})
	}
}

// TestProofsOfAnEditedLog edits a leaf hash: nothing is proven of such a log, and
// the failure is recorded.
func TestProofsOfAnEditedLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newSite(t).copy(t)
	c.warm()
	c.change("UPDATE agentkey_leaves SET hash = zeroblob(32) WHERE organization = ? AND seq = 4", c.org)
	_, err := c.m.InclusionProof(t.Context(), c.owner, 4, 0)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	_, err = c.m.ConsistencyProof(t.Context(), c.owner, 3, 0)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	is.Equal(len(c.failures()), 1) // the second within the minute is counted
	_, err = c.m.LatestCheckpoint(t.Context(), c.owner)
	is.NoErr(err)
	c.change("UPDATE agentkey_logs SET signed = zeroblob(32) WHERE organization = ?", c.org)
	_, err = c.m.LatestCheckpoint(t.Context(), c.owner)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
}

// TestExportHoldsForTlogAlone checks an exported log with the public packages for
// trees and signed notes, and shares nothing with audit: its leaves are the hashes
// of the exact bytes, and its head is the signed root of their tree.
func TestExportHoldsForTlogAlone(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	recordMany(t, k.Manager, k.Owner, 700)
	var export bytes.Buffer
	is.NoErr(k.Export(t.Context(), k.Owner, &export))
	verifier, err := note.NewVerifier(k.PublicKeys()[0])
	is.NoErr(err)
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var n int64
	checked, headSeen := 0, false
	for line := range strings.Lines(export.String()) {
		var l struct {
			Event            json.RawMessage
			Leaf             []byte
			Seq              *int64
			Checkpoint, Head string
		}
		is.NoErr(json.Unmarshal([]byte(line), &l))
		switch signed := l.Checkpoint + l.Head; {
		case l.Seq != nil:
			is.Equal(*l.Seq, n)
			leaf := tlog.RecordHash(l.Event)
			is.Equal(leaf[:], l.Leaf)
			more, err := tlog.StoredHashes(n, l.Event, read)
			is.NoErr(err)
			stored = append(stored, more...)
			n++
		case signed != "":
			opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
			is.NoErr(err)
			root, err := tlog.TreeHash(n, read)
			is.NoErr(err)
			lines := strings.Split(opened.Text, "\n")
			is.Equal(lines[1], fmt.Sprint(n))
			is.Equal(lines[2], root.String())
			checked++
			headSeen = l.Head != ""
		}
	}
	is.True(n > 700)
	is.True(checked > 2)
	is.True(headSeen)
}

// BenchmarkProof proves from a log of 10 000 events on SQLite, or in the long form
// a million. What the first proof reads to make the tiles is measured apart.
func BenchmarkProof(b *testing.B) {
	n := 10_000
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n = 1_000_000
	}
	k := agentkeytest.New(b, func(c *agentkey.Config) { c.Storage = dbtest.SQLite(b)(b) })
	recordMany(b, k.Manager, k.Owner, n)
	began := time.Now()
	_, err := k.InclusionProof(b.Context(), k.Owner, 0, 0)
	noErr(b, err)
	first := time.Since(began)
	seq := int64(0)
	b.Run("inclusion", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			seq = (seq + 7919) % int64(n)
			_, err := k.InclusionProof(b.Context(), k.Owner, seq, 0)
			noErr(b, err)
		}
		b.ReportMetric(first.Seconds(), "s-first")
	})
	b.Run("consistency", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			seq = (seq + 7919) % int64(n)
			_, err := k.ConsistencyProof(b.Context(), k.Owner, seq+1, 0)
			noErr(b, err)
		}
	})
}
