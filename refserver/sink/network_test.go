package sink_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/sink"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// authority is a certificate for a name, and who trusts it.
func authority(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noErr(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: []string{name},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	noErr(t, err)
	cert, err := x509.ParseCertificate(der)
	noErr(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

// receiver is a receiver of syslog that reads, and may die while it does.
type receiver struct {
	l     net.Listener
	roots *x509.CertPool
	mu    sync.Mutex
	got   []string // messages, as they came
	die   int      // after so many bytes of a connection; 0: never
	stall bool     // it accepts, and says nothing
	done  chan struct{}
}

func newReceiver(t *testing.T, name string) *receiver {
	t.Helper()
	cert, roots := authority(t, name)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	noErr(t, err)
	r := &receiver{l: l, roots: roots, done: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.read(conn) })
		}
	})
	t.Cleanup(func() { close(r.done); _ = l.Close(); all.Wait() })
	return r
}

func (r *receiver) set(die int, stall bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.die, r.stall = die, stall
}

func (r *receiver) read(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r.mu.Lock()
	die, stall := r.die, r.stall
	r.mu.Unlock()
	if stall {
		<-r.done
		return
	}
	var from io.Reader = conn
	if die > 0 {
		from = io.LimitReader(conn, int64(die))
		defer func() { // gone without a word
			if raw, ok := conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
				_ = raw.SetLinger(0)
				_ = raw.Close()
			}
		}()
	}
	in := bufio.NewReader(from)
	for { // RFC 5425, section 4.3
		length, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		r.mu.Lock()
		r.got = append(r.got, string(message))
		r.mu.Unlock()
	}
}

// message is RFC 5424's SYSLOG-MSG without structured data.
var message = regexp.MustCompile(`^<(\d+)>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) - (.*)$`)

func (r *receiver) numbers(t *testing.T) []int64 {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var text bytes.Buffer
	for _, m := range r.got {
		parts := message.FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("no message of RFC 5424: %s", m)
		}
		text.WriteString(parts[7] + "\n")
	}
	return numbers(t, text.Bytes())
}

func (r *receiver) sink(t *testing.T, edit func(*sink.SyslogConfig)) *sink.Syslog {
	t.Helper()
	c := sink.SyslogConfig{Address: r.l.Addr().String(), Format: sink.JSONL, Roots: r.roots, Hostname: "node 1"}
	if edit != nil {
		edit(&c)
	}
	s, err := sink.NewSyslog(c)
	noErr(t, err)
	return s
}

func TestSyslog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := newReceiver(t, "127.0.0.1")
	s := r.sink(t, nil)
	is.NoErr(s.Ship(t.Context(), batch(t, 0, 5)))
	is.NoErr(s.Ship(t.Context(), batch(t, 5, 7)))
	is.Equal(r.numbers(t), sequence(0, 7)) // it has read everything when Ship returns
	first := message.FindStringSubmatch(r.got[0])
	is.Equal(first[1:7], []string{"110", "2026-01-01T12:00:00.000000Z", "node1", "agentkey", "-", "credential.vended"})
	is.Equal(message.FindStringSubmatch(r.got[1])[1], "108") // refused
}

// Whatever happens, what was not read whole is not taken for shipped.
func TestSyslogFaults(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := newReceiver(t, "127.0.0.1")
	s := r.sink(t, nil)
	b := batch(t, 0, 40)
	for _, at := range []int{1, 10, 700, 9000, 20_000} { // in the middle of a line, or of many
		r.set(at, false)
		is.True(s.Ship(t.Context(), b) != nil)
	}
	r.set(0, true)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	is.True(errors.Is(s.Ship(short, b), context.DeadlineExceeded))
	r.set(0, false)
	r.mu.Lock()
	r.got = nil
	r.mu.Unlock()
	is.NoErr(s.Ship(t.Context(), b))
	is.Equal(r.numbers(t), sequence(0, 40))
	_ = r.l.Close()
	err := s.Ship(t.Context(), b)
	is.True(err != nil && strings.Contains(err.Error(), "refused"))
}

func TestSyslogCertificates(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := newReceiver(t, "127.0.0.1")
	_, others := authority(t, "127.0.0.1")
	err := r.sink(t, func(c *sink.SyslogConfig) { c.Roots = others }).Ship(t.Context(), batch(t, 0, 1))
	is.True(err != nil && strings.Contains(err.Error(), "not trusted"))
	err = r.sink(t, func(c *sink.SyslogConfig) { c.Roots = nil }).Ship(t.Context(), batch(t, 0, 1))
	is.True(err != nil)
	wrong := newReceiver(t, "192.0.2.1")
	err = wrong.sink(t, nil).Ship(t.Context(), batch(t, 0, 1))
	is.True(err != nil && strings.Contains(err.Error(), "another name"))
	is.Equal(len(r.numbers(t))+len(wrong.numbers(t)), 0)
}

