package agentapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

func TestRequestAfterEveryStatus(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	path := "/api/tools/" + tool + "/request"
	ask := func(status int) servertest.Response {
		t.Helper()
		res := f.Do("POST", path, key, `{"reason":"needed"}`)
		is.Equal(res.Status, status)
		return res
	}
	decide := func(request, verdict string) {
		f.Must(200, "POST", "/api/admin/requests/"+request+"/"+verdict, f.Owner, `{}`)
	}

	first := ask(201)
	is.Equal(keys(first.Object(t)), "message request_id status")
	id := first.Object(t)["request_id"].(string)
	is.Equal(first.Header.Get("X-RateLimit-Limit"), "") // off: no header
	ask(409)                                            // pending
	decide(id, "deny")
	is.Equal(ask(201).Object(t)["request_id"], id) // denied: the same row
	decide(id, "approve")
	ask(409) // approved
	f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	is.Equal(ask(201).Object(t)["request_id"], id) // revoked: the same row
	is.Equal(f.Do("POST", "/api/tools/"+unknownID+"/request", key, `{"reason":"needed"}`).Status, 404)
	is.Equal(f.Do("POST", "/api/tools/not-an-id/request", key, `{"reason":"needed"}`).Status, 404)
	is.Equal(f.Do("POST", "/api/tools/not-an-id/request", "", `{"reason":"needed"}`).Status, 401) // the key comes first
	is.Equal(f.Do("POST", "/api/tools/"+strings.ToUpper(tool)+"/request", key, `{"reason":"needed"}`).Status, 409)
}

func TestRequestCarriesTerms(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	res := f.Do("POST", "/api/tools/"+tool+"/request", key,
		`{"reason":"  needed for the release  ","duration":3600,"max_vends":5,"scopes":["issues:read"," issues:write "],"ticket":"OPS-1","unknown":{"ignored":true}}`)
	is.Equal(res.Status, 201)
	is.Equal(res.Header.Get("X-RateLimit-Policy"), "10;w=3600")
	item := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)[0]
	is.Equal(item["reason"], "needed for the release")
	is.Equal(item["ticket"], "OPS-1")
	is.Equal(fmt.Sprint(item["asked"]), "map[duration:3600 maxVends:5 scopes:[issues:read issues:write]]")
	is.Equal(item["requestedAt"], "2026-11-23T06:40:14.128Z")
}

