//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// normalTime is the p99 of a normal client while slow ones hold connections.
const normalTime = 250 * time.Millisecond

// Many clients that send a byte now and then, of headers or of a body, keep
// nobody else from being served, and are cut off in the end.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	in := onSQLite(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, p.url())
	w := l.worker[0]
	_, err := l.admin.Assign(t.Context(), w.id, l.tool, client.Decision{}, nil)
	is.NoErr(err)

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var s slowClients
	body := fmt.Sprintf("POST /api/tools/%s/request HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n", l.tool, p.address, w.key.Bytes())
	header := "GET /livez HTTP/1.1\r\nHost: " + p.address + "\r\nX-Slow: "
	many := rounds(200, 1000)
	for i := range many {
		begin := header
		if i%2 == 0 {
			begin = body
		}
		clients.Go(func() { s.run(ctx, p.address, begin) })
	}
	defer clients.Wait()
	defer cancel()
	until(t, time.Minute, "all slow clients are connected", func() bool { return s.open.Load() >= int64(many)*9/10 })

	var took []time.Duration
	for range rounds(50, 2000) {
		began := time.Now()
		is.NoErr(w.vend(t.Context()))
		took = append(took, time.Since(began))
		pause(t.Context(), 5*time.Millisecond)
	}
	t.Logf("%d slow clients, %d connected", many, s.open.Load())
	is.True(s.open.Load() > 0)
	until(t, time.Minute, "slow clients are cut off", func() bool { return s.ended.Load() > 0 })
	spreadP99(t, "a vend beside slow clients", took, within(normalTime))
	cancel()
	clients.Wait()
	is.Equal(status(p.url()+"/readyz"), http.StatusOK)
	l.check(t)
}

// spreadP99 is spread for what may take longer once in a hundred times.
func spreadP99(t *testing.T, what string, times []time.Duration, allowed time.Duration) {
	t.Helper()
	spread(t, what, times, patient)
	if p99 := percentile(times, 99); p99 > allowed {
		t.Errorf("%s: p99 is %v, and may be %v", what, p99, allowed)
	}
}

// slowClients counts what becomes of them.
type slowClients struct {
	open  atomic.Int64 // connected
	ended atomic.Int64 // cut off by the server
}

// run connects, sends the beginning of a request and then a byte each second,
// and connects again when it is cut off.
func (s *slowClients) run(ctx context.Context, address, begin string) {
	for ctx.Err() == nil {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			pause(ctx, 100*time.Millisecond)
			continue
		}
		s.open.Add(1)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = io.Copy(io.Discard, c)
		}()
		_, err = io.WriteString(c, begin)
		for tick := time.NewTicker(time.Second); err == nil && ctx.Err() == nil; {
			select {
			case <-tick.C:
				_, err = io.WriteString(c, " ")
			case <-gone:
				err = io.EOF
				s.ended.Add(1)
			case <-ctx.Done():
			}
		}
		_ = c.Close()
		<-gone
		s.open.Add(-1)
	}
}

// Slow clients are cut off when their time is over: headers after five seconds,
// bodies after fifteen.
func TestSlowRequestsEnd(t *testing.T) {
	t.Parallel()
	if !proving() {
		t.Skip("takes fifteen seconds; runs in the long forms")
	}
	in := onSQLite(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, p.url())
	key := string(l.worker[0].key.Bytes())
	for begin, most := range map[string]time.Duration{
		"": 5 * time.Second,
		"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ": 5 * time.Second,
		"POST /api/tools/" + l.tool + "/request HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer " + key +
			"\r\nContent-Length: 100\r\n\r\n{": 15 * time.Second,
	} {
		is := is.New(t)
		c, err := net.Dial("tcp", p.address)
		is.NoErr(err)
		_, err = io.WriteString(c, begin)
		is.NoErr(err)
		began := time.Now()
		is.NoErr(c.SetReadDeadline(began.Add(time.Minute)))
		_, err = io.Copy(io.Discard, c)
		is.True(!errors.Is(err, os.ErrDeadlineExceeded))
		is.True(time.Since(began) < most+2*time.Second)
		is.NoErr(c.Close())
	}
}

