package anchor

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// WebhookConfig describes a webhook. Its URL is a secret: it is never logged.
type WebhookConfig struct {
	URL *vault.Secret // https, or http on this machine. Required

	// Roots are the authorities that its certificate is checked with. Nil: the
	// system's.
	Roots *x509.CertPool
}

// Webhook keeps heads with a service of somebody else. The log is named by the
// parameter log that is added to the URL's query, "agentkey/<installation>/<organization>".
//
//	GET   answers 200 with the note that was kept last, or 404 when there is none.
//	      A service that keeps and can't be asked answers 405 or 501: its heads are
//	      then compared by people.
//	POST  the note, as text/plain: it is kept when that is answered with 2xx.
//
// Where a GET has an ETag, POST has it in If-Match, and the service should answer 412
// when it has another note by then; where there was none, If-None-Match is *.
// Redirects are not followed.
type Webhook struct {
	url    *url.URL
	client *http.Client
}

// NewWebhook checks the configuration. It connects to nothing.
func NewWebhook(c WebhookConfig) (*Webhook, error) {
	u, err := outgoing.ParseURL("webhook", string(c.URL.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return &Webhook{url: u, client: outgoing.Client(u, c.Roots)}, nil
}

// Name does not name the URL.
func (w *Webhook) Name() string { return "webhook" }

var errOther = errors.New("anchor: webhook: it has another head by now")

// Keep asks what is kept, and posts the head.
func (w *Webhook) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	const tries = 3
	err := errOther
	for range tries {
		if err = w.keep(ctx, h); !errors.Is(err, errOther) {
			break
		}
	}
	return err
}

func (w *Webhook) keep(ctx context.Context, h *agentkey.AnchorHead) error {
	status, header, kept, err := w.do(ctx, http.MethodGet, h, nil, nil)
	if err != nil {
		return err
	}
	condition := http.Header{}
	switch {
	case status == http.StatusOK && len(kept) > 0:
		if tag := header.Get("ETag"); tag != "" {
			condition.Set("If-Match", tag)
		}
		err = h.Follows(ctx, kept)
	case status == http.StatusNotFound, status == http.StatusOK:
		condition.Set("If-None-Match", "*")
		err = h.Follows(ctx, nil)
	case status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		err = h.FollowsUnseen()
	default:
		err = fmt.Errorf("anchor: webhook: GET was answered %d", status)
	}
	if err != nil || bytes.Equal(kept, h.Signed) {
		return err
	}
	status, _, _, err = w.do(ctx, http.MethodPost, h, h.Signed, condition)
	switch {
	case err != nil:
		return err
	case status == http.StatusPreconditionFailed:
		return errOther
	case status/100 != 2:
		return fmt.Errorf("anchor: webhook: POST was answered %d", status)
	}
	return nil
}

func (w *Webhook) do(ctx context.Context, method string, h *agentkey.AnchorHead, body []byte, header http.Header) (int, http.Header, []byte, error) {
	u := *w.url
	q := u.Query()
	q.Set("log", h.Log())
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("anchor: webhook: %w", outgoing.Plain(err))
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "agentkey")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	return fetch(w.client, r, "webhook")
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

func fetch(client *http.Client, r *http.Request, kind string) (int, http.Header, []byte, error) {
	res, err := client.Do(r)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("anchor: %s: %w", kind, outgoing.Plain(err))
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("anchor: %s: %w", kind, outgoing.Plain(err))
	}
	return res.StatusCode, res.Header, text, nil
}
