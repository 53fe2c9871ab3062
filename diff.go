package agentkey

import (
	"fmt"
	"strings"
)

// InstructionsDiff is what changed between two versions of a tool's instructions.
type InstructionsDiff struct {
	From, To InstructionVersion
	// Unified is the difference as diff -u prints it, with three lines of context
	// and as if each text ended with a line break; empty when nothing changed.
	Unified string
	// Lines are all lines of both texts in their order, what was removed before
	// what was added in its place.
	Lines []DiffLine
}

// DiffLine is a line of either text, or of both.
type DiffLine struct {
	Op   DiffOp
	Text string // without its line break
	From int    // its number in the old text, from 1; 0 when it was added
	To   int    // its number in the new one; 0 when it was removed
}

// DiffOp says what became of a line.
type DiffOp string

// What can become of a line.
const (
	LineKept    DiffOp = "equal"
	LineRemoved DiffOp = "removed"
	LineAdded   DiffOp = "added"
)

// mark is what stands before the line in a unified diff.
func (o DiffOp) mark() byte {
	switch o {
	case LineRemoved:
		return '-'
	case LineAdded:
		return '+'
	}
	return ' '
}

// compare fills in what the two texts come to.
func (d *InstructionsDiff) compare() {
	d.Lines = diffLines(textLines(d.From.Instructions), textLines(d.To.Instructions))
	d.Unified = unified(d.From.label(), d.To.label(), d.Lines)
}

// label names a version in the head of a unified diff.
func (v InstructionVersion) label() string {
	if v.ID == "" {
		return "nothing"
	}
	return fmt.Sprintf("version %d (%s)", v.Number, v.ID)
}

// textLines are the lines of a text; an empty one has none.
func textLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// maxCells bounds the table that two texts are compared in. Instructions are a
// few thousand characters long, so that only texts made of hundreds of nearly
// empty lines come above it: those are shown as replaced from the first line that
// differs to the last.
const maxCells = 1 << 20

// diffLines gives a shortest way from one text to the other: the lines of a
// longest common subsequence are kept.
func diffLines(from, to []string) []DiffLine {
	lines := make([]DiffLine, 0, len(from)+len(to))
	start := 0
	for start < min(len(from), len(to)) && from[start] == to[start] {
		start++
		lines = append(lines, DiffLine{LineKept, from[start-1], start, start})
	}
	endFrom, endTo := len(from), len(to)
	for endFrom > start && endTo > start && from[endFrom-1] == to[endTo-1] {
		endFrom--
		endTo--
	}
	i, j := start, start
	common := commonLengths(from[start:endFrom], to[start:endTo])
	for i < endFrom || j < endTo {
		switch {
		case i < endFrom && j < endTo && from[i] == to[j] && common != nil:
			lines = append(lines, DiffLine{LineKept, from[i], i + 1, j + 1})
			i++
			j++
		case j == endTo || i < endFrom && (common == nil || common[i-start+1][j-start] >= common[i-start][j-start+1]):
			lines = append(lines, DiffLine{LineRemoved, from[i], i + 1, 0})
			i++
		default:
			lines = append(lines, DiffLine{LineAdded, to[j], 0, j + 1})
			j++
		}
	}
	for ; i < len(from); i, j = i+1, j+1 {
		lines = append(lines, DiffLine{LineKept, from[i], i + 1, j + 1})
	}
	return lines
}

// commonLengths says for every two places how long a longest common subsequence of
// what follows them is, or nil if that would be too large a table.
func commonLengths(from, to []string) [][]uint16 {
	if (len(from)+1)*(len(to)+1) > maxCells {
		return nil
	}
	table := make([][]uint16, len(from)+1)
	cells := make([]uint16, (len(from)+1)*(len(to)+1))
	for i := range table {
		table[i] = cells[i*(len(to)+1):][:len(to)+1]
	}
	for i := len(from) - 1; i >= 0; i-- {
		for j := len(to) - 1; j >= 0; j-- {
			if from[i] == to[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}

// contextLines is how many unchanged lines a unified diff shows around a change.
const contextLines = 3

// unified prints lines in hunks.
func unified(from, to string, lines []DiffLine) string {
	var out strings.Builder
	for start := 0; ; {
		first := nextChange(lines, start)
		if first == len(lines) {
			return out.String()
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "--- %s\n+++ %s\n", from, to)
		}
		end := first + 1
		for next := first; next < len(lines) && next-end <= 2*contextLines; next = nextChange(lines, end) {
			end = next + 1
		}
		begin := max(first-contextLines, start)
		end = min(end+contextLines, len(lines))
		hunk(&out, lines[:begin], lines[begin:end])
		start = end
	}
}

// nextChange is the place of the next line that is in one text only.
func nextChange(lines []DiffLine, from int) int {
	for from < len(lines) && lines[from].Op == LineKept {
		from++
	}
	return from
}

func hunk(out *strings.Builder, before, lines []DiffLine) {
	a, b := count(before)
	n, m := count(lines)
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(a, n), span(b, m))
	for _, l := range lines {
		out.WriteByte(l.Op.mark())
		out.WriteString(l.Text)
		out.WriteByte('\n')
	}
}

// span is where a hunk stands in a text: the number of its first line, or of the
// line before one that has none, and how many lines it has.
func span(before, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", before)
	case 1:
		return fmt.Sprint(before + 1)
	}
	return fmt.Sprintf("%d,%d", before+1, n)
}

// count gives how many of the lines stand in the old text, and in the new one.
func count(lines []DiffLine) (from, to int) {
	for _, l := range lines {
		if l.Op != LineAdded {
			from++
		}
		if l.Op != LineRemoved {
			to++
		}
	}
	return from, to
}
