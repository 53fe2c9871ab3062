package audit_test

import (
	"bytes"
	"math/rand/v2"

	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// A mutation is one change of what a store holds of a log, by somebody who can
// write to it and can't sign. It answers the numbers that it is about.
type mutation struct {
	name   string
	reach  reach
	change func(m *mutant) (from, to int64)
}

// reach says which other mutations of the same log are still named each by its own
// number.
type reach int

const (
	local  reach = iota // all of them: the leaf hashes are as they were
	leaf                // all but a root below: no later root is that of the tree any more
	signed              // all with local below: it is found by the signed roots around it
	onward              // those below: lines above are accused as well, or are gone
	pushed              // those with local below: as onward, and found by the roots
)

// mutant is a copy of a sound log that is changed at one place.
type mutant struct {
	*logbook
	sound  *logbook // never changed
	other  *logbook // another organization's
	random *rand.Rand
	at     int // where
	lo, hi int // the lines from lo to below hi are its own
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

// far is another place of its own, not beside this one.
func (m *mutant) far() int {
	for {
		if at := m.lo + m.random.IntN(m.hi-m.lo); at < m.at-1 || at > m.at+1 {
			return at
		}
	}
}

// checkpoint is the place of a kept checkpoint above the line, or of the last.
func (m *mutant) checkpoint() int {
	i := slices.IndexFunc(m.kept, func(k audit.Kept) bool { return k.Size > int64(m.at) })
	if i < 0 {
		i = len(m.kept) - 1
	}
	return i
}

func flip(b []byte, random *rand.Rand) []byte {
	out := bytes.Clone(b)
	out[random.IntN(len(out))] ^= 1 << random.IntN(8)
	return out
}

var mutations = []mutation{
	{"bit of the content", local, func(m *mutant) (int64, int64) {
		m.lines[m.at].Content = flip(m.lines[m.at].Content, m.random)
		return m.one()
	}},
	{"bit of the personal part", local, func(m *mutant) (int64, int64) {
		m.withPersonal()
		l := m.sound.lines[m.at]
		l.Personal = flip(l.Personal, m.random)
		m.lines[m.at] = l
		return m.one()
	}},
	{"bit of the leaf hash", leaf, func(m *mutant) (int64, int64) {
		m.lines[m.at].Leaf = audit.Hash(flip(m.lines[m.at].Leaf[:], m.random))
		return m.one()
	}},
	{"bit of the number", onward, func(m *mutant) (int64, int64) {
		m.lines[m.at].Seq ^= 1 << m.random.IntN(62)
		return m.one()
	}},
	{"another personal part", local, func(m *mutant) (int64, int64) {
		m.withPersonal()
		m.lines[m.at] = m.sound.lines[m.at]
		m.lines[m.at].Personal = m.sound.lines[(m.at+3)%len(m.sound.lines)/3*3].Personal
		return m.one()
	}},
	{"deletion", leaf, func(m *mutant) (int64, int64) {
		m.lines = slices.Delete(m.lines, m.at, m.at+1)
		return m.one()
	}},
	{"deletion of a run", leaf, func(m *mutant) (int64, int64) {
		n := 1 + m.random.IntN(min(300, m.hi-m.at))
		m.lines = slices.Delete(m.lines, m.at, m.at+n)
		return int64(m.at), int64(m.at + n - 1)
	}},
	{"deletion, rows renumbered", pushed, func(m *mutant) (int64, int64) {
		m.lines = slices.Delete(m.lines, m.at, m.at+1)
		m.renumber()
		return m.one()
	}},
	{"insertion of a copy", pushed, func(m *mutant) (int64, int64) {
		copied := m.sound.lines[m.far()]
		m.lines = slices.Insert(m.lines, m.at, copied)
		m.renumber()
		return m.one()
	}},
	{"insertion of a forged event", pushed, func(m *mutant) (int64, int64) {
		e := m.event(m.at)
		e.Request = "forged"
		m.lines = slices.Insert(m.lines, m.at, audit.Line{})
		m.forge(m.at, e)
		m.renumber()
		return m.one()
	}},
	{"swap of rows", leaf, func(m *mutant) (int64, int64) {
		at := m.far()
		a, b := m.sound.lines[m.at], m.sound.lines[at]
		a.Seq, b.Seq = b.Seq, a.Seq
		m.lines[at], m.lines[m.at] = a, b
		return int64(min(m.at, at)), int64(min(m.at, at))
	}},
	{"swap of whole events", signed, func(m *mutant) (int64, int64) {
		at := m.far()
		a, b := m.event(m.at), m.event(at)
		a.Seq, b.Seq, a.Time, b.Time = b.Seq, a.Seq, b.Time, a.Time
		m.forge(at, a)
		m.forge(m.at, b)
		return int64(min(m.at, at)), int64(min(m.at, at))
	}},
	{"edited event with its leaf hash", signed, func(m *mutant) (int64, int64) {
		e := m.event(m.at)
		e.Request = "edited"
		m.forge(m.at, e)
		return m.one()
	}},
	{"splice from another organization", leaf, func(m *mutant) (int64, int64) {
		n := 1 + m.random.IntN(min(20, m.hi-m.at, len(m.other.lines)))
		for i := range n {
			l := m.other.lines[i]
			l.Seq = int64(m.at + i)
			m.lines[m.at+i] = l
		}
		return int64(m.at), int64(m.at + n - 1)
	}},
	{"splice with its numbers and organization changed", signed, func(m *mutant) (int64, int64) {
		e, err := audit.Parse(m.other.lines[m.random.IntN(len(m.other.lines))].Content)
		if err != nil {
			panic(err)
		}
		own := m.event(m.at)
		e.Seq, e.Time, e.Organization = own.Seq, own.Time, own.Organization
		m.forge(m.at, e)
		return m.one()
	}},
	{"bit of a kept checkpoint", local, func(m *mutant) (int64, int64) {
		i := m.checkpoint()
		m.kept[i].Signed = flip(m.kept[i].Signed, m.random)
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"kept checkpoint under another size", local, func(m *mutant) (int64, int64) {
		i := m.checkpoint()
		size := m.kept[i].Size
		m.kept[i].Size += 1 + int64(m.random.IntN(100))
		if next := int64(len(m.sound.lines)); m.kept[i].Size > next || i+1 < len(m.kept) && m.kept[i].Size >= m.kept[i+1].Size {
			m.kept[i].Size = size - 1
		}
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"another organization's checkpoint", local, func(m *mutant) (int64, int64) {
		i := m.checkpoint()
		m.kept[i].Signed = m.other.signedHead
		return m.kept[i].Size - 1, m.kept[i].Size - 1
	}},
	{"bit of the head", signed, func(m *mutant) (int64, int64) {
		m.signedHead = flip(m.signedHead, m.random)
		return int64(len(m.sound.lines)) - 1, int64(len(m.sound.lines)) - 1
	}},
	{"truncation", onward, func(m *mutant) (int64, int64) {
		m.lines = m.lines[:m.at]
		m.kept = slices.DeleteFunc(m.kept, func(k audit.Kept) bool { return k.Size > int64(m.at) })
		return int64(m.at), int64(len(m.sound.lines)) - 1
	}},
	{"the whole log put back to a head that was kept", onward, func(m *mutant) (int64, int64) {
		i := m.checkpoint()
		m.signedHead, m.lines, m.kept = m.kept[i].Signed, m.lines[:m.kept[i].Size], m.kept[:i]
		return int64(len(m.lines)), int64(len(m.sound.lines)) - 1
	}},
}

// withPersonal goes on to the next line that has a personal part.
func (m *mutant) withPersonal() {
	for len(m.sound.lines[m.at].Personal) == 0 {
		m.at--
	}
}
