package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/load"
)

// benchServerCommand is what the bench runs in processes of their own. It serves
// until its standard input ends, so that it never outlives the bench.
type benchServerCommand struct {
	serveFlags
	Bare     bool `help:"Answer every request as standard input says, by net/http alone."`
	NoReplay bool `help:"Never replay the log."`
}

// Run serves.
func (c *benchServerCommand) Run(ctx context.Context, s *session, set *settings) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	in := json.NewDecoder(s.stdin)
	var a benchAnswer
	if c.Bare {
		if err := in.Decode(&a); err != nil {
			return fmt.Errorf("read what to answer: %w", err)
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, s.stdin)
		end()
	}()
	if c.Bare {
		return a.serve(ctx, s)
	}
	if c.NoReplay {
		c.replayEvery = -1
	}
	return (&serveCommand{c.serveFlags}).Run(ctx, s, set)
}

// benchAnswer is what a server answered once.
type benchAnswer struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// serve answers so until ctx ends.
func (a benchAnswer) serve(ctx context.Context, s *session) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), a.Header)
		_, _ = w.Write(a.Body)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := s.say("%shttp://%s", listening, l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// listening is what a server prints before its URL.
const listening = "listening on    "

// install makes a database and starts a server on it.
func (b *bench) install(ctx context.Context, size benchSize) (*benchServer, error) {
	made, err := b.make(ctx, size)
	if err != nil {
		return nil, err
	}
	env := map[string]string{
		"AGENTKEY_DATABASE": "sqlite:" + made.at.path, "AGENTKEY_LISTEN": "127.0.0.1:0", "AGENTKEY_LOG_LEVEL": "warn", envEncryptionKey: made.key,
	}
	if !made.at.sqlite() {
		env["AGENTKEY_DATABASE"], env["AGENTKEY_DATABASE_SCHEMA"] = made.at.dsn, made.at.schema
	}
	for tier := range unlimited() {
		env["AGENTKEY_LIMIT_"+strings.ToUpper(strings.ReplaceAll(string(tier), "-", "_"))] = "off"
	}
	var args []string
	if !b.command.Replay {
		args = append(args, "--no-replay")
	}
	t, err := b.start(ctx, env, nil, args...)
	if err != nil {
		return nil, fmt.Errorf("start the server of %s: %w", size.name, err)
	}
	t.Requests = made.requests
	return &benchServer{name: size.name, target: t, made: made}, nil
}

// startBare starts a server that answers what another answered once.
func (b *bench) startBare(ctx context.Context, like *benchServer) (*benchServer, error) {
	a, err := answerOf(ctx, like.target)
	if err != nil {
		return nil, fmt.Errorf("fetch one credential: %w", err)
	}
	input, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	t, err := b.start(ctx, nil, input, "--bare")
	if err != nil {
		return nil, fmt.Errorf("start the bare server: %w", err)
	}
	t.Requests = like.target.Requests
	return &benchServer{name: bare, target: t}, nil
}

// answerOf sends one of a server's requests and gives what it answers.
func answerOf(ctx context.Context, t load.Target) (a benchAnswer, err error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(t.Requests[0])))
	if err != nil {
		return a, err
	}
	r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", t.Address
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r.WithContext(ctx))
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	a.Header = res.Header
	for _, name := range []string{"Date", "Content-Length", "Connection"} {
		a.Header.Del(name)
	}
	if a.Body, err = io.ReadAll(res.Body); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answered %s", res.Status)
	}
	return a, err
}

// benchStop is how long a server may take to end.
const benchStop = 15 * time.Second

// start runs this program again, as a server, and waits until it listens. input
// is what its standard input begins with.
func (b *bench) start(ctx context.Context, env map[string]string, input []byte, args ...string) (t load.Target, err error) {
	program, err := os.Executable()
	if err != nil {
		return t, err
	}
	cmd := exec.Command(program)
	cmd.Args = append([]string{"agentkey", "bench-server"}, args...)
	cmd.Env = b.environment(env)
	cmd.Stderr = b.session.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return t, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return t, err
	}
	if err := cmd.Start(); err != nil {
		return t, err
	}
	b.later(func() error {
		err := stdin.Close()
		kill := time.AfterFunc(benchStop, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if e := cmd.Wait(); e != nil && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("a server of the bench: %w", e))
		}
		return err
	})
	if _, err := stdin.Write(append(input, '\n')); err != nil {
		return t, fmt.Errorf("it ended at once: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = stdin.Close() })()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if url, found := strings.CutPrefix(lines.Text(), listening); found {
			t.Address, t.Process = strings.TrimPrefix(url, "http://"), cmd.Process.Pid
			return t, nil
		}
	}
	return t, errors.Join(ctx.Err(), errors.New("it ended before it listened"))
}

// environment is the bench's own without its settings, and with those of a
// server.
func (b *bench) environment(env map[string]string) []string {
	// No file of settings and no key of another installation is found there.
	all := []string{"XDG_CONFIG_HOME=" + b.dir, "XDG_STATE_HOME=" + b.dir}
	for name, value := range b.session.env {
		if !strings.HasPrefix(name, "AGENTKEY_") && !strings.HasPrefix(name, "XDG_") {
			all = append(all, name+"="+value)
		}
	}
	for name, value := range env {
		all = append(all, name+"="+value)
	}
	return all
}
