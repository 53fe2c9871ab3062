package audit_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// A mutation is one change of what a store holds of a log, by somebody who can
// write to it and can't sign. It answers the numbers that it is about.
type mutation struct {
	name   string
	change func(m *mutant) (from, to int64)
}

// mutant is a copy of a sound log that is changed at one place.
type mutant struct {
	*logbook
	sound  *logbook // never changed
	other  *logbook // another organization's
	random *rand.Rand
	at     int // where
}

// forge puts a whole sound-looking event with its leaf hash in a place.
func (m *mutant) forge(at int, e audit.Event) {
	content, err := e.Encode()
	if err != nil {
		panic(err)
	}
	m.lines[at].Content, m.lines[at].Leaf, m.lines[at].Personal = content, audit.LeafHash(content), nil
}

func (m *mutant) event(at int) audit.Event {
	e, err := audit.Parse(m.sound.lines[at].Content)
	if err != nil {
		panic(err)
	}
	return e
}

func (m *mutant) one() (from, to int64) { return int64(m.at), int64(m.at) }

// far is another place, not beside this one.
func (m *mutant) far() int {
	for {
		if at := m.random.IntN(len(m.lines)); at < m.at-1 || at > m.at+1 {
			return at
		}
	}
}

func flip(b []byte, random *rand.Rand) []byte {
	out := bytes.Clone(b)
	out[random.IntN(len(out))] ^= 1 << random.IntN(8)
	return out
}

