//go:build unix

package main

import (
	"bufio"
	"database/sql"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
)

// cluster is a Postgres of one test's own, which may be stopped and started. It
// uses the binaries and the account of the cluster that all tests share.
type cluster struct {
	bin, dir string
	account  *syscall.Credential
	held     io.WriteCloser // the guardian's standard input
	gone     chan struct{}  // closed when the guardian has ended
	postgres int

	databases int      // made on disks of their own
	preload   string   // a library, or none
	settings  []string // NAME=VALUE, of Postgres
	port      string   // if not the usual one
}

// newCluster makes a cluster and starts it; it goes with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := installedPostgres(t)
	c.begin(t, c.ownDir(t))
	return c
}

// ownDir is a new directory of its account's; it goes with the test.
func (c *cluster) ownDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agentkey-stop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if c.account != nil {
		if err := os.Chown(dir, int(c.account.Uid), int(c.account.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// installedPostgres is a cluster that has not begun: it knows the binaries and
// the account.
func installedPostgres(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	shared := pgtest.DSN(t)
	db, err := sql.Open("pgx", shared)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow(`SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&c.bin); err != nil {
		t.Fatal(err)
	}
	socket := socketOf(shared)
	info, err := os.Stat(filepath.Dir(socket))
	if socket == "" || err != nil {
		t.Skip("the Postgres of the tests is not of this machine: nothing to stop and start")
	}
	if os.Getuid() == 0 {
		owner := info.Sys().(*syscall.Stat_t)
		c.account = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}
	return c
}

// begin makes the cluster in a directory that belongs to its account, and starts
// it. It is stopped with the test.
func (c *cluster) begin(t *testing.T, dir string) {
	t.Helper()
	c.dir = dir
	initdb := c.command(filepath.Join(c.bin, "initdb"), "--pgdata", filepath.Join(c.dir, "data"), "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	c.start(t)
	t.Cleanup(func() { _ = c.stop(syscall.SIGQUIT) })
}

func (c *cluster) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = c.dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C", "TZ=UTC"}
	if c.preload != "" {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+c.preload, "REFUSE="+filepath.Join(c.dir, "refuse"))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Setpgid: true}
	return cmd
}

// guardian runs Postgres, says its number, and ends with it. When its standard
// input closes, which it does with the test, however that ends, it ends Postgres.
const guardian = `
trap '' INT TERM HUP
bin=$1 dir=$2
shift 2
"$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=100 -c min_wal_size=32MB -c max_wal_size=48MB -c logging_collector=off "$@" >>"$dir/log" 2>&1 </dev/null &
server=$!
echo $server
exec 3<&0
(cat <&3 >/dev/null; kill -QUIT $server) 2>/dev/null &
watching=$!
wait $server
kill -KILL $watching
`

// start starts Postgres and waits until it answers.
func (c *cluster) start(t *testing.T) {
	t.Helper()
	if err := c.run(); err != nil {
		t.Fatal(err)
	}
	until(t, readyWait, "Postgres answers", func() bool {
		return c.ready()
	})
}

func (c *cluster) ready() bool {
	args := []string{"-q", "-h", c.dir, "-U", "postgres"}
	if c.port != "" {
		args = append(args, "-p", c.port)
	}
	return c.command(filepath.Join(c.bin, "pg_isready"), args...).Run() == nil
}

func (c *cluster) run() error {
	args := []string{"-c", guardian, "cluster", c.bin, c.dir}
	for _, setting := range c.settings {
		args = append(args, "-c", setting)
	}
	shell := c.command("/bin/sh", args...)
	in, err := shell.StdinPipe()
	if err != nil {
		return err
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		return err
	}
	if err := shell.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	c.held, c.gone = in, make(chan struct{})
	go func(gone chan struct{}) { defer close(gone); _ = shell.Wait() }(c.gone)
	c.postgres, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// resume starts Postgres if it has ended by itself, as an operator's supervisor
// would, and waits until it answers.
func (c *cluster) resume(t *testing.T) {
	t.Helper()
	until(t, readyWait, "Postgres answers", func() bool {
		select {
		case <-c.gone:
			_ = c.held.Close()
			if err := c.run(); err != nil {
				t.Fatal(err)
			}
		default:
		}
		return c.ready()
	})
}

// stop ends Postgres with the signal, SIGQUIT for an immediate shutdown and SIGINT
// for a fast one, and waits until it is gone.
func (c *cluster) stop(how syscall.Signal) error {
	err := syscall.Kill(c.postgres, how)
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	<-c.gone
	_ = c.held.Close() // it may be closed already
	return err
}

// dsn names its database, through the socket.
func (c *cluster) dsn() string {
	u := url.URL{Scheme: "postgres", Path: "/postgres", RawQuery: url.Values{"host": {c.dir}, "user": {"postgres"}}.Encode()}
	return u.String()
}

// socketOf is the Unix socket that a DSN names, or empty.
func socketOf(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || !filepath.IsAbs(u.Query().Get("host")) {
		return ""
	}
	return filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
}
