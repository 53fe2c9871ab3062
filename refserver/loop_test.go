package refserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestRevocationRace: eight agents' processes fetch the credential while it is
// revoked and given again 200 times. No fetch that begins after a revoke was
// answered succeeds before the next approval, and no vend stands in the log
// between a revoke and the next assignment.
func TestRevocationRace(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_race")
	assign := "/api/admin/agents/" + agent + "/tools"
	f.Must(201, "POST", assign, f.Owner, `{"toolId":"`+tool+`"}`)

	var (
		// epoch is even while the grant may stand and odd from the answer of a
		// revoke until the next assignment is sent.
		epoch         atomic.Int64
		late, refused atomic.Int64
		vends         atomic.Int64
		stop          atomic.Bool
		wg            sync.WaitGroup
		once          sync.Once
		begun         = make(chan struct{})
		unexpected    sync.Map
	)
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				before := epoch.Load()
				res := f.Do("GET", "/api/tools/"+tool+"/credentials", key, "")
				after := epoch.Load()
				switch res.Status {
				case http.StatusOK:
					vends.Add(1)
					once.Do(func() { close(begun) })
					if before%2 == 1 && before == after {
						late.Add(1)
					}
				case http.StatusForbidden:
					refused.Add(1)
				default:
					unexpected.Store(res.Status, res.Body)
				}
			}
		})
	}
	<-begun
	for range 200 {
		f.Must(200, "DELETE", assign+"/"+tool, f.Owner, "")
		epoch.Add(1)
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, 403) // begun after the answer
		epoch.Add(1)
		f.Must(201, "POST", assign, f.Owner, `{"toolId":"`+tool+`"}`)
	}
	f.Must(200, "DELETE", assign+"/"+tool, f.Owner, "")
	stop.Store(true)
	wg.Wait()
	is.Equal(late.Load(), int64(0))
	unexpected.Range(func(status, body any) bool {
		t.Errorf("status %v: %v", status, body)
		return true
	})
	t.Logf("%d vends, %d refusals", vends.Load(), refused.Load())

	// The log, oldest first: a vend only while the grant stands.
	standing, revokes, recorded := false, 0, int64(0)
	for line := range strings.Lines(f.Do("GET", "/api/admin/audit/export", f.Owner, "").Body) {
		action, outcome := actionOf(line)
		switch {
		case action == "grant.assigned":
			standing = true
		case action == "grant.revoked":
			standing = false
			revokes++
		case action == "credential.vended" && outcome == "ok":
			recorded++
			if !standing {
				t.Fatal("a vend stands in the log after the revoke that forbids it")
			}
		}
	}
	is.Equal(revokes, 201)
	is.Equal(recorded, vends.Load()) // every credential that left is recorded, and nothing else
}

// actionOf finds the event in a line of an export, whose shape is the audit
// package's.
func actionOf(line string) (action, outcome string) {
	var search func(v any)
	search = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if a, ok := v["action"].(string); ok {
				action = a
				outcome, _ = v["outcome"].(string)
				return
			}
			for _, inner := range v {
				search(inner)
			}
		case string:
			var inner any
			if strings.HasPrefix(v, "{") && json.Unmarshal([]byte(v), &inner) == nil {
				search(inner)
			}
		}
	}
	var v any
	if json.Unmarshal([]byte(line), &v) == nil {
		search(v)
	}
	return action, outcome
}