var mutations = []mutation{
	{"bit of the content", func(m *mutant) (int64, int64) {
		m.lines[m.at].Content = flip(m.lines[m.at].Content, m.random)
		return m.one()
	}},
	{"bit of the personal part", func(m *mutant) (int64, int64) {
		for len(m.sound.lines[m.at].Personal) == 0 {
			m.at = (m.at + 1) % len(m.lines)
		}
		l := m.sound.lines[m.at]
		l.Personal = flip(l.Personal, m.random)
		m.lines[m.at] = l
		return m.one()
	}},
	{"bit of the leaf hash", func(m *mutant) (int64, int64) {
		m.lines[m.at].Leaf = audit.Hash(flip(m.lines[m.at].Leaf[:], m.random))
		return m.one()
	}},
	{"bit of the number", func(m *mutant) (int64, int64) {
		m.lines[m.at].Seq ^= 1 << m.random.IntN(62)
		return m.one()
	}},
	{"another personal part", func(m *mutant) (int64, int64) {
		m.lines[m.at] = m.sound.lines[m.at]
		m.lines[m.at].Personal = m.sound.lines[(m.at/3*3+3)%len(m.lines)/3*3].Personal
		return m.one()
	}},
	{"deletion", func(m *mutant) (int64, int64) {
		m.lines = slices.Delete(m.lines, m.at, m.at+1)
		return m.one()
	}},
	{"deletion of a run", func(m *mutant) (int64, int64) {
		n := 1 + m.random.IntN(min(300, len(m.lines)-m.at))
		m.lines = slices.Delete(m.lines, m.at, m.at+n)
		return int64(m.at), int64(m.at + n - 1)
	}},
	{"deletion, rows renumbered", func(m *mutant) (int64, int64) {
		m.lines = slices.Delete(m.lines, m.at, m.at+1)
		m.renumber()
		return m.one()
	}},
	{"insertion of a copy", func(m *mutant) (int64, int64) {
		m.lines = slices.Insert(m.lines, m.at, m.sound.lines[m.far()])
		m.renumber()
		return m.one()
	}},
	{"insertion of a forged event", func(m *mutant) (int64, int64) {
		e := m.event(m.at)
		e.Request = "forged"
		m.lines = slices.Insert(m.lines, m.at, audit.Line{})
		m.forge(m.at, e)
		m.renumber()
		return m.one()
	}},
	{"swap of rows", func(m *mutant) (int64, int64) {
		at := m.far()
		a, b := m.sound.lines[m.at], m.sound.lines[at]
		a.Seq, b.Seq = b.Seq, a.Seq
		m.lines[at], m.lines[m.at] = a, b
		return int64(min(m.at, at)), int64(min(m.at, at))
	}},
	{"swap of whole events", func(m *mutant) (int64, int64) {
		at := m.far()
		a, b := m.event(m.at), m.event(at)
		a.Seq, b.Seq, a.Time, b.Time = b.Seq, a.Seq, b.Time, a.Time
		m.forge(at, a)
		m.forge(m.at, b)
		return int64(min(m.at, at)), int64(min(m.at, at))
	}},
	{"edited event with its leaf hash", func(m *mutant) (int64, int64) {
		e := m.event(m.at)
		e.Request = "edited"
		m.forge(m.at, e)
		return m.one()
	}},
	{"splice from another organization", func(m *mutant) (int64, int64) {
		n := 1 + m.random.IntN(min(20, len(m.lines)-m.at, len(m.other.lines)))
		for i := range n {
			l := m.other.lines[i]
			l.Seq = int64(m.at + i)
			m.lines[m.at+i] = l
		}
		return int64(m.at), int64(m.at + n - 1)
	}},
	{"splice with its numbers and organization changed", func(m *mutant) (int64, int64) {
		e, err := audit.Parse(m.other.lines[m.random.IntN(len(m.other.lines))].Content)
		if err != nil {
			panic(err)
		}
		own := m.event(m.at)
		e.Seq, e.Time, e.Organization = own.Seq, own.Time, own.Organization
		m.forge(m.at, e)
		return m.one()
	}},
	{"bit of a kept checkpoint", func(m *mutant) (int64, int64) {
		i := m.random.IntN(len(m.kept))
		m.kept[i].Signed = flip(m.kept[i].Signed, m.random)
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"kept checkpoint under another size", func(m *mutant) (int64, int64) {
		i := m.random.IntN(len(m.kept))
		signed, size := m.kept[i].Signed, m.kept[i].Size
		m.kept[i].Size += 1 + int64(m.random.IntN(100))
		if next := int64(len(m.lines)); m.kept[i].Size > next || i+1 < len(m.kept) && m.kept[i].Size >= m.kept[i+1].Size {
			m.kept[i].Size = size - 1
		}
		m.kept[i].Signed = signed
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"another organization's checkpoint", func(m *mutant) (int64, int64) {
		i := m.random.IntN(len(m.kept))
		m.kept[i].Signed = m.other.signedHead
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"bit of the head", func(m *mutant) (int64, int64) {
		m.signedHead = flip(m.signedHead, m.random)
		return int64(len(m.lines)) - 1, int64(len(m.lines)) - 1
	}},
	{"truncation", func(m *mutant) (int64, int64) {
		m.lines = m.lines[:m.at]
		m.kept = slices.DeleteFunc(m.kept, func(k audit.Kept) bool { return k.Size > int64(m.at) })
		return int64(m.at), int64(len(m.sound.lines)) - 1
	}},
	{"the whole log put back to a head that was kept", func(m *mutant) (int64, int64) {
		i := m.random.IntN(len(m.kept))
		m.signedHead, m.lines, m.kept = m.kept[i].Signed, m.lines[:m.kept[i].Size], m.kept[:i]
		return int64(len(m.lines)), int64(len(m.sound.lines)) - 1
	}},
}

// heads are the signed roots around some lines: the last below them, and the
// first above.
func (b *logbook) heads(from, to int64) (below, above int64) {
	above = int64(len(b.lines))
	for _, k := range b.kept {
		if k.Size <= from {
			below = k.Size
		}
	}
	for _, k := range slices.Backward(b.kept) {
		if k.Size > to {
			above = k.Size
		}
	}
	return below, above
}

// TestRandomMutations changes a log at random, once for each verification: all is
// found, the first finding is not before the change's own stretch between two
// heads, and one names the very line, or that stretch. The auditor kept the last
// head elsewhere, as a restored database needs. In the long form, 100 000 events
// and 10 000 mutations; all lines but those around the change then stand by their
// leaf hashes alone, but for one in a hundred verifications, which is whole.
func TestRandomMutations(t *testing.T) {
	t.Parallel()
	n, rounds, whole := 1500, 20*len(mutations), 1
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n, rounds, whole = 100_000, 10_000, 100
	}
	var kept []int64
	for size := int64(256); size < int64(n); size += 256 {
		kept = append(kept, size)
	}
	sound := newLogbook(t, organization, n, kept...)
	other := newLogbook(t, "org-2", 64)
	random := rand.New(rand.NewPCG(2026, 7))
	found := make(map[string][2]int)
	for round := range rounds {
		kind := mutations[round%len(mutations)]
		m := &mutant{sound: sound, other: other, random: random, at: random.IntN(n)}
		if round%whole == 0 {
			m.logbook = sound.clone()
		} else {
			m.logbook = sound.around(m.at)
		}
		from, to := kind.change(m)
		log := m.log(t)
		log.Elsewhere = [][]byte{sound.signedHead}
		r, err := audit.Verify(t.Context(), log)
		if err != nil {
			t.Fatal(err)
		}
		exact, ok := sound.named(r, from, to)
		if !ok {
			t.Fatalf("round %d, %s at %d to %d: %+v", round, kind.name, from, to, r.Findings)
		}
		counts := found[kind.name]
		counts[0]++
		if exact {
			counts[1]++
		}
		found[kind.name] = counts
	}
	for _, kind := range mutations {
		t.Logf("%-50s %4d found, %4d of them by their very number", kind.name, found[kind.name][0], found[kind.name][1])
	}
}

// named says whether a report names what is wrong with some lines, and whether by
// the number of the first.
func (b *logbook) named(r audit.Report, from, to int64) (exact, ok bool) {
	below, above := b.heads(from, to)
	for i, f := range r.Findings {
		if i == 0 && f.From < below && !strings.Contains(f.Problem, "kept elsewhere") {
			return false, false // what is sound is not accused
		}
		if f.From == from {
			exact = true
		}
		if f.From <= to && f.To >= from && f.From >= below && (f.To < above || f.From == from) {
			ok = true
		}
	}
	return exact, ok
}
