package cli

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// PlayDemo plays the demo with something between it and its server.
func PlayDemo(ctx context.Context, stdout io.Writer, through func(http.RoundTripper) http.RoundTripper) error {
	return playDemo(ctx, newSession(nil, strings.NewReader(""), stdout, io.Discard, Options{}), through)
}

// DemoSteps is how many steps the demo has.
func DemoSteps() int { return len((&demo{}).steps()) }

// Program is the program, for runs one after another: making its parser takes longer
// than most runs.
type Program struct{ parser *parser }

// NewProgram makes one.
func NewProgram() (*Program, error) {
	p, err := newParser(newSession(nil, nil, io.Discard, io.Discard, Options{}))
	return &Program{p}, err
}

// Model is the commands and flags as parsed.
func (p *Program) Model() *kong.Application { return p.parser.Model }

// Main is what Main does, as far as it concerns no other run.
func (p *Program) Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer, o Options) int {
	s := newSession(env, stdin, stdout, stderr, o)
	if err := p.forget(); err != nil {
		return exitFailed
	}
	p.parser.session, p.parser.exited = s, false
	p.parser.Stdout, p.parser.Stderr = stdout, stderr
	*p.parser.settings = settings{session: s, known: p.parser.settings.known}
	return p.parser.run(ctx, args)
}

// forget takes from the model what the run before was given. The values themselves
// are kong's to reset.
func (p *Program) forget() error {
	return kong.Visit(p.parser.Model, func(v kong.Visitable, next kong.Next) error {
		switch v := v.(type) {
		case *kong.Flag:
			v.Set, v.Active = false, false
		case *kong.Value:
			v.Set, v.Active = false, false
		}
		return next(nil)
	})
}

// ShownExamples are the lines that show a command, by its path.
func ShownExamples() map[string]string { return examples }

// Parses reads arguments without running a command.
func (p *Program) Parses(args []string) (command string, err error) {
	if err := p.forget(); err != nil {
		return "", err
	}
	parsed, err := p.parser.Parse(args)
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

const QuietBytes = quietBytes

var (
	WhenQuiet = whenQuiet
	Allocated = allocated
)

// DefaultKey finds or makes the key of the configuration directory.
func DefaultKey(ctx context.Context, env []string, store storage.Store) (vault.KeyProvider, string, error) {
	return newSession(env, nil, io.Discard, io.Discard, Options{}).defaultKey(ctx, store)
}
