package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// session is what a command has of the world.
type session struct {
	env     map[string]string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	options Options
}

func newSession(env []string, stdin io.Reader, stdout, stderr io.Writer, o Options) *session {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := &session{env: make(map[string]string, len(env)), stdin: stdin, stdout: stdout, stderr: stderr, options: o}
	for _, pair := range env {
		if name, value, found := strings.Cut(pair, "="); found {
			s.env[name] = value
		}
	}
	return s
}

// getenv looks a variable up; an empty one counts as not set.
func (s *session) getenv(name string) (string, bool) {
	value := s.env[name]
	return value, value != ""
}

// terminal gives the descriptor of what a stream is connected to, if that is a
// terminal.
func terminal(stream any) (fd int, ok bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// openNamed opens a file that is to hold a secret. Its errors don't repeat the
// name: the secret itself may have been given in its place.
func openNamed(path, what string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, cause(err))
	}
	return f, nil
}

// cause is an error of a file without the file's name.
func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// say writes a line for people.
func (s *session) say(format string, args ...any) error {
	_, err := fmt.Fprintf(s.stdout, format+"\n", args...)
	return err
}

// emit writes v as JSON for programs.
func (s *session) emit(v any) error {
	e := json.NewEncoder(s.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