// What is longer than it may be is refused before it is read.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	in := onSQLite(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, p.url())
	authorization := "Authorization: Bearer " + string(l.worker[0].key.Bytes()) + "\r\n"
	post := "POST /api/tools/" + l.tool + "/request HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + authorization
	tests := []struct {
		name, request string
		status        int
	}{
		{"headers that fit", "GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("a", 8<<10) + "\r\n\r\n", http.StatusOK},
		{"long headers", "GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"many headers", "GET /livez HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Many: 1\r\n", 4000) + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"a long path", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"a long body, announced", post + "Content-Length: 1000000000\r\n\r\n{", http.StatusRequestEntityTooLarge},
		{"a long body in chunks", post + "Transfer-Encoding: chunked\r\n\r\n100000\r\n" + strings.Repeat(" ", 0x100000) + "\r\n", http.StatusRequestEntityTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			c, err := net.Dial("tcp", p.address)
			is.NoErr(err)
			defer func() { _ = c.Close() }()
			is.NoErr(c.SetDeadline(time.Now().Add(patient)))
			go func() { _, _ = io.WriteString(c, tt.request) }() // the server may not read all of it
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			is.NoErr(err)
			defer func() { _ = res.Body.Close() }()
			is.Equal(res.StatusCode, tt.status)
		})
	}
}

// The program speaks TLS 1.2 at least and HTTP/2, and takes a renewed certificate
// without a restart.
func TestTLSRenewed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := issue(t, cert, key)
	in := onSQLite(t)
	p := in.launch(t, program(t), freeAddress(t), "--tls-cert", cert, "--tls-key", key)
	get := func(c *tls.Config) (protocol int, err error) {
		transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport, Timeout: patient}).Get("https://" + p.address + "/readyz")
		if err != nil {
			return 0, err
		}
		return res.ProtoMajor, res.Body.Close()
	}
	until(t, readyWait, "the server answers", func() bool {
		_, err := get(&tls.Config{RootCAs: first})
		return err == nil
	})
	for version, accepted := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		protocol, err := get(&tls.Config{RootCAs: first, MinVersion: version, MaxVersion: version})
		is.Equal(err == nil, accepted)
		is.Equal(protocol == 2, accepted)
	}
	second := issue(t, cert, key)
	_, err := get(&tls.Config{RootCAs: second})
	is.NoErr(err)
	_, err = get(&tls.Config{RootCAs: first})
	var unknown x509.UnknownAuthorityError
	is.True(errors.As(err, &unknown))
	is.True(strings.Contains(p.log.String(), "administrator")) // it never restarted: these lines come once
	is.Equal(strings.Count(p.log.String(), "listening on"), 1)
}

// issue writes a new certificate for 127.0.0.1 over the one that is there.
func issue(t *testing.T, cert, key string) *x509.CertPool {
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
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	is.NoErr(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	is.NoErr(os.WriteFile(cert, text, 0o600))
	pool := x509.NewCertPool()
	is.True(pool.AppendCertsFromPEM(text))
	return pool
}

// Behind a proxy that ends TLS, the program believes the proxy's headers, and
// nobody else's. The proxy here is an address of loopback.
func TestBehindTLSProxy(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	in := onSQLite(t)
	p := in.launch(t, program(t), freeAddress(t), "--behind-tls-proxy", "--trusted-proxy", "127.0.0.2/32")
	p.await(t)
	admin, err := client.NewAdmin(p.url(), in.token, client.Options{})
	is.NoErr(err)
	issued, err := admin.RegisterAgent(t.Context(), client.NewAgentRecord{Name: "bot", Addresses: []string{"198.51.100.7/32"}})
	is.NoErr(err)
	defer issued.Secret.Destroy()
	me := func(peer, forwarded string) int {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(peer)}}
		transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
		req, err := http.NewRequest(http.MethodGet, p.url()+"/api/me", nil)
		is.NoErr(err)
		req.Header.Set("Authorization", "Bearer "+string(issued.Secret.Bytes()))
		req.Header.Set("X-Forwarded-For", forwarded)
		res, err := (&http.Client{Transport: transport, Timeout: patient}).Do(req)
		is.NoErr(err)
		is.NoErr(res.Body.Close())
		return res.StatusCode
	}
	is.Equal(me("127.0.0.2", "198.51.100.7"), http.StatusOK)
	is.Equal(me("127.0.0.2", "203.0.113.1"), http.StatusUnauthorized)
	is.Equal(me("127.0.0.3", "198.51.100.7"), http.StatusUnauthorized) // no proxy of ours: its own address counts
}
