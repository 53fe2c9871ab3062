package refserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// ErrPlainHTTP occurs when the server would speak plain HTTP on an address that
// others reach: keys and credentials would travel readable.
var ErrPlainHTTP = errors.New("refserver: plain HTTP is for loopback addresses only: give a TLS certificate and key, " +
	"or say that the server is behind a TLS proxy and name the proxy's address ranges, or listen on 127.0.0.1")

// DefaultListen is where a server listens that is not told.
const DefaultListen = "127.0.0.1:8700"

// Config says how a Server listens. The zero value listens on DefaultListen. New
// works on a copy. The limits of calls are the Manager's.
type Config struct {
	// Listen is HOST:PORT. Port 0 takes a free one, see Server.Addr. Empty:
	// DefaultListen. Any host but a loopback address needs TLS or BehindTLSProxy.
	Listen string

	// TLSCert and TLSKey are files in PEM. Both or neither. With them the server
	// speaks TLS 1.2 at least. New reads them; when they are renewed, connections
	// that begin from then on see the new certificate, without a restart.
	TLSCert string
	TLSKey  string

	// BehindTLSProxy says that a proxy ends TLS and speaks plain HTTP with this
	// server. It needs TrustedProxies, and whoever else connects is refused. It
	// conflicts with TLSCert.
	BehindTLSProxy bool

	// TrustedProxies are address ranges such as 10.0.0.0/8, or single addresses.
	// X-Forwarded-For is believed from there only. None: the client is whoever
	// opened the connection.
	TrustedProxies []string

	// Origins are those whose web pages may call the agents' API, compared exactly,
	// such as https://app.example.com. None: pages can't read what is answered, and
	// are refused credentials.
	Origins []string

	// SecurityContact is where to report a vulnerability, as a URI such as
	// mailto:security@example.com. It is served as /.well-known/security.txt. Empty:
	// there is no such file.
	SecurityContact string

	// AnchorRevocations is how long an administrator's call that takes access away
	// waits until the Manager's anchors have it. Its answer has the header
	// AgentKey-Anchored: yes or no. Zero: it does not wait.
	AnchorRevocations time.Duration

	// LeakReports lets anybody report keys that were found at POST /leaked-keys, as
	// GitHub's secret scanning does: who has a key can then stop its agent. False: no
	// such reports are taken.
	LeakReports bool

	// LeakSigners are files in PEM with the public keys, ECDSA on P-256, of the scanners
	// whose reports count. None: possession of the key is proof enough. They need
	// LeakReports.
	LeakSigners []string

	// MetricsToken lets whoever sends it as Authorization: Bearer read GET /metrics, in
	// the text format of Prometheus, and more of GET /readyz: how far anchors and sinks are
	// behind, of all organizations together. 24 characters at least. It stays the
	// caller's. Nil: there are no metrics.
	MetricsToken *vault.Secret

	// Resolve gives the addresses of the host of a notifications' webhook, all of which
	// have to be public for it to be kept. It is given 5 seconds. Nil: the system's
	// resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// Logger takes what an operator should see. Nil: nothing is logged.
	Logger *slog.Logger

	// Clock is the Manager's clock. Nil: time.Now.
	Clock func() time.Time

	// DrainTimeout is how long requests that are being served may take once the
	// server is told to end. Zero: 20 seconds.
	DrainTimeout time.Duration
}

// settings is a Config that was checked.
type settings struct {
	Config
	tls     *tls.Config
	proxies []netip.Prefix
	signers []*ecdsa.PublicKey
}

// Validate returns what New would find wrong with c. It reads the certificate and
// opens nothing.
func (c Config) Validate() error {
	_, err := c.check()
	return err
}

func (c Config) check() (settings, error) {
	s := settings{Config: c}
	if s.Listen == "" {
		s.Listen = DefaultListen
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.DrainTimeout == 0 {
		s.DrainTimeout = 20 * time.Second
	}
	if s.DrainTimeout < 0 {
		return s, errors.New("refserver: Config.DrainTimeout must not be negative")
	}
	if err := errors.Join(checkOrigins(s.Origins), checkContact(s.SecurityContact), c.checkMetricsToken()); err != nil {
		return s, err
	}
	if err := errors.Join(s.readProxies(), s.readSigners()); err != nil {
		return s, err
	}
	if err := s.readTLS(); err != nil {
		return s, err
	}
	host, _, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return s, errors.New("refserver: Config.Listen must be HOST:PORT, such as 127.0.0.1:8700")
	}
	// A name is looked at again once it is an address.
	if a, err := netip.ParseAddr(host); s.plain() && (host == "" || err == nil && !a.Unmap().IsLoopback()) {
		return s, ErrPlainHTTP
	}
	return s, nil
}

// plain reports whether keys would travel readable to whoever connects.
func (s *settings) plain() bool { return s.tls == nil && !s.BehindTLSProxy }

func (s *settings) readProxies() error {
	for i, text := range s.TrustedProxies {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			a, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil || a.Zone() != "" {
				return fmt.Errorf("refserver: Config.TrustedProxies: entry %d is neither an address range such as 10.0.0.0/8 nor an address", i+1)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("refserver: Config.TrustedProxies: entry %d maps IPv4 into IPv6; write it as IPv4", i+1)
		}
		s.proxies = append(s.proxies, p.Masked())
	}
	if s.BehindTLSProxy && len(s.proxies) == 0 {
		return errors.New("refserver: Config.BehindTLSProxy needs TrustedProxies: the address ranges from which the proxy connects")
	}
	return nil
}

func (s *settings) readTLS() error {
	switch {
	case s.TLSCert == "" && s.TLSKey == "":
		return nil
	case s.TLSCert == "" || s.TLSKey == "":
		return errors.New("refserver: Config.TLSCert and Config.TLSKey belong together: give both or neither")
	case s.BehindTLSProxy:
		return errors.New("refserver: Config.TLSCert conflicts with Config.BehindTLSProxy: one of the two ends TLS")
	}
	cert, err := readCertificate(s.TLSCert, s.TLSKey, s.Logger)
	if err != nil {
		return err
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get, NextProtos: []string{"h2", "http/1.1"}}
	return nil
}
