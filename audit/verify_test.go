package audit_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

const size = 500

var keptSizes = []int64{128, 256, 400}

// segment returns the lines between two signed roots among which seq is.
func segment(seq int64) (from, to int64) {
	for _, end := range append(slices.Clone(keptSizes), size) {
		if seq < end {
			return from, end - 1
		}
		from = end
	}
	return from, from
}

// exactly fails unless the first finding is about seq alone.
func exactly(t *testing.T, r audit.Report, seq int64) {
	t.Helper()
	if r.OK() || r.Findings[0].From != seq || r.Findings[0].To != seq {
		t.Fatalf("want line %d, got %+v", seq, r.Findings)
	}
}

// between fails unless the first finding is the range of signed roots around seq.
func between(t *testing.T, r audit.Report, seq int64) {
	t.Helper()
	from, to := segment(seq)
	if r.OK() || r.Findings[0].From != from || r.Findings[0].To != to {
		t.Fatalf("want lines %d to %d, got %+v", from, to, r.Findings)
	}
}

func TestVerifySoundLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, size, keptSizes...)
	r := b.verify(t)
	is.Equal(r, audit.Report{Events: size, ContentVerified: size, Proven: size, Root: b.tree.Root()})
	is.True(r.OK())

	b.lines[0].Personal = nil
	r = b.verify(t)
	is.True(r.OK())
	is.Equal(r.PersonalErased, int64(1))

	for i := range 100 {
		b.lines[i].Content, b.lines[i].Personal = nil, nil
	}
	log := b.log(t)
	log.ContentFrom = 100
	r, err := audit.Verify(t.Context(), log)
	is.NoErr(err)
	is.True(r.OK())
	is.Equal(r.HashVerified, int64(100))
	is.Equal(r.ContentVerified, int64(size-100))
}

func TestVerifyFindsEveryBit(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, size, keptSizes...)
	flip := func(b *logbook, seq, bit int) {
		b.lines[seq].Content[bit/8] ^= 1 << (bit % 8)
		exactly(t, b.verify(t), int64(seq))
		b.lines[seq].Content[bit/8] ^= 1 << (bit % 8)
	}
	for seq := range b.lines {
		flip(b.around(seq), seq, (seq*2711)%(8*len(b.lines[seq].Content)))
	}
	thin := b.around(317)
	for bit := range 8 * len(b.lines[317].Content) {
		flip(thin, 317, bit)
	}
}

func TestVerifyFindsEditedLeaves(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	for seq := range int64(size) {
		b := sound.around(int(seq))
		b.lines[seq].Leaf[seq%32] ^= 1
		if from, _ := segment(seq); seq%5 == 0 {
			r := b.verify(t) // the leaf alone: both findings hold the line
			if r.OK() || r.Findings[0].From != from || !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool {
				return f.From == seq && f.To == seq
			}) {
				t.Fatalf("leaf %d: %+v", seq, r.Findings)
			}
		}

		e, err := audit.Parse(sound.lines[seq].Content) // a whole forged event with its leaf
		if err != nil {
			t.Fatal(err)
		}
		e.Request = "forged"
		b.lines[seq].Content, _ = e.Encode()
		b.lines[seq].Leaf = audit.LeafHash(b.lines[seq].Content)
		r := b.verify(t)
		between(t, r, seq)
		if len(r.Findings) != 1 {
			t.Fatalf("forged %d: %+v", seq, r.Findings)
		}
	}
}

func TestVerifyFindsEveryDeletion(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	for seq := range size {
		b := sound.around(seq)
		b.lines = slices.Delete(b.lines, seq, seq+1)
		exactly(t, b.verify(t), int64(seq))
		if seq%25 != 0 && seq < size-5 {
			continue
		}
		b = sound.clone()
		b.lines = slices.Delete(b.lines, seq, seq+1)
		b.renumber() // and the rows' numbers closed up: the tree is another one from here on
		r := b.verify(t)
		if from, to := segment(int64(seq)); r.OK() || r.Findings[0].From > int64(seq) || r.Findings[0].From < from || r.Findings[0].To > max(to, size-1) {
			t.Fatalf("deletion of %d: %+v", seq, r.Findings)
		}
		if seq < size-1 && !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool { return f.From == int64(seq) }) {
			t.Fatalf("deletion of %d is not named: %+v", seq, r.Findings)
		}

		b = sound.clone() // content alone
		b.lines[seq].Content = nil
		b.lines[seq].Personal = nil
		exactly(t, b.verify(t), int64(seq))
	}
}

