package transit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	maxToken  = 4 << 10
	leastLife = time.Second // a token is not renewed more often than this
	patience  = 10 * time.Second
)

// Source gives a secret that somebody else keeps, and which may have changed since:
// a token or a secret id. The caller destroys what it is given. Errors must not
// hold the secret.
type Source func() (*vault.Secret, error)

// FromFile returns a Source that reads the file at path each time, without the
// space around what it holds, 4 KiB at most.
func FromFile(path string) Source {
	return func() (*vault.Secret, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, nameless(err)
		}
		defer func() { _ = f.Close() }()
		s, err := vault.SecretFromReader(f, maxToken)
		return s, nameless(err)
	}
}

// nameless is an error of a file without the file's name: the secret itself may
// have been given in its place.
func nameless(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return fmt.Errorf("the file can't be read: %w", at.Err)
	}
	return err
}

// Auth is how to log in. Make one with Token or AppRole; the zero Auth is refused.
type Auth struct {
	vault.Redacted
	login func(context.Context, *client) (login, error)
}

// Token logs in with a token that was made elsewhere. It is renewed as long as the
// service allows, and read again from source when it is refused, as after an agent
// has put a new one in its place.
func Token(source Source) Auth {
	if source == nil {
		return Auth{}
	}
	return Auth{login: func(ctx context.Context, c *client) (login, error) {
		token, err := text(source)
		if err != nil {
			return login{}, fmt.Errorf("%w: transit: token: %w", vault.ErrUnavailable, err)
		}
		var answer struct {
			Data struct {
				TTL       int64 `json:"ttl"`
				Renewable bool  `json:"renewable"`
			} `json:"data"`
		}
		err = c.try(ctx, request{what: "look up token", method: http.MethodGet, path: "auth/token/lookup-self"}, token, &answer)
		var status *statusError
		if errors.As(err, &status) && status.status == http.StatusForbidden {
			// Not allowed to ask, or not valid, which the first use will show.
			return login{token: token}, nil
		}
		return login{token: token, seconds: answer.Data.TTL, renewable: answer.Data.Renewable}, err
	}}
}

// AppRole logs in with a role's id and a secret id, which is read from source at
// each login. mount is where the auth method is mounted; empty: approle. A role
// that needs no secret id has a nil source.
func AppRole(mount, role string, source Source) Auth {
	if mount = strings.Trim(mount, "/"); mount == "" {
		mount = "approle"
	}
	if role == "" || !proper(mount) {
		return Auth{}
	}
	return Auth{login: func(ctx context.Context, c *client) (login, error) {
		body := map[string]any{"role_id": role}
		if source != nil {
			secret, err := text(source)
			if err != nil {
				return login{}, fmt.Errorf("%w: transit: secret id: %w", vault.ErrUnavailable, err)
			}
			body["secret_id"] = secret
		}
		var answer leased
		err := c.try(ctx, request{what: "log in", method: http.MethodPost, path: "auth/" + mount + "/login", body: body, open: true}, "", &answer)
		if err != nil {
			return login{}, err
		}
		return login{token: answer.Auth.Token, seconds: answer.Auth.Seconds, renewable: answer.Auth.Renewable}, nil
	}}
}

func (a Auth) check() error {
	if a.login == nil {
		return fmt.Errorf("%w: Auth: want Token with a source, or AppRole with a role id and a proper mount", ErrConfig)
	}
	return nil
}

// text is what a source has. A token goes into a header, which has to be a string.
func text(source Source) (string, error) {
	s, err := source()
	if err != nil {
		return "", err
	}
	defer s.Destroy()
	trimmed := strings.TrimSpace(string(s.Bytes()))
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if trimmed == "" || len(trimmed) > maxToken || strings.ContainsFunc(trimmed, odd) {
		return "", errors.New("empty, or no token")
	}
	return trimmed, nil
}

