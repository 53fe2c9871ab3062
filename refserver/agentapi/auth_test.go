package agentapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

func TestAuthenticationHeader(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	tests := []struct {
		name   string
		values []string
		status int
	}{
		{"none", nil, 401},
		{"empty", []string{""}, 401},
		{"exact", []string{"Bearer " + key}, 200},
		{"lower case", []string{"bearer " + key}, 200},
		{"upper case", []string{"BEARER " + key}, 200},
		{"spaces", []string{"Bearer   " + key + "  "}, 200},
		{"no scheme", []string{key}, 401},
		{"no space", []string{"Bearer" + key}, 401},
		{"scheme only", []string{"Bearer"}, 401},
		{"scheme and space", []string{"Bearer "}, 401},
		{"basic", []string{"Basic " + key}, 401},
		{"twice", []string{"Bearer " + key, "Bearer " + key}, 401},
		{"two keys", []string{"Bearer " + key + " " + key}, 401},
		{"cut", []string{"Bearer " + key[:len(key)-1]}, 401},
		{"longer", []string{"Bearer " + key + "x"}, 401},
		{"an administrator's token", []string{"Bearer " + f.Owner}, 401},
		{"very long", []string{"Bearer sk_agent_" + strings.Repeat("x", 10000)}, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			res := f.Send(servertest.Request{Method: "GET", Path: "/api/me", Header: http.Header{"Authorization": tt.values}})
			is.Equal(res.Status, tt.status)
			if tt.status == 401 {
				is.Equal(res.Header.Get("WWW-Authenticate"), "Bearer")
				is.True(res.Object(t)["hint"] != nil)
				is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
				is.True(!strings.Contains(res.Body, key[9:20]))
			}
		})
	}
	is := is.New(t)
	is.True(strings.Contains(f.Log.String(), "event=auth_failure"))
	is.True(!strings.Contains(f.Log.String(), key[9:20]))
}

func TestEveryRouteNeedsAKey(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	routes := [][2]string{{"GET", "/api/tools"}, {"HEAD", "/api/tools"}, {"GET", "/api/me"}, {"GET", "/api/tools/" + tool + "/credentials"}, {"POST", "/api/tools/" + tool + "/request"}}
	for _, r := range routes {
		is.New(t).Equal(f.Do(r[0], r[1], "", "").Status, 401)
	}
	f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
	for _, r := range routes {
		is.New(t).Equal(f.Do(r[0], r[1], key, "").Status, 403) // suspended: known, and told so
	}
	f.Must(200, "POST", "/api/admin/agents/"+agent+"/reactivate", f.Owner, "")
	is.New(t).Equal(f.Do("GET", "/api/me", key, "").Status, 200)
}

func TestKeyBoundToAddresses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	key := f.Must(201, "POST", "/api/admin/agents", f.Owner, `{"name":"bot","addresses":["198.51.100.0/24"],"keyExpiresIn":60}`)["api_key"].(string)
	from := func(peer string, forwarded ...string) int {
		return f.Send(servertest.Request{Method: "GET", Path: "/api/me", Token: key, Peer: peer, Header: http.Header{"X-Forwarded-For": forwarded}}).Status
	}
	is.Equal(from("198.51.100.7:1234"), 200)
	is.Equal(from("203.0.113.7:1234"), 401)
	is.Equal(from("203.0.113.7:1234", "198.51.100.7"), 401) // nobody says who they are but the socket
	f.Clock.Add(time.Minute)
	is.Equal(from("198.51.100.7:1234"), 401) // the key has ended
}

func TestRotatedKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, old := f.Agent("bot")
	rotated := f.Must(200, "POST", "/api/admin/agents/"+agent+"/rotate-key", f.Owner, `{"grace":60}`)["api_key"].(string)
	is.Equal(f.Do("GET", "/api/me", old, "").Status, 200) // in its grace
	is.Equal(f.Do("GET", "/api/me", rotated, "").Status, 200)
	f.Clock.Add(time.Minute)
	is.Equal(f.Do("GET", "/api/me", old, "").Status, 401)
	last := f.Must(200, "POST", "/api/admin/agents/"+agent+"/rotate-key", f.Owner, "")["api_key"].(string)
	is.Equal(f.Do("GET", "/api/me", rotated, "").Status, 401) // without grace it died at once
	is.Equal(f.Do("GET", "/api/me", last, "").Status, 200)
}

// TestAddressLimit: 600 a minute for each address, before any key is looked at.
func TestAddressLimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, key := f.Agent("bot") // two calls of the default peer's
	peer := "198.51.100.7:1"
	for range 600 {
		is.Equal(f.Send(servertest.Request{Method: "GET", Path: "/api/me", Peer: peer}).Status, 401)
	}
	limited := f.Send(servertest.Request{Method: "GET", Path: "/api/me", Token: key, Peer: "198.51.100.7:2"})
	is.Equal(limited.Status, 429)
	is.Equal(limited.Header.Get("X-RateLimit-Policy"), "600;w=60")
	is.Equal(limited.Header.Get("Retry-After"), "60")
	is.Equal(limited.Header.Get("WWW-Authenticate"), "")
	is.Equal(f.Send(servertest.Request{Method: "GET", Path: "/api/admin/agents", Token: f.Owner, Peer: peer}).Status, 429)

	// What takes access away passes all the same, for those who may.
	is.Equal(f.Send(servertest.Request{Method: "DELETE", Path: "/api/admin/agents/" + agent, Token: f.Owner, Peer: peer}).Status, 200)
	is.Equal(f.Send(servertest.Request{Method: "DELETE", Path: "/api/admin/agents/" + agent, Token: key, Peer: peer}).Status, 429)
	is.Equal(f.Send(servertest.Request{Method: "GET", Path: "/api/me", Peer: "198.51.100.8:1"}).Status, 401) // a neighbour

	// One /64 of IPv6 is one address.
	for i := range 600 {
		f.Send(servertest.Request{Method: "GET", Path: "/api/me", Peer: "[2001:db8::" + string(rune('a'+i%6)) + "]:1"})
	}
	is.Equal(f.Send(servertest.Request{Method: "GET", Path: "/api/me", Peer: "[2001:db8::ffff]:1"}).Status, 429)
	f.Clock.Add(time.Minute)
	is.Equal(f.Send(servertest.Request{Method: "GET", Path: "/api/me", Peer: peer}).Status, 401)
}

func TestReadAndCredentialLimits(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	_, other := f.Agent("other")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	for i := range 120 { // one bucket for both reads
		is.Equal(f.Do("GET", []string{"/api/me", "/api/tools"}[i%2], key, "").Status, 200)
	}
	is.Equal(f.Do("HEAD", "/api/tools", key, "").Status, 429)
	is.Equal(f.Do("GET", "/api/me", other, "").Status, 200)
	for range 60 {
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, 200) // a bucket of its own
	}
	is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, 429)
	is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=credential.vended&limit=500", f.Owner, "").Items(t)), 60)
}
