package awskms_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/awskms"
	"github.com/agentkey-dev/agentkey-go/vault/awskms/internal/kmstest"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

const (
	region   = "eu-central-1"
	ourKey   = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	otherKey = "arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"
)

// direct carries requests to a handler without a network.
type direct struct{ handler http.Handler }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.handler.ServeHTTP(w, r)
	}()
	<-done // the handlers here watch the request's context
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	return w.Result(), nil
}

func service() *kmstest.Server {
	s := kmstest.New(region, time.Now)
	s.AddKey(ourKey)
	s.AddKey(otherKey)
	return s
}

func settings(client aws.HTTPClient, url string) aws.Config {
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(url), HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider(kmstest.AccessKey, kmstest.SecretKey, ""),
	}
}

func open(t *testing.T, s http.Handler, keys ...string) *awskms.Provider {
	t.Helper()
	p, err := awskms.New(awskms.Config{Keys: keys, AWS: settings(direct{s}, "https://kms.example")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func sample() vault.Context {
	return vault.Context{Installation: "installation-1", Organization: "organization-1", Purpose: "seal", Key: "00ff"}
}

func dataKey() []byte { return []byte("32 bytes for tests, not a secret") }

func TestConformance(t *testing.T) {
	t.Parallel()
	s := service()
	over := func(keys ...string) func(*testing.T) (vault.KeyProvider, func()) {
		return func(t *testing.T) (vault.KeyProvider, func()) {
			server := httptest.NewTLSServer(s)
			t.Cleanup(server.Close)
			p, err := awskms.New(awskms.Config{Keys: keys, AWS: settings(server.Client(), server.URL), Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return p, server.Close
		}
	}
	first := func(f func(*testing.T) (vault.KeyProvider, func())) func(*testing.T) vault.KeyProvider {
		return func(t *testing.T) vault.KeyProvider { p, _ := f(t); return p }
	}
	vaulttest.TestProvider(t, first(over(ourKey)), vaulttest.WithOther(first(over(otherKey))), vaulttest.WithOutage(over(ourKey)),
		vaulttest.WithSecrets([]byte(kmstest.SecretKey)))
}

// TestRealService runs the suite against KMS, with the SDK's usual credentials.
func TestRealService(t *testing.T) {
	t.Parallel()
	first, second := os.Getenv("AGENTKEY_TEST_KMS_KEY"), os.Getenv("AGENTKEY_TEST_KMS_OTHER_KEY")
	if first == "" || second == "" {
		t.Skip("no real service: AGENTKEY_TEST_KMS_KEY and AGENTKEY_TEST_KMS_OTHER_KEY name keys of KMS by their ARNs")
	}
	c, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := func(key string) func(*testing.T) vault.KeyProvider {
		return func(t *testing.T) vault.KeyProvider {
			p, err := awskms.New(awskms.Config{Keys: []string{key}, AWS: c})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
	}
	vaulttest.TestProvider(t, at(first), vaulttest.WithOther(at(second)))
}

func TestKeysInARow(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := service()
	old, both := open(t, s, ourKey), open(t, s, otherKey, ourKey)
	before, err := old.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	after, err := both.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	is.Equal([]string{before.Provider, after.Provider}, []string{ourKey, otherKey})
	for _, w := range []vault.Wrapped{before, after} {
		key, err := both.UnwrapKey(t.Context(), w, sample())
		is.NoErr(err)
		is.Equal(key, dataKey())
	}
	_, err = old.UnwrapKey(t.Context(), after, sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	is.True(strings.Contains(err.Error(), "need "+otherKey+", hold ["+ourKey+"]"))
}

// TestForeignKeyIsNotAsked: whoever writes to the database can name a key of their
// own, in an account that lets everybody decrypt.
func TestForeignKeyIsNotAsked(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const foreign = "arn:aws:kms:eu-central-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	s := service()
	s.AddKey(foreign)
	w, err := open(t, s, foreign).WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	calls := s.Calls()
	_, err = open(t, s, ourKey).UnwrapKey(t.Context(), w, sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	is.Equal(s.Calls(), calls)
}

func TestEncryptionContext(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := service()
	p := open(t, s, ourKey)
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	_, err = p.UnwrapKey(t.Context(), w, sample())
	is.NoErr(err)
	want := map[string]string{
		"agentkey:installation": "installation-1", "agentkey:organization": "organization-1", "agentkey:purpose": "seal", "agentkey:key": "00ff",
	}
	is.Equal(s.Contexts(), []map[string]string{want, want})
}

// TestHoldsKey: a key is held until KMS has it no more.
func TestHoldsKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := service()
	p := open(t, s, ourKey)
	holds := func(id string) bool {
		t.Helper()
		held, err := p.HoldsKey(t.Context(), id)
		is.NoErr(err)
		return held
	}
	is.True(holds(ourKey) && holds(otherKey))
	s.Disable(ourKey)
	is.True(holds(ourKey)) // it can be enabled again
	s.DeleteKey(ourKey)
	is.True(!holds(ourKey) && holds(otherKey))
	_, err := p.HoldsKey(t.Context(), "alias/agentkey")
	is.True(errors.Is(err, vault.ErrUnavailable))
	s.Fail(refuses(http.StatusBadRequest, "AccessDeniedException"))
	_, err = p.HoldsKey(t.Context(), otherKey)
	is.True(errors.Is(err, vault.ErrUnavailable)) // it can't be told
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := settings(direct{service()}, "https://kms.example")
	c.Credentials = credentials.NewStaticCredentialsProvider(kmstest.AccessKey, "not-"+kmstest.SecretKey, "")
	p, err := awskms.New(awskms.Config{Keys: []string{ourKey}, AWS: c})
	is.NoErr(err)
	_, err = p.WrapKey(t.Context(), dataKey(), sample())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(strings.Contains(err.Error(), "InvalidSignatureException"))
	is.True(!strings.Contains(err.Error(), kmstest.SecretKey))
}

// TestWrongKeyAtStart: a Manager with another key says which it needs.
func TestWrongKeyAtStart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := service()
	c := agentkey.Config{Storage: memstore.New(), Keys: open(t, s, ourKey)}
	m, err := agentkey.New(t.Context(), c)
	is.NoErr(err)
	is.NoErr(m.Close(t.Context()))
	c.Keys = open(t, s, otherKey)
	_, err = agentkey.New(t.Context(), c)
	is.True(errors.Is(err, agentkey.ErrKeys))
	is.True(strings.Contains(err.Error(), "need "+ourKey+", hold ["+otherKey+"]"))
}

type fault = func(http.ResponseWriter, *http.Request, string) bool

// refuses answers with an error of KMS that repeats what it was sent.
func refuses(status int, name string) fault {
	return func(w http.ResponseWriter, r *http.Request, _ string) bool {
		body, _ := io.ReadAll(r.Body)
		kmstest.Refuse(w, status, name, string(body))
		return true
	}
}

func says(status int, text string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
		return true
	}
}

func decrypts(key string, plain []byte) fault {
	return func(w http.ResponseWriter, _ *http.Request, operation string) bool {
		if operation != "Decrypt" {
			return false
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": key, "Plaintext": plain})
		return true
	}
}

func slow(_ http.ResponseWriter, r *http.Request, _ string) bool {
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	return false
}

// TestFaults: whatever KMS does, there is an error in time, no key, and nothing
// secret in the error; and the provider recovers by itself. The time is that of the
// bubble, which ends only when no goroutine is left.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		fault
		unwrap, wrap error
		tries        int // of the two together
	}{
		"throttled":      {refuses(400, "ThrottlingException"), vault.ErrUnavailable, vault.ErrUnavailable, 6},
		"broken":         {refuses(500, "KMSInternalException"), vault.ErrUnavailable, vault.ErrUnavailable, 6},
		"away":           {says(503, "no"), vault.ErrUnavailable, vault.ErrUnavailable, 6},
		"no permission":  {refuses(400, "AccessDeniedException"), vault.ErrUnavailable, vault.ErrUnavailable, 2},
		"disabled":       {refuses(400, "DisabledException"), vault.ErrUnavailable, vault.ErrUnavailable, 2},
		"to be deleted":  {refuses(400, "KMSInvalidStateException"), vault.ErrUnavailable, vault.ErrUnavailable, 2},
		"deleted":        {refuses(400, "NotFoundException"), vault.ErrUnknownKey, vault.ErrUnknownKey, 2},
		"odd name":       {refuses(400, "see https://example.com/"), vault.ErrUnavailable, vault.ErrUnavailable, 2},
		"slow":           {slow, vault.ErrUnavailable, vault.ErrUnavailable, 2},
		"a page":         {says(200, "<html>Log in</html>"), vault.ErrUnavailable, vault.ErrUnavailable, 0},
		"nothing":        {says(200, "{}"), vault.ErrUnwrap, vault.ErrUnavailable, 2},
		"wrong bytes":    {decrypts(ourKey, make([]byte, 64)), vault.ErrUnwrap, nil, 2},
		"only the key":   {decrypts(ourKey, dataKey()), vault.ErrUnwrap, nil, 2},
		"of another key": {decrypts(otherKey, dataKey()), vault.ErrUnwrap, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := service()
				p := open(t, s, ourKey)
				ctx := context.Background()
				w, err := p.WrapKey(ctx, dataKey(), sample())
				is.NoErr(err)
				calls := s.Calls()

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
				if f.tries > 0 {
					is.Equal(s.Calls()-calls, f.tries)
				}

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
	for _, secret := range []string{kmstest.SecretKey, string(dataKey()), base64.StdEncoding.EncodeToString(dataKey())[:20], "<html>", "example.com", "Plaintext"} {
		if strings.Contains(text, secret) {
			t.Error("the error shows what was sent or answered")
		}
	}
}

func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := service()
		p := open(t, s, ourKey)
		s.Fail(slow)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := p.WrapKey(ctx, dataKey(), sample())
		is.True(errors.Is(err, context.DeadlineExceeded))
	})
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]awskms.Config{
		"no key":          {},
		"an alias":        {Keys: []string{"arn:aws:kms:eu-central-1:111122223333:alias/agentkey"}},
		"an id":           {Keys: []string{"1234abcd-12ab-34cd-56ef-1234567890ab"}},
		"empty":           {Keys: []string{""}},
		"another service": {Keys: []string{strings.Replace(ourKey, ":kms:", ":s3:", 1)}},
		"twice":           {Keys: []string{ourKey, ourKey}},
		"two regions":     {Keys: []string{ourKey, strings.Replace(ourKey, "central", "west", 1)}},
		"long":            {Keys: []string{ourKey + strings.Repeat("a", 100)}},
		"timeout":         {Keys: []string{ourKey}, Timeout: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, err := awskms.New(c)
			is.True(errors.Is(err, awskms.ErrConfig))
		})
	}
	is := is.New(t)
	_, err := awskms.Open(t.Context(), "alias/agentkey", nil)
	is.True(errors.Is(err, awskms.ErrConfig))
}
