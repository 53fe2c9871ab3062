package refserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// certificate writes a key and a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	is := is.New(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	is.NoErr(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	is.NoErr(err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	is.NoErr(err)
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	is.NoErr(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	is.NoErr(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	pool = x509.NewCertPool()
	is.True(pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return cert, key, pool
}

func TestConfig(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	cert, key, _ := certificate(t)
	lan := []string{"10.0.0.0/8"}
	tests := []struct {
		name string
		c    refserver.Config
		says string // empty: it is good
	}{
		{"zero", refserver.Config{}, ""},
		{"loopback", refserver.Config{Listen: "127.0.0.1:0"}, ""},
		{"loopback in IPv6", refserver.Config{Listen: "[::1]:0"}, ""},
		{"another loopback address", refserver.Config{Listen: "127.8.8.8:0"}, ""},
		{"localhost", refserver.Config{Listen: "localhost:0"}, ""},
		{"everywhere", refserver.Config{Listen: ":8700"}, "TLS certificate"},
		{"everywhere by number", refserver.Config{Listen: "0.0.0.0:8700"}, "TLS certificate"},
		{"everywhere in IPv6", refserver.Config{Listen: "[::]:8700"}, "TLS certificate"},
		{"mapped", refserver.Config{Listen: "[::ffff:192.0.2.1]:8700"}, "TLS certificate"},
		{"an address", refserver.Config{Listen: "192.0.2.1:8700"}, "TLS certificate"},
		{"an address with TLS", refserver.Config{Listen: "192.0.2.1:8700", TLSCert: cert, TLSKey: key}, ""},
		{"an address behind a proxy", refserver.Config{Listen: ":8700", BehindTLSProxy: true, TrustedProxies: lan}, ""},
		{"behind nobody", refserver.Config{Listen: ":8700", BehindTLSProxy: true}, "TrustedProxies"},
		{"proxies alone are no TLS", refserver.Config{Listen: ":8700", TrustedProxies: lan}, "TLS certificate"},
		{"a single proxy", refserver.Config{TrustedProxies: []string{" 127.0.0.1 "}}, ""},
		{"no range", refserver.Config{TrustedProxies: []string{"10.0.0.0/8", "proxy.example"}}, "entry 2"},
		{"mapped range", refserver.Config{TrustedProxies: []string{"::ffff:10.0.0.0/104"}}, "IPv4"},
		{"no port", refserver.Config{Listen: "127.0.0.1"}, "HOST:PORT"},
		{"certificate alone", refserver.Config{TLSCert: cert}, "both"},
		{"key alone", refserver.Config{TLSKey: key}, "both"},
		{"swapped", refserver.Config{TLSCert: key, TLSKey: cert}, "TLS certificate and key"},
		{"missing file", refserver.Config{TLSCert: cert, TLSKey: key + "x"}, "TLS certificate and key"},
		{"TLS twice", refserver.Config{TLSCert: cert, TLSKey: key, BehindTLSProxy: true, TrustedProxies: lan}, "conflicts"},
		{"negative", refserver.Config{DrainTimeout: -1}, "DrainTimeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			_, err := refserver.New(f.Manager, tt.c)
			is.Equal(err == nil, tt.c.Validate() == nil)
			if tt.says == "" {
				is.NoErr(err)
				return
			}
			is.True(err != nil && strings.Contains(err.Error(), tt.says))
			is.Equal(errors.Is(err, refserver.ErrPlainHTTP), tt.says == "TLS certificate")
		})
	}
	_, err := refserver.New(nil, refserver.Config{})
	is.New(t).True(err != nil)
}

// run runs the server until stop is called, which gives what Run returned.
func run(t *testing.T, s *refserver.Server) (url string, stop func() error) {
	t.Helper()
	is := is.New(t)
	is.NoErr(s.Listen())
	is.NoErr(s.Listen()) // again is nothing
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return s.URL(), stop
}

func TestRunServesAndEnds(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Config: refserver.Config{Listen: "127.0.0.1:0"}})
	is.Equal(f.Server.URL(), "")
	is.True(f.Server.Addr() == nil)
	url, stop := run(t, f.Server)
	is.True(strings.HasPrefix(url, "http://127.0.0.1:"))
	is.True(!strings.HasSuffix(url, ":0")) // the port that it got
	res, err := http.Get(url + "/readyz")
	is.NoErr(err)
	body, err := io.ReadAll(res.Body)
	is.NoErr(err)
	is.NoErr(res.Body.Close())
	is.Equal(string(body), `{"status":"ok"}`)
	is.NoErr(stop())
	_, err = http.Get(url + "/livez")
	is.True(err != nil) // nobody listens any more
}

func TestRunOverTLS(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	cert, key, pool := certificate(t)
	f := servertest.New(t, servertest.Options{Config: refserver.Config{Listen: "127.0.0.1:0", TLSCert: cert, TLSKey: key}})
	url, stop := run(t, f.Server)
	is.True(strings.HasPrefix(url, "https://"))
	get := func(c *tls.Config) (*http.Response, error) {
		c.RootCAs = pool
		transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		return (&http.Client{Transport: transport}).Get(url + "/livez")
	}
	res, err := get(&tls.Config{})
	is.NoErr(err)
	is.NoErr(res.Body.Close())
	is.Equal(res.ProtoMajor, 2)
	is.Equal(res.Header.Get("X-Frame-Options"), "DENY")
	_, err = get(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	is.True(err != nil) // below 1.2
	_, err = http.Get(strings.Replace(url, "https", "http", 1) + "/livez")
	is.NoErr(err) // net/http answers 400 by itself
	is.NoErr(stop())
}

// TestDrain: a request that is being served when the server is told to end is
// answered.
func TestDrain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &gated{Store: memstore.New(), entered: make(chan struct{}), open: make(chan struct{})}
	f := servertest.New(t, servertest.Options{Store: store, Config: refserver.Config{Listen: "127.0.0.1:0"}})
	_, key := f.Agent("bot")
	url, stop := run(t, f.Server)
	store.closed.Store(true)
	answered := make(chan int, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodGet, url+"/api/me", nil)
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- 0
			return
		}
		_ = res.Body.Close()
		answered <- res.StatusCode
	}()
	<-store.entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for { // until nobody is let in any more
		c, err := net.Dial("tcp", f.Server.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(store.open)
	is.Equal(<-answered, 200)
	is.NoErr(<-ended)
}

// gated holds the first look-up of a key after it was closed, until it is opened.
type gated struct {
	storage.Store
	closed        atomic.Bool
	entered, open chan struct{}
}

func (g *gated) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	return g.Store.Organizations(ctx, after, limit)
}

