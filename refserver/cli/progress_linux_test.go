package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/sys/unix"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// stalling serves an answer in two parts, the second once it is let go.
func stalling(t *testing.T, first, second string) (env []string, asked chan struct{}, let func()) {
	t.Helper()
	asked = make(chan struct{}, 8)
	gate := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, first)
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, second)
	}))
	t.Cleanup(server.Close)
	return []string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}, asked, func() { close(gate) }
}

// TestLongWorkShowsThatItGoesOn on a terminal, and nowhere else.
func TestLongWorkShowsThatItGoesOn(t *testing.T) {
	t.Parallel()
	for what, shown := range map[string]string{"verify": "the server verifies the log… \\(", "reconcile": "the server replays the log… \\("} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			env, asked, let := stalling(t, " ", `{"data":{"ok":true,"events":7,"records":3,"findings":[]}}`)
			c := openConsole(t)
			var out, silentOut, silent bytes.Buffer
			status := make(chan int, 2)
			go func() {
				status <- cli.Main(t.Context(), []string{"audit", what}, env, strings.NewReader(""), &silentOut, &silent, cli.Options{})
			}()
			<-asked
			go func() {
				status <- cli.Main(t.Context(), []string{"audit", what}, env, strings.NewReader(""), &out, c.tty, cli.Options{})
			}()
			c.await(t, shown)
			let()
			is.Equal(<-status, 0)
			is.Equal(<-status, 0)
			_, err := io.WriteString(c.tty, "END")
			is.NoErr(err)
			c.await(t, "\r\x1b\\[KEND") // what was shown is taken away
			is.True(strings.HasPrefix(out.String(), "ok, "))
			is.Equal(silent.String(), "")
			is.Equal(silentOut.String(), out.String())
		})
	}
}

func TestExportShowsHowFarItIs(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	env, _, let := stalling(t, strings.Repeat("x", 200_000), "end\n")
	c := openConsole(t)
	path := filepath.Join(t.TempDir(), "log.jsonl")
	status := make(chan int, 1)
	go func() {
		status <- cli.Main(t.Context(), []string{"audit", "export", "--out", path}, env, strings.NewReader(""), c.tty, c.tty, cli.Options{})
	}()
	c.await(t, `exporting the log… 0\.[12] MB \(`)
	let()
	is.Equal(<-status, 0)
	b, err := os.ReadFile(path)
	is.NoErr(err)
	is.Equal(len(b), 200_004)
}

// TestTablesFitTheTerminal, whatever its width.
func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"data":[{"id":"a","name":%q,"status":"active","description":%q}]}`, strings.Repeat("long name ", 20), strings.Repeat("why ", 40))
	}))
	t.Cleanup(server.Close)
	env := []string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}
	c := openConsole(t)
	for _, width := range []uint16{80, 132} {
		is.NoErr(unix.IoctlSetWinsize(int(c.control.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}))
		before := len(c.text())
		is.Equal(cli.Main(t.Context(), []string{"agents", "list"}, env, strings.NewReader(""), c.tty, io.Discard, cli.Options{}), 0)
		_, err := fmt.Fprintf(c.tty, "END%d", width)
		is.NoErr(err)
		c.await(t, fmt.Sprintf("END%d", width))
		text := strings.TrimPrefix(c.text()[before:], "\r\n")
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimRight(line, "\r\n"))); n > int(width) {
				t.Errorf("a line of %d in a terminal of %d: %q", n, width, line)
			}
		}
		is.True(strings.Contains(text, "long name"))
		is.True(strings.Contains(text, "…"))
	}
}
