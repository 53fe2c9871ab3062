package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// clean makes text from elsewhere safe for a terminal: agents write reasons and
// names, and an escape sequence in one could make a table say something else.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r):
			return '\uFFFD'
		}
		return r
	}, text)
}

// table is rows of text under titles. Its first column is never cut. With wrap
// the last one is not cut either but goes on below, for text that must be read.
type table struct {
	titles []string
	rows   [][]string
	wrap   bool
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
}

const (
	gap       = 2 // between columns
	narrowest = 8 // a column is not cut below this
)

// print writes the table, cut to the width of the terminal if stdout is one.
func (t *table) print(s *session) error {
	limit := 0
	if fd, ok := terminal(s.stdout); ok {
		if columns, _, err := term.GetSize(fd); err == nil {
			limit = columns
		}
	}
	return t.write(s, limit)
}

func (t *table) write(s *session, limit int) error {
	widths := t.widths(limit)
	rows := append([][]string{t.titles}, t.rows...)
	if t.wrap {
		rows = wrapped(rows, widths)
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if !t.wrap || i < len(row)-1 {
				cell = cut(cell, widths[i])
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-cells(cell)+gap))
			}
		}
		if err := s.say("%s", strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// wrapped breaks the last cell of each row at spaces, so that each part fits its
// column; a word that is longer
// stays whole.
func wrapped(rows [][]string, widths []int) [][]string {
	var out [][]string
	for _, row := range rows {
		last := len(row) - 1
		line := ""
		for word := range strings.FieldsSeq(row[last]) {
			if line != "" && cells(line)+1+cells(word) > widths[last] {
				out = append(out, append(slices.Clone(row[:last]), line))
				row, line = make([]string, last+1), word
				continue
			}
			line = strings.TrimSpace(line + " " + word)
		}
		out = append(out, append(slices.Clone(row[:last]), line))
	}
	return out
}

// widths makes the widest columns narrower until the table fits within limit;
// 0 is no limit.
func (t *table) widths(limit int) []int {
	widths := make([]int, len(t.titles))
	for _, row := range append([][]string{t.titles}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], cells(cell))
		}
	}
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for limit > 0 && total > limit {
		widest := 0
		for i := 1; i < len(widths); i++ {
			if widest == 0 || widths[i] > widths[widest] {
				widest = i
			}
		}
		if widest == 0 || widths[widest] <= narrowest {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

// cells is how many cells of a terminal text takes.
func cells(text string) int {
	n := 0
	for _, r := range text {
		n += cellsOf(r)
	}
	return n
}

func cellsOf(r rune) int {
	if unicode.Is(unicode.Mn, r) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// cut shortens text to at most n cells.
func cut(text string, n int) string {
	if cells(text) <= n {
		return text
	}
	used := 0
	for i, r := range text {
		if used += cellsOf(r); used > n-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// when shows a time in UTC, to the minute.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

func whenever(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return when(*t)
}

func text(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