// login is a token and how long it lives; 0 seconds: nobody knows, or for ever.
type login struct {
	token     string
	seconds   int64
	renewable bool
}

// leased is the answer to a login or a renewal.
type leased struct {
	Auth struct {
		Token     string `json:"client_token"`
		Seconds   int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
}

// session is the token in use, for who has the turn.
type session struct {
	token   func() string // a closure, for the reason given at Provider; nil: none
	life    int64         // of the token when it was new, in seconds
	begun   time.Time
	ends    time.Time // zero: not known
	renewal time.Time // zero: never
}

func (s *session) begin(l login, now time.Time) {
	*s = session{token: func() string { return l.token }, life: l.seconds, begun: now}
	s.extend(l, now)
}

func (s *session) extend(l login, now time.Time) {
	if l.seconds <= 0 {
		return
	}
	life := time.Duration(min(l.seconds, 1<<31)) * time.Second
	s.ends, s.renewal = now.Add(life), time.Time{}
	if l.renewable {
		s.renewal = now.Add(max(life/2, leastLife))
	}
}

// enter waits for the turn.
func (c *client) enter(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *client) leave() { <-c.turn }

// token gives the token in use, after renewing it or logging in where it is time.
func (c *client) token(ctx context.Context) (string, error) {
	if err := c.enter(ctx); err != nil {
		return "", err
	}
	defer c.leave()
	s := &c.session
	now := c.clock()
	if s.token != nil && !s.ends.IsZero() && !now.Before(s.ends) {
		s.token = nil
	}
	if s.token != nil && !s.renewal.IsZero() && !now.Before(s.renewal) {
		c.renew(ctx, now)
	}
	if s.token != nil {
		return s.token(), nil
	}
	l, err := c.auth.login(ctx, c)
	if err != nil {
		return "", err
	}
	if l.token == "" {
		return "", fmt.Errorf("%w: transit: log in: no token in the answer", vault.ErrUnavailable)
	}
	s.begin(l, now)
	return l.token, nil
}

// renew extends the token's life. One that is refused, or hardly lives any longer
// because its longest life is near, is given up for a new login; if the service
// can't be asked, the token is used as it is and renewed a little later.
func (c *client) renew(ctx context.Context, now time.Time) {
	s := &c.session
	var answer leased
	err := c.try(ctx, request{what: "renew token", method: http.MethodPost, path: "auth/token/renew-self", body: map[string]any{}}, s.token(), &answer)
	var status *statusError
	switch {
	case errors.As(err, &status) && !status.passing():
		s.token = nil
	case err != nil:
		s.renewal = now.Add(max(s.ends.Sub(now)/4, leastLife))
	case answer.Auth.Seconds < s.life/4:
		s.token = nil
	default:
		s.extend(login{seconds: answer.Auth.Seconds, renewable: answer.Auth.Renewable}, now)
	}
}

// stale gives up a token that the service refused, and reports whether trying again
// makes sense: somebody has replaced it meanwhile, or it is old enough that it may
// have ended. A new token that is refused lacks a right, and another would too.
func (c *client) stale(ctx context.Context, refused string) bool {
	if c.enter(ctx) != nil {
		return false
	}
	defer c.leave()
	s := &c.session
	if s.token == nil || s.token() != refused {
		return true
	}
	if c.clock().Sub(s.begun) < patience {
		return false
	}
	s.token = nil
	return true
}

// keep renews the token at half of its life until ctx ends. While the service is
// away, or nothing is known of the token's life, it looks every so often.
func (c *client) keep(ctx context.Context) {
	for {
		wait := patience
		if c.enter(ctx) != nil {
			return
		}
		if s := &c.session; s.token != nil && !s.renewal.IsZero() {
			wait = max(s.renewal.Sub(c.clock()), leastLife)
		}
		c.leave()
		timer := time.NewTimer(min(wait, time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		_, _ = c.token(bounded) // what fails now is tried again, and told to who needs it
		cancel()
	}
}
