package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/sys/unix"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// console is a pseudo-terminal: what is typed at it, and all that it shows.
type console struct {
	tty     *os.File // the program's end
	control *os.File
	mu      sync.Mutex
	shown   bytes.Buffer
	more    chan struct{}
}

func openConsole(t *testing.T) *console {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals here")
	}
	if err := unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &console{tty: tty, control: control, more: make(chan struct{}, 1024)}
	go c.watch()
	t.Cleanup(func() { _ = tty.Close(); _ = control.Close() })
	return c
}

func (c *console) watch() {
	b := make([]byte, 1024)
	for {
		n, err := c.control.Read(b)
		if err != nil {
			close(c.more)
			return
		}
		c.mu.Lock()
		c.shown.Write(b[:n])
		c.mu.Unlock()
		c.more <- struct{}{}
	}
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

// await waits until the terminal shows what matches.
func (c *console) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for {
		if found := re.FindStringSubmatch(c.text()); found != nil {
			return found
		}
		select {
		case _, ok := <-c.more:
			if !ok {
				t.Fatalf("the terminal was closed; it shows %q", c.text())
			}
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		}
	}
}

// echoes reports whether the terminal shows what is typed.
func (c *console) echoes(t *testing.T) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

func TestCredentialIsAskedForWithoutEcho(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"data":{"id":"t","name":"L"}}`)
	}))
	t.Cleanup(server.Close)
	c := openConsole(t)
	is.True(c.echoes(t))
	status := make(chan int, 1)
	go func() {
		status <- cli.Main(t.Context(), []string{"tools", "create", "L"},
			[]string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}, c.tty, io.Discard, c.tty, cli.Options{})
	}()
	c.await(t, `Credential \(not shown\): `)
	for c.echoes(t) && len(status) == 0 { // the program turns it off before it reads
		runtime.Gosched()
	}
	_, err := io.WriteString(c.control, "lin_api_test_typed\n")
	is.NoErr(err)
	is.Equal(<-status, 0)
	is.True(strings.Contains(<-got, `"credential":"lin_api_test_typed"`))
	is.True(c.echoes(t)) // as it was before
	_, err = io.WriteString(c.tty, "END")
	is.NoErr(err)
	c.await(t, `END`)
	is.True(!strings.Contains(c.text(), "lin_api_test_typed"))
}

func TestFirstTokenIsShownOnATerminal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	env := []string{"XDG_STATE_HOME=" + filepath.Join(dir, "state"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "config")}
	c := openConsole(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	status := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		status <- cli.Main(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, env, strings.NewReader(""), c.tty, &log, cli.Options{})
	}()
	url := c.await(t, `listening on +(http://\S+)`)[1]
	token := c.await(t, `administrator +token, shown this once: (sk_admin_\S+)`)[1]
	r := run(t.Context(), []string{"AGENTKEY_URL=" + url, "AGENTKEY_ADMIN_TOKEN=" + token}, "", "org", "show")
	is.Equal(r.errors, "")
	is.Equal(r.status, 0)
	stop()
	is.Equal(<-status, 0)
	entries, err := os.ReadDir(filepath.Join(dir, "config", "agentkey"))
	is.NoErr(err)
	is.Equal(len(entries), 1) // the key; no token
	is.True(!strings.Contains(log.String(), token))
}

func TestNoCoreDumpsAndPrivateFiles(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "a.key")
	is.Equal(run(t.Context(), nil, "", "keys", "generate", "--out", path).status, 0)
	var limit unix.Rlimit
	is.NoErr(unix.Getrlimit(unix.RLIMIT_CORE, &limit))
	is.Equal(limit, unix.Rlimit{})
	umask := unix.Umask(0o077)
	is.Equal(umask, 0o077)
	info, err := os.Stat(path)
	is.NoErr(err)
	is.Equal(info.Mode().Perm(), os.FileMode(0o600))
}

// An import on a terminal shows its plan, and only yes carries that plan out.
func TestImportAsksOnATerminal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tools.yaml")
	is.New(t).NoErr(os.WriteFile(path, []byte("version: 1\ntools: []\n"), 0o600))
	for answer, wanted := range map[string][]string{
		"yes": {"dryRun=1&prune=1", "plan=d16e57&prune=1"}, "y": {"dryRun=1&prune=1"}, "": {"dryRun=1&prune=1"}, "no": {"dryRun=1&prune=1"},
	} {
		t.Run("answered "+answer, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.RawQuery)
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"data":{"digest":"d16e57","prune":true,"counts":{"remove":1},"items":[{"action":"remove","key":"gone","name":"Gone"}]}}`)
			}))
			t.Cleanup(server.Close)
			c := openConsole(t)
			status := make(chan int, 1)
			go func() {
				status <- cli.Main(t.Context(), []string{"config", "import", path, "--prune"},
					[]string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}, c.tty, c.tty, c.tty, cli.Options{})
			}()
			c.await(t, `remove +gone +Gone`)
			c.await(t, `Only yes does: `)
			_, err := io.WriteString(c.control, answer+"\n")
			is.NoErr(err)
			is.Equal(<-status == 0, answer == "yes")
			is.Equal(asked, wanted)
		})
	}
}
