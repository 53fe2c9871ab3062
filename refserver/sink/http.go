package sink

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
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
	url    *url.URL
	token  *vault.Secret
	format Format
	roots  *x509.CertPool
	client *http.Client
}

// NewHTTP checks the configuration. It connects to nothing.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	if err := c.Format.check(); err != nil {
		return nil, err
	}
	u, err := outgoing.ParseURL("HTTP sink", string(c.URL.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	for _, b := range c.Token.Bytes() {
		if b <= ' ' || b > '~' {
			return nil, fmt.Errorf("%w: the token of the HTTP sink can't stand in a header", ErrConfig)
		}
	}
	return &HTTP{url: u, token: c.Token, format: c.Format, roots: c.Roots, client: outgoing.Client(u, c.Roots)}, nil
}

// Reach connects to the receiver, and checks its certificate. It sends nothing, so
// that it does not tell whether the token is the right one.
func (s *HTTP) Reach(ctx context.Context) error {
	if err := outgoing.Reach(ctx, s.url, s.roots); err != nil {
		return fmt.Errorf("sink: HTTP: %w", err)
	}
	return nil
}

// Ship posts the lines of b.
func (s *HTTP) Ship(ctx context.Context, b audit.Batch) error {
	text, err := s.format.lines(b)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.String(), bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("sink: HTTP: %w", outgoing.Plain(err))
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
		return fmt.Errorf("sink: HTTP: %w", outgoing.Plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("sink: HTTP: answered %d", res.StatusCode)
	}
	return nil
}
