package contract_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// catalog gives what GET /api/tools says, by name.
func catalog(f *servertest.Fixture, key string) map[string]map[string]any {
	found := make(map[string]map[string]any)
	for _, item := range f.Must(200, "GET", "/api/tools", key, "")["tools"].([]any) {
		tool := item.(map[string]any)
		found[tool["name"].(string)] = tool
	}
	return found
}

// states makes one tool for each state of access, and gives their ids.
func states(f *servertest.Fixture, agent, key string) map[string]string {
	ids := make(map[string]string)
	ask := func(tool string) string {
		return f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	}
	for _, name := range []string{"none", "pending", "approved", "denied", "denied silently", "revoked"} {
		ids[name] = f.Tool(name, "lin_api_test_"+strings.ReplaceAll(name, " ", "_"))
	}
	ask(ids["pending"])
	f.Approved(key, ids["approved"])
	f.Must(200, "POST", "/api/admin/requests/"+ask(ids["denied"])+"/deny", f.Owner, `{"reason":" not yet "}`)
	f.Must(200, "POST", "/api/admin/requests/"+ask(ids["denied silently"])+"/deny", f.Owner, `{}`)
	f.Must(200, "POST", "/api/admin/requests/"+ask(ids["revoked"])+"/deny", f.Owner, `{"reason":"first no"}`)
	f.Approved(key, ids["revoked"])
	f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+ids["revoked"], f.Owner, "")
	return ids
}

// TestCatalog is 2.1.
func TestCatalog(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		states(f, agent, key)
		tools := catalog(f, key)
		is.Equal(len(tools), 6)
		for name, want := range map[string]string{"none": "none", "pending": "pending", "approved": "approved", "denied": "denied", "denied silently": "denied", "revoked": "revoked"} {
			is.Equal(tools[name]["your_access"], want)
			wantKeys := "description id name your_access"
			if name == "denied" {
				wantKeys = "denial_reason " + wantKeys
			}
			is.Equal(keys(tools[name]), wantKeys)
		}
		is.Equal(tools["denied"]["denial_reason"], "not yet")
		all := f.Do("GET", "/api/tools", key, "").Object(t)["tools"].([]any)
		is.Equal(all[0].(map[string]any)["name"], "revoked") // newest first
		is.Equal(f.Do("GET", "/api/tools", "", "").Status, 401)
		f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
		is.Equal(f.Do("GET", "/api/tools", key, "").Status, 403)
	})
}

// TestProfile is 2.2.
func TestProfile(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		me := f.Must(200, "GET", "/api/me", key, "")
		is.Equal(keys(me), "agent_id agent_name created_at description hint tools_approved tools_available tools_denied tools_pending")
		is.Equal(words(me["agent_id"], me["agent_name"], me["description"], me["tools_available"]), words(agent, "bot", "", 0.0))
		states(f, agent, key)
		me = f.Must(200, "GET", "/api/me", key, "")
		is.Equal(keys(me), "agent_id agent_name created_at description tools_approved tools_available tools_denied tools_pending")
		is.Equal(words(me["tools_approved"], me["tools_pending"], me["tools_available"]), words([]string{"approved"}, []string{"pending"}, 6.0))
		denied := me["tools_denied"].([]any) // revoked ones are in no list
		is.Equal(len(denied), 2)
		for _, d := range denied {
			d := d.(map[string]any)
			is.Equal(keys(d), "name reason")
			is.Equal(d["reason"] == nil, d["name"] == "denied silently")
		}
		// Who was only denied gets the hint.
		_, other := f.Agent("other")
		request := f.Must(201, "POST", "/api/tools/"+f.Tool("more", "lin_api_test_x")+"/request", other, `{"reason":"needed"}`)["request_id"].(string)
		is.Equal(f.Must(200, "GET", "/api/me", other, "")["hint"], nil)
		f.Must(200, "POST", "/api/admin/requests/"+request+"/deny", f.Owner, `{}`)
		is.True(f.Must(200, "GET", "/api/me", other, "")["hint"] != nil)
	})
}

