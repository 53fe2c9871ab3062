// Package outgoing is how the server connects to services that its settings name:
// receivers of its log, and keepers of its heads. Every address is checked when it is
// dialed, no redirect is followed, no proxy of the environment is used, and errors
// hold nothing of a URL, which may be a secret.
package outgoing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrAddress says that a name led to an address that nothing may be sent to.
var ErrAddress = errors.New("address is not allowed")

// ParseURL reads the URL of a service: https, or http on this machine, without a user
// and a fragment. Its error is a sentence about the URL of what kind names, and never
// holds the URL.
func ParseURL(kind, text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("the URL of the %s must be https://HOST/PATH, without a user", kind)
	case u.Scheme == "http" && !here(u.Hostname()):
		return nil, fmt.Errorf("the URL of the %s must be https: what is sent would travel readable", kind)
	}
	return u, nil
}

func here(host string) bool {
	if host == "localhost" {
		return true // what it leads to is checked when it is dialed
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Dialer checks every address right before it is dialed, whatever name led to it:
// never the metadata of a cloud (link-local), never a group or no address at all, and
// without encryption never another machine.
func Dialer(encrypted bool) *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		a := at.Addr().Unmap().WithZone("")
		if err != nil || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || !encrypted && !a.IsLoopback() {
			return ErrAddress
		}
		return nil
	}}
}

// Resolver gives the addresses of a host.
type Resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// System is the resolver of this machine.
func System(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// Public says whether a host has addresses, and none that is not public. It says
// nothing of a later moment: what is dialed is checked when it is dialed.
func (r Resolver) Public(ctx context.Context, host string) bool {
	found, err := r(ctx, host)
	return err == nil && len(found) > 0 && !slices.ContainsFunc(found, func(a netip.Addr) bool { return !public(a) })
}

// special are the ranges of IANA's registries of special-purpose addresses that
// netip has no word for, and those that lead to addresses of IPv4.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
}

// unicast is the whole of IPv6 that is given out to the public.
var unicast = netip.MustParsePrefix("2000::/3")

func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsGlobalUnicast() && !a.IsPrivate() && (a.Is4() || unicast.Contains(a)) &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Client makes a client for a URL of ParseURL. roots are the authorities that the
// service's certificate is checked with; nil: the system's.
func Client(u *url.URL, roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: Dialer(u.Scheme == "https").DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 8, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Reach connects to where a URL of ParseURL leads, and checks the certificate. It
// sends no request.
func Reach(ctx context.Context, u *url.URL, roots *x509.CertPool) error {
	port := u.Port()
	if port == "" {
		port = u.Scheme
	}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "http" {
		conn, err := Dialer(false).DialContext(ctx, "tcp", address)
		if err != nil {
			return Plain(err)
		}
		return conn.Close()
	}
	return ReachTLS(ctx, address, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), RootCAs: roots})
}

// ReachTLS connects to HOST:PORT and shakes hands. It sends nothing after that.
func ReachTLS(ctx context.Context, address string, config *tls.Config) error {
	raw, err := Dialer(true).DialContext(ctx, "tcp", address)
	if err != nil {
		return Plain(err)
	}
	defer func() { _ = raw.Close() }()
	return Plain(tls.Client(raw, config).HandshakeContext(ctx))
}

// Plain is an error without what may be a secret: addresses and names, which may
// stand in a URL. nil stays nil.
func Plain(err error) error {
	var (
		withURL   *url.Error
		network   *net.OpError
		name      *net.DNSError
		cert      *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		malformed *net.AddrError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrAddress):
		return ErrAddress
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &name):
		return errors.New("the name is not known")
	case errors.As(err, &host):
		return errors.New("the certificate is for another name")
	case errors.As(err, &authority), errors.As(err, &cert):
		return errors.New("the certificate is not trusted")
	case errors.As(err, &malformed):
		return errors.New("the address is malformed")
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", network.Op, network.Err)
	case errors.As(err, &withURL):
		return Plain(withURL.Err)
	}
	return err
}
