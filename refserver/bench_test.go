package refserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// BenchmarkHTTP measures vends over HTTP from a whole server on a loopback
// address, on each storage, with 1, 16 and 64 clients that keep their
// connections. The server "bare" is a handler of net/http that answers the same
// headers and body and does nothing else: what the network and net/http cost.
func BenchmarkHTTP(b *testing.B) {
	servers := []struct {
		name  string
		start func(b *testing.B) *http.Request
	}{
		{"bare", startBare},
		{"memory", func(b *testing.B) *http.Request { return startServer(b, memstore.New()) }},
		{"sqlite", func(b *testing.B) *http.Request { return startServer(b, dbtest.SQLite(b)(b)) }},
		{"postgres", func(b *testing.B) *http.Request { return startServer(b, dbtest.Postgres(b)(b)) }},
	}
	for _, s := range servers {
		for _, clients := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("server=%s/clients=%d", s.name, clients), func(b *testing.B) {
				fetch(b, clients, s.start(b))
			})
		}
	}
}

// startServer serves a tool's credential from a store, and gives the request
// that fetches it.
func startServer(b *testing.B, store storage.Store) *http.Request {
	k := agentkeytest.New(b, func(c *agentkey.Config) {
		c.Storage = store
		c.Clock = time.Now // a Postgres compares it with its own
	})
	issued, err := k.RegisterAgent(b.Context(), k.Owner, agentkey.RegisterAgentInput{Name: "bot"})
	if err != nil {
		b.Fatal(err)
	}
	tool := k.Tool("Linear", "lin_api_test_bench")
	k.Allow(issued.Agent, tool)
	s, err := refserver.New(k.Manager, refserver.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	serve(b, s)
	r := get(b, s.URL()+"/api/tools/"+tool.ID+"/credentials")
	r.Header.Set("Authorization", "Bearer "+string(issued.Secret.Bytes()))
	return r
}

// serve runs a server until the benchmark ends.
func serve(b *testing.B, s *refserver.Server) {
	b.Helper()
	if err := s.Listen(); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
}

// startBare serves what a server answered once.
func startBare(b *testing.B) *http.Request {
	r := startServer(b, memstore.New())
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.Fatal("the server does not vend: ", err, res.Status)
	}
	_ = res.Body.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bare := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		_, _ = w.Write(body)
	})}
	go func() { _ = bare.Serve(l) }()
	b.Cleanup(func() { _ = bare.Close() })
	same := get(b, "http://"+l.Addr().String()+r.URL.Path)
	same.Header = r.Header
	return same
}

func get(b *testing.B, url string) *http.Request {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// fetch sends the request b.N times, from so many clients, after as many times
// as make every connection and prepare every statement.
func fetch(b *testing.B, clients int, r *http.Request) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	b.Cleanup(transport.CloseIdleConnections)
	spread(b, 2*clients, clients, transport, r)
	b.ReportAllocs()
	b.ResetTimer()
	spread(b, b.N, clients, transport, r)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

func spread(b *testing.B, n, clients int, transport http.RoundTripper, r *http.Request) {
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for begun.Add(1) <= int64(n) {
				if err := send(transport, r.Clone(r.Context())); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func send(transport http.RoundTripper, r *http.Request) error {
	res, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", res.StatusCode)
	}
	return errors.Join(err, res.Body.Close())
}