// TestCredentials is 2.3.
func TestCredentials(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		ids := states(f, agent, key)
		hints := map[string]bool{}
		for name, id := range ids {
			res := f.Do("GET", "/api/tools/"+id+"/credentials", key, "")
			if name == "approved" {
				is.Equal(res.Status, 200)
				o := res.Object(t)
				is.Equal(words(o["tool_id"], o["tool_name"], o["auth_type"], o["credential"], o["instructions"]), words(id, "approved", "api_key", "lin_api_test_approved", ""))
				is.Equal(o["suggest_instructions_endpoint"], "/api/tools/"+id+"/instructions/suggest")
				is.Equal(words(res.Header.Get("Cache-Control"), res.Header.Get("Pragma")), "no-store, private no-cache")
				continue
			}
			is.Equal(res.Status, 403)
			is.Equal(res.Header.Get("Pragma"), "")
			hints[res.Object(t)["hint"].(string)] = true
		}
		is.Equal(len(hints), 4) // none, pending, denied, revoked
		for _, id := range []string{unknownID, "not-an-id"} {
			res := f.Do("GET", "/api/tools/"+id+"/credentials", key, "")
			is.Equal(words(res.Status, res.Object(t)["hint"] != nil), "404 true")
		}
		is.Equal(f.Do("HEAD", "/api/tools/"+ids["approved"]+"/credentials", key, "").Status, 405)

		oauth := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"OAuth","authType":"oauth_token","credential":"{\"access_token\":\"lin_api_test_o\"}"}`)["id"].(string)
		f.Approved(key, oauth)
		is.Equal(f.Must(200, "GET", "/api/tools/"+oauth+"/credentials", key, "")["credential"], map[string]any{"access_token": "lin_api_test_o"})

		own := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Mail","credentialMode":"per_agent"}`)["id"].(string)
		f.Must(201, "POST", "/api/admin/agents/"+agent+"/tools", f.Owner, `{"toolId":"`+own+`","credential":"lin_api_test_own"}`)
		is.Equal(f.Must(200, "GET", "/api/tools/"+own+"/credentials", key, "")["credential"], "lin_api_test_own")

		f.Must(200, "DELETE", "/api/admin/tools/"+oauth+"/credential", f.Owner, "")
		is.Equal(f.Do("GET", "/api/tools/"+oauth+"/credentials", key, "").Status, 409)
		is.Equal(f.Must(200, "GET", "/api/admin/tools/"+oauth, f.Owner, "")["healthStatus"], "action_needed")
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=credential.vended", f.Owner, "").Items(t)), 3)
	})
}

// TestRequests is 2.4.
func TestRequests(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		ids := states(f, agent, key)
		before := map[string]any{}
		for _, g := range f.Do("GET", "/api/admin/grants", f.Owner, "").Items(t) {
			before[g["toolId"].(string)] = g["id"]
		}
		for name, want := range map[string]int{"none": 201, "denied": 201, "revoked": 201, "pending": 409, "approved": 409} {
			res := f.Do("POST", "/api/tools/"+ids[name]+"/request", key, `{"reason":" once more "}`)
			is.Equal(res.Status, want)
			if want == 409 {
				is.Equal(keys(res.Object(t)), "error hint")
				is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
				continue
			}
			is.Equal(keys(res.Object(t)), "message request_id status")
			is.Equal(res.Object(t)["status"], "pending")
			if name != "none" {
				is.Equal(res.Object(t)["request_id"], before[ids[name]]) // the same row
			}
		}
		for _, g := range f.Do("GET", "/api/admin/grants?status=pending", f.Owner, "").Items(t) {
			if g["toolId"] == ids["denied"] {
				is.Equal(words(g["reason"], g["denialReason"], g["decidedByUserId"], g["decidedAt"]), words("once more", nil, nil, nil))
			}
		}
		is.Equal(f.Do("POST", "/api/tools/"+unknownID+"/request", key, `{"reason":"needed"}`).Status, 404)

		for _, path := range []string{"/api/tools/" + ids["none"] + "/request", "/api/tools/anything/request"} {
			res := f.Do("GET", path, "", "")
			is.Equal(res.Status, 200)
			schema := res.Object(t)["schema"].(map[string]any)
			is.Equal(keys(schema), "body description method path responses")
			is.Equal(schema["method"], "POST")
			reason := schema["body"].(map[string]any)["reason"].(map[string]any)
			is.Equal(keys(reason), "description example max_length min_length required type")
			is.Equal(words(reason["type"], reason["required"], reason["min_length"], reason["max_length"]), words("string", true, 5.0, 500.0))
			for _, r := range schema["responses"].(map[string]any) {
				is.Equal(keys(r.(map[string]any)), "description example")
			}
			is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
		}
	})
}

// TestHeadOfSchema: HEAD works wherever GET does.
func TestHeadOfSchema(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		is.Equal(f.Send(servertest.Request{Method: http.MethodHead, Path: "/api/tools/x/request"}).Status, 200)
	})
}
