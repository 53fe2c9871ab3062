package cli

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// PlayDemo plays the demo with something between it and its server.
func PlayDemo(ctx context.Context, stdout io.Writer, through func(http.RoundTripper) http.RoundTripper) error {
	return playDemo(ctx, newSession(nil, strings.NewReader(""), stdout, io.Discard, Options{}), through)
}

// DemoSteps is how many steps the demo has.
func DemoSteps() int { return len((&demo{}).steps()) }

// Model is the commands and flags as parsed.
func Model() (*kong.Application, error) {
	parser, _, err := newParser(newSession(nil, nil, io.Discard, io.Discard, Options{}), func(int) {})
	if err != nil {
		return nil, err
	}
	return parser.Model, nil
}

// ShownExamples are the lines that show a command, by its path.
func ShownExamples() map[string]string { return examples }

// Parses reads arguments without running a command.
func Parses(args []string) (command string, err error) {
	parser, _, err := newParser(newSession(nil, nil, io.Discard, io.Discard, Options{}), func(int) {})
	if err != nil {
		return "", err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return "", err
	}
	return parsed.Command(), nil
}

// Table writes a table within so many cells.
func Table(w io.Writer, limit int, titles []string, rows ...[]string) error {
	t := table{titles: titles}
	for _, row := range rows {
		t.add(row...)
	}
	return t.write(newSession(nil, nil, w, io.Discard, Options{}), limit)
}

// WrappedTable writes a table whose last column goes on below.
func WrappedTable(w io.Writer, limit int, titles []string, rows ...[]string) error {
	t := table{titles: titles, wrap: true}
	for _, row := range rows {
		t.add(row...)
	}
	return t.write(newSession(nil, nil, w, io.Discard, Options{}), limit)
}

// Clean is what a terminal gets of text.
func Clean(text string) string { return clean(text) }

// Span reads a length of time.
func Span(text string) (time.Duration, error) {
	var d span
	err := d.UnmarshalText([]byte(text))
	return time.Duration(d), err
}

// Moment reads an end in time.
func Moment(text string, now time.Time) (*time.Time, error) {
	var m moment
	err := m.UnmarshalText([]byte(text))
	return m.resolve(now), err
}

// WriteWhole writes a file that takes its name when it is complete.
var WriteWhole = writeWhole