func TestVerifyFindsEverySwap(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	pairs := make([][2]int, 0, size+200)
	for i := range size - 1 {
		pairs = append(pairs, [2]int{i, i + 1})
	}
	for i := range 200 {
		a, z := (i*379)%size, (i*997+13)%size
		if a != z {
			pairs = append(pairs, [2]int{min(a, z), max(a, z)})
		}
	}
	for _, p := range pairs {
		i, j := p[0], p[1]
		b := sound.around(i, j) // in the order of reading
		b.lines[i], b.lines[j] = b.lines[j], b.lines[i]
		r := b.verify(t)
		if r.OK() || r.Findings[0].From != int64(i) {
			t.Fatalf("swap of %d and %d: %+v", i, j, r.Findings)
		}
		if j%5 != 0 {
			continue
		}

		b.renumber() // whole rows, leaves too
		r = b.verify(t)
		if from, _ := segment(int64(i)); r.OK() || r.Findings[0].From != from || !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool {
			return f.From == int64(i) && f.To == int64(i)
		}) {
			t.Fatalf("swap of rows %d and %d: %+v", i, j, r.Findings)
		}
		if !slices.Contains(r.Findings, audit.Finding{From: int64(i), To: int64(j), Problem: "event with the number of an earlier line"}) {
			t.Fatalf("swap of rows %d and %d does not name the second: %+v", i, j, r.Findings)
		}

		b = sound.around(i, j) // content, with leaves in a table of their own
		b.lines[i].Content, b.lines[j].Content = b.lines[j].Content, b.lines[i].Content
		if r = b.verify(t); r.OK() || r.Findings[0].From != int64(i) {
			t.Fatalf("swap of contents %d and %d: %+v", i, j, r.Findings)
		}

		b = sound.around(i, j) // leaves alone
		b.lines[i].Leaf, b.lines[j].Leaf = b.lines[j].Leaf, b.lines[i].Leaf
		if r = b.verify(t); r.OK() || r.Findings[0].From > int64(i) || r.Findings[0].To < int64(i) {
			t.Fatalf("swap of leaves %d and %d: %+v", i, j, r.Findings)
		}
	}
}

func TestVerifyFindsEveryInsertion(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	for seq := range size + 1 {
		e := sampleEvent(organization, int64(seq))
		e.Request = "forged"
		if seq > 0 {
			e.Time = epochMicros + int64(seq-1)/2*1_500_000
		}
		content, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b := sound.around(seq)
		b.lines = slices.Insert(b.lines, seq, audit.Line{Seq: int64(seq), Content: content, Leaf: audit.LeafHash(content)})
		r := b.verify(t)
		holds(t, r, int64(seq)) // two lines claim the number, or the head ends before it
		if seq%25 != 0 {
			continue
		}
		b = sound.clone()
		b.lines = slices.Insert(b.lines, seq, audit.Line{Content: content, Leaf: audit.LeafHash(content)})
		b.renumber()
		holds(t, b.verify(t), int64(seq))

		b = sound.clone() // a copy of an earlier line
		if seq > 0 {
			b.lines = slices.Insert(b.lines, seq, b.lines[seq-1])
			holds(t, b.verify(t), int64(seq))
		}
	}
}

// holds fails unless the first finding, taken as a range, holds seq.
func holds(t *testing.T, r audit.Report, seq int64) {
	t.Helper()
	if r.OK() || r.Findings[0].From > seq || r.Findings[0].To < seq {
		t.Fatalf("want a range with line %d, got %+v", seq, r.Findings)
	}
}

