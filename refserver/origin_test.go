package refserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

const allowedOrigin = "https://app.example.com"

// TestPreflight: OPTIONS needs no key and counts against no limit, and a page of
// another origin is refused without a body.
func TestPreflight(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Config: refserver.Config{Origins: []string{allowedOrigin, "http://localhost:3000"}}})
	none := servertest.New(t, servertest.Options{})
	for path, methods := range f.Server.Routes() {
		if strings.HasPrefix(path, "/api/admin") || !strings.HasPrefix(path, "/api/") {
			is.New(t).Equal(f.Do("OPTIONS", strings.ReplaceAll(path, "{", ""), "", "").Status >= 404, true) // the agents' API only
			continue
		}
		for origin, want := range map[string]int{
			"": 204, allowedOrigin: 204, "http://localhost:3000": 204,
			"https://evil.example": 403, allowedOrigin + ".evil.example": 403, allowedOrigin + ":443": 403, "http://app.example.com": 403,
			"HTTPS://APP.EXAMPLE.COM": 403, "null": 403, "*": 403,
		} {
			t.Run(path+" "+origin, func(t *testing.T) {
				is := is.New(t)
				header := http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"POST"}}
				res := f.Send(servertest.Request{Method: "OPTIONS", Path: path, Header: header})
				is.Equal(res.Status, want)
				is.Equal(res.Body, "")
				allowed := want == 204 && origin != ""
				is.Equal(res.Header.Get("Access-Control-Allow-Origin") == origin && origin != "", allowed)
				is.Equal(res.Header.Get("Access-Control-Max-Age") == "600", allowed)
				is.Equal(res.Header.Get("Access-Control-Allow-Headers") == "Authorization, Content-Type", allowed)
				is.Equal(res.Header.Get("Access-Control-Allow-Credentials"), "")
				if allowed {
					verbs := strings.Split(res.Header.Get("Access-Control-Allow-Methods"), ", ")
					is.Equal(fmt.Sprint(append(verbs, "HEAD")) != "", true)
					for _, m := range methods {
						is.Equal(strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), m), m != "HEAD")
					}
				}
				if origin != "" {
					is.Equal(none.Send(servertest.Request{Method: "OPTIONS", Path: path, Header: header}).Status, 403) // the default is nobody
				}
			})
		}
	}
	is := is.New(t)
	twice := http.Header{"Origin": {allowedOrigin, allowedOrigin}}
	is.Equal(f.Send(servertest.Request{Method: "OPTIONS", Path: "/api/tools", Header: twice}).Status, 403)
	for range 700 { // far beyond what one address may ask
		is.Equal(f.Do("OPTIONS", "/api/tools", "", "").Status, 204)
	}
	is.Equal(f.Do("GET", "/api/tools", "", "").Status, 401)
}

