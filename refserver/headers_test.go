package refserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestHeadersOnEveryStatus: whatever becomes of a request, its response carries
// the security headers and an id, and nothing under /api may be kept.
func TestHeadersOnEveryStatus(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	exhausted, spent := f.Agent("busy")
	for range 11 {
		f.Do("POST", "/api/tools/"+tool+"/request", spent, `x`)
	}
	tests := []struct {
		status int
		r      servertest.Request
	}{
		{200, servertest.Request{Method: "GET", Path: "/api/tools", Token: key}},
		{200, servertest.Request{Method: "HEAD", Path: "/api/tools", Token: key}},
		{200, servertest.Request{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key}},
		{200, servertest.Request{Method: "GET", Path: "/api/admin/audit/export", Token: f.Owner}},
		{200, servertest.Request{Method: "GET", Path: "/livez"}},
		{200, servertest.Request{Method: "GET", Path: "/readyz"}},
		{200, servertest.Request{Method: "HEAD", Path: "/readyz"}},
		{201, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: `{"name":"bot"}`}},
		{308, servertest.Request{Method: "GET", Path: "/api/tools/"}},
		{308, servertest.Request{Method: "GET", Path: "/api/admin/agents/"}},
		{308, servertest.Request{Method: "GET", Path: "/livez/"}},
		{400, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: `x`}},
		{401, servertest.Request{Method: "GET", Path: "/api/tools"}},
		{403, servertest.Request{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: spent}},
		{404, servertest.Request{Method: "GET", Path: "/api/nothing"}},
		{404, servertest.Request{Method: "GET", Path: "/api/admin/nothing"}},
		{404, servertest.Request{Method: "GET", Path: "/api"}},
		{404, servertest.Request{Method: "GET", Path: "/api/"}},
		{404, servertest.Request{Method: "GET", Path: "/api/admin"}},
		{404, servertest.Request{Method: "GET", Path: "/"}},
		{404, servertest.Request{Method: "GET", Path: "/index.html"}},
		{404, servertest.Request{Method: "GET", Path: "/api//tools"}},
		{404, servertest.Request{Method: "GET", Path: "/api/tools//"}},
		{404, servertest.Request{Method: "GET", Path: "//evil.example/"}},
		{404, servertest.Request{Method: "GET", Path: "//evil.example/api/tools/"}},
		{404, servertest.Request{Method: "GET", Path: "/%5cevil.example/"}},
		{404, servertest.Request{Method: "GET", Path: "/api/x/../tools"}},
		{404, servertest.Request{Method: "GET", Path: "/api/tools/%2e%2e/me"}},
		{404, servertest.Request{Method: "OPTIONS", Path: "*"}},
		{405, servertest.Request{Method: "DELETE", Path: "/api/tools"}},
		{405, servertest.Request{Method: "TRACE", Path: "/api/tools"}},
		{405, servertest.Request{Method: "BREW", Path: "/api/me"}},
		{405, servertest.Request{Method: "POST", Path: "/livez"}},
		{405, servertest.Request{Method: "GET", Path: "/api/admin/organization/lock", Token: f.Owner}},
		{409, servertest.Request{Method: "POST", Path: "/api/tools/" + tool + "/request", Token: key, Body: `{"reason":"needed"}`}},
		{413, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: strings.Repeat("x", 40000)}},
		{415, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: `{}`, Header: http.Header{"Content-Type": {"text/plain"}}}},
		{429, servertest.Request{Method: "POST", Path: "/api/tools/" + tool + "/request", Token: spent, Body: `x`}},
		{403, servertest.Request{Method: "GET", Path: "/api/me", Token: spent}}, // suspended below
	}
	f.Must(200, "DELETE", "/api/admin/agents/"+exhausted, f.Owner, "")
	f.Must(200, "POST", "/api/admin/agents/"+exhausted+"/reactivate", f.Owner, "")
	ids := map[string]bool{}
	for i, tt := range tests {
		if i == len(tests)-1 {
			f.Must(200, "DELETE", "/api/admin/agents/"+exhausted, f.Owner, "")
		}
		t.Run(tt.r.Method+" "+tt.r.Path, func(t *testing.T) {
			is := is.New(t)
			res := f.Send(tt.r)
			is.Equal(res.Status, tt.status)
			for name, want := range map[string]string{
				"X-Content-Type-Options":    "nosniff",
				"X-Frame-Options":           "DENY",
				"Referrer-Policy":           "strict-origin-when-cross-origin",
				"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
				"Permissions-Policy":        "camera=(), microphone=(), geolocation=()",
			} {
				is.Equal(res.Header.Get(name), want)
			}
			for _, directive := range []string{"default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "form-action 'self'"} {
				is.True(strings.Contains(res.Header.Get("Content-Security-Policy"), directive))
			}
			id := res.Header.Get("X-Request-Id")
			is.Equal(len(id), 36)
			is.Equal(id[14], byte('7')) // UUIDv7
			is.True(!ids[id])
			ids[id] = true
			if tt.r.Path == "/api" || strings.HasPrefix(tt.r.Path, "/api/") {
				is.True(strings.HasPrefix(res.Header.Get("Cache-Control"), "no-store"))
			}
			if tt.status >= 400 {
				is.True(strings.HasPrefix(res.Header.Get("Content-Type"), "application/json"))
				is.True(res.Object(t)["error"] != nil)
			}
			if tt.status == 405 {
				is.True(res.Header.Get("Allow") != "")
			}
		})
	}
}

