package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	// maxAnswer bounds an answer that is read whole, in bytes.
	maxAnswer = 16 << 20
	// maxError bounds the body of an error.
	maxError = 64 << 10
	// defaultWait is Options.MaxWait when it is zero.
	defaultWait = 10 * time.Second
	// answerTime is how long an answer may take to begin.
	answerTime = 30 * time.Second
	// auditTime is the same for what reads a whole log: what servers allow, and
	// some more.
	auditTime = 16 * time.Minute
	// defaultPause is the wait after a 429 or 503 that does not say how long.
	defaultPause = time.Second
)

// Options holds what is optional; the zero value is good.
type Options struct {
	// HTTP does the round trips. Nil: a client that waits 30 seconds for an answer
	// to begin, and 16 minutes for what reads a whole log. It is used as it is, but
	// for redirects, which are never followed.
	HTTP *http.Client

	// PlainHTTP allows http to a server that is not on this machine, for networks
	// that encrypt by other means.
	PlainHTTP bool

	// MaxWait bounds how long a read may wait in all when it is answered 429 or
	// 503. Zero: 10 seconds. Negative: it never waits.
	MaxWait time.Duration

	// Wait waits for d or until ctx ends. Nil: by a timer.
	Wait func(ctx context.Context, d time.Duration) error

	// UserAgent names the program. Empty: agentkey-go.
	UserAgent string

	// Anchored is told, where the server waits for its anchors, whether every one of
	// them has a change that took access away; the change stands either way. It is
	// called with the context of the call and before that returns, by its goroutine.
	// Nil: nobody is told.
	Anchored func(ctx context.Context, anchored bool)
}

// connection is what Admin and Agent have in common.
type connection struct {
	base    url.URL
	secret  *vault.Secret
	http    http.Client
	patient http.Client // for answers that take as long as the log is
	options Options
}

func connect(server string, secret *vault.Secret, o Options) (*connection, error) {
	base, err := parseServer(server, o.PlainHTTP)
	if err != nil {
		return nil, err
	}
	if !sendable(secret.Bytes()) {
		return nil, ErrNoSecret
	}
	c := &connection{base: *base, secret: secret, options: o}
	if o.HTTP != nil {
		c.http, c.patient = *o.HTTP, *o.HTTP
	} else {
		c.http.Transport, c.patient.Transport = transport(answerTime), transport(auditTime)
	}
	c.http.CheckRedirect = stay
	c.patient.CheckRedirect = stay
	if c.options.MaxWait == 0 {
		c.options.MaxWait = defaultWait
	}
	if c.options.Wait == nil {
		c.options.Wait = wait
	}
	if c.options.UserAgent == "" {
		c.options.UserAgent = "agentkey-go"
	}
	return c, nil
}

func transport(answer time.Duration) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = answer
	return t
}

// stay makes a redirect the answer: following it could take the secret along.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// sendable reports whether b can stand in a header after "Bearer ".
func sendable(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 512
}

func parseServer(server string, plain bool) (*url.URL, error) {
	u, err := url.Parse(server)
	// url.Parse quotes its input in errors; ours doesn't.
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrServerURL
	}
	switch u.Scheme {
	case "https":
	case "http":
		if !plain && !loopback(u.Hostname()) {
			return nil, ErrPlainHTTP
		}
	default:
		return nil, ErrServerURL
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// call is one request.
type call struct {
	method string
	path   []string // segments after the base, escaped one by one
	query  url.Values
	body   any           // encoded as JSON unless nil
	secret *vault.Secret // put into the body unless nil
	named  string        // the secret's name there; empty: credential
	text   []byte        // sent as it is, in place of body, with media as its content type
	media  string
	again  bool // may be repeated
	slow   bool // takes as long as the log is
}

// do makes the call and decodes the answer into out unless that is nil. It gives
// the query of the next page, or nil.
func (c *connection) do(ctx context.Context, k call, out any) (next url.Values, err error) {
	res, err := c.answer(ctx, k)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxError))
		return nil, transportError(err)
	}
	body, err := readBody(res, maxAnswer)
	if err != nil {
		return nil, err
	}
	defer body.Destroy()
	if json.Unmarshal(body.Bytes(), out) != nil {
		return nil, ErrAnswer
	}
	return nextPage(res.Header), nil
}

