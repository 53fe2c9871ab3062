package transit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
)

// status answers every request with a status, and repeats what it was sent, as a
// careless service or a proxy may.
func status(n int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(n)
		_, _ = fmt.Fprintf(w, `{"errors":["%s"]}`, r.Header.Get("X-Vault-Token"))
		if r.Body != nil {
			_, _ = io.Copy(w, r.Body)
		}
		return true
	}
}

func says(text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, text)
		return true
	}
}

// decrypts answers what was asked for, but the decrypted bytes.
func decrypts(plain []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/decrypt/") {
			return false
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"plaintext": plain}})
		return true
	}
}

// slow answers after 30 seconds, or when the one who asked has gone.
func slow(_ http.ResponseWriter, r *http.Request) bool {
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	return false
}

// TestFaults: whatever the service does, there is an error in time, no key, and
// nothing secret in the error; and the provider recovers by itself. The time is that
// of the bubble, which also ends only when no goroutine is left.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		fault  func(http.ResponseWriter, *http.Request) bool
		unwrap error // what unwrapping gives
		wrap   error // what wrapping gives
	}{
		"sealed":          {status(503), vault.ErrUnavailable, vault.ErrUnavailable},
		"overloaded":      {status(429), vault.ErrUnavailable, vault.ErrUnavailable},
		"broken":          {status(500), vault.ErrUnavailable, vault.ErrUnavailable},
		"refusing":        {status(403), vault.ErrUnavailable, vault.ErrUnavailable},
		"another API":     {status(404), vault.ErrUnavailable, vault.ErrUnavailable},
		"redirecting":     {status(307), vault.ErrUnavailable, vault.ErrUnavailable},
		"slow":            {slow, vault.ErrUnavailable, vault.ErrUnavailable},
		"a page":          {says("<html>Log in</html>"), vault.ErrUnavailable, vault.ErrUnavailable},
		"endless":         {says(strings.Repeat(" ", 1<<20)), vault.ErrUnavailable, vault.ErrUnavailable},
		"empty":           {says(""), vault.ErrUnavailable, vault.ErrUnavailable},
		"nothing":         {says("{}"), vault.ErrUnwrap, vault.ErrUnavailable},
		"null":            {says(`{"data":null}`), vault.ErrUnwrap, vault.ErrUnavailable},
		"wrong bytes":     {decrypts(make([]byte, 64)), vault.ErrUnwrap, nil},
		"only the key":    {decrypts(dataKey()), vault.ErrUnwrap, nil},
		"what it was fed": {decrypts([]byte(base64.StdEncoding.EncodeToString(dataKey()))), vault.ErrUnwrap, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := service(time.Now)
				p := open(t, config(s, time.Now))
				ctx := context.Background()
				w, err := p.WrapKey(ctx, dataKey(), sample())
				is.NoErr(err)

				s.Fail(f.fault)
				begun := time.Now()
				key, err := p.UnwrapKey(ctx, w, sample())
				is.True(errors.Is(err, f.unwrap))
				is.Equal(key, nil)
				is.True(time.Since(begun) <= 2*time.Second)
				private(t, err)
				begun = time.Now()
				_, err = p.WrapKey(ctx, dataKey(), sample())
				is.True(errors.Is(err, f.wrap))
				is.True(time.Since(begun) <= 2*time.Second)
				private(t, err)

				s.Fail(nil)
				key, err = p.UnwrapKey(ctx, w, sample())
				is.NoErr(err)
				is.Equal(key, dataKey())
			})
		})
	}
}

func private(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	for _, secret := range []string{token, string(dataKey()), base64.StdEncoding.EncodeToString(dataKey())[:20], `{"errors"`, "<html>"} {
		if strings.Contains(text, secret) {
			t.Error("the error shows what the service answered")
		}
	}
}

// TestTriesAgain: three times what may pass, once what will not.
func TestTriesAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ status, failures, tries int }{
		{503, 2, 3}, {429, 2, 3}, {500, 1, 2}, {412, 1, 2}, {503, 9, 3}, {403, 9, 1}, {404, 9, 1}, {302, 9, 1},
	} {
		t.Run(fmt.Sprint(c.status, c.failures), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := service(time.Now)
				p := open(t, config(s, time.Now))
				_, err := p.CurrentKey(t.Context()) // logged in
				is.NoErr(err)
				tries := 0
				s.Fail(func(w http.ResponseWriter, r *http.Request) bool {
					tries++
					return tries <= c.failures && status(c.status)(w, r)
				})
				_, err = p.CurrentKey(t.Context())
				is.Equal(err == nil, c.failures < c.tries)
				is.Equal(tries, c.tries)
			})
		})
	}
}

// TestCallerGoesAway: the error is the context's own, and comes at once.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
	}{"while the service is slow": {slow}, "between two attempts": {status(503)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := service(time.Now)
				p := open(t, config(s, time.Now))
				s.Fail(c.fault)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				_, err := p.WrapKey(ctx, dataKey(), sample())
				is.True(errors.Is(err, context.DeadlineExceeded))
			})
		})
	}
}

// TestTheKeyNeverLeavesUnasked: a token that can only wrap does not unwrap.
func TestTheKeyNeverLeavesUnasked(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	s.AddToken("hvs.test.wraps-only", 0, 0, false, "decrypt")
	c := config(s, now)
	c.Auth = transit.Token(fixed("hvs.test.wraps-only"))
	p := open(t, c)
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	key, err := p.UnwrapKey(t.Context(), w, sample())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(strings.Contains(err.Error(), "permission denied"))
	is.Equal(key, nil)
}

// TestContextIsBoundTwice: it is what the service is given to bind, and where the
// service forgets it, another context still does not unwrap.
func TestContextIsBoundTwice(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	p := open(t, config(s, now))
	var given []string
	s.Fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		var body map[string]string
		is.NoErr(json.NewDecoder(r.Body).Decode(&body))
		given = append(given, body["associated_data"])
		delete(body, "associated_data")
		forgetful, err := json.Marshal(body)
		is.NoErr(err)
		r.Body = io.NopCloser(bytes.NewReader(forgetful))
		return false
	})
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	_, err = p.UnwrapKey(t.Context(), w, sample())
	is.NoErr(err)
	other := sample()
	other.Organization = "organization-2"
	key, err := p.UnwrapKey(t.Context(), w, other)
	is.True(errors.Is(err, vault.ErrUnwrap))
	is.Equal(key, nil)
	want := func(c vault.Context) string { return base64.StdEncoding.EncodeToString(c.AppendEncoded(nil)) }
	is.Equal(given, []string{want(sample()), want(sample()), want(other)})
}
