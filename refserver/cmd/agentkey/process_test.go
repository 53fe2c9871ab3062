package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// proving says whether the long forms of these tests are asked for.
func proving() bool { return os.Getenv("AGENTKEY_PROVE") != "" }

// rounds is how often a test does what it does: a few times, or as often as it
// takes to prove something.
func rounds(few, many int) int {
	if proving() {
		return many
	}
	return few
}

// within is a bound on time: as it is promised for the program as it ships, and
// much more for the short forms, where it has the race detector and shares the
// machine with all other tests.
func within(promised time.Duration) time.Duration {
	if proving() {
		return promised
	}
	return promised + 12*time.Second
}

// startTime is how soon after its start a server is ready.
const startTime = time.Second

// program is the server's binary: the test's own, which TestMain makes one, and
// for the long forms the one that ships.
func program(t *testing.T) string {
	t.Helper()
	if proving() {
		path, err := built()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	return testBinary(t, "agentkey")
}

// testBinary is the test's own binary under the name of one of its commands.
func testBinary(t *testing.T, command string) string {
	t.Helper()
	binary, err := os.Executable()
	path := filepath.Join(t.TempDir(), command)
	if err == nil {
		err = os.Symlink(binary, path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// builtIn is where this process builds the program.
func builtIn() string {
	return filepath.Join(os.TempDir(), "agentkey-built-"+strconv.Itoa(os.Getpid()))
}

// cleaning runs the tests and removes what was built for them.
type cleaning struct{ *testing.M }

func (m cleaning) Run() int {
	defer func() { _ = os.RemoveAll(builtIn()) }()
	return m.M.Run()
}

// built builds the program once for all tests: as it ships, without the race
// detector, whose servers take some times as long.
var built = sync.OnceValues(func() (string, error) {
	dir := builtIn()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "agentkey")
	build := exec.Command("go", "build", "-race=false", "-o", path, ".")
	build.Stderr = os.Stderr
	return path, build.Run()
})

// atOnce is a setting of the race detector, by which a program ends when it ends:
// left to itself it sleeps for a second first, which a script of a hundred
// commands does a hundred times.
const atOnce = "atexit_sleep_ms=0"

// installed is what servers of one installation have in common.
type installed struct {
	environment []string
	token       *vault.Secret // of the first administrator
}

// newInstallation is an installation on the database, without rate limits.
func newInstallation(t *testing.T, database string) installed {
	t.Helper()
	key, err := localkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	token := vault.NewSecret([]byte("test_token_" + rand.Text() + rand.Text()))
	return installed{token: token, environment: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GORACE=" + atOnce, "AGENTKEY_DATABASE=" + database,
		"AGENTKEY_ENCRYPTION_KEY=" + key, "AGENTKEY_BOOTSTRAP_TOKEN=" + string(token.Bytes()), "AGENTKEY_LOG_LEVEL=warn",
		"AGENTKEY_LIMIT_PREAUTH=off", "AGENTKEY_LIMIT_READ=off", "AGENTKEY_LIMIT_CREDENTIAL=off",
		"AGENTKEY_LIMIT_REQUEST=off", "AGENTKEY_LIMIT_ADMIN=off", "AGENTKEY_LIMIT_ADMIN_READ=off",
	}}
}

// onSQLite is an installation in a new file.
func onSQLite(t *testing.T) installed {
	t.Helper()
	return newInstallation(t, "sqlite:"+filepath.Join(t.TempDir(), "agentkey.db"))
}

// process is a server as a process of its own.
type process struct {
	cmd      *exec.Cmd
	address  string
	log      *output
	finished chan struct{}
}

// output takes what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// freeAddress is a loopback address on which nobody listens. Its port is below
// those that connections are given, so that none takes it meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	var tried error
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(20_000))
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.FormatInt(10_000+n.Int64(), 10)))
		if err != nil {
			tried = err
			continue
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}
	t.Fatal(tried)
	return ""
}

// launch starts the binary on the address, without waiting for anything. The
// process ends with the test.
func (in installed) launch(t *testing.T, binary, address string, flags ...string) *process {
	t.Helper()
	p := &process{address: address, log: new(output), finished: make(chan struct{})}
	p.cmd = exec.Command(binary, append([]string{"serve", "--listen", address}, flags...)...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = in.environment, p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.finished)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("server at %s:\n%s", address, tail(p.log.String()))
		}
	})
	return p
}

func tail(log string) string {
	const most = 3000
	if len(log) > most {
		return "…" + log[len(log)-most:]
	}
	return log
}

// start starts a server on the address and answers how long it took to be ready.
func (in installed) start(t *testing.T, binary, address string) (*process, time.Duration) {
	t.Helper()
	began := time.Now()
	p := in.launch(t, binary, address)
	p.await(t)
	return p, time.Since(began)
}

// url is where the server is reached.
func (p *process) url() string { return "http://" + p.address }

// readyWait is how long the tests wait for a server in the end.
const readyWait = 30 * time.Second

// await waits until the server is ready.
func (p *process) await(t *testing.T) {
	t.Helper()
	until(t, readyWait, "the server is ready", func() bool {
		select {
		case <-p.finished:
			t.Fatalf("the server ended by itself:\n%s", tail(p.log.String()))
		default:
		}
		return status(p.url()+"/readyz") == http.StatusOK
	})
}

// kill ends the process as a power cut would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.finished
}

// freeze stops the process in whatever it does; thaw lets it go on.
func (p *process) freeze() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) thaw() error   { return p.cmd.Process.Signal(syscall.SIGCONT) }

// probe asks without reusing connections, and without waiting for long.
var probe = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// status is what a GET is answered with, 0 if with nothing.
func status(url string) int {
	res, err := probe.Get(url)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

// until waits for a condition, which it looks at again and again.
func until(t *testing.T, most time.Duration, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v in vain until %s", most, what)
		}
	}
}

// pause lets time pass, or ends with ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// percentile of times that are sorted.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// nameOf makes a name of its own for a record.
func nameOf(kind string) string { return kind + " " + strings.ToLower(rand.Text()) }
