package transit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	defaultTimeout = 2 * time.Second
	attempts       = 3
	firstPause     = 50 * time.Millisecond // doubled each time, and spread by half
	maxAnswer      = 64 << 10
	maxNames       = 90 // of the 128 bytes that an id may have
	maxOwnNames    = 51 // leaves room for an organization
)

// client speaks with the service.
type client struct {
	http      *http.Client
	base      string // scheme and host
	namespace string
	mount     string
	key       string
	names     string // what the ids of the key's versions begin with
	auth      Auth
	timeout   time.Duration
	clock     func() time.Time
	turn      chan struct{} // holds a value while somebody has the session
	session   session

	mu    sync.Mutex
	known map[string]key // by its name
}

var unescaped = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

// proper reports whether path, a mount, key or namespace, needs no escaping and
// leads nowhere else.
func proper(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return unescaped.MatchString(path)
}

func newClient(c Config) (*client, error) {
	base, err := checkAddress(c.Address)
	if err != nil {
		return nil, err
	}
	cl := &client{
		base: base, namespace: strings.Trim(c.Namespace, "/"), mount: strings.Trim(c.Mount, "/"), key: c.Key,
		auth: c.Auth, timeout: c.Timeout, clock: c.Clock, turn: make(chan struct{}, 1), known: make(map[string]key),
	}
	if cl.mount == "" {
		cl.mount = "transit"
	}
	if cl.timeout == 0 {
		cl.timeout = defaultTimeout
	}
	if cl.clock == nil {
		cl.clock = time.Now
	}
	full := strings.Trim(cl.namespace+"/"+cl.mount+"/"+cl.key, "/")
	cl.names = namePrefix + full + ":"
	if err := cl.check(c.OrganizationKeys); err != nil {
		return nil, err
	}
	if cl.http, err = newHTTP(c); err != nil {
		return nil, err
	}
	return cl, nil
}

func (c *client) check(owned bool) error {
	switch {
	case c.namespace != "" && !proper(c.namespace):
		return fmt.Errorf("%w: Namespace: letters, digits, _ . - and / only", ErrConfig)
	case !proper(c.mount):
		return fmt.Errorf("%w: Mount: letters, digits, _ . - and / only", ErrConfig)
	case !proper(c.key) || strings.Contains(c.key, "/"):
		return fmt.Errorf("%w: Key: required; letters, digits, _ . and - only", ErrConfig)
	case len(c.names) > maxNames, owned && len(c.names) > maxOwnNames:
		return fmt.Errorf("%w: Namespace, Mount and Key together are too long for the id of a key", ErrConfig)
	case c.timeout < 0 || c.timeout > time.Minute:
		return fmt.Errorf("%w: Timeout: at most a minute", ErrConfig)
	}
	return c.auth.check()
}

// checkAddress returns scheme and host. The address itself is in no error: people
// write passwords into URLs.
func checkAddress(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%w: Address: want https://HOST:PORT and nothing else", ErrConfig)
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return "", fmt.Errorf("%w: Address: plain http is for a loopback address only, where nobody listens in", ErrConfig)
	}
	return u.Scheme + "://" + u.Host, nil
}

func newHTTP(c Config) (*http.Client, error) {
	// A redirect would carry the token to wherever it leads.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Transport != nil {
		if c.CA != nil || c.ServerName != "" {
			return nil, fmt.Errorf("%w: CA and ServerName belong to the provider's own transport, and Transport is given", ErrConfig)
		}
		return &http.Client{Transport: c.Transport, CheckRedirect: stay}, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != nil {
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, fmt.Errorf("%w: CA: no certificate in PEM", ErrConfig)
		}
	}
	return &http.Client{CheckRedirect: stay, Transport: &http.Transport{
		TLSClientConfig: settings, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
	}}, nil
}

// begin bounds a call of the provider.
func (c *client) begin(ctx context.Context) (context.Context, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, c.timeout, errSlow)
	return bounded, cancel, nil
}

var errSlow = fmt.Errorf("%w: transit: no answer in time", vault.ErrUnavailable)

// ended tells the end of the caller's context from that of our own patience.
func (c *client) ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	cut := errors.Is(err, vault.ErrUnavailable) && cause != errSlow
	if err == nil || cause == nil || !cut && !errors.Is(err, ctx.Err()) {
		return err
	}
	return cause
}

// request is one call of the service's API.
type request struct {
	what, method, path string
	body               map[string]any
	open               bool // without a token: a login
}

