//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// gatherer takes shipped lines, as they come.
type gatherer struct {
	mu   sync.Mutex
	seqs map[string][]int64 // by origin
	leaf map[string]map[int64]audit.Hash
	bad  string
	n    atomic.Int64
}

func (g *gatherer) take(line []byte) {
	origin, l, err := audit.ParseShipped(line)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil || audit.LeafHash(l.Content) != l.Leaf {
		g.bad = fmt.Sprintf("%v: %q", err, line)
		return
	}
	if g.seqs == nil {
		g.seqs, g.leaf = make(map[string][]int64), make(map[string]map[int64]audit.Hash)
	}
	if g.leaf[origin] == nil {
		g.leaf[origin] = make(map[int64]audit.Hash)
	}
	g.seqs[origin] = append(g.seqs[origin], l.Seq)
	g.leaf[origin][l.Seq] = l.Leaf
	g.n.Add(1)
}

// reached says whether everything up to a size has come.
func (g *gatherer) reached(origin string, size int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(len(g.leaf[origin])) >= size
}

// maxAgain is how many lines may come again at a seam: one batch.
const maxAgain = 500

// check wants every line, in order, with what is signed, and lines twice only at
// seams: runs that begin at most a batch back, no more of them than there were kills.
func (g *gatherer) check(t *testing.T, what, origin string, leaves []audit.Hash, kills int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bad != "" {
		t.Fatalf("%s: not a shipped line: %s", what, g.bad)
	}
	twice := 0
	for from, seqs := range g.seqs {
		next, last, seams := int64(0), int64(-1), 0
		for _, seq := range seqs {
			switch {
			case seq > next:
				t.Fatalf("%s: event %d came where %d was next", what, seq, next)
			case seq != last+1: // goes back
				seams++
				if next-seq > maxAgain {
					t.Fatalf("%s: went back from %d to %d", what, next, seq)
				}
			}
			if seq < next {
				twice++
			}
			last, next = seq, max(next, seq+1)
		}
		if seams > kills {
			t.Errorf("%s: %d seams in a log, and %d kills", what, seams, kills)
		}
		if from == origin {
			for seq, leaf := range leaves {
				if g.leaf[origin][int64(seq)] != leaf {
					t.Fatalf("%s: event %d is not the one that is signed", what, seq)
				}
			}
		}
	}
	t.Logf("%s: %d lines of %d logs, %d of them twice", what, g.n.Load(), len(g.seqs), twice)
}

// collector is a receiver over HTTP that can be down.
func (g *gatherer) collector(t *testing.T, address, token string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		for line := range bytes.Lines(text) {
			g.take(bytes.TrimSuffix(line, []byte("\n")))
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// syslog is a receiver of RFC 5425.
func (g *gatherer) syslog(t *testing.T, address, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				for in := bufio.NewReader(conn); ; {
					length, err := in.ReadString(' ')
					n, wrong := strconv.Atoi(strings.TrimSuffix(length, " "))
					if err != nil || wrong != nil {
						return
					}
					message := make([]byte, n)
					if _, err := io.ReadFull(in, message); err != nil {
						return
					}
					if _, text, ok := bytes.Cut(message, []byte(" - {")); ok {
						g.take(append([]byte("{"), text...))
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
}

// make lets n things happen that are recorded.
func makeEvents(t *testing.T, admin *client.Admin, n int) {
	t.Helper()
	var all sync.WaitGroup
	var next, failed atomic.Int64
	for range 16 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := admin.RenameOrganization(t.Context(), nameOf("acme")); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if failed.Load() > 0 {
		t.Fatalf("%d of %d calls failed while a sink was down", failed.Load(), n)
	}
}

// Sinks are down while thousands of things happen and the server is killed, and
// it is killed once more while they catch up: all that happened comes, in order,
// and twice only where it was cut off. Nobody waited for them.
func TestSinksThatWereDown(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const token = "collector_token_test_0001"
	half := rounds(150, 5000)
	dir := t.TempDir()
	cert, key, file := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "audit.jsonl")
	issue(t, cert, key)
	collector, receiver := freeAddress(t), freeAddress(t)
	in := onSQLite(t)
	in.environment = append(in.environment, "AGENTKEY_AUDIT_HTTP_URL=http://"+collector+"/hook", "AGENTKEY_AUDIT_HTTP_TOKEN="+token,
		"AGENTKEY_AUDIT_SYSLOG="+receiver, "AGENTKEY_AUDIT_CA="+cert, "AGENTKEY_AUDIT_FILE="+file, "AGENTKEY_AUDIT_FILE_SIZE=1",
		"AGENTKEY_AUDIT_TIMEOUT=1s")
	binary, address := program(t), freeAddress(t)
	p, _ := in.start(t, binary, address)
	admin, err := client.NewAdmin(p.url(), in.token, client.Options{})
	is.NoErr(err)
	makeEvents(t, admin, half)
	p.kill()
	p, _ = in.start(t, binary, address)
	makeEvents(t, admin, half)
	status, err := admin.Shipping(t.Context())
	is.NoErr(err)
	for _, s := range status {
		if s.Name != "file" {
			is.True(s.Behind >= int64(2*half) && s.Shipped == 0)
		}
	}
	var overHTTP, overSyslog gatherer
	overHTTP.collector(t, collector, token)
	overSyslog.syslog(t, receiver, cert, key)
	until(t, 2*time.Minute, "the sinks catch up", func() bool { return overHTTP.n.Load() >= 100 && overSyslog.n.Load() >= 100 })
	p.kill()
	p, _ = in.start(t, binary, address)
	var caught []client.SinkStatus
	until(t, 4*time.Minute, "the sinks have everything", func() bool {
		caught, err = admin.Shipping(t.Context())
		return err == nil && len(caught) == 3 && !slices.ContainsFunc(caught, func(s client.SinkStatus) bool { return s.Behind > 0 })
	})
	origin, leaves := leavesOf(t, admin)
	is.True(len(leaves) > 2*half)
	leaves = leaves[:caught[0].Shipped]
	until(t, time.Minute, "the last batch has come", func() bool {
		return overHTTP.reached(origin, int64(len(leaves))) && overSyslog.reached(origin, int64(len(leaves)))
	})
	p.kill()
	overHTTP.check(t, "HTTP", origin, leaves, 2)
	overSyslog.check(t, "syslog", origin, leaves, 2)
	written(t, file).check(t, "file", origin, leaves, 3)
	is.True(!strings.Contains(p.log.String(), token) && !strings.Contains(p.log.String(), "/hook"))
}

// leavesOf are the leaf hashes as the server exports them.
func leavesOf(t *testing.T, admin *client.Admin) (origin string, leaves []audit.Hash) {
	t.Helper()
	var export bytes.Buffer
	if err := admin.Export(t.Context(), &export); err != nil {
		t.Fatal(err)
	}
	r, err := audit.NewExportReader(&export)
	if err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return r.Header().Origin, leaves
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Line != nil {
			leaves = append(leaves, entry.Line.Leaf)
		}
	}
}

// written is what stands in the files of a sink, in their order.
func written(t *testing.T, path string) *gatherer {
	t.Helper()
	aside, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(aside)
	g := new(gatherer)
	for _, name := range append(aside, path) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			g.take(bytes.TrimSuffix(line, []byte("\n")))
		}
	}
	return g
}
