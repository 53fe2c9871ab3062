package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(cleaning{m}, map[string]func(){"agentkey": main, "agentkey-skewed": skewed, "agentkey-sealing": sealing, "agentkey-bare": bare, "curl": curl, "sqlite3": sqlite3})
}

// TestScripts runs the scripts in testdata, each in a directory of its own with
// the program's directories below it.
func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata", nil)
}

// TestPostgresScripts runs those of testdata/postgres, each on a database of its
// own.
func TestPostgresScripts(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	runScripts(t, "testdata/postgres", func(e *testscript.Env) error {
		database, err := createDatabase(dsn)
		e.Setenv("AGENTKEY_DATABASE", database)
		return err
	})
}

// createDatabase makes a new database beside that of dsn. It goes when the
// cluster of the tests goes.
func createDatabase(dsn string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return "", err
	}
	name := "agentkey_cli_" + strings.ToLower(rand.Text())
	_, err = db.Exec("create database " + name)
	u.Path = "/" + name
	return u.String(), errors.Join(err, db.Close())
}

func runScripts(t *testing.T, dir string, setup func(*testscript.Env) error) {
	running := &servers{byScript: map[string]*server{}}
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("GORACE", atOnce)
			if setup == nil {
				return nil
			}
			return setup(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": running.serve, "shutdown": running.shutdown, "capture": capture, "mode": mode, "nowhere": nowhere, "empty": empty, "certificate": certificate,
			"lines": lines, "append": appendTo, "write": write, "sqlite": sqlite, "assign": assign,
		},
	})
}

// servers are those that the scripts have running, one each.
type servers struct {
	mu       sync.Mutex
	byScript map[string]*server
}

func (r *servers) of(ts *testscript.TestScript) *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byScript[ts.Name()]
}

func (r *servers) set(ts *testscript.TestScript, s *server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byScript[ts.Name()] = s
}

type server struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	rest   chan string // what it printed after its first lines
}

// startLines is how many lines serve prints when it has started.
const startLines = 5

// serve starts the server with these flags on a free port, waits until it has
// printed its lines, and sets AGENTKEY_URL. Lines go to serve.out, the log to
// serve.log. `! serve` expects it to end by itself, with its exit status in
// AGENTKEY_STATUS.
func (r *servers) serve(ts *testscript.TestScript, neg bool, args []string) {
	path, err := exec.LookPath("agentkey")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "AGENTKEY_ENCRYPTION_KEY",
		"AGENTKEY_BOOTSTRAP_TOKEN", "AGENTKEY_DATABASE", "AGENTKEY_KEY_FILE", "AGENTKEY_LIMIT_CREDENTIAL", "AGENTKEY_CONFIG", "AGENTKEY_ANCHOR", "AGENTKEY_ANCHOR_REVOCATIONS", "GODEBUG"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	log, err := os.OpenFile(ts.MkAbs("serve.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	s := &server{cmd: cmd, rest: make(chan string, 1)}
	s.stdout, err = cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	r.set(ts, s)
	ts.Defer(func() {
		if cmd.ProcessState == nil { // a script that failed has not stopped it
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})

	in := bufio.NewReader(s.stdout)
	var out strings.Builder
	for range startLines {
		line, err := in.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			break
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs("serve.out"), []byte(out.String()), 0o600))
	go func() {
		b, _ := io.ReadAll(in)
		s.rest <- string(b)
	}()
	started := strings.Count(out.String(), "\n") == startLines
	if !started {
		<-s.rest
		_ = cmd.Wait()
		ts.Setenv("AGENTKEY_STATUS", fmt.Sprint(cmd.ProcessState.ExitCode()))
	}
	if started == neg {
		ts.Fatalf("serve: started is %v; its log:\n%s", started, ts.ReadFile("serve.log"))
	}
	if found := regexp.MustCompile(`listening on +(\S+)`).FindStringSubmatch(out.String()); found != nil {
		ts.Setenv("AGENTKEY_URL", found[1])
	}
}

// shutdown ends the server as an operator would, and wants it to end well without
// having printed anything more.
func (r *servers) shutdown(ts *testscript.TestScript, _ bool, _ []string) {
	s := r.of(ts)
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	rest := <-s.rest
	if err := s.cmd.Wait(); err != nil {
		ts.Fatalf("serve: %v; its log:\n%s", err, ts.ReadFile("serve.log"))
	}
	if rest != "" {
		ts.Fatalf("serve printed more than its %d lines: %q", startLines, rest)
	}
}

// capture NAME FILE PATTERN sets a variable to what the pattern's group matches.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(found) != 2 {
		ts.Fatalf("capture: no match for %s", args[2])
	}
	ts.Setenv(args[0], found[1])
}

// mode FILE... PERMISSIONS wants files and directories to have just these.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	want := args[len(args)-1]
	for _, name := range args[:len(args)-1] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != want {
			ts.Fatalf("%s has mode %s, want %s", name, got, want)
		}
	}
}

// nowhere TEXT PATH... wants no file below the paths to hold the text.
// `! nowhere` wants one that does, so that a script can show that it looks.
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	files, holding := 0, ""
	for _, root := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(root), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(args[0])) {
				holding = path
			}
			return err
		}))
	}
	if files == 0 {
		ts.Fatalf("nowhere: there is no file to look into")
	}
	if (holding != "") != neg {
		ts.Fatalf("nowhere: held by %q", holding)
	}
}

// empty DIRECTORY wants nothing in it.
func empty(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s holds %s", args[0], entries[0].Name())
	}
}

// lines FILE N wants a file of so many lines.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	if n := strings.Count(ts.ReadFile(args[0]), "\n"); fmt.Sprint(n) != args[1] {
		ts.Fatalf("%s has %d lines, want %s", args[0], n, args[1])
	}
}

// append FILE FROM adds what a file or stream holds to another file.
func appendTo(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = f.WriteString(ts.ReadFile(args[1]))
	ts.Check(err)
	ts.Check(f.Close())
}

// write FILE TEXT makes a file of a text that was captured.
func write(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]), 0o600))
}

// certificate makes cert.pem and key.pem for 127.0.0.1.
func certificate(ts *testscript.TestScript, _ bool, _ []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	der, err = x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// curl is as much of curl as the scripts need: -X, -H (once, or @FILE with it), -d; it
// prints the status, then the body.
func curl() {
	method := flag.String("X", http.MethodGet, "")
	header := flag.String("H", "", "")
	body := flag.String("d", "", "")
	flag.Parse()
	req, err := http.NewRequest(*method, flag.Arg(0), strings.NewReader(*body))
	if path, ok := strings.CutPrefix(*header, "@"); ok && err == nil {
		var text []byte
		text, err = os.ReadFile(path)
		*header = strings.TrimSpace(string(text))
	}
	if err == nil {
		name, value, _ := strings.Cut(*header, ": ")
		req.Header.Set(name, value)
		req.Header.Set("Content-Type", "application/json")
		err = request(req)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func request(req *http.Request) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	fmt.Println(res.Status)
	_, err = io.Copy(os.Stdout, res.Body)
	fmt.Println()
	return err
}
