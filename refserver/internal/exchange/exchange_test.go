package exchange_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/vault"
)

var now = time.Date(2026, 11, 23, 6, 40, 14, 128_000_000, time.UTC)

// serve answers one request with h and gives the response and what was logged.
func serve(t *testing.T, r *http.Request, h exchange.Handler) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rt := exchange.NewRouter(exchange.Config{Logger: logger, Clock: func() time.Time { return now }})
	rt.Handle(http.MethodGet, "/api/x", h)
	rt.Handle(http.MethodPost, "/api/x", h)
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	return w, log.String()
}

func TestEveryFamilyHasItsStatus(t *testing.T) {
	t.Parallel()
	internal := errors.New("secret detail")
	tests := []struct {
		err         error
		status      int
		text, hint  string
		header, set string
	}{
		{agentkey.ErrUnknownKey, 401, "unknown key", agentkey.ErrUnknownKey.Hint, "WWW-Authenticate", "Bearer"},
		{agentkey.ErrNoGrant, 403, "no grant", agentkey.ErrNoGrant.Hint, "", ""},
		{agentkey.ErrRole, 403, "the role does not allow this", agentkey.ErrRole.Hint, "", ""},
		{agentkey.ErrNoTool, 404, "no such tool", agentkey.ErrNoTool.Hint, "", ""},
		{agentkey.ErrNoCredential, 409, "the tool has no credential", agentkey.ErrNoCredential.Hint, "", ""},
		{agentkey.ErrStorage, 503, "storage does not answer", agentkey.ErrStorage.Hint, "Retry-After", "2"},
		{agentkey.ErrIntegrity, 503, "a stored record fails its integrity check", agentkey.ErrIntegrity.Hint, "Retry-After", "2"},
		{fmt.Errorf("%w: %w", agentkey.ErrStorage, internal), 503, "storage does not answer", agentkey.ErrStorage.Hint, "Retry-After", "2"},
		{fmt.Errorf("secret detail: %w", agentkey.ErrConflict), 409, "conflict", "", "", ""},
		{fmt.Errorf("secret detail: %w", agentkey.ErrUnauthenticated), 401, "not authenticated", "", "WWW-Authenticate", "Bearer"},
		{context.DeadlineExceeded, 503, "temporarily unavailable", "", "Retry-After", "2"},
		{context.Canceled, 503, "temporarily unavailable", "", "Retry-After", "2"},
		{internal, 500, "internal error", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.err), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(*exchange.Exchange) error { return tt.err })
			is.Equal(w.Code, tt.status)
			want := map[string]any{"error": tt.text}
			if tt.hint != "" {
				want["hint"] = tt.hint
			}
			var got map[string]any
			is.NoErr(json.Unmarshal(w.Body.Bytes(), &got))
			is.Equal(got, want) // and nothing of what was wrapped
			if tt.header != "" {
				is.Equal(w.Header().Get(tt.header), tt.set)
			}
		})
	}
}

func TestInternalErrorIsLoggedAndNotTold(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w, log := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(*exchange.Exchange) error { return errors.New("detail") })
	is.Equal(w.Body.String(), `{"error":"internal error"}`)
	is.True(strings.Contains(log, "error=detail"))
	is.True(strings.Contains(log, "request="+w.Header().Get("X-Request-Id"))) // so that one leads to the other
}

func TestPanic(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w, log := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(*exchange.Exchange) error { panic("lin_api_test_panic") })
	is.Equal(w.Code, 500)
	is.Equal(w.Body.String(), `{"error":"internal error"}`)
	is.True(strings.Contains(log, "stack=")) // where
	is.True(!strings.Contains(log, "lin_api_test_panic"))
}

// TestErrorAfterTheAnswerBegan cuts the connection: half an answer is never
// taken for a whole one.
func TestErrorAfterTheAnswerBegan(t *testing.T) {
	t.Parallel()
	half := func(x *exchange.Exchange) error {
		return x.Stream("text/plain", "x.txt", time.Minute, func(_ context.Context, w *exchange.StreamWriter) error {
			if _, err := w.Write([]byte("half")); err != nil {
				return err
			}
			return errors.New("then it broke")
		})
	}
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		defer func() { is.Equal(recover(), http.ErrAbortHandler) }()
		serve(t, httptest.NewRequest("GET", "/api/x", nil), half)
		t.Error("the answer ended as if it were whole")
	})
	t.Run("nothing sent yet", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(x *exchange.Exchange) error {
			return x.Stream("text/plain", "x.txt", time.Minute, func(context.Context, *exchange.StreamWriter) error { return agentkey.ErrRole })
		})
		is.Equal(w.Code, 403)
		is.Equal(w.Header().Get("Content-Disposition"), "")
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(x *exchange.Exchange) error {
			return x.Stream("text/plain", "x.txt", time.Minute, func(context.Context, *exchange.StreamWriter) error { return nil })
		})
		is.Equal(w.Code, 200)
	})
}

// TestStreamOutlivesTheTimeouts: a stream has a time of its own, and ends with it
// even when the client reads nothing.
func TestStreamOutlivesTheTimeouts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ended := make(chan error, 1)
	rt := exchange.NewRouter(exchange.Config{})
	rt.Handle(http.MethodGet, "/api/x", func(x *exchange.Exchange) error {
		return x.Stream("text/plain", "x.txt", 50*time.Millisecond, func(_ context.Context, w *exchange.StreamWriter) error {
			for { // more than any buffer between here and a client that does not read
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					ended <- err
					return err
				}
			}
		})
	})
	server := httptest.NewServer(rt)
	defer server.Close()
	res, err := http.Get(server.URL + "/api/x")
	is.NoErr(err)
	is.True(<-ended != nil)
	is.NoErr(res.Body.Close())
}

func TestBodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	r := httptest.NewRequest("POST", "/api/x", iotest.ErrReader(errors.New("gone")))
	r.Header.Set("Content-Type", "application/json")
	w, _ := serve(t, r, func(x *exchange.Exchange) error {
		return x.Read(exchange.Body{Limit: 100}, func(*exchange.Fields) {})
	})
	is.Equal(w.Code, 400)
}

func TestSecretField(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`"plain"`: "plain", `" \n\u2003padded\ufeff "`: "padded", `"in side"`: "in side", `"esc\u0061ped\n\"x\""`: "escaped\n\"x\"",
		`""`: "", `"  "`: "", `"\u0085"`: "\u0085",
	} {
		is := is.New(t)
		r := httptest.NewRequest("POST", "/api/x", strings.NewReader(`{"credential":`+text+`}`))
		r.Header.Set("Content-Type", "application/json")
		var s *vault.Secret
		w, _ := serve(t, r, func(x *exchange.Exchange) error {
			return x.Read(exchange.Body{Limit: 100, Strict: true}, func(f *exchange.Fields) { f.Secret("credential", &s) })
		})
		is.Equal(w.Code, 200)
		is.Equal(string(s.Bytes()), want) // nil is blank; and it outlives the body, which is zeroed
	}
}

// TestObjectIsZeroed: not one byte of a secret is left in what the answer was
// built in, nor in what it was moved from.
func TestObjectIsZeroed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	secret := strings.Repeat("lin_api_test_zero ", 200)
	var before, after []byte
	w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(x *exchange.Exchange) error {
		o := exchange.Enveloped()
		o.Secret("a", vault.NewSecret([]byte(secret)))
		before = o.Bytes()
		is.True(bytes.Contains(before, []byte(secret)))
		o.Field("b", strings.Repeat("x", 100_000)) // moves
		is.True(!bytes.Contains(before, []byte("lin_api_test")))
		o.Field("c", "") // moves, and leaves room for the end
		after = o.Bytes()
		is.True(bytes.Contains(after, []byte(secret)))
		return x.Secret(200, o)
	})
	var got struct{ Data struct{ A, B string } }
	is.NoErr(json.Unmarshal(w.Body.Bytes(), &got))
	is.Equal(got.Data.A, secret)
	is.Equal(len(got.Data.B), 100_000)
	is.True(!bytes.Contains(after, []byte("lin_api_test")))
}

// FuzzObject: whatever a secret is, the answer is JSON that reads back as it.
func FuzzObject(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\x00\x7f", "é😀\u2028</script>", "\xff\xfe", `{"a":[1]}`, ` "text" `, "null", "1e400"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, secret []byte) {
		w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(x *exchange.Exchange) error {
			o := new(exchange.ObjectWriter)
			o.Secret("text", vault.NewSecret(bytes.Clone(secret)))
			o.SecretJSON("value", vault.NewSecret(bytes.Clone(secret)))
			return x.Secret(200, o)
		})
		var got struct {
			Text     string          `json:"text"`
			Encoding string          `json:"text_encoding"`
			Value    json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("no JSON: %v", err)
		}
		if got.Encoding == "" && got.Text != string(secret) {
			t.Fatal("another text came out")
		}
		if got.Encoding == "" && json.Valid(secret) && !bytes.Equal(got.Value, bytes.TrimSpace(secret)) {
			t.Fatal("another value came out")
		}
	})
}

func TestLimitHeaders(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	policy := ratelimit.Policy{Limit: 10, Window: time.Hour}
	w, _ := serve(t, httptest.NewRequest("GET", "/api/x", nil), func(*exchange.Exchange) error {
		return &agentkey.LimitError{Tier: ratelimit.TierRequest, Decision: ratelimit.Decision{
			Policy: policy, Limit: 10, Reset: now.UnixMicro() + 1_000_001, RetryAfter: 1_000_001 * time.Microsecond,
		}}
	})
	is.Equal(w.Code, 429)
	is.Equal(w.Header().Get("Retry-After"), "2") // rounded up: never too early
	is.Equal(w.Header().Get("X-RateLimit-Reset"), fmt.Sprint(now.UnixMilli()+1001))
	is.Equal(w.Header().Get("RateLimit"), `"request";r=0;t=2`)
	is.Equal(w.Header().Get("RateLimit-Policy"), `"request";q=10;w=3600`)
}

func TestWhatIsRecordedOfHeaders(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(exchange.TraceID("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "0af7651916cd43dd8448eb211c80319c")
	for _, bad := range []string{"", "x", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c b7ad6b7169203331-01"} {
		is.Equal(exchange.TraceID(bad), "")
	}
	is.Equal(exchange.Printable("curl/8\x00\n\u202e \xff é"), "curl/8  é")
	is.True(len(exchange.Printable(strings.Repeat("é", 5000))) <= 512)
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	got, ok := exchange.ParseTime("2026-11-23T06:40:14.128Z")
	is.True(ok)
	is.Equal(exchange.Time(got.UnixMicro()), "2026-11-23T06:40:14.128Z")
	for _, bad := range []string{"", "2026-11-23", "2026-11-23T06:40:14", "2026-11-23T06:40:14+00:00", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"} {
		_, ok := exchange.ParseTime(bad)
		is.True(!ok)
	}
	is.Equal(exchange.Time(0), "1970-01-01T00:00:00.000Z")
}