func TestVerifyFindsEverySplice(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	other := newLogbook(t, "org-2", size)
	for seq := range size {
		b := sound.around(seq)
		b.lines[seq] = other.lines[seq]
		r := b.verify(t)
		holds(t, r, int64(seq))
		if !slices.Contains(r.Findings, audit.Finding{From: int64(seq), To: int64(seq), Problem: "event of another organization"}) {
			t.Fatalf("splice of %d is not named: %+v", seq, r.Findings)
		}
		b.lines[seq].Leaf = sound.lines[seq].Leaf
		exactly(t, b.verify(t), int64(seq))
		if seq%25 != 0 {
			continue
		}

		b = sound.clone() // the rest of the log
		copy(b.lines[seq:], other.lines[seq:])
		holds(t, b.verify(t), int64(seq))
	}
}

func TestVerifyFindsTruncation(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	for n := range size {
		b := sound.around(n)
		b.lines = b.lines[:n]
		r := b.verify(t)
		if r.OK() || r.Findings[len(r.Findings)-1].To != size-1 || !slices.ContainsFunc(r.Findings, func(f audit.Finding) bool { return f.From == int64(n) }) {
			t.Fatalf("truncation to %d: %+v", n, r.Findings)
		}
		for _, f := range r.Findings {
			if f.From < int64(n)-1 {
				t.Fatalf("truncation to %d: %+v", n, r.Findings)
			}
		}
		// An older head with it makes a sound older log: only a checkpoint kept elsewhere shows that it was put back.
		old := newLogbook(t, organization, 0)
		if n%100 != 50 {
			continue
		}
		for i := range n {
			old.append(t, sampleEvent(organization, int64(i)))
		}
		if r = old.verify(t); !r.OK() {
			t.Fatalf("older log: %+v", r.Findings)
		}
		log := old.log(t)
		log.Elsewhere = [][]byte{sound.signedHead, sound.kept[0].Signed}
		r, err := audit.Verify(t.Context(), log)
		if err != nil || r.OK() || r.Findings[0].From != int64(n) || r.Findings[len(r.Findings)-1].To != size-1 {
			t.Fatalf("older log: %v %+v", err, r.Findings)
		}
	}
}

func TestVerifyPersonalPart(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	tests := []struct {
		name    string
		seq     int
		damage  func(*audit.Line)
		problem string
	}{
		{"edited", 3, func(l *audit.Line) { l.Personal = bytes.Replace(l.Personal, []byte("weekly"), []byte("weakly"), 1) }, "personal part does not match its hash"},
		{"added", 4, func(l *audit.Line) { l.Personal = []byte("{}") }, "personal part that the event does not know"},
		{"moved", 6, func(l *audit.Line) { l.Personal = sound.lines[3].Personal }, "personal part does not match its hash"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := sound.clone()
			tt.damage(&b.lines[tt.seq])
			is.New(t).Equal(b.verify(t).Findings, []audit.Finding{{int64(tt.seq), int64(tt.seq), tt.problem}})
		})
	}
	t.Run("without content", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		b := sound.clone()
		b.lines[3].Content = nil
		log := b.log(t)
		log.ContentFrom = 10
		r, err := audit.Verify(t.Context(), log)
		is.NoErr(err)
		is.Equal(r.Findings, []audit.Finding{{3, 3, "personal part without content"}})
	})
}

func TestVerifyTime(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, 10)
	e := sampleEvent(organization, 10)
	e.Time = epochMicros
	b.head.Time = 0 // a committer that lost its clock
	b.append(t, e)
	is.Equal(b.verify(t).Findings, []audit.Finding{{10, 10, "event is earlier than the one before"}})
}

