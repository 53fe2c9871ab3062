package anchor

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
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

var errAddress = errors.New("the address is not one to connect to")

// parseURL reads the URL of a service: https, or http on this machine.
func parseURL(kind, text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%w: the URL of the %s must be https://HOST/PATH, without a user", ErrConfig, kind)
	case u.Scheme == "http" && !local(u.Hostname()):
		return nil, fmt.Errorf("%w: the URL of the %s must be https", ErrConfig, kind)
	}
	return u, nil
}

func local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// newClient makes a client that checks addresses when it dials, follows no redirect
// and uses no proxy of the environment.
func newClient(https bool, roots *x509.CertPool) *http.Client {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		a := at.Addr().Unmap().WithZone("")
		if err != nil || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || !https && !a.IsLoopback() {
			return errAddress
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 8, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// plain is an error without addresses and names, which may stand in a secret URL.
func plain(err error) error {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errAddress):
		return errAddress
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &certificate):
		return errors.New("the certificate is not trusted")
	}
	return errors.New("it can't be reached")
}
