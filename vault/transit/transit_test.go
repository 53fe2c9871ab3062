package transit_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/internal/transittest"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

const (
	token  = "hvs.test.token-of-the-provider"
	ourKey = "transit/agentkey"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: start} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// service has our key and our token, which never ends.
func service(now func() time.Time) *transittest.Server {
	s := transittest.New(now)
	s.AddKey(ourKey, "aes256-gcm96", false)
	s.AddToken(token, 0, 0, false)
	return s
}

func fixed(text string) transit.Source {
	return func() (*vault.Secret, error) { return vault.NewSecret([]byte(text)), nil }
}

// direct carries requests to a handler without a network.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.handler.ServeHTTP(w, r)
	}()
	select {
	case <-done:
		return w.Result(), nil
	case <-r.Context().Done():
		<-done // the handlers here watch the request's context
		return nil, r.Context().Err()
	}
}

func config(s http.Handler, now func() time.Time) transit.Config {
	return transit.Config{
		Address: "https://vault.example:8200", Key: "agentkey", Auth: transit.Token(fixed(token)),
		Clock: now, Transport: direct{s},
	}
}

func open(tb testing.TB, c transit.Config) *transit.Provider {
	tb.Helper()
	p, err := transit.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func sample() vault.Context {
	return vault.Context{Installation: "installation-1", Organization: "organization-1", Purpose: "seal", Key: "00ff"}
}

func dataKey() []byte { return []byte("32 bytes for tests, not a secret") }

// overTLS is a service behind a certificate of its own, and a provider that trusts it.
func overTLS(t *testing.T, s *transittest.Server, change ...func(*transit.Config)) (*transit.Provider, *httptest.Server) {
	t.Helper()
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	c := transit.Config{
		Address: server.URL, Key: "agentkey", Auth: transit.Token(fixed(token)), Timeout: 5 * time.Second,
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	for _, f := range change {
		f(&c)
	}
	p := open(t, c)
	t.Cleanup(func() { _ = p.Close() })
	return p, server
}

func TestConformance(t *testing.T) {
	t.Parallel()
	now := newClock().Now
	ours := service(now)
	for name, other := range map[string]func(*transittest.Server, *transit.Config){
		"another name": func(s *transittest.Server, c *transit.Config) {
			s.AddKey("transit/other", "aes256-gcm96", false)
			c.Key = "other"
		},
		"made again": func(s *transittest.Server, _ *transit.Config) {
			s.Clock = func() time.Time { return start.Add(time.Hour) }
			s.AddKey(ourKey, "aes256-gcm96", false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vaulttest.TestProvider(t,
				func(t *testing.T) vault.KeyProvider { p, _ := overTLS(t, ours); return p },
				vaulttest.WithOther(func(t *testing.T) vault.KeyProvider {
					s := service(now)
					p, _ := overTLS(t, s, func(c *transit.Config) { other(s, c) })
					return p
				}),
				vaulttest.WithOutage(func(t *testing.T) (vault.KeyProvider, func()) {
					p, server := overTLS(t, service(now))
					return p, server.Close
				}),
				vaulttest.WithSecrets([]byte(token)))
		})
	}
}

// TestRealService runs the suite against a Vault or an OpenBao. The token needs the
// rights that docs/keys-transit.md names, for the keys agentkey and agentkey-other
// of type aes256-gcm96 in the engine mounted at transit.
func TestRealService(t *testing.T) {
	t.Parallel()
	address, real := os.Getenv("AGENTKEY_TEST_TRANSIT_ADDRESS"), os.Getenv("AGENTKEY_TEST_TRANSIT_TOKEN")
	if address == "" || real == "" {
		t.Skip("no real service: AGENTKEY_TEST_TRANSIT_ADDRESS and AGENTKEY_TEST_TRANSIT_TOKEN name one")
	}
	at := func(key string) func(*testing.T) vault.KeyProvider {
		return func(t *testing.T) vault.KeyProvider {
			p := open(t, transit.Config{Address: address, Key: key, Auth: transit.Token(fixed(real))})
			t.Cleanup(func() { _ = p.Close() })
			return p
		}
	}
	vaulttest.TestProvider(t, at("agentkey"), vaulttest.WithOther(at("agentkey-other")), vaulttest.WithSecrets([]byte(real)))

	vaulttest.TestOrganizationKeys(t, func(t *testing.T) vault.KeyProvider {
		p := open(t, transit.Config{Address: address, Key: "agentkey", Auth: transit.Token(fixed(real)), OrganizationKeys: true})
		t.Cleanup(func() { _ = p.Close() })
		return p
	})

	is := is.New(t)
	_, err := at("no-such-key")(t).WrapKey(t.Context(), dataKey(), sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	stranger := open(t, transit.Config{Address: address, Key: "agentkey", Auth: transit.Token(fixed("hvs.no-such-token"))})
	_, err = stranger.CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(strings.Contains(err.Error(), "403"))

	if id, secret := os.Getenv("AGENTKEY_TEST_TRANSIT_ROLE_ID"), os.Getenv("AGENTKEY_TEST_TRANSIT_SECRET_ID"); id != "" {
		role := open(t, transit.Config{Address: address, Key: "agentkey", Auth: transit.AppRole("", id, fixed(secret))})
		w, err := role.WrapKey(t.Context(), dataKey(), sample())
		is.NoErr(err)
		key, err := role.UnwrapKey(t.Context(), w, sample())
		is.NoErr(err)
		is.Equal(key, dataKey())
	}
}

func TestNamesTellVersionsApart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	now := newClock()
	s := service(now.Now)
	p := open(t, config(s, now.Now))
	first, err := p.WrapKey(ctx, dataKey(), sample())
	is.NoErr(err)
	is.Equal(first.Provider, fmt.Sprintf("transit:transit/agentkey:v1:%d", start.Unix()))

	now.Advance(time.Hour)
	s.Rotate(ourKey)
	second, err := p.WrapKey(ctx, dataKey(), sample())
	is.NoErr(err)
	is.Equal(second.Provider, fmt.Sprintf("transit:transit/agentkey:v2:%d", start.Add(time.Hour).Unix()))
	current, err := p.CurrentKey(ctx)
	is.NoErr(err)
	is.Equal(current, second.Provider)
	for _, w := range []vault.Wrapped{first, second} {
		key, err := p.UnwrapKey(ctx, w, sample())
		is.NoErr(err)
		is.Equal(key, dataKey())
		w.Provider = map[string]string{first.Provider: second.Provider, second.Provider: first.Provider}[w.Provider]
		_, err = p.UnwrapKey(ctx, w, sample())
		is.True(errors.Is(err, vault.ErrUnwrap)) // a version that is held, but not the one that wrapped
	}

	s.Least(ourKey, 2)
	for _, fresh := range []bool{false, true} { // with what it knew before, and without
		if fresh {
			p = open(t, config(s, now.Now))
		}
		_, err = p.UnwrapKey(ctx, first, sample())
		is.True(errors.Is(err, vault.ErrUnknownKey))
		is.True(strings.Contains(err.Error(), "need "+first.Provider+", hold ["+second.Provider+"]"))
	}
}

// TestUnwrapAsksOnce: one call for each data key, once the key's versions are known.
func TestUnwrapAsksOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	p := open(t, config(s, now))
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	for range 20 {
		_, err := p.UnwrapKey(t.Context(), w, sample())
		is.NoErr(err)
	}
	is.Equal([]int{s.Calls("decrypt"), s.Calls("encrypt"), s.Calls("keys"), s.Calls("lookup")}, []int{20, 1, 1, 1})
}

// TestMissingKeyIsNotMade: the service would make it, of a type that nobody chose.
func TestMissingKeyIsNotMade(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	s.DeleteKey(ourKey)
	p := open(t, config(s, now))
	_, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	_, err = p.CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	is.Equal(s.Calls("encrypt"), 0)
}

func TestKeysThatBindNoContextAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    string
		derived bool
		want    error
	}{
		{"aes256-gcm96", false, nil},
		{"chacha20-poly1305", false, nil},
		{"xchacha20-poly1305", false, nil},
		{"aes256-gcm96", true, vault.ErrProvider},
		{"aes128-gcm96", false, vault.ErrProvider},
		{"rsa-4096", false, vault.ErrProvider},
		{"hmac", false, vault.ErrProvider},
	} {
		t.Run(fmt.Sprint(c.kind, c.derived), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			now := newClock().Now
			s := service(now)
			s.AddKey(ourKey, c.kind, c.derived)
			_, err := open(t, config(s, now)).WrapKey(t.Context(), dataKey(), sample())
			is.True(errors.Is(err, c.want))
			is.Equal(s.Calls("encrypt") > 0, c.want == nil)
		})
	}
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s := service(now)
	s.Namespace = "team/agents"
	s.AddKey("secrets/keys/agentkey", "aes256-gcm96", false)
	c := config(s, now)
	c.Mount, c.Namespace = "secrets/keys", "team/agents/"
	w, err := open(t, c).WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	is.True(strings.HasPrefix(w.Provider, "transit:team/agents/secrets/keys/agentkey:v1:"))
	c.Namespace = ""
	_, err = open(t, c).UnwrapKey(t.Context(), w, sample())
	is.True(err != nil)
}