// TestCanary: a credential appears in the vend's body and nowhere else, keys and
// tokens where they are issued and nowhere else.
func TestCanary(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	const first, second, third = "lin_api_test_CANARY1", "lin_api_test_CANARY2", "lin_api_test_CANARY3"
	var all []servertest.Response
	do := func(status int, method, path, token, body string) servertest.Response {
		t.Helper()
		res := f.Do(method, path, token, body)
		is.Equal(res.Status, status)
		all = append(all, res)
		return res
	}
	agent, key := f.Agent("bot")
	tool := do(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Linear","credential":"`+first+`"}`).Object(t)["id"].(string)
	own := do(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Mail","credentialMode":"per_agent"}`).Object(t)["id"].(string)
	do(200, "PUT", "/api/admin/tools/"+tool, f.Owner, `{"credential":"`+second+`"}`)

	// Where a credential or key does not belong, it is not repeated either.
	for _, body := range []string{
		`{"name":"` + third + `","credential":"` + third + `","` + third + `":1}`,
		`{"name":"x","credential":"` + third + `"}`,
		`{"credential":"` + third + `",}`,
		`{"credential":["` + third + `"]}`,
		`{"name":"Linear","credential":"x","url":"` + third + `://x"}`,
		`{"name":"Linear","credential":"x","authType":"` + third + `"}`,
		third,
	} {
		do(400, "POST", "/api/admin/tools", f.Owner, body)
	}
	do(404, "GET", "/api/admin/tools/"+third, f.Owner, "")
	do(400, "GET", "/api/admin/tools?cursor="+third, f.Owner, "")
	do(400, "GET", "/api/admin/audit-log?action="+third+"&from="+third, f.Owner, "")
	do(404, "GET", "/"+third, "", "")
	do(401, "GET", "/api/me", third, "")
	do(405, third, "/api/me", key, "")

	do(403, "GET", "/api/tools/"+tool+"/credentials", key, "")
	f.Approved(key, tool)
	mail := do(201, "POST", "/api/tools/"+own+"/request", key, `{"reason":"needed"}`).Object(t)["request_id"].(string)
	do(200, "POST", "/api/admin/requests/"+mail+"/approve", f.Owner, `{"credential":"`+first+`"}`)

	vend := f.Do("GET", "/api/tools/"+tool+"/credentials", key, "")
	is.Equal(strings.Count(vend.Body, second), 1)
	is.True(!strings.Contains(fmt.Sprint(vend.Header), second))
	is.Equal(f.Do("GET", "/api/tools/"+own+"/credentials", key, "").Object(t)["credential"], first)
	do(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	for _, path := range []string{
		"/api/tools", "/api/me", "/api/admin/agents", "/api/admin/agents/" + agent, "/api/admin/agents/" + agent + "/keys", "/api/admin/tools",
		"/api/admin/tools/" + tool, "/api/admin/requests", "/api/admin/grants", "/api/admin/tokens", "/api/admin/administrators",
		"/api/admin/audit-log?limit=500", "/api/admin/audit/export", "/api/admin/audit/verify", "/api/admin/audit/reconcile", "/api/admin/organization",
	} {
		token := f.Owner
		if path == "/api/tools" || path == "/api/me" {
			token = key
		}
		do(200, "GET", path, token, "")
	}
	// A new key or token is in its body, once, and not in the headers.
	for path, body := range map[string]string{"agents/" + agent + "/rotate-key": ``, "agents": `{"name":"bot"}`, "tokens": `{}`} {
		res := f.Do("POST", "/api/admin/"+path, f.Owner, body)
		for _, name := range []string{"api_key", "token"} {
			if issued, ok := res.Object(t)[name].(string); ok {
				is.Equal(strings.Count(res.Body, issued), 1)
				is.True(!strings.Contains(fmt.Sprint(res.Header), issued))
				is.True(!strings.Contains(f.Log.String(), issued))
			}
		}
	}
	everything := fmt.Sprintf("%s %+v %#v %v", f.Log, all, f.Server, f.Manager)
	is.True(strings.Contains(f.Log.String(), "request=")) // debug level: something is logged
	for _, secret := range []string{first, second, third, key, f.Owner} {
		if strings.Contains(everything, secret) {
			at := strings.Index(everything, secret)
			t.Fatalf("a secret got out: …%s", everything[max(0, at-200):min(len(everything), at+50)])
		}
	}
}
