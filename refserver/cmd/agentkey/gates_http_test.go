package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// answerFile names, to the command agentkey-bare, the file with the answer that it
// gives: headers, an empty line, the body.
const answerFile = "AGENTKEY_TEST_ANSWER"

// bare is the command agentkey-bare: a handler of net/http that gives one answer
// and does nothing else, in a process of its own as the servers are.
func bare() {
	text, err := os.ReadFile(os.Getenv(answerFile))
	head, body, found := strings.Cut(string(text), "\n\n")
	if err != nil || !found {
		fmt.Fprintln(os.Stderr, "no answer")
		os.Exit(1)
	}
	header := http.Header{}
	for line := range strings.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		header.Add(name, value)
	}
	server := &http.Server{Addr: os.Args[3], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, body)
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

// served is a server and the request that it is asked over and over.
type served struct {
	processes []*process
	requests  []*http.Request // one for each process
	transport *http.Transport
	next      atomic.Int64
}

func (s *served) send() error {
	r := s.requests[int(s.next.Add(1))%len(s.requests)]
	res, err := s.transport.RoundTrip(r.Clone(r.Context()))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

func (s *served) worked() (all time.Duration) {
	for _, p := range s.processes {
		all += p.worked()
	}
	return all
}

// vendors starts servers on one installation and has an agent that may vend.
func vendors(t *testing.T, in installed, n int) *served {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	t.Cleanup(s.transport.CloseIdleConnections)
	for range n {
		p, _ := in.start(t, binary, freeAddress(t))
		s.processes = append(s.processes, p)
	}
	admin, err := client.NewAdmin(s.processes[0].url(), in.token, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tool, err := admin.AddTool(t.Context(), client.NewTool{Name: "Linear", AuthType: "api_key", Mode: string(storage.Shared)}, vault.NewSecret([]byte("lin_api_test_gates")))
	if err != nil {
		t.Fatal(err)
	}
	issued, err := admin.RegisterAgent(t.Context(), client.NewAgentRecord{Name: "bot"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Assign(t.Context(), issued.Agent, tool.ID, client.Decision{}, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.processes {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url()+"/api/tools/"+tool.ID+"/credentials", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+string(issued.Secret.Bytes()))
		s.requests = append(s.requests, r)
	}
	return s
}

// bareOf serves what a server answered once.
func bareOf(t *testing.T, s *served) *served {
	t.Helper()
	res, err := s.transport.RoundTrip(s.requests[0].Clone(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal("the server does not vend: ", err, res.Status)
	}
	_ = res.Body.Close()
	var text strings.Builder
	for name, values := range res.Header {
		fmt.Fprintf(&text, "%s: %s\n", name, values[0])
	}
	path := t.TempDir() + "/answer"
	if err := os.WriteFile(path, []byte(text.String()+"\n"+string(body)), 0o600); err != nil {
		t.Fatal(err)
	}
	in := installed{environment: []string{answerFile + "=" + path}}
	p := in.launch(t, testBinary(t, "agentkey-bare"), freeAddress(t))
	until(t, readyWait, "the bare server is ready", func() bool {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	r := s.requests[0].Clone(t.Context())
	r.URL.Host, r.Host = p.address, p.address
	b := &served{processes: []*process{p}, requests: []*http.Request{r}, transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	t.Cleanup(b.transport.CloseIdleConnections)
	return b
}

// overHTTP are vends over HTTP at 64 connections to each server, all in processes of
// their own; what they hold when idle and at 256 connections is measured once.
func overHTTP(t *testing.T, g *gates) (subjects []subject) {
	postgres, err := createDatabase(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	shared := newInstallation(t, postgres)
	both := vendors(t, shared, 2)
	alone := &served{processes: both.processes[:1], requests: both.requests[:1], transport: both.transport}
	file := vendors(t, onSQLite(t), 1)
	time.Sleep(5 * time.Second) // they give back what starting took
	g.add("http sqlite, idle MiB", file.processes[0].resident())
	g.add("http postgres, idle MiB", alone.processes[0].resident())
	add := func(name string, s *served, connections int) {
		subjects = append(subjects, subject{"http " + name, func(g *gates) {
			before := s.worked()
			n, took := rate(t, connections, s.send)
			g.add("http "+name+", /s", n)
			g.add("http "+name+", CPU µs", float64((s.worked()-before).Microseconds())/float64(max(len(took), 1)))
			g.add("http "+name+", p50 ms", milliseconds(percentile(took, 50)))
			g.add("http "+name+", p99 ms", milliseconds(percentile(took, 99)))
		}})
	}
	add("bare", bareOf(t, file), 64)
	add("sqlite", file, 64)
	add("postgres", alone, 64)
	add("two on postgres", both, 128)
	add("two on postgres, 32 each", both, 64)
	for name, s := range map[string]*served{"sqlite": file, "postgres": alone} {
		subjects = append(subjects, subject{"http " + name + " at 256", func(g *gates) {
			_, _ = rate(t, 256, s.send)
			g.add("http "+name+", 256 MiB", s.processes[0].resident())
		}})
	}
	return subjects
}

// resident is the memory that the process holds, in MiB; 0 where that is not told.
func (p *process) resident() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(fields[0], 64)
	return kib / 1024
}
