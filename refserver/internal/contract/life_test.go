package contract_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// unchanged is an agent that was written for the existing service: it knows a
// base URL and a key, and of the API what that service's users know. It shares no
// code with the server.
type unchanged struct {
	t         *testing.T
	base, key string
}

// reply is what the agent looks at.
type reply struct {
	status int
	header http.Header
	body   map[string]any
}

func (a unchanged) call(method, path string, body any) reply {
	a.t.Helper()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			a.t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, a.base+path, content)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	r := reply{status: res.StatusCode, header: res.Header}
	if err := json.NewDecoder(res.Body).Decode(&r.body); err != nil {
		a.t.Fatal(err)
	}
	return r
}

// text is a member that must be a string.
func (r reply) text(t *testing.T, name string) string {
	t.Helper()
	s, ok := r.body[name].(string)
	if !ok {
		t.Fatalf("%s is no string, status %d", name, r.status)
	}
	return s
}

// find looks a tool up in the catalog by its name.
func (a unchanged) find(name string) (id, access string) {
	a.t.Helper()
	r := a.call("GET", "/api/tools", nil)
	for _, item := range r.body["tools"].([]any) {
		tool := item.(map[string]any)
		if tool["name"] == name {
			return tool["id"].(string), tool["your_access"].(string)
		}
	}
	return "", ""
}

// wait reads how long to wait, in the way of the contract: the window's end in
// Unix milliseconds.
func (r reply) wait(t *testing.T, now time.Time) time.Duration {
	t.Helper()
	end, err := strconv.ParseInt(r.header.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		t.Fatal("X-RateLimit-Reset is no number")
	}
	return time.UnixMilli(end).Sub(now)
}

