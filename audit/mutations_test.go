package audit_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// stretch is how many events lie between two heads of the log that is mutated.
const stretch = 256

// damage is a mutation of one log, and what must be said of it.
type damage struct {
	mutation
	at           int
	from, to     int64 // what it is about
	below, above int64 // the sizes of the sound heads around that
}

// mutants is a sound log of which damaged copies are made.
type mutants struct {
	sound, other *logbook
	many         int // damages of one copy, at most
}

// copy damages a copy of the log at several places, each in a stretch of its own
// with a sound one to both sides. One of them may be of a kind that has consequences;
// the others are chosen so that each must still be named by itself.
func (s *mutants) copy(random *rand.Rand, chief mutation) (*mutant, []*damage) {
	n := len(s.sound.lines)
	all := (n - 1) / stretch // of a whole stretch
	ds := []*damage{{mutation: chief, at: random.IntN(all * stretch)}}
	place := ds[0].at / stretch
	for at := random.IntN(2); at < all; at += 2 {
		if len(ds) < s.many && (at < place-1 || at > place+1) && random.IntN(all) < 2*s.many {
			if kind, ok := companion(random, chief.reach, at < place); ok {
				ds = append(ds, &damage{mutation: kind, at: at*stretch + random.IntN(stretch)})
			}
		}
	}
	slices.SortFunc(ds, func(a, b *damage) int { return cmp.Compare(b.at, a.at) }) // the last first: what stands below keeps its place
	m := &mutant{logbook: s.sound.shallow(), sound: s.sound, other: s.other, random: random}
	for _, d := range ds {
		m.at, m.lo, m.hi = d.at, d.at/stretch*stretch, d.at/stretch*stretch+stretch
		d.from, d.to = d.change(m)
		d.below, d.above = s.sound.heads(d.from, d.to)
	}
	return m, ds
}

// companion chooses a kind of damage that is named by itself beside the chief one.
func companion(random *rand.Rand, chief reach, below bool) (mutation, bool) {
	if !below && (chief == onward || chief == pushed) {
		return mutation{}, false
	}
	for {
		kind := mutations[random.IntN(len(mutations))]
		if kind.reach == local || kind.reach == leaf && (!below || chief == local || chief == leaf || chief == onward) {
			return kind, true
		}
	}
}

// shallow is a copy that shares the bytes of lines: mutations replace them whole.
func (b *logbook) shallow() *logbook {
	c := *b
	c.lines, c.kept = slices.Clone(b.lines), slices.Clone(b.kept)
	return &c
}

// heads are the sizes of the signed roots around some lines: the last below them,
// and the first above.
func (b *logbook) heads(from, to int64) (below, above int64) {
	above = int64(len(b.lines))
	for _, k := range b.kept {
		if k.Size <= from {
			below = k.Size
		}
		if k.Size > to {
			return below, k.Size
		}
	}
	return below, above
}

// judge holds a report against what was damaged: each damage is named by the number
// of its first line, or by the stretch between two heads in which it lies; and
// nothing is accused that lies in no such stretch, unless by what follows from one.
func judge(r audit.Report, ds []*damage) (exact map[*damage]bool, err error) {
	exact = make(map[*damage]bool)
	accused := make([]bool, len(r.Findings))
	for _, d := range ds {
		found := false
		for i, f := range r.Findings {
			if f.From == d.from {
				exact[d] = true
			}
			if f.From <= d.to && f.To >= d.from && f.From >= d.below && (f.To < d.above || f.From == d.from) {
				found, accused[i] = true, true
			}
			follows := d.reach == onward || d.reach == pushed
			next := f.From == d.to+1 // the checkpoint that came too early for want of lines
			if f.From >= d.below && (follows || next || f.From < d.above) {
				accused[i] = true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s at %d to %d is not named", d.name, d.from, d.to)
		}
	}
	for i, f := range r.Findings {
		if !accused[i] && !strings.Contains(f.Problem, "kept elsewhere") {
			return nil, fmt.Errorf("%d to %d is accused without cause: %s", f.From, f.To, f.Problem)
		}
	}
	return exact, nil
}

// tally counts what was found, by kind.
type tally struct {
	mu           sync.Mutex
	total        int
	found, exact map[string]int
}

func (c *tally) add(ds []*damage, exact map[*damage]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range ds {
		c.total++
		c.found[d.name]++
		if exact[d] {
			c.exact[d.name]++
		}
	}
}

func (c *tally) done(enough int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total >= enough
}

// TestRandomMutations damages a log at random, at several places at once that are
// far from each other, until so many mutations were made: every one is found by Verify
// in its own right, named by its number or by the range between two heads, and
// nothing else is accused. The auditor kept the last head elsewhere, as a restored
// database needs. All content is there and is judged each time. In the long form,
// 100 000 events and 10 000 mutations.
func TestRandomMutations(t *testing.T) {
	t.Parallel()
	n, enough, many := 8*stretch, 10*len(mutations), 3
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n, enough, many = 100_000, 10_000, 30
	}
	var kept []int64
	for size := int64(stretch); size < int64(n); size += stretch {
		kept = append(kept, size)
	}
	s := &mutants{sound: newLogbook(t, organization, n, kept...), other: newLogbook(t, "org-2", 64), many: many}
	counts := &tally{found: make(map[string]int), exact: make(map[string]int)}
	workers := runtime.GOMAXPROCS(0)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for round := w; !counts.done(enough) || round < len(mutations); round += workers {
				random := rand.New(rand.NewPCG(2026, uint64(round)))
				m, ds := s.copy(random, mutations[round%len(mutations)])
				log := m.log(t)
				log.Elsewhere = [][]byte{s.sound.signedHead}
				r, err := audit.Verify(t.Context(), log)
				if err == nil && r.Unlisted > 0 {
					err = fmt.Errorf("%d findings are not listed", r.Unlisted)
				}
				var exact map[*damage]bool
				if err == nil {
					exact, err = judge(r, ds)
				}
				if err != nil {
					t.Errorf("round %d: %v in %+v", round, err, r.Findings)
					return
				}
				counts.add(ds, exact)
			}
		})
	}
	all.Wait()
	for _, kind := range mutations {
		t.Logf("%-50s %4d found, %4d of them by their very number", kind.name, counts.found[kind.name], counts.exact[kind.name])
	}
	t.Logf("%d mutations of a log of %d events, all found", counts.total, n)
}

// TestJudgeAccuses shows that the proof above can fail: a report that says nothing
// of a damage, or that accuses what is sound, is not let pass.
func TestJudgeAccuses(t *testing.T) {
	t.Parallel()
	d := &damage{mutation: mutations[0], from: 300, to: 300, below: 256, above: 512}
	for _, r := range []audit.Report{
		{},
		{Findings: []audit.Finding{{From: 100, To: 100, Problem: "content is missing"}, {From: 300, To: 300, Problem: "content is missing"}}},
		{Findings: []audit.Finding{{From: 0, To: 511, Problem: "leaf hashes are not those that were signed"}}},
	} {
		if _, err := judge(r, []*damage{d}); err == nil {
			t.Errorf("%+v was let pass", r)
		}
	}
}