// No event is left out because it is long: it loses its personal part, then all
// but its number and leaf.
func TestSyslogMessageSize(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := newReceiver(t, "127.0.0.1")
	s := r.sink(t, func(c *sink.SyslogConfig) { c.MaxMessage = sink.MinMessage })
	long := event(t, 1, 3000)
	huge := event(t, 2, 10)
	huge.Content = bytes.Repeat([]byte("x"), 3000)
	is.NoErr(s.Ship(t.Context(), audit.Batch{Origin: origin, Lines: []audit.Line{event(t, 0, 10), long, huge}}))
	is.Equal(len(r.got), 3)
	for i, want := range []string{"both", "event", "neither"} {
		_, l, err := audit.ParseShipped([]byte(message.FindStringSubmatch(r.got[i])[7]))
		is.NoErr(err)
		is.True(len(r.got[i]) <= sink.MinMessage)
		is.Equal(map[string]bool{"both": len(l.Personal) > 0 && len(l.Content) > 0, "event": len(l.Personal) == 0 && len(l.Content) > 0, "neither": len(l.Personal)+len(l.Content) == 0}[want], true)
	}
	for _, c := range []sink.SyslogConfig{
		{}, {Address: "host", Format: sink.JSONL}, {Address: ":6514", Format: sink.JSONL}, {Address: "h:1", Format: "x"},
		{Address: "h:1", Format: sink.JSONL, MaxMessage: 100}, {Address: "h:1", Format: sink.JSONL, MaxMessage: 1 << 30},
	} {
		_, err := sink.NewSyslog(c)
		is.True(errors.Is(err, sink.ErrConfig))
	}
}

const (
	secretPath = "hook_test_0123456789"
	httpToken  = "siem_token_test_0001"
)

func newHTTP(t *testing.T, server *httptest.Server) *sink.HTTP {
	t.Helper()
	roots := x509.NewCertPool()
	if cert := server.Certificate(); cert != nil {
		roots.AddCert(cert)
	}
	s, err := sink.NewHTTP(sink.HTTPConfig{
		URL: vault.NewSecret([]byte(server.URL + "/" + secretPath)), Token: vault.NewSecret([]byte(httpToken)), Format: sink.JSONL, Roots: roots,
	})
	noErr(t, err)
	return s
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var mu sync.Mutex
	var keys []string
	var got bytes.Buffer
	answer := http.StatusAccepted
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		text, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer "+httpToken || r.URL.Path != "/"+secretPath || r.Method != "POST" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if answer/100 == 2 {
			got.Write(text)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answer)
	}))
	t.Cleanup(server.Close)
	s := newHTTP(t, server)
	b := batch(t, 3, 6)
	for _, status := range []int{500, 503, 302, 307, 400, 413} {
		answer = status
		err := s.Ship(t.Context(), b)
		is.True(err != nil)
		is.Equal(err.Error(), fmt.Sprint("sink: HTTP: answered ", status))
	}
	answer = 204
	is.NoErr(s.Ship(t.Context(), b))
	is.Equal(numbers(t, got.Bytes()), sequence(3, 6))
	is.Equal(len(keys), 7) // no redirect was followed
	for _, key := range keys {
		is.Equal(key, `"`+origin+`#3-5"`)
	}
}

// secretless fails where an error tells the URL, the host or the token.
func secretless(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, secret := range []string{secretPath, httpToken, "siem.example"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("an error holds a secret: %v", err)
		}
	}
}

func TestHTTPFaults(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	hang := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	t.Cleanup(server.Close)
	s := newHTTP(t, server)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.Ship(short, batch(t, 0, 1))
	is.True(errors.Is(err, context.DeadlineExceeded))
	secretless(t, err)
	close(hang)
	cut := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	secretless(t, newHTTP(t, cut).Ship(t.Context(), batch(t, 0, 1)))
	closed := newHTTP(t, cut)
	cut.Close()
	secretless(t, closed.Ship(t.Context(), batch(t, 0, 1)))
	for _, u := range []string{
		"https://169.254.169.254/" + secretPath, "https://[fe80::1]/" + secretPath, "https://224.0.0.1/x", "https://0.0.0.0/x",
		"https://[::ffff:169.254.169.254]/" + secretPath,
	} {
		s, err := sink.NewHTTP(sink.HTTPConfig{URL: vault.NewSecret([]byte(u)), Format: sink.JSONL})
		is.NoErr(err)
		err = s.Ship(t.Context(), batch(t, 0, 1))
		secretless(t, err)
		is.True(strings.Contains(err.Error(), "address is not allowed"))
	}
	for _, u := range []string{
		"", "ftp://siem.example/x", "http://siem.example/" + secretPath, "https://user:" + httpToken + "@siem.example/", "https:///x", "://" + secretPath, "http://10.0.0.1/x",
	} {
		_, err := sink.NewHTTP(sink.HTTPConfig{URL: vault.NewSecret([]byte(u)), Format: sink.JSONL})
		is.True(errors.Is(err, sink.ErrConfig))
		secretless(t, err)
	}
	_, err = sink.NewHTTP(sink.HTTPConfig{URL: vault.NewSecret([]byte("https://siem.example")), Token: vault.NewSecret([]byte("two words " + httpToken)), Format: sink.JSONL})
	secretless(t, err)
}

// Plain HTTP stays on this machine, whatever a name leads to.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(&got, r.Body) }))
	t.Cleanup(server.Close)
	noErr(t, newHTTP(t, server).Ship(t.Context(), batch(t, 0, 2)))
	is.New(t).Equal(numbers(t, got.Bytes()), sequence(0, 2))
}

// Whether a receiver is there can be asked without sending it anything.
func TestReach(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := newReceiver(t, "127.0.0.1")
	is.NoErr(r.sink(t, nil).Reach(t.Context()))
	_, others := authority(t, "127.0.0.1")
	err := r.sink(t, func(c *sink.SyslogConfig) { c.Roots = others }).Reach(t.Context())
	is.True(err != nil && strings.Contains(err.Error(), "not trusted"))
	is.Equal(len(r.numbers(t)), 0)
	_ = r.l.Close()
	is.True(r.sink(t, nil).Reach(t.Context()) != nil)

	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("something was sent") }))
	is.NoErr(newHTTP(t, server).Reach(t.Context()))
	away := newHTTP(t, server)
	server.Close()
	secretless(t, away.Reach(t.Context()))
}