// TestLifeOfAnUnchangedAgent: only base URL and key are given.
func TestLifeOfAnUnchangedAgent(t *testing.T) {
	t.Parallel()
	each(t, servertest.Options{}, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		server := httptest.NewServer(f.Handler)
		defer server.Close()
		id, key := f.Agent("bot")
		a := unchanged{t, server.URL, key}
		admin := func(method, path, body string) { f.Must(200, method, "/api/admin"+path, f.Owner, body) }

		// It begins with nothing, and is told what to do.
		me := a.call("GET", "/api/me", nil)
		is.Equal(me.text(t, "agent_id"), id)
		is.True(me.text(t, "hint") != "")
		tool, _ := f.Tool("Linear", "lin_api_test_life"), f.Tool("Other", "lin_api_test_other")
		found, access := a.find("Linear")
		is.Equal(words(found, access), words(tool, "none"))
		refused := a.call("GET", "/api/tools/"+tool+"/credentials", nil)
		is.Equal(refused.status, 403)
		is.True(refused.text(t, "error") != "" && refused.text(t, "hint") != "")

		// It learns what a request looks like, asks, and asks in vain again.
		schema := a.call("GET", "/api/tools/"+tool+"/request", nil).body["schema"].(map[string]any)
		least := int(schema["body"].(map[string]any)["reason"].(map[string]any)["min_length"].(float64))
		ask := func() reply {
			return a.call("POST", "/api/tools/"+tool+"/request", map[string]string{"reason": strings.Repeat("x", least)})
		}
		asked := ask()
		is.Equal(words(asked.status, asked.text(t, "status")), "201 pending")
		request := asked.text(t, "request_id")
		is.Equal(ask().status, 409)
		_, access = a.find("Linear")
		is.Equal(access, "pending")

		// Denied, with a reason that it sees; it asks again under the same id.
		admin("POST", "/requests/"+request+"/deny", `{"reason":"say more"}`)
		denied := a.call("GET", "/api/me", nil).body["tools_denied"].([]any)
		is.Equal(denied, []any{map[string]any{"name": "Linear", "reason": "say more"}})
		is.Equal(ask().text(t, "request_id"), request)

		// Approved, it fetches the credential whenever it needs it.
		admin("POST", "/requests/"+request+"/approve", `{}`)
		vended := a.call("GET", "/api/tools/"+tool+"/credentials", nil)
		is.Equal(words(vended.status, vended.text(t, "credential"), vended.text(t, "tool_name"), vended.text(t, "auth_type")), "200 lin_api_test_life Linear api_key")
		is.True(strings.Contains(vended.header.Get("Cache-Control"), "no-store"))
		is.Equal(a.call("GET", "/api/me", nil).body["tools_approved"], []any{"Linear"})
		is.Equal(ask().status, 409)

		// It fetches too often, waits as long as the headers say, and goes on.
		left := vended
		for left.status == 200 {
			left = a.call("GET", "/api/tools/"+tool+"/credentials", nil)
		}
		is.Equal(words(left.status, left.header.Get("X-RateLimit-Limit"), left.header.Get("X-RateLimit-Remaining"), left.header.Get("X-RateLimit-Policy")), "429 60 0 60;w=60")
		f.Clock.Add(left.wait(t, f.Clock.Now()))
		is.Equal(a.call("GET", "/api/tools/"+tool+"/credentials", nil).status, 200)
		for left = a.call("GET", "/api/me", nil); left.status == 200; {
			left = a.call("GET", "/api/me", nil)
		}
		is.Equal(words(left.status, left.header.Get("X-RateLimit-Policy")), "429 120;w=60")
		f.Clock.Add(left.wait(t, f.Clock.Now()))

		// It says what it learned.
		learned := a.call("POST", vended.text(t, "suggest_instructions_endpoint"), map[string]string{"learned": "Lists end at 100.", "why": "I counted."})
		is.Equal(words(learned.status, learned.text(t, "status"), learned.body["existing"]), "201 pending false")
		is.Equal(learned.header.Get("X-RateLimit-Policy"), "10;w=3600")

		// It says what it misses; what it misses is there already under another name.
		missed := a.call("POST", "/api/tools/suggest", map[string]string{"name": "Jira", "reason": "to look up tickets"})
		is.Equal(words(missed.status, missed.text(t, "status"), missed.body["existing"]), "201 pending false")
		there := a.call("POST", "/api/tools/suggest", map[string]string{"name": "linear", "reason": "to look up tickets"})
		is.Equal(words(there.status, there.text(t, "tool_id"), there.header.Get("X-RateLimit-Limit")), words(409, tool, "10"))
		admin("POST", "/suggestions/"+missed.text(t, "suggestion_id")+"/dismiss", "")
		resting := a.call("POST", "/api/tools/suggest", map[string]string{"name": "Jira", "reason": "to look up tickets"})
		is.Equal(resting.status, 409)
		until, err := time.Parse("2006-01-02T15:04:05.000Z", resting.text(t, "retry_after"))
		is.NoErr(err)
		is.Equal(until.Sub(f.Clock.Now()), 24*time.Hour)

		// Revoked, it is told apart from denied, and asks under the same id.
		admin("DELETE", "/agents/"+id+"/tools/"+tool, "")
		is.Equal(a.call("GET", "/api/tools/"+tool+"/credentials", nil).status, 403)
		_, access = a.find("Linear")
		is.Equal(access, "revoked")
		is.Equal(ask().text(t, "request_id"), request)
		for left = ask(); left.status != 429; {
			left = ask()
		}
		is.Equal(left.header.Get("X-RateLimit-Policy"), "10;w=3600")
		f.Clock.Add(left.wait(t, f.Clock.Now()))
		is.Equal(ask().status, 409)

		// Suspended, it is known and refused; its old key is unknown after a rotation.
		admin("DELETE", "/agents/"+id, "")
		is.Equal(a.call("GET", "/api/tools", nil).status, 403)
		admin("POST", "/agents/"+id+"/rotate-key", "")
		is.Equal(a.call("GET", "/api/tools", nil).status, 401)
	})
}
