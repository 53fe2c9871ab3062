package refserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/adminapi"
	"github.com/agentkey-dev/agentkey-go/refserver/agentapi"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// Bounds of a connection. An export sets its own time to write.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
)

// Server serves a Manager over HTTP. Make one with New. It is safe for
// concurrent use; Run is called once.
type Server struct {
	settings settings
	manager  *agentkey.Manager
	agents   http.Handler
	admins   http.Handler
	open     *exchange.Router // about the server itself, without authentication
	bypass   http.Handler
	document document
	lags     lags

	mu       sync.Mutex
	listener net.Listener
}

// New checks the configuration and reads the certificate; it opens no listener
// and starts nothing. The Manager stays the caller's, who closes it after Run.
// Its errors say what to change; ErrPlainHTTP is one of them.
func New(m *agentkey.Manager, c Config) (*Server, error) {
	if m == nil {
		return nil, errors.New("refserver: a Manager is required")
	}
	s, err := c.check()
	if err != nil {
		return nil, err
	}
	srv := &Server{
		settings: s, manager: m,
		agents: agentapi.New(m, agentapi.Options{Logger: s.Logger, Clock: s.Clock, TrustedProxies: s.proxies, Origins: s.Origins}),
		admins: adminapi.New(m, adminapi.Options{Logger: s.Logger, Clock: s.Clock, TrustedProxies: s.proxies, AnchorRevocations: s.AnchorRevocations, Resolve: s.Resolve}),
	}
	shared := exchange.Config{Logger: s.Logger, Clock: s.Clock, TrustedProxies: s.proxies}
	srv.bypass = exchange.Refusing(shared, errBypass)
	srv.document = newDocument()
	srv.open = exchange.NewRouter(shared)
	srv.open.Handle(http.MethodGet, "/livez", srv.live)
	srv.open.Handle(http.MethodGet, "/readyz", srv.ready)
	srv.open.Handle(http.MethodGet, "/metrics", srv.metrics)
	srv.open.Handle(http.MethodGet, "/openapi.json", srv.document.serve)
	srv.open.Handle(http.MethodGet, "/.well-known/security.txt", srv.securityText)
	srv.open.Handle(http.MethodPost, "/leaked-keys", srv.leaks)
	return srv, nil
}

// Routes are the routes of Handler: by path, the methods, sorted. A part of a
// path in braces stands for any segment.
func (s *Server) Routes() map[string][]string {
	all := s.open.Routes()
	maps.Copy(all, agentapi.Routes())
	maps.Copy(all, adminapi.Routes())
	return all
}

// Handler returns everything that the server serves.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/livez" || path == "/readyz":
			s.open.ServeHTTP(w, r)
		case s.bypassed(r):
			s.bypass.ServeHTTP(w, r)
		case strings.HasPrefix(path, "/api/admin/"):
			s.admins.ServeHTTP(w, r)
		case strings.HasPrefix(path, "/api/"):
			s.agents.ServeHTTP(w, r)
		default:
			s.open.ServeHTTP(w, r)
		}
	})
}

var errBypass = &exchange.Error{
	Status: http.StatusForbidden, Code: "not_through_proxy", Text: "this server is reached through its TLS proxy only",
	Hint: "Use the proxy's https address. A key that was sent here travelled readable: rotate it.",
}

// bypassed reports whether the peer speaks plain HTTP past the proxy that is to
// end TLS.
func (s *Server) bypassed(r *http.Request) bool {
	peer := exchange.Peer(r)
	return s.settings.BehindTLSProxy && !peer.IsLoopback() && !exchange.Trusted(peer, s.settings.proxies)
}

type status struct {
	Status string `json:"status"`

	// For those who have the token for metrics:
	Anchors []lagItem `json:"anchors,omitempty"`
	Sinks   []lagItem `json:"sinks,omitempty"`
}

// live is GET /livez: the process answers.
func (s *Server) live(x *exchange.Exchange) error {
	return x.JSON(http.StatusOK, status{Status: "ok"})
}

// ready is GET /readyz: storage and keys answer too. It says no more than that
// to those who have no token for metrics. To who has, it says how far anchors and sinks
// are behind: a server is ready in spite of that.
func (s *Server) ready(x *exchange.Exchange) error {
	if err := s.manager.Ready(x.Ctx()); err != nil {
		x.Header().Set("Retry-After", "2")
		return x.JSON(http.StatusServiceUnavailable, status{Status: "unavailable"})
	}
	answer := status{Status: "ok"}
	if s.watches(x) {
		if found, err := s.lags.get(x.Ctx(), s.manager, x.Now()); err == nil {
			answer.Anchors, answer.Sinks = itemsOf(found.Anchors, x.Now()), itemsOf(found.Sinks, x.Now())
		}
	}
	return x.JSON(http.StatusOK, answer)
}

// Listen opens the listener, so that Addr is known before Run. It fails with
// ErrPlainHTTP when a host name turned out to be no loopback address.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.settings.Listen)
	if err != nil {
		return fmt.Errorf("refserver: %w", err)
	}
	if s.settings.plain() && !loopback(l.Addr()) {
		_ = l.Close()
		return ErrPlainHTTP
	}
	if s.settings.tls != nil {
		l = tls.NewListener(l, s.settings.tls)
	}
	s.listener = l
	return nil
}

func loopback(a net.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// Addr is the address that the server listens on; nil before Listen or Run.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// URL is the address as a URL; empty before Listen or Run.
func (s *Server) URL() string {
	a := s.Addr()
	if a == nil {
		return ""
	}
	scheme := "http://"
	if s.settings.tls != nil {
		scheme = "https://"
	}
	return scheme + a.String()
}

// Run listens unless Listen did, serves, and does the Manager's background work,
// until ctx ends or one of them fails. Then it takes no new requests, lets those
// that are being served finish within DrainTimeout, and returns. It returns nil
// when ctx ended and everything was finished. It does not close the Manager.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	server := s.server(context.WithoutCancel(ctx))
	served, worked := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	go func() { worked <- s.manager.Run(work) }()

	var failed error
	running := true
	select {
	case <-ctx.Done():
	case err := <-served:
		failed = fmt.Errorf("refserver: serve: %w", err)
	case err := <-worked:
		running = false
		if ctx.Err() == nil {
			failed = fmt.Errorf("refserver: background work ended: %w", ended(err))
		}
	}
	s.settings.Logger.InfoContext(ctx, "draining")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
		failed = errors.Join(failed, fmt.Errorf("refserver: requests were cut off: %w", err))
	}
	stop()
	if running {
		if err := <-worked; err != nil && !errors.Is(err, context.Canceled) {
			failed = errors.Join(failed, fmt.Errorf("refserver: background work: %w", err))
		}
	}
	return failed
}

func ended(err error) error {
	if err == nil {
		return errors.New("it must not end by itself")
	}
	return err
}

// server makes the http.Server. Requests outlive the end of base's parent: they
// are drained, not cut.
func (s *Server) server(base context.Context) *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.settings.Logger.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return base },
		// Otherwise net/http would answer OPTIONS * without our headers.
		DisableGeneralOptionsHandler: true,
	}
}