// statusError is an answer that is not a success. Its text has nothing of what the
// service wrote, which may repeat what it was given.
type statusError struct {
	what   string
	status int
	// nothing says that the service answered 404 as it does for what is not there:
	// without a reason, which it gives when a path leads nowhere.
	nothing bool
}

func (e *statusError) Error() string {
	reason := ""
	switch {
	case e.status == http.StatusForbidden:
		reason = ": permission denied, or the token is not valid"
	case e.status == http.StatusServiceUnavailable:
		reason = ": it is sealed, or not active"
	case e.status >= 300 && e.status < 400:
		reason = ": it redirects, which is not followed; give the address of a load balancer or of the active node"
	}
	return fmt.Sprintf("transit: %s was answered with status %d%s", e.what, e.status, reason)
}

// Unwrap says that all of them may pass: a policy is mended, a seal is opened.
func (e *statusError) Unwrap() error { return vault.ErrUnavailable }

// passing reports whether trying again at once can help.
func (e *statusError) passing() bool {
	return e.status == http.StatusTooManyRequests || e.status == http.StatusPreconditionFailed || e.status >= 500
}

// call makes a request with a token, and decodes the answer into v. A token that
// is refused is replaced once, if a newer one can be had.
func (c *client) call(ctx context.Context, r request, v any) error {
	for again := true; ; again = false {
		token, err := c.token(ctx)
		if err != nil {
			return err
		}
		err = c.try(ctx, r, token, v)
		var status *statusError
		if !again || !errors.As(err, &status) || status.status != http.StatusForbidden || !c.stale(ctx, token) {
			return err
		}
	}
}

// try makes a request, and again after a pause if the reason may have passed.
func (c *client) try(ctx context.Context, r request, token string, v any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("%w: transit: %s: can't be encoded", vault.ErrProvider, r.what)
		}
		defer clear(body)
	}
	pause := firstPause
	for n := 1; ; n++ {
		err := c.once(ctx, r, token, body, v)
		var status *statusError
		lasting := errors.As(err, &status) && !status.passing()
		if err == nil || lasting || n == attempts {
			return err
		}
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			wait.Stop()
			return err
		case <-wait.C:
		}
		pause *= 2
	}
}

func (c *client) once(ctx context.Context, r request, token string, body []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+"/v1/"+r.path, nil)
	if err != nil {
		return fmt.Errorf("%w: transit: %s", vault.ErrProvider, r.what)
	}
	if body != nil {
		req.Body, req.ContentLength = newWiped(body), int64(len(body))
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("X-Vault-Request", "true")
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	if !r.open {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.away(ctx, r.what, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := vault.SecretFromReader(res.Body, maxAnswer)
	if err != nil {
		return c.away(ctx, r.what, err)
	}
	defer answer.Destroy()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent {
		return &statusError{what: r.what, status: res.StatusCode, nothing: res.StatusCode == http.StatusNotFound && withoutReason(answer.Bytes())}
	}
	if v != nil && json.Unmarshal(answer.Bytes(), v) != nil {
		return fmt.Errorf("%w: transit: %s: the answer is not one of this service", vault.ErrUnavailable, r.what)
	}
	return nil
}

// withoutReason reports whether a refusal is of the service's own form, and empty.
func withoutReason(answer []byte) bool {
	var refusal struct{ Errors *[]json.RawMessage }
	return json.Unmarshal(answer, &refusal) == nil && refusal.Errors != nil && len(*refusal.Errors) == 0
}

// away says that the service was not reached. Of the cause only a certificate that
// does not fit is told, which an administrator has to know; the rest of such texts
// holds addresses.
func (c *client) away(ctx context.Context, what string, err error) error {
	var certificate *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &certificate):
		return fmt.Errorf("%w: transit: %s: the service's certificate is not trusted", vault.ErrUnavailable, what)
	}
	return fmt.Errorf("%w: transit: %s: can't be reached", vault.ErrUnavailable, what)
}

// wiped is a request's body over bytes of its own, zeroed when it is closed, which
// a transport does whenever it has finished, also after the answer was read.
type wiped struct {
	mu   sync.Mutex
	read *bytes.Reader
	own  []byte
}

func newWiped(b []byte) *wiped {
	own := bytes.Clone(b)
	return &wiped{read: bytes.NewReader(own), own: own}
}

// Read reads what is left; nothing after Close.
func (w *wiped) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.own == nil {
		return 0, io.EOF
	}
	return w.read.Read(p)
}

// Close zeroes the bytes.
func (w *wiped) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.own)
	w.own = nil
	return nil
}
