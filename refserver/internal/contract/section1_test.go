package contract_test

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

var (
	isID   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	isTime = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$`)
)

func unlimited() servertest.Options {
	return servertest.Options{Policies: servertest.Unlimited()}
}

// TestJSON is 1.1: bare objects in snake_case for agents, {"data": …} in
// camelCase for administrators, times, ids, and what is absent or null.
func TestJSON(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		me := f.Do("GET", "/api/me", key, "")
		is.True(strings.HasPrefix(me.Body, `{"agent_id":"`+agent+`"`)) // bare
		is.True(isTime.MatchString(me.Object(t)["created_at"].(string)))
		is.True(strings.HasPrefix(f.Do("GET", "/api/admin/agents/"+agent, f.Owner, "").Body, `{"data":{`))
		is.True(strings.HasPrefix(f.Do("GET", "/api/admin/agents", f.Owner, "").Body, `{"data":[{`))
		is.True(strings.HasPrefix(f.Do("GET", "/api/admin/agents/"+unknownID, f.Owner, "").Body, `{"error":`)) // never wrapped
		is.True(isID.MatchString(agent) && isID.MatchString(tool))
		item := f.Must(200, "GET", "/api/admin/agents/"+agent, f.Owner, "")
		is.Equal(item["lastActiveAt"], nil)
		_, found := item["lastActiveAt"]
		is.True(found) // null for administrators
		is.True(isTime.MatchString(item["createdAt"].(string)))
		_, found = f.Do("GET", "/api/tools", key, "").Object(t)["tools"].([]any)[0].(map[string]any)["denial_reason"]
		is.True(!found) // absent for agents
	})
}

// TestErrors is 1.2.
func TestErrors(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
		bad := f.Do("POST", path, key, `{"reason":"four","duration":"8h","max_vends":-1,"scopes":[],"ticket":7}`)
		is.Equal(bad.Status, 400)
		o := bad.Object(t)
		is.Equal(keys(o), "details error hint")
		is.Equal(fields(o), "duration ticket reason max_vends scopes") // all at once, of type and of rule
		first := o["details"].([]any)[0].(map[string]any)
		is.Equal(o["error"], first["field"].(string)+" "+first["message"].(string))
		is.True(strings.Contains(o["hint"].(string), "schema"))
		for _, root := range []string{`[]`, `"x"`, `null`, `1`} {
			is.Equal(fields(f.Do("POST", path, key, root).Object(t)), "input")
		}
		is.Equal(f.Do("POST", path, key, `{`).Object(t)["details"], nil) // a schema's failure only

		unknown := f.Do("GET", "/api/nothing", key, "")
		is.Equal(words(unknown.Status, keys(unknown.Object(t))), "404 error hint")
		method := f.Do("PUT", path, key, "")
		is.Equal(words(method.Status, keys(method.Object(t)), method.Header.Get("Allow")), "405 error hint GET, HEAD, OPTIONS, POST")
		slash := f.Do("GET", "/api/me/", key, "")
		is.Equal(words(slash.Status, slash.Header.Get("Location")), "308 /api/me")
		is.Equal(f.Do("HEAD", "/api/me", key, "").Status, 200)
	})
}

func fields(o map[string]any) string {
	var names []string
	for _, d := range o["details"].([]any) {
		names = append(names, d.(map[string]any)["field"].(string))
	}
	return strings.Join(names, " ")
}

// TestAdministratorsErrors: every field of a body is listed at once, and an
// unknown one too.
func TestAdministratorsErrors(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		agent, _ := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		for _, tt := range []struct{ method, path, body, want string }{
			{"POST", "/agents", `{"name":"x","description":7,"addresses":["home"],"owner":"a b"}`, "description name owner addresses[0]"},
			{"PUT", "/agents/" + agent, `{"name":7,"owner":"a b"}`, "name owner"},
			{"POST", "/tools", `{"name":"x","url":"ftp://x/y","credentialExpiresAt":"soon"}`, "credentialExpiresAt name credential url"},
			{"POST", "/tools", `{"name":"ok","url":"javascript:alert(1)","credential":"x","authType":"none","more":1}`, "input authType url"},
			{"POST", "/tools", `{"name":"ok","credentialMode":"per_agent","credential":"x","credentialExpiresAt":"2027-01-01T00:00:00Z"}`, "credential credentialExpiresAt"},
			{"PUT", "/tools/" + tool, `{"name":"x","url":"a b","requiredApprovals":0,"instructions":7}`, "instructions name requiredApprovals url"},
			{"POST", "/agents/" + agent + "/tools", `{"toolId":"x","expiresIn":"x","maxVends":-1,"scopes":[]}`, "toolId expiresIn maxVends scopes"},
			{"POST", "/requests/" + unknownID + "/approve", `{"expiresIn":-1,"maxVends":-1,"ticket":7}`, "expiresIn ticket maxVends"},
			{"POST", "/administrators", `{"label":7,"role":"king"}`, "label role"},
		} {
			t.Run(tt.method+" "+tt.path, func(t *testing.T) {
				is := is.New(t)
				res := f.Do(tt.method, "/api/admin"+tt.path, f.Owner, tt.body)
				is.Equal(res.Status, 400)
				is.Equal(fields(res.Object(t)), tt.want)
			})
		}
	})
}

// TestBodies is 1.3.
func TestBodies(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		send := func(body, media string) servertest.Response {
			path := "/api/tools/" + f.Tool("Linear", "lin_api_test_x") + "/request"
			return f.Send(servertest.Request{Method: "POST", Path: path, Token: key, Body: body, Header: http.Header{"Content-Type": {media}}})
		}
		of := func(n int) string {
			const frame = `{"reason":"needed","x":""}`
			return strings.Replace(frame, `"x":"`, `"x":"`+strings.Repeat("a", n-len(frame)), 1)
		}
		for media, want := range map[string]int{
			"application/json": 201, "Application/JSON; charset=latin1": 201, "application/vnd.x+json": 201,
			"": 415, "text/json": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415,
		} {
			is.Equal(send(`{"reason":"needed"}`, media).Status, want)
		}
		is.Equal(send(of(8192), "application/json").Status, 201) // exactly the limit
		large := send(of(8193), "application/json")
		is.Equal(large.Status, 413)
		hint := large.Object(t)["hint"].(string)
		is.True(strings.Contains(hint, "8192") && strings.Contains(hint, "horten the reason"))
		is.Equal(send(of(9000), "text/plain").Status, 415)                        // the type first
		is.Equal(send(strings.Repeat("x", 9000), "application/json").Status, 413) // the size before the syntax
		for _, body := range []string{`nope`, `{"reason":"needed"} x`, `{"reason":"needed"`, `{"reason":"needed","reason":"other"}`, "{\"reason\":\"need\xffed\"}"} {
			res := send(body, "application/json")
			is.Equal(res.Status, 400)
			is.True(res.Object(t)["hint"] != nil)
		}
		is.Equal(send(`{"reason":"needed","unknown":1}`, "application/json").Status, 201)

		admin := func(n int) int {
			frame := `{"name":"bot","description":""}`
			body := frame + strings.Repeat(" ", n-len(frame))
			return f.Do("POST", "/api/admin/agents", f.Owner, body).Status
		}
		is.Equal(admin(32768), 201)
		is.Equal(admin(32769), 413)
		is.Equal(f.Do("POST", "/api/admin/agents", f.Owner, `{"name":"bot","unknown":1}`).Status, 400)

		// Lengths are UTF-16 units of what is trimmed.
		for reason, want := range map[string]int{
			"😀😀x": 201, "😀😀": 400, "  four ": 400, `\u00a0 five5 \ufeff`: 201,
			strings.Repeat("😀", 250): 201, strings.Repeat("😀", 250) + "x": 400, strings.Repeat(" ", 600) + "needed": 201,
		} {
			is.Equal(send(`{"reason":"`+reason+`"}`, "application/json").Status, want)
		}
		is.Equal(f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)[0]["reason"] != "", true)
	})
}

// TestSecurityHeaders is 1.4.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		for _, res := range []servertest.Response{
			f.Do("GET", "/api/me", key, ""), f.Do("GET", "/api/me", "", ""), f.Do("GET", "/nothing", "", ""), f.Do("PUT", "/api/me", key, ""),
			f.Do("GET", "/api/me/", "", ""), f.Do("OPTIONS", "/api/me", "", ""), f.Do("GET", "/openapi.json", "", ""), f.Do("GET", "/api/admin/agents", f.Owner, ""),
		} {
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "strict-origin-when-cross-origin",
				"Strict-Transport-Security": "max-age=63072000; includeSubDomains", "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
			} {
				is.Equal(res.Header.Get(name), want)
			}
			for _, directive := range []string{"default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "form-action 'self'"} {
				is.True(strings.Contains(res.Header.Get("Content-Security-Policy"), directive))
			}
			is.True(isID.MatchString(res.Header.Get("X-Request-Id")))
		}
	})
}

// TestAgentsAuthentication is 1.5.
func TestAgentsAuthentication(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		is.True(regexp.MustCompile(`^sk_agent_[A-Za-z0-9_-]{32}$`).MatchString(key))
		get := func(authorization string) servertest.Response {
			return f.Send(servertest.Request{Method: "GET", Path: "/api/tools", Header: http.Header{"Authorization": {authorization}}})
		}
		for header, want := range map[string]int{
			"Bearer " + key: 200, "Bearer   " + key + " ": 200, "bearer " + key: 200, key: 401, "Basic " + key: 401, "Bearer ": 401, "": 401, "Bearer sk_agent_x": 401,
		} {
			res := get(header)
			is.Equal(res.Status, want)
			if want == 401 {
				is.True(res.Object(t)["hint"] != nil)
				is.Equal(res.Header.Get("WWW-Authenticate"), "Bearer")
				is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
			}
		}
		is.True(strings.Contains(f.Log.String(), "event=auth_failure") && !strings.Contains(f.Log.String(), key))
		f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
		suspended := get("Bearer " + key)
		is.Equal(suspended.Status, 403)
		is.True(suspended.Object(t)["hint"] != nil)
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=auth.rejected_suspended", f.Owner, "").Items(t)), 1)
		is.Equal(f.Do("GET", "/api/tools/not-an-id/credentials", "", "").Status, 401) // the key before the id
	})
}

// TestRateLimits is 1.6: limits, their order, their headers.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	each(t, servertest.Options{}, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool) // one of ten
		path := "/api/tools/" + tool
		for i := range 9 {
			switch { // whatever becomes of it, it counts
			case i%3 == 0:
				is.Equal(f.Do("POST", path+"/request", key, `{"reason":"needed"}`).Status, 409)
			case i%3 == 1:
				is.Equal(f.Do("POST", path+"/request", key, `garbage`).Status, 400)
			default:
				is.Equal(f.Do("POST", "/api/tools/"+[]string{unknownID, "not-an-id"}[i%2]+"/request", key, `{"reason":"needed"}`).Status, 404)
			}
		}
		over := f.Do("POST", path+"/request", key, `garbage`)
		is.Equal(over.Status, 429) // before the body is looked at
		is.Equal(keys(over.Object(t)), "error hint")
		is.Equal(words(over.Header.Get("X-RateLimit-Limit"), over.Header.Get("X-RateLimit-Remaining"), over.Header.Get("X-RateLimit-Policy")), "10 0 10;w=3600")
		is.Equal(over.Header.Get("Retry-After"), "3600")
		reset, err := strconv.ParseInt(over.Header.Get("X-RateLimit-Reset"), 10, 64)
		is.NoErr(err)
		is.Equal(reset, f.Clock.Now().Add(time.Hour).UnixMilli())
		is.Equal(f.Do("GET", path+"/request", key, "").Status, 200) // the schema is free

		for tier, policy := range map[string]string{"/api/me": "120;w=60", path + "/credentials": "60;w=60"} {
			limit, _, _ := strings.Cut(policy, ";")
			n, _ := strconv.Atoi(limit)
			for i := range n {
				method := "GET"
				if i%2 == 1 && tier == "/api/me" {
					method = "HEAD" // counts as well
				}
				res := f.Do(method, tier, key, "")
				is.Equal(res.Status, 200)
				is.Equal(words(res.Header.Get("X-RateLimit-Policy"), res.Header.Get("X-RateLimit-Remaining")), words(policy, n-1-i))
				is.Equal(res.Header.Get("RateLimit") != "" && res.Header.Get("RateLimit-Policy") != "", true)
			}
			is.Equal(f.Do("GET", tier, key, "").Status, 429)
		}
		is.Equal(f.Do("GET", "/api/tools", key, "").Status, 429) // one window for both reads
		refused := f.Do("GET", "/api/tools/"+tool+"/credentials", f.Owner, "")
		is.Equal(words(refused.Status, refused.Header.Get("X-RateLimit-Limit")), "401 ")
		f.Clock.Add(59*time.Minute + 59*time.Second)
		is.Equal(f.Do("POST", path+"/request", key, `garbage`).Status, 429)
		f.Clock.Add(time.Second)
		is.Equal(f.Do("POST", path+"/request", key, `garbage`).Status, 400)
	})
}

// TestClientAddresses is 1.7: the peer of the connection, unless that is a
// trusted proxy.
func TestClientAddresses(t *testing.T) {
	t.Parallel()
	each(t, servertest.Options{Config: refserver.Config{TrustedProxies: []string{"10.0.0.0/8"}}}, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		key := f.Must(201, "POST", "/api/admin/agents", f.Owner, `{"name":"bot","addresses":["198.51.100.7/32"]}`)["api_key"].(string)
		for _, tt := range []struct {
			peer, forwarded string
			want            int
		}{
			{"198.51.100.7:1", "", 200},
			{"10.0.0.1:1", "198.51.100.7", 200},
			{"10.0.0.1:1", "203.0.113.9, 198.51.100.7, 10.0.0.2", 200},
			{"10.0.0.1:1", "198.51.100.7, 203.0.113.9", 401}, // the rightmost that is not ours
			{"203.0.113.9:1", "198.51.100.7", 401},           // anybody can write that
			{"10.0.0.1:1", "", 401},
		} {
			res := f.Send(servertest.Request{Method: "GET", Path: "/api/me", Token: key, Peer: tt.peer, Header: http.Header{"X-Forwarded-For": {tt.forwarded}}})
			is.Equal(res.Status, tt.want)
		}
	})
}

// TestCrossOrigin is 1.8.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	each(t, servertest.Options{Config: refserver.Config{Origins: []string{origin}}}, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool)
		send := func(method, path, from string) servertest.Response {
			return f.Send(servertest.Request{Method: method, Path: path, Token: key, Header: http.Header{"Origin": {from}}})
		}
		credentials := "/api/tools/" + tool + "/credentials"
		is.Equal(words(send("OPTIONS", credentials, "").Status, send("OPTIONS", credentials, origin).Status, send("OPTIONS", credentials, "https://evil.example").Status), "204 204 403")
		vended := send("GET", credentials, origin)
		is.Equal(vended.Status, 200)
		is.Equal(vended.Header.Get("Access-Control-Allow-Origin"), origin)
		is.Equal(vended.Header.Get("Access-Control-Allow-Methods"), "GET, OPTIONS")
		is.Equal(vended.Header.Get("Access-Control-Allow-Headers"), "Authorization, Content-Type")
		is.Equal(vended.Header.Get("Access-Control-Max-Age"), "600")
		is.Equal(vended.Header.Get("Vary"), "Origin")
		is.Equal(send("GET", credentials, "https://evil.example").Status, 403)
		foreign := send("GET", "/api/me", "https://evil.example")
		is.Equal(words(foreign.Status, foreign.Header.Get("Access-Control-Allow-Origin")), "200 ")
	})
}

// TestSettings is 1.9: what the environment said there, settings say here.
func TestSettings(t *testing.T) {
	t.Parallel()
	each(t, servertest.Options{Config: refserver.Config{SecurityContact: "mailto:security@example.com"}}, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		res := f.Do("GET", "/.well-known/security.txt", "", "")
		is.Equal(words(res.Status, res.Header.Get("Content-Type")), "200 text/plain; charset=utf-8")
		is.True(strings.HasPrefix(res.Body, "Contact: mailto:security@example.com\nExpires: "))
		is.True(refserver.Config{Origins: []string{"app.example.com"}}.Validate() != nil)
		is.True(refserver.Config{TrustedProxies: []string{"1"}}.Validate() != nil)
	})
}