// TestWrongKeyAtStart: a Manager whose key was made anew under the same name says
// which key it needs and which it got.
func TestWrongKeyAtStart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock()
	s := service(now.Now)
	store := memstore.New()
	settings := agentkey.Config{Storage: store, Keys: open(t, config(s, now.Now)), Clock: now.Now}
	m, err := agentkey.New(t.Context(), settings)
	is.NoErr(err)
	is.NoErr(m.Close(t.Context()))

	now.Advance(time.Minute)
	s.DeleteKey(ourKey)
	s.AddKey(ourKey, "aes256-gcm96", false)
	settings.Keys = open(t, config(s, now.Now))
	_, err = agentkey.New(t.Context(), settings)
	is.True(errors.Is(err, agentkey.ErrKeys))
	is.True(errors.Is(err, vault.ErrUnknownKey))
	want := fmt.Sprintf("need transit:transit/agentkey:v1:%d, hold [transit:transit/agentkey:v1:%d]", start.Unix(), start.Add(time.Minute).Unix())
	is.True(strings.Contains(err.Error(), want))
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	const private = "s3cr3t-in-the-wrong-place"
	good := transit.Config{Address: "https://vault.example", Key: "agentkey", Auth: transit.Token(fixed(token))}
	for name, change := range map[string]func(*transit.Config){
		"no address":          func(c *transit.Config) { c.Address = "" },
		"password in address": func(c *transit.Config) { c.Address = "https://me:" + private + "@vault.example" },
		"path in address":     func(c *transit.Config) { c.Address = "https://vault.example/" + private },
		"query in address":    func(c *transit.Config) { c.Address = "https://vault.example?token=" + private },
		"plain http":          func(c *transit.Config) { c.Address = "http://" + private + ".example" },
		"scheme":              func(c *transit.Config) { c.Address = "ftp://127.0.0.1" },
		"no key":              func(c *transit.Config) { c.Key = "" },
		"slash in key":        func(c *transit.Config) { c.Key = "a/" + private },
		"dots in key":         func(c *transit.Config) { c.Key = ".." },
		"dots in mount":       func(c *transit.Config) { c.Mount = "transit/../" + private },
		"odd mount":           func(c *transit.Config) { c.Mount = "transit?" + private },
		"odd namespace":       func(c *transit.Config) { c.Namespace = "a b" + private },
		"long names":          func(c *transit.Config) { c.Mount = strings.Repeat("m", 90) },
		"no auth":             func(c *transit.Config) { c.Auth = transit.Auth{} },
		"token of nobody":     func(c *transit.Config) { c.Auth = transit.Token(nil) },
		"role without id":     func(c *transit.Config) { c.Auth = transit.AppRole("", "", nil) },
		"odd mount of role":   func(c *transit.Config) { c.Auth = transit.AppRole("../"+private, "role", nil) },
		"CA":                  func(c *transit.Config) { c.CA = []byte(private) },
		"CA and transport":    func(c *transit.Config) { c.ServerName, c.Transport = private, direct{} },
		"timeout":             func(c *transit.Config) { c.Timeout = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			c := good
			change(&c)
			_, err := transit.New(c)
			is.True(errors.Is(err, transit.ErrConfig))
			is.True(!strings.Contains(err.Error(), private))
		})
	}
	for _, address := range []string{"http://127.0.0.1:8200", "http://localhost:8200/", "http://[::1]:8200", "https://vault.example/"} {
		c := good
		c.Address = address
		if _, err := transit.New(c); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestCertificateIsChecked(t *testing.T) {
	t.Parallel()
	now := newClock().Now
	for name, change := range map[string]func(*transit.Config){
		"another authority": func(c *transit.Config) { c.CA = nil },
		"another name":      func(c *transit.Config) { c.ServerName = "vault.test" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s := service(now)
			p, _ := overTLS(t, s, change)
			_, err := p.CurrentKey(t.Context())
			is.True(errors.Is(err, vault.ErrUnavailable))
			is.True(strings.Contains(err.Error(), "certificate is not trusted"))
			is.Equal(s.Calls("keys"), 0)
		})
	}
	t.Run("the name given", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		p, _ := overTLS(t, service(now), func(c *transit.Config) { c.ServerName = "example.com" }) // in httptest's certificate
		_, err := p.CurrentKey(t.Context())
		is.NoErr(err)
	})
}

