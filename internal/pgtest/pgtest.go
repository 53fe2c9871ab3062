//go:build unix

package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTime = time.Minute
	database  = "postgres"
)

var errMissing = errors.New("no Postgres server is installed: install one (Debian: apt-get install postgresql; " +
	"macOS: brew install postgresql), or set " + Variable + " to the URL of a database")

// DSN returns the URL of a database for tests. Tests share it, and each keeps
// to a schema of its own. It skips the test where there is no Postgres, and
// fails it when CI is set.
func DSN(t testing.TB) string {
	t.Helper()
	if dsn := os.Getenv(Variable); dsn != "" {
		return dsn
	}
	dsn, err := cluster()
	switch {
	case errors.Is(err, errMissing) && os.Getenv("CI") == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return dsn
}

// cluster starts the cluster of this process, once.
var cluster = sync.OnceValues(func() (string, error) {
	bin, err := binaries()
	if err != nil {
		return "", err
	}
	account, err := unprivileged()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "agentkey-pg-")
	if err != nil {
		return "", err
	}
	if err := start(bin, dir, account); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	dsn := url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: url.Values{"host": {dir}, "user": {"postgres"}}.Encode()}
	return dsn.String(), nil
})

// binaries is the directory with initdb and postgres: on the PATH, or the
// newest where packages put them.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if dir := filepath.Dir(path); usable(dir) {
			return dir, nil
		}
	}
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"} {
		dirs, _ := filepath.Glob(pattern)
		found = append(found, slices.DeleteFunc(dirs, func(dir string) bool { return !usable(dir) })...)
	}
	if len(found) == 0 {
		return "", errMissing
	}
	return slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) }), nil
}

func usable(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// major is the number in the path of an installation.
func major(dir string) int {
	n, _ := strconv.Atoi(strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, dir))
	return n
}

// unprivileged is the account to run as, nil for this one: Postgres refuses to
// run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("pgtest: running as root, and there is no other account to run Postgres as")
}

func start(bin, dir string, account *syscall.Credential) error {
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "data")
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"),
		"--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	initdb.Dir, initdb.Env = dir, environment(dir)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return supervise(ctx, bin, dir, data, account)
}

func environment(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
}

// supervisor runs Postgres until its own standard input closes, which it does
// when the test process ends, and then removes everything. It ignores the
// signals that a terminal sends: they would end it before the tests.
const supervisor = `
trap '' INT TERM HUP
"$1/postgres" -D "$2" -k "$3" -c listen_addresses= -c unix_socket_permissions=0700 -c max_connections=200 \
	-c fsync=on -c logging_collector=off -c log_destination=stderr >"$3/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server" 2>/dev/null
cd / && rm -rf "$3"
`

func supervise(ctx context.Context, bin, dir, data string, account *syscall.Credential) error {
	reading, writing, err := os.Pipe()
	if err != nil {
		return err
	}
	shell := exec.Command("/bin/sh", "-c", supervisor, "pgtest", bin, data, dir)
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setpgid: true}
	shell.Stdin, shell.Dir, shell.Env = reading, dir, environment(dir)
	if err := shell.Start(); err != nil {
		return errors.Join(err, reading.Close(), writing.Close())
	}
	if err := reading.Close(); err != nil {
		return errors.Join(err, writing.Close())
	}
	gone := make(chan error, 1)
	go func() {
		gone <- shell.Wait()
		// The supervisor waits for this end of the pipe, which therefore stays
		// open as long as this process lives.
		runtime.KeepAlive(writing)
	}()
	return await(ctx, bin, dir, gone)
}

// await waits until the server answers.
func await(ctx context.Context, bin, dir string, gone <-chan error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ready := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-q", "-h", dir, "-U", "postgres")
		if ready.Run() == nil {
			return nil
		}
		select {
		case <-gone:
			return errors.New("pgtest: the server's supervisor ended")
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			return fmt.Errorf("pgtest: the server did not answer\n%s", log)
		case <-tick.C:
		}
	}
}
