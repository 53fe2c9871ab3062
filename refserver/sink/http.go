package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// HTTPConfig describes a receiver over HTTP. URL and token are secrets: they are
// taken over and never logged.
type HTTPConfig struct {
	URL    *vault.Secret // https, or http on this machine. Required
	Token  *vault.Secret // sent as Authorization: Bearer. Nil: none
	Format Format        // required

	// Roots are the authorities that the receiver's certificate is checked with.
	// Nil: the system's.
	Roots *x509.CertPool
}

// HTTP is a sink that posts a batch as lines of JSON. A batch counts as shipped when
// it is answered 2xx; a redirect is not followed. These headers say what comes:
//
//	Idempotency-Key     "ORIGIN#FIRST-LAST", the same when the batch comes again
//	AgentKey-Origin     the log's origin
//	AgentKey-First      the number of the first event
//	AgentKey-Last       the number of the last event
//
// The address is checked when it is dialed. No proxy of the environment is used.
type HTTP struct {
	url    string
	token  *vault.Secret
	format Format
	client *http.Client
}

// NewHTTP checks the configuration. It connects to nothing.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	if err := c.Format.check(); err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(c.URL.Bytes()))
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: the URL of the HTTP sink must be https://HOST/PATH, without a user", ErrConfig)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("%w: the URL of the HTTP sink must be https: events would travel readable", ErrConfig)
	}
	for _, b := range c.Token.Bytes() {
		if b <= ' ' || b > '~' {
			return nil, fmt.Errorf("%w: the token of the HTTP sink can't stand in a header", ErrConfig)
		}
	}
	transport := &http.Transport{
		DialContext:         dialer(u.Scheme == "https").DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
		TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConns: 2, ForceAttemptHTTP2: true,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &HTTP{url: text, token: c.Token, format: c.Format, client: &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true // what it leads to is checked when it is dialed
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Ship posts the lines of b.
func (s *HTTP) Ship(ctx context.Context, b audit.Batch) error {
	text, err := s.format.lines(b)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("sink: HTTP: %w", plain(err))
	}
	first, last := strconv.FormatInt(b.Lines[0].Seq, 10), strconv.FormatInt(b.Lines[len(b.Lines)-1].Seq, 10)
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", "agentkey")
	r.Header.Set("Idempotency-Key", strconv.Quote(b.Origin+"#"+first+"-"+last))
	r.Header.Set("AgentKey-Origin", b.Origin)
	r.Header.Set("AgentKey-First", first)
	r.Header.Set("AgentKey-Last", last)
	if s.token.Len() > 0 {
		r.Header.Set("Authorization", "Bearer "+string(s.token.Bytes()))
	}
	res, err := s.client.Do(r)
	if err != nil {
		return fmt.Errorf("sink: HTTP: %w", plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("sink: HTTP: answered %d", res.StatusCode)
	}
	return nil
}
