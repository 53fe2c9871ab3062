package agentkey_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"
	"pgregory.net/rapid"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

func (s *shelf) diff(from, to string) agentkey.InstructionsDiff {
	s.t.Helper()
	d, err := s.DiffInstructions(s.t.Context(), s.Owner, s.tool.ID, from, to)
	noErr(s.t, err)
	return d
}

func manyLines(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("line %d", i+1))
	}
	return strings.Join(all, "\n")
}

func TestDiffInstructions(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	first := s.versions()[0].ID
	for name, test := range map[string]struct {
		from, to string
		want     string // after the head
	}{
		"all added":        {"", "a\nb", "@@ -0,0 +1,2 @@\n+a\n+b\n"},
		"all removed":      {"a\nb", "", "@@ -1,2 +0,0 @@\n-a\n-b\n"},
		"a line":           {"a\nb\nc", "a\nB\nc", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		"one of one":       {"a", "b", "@@ -1 +1 @@\n-a\n+b\n"},
		"a line more":      {"a\nc", "a\nb\nc", "@@ -1,2 +1,3 @@\n a\n+b\n c\n"},
		"context":          {manyLines(9), strings.Replace(manyLines(9), "line 5", "x", 1), "@@ -2,7 +2,7 @@\n line 2\n line 3\n line 4\n-line 5\n+x\n line 6\n line 7\n line 8\n"},
		"two hunks":        {manyLines(12), manyLines(12)[:0] + "x\n" + manyLines(12) + "\ny", "@@ -1,3 +1,4 @@\n+x\n line 1\n line 2\n line 3\n@@ -10,3 +11,4 @@\n line 10\n line 11\n line 12\n+y\n"},
		"one hunk of near": {manyLines(6), "x\n" + manyLines(6) + "\ny", "@@ -1,6 +1,8 @@\n+x\n line 1\n line 2\n line 3\n line 4\n line 5\n line 6\n+y\n"},
		"moved":            {"a\nb\nc\nd", "b\nc\nd\na", "@@ -1,4 +1,4 @@\n-a\n b\n c\n d\n+a\n"},
		"an empty line":    {"a\nb", "a\n\nb", "@@ -1,2 +1,3 @@\n a\n+\n b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			from, to := s.write(test.from), s.write(test.to)
			d := s.diff(from, to)
			is.Equal(d.From.ID, from)
			is.Equal(d.To.ID, to)
			head := fmt.Sprintf("--- version %d (%s)\n+++ version %d (%s)\n", d.From.Number, from, d.To.Number, to)
			is.Equal(d.Unified, head+test.want)
			is.Equal(s.diff("", ""), d) // the last change
			is.Equal(s.diff(from, from).Unified, "")
		})
	}
	is := is.New(t)
	d := s.diff("", first) // before the first one there was nothing
	is.Equal(d.From.ID, "")
	is.Equal(d.Unified, "")
}

// Every diff leads from the one text to the other and keeps as much as it can;
// texts of too many lines are compared all the same.
func TestDiffLeadsFromOneToTheOther(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	texts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "", "é"}), 0, 30)
	rapid.Check(t, func(r *rapid.T) {
		from, to := strings.TrimSpace(strings.Join(texts.Draw(r, "from"), "\n")), strings.TrimSpace(strings.Join(texts.Draw(r, "to"), "\n"))
		one := s.write(from)
		two := s.write(to)
		checkDiff(r, s.diff(one, two), from, to)
	})
	is := is.New(t)
	from, to := strings.Repeat("a\nb\n", 999)+"z", strings.Repeat("b\nc\n", 999)+"z"
	one := s.write(from)
	two := s.write(to)
	d := s.diff(one, two)
	checkDiff(nil, d, from, to)
	is.Equal(len(d.Lines), 2*1998+1) // replaced as a whole, but for the last line
}

// checkDiff applies the lines, and counts what they keep.
func checkDiff(r *rapid.T, d agentkey.InstructionsDiff, from, to string) {
	var old, next []string
	kept := 0
	for _, l := range d.Lines {
		if l.Op != agentkey.LineAdded {
			old = append(old, l.Text)
		}
		if l.Op != agentkey.LineRemoved {
			next = append(next, l.Text)
		}
		if l.Op == agentkey.LineKept {
			kept++
		}
		if l.From > 0 && l.From != len(old) || l.To > 0 && l.To != len(next) || (l.From == 0) != (l.Op == agentkey.LineAdded) || (l.To == 0) != (l.Op == agentkey.LineRemoved) {
			panic(fmt.Sprintf("numbers of %+v", l))
		}
	}
	if strings.Join(old, "\n") != from || strings.Join(next, "\n") != to {
		panic("the lines are not those of the texts")
	}
	if r != nil && kept != longestCommon(old, next) {
		r.Fatalf("%d lines kept, %d could be", kept, longestCommon(old, next))
	}
	if (d.Unified == "") != (from == to) {
		panic("a unified diff without a difference, or none for one")
	}
}

// longestCommon is the length of a longest common subsequence, by its definition.
func longestCommon(a, b []string) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		before := slices.Clone(row)
		for j, y := range b {
			if row[j+1] = max(before[j+1], row[j]); x == y {
				row[j+1] = before[j] + 1
			}
		}
	}
	return row[len(b)]
}