func TestVerifyCheckpoints(t *testing.T) {
	t.Parallel()
	sound := newLogbook(t, organization, size, keptSizes...)
	other := newLogbook(t, "org-2", size, keptSizes...)
	stranger := newSigner(t, installation, "stranger")
	sign := func(s *audit.Signer, c audit.Checkpoint) []byte {
		signed, err := s.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	origin := audit.Origin(installation, organization, 1)
	elsewhere := audit.Checkpoint{Origin: origin, Size: 256, Root: audit.Hash{1}}
	tests := []struct {
		name    string
		damage  func(*logbook)
		finding audit.Finding
	}{
		{"head missing", func(b *logbook) { b.signedHead = nil }, audit.Finding{From: 400, To: 499, Problem: "there is no signed head: the end is missing"}},
		{"head malformed", func(b *logbook) { b.signedHead = []byte("x") }, audit.Finding{From: 499, To: 499, Problem: "head is malformed"}},
		{"head of another log", func(b *logbook) { b.signedHead = other.signedHead }, audit.Finding{From: 499, To: 499, Problem: "head is of another log"}},
		{"head of a stranger", func(b *logbook) {
			b.signedHead = sign(stranger, audit.Checkpoint{Origin: origin, Size: size, Root: b.tree.Root()})
		}, audit.Finding{From: 499, To: 499, Problem: "head has no valid signature"}},
		{"head of another root", func(b *logbook) {
			b.signedHead = sign(b.signer, audit.Checkpoint{Origin: origin, Size: size})
		}, audit.Finding{From: 400, To: 499, Problem: "leaf hashes are not those that were signed"}},
		{"head put back", func(b *logbook) { b.signedHead = b.kept[1].Signed }, audit.Finding{From: 256, To: 499, Problem: "lines that the head does not cover"}},
		{"checkpoint malformed", func(b *logbook) { b.kept[1].Signed = nil }, audit.Finding{From: 255, To: 255, Problem: "kept checkpoint is malformed"}},
		{"checkpoint of another log", func(b *logbook) { b.kept[1] = other.kept[1] }, audit.Finding{From: 255, To: 255, Problem: "kept checkpoint is of another log"}},
		{"checkpoint of another history", func(b *logbook) { b.kept[1].Signed = sign(b.signer, elsewhere) }, audit.Finding{From: 255, To: 255, Problem: "kept checkpoint is of another history"}},
		{"checkpoint in the wrong place", func(b *logbook) { b.kept[1].Signed = b.kept[0].Signed }, audit.Finding{From: 255, To: 255, Problem: "kept checkpoint is of another size than the lines before it"}},
		{"checkpoint of a later epoch", func(b *logbook) {
			elsewhere := audit.Checkpoint{Origin: audit.Origin(installation, organization, 2), Size: 400, Root: b.root(400)}
			b.kept[2].Signed = sign(b.signer, elsewhere)
		}, audit.Finding{From: 499, To: 499, Problem: "head is of an earlier epoch than the one before"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := sound.clone()
			tt.damage(b)
			r := b.verify(t)
			if len(r.Findings) == 0 || r.Findings[len(r.Findings)-1] != tt.finding && r.Findings[0] != tt.finding {
				t.Fatalf("want %+v, got %+v", tt.finding, r.Findings)
			}
		})
	}
}

// root returns the root of the first n lines.
func (b *logbook) root(n int) audit.Hash {
	var tree audit.Tree
	for _, l := range b.lines[:n] {
		tree.Append(l.Leaf)
	}
	return tree.Root()
}

func TestVerifyRotatedKeyAndEpoch(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, 10, 5, 10)
	old := b.signer
	b.signer = newSigner(t, installation, "b")
	b.head.Epoch = 2
	for i := range 10 {
		b.append(t, sampleEvent(organization, int64(10+i)))
	}
	log := b.log(t)
	log.Verifiers = verifiersOf(t, old, b.signer)
	r, err := audit.Verify(t.Context(), log)
	is.NoErr(err)
	is.True(r.OK())

	r = b.verify(t) // with the new key alone the old checkpoints prove nothing, but the head does
	is.Equal(r.Proven, int64(20))
	is.Equal(len(r.Findings), 2)
}

func TestVerifyCapsFindings(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, size, keptSizes...)
	for i := 0; i < size; i += 2 {
		b.lines[i].Content = []byte("x")
	}
	r := b.verify(t)
	is.Equal(len(r.Findings), 100)
	is.Equal(r.Unlisted, int64(150))
	is.Equal(r.Findings[0].From, int64(0))
	is.Equal(r.Proven, int64(size)) // the leaves are the signed ones
}

type failingReader struct{ err error }

func (f failingReader) Next(context.Context) (audit.Entry, error) { return audit.Entry{}, f.err }

func TestVerifyReaderErrors(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	boom := errors.New("boom")
	_, err := audit.Verify(t.Context(), audit.Log{Entries: failingReader{boom}})
	is.True(errors.Is(err, boom))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = audit.Verify(ctx, audit.Log{Entries: failingReader{audit.ErrFormat}})
	is.True(errors.Is(err, context.Canceled))
}
