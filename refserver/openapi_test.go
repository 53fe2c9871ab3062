package refserver_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/refserver/openapi"
)

// TestRoutesAreTheDocuments: what is served is described, and what is described
// is served.
func TestRoutesAreTheDocuments(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	d, err := servertest.LoadDocument() // and validates it
	is.NoErr(err)
	served, described := servertest.New(t, servertest.Options{}).Server.Routes(), d.Routes()
	for _, path := range slices.Sorted(maps.Keys(served)) {
		if !slices.Equal(served[path], described[path]) {
			t.Errorf("%s is served with %v and described with %v", path, served[path], described[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(described)) {
		if served[path] == nil {
			t.Errorf("%s is described and not served", path)
		}
	}
	is.True(len(served) > 30)
}

func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	res := f.Do("GET", "/openapi.json", "", "")
	is.Equal(res.Status, http.StatusOK)
	is.Equal(res.Header.Get("Content-Type"), "application/json")
	is.Equal(res.Header.Get("Cache-Control"), "public, max-age=3600")
	is.Equal(res.Body, string(openapi.Document()))
	etag := res.Header.Get("ETag")
	for held, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304, `"other"`: 200, strings.Trim(etag, `"`): 200, "": 200,
	} {
		again := f.Send(servertest.Request{Method: "GET", Path: "/openapi.json", Header: http.Header{"If-None-Match": {held}}})
		is.Equal(again.Status, want)
		is.Equal(again.Header.Get("ETag"), etag)
		is.Equal(again.Body == "", want == 304)
	}
	is.Equal(f.Do("POST", "/openapi.json", "", "").Status, http.StatusMethodNotAllowed)
}

// TestDocumentFindsWhatItLacks: an exchange that is right passes, and one with
// any one thing that the document does not have does not.
func TestDocumentFindsWhatItLacks(t *testing.T) {
	t.Parallel()
	d, err := servertest.LoadDocument()
	if err != nil {
		t.Fatal(err)
	}
	const tool = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"
	right := func() servertest.Exchange {
		return servertest.Exchange{
			Method: "POST", URL: &url.URL{Path: "/api/tools/" + tool + "/request"}, Status: 201,
			Request: []byte(`{"reason":"needed","unknown":1}`),
			Header: http.Header{
				"Content-Security-Policy": {"x"}, "Permissions-Policy": {"x"}, "Referrer-Policy": {"x"}, "Strict-Transport-Security": {"x"},
				"X-Content-Type-Options": {"nosniff"}, "X-Frame-Options": {"DENY"}, "X-Request-Id": {tool},
				"Cache-Control": {"no-store"}, "Content-Type": {"application/json"}, "X-Ratelimit-Limit": {"10"},
			},
			Response: []byte(`{"request_id":"` + tool + `","status":"pending","message":"x"}`),
		}
	}
	tests := map[string]struct {
		wrong string // empty: right
		make  func(x *servertest.Exchange)
	}{
		"right": {"", func(*servertest.Exchange) {}},
		"counted and spaced": {"", func(x *servertest.Exchange) {
			x.Request = []byte(`{"reason":"` + strings.Repeat(" ", 600) + `😀😀x"}`)
		}},
		"another field": {"additionalProperties", func(x *servertest.Exchange) {
			x.Response = []byte(`{"request_id":"` + tool + `","status":"pending","message":"x","more":1}`)
		}},
		"a field less": {"required", func(x *servertest.Exchange) { x.Response = []byte(`{"status":"pending","message":"x"}`) }},
		"another value": {"const", func(x *servertest.Exchange) {
			x.Response = []byte(`{"request_id":"` + tool + `","status":"new","message":"x"}`)
		}},
		"another status":             {"status 202", func(x *servertest.Exchange) { x.Status = 202 }},
		"another header":             {"X-More", func(x *servertest.Exchange) { x.Header.Set("X-More", "1") }},
		"a header that is no number": {"X-RateLimit-Limit", func(x *servertest.Exchange) { x.Header.Set("X-RateLimit-Limit", "ten") }},
		"no header":                  {"X-Frame-Options", func(x *servertest.Exchange) { x.Header.Del("X-Frame-Options") }},
		"kept":                       {"may be kept", func(x *servertest.Exchange) { x.Header.Set("Cache-Control", "public") }},
		"another type":               {"content type", func(x *servertest.Exchange) { x.Header.Set("Content-Type", "text/html") }},
		"not JSON":                   {"not one JSON value", func(x *servertest.Exchange) { x.Response = []byte(`<html>`) }},
		"another path":               {"is not documented", func(x *servertest.Exchange) { x.URL.Path = "/api/tools/more" }},
		"another method":             {"is not documented", func(x *servertest.Exchange) { x.Method = "PATCH" }},
		"too short accepted":         {"minLength", func(x *servertest.Exchange) { x.Request = []byte(`{"reason":" x  "}`) }},
		"nothing accepted":           {"without the body", func(x *servertest.Exchange) { x.Request = nil }},
		"error without text": {"required", func(x *servertest.Exchange) {
			x.Header.Del("X-RateLimit-Limit")
			x.Status, x.Response = 409, []byte(`{"hint":"x"}`)
		}},
		"another field within": {"/details/0 breaks", func(x *servertest.Exchange) {
			x.Header.Del("X-RateLimit-Limit")
			x.Status, x.Response = 400, []byte(`{"error":"x","details":[{"field":"x","message":"x","value":"x"}]}`)
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			x := right()
			tt.make(&x)
			err := d.Check(x)
			if tt.wrong == "" {
				is.NoErr(err)
				return
			}
			is.True(err != nil && strings.Contains(err.Error(), tt.wrong))
		})
	}
}