// TestRequestRefusesBadInput: a clear error, and nothing is stored.
func TestRequestRefusesBadInput(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
	media := func(v string) http.Header { return http.Header{"Content-Type": {v}} }
	of := func(n int) string { // a body of n bytes
		return `{"reason":"needed","x":"` + strings.Repeat("a", n-len(`{"reason":"needed","x":""}`)) + `"}`
	}
	tests := []struct {
		name, body string
		header     http.Header
		status     int
		field      string // that details must name
	}{
		{"no content type", `{"reason":"needed"}`, http.Header{"Content-Type": nil}, 415, ""},
		{"text", `{"reason":"needed"}`, media("text/plain"), 415, ""},
		{"form", `reason=needed`, media("application/x-www-form-urlencoded"), 415, ""},
		{"json as suffix only", `{"reason":"needed"}`, media("+json"), 415, ""},
		{"json as a prefix", `{"reason":"needed"}`, media("application/jsonp"), 415, ""},
		{"compressed", `{"reason":"needed"}`, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, 415, ""},
		{"media type before size", of(9000), media("text/plain"), 415, ""},
		{"one byte too long", of(8193), nil, 413, ""},
		{"size before syntax", strings.Repeat("x", 9000), nil, 413, ""},
		{"no body", ``, media("application/json"), 400, ""},
		{"garbage", `nope`, nil, 400, ""},
		{"trailing garbage", `{"reason":"needed"} x`, nil, 400, ""},
		{"two keys", `{"reason":"needed","reason":"other reason"}`, nil, 400, ""},
		{"invalid UTF-8", "{\"reason\":\"needed \xff\"}", nil, 400, ""},
		{"deep", `{"reason":"needed","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, nil, 400, ""},
		{"array", `[]`, nil, 400, "input"},
		{"string", `"needed"`, nil, 400, "input"},
		{"null", `null`, nil, 400, "input"},
		{"empty object", `{}`, nil, 400, "reason"},
		{"number", `{"reason":12345}`, nil, 400, "reason"},
		{"null reason", `{"reason":null}`, nil, 400, "reason"},
		{"short", `{"reason":"four"}`, nil, 400, "reason"},
		{"short once trimmed", `{"reason":"  \ufeff\u00a0 four \n\t"}`, nil, 400, "reason"},
		{"long", `{"reason":"` + strings.Repeat("a", 501) + `"}`, nil, 400, "reason"},
		{"long in UTF-16", `{"reason":"` + strings.Repeat("😀", 251) + `"}`, nil, 400, "reason"},
		{"NUL", `{"reason":"needed\u0000"}`, nil, 400, "reason"},
		{"control", `{"reason":"needed\u0007"}`, nil, 400, "reason"},
		{"duration as text", `{"reason":"needed","duration":"8h"}`, nil, 400, "duration"},
		{"negative duration", `{"reason":"needed","duration":-1}`, nil, 400, "duration"},
		{"fraction", `{"reason":"needed","duration":1.5}`, nil, 400, "duration"},
		{"duration that overflows", `{"reason":"needed","duration":9007199254740991}`, nil, 400, "duration"},
		{"duration of a century", `{"reason":"needed","duration":3155760000}`, nil, 400, "duration"},
		{"negative vends", `{"reason":"needed","max_vends":-1}`, nil, 400, "max_vends"},
		{"scopes as text", `{"reason":"needed","scopes":"a"}`, nil, 400, "scopes"},
		{"scope as number", `{"reason":"needed","scopes":["a",1]}`, nil, 400, "scopes.1"},
		{"no scopes", `{"reason":"needed","scopes":[]}`, nil, 400, "scopes"},
		{"ticket", `{"reason":"needed","ticket":"` + strings.Repeat("a", 201) + `"}`, nil, 400, "ticket"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			res := f.Send(servertest.Request{Method: "POST", Path: path, Token: key, Body: tt.body, Header: tt.header})
			is.Equal(res.Status, tt.status)
			is.True(res.Object(t)["error"] != "")
			is.True(res.Object(t)["hint"] != nil) // says what to do
			if tt.field != "" {
				is.True(strings.Contains(res.Body, `"field":"`+tt.field+`"`))
			}
			if tt.status == 413 {
				is.True(strings.Contains(res.Body, "8192")) // names the limit
			}
			is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
		})
	}
	is := is.New(t)
	is.Equal(len(f.Do("GET", "/api/admin/grants", f.Owner, "").Items(t)), 0) // nothing was stored
	is.Equal(f.Do("POST", path, key, of(8192)).Status, 201)                  // exactly the limit passes
}

func TestRequestListsAllFields(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
	res := f.Do("POST", path, key, `{"reason":"four","ticket":"`+strings.Repeat("a", 201)+`"}`)
	is.Equal(len(res.Object(t)["details"].([]any)), 2)
	res = f.Do("POST", path, key, `{"reason":4,"ticket":5}`)
	is.Equal(len(res.Object(t)["details"].([]any)), 2)
}

// TestChunkedBodiesAreCounted sends a body without a declared length.
func TestChunkedBodiesAreCounted(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
	server := httptest.NewServer(f.Handler)
	defer server.Close()
	for size, status := range map[int]int{8193: 413, 1 << 20: 413} {
		body := io.LimitReader(strings.NewReader(`{"reason":"`+strings.Repeat("a", 2<<20)), int64(size))
		req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+path, struct{ io.Reader }{body})
		is.NoErr(err)
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/vnd.agentkey+json; charset=utf-8")
		res, err := http.DefaultClient.Do(req)
		is.NoErr(err)
		is.NoErr(res.Body.Close())
		is.Equal(res.StatusCode, status)
	}
}

func TestRequestSchema(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	for range 700 { // beyond every limit, and without a key
		is.Equal(f.Do("GET", "/api/tools/any-text/request", "", "").Status, 200)
	}
	schema := f.Do("GET", "/api/tools/any-text/request", "", "").Object(t)["schema"].(map[string]any)
	is.Equal(keys(schema), "body description method path responses")
	reason := schema["body"].(map[string]any)["reason"].(map[string]any)
	is.Equal(keys(reason), "description example max_length min_length required type")
	is.Equal(reason["max_length"], 500.0)
	created := schema["responses"].(map[string]any)["201"].(map[string]any)
	is.Equal(keys(created), "description example")
}

// TestRequestLimit: the limit counts before the body is looked at, in any window
// of its length.
func TestRequestLimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
	for range 9 {
		is.Equal(f.Do("POST", path, key, `garbage`).Status, 400)
		f.Clock.Add(time.Minute)
	}
	is.Equal(f.Do("POST", path, key, `{"reason":"needed"}`).Status, 201)
	res := f.Do("POST", path, key, `garbage`)
	is.Equal(res.Status, http.StatusTooManyRequests) // even for garbage
	is.Equal(res.Header.Get("X-RateLimit-Remaining"), "0")
	is.Equal(res.Header.Get("X-RateLimit-Reset"), "1795419614128") // an hour after the first, to the millisecond
	is.Equal(res.Header.Get("Retry-After"), "3060")
	is.Equal(res.Header.Get("RateLimit"), `"request";r=0;t=3060`)
	is.True(res.Object(t)["hint"] != nil)
	f.Clock.Add(3060*time.Second - time.Microsecond)
	is.Equal(f.Do("POST", path, key, `garbage`).Status, 429)
	f.Clock.Add(time.Microsecond)
	is.Equal(f.Do("POST", path, key, `garbage`).Status, 400) // not a moment too early, not one too late
}

func TestIdenticalRequestsAtOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	for range 50 {
		path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
		var (
			wg     sync.WaitGroup
			mu     sync.Mutex
			counts = map[int]int{}
		)
		for range 16 {
			wg.Go(func() {
				status := f.Do("POST", path, key, `{"reason":"needed"}`).Status
				mu.Lock()
				defer mu.Unlock()
				counts[status]++
			})
		}
		wg.Wait()
		is.Equal(fmt.Sprint(counts), "map[201:1 409:15]")
	}
}