// TestCrossOriginRequests: a page of an allowed origin reads every answer, errors
// too; another one is served without the headers, and gets no credential.
func TestCrossOriginRequests(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Config: refserver.Config{Origins: []string{allowedOrigin}}})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	send := func(method, path, token, origin string) servertest.Response {
		return f.Send(servertest.Request{Method: method, Path: path, Header: http.Header{"Origin": {origin}, "Authorization": {"Bearer " + token}}})
	}
	tests := []struct {
		method, path, token string
		status              int
		methods             string
	}{
		{"GET", "/api/tools", key, 200, "GET, OPTIONS"},
		{"HEAD", "/api/tools", key, 200, "GET, OPTIONS"},
		{"GET", "/api/me", "unknown", 401, "GET, OPTIONS"},
		{"GET", "/api/tools/" + tool + "/request", "", 200, "GET, POST, OPTIONS"},
		{"POST", "/api/tools/" + tool + "/request", key, 415, "GET, POST, OPTIONS"},
		{"PUT", "/api/tools/" + tool + "/request", key, 405, "GET, POST, OPTIONS"},
		{"GET", "/api/tools/" + tool + "/credentials", key, 200, "GET, OPTIONS"},
		{"GET", "/api/tools/not-an-id/credentials", key, 404, "GET, OPTIONS"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			is := is.New(t)
			res := send(tt.method, tt.path, tt.token, allowedOrigin)
			is.Equal(res.Status, tt.status)
			is.Equal(res.Header.Get("Access-Control-Allow-Origin"), allowedOrigin)
			is.Equal(res.Header.Get("Access-Control-Allow-Methods"), tt.methods)
			is.Equal(res.Header.Get("Access-Control-Allow-Credentials"), "")
			for _, name := range []string{
				"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-RateLimit-Policy", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id",
			} {
				is.True(strings.Contains(", "+res.Header.Get("Access-Control-Expose-Headers")+",", ", "+name+","))
			}
			is.Equal(res.Header.Values("Vary")[0], "Origin")

			foreign := send(tt.method, tt.path, tt.token, "https://evil.example")
			if strings.HasSuffix(tt.path, "/credentials") {
				is.Equal(foreign.Status, 403) // before the key, the tool and everything else
				is.True(foreign.Object(t)["hint"] != nil)
			} else {
				is.Equal(foreign.Status, tt.status) // served, and no page reads it
			}
			is.Equal(foreign.Header.Get("Access-Control-Allow-Origin"), "")
			is.Equal(foreign.Header.Get("Access-Control-Expose-Headers"), "")
		})
	}
	is := is.New(t)
	is.Equal(send("GET", "/api/tools/"+tool+"/credentials", "unknown", "https://evil.example").Status, 403)
	is.Equal(send("GET", "/api/admin/agents", f.Owner, allowedOrigin).Header.Get("Access-Control-Allow-Origin"), "") // not the administrators'
}

func TestOriginsAreChecked(t *testing.T) {
	t.Parallel()
	for origin, right := range map[string]bool{
		"https://app.example.com": true, "http://localhost:3000": true, "http://127.0.0.1:8080": true, "http://[::1]:3000": true,
		"": false, "*": false, "null": false, "app.example.com": false, "https://app.example.com/": false, "https://*.example.com": false,
		"HTTPS://app.example.com": false, "https://App.example.com": false, "ftp://example.com": false, "https://u@example.com": false, "https://example.com?x": false,
	} {
		is.New(t).Equal(refserver.Config{Origins: []string{origin}}.Validate() == nil, right)
	}
}

func TestSecurityText(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Config: refserver.Config{SecurityContact: "mailto:security@example.com"}})
	res := f.Do("GET", "/.well-known/security.txt", "", "")
	is.Equal(res.Status, 200)
	is.Equal(res.Header.Get("Content-Type"), "text/plain; charset=utf-8")
	is.Equal(res.Header.Get("Cache-Control"), "public, max-age=86400") // one day
	is.Equal(res.Body, "Contact: mailto:security@example.com\nExpires: 2027-05-22T00:00:00Z\n")
	f.Clock.Add(48 * time.Hour)
	is.True(strings.Contains(f.Do("GET", "/.well-known/security.txt", "", "").Body, "Expires: 2027-05-24T")) // it moves on
	is.Equal(f.Do("HEAD", "/.well-known/security.txt", "", "").Status, 200)
	is.Equal(servertest.New(t, servertest.Options{}).Do("GET", "/.well-known/security.txt", "", "").Status, 404)
	for contact, right := range map[string]bool{
		"": true, "mailto:a@example.com": true, "https://example.com/security": true, "tel:+1-201-555-0123": true,
		"security@example.com": false, "http://example.com": false, "https:///x": false, "mailto:": false, "mailto:a@example.com\nExpires: 2000": false, "https://example.com/ x": false,
	} {
		is.Equal(refserver.Config{SecurityContact: contact}.Validate() == nil, right)
	}
}