// TestRedirectIsNotFollowed: it would carry the token along.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var visits int
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits++ }))
	defer thief.Close()
	s := service(newClock().Now)
	s.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, thief.URL+"/v1/stolen", http.StatusTemporaryRedirect)
		return true
	})
	p, _ := overTLS(t, s)
	_, err := p.CurrentKey(context.Background())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(strings.Contains(err.Error(), "redirects"))
	is.Equal(visits, 0)
}

// TestHoldsKey: a version is held until it can't come back.
func TestHoldsKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	clock := newClock()
	s := service(clock.Now)
	p := open(t, config(s, clock.Now))
	holds := func(id string) bool {
		t.Helper()
		held, err := p.HoldsKey(t.Context(), id)
		is.NoErr(err)
		return held
	}
	first, err := p.CurrentKey(t.Context())
	is.NoErr(err)
	clock.Advance(time.Minute)
	s.Rotate(ourKey)
	p = open(t, config(s, clock.Now)) // which has not read the key yet
	second, err := p.CurrentKey(t.Context())
	is.NoErr(err)
	is.True(holds(first) && holds(second))
	s.Least(ourKey, 2)
	is.True(holds(first)) // min_decryption_version can be lowered again
	s.Trim(ourKey, 2)
	is.True(!holds(first) && holds(second))
	is.True(!holds(strings.Replace(second, ":v2:", ":v9:", 1)))
	s.DeleteKey(ourKey)
	is.True(!holds(second))
	clock.Advance(time.Minute)
	s.AddKey(ourKey, "aes256-gcm96", false)
	is.True(!holds(first)) // another key of the same name and version
	_, err = p.HoldsKey(t.Context(), "local:00000000000000000000000000000000")
	is.True(errors.Is(err, vault.ErrUnavailable))
	for _, fault := range []func(http.ResponseWriter, *http.Request) bool{status(503), status(404), says("{}")} {
		s.Fail(fault)
		_, err = p.HoldsKey(t.Context(), second)
		is.True(errors.Is(err, vault.ErrUnavailable))
	}
}