func (g *gated) hold() {
	if g.closed.CompareAndSwap(true, false) {
		close(g.entered)
		<-g.open
	}
}

func (g *gated) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	g.hold()
	return g.Store.FindKey(ctx, digest)
}

// TestStorageFails: 503 in time, with when to come back and without why, and
// service resumes by itself.
func TestStorageFails(t *testing.T) {
	t.Parallel()
	store := &failing{Store: memstore.New()}
	f := servertest.New(t, servertest.Options{Store: store})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	for _, err := range []error{storage.ErrUnavailable, storage.ErrBusy, storage.ErrUnknown, errDriver} {
		store.err.Store(&err)
		for _, r := range []servertest.Request{
			{Method: "GET", Path: "/api/me", Token: key},
			{Method: "GET", Path: "/api/tools", Token: key},
			{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key},
			{Method: "POST", Path: "/api/tools/" + tool + "/request", Token: key, Body: `{"reason":"needed"}`},
			{Method: "GET", Path: "/api/admin/agents", Token: f.Owner},
			{Method: "DELETE", Path: "/api/admin/tools/" + tool, Token: f.Owner},
			{Method: "GET", Path: "/api/admin/audit/export", Token: f.Owner},
			{Method: "GET", Path: "/readyz"},
		} {
			is := is.New(t)
			res := f.Send(r)
			is.Equal(res.Status, http.StatusServiceUnavailable)
			is.Equal(res.Header.Get("Retry-After"), "2")
			is.True(!strings.Contains(res.Body, "postgres"))
			is.True(!strings.Contains(f.Log.String(), "hunter2"))
		}
		is := is.New(t)
		is.Equal(f.Do("GET", "/livez", "", "").Status, 200) // the process itself is well
		store.err.Store(nil)
		is.Equal(f.Do("GET", "/readyz", "", "").Status, 200)
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, 200)
	}
}

var errDriver = errors.New("postgres://agentkey:hunter2@db/agentkey: connection refused")

// failing fails whatever is asked while it has an error.
type failing struct {
	storage.Store
	err atomic.Pointer[error]
}

func (s *failing) fail() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *failing) Update(ctx context.Context, o string, fn func(context.Context, storage.Tx) error) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Store.Update(ctx, o, fn)
}

func (s *failing) View(ctx context.Context, o string, fn func(context.Context, storage.ReadTx) error) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Store.View(ctx, o, fn)
}

func (s *failing) FindRecord(ctx context.Context, kind, id string) ([]string, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Store.FindRecord(ctx, kind, id)
}

func (s *failing) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	if err := s.fail(); err != nil {
		return storage.Key{}, false, err
	}
	return s.Store.FindKey(ctx, digest)
}

func (s *failing) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Store.Organizations(ctx, after, limit)
}

func TestBehindProxy(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Config: refserver.Config{
		Listen: ":8700", BehindTLSProxy: true, TrustedProxies: []string{"10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1"},
	}})
	key := f.Must(201, "POST", "/api/admin/agents", f.Owner, `{"name":"bot","addresses":["198.51.100.7/32"]}`)["api_key"].(string)
	tests := []struct {
		name, peer string
		forwarded  []string
		status     int
	}{
		{"through the proxy", "10.1.2.3:4", []string{"198.51.100.7"}, 200},
		{"through the proxy in IPv6", "[2001:db8:1::1]:4", []string{"198.51.100.7"}, 200},
		{"with a port", "10.1.2.3:4", []string{"198.51.100.7:5555"}, 200},
		{"through two proxies", "10.1.2.3:4", []string{"203.0.113.1, 198.51.100.7, 10.9.9.9"}, 200},
		{"in two headers", "10.1.2.3:4", []string{"203.0.113.1", "198.51.100.7"}, 200},
		{"mapped", "10.1.2.3:4", []string{"::ffff:198.51.100.7"}, 200},
		{"another client", "10.1.2.3:4", []string{"203.0.113.1"}, 401},
		{"claims to be it", "10.1.2.3:4", []string{"198.51.100.7, 203.0.113.1"}, 401},
		{"garbage in front", "10.1.2.3:4", []string{"198.51.100.7, unknown"}, 401},
		{"no header", "10.1.2.3:4", nil, 401},
		{"past the proxy", "198.51.100.7:4", nil, 403},
		{"past the proxy with a header", "203.0.113.1:4", []string{"198.51.100.7"}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			res := f.Send(servertest.Request{Method: "GET", Path: "/api/me", Token: key, Peer: tt.peer, Header: http.Header{"X-Forwarded-For": tt.forwarded}})
			is.Equal(res.Status, tt.status)
			is.Equal(res.Header.Get("X-Frame-Options"), "DENY")
		})
	}
	is.New(t).Equal(f.Send(servertest.Request{Method: "GET", Path: "/livez", Peer: "203.0.113.1:4"}).Status, 200) // a health check needs no key
}