// answer makes the call, repeats it as far as that is allowed, and returns the
// first answer that is a success; its body is the caller's to close.
func (c *connection) answer(ctx context.Context, k call) (*http.Response, error) {
	left := c.options.MaxWait
	for {
		res, err := c.once(ctx, k)
		var failed *Error
		if !k.again || !errors.As(err, &failed) || failed.Status != http.StatusTooManyRequests && failed.Status != http.StatusServiceUnavailable {
			return res, err
		}
		pause := failed.RetryAfter
		if pause <= 0 {
			pause = defaultPause
		}
		if pause > left {
			return nil, err
		}
		left -= pause
		if err := c.options.Wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func (c *connection) once(ctx context.Context, k call) (*http.Response, error) {
	req, body, err := c.request(ctx, k)
	if err != nil {
		return nil, err
	}
	doer := &c.http
	if k.slow {
		doer = &c.patient
	}
	res, err := doer.Do(req)
	body.destroy()
	if err != nil {
		return nil, transportError(err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		if said := res.Header.Get("AgentKey-Anchored"); said != "" && c.options.Anchored != nil {
			c.options.Anchored(ctx, said == "yes")
		}
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxError))
	return nil, readError(res, text)
}

func (c *connection) request(ctx context.Context, k call) (*http.Request, *secretBody, error) {
	u := c.base.JoinPath(escape(k.path)...)
	u.RawQuery = k.query.Encode()
	body, err := encodeBody(k.body, k.named, k.secret)
	if err != nil {
		return nil, nil, err
	}
	media := "application/json"
	if k.media != "" {
		body, media = &secretBody{b: bytes.Clone(k.text)}, k.media
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u.String(), nil)
	if err != nil {
		body.destroy()
		return nil, nil, ErrServerURL
	}
	if body != nil {
		req.Body, req.ContentLength = body, int64(body.len())
		req.Header.Set("Content-Type", media)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.options.UserAgent)
	req.Header.Set("Authorization", "Bearer "+string(c.secret.Bytes()))
	return req, body, nil
}

// escape makes each segment safe in a path; "." and ".." would be resolved away.
func escape(segments []string) []string {
	escaped := make([]string, len(segments))
	for i, s := range segments {
		escaped[i] = url.PathEscape(s)
		if s == "." || s == ".." {
			escaped[i] = strings.ReplaceAll(s, ".", "%2E")
		}
	}
	return escaped
}

// transportError drops what net/http says about the URL and keeps the cause.
func transportError(err error) error {
	if err == nil {
		return nil
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("client: no answer from the server: %w", err)
}

// readBody reads a JSON answer whole.
func readBody(res *http.Response, limit int) (*vault.Secret, error) {
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, ErrAnswer
	}
	body, err := vault.SecretFromReader(res.Body, limit)
	if errors.Is(err, vault.ErrTooLong) {
		return nil, ErrAnswer
	}
	return body, transportError(err)
}

// retryAfter reads the header's seconds; servers of this API send no dates.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// nextPage takes the query of the link with rel="next". Only its query is used:
// a server can't send the token elsewhere.
func nextPage(h http.Header) url.Values {
	for _, line := range h.Values("Link") {
		for part := range strings.SplitSeq(line, ",") {
			target, params, found := strings.Cut(part, ";")
			target = strings.TrimSpace(target)
			if !found || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
				continue
			}
			u, err := url.Parse(strings.Trim(target, "<>"))
			if err != nil {
				continue
			}
			if q := u.Query(); len(q) > 0 {
				return q
			}
		}
	}
	return nil
}