func TestTrailingSlash(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	for path, want := range map[string]string{
		"/api/tools/":                 "/api/tools",
		"/api/tools/?limit=2":         "/api/tools?limit=2",
		"/api/tools/a%2fb/request/":   "/api/tools/a%2fb/request",
		"/api/admin/audit-log/?a=b&c": "/api/admin/audit-log?a=b&c",
	} {
		is := is.New(t)
		res := f.Do("POST", path, "", "")
		is.Equal(res.Status, http.StatusPermanentRedirect)
		is.Equal(res.Header.Get("Location"), want)
	}
}

func TestClientRequestID(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	for _, id := range []string{"client.id_1-x", strings.Repeat("a", 64), strings.Repeat("a", 65), "a b", "é", "<script>"} {
		res := f.Send(servertest.Request{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key, Header: http.Header{"X-Request-Id": {id}}})
		is.Equal(res.Status, 200)
		is.True(res.Header.Get("X-Request-Id") != id) // ours
	}
	log := f.Do("GET", "/api/admin/audit/export", f.Owner, "").Body
	is.True(strings.Contains(log, "client.id_1-x"))
	is.True(strings.Contains(log, strings.Repeat("a", 64)))
	is.True(!strings.Contains(log, strings.Repeat("a", 65)))
	is.True(!strings.Contains(log, "script>"))
}

func TestProblemJSON(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	for _, tt := range []struct {
		accept  string
		problem bool
	}{
		{"", false}, {"*/*", false}, {"application/json", false}, {"application/*", false},
		{"application/problem+json", true}, {"application/json, application/problem+json", true},
		{"Application/Problem+JSON; q=0.5", true}, {"application/problem+json;q=0", false}, {"application/problem+json; q=0.000", false},
		{"application/json;q=0.9, application/problem+json", true}, {"application/json, application/problem+json;q=0.9", false},
		{"application/problem+json;q=0.5;x=1, */*", true}, {"application/problem+json; q=x", false}, {"application/problem+json;q=2", false}, {"application/problem+json;q=NaN", false},
		{"application/json;q=0, application/problem+json;q=0.1", true},
	} {
		is := is.New(t)
		res := f.Send(servertest.Request{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key, Header: http.Header{"Accept": {tt.accept}}})
		is.Equal(res.Status, 403)
		is.Equal(res.Header.Get("Vary"), "Accept")
		o := res.Object(t)
		is.True(o["hint"] != nil)
		is.Equal(res.Header.Get("Content-Type") == "application/problem+json", tt.problem)
		is.Equal(o["title"] == "Forbidden" && o["status"] == 403.0 && o["code"] == "no_grant" && o["type"] == "about:blank", tt.problem)
		is.Equal(o["error"] != nil, !tt.problem)
	}
	is := is.New(t)
	wants := http.Header{"Accept": {"application/problem+json"}}
	res := f.Send(servertest.Request{Method: "POST", Path: "/api/tools/" + tool + "/request", Token: key, Body: `{}`, Header: wants})
	is.Equal(len(res.Object(t)["details"].([]any)), 1)
	for _, tt := range []struct {
		status int
		r      servertest.Request
	}{
		{400, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: `[]`}},
		{401, servertest.Request{Method: "GET", Path: "/api/me"}},
		{404, servertest.Request{Method: "GET", Path: "/api/nothing"}},
		{405, servertest.Request{Method: "DELETE", Path: "/api/me"}},
		{409, servertest.Request{Method: "DELETE", Path: "/api/admin/administrators/" + f.OwnerID, Token: f.Owner}},
		{413, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner, Body: strings.Repeat("x", 40000)}},
		{415, servertest.Request{Method: "POST", Path: "/api/admin/agents", Token: f.Owner}},
	} {
		t.Run(tt.r.Method+" "+tt.r.Path, func(t *testing.T) {
			is := is.New(t)
			tt.r.Header = wants
			res := f.Send(tt.r)
			o := res.Object(t)
			is.Equal(res.Status, tt.status)
			is.Equal(res.Header.Get("Content-Type"), "application/problem+json")
			is.Equal(o["status"], float64(tt.status))
			is.True(o["hint"] != nil && o["code"] != nil && o["detail"] != nil)
			is.Equal(o["details"] != nil, tt.status == 400)
		})
	}
	for range 9 {
		f.Do("POST", "/api/tools/"+tool+"/request", key, `{}`)
	}
	limited := f.Send(servertest.Request{Method: "POST", Path: "/api/tools/" + tool + "/request", Token: key, Body: `{}`, Header: wants})
	is.Equal(limited.Status, 429)
	is.Equal(limited.Header.Get("Content-Type"), "application/problem+json")
	is.True(limited.Header.Get("Retry-After") != "" && limited.Object(t)["hint"] != nil)
	ok := f.Send(servertest.Request{Method: "GET", Path: "/api/me", Token: key, Header: http.Header{"Accept": {"application/problem+json"}}})
	is.Equal(ok.Header.Get("Content-Type"), "application/json; charset=utf-8") // only errors are problems
}
