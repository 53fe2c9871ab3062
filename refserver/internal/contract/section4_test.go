package contract_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestAgents is 4.1.
func TestAgents(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		ids := states(f, agent, key)
		is.Equal(f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")["revoked"], 2.0) // pending and approved
		status := map[string]string{}
		for _, g := range f.Do("GET", "/api/admin/grants?agent_id="+agent, f.Owner, "").Items(t) {
			status[g["toolId"].(string)] = g["status"].(string)
			if g["toolId"] == ids["pending"] {
				is.Equal(g["decidedByUserId"], f.OwnerID)
			}
		}
		is.Equal(words(status[ids["pending"]], status[ids["approved"]], status[ids["denied"]], status[ids["revoked"]]), "revoked revoked denied revoked")
		is.Equal(f.Must(200, "GET", "/api/admin/agents/"+agent, f.Owner, "")["status"], "suspended")
		is.Equal(len(f.Do("GET", "/api/admin/agents", f.Owner, "").Items(t)), 1) // never deleted
		key = f.Must(200, "POST", "/api/admin/agents/"+agent+"/rotate-key", f.Owner, "")["api_key"].(string)
		is.Equal(f.Do("GET", "/api/me", key, "").Status, 403) // suspended still
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=grant.revoked", f.Owner, "").Items(t)), 3)

		f.Must(200, "POST", "/api/admin/agents/"+agent+"/reactivate", f.Owner, "")
		me := f.Must(200, "GET", "/api/me", key, "")
		is.Equal(words(me["tools_approved"], me["tools_pending"]), "[] []") // it starts with nothing
	})
}

// TestTools is 4.2.
func TestTools(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		add := func(body string) servertest.Response { return f.Do("POST", "/api/admin/tools", f.Owner, body) }
		for body, field := range map[string]string{
			`{"name":"x","credential":"y"}`:                                "name",
			`{"name":"` + strings.Repeat("x", 121) + `","credential":"y"}`: "name",
			`{"name":"ok"}`:                   "credential",
			`{"name":"ok","credential":"  "}`: "credential",
			`{"name":"ok","credentialMode":"per_agent","credential":"y"}`:                       "credential",
			`{"name":"ok","credential":"y","description":"` + strings.Repeat("x", 501) + `"}`:   "description",
			`{"name":"ok","credential":"y","instructions":"` + strings.Repeat("x", 4001) + `"}`: "instructions",
			`{"name":"ok","credential":"y","authType":"password"}`:                              "authType",
			`{"name":"ok","credential":"y","credentialMode":"both"}`:                            "credentialMode",
			`{"name":"ok","credential":"y","url":"javascript:alert(1)"}`:                        "url",
			`{"name":"ok","credential":"y","url":"ftp://x/y"}`:                                  "url",
		} {
			res := add(body)
			is.Equal(res.Status, 400)
			is.True(strings.Contains(res.Body, `"field":"`+field+`"`))
		}
		for i, want := range []string{"linear", "linear-2", "linear-3"} {
			tool := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Linear","credential":"lin_api_test_`+fmt.Sprint(i)+`"}`)
			is.Equal(tool["configKey"], want)
		}
		is.Equal(f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"道具","credential":"x"}`)["configKey"], "tool")
		for given, want := range map[string]string{
			"linear.app": "https://linear.app/", " https://Linear.app/x?y=1 ": "https://linear.app/x?y=1", "http://linear.app": "http://linear.app/",
			"HTTPS://linear.app:443/a/../b?q=ä": "https://linear.app/b?q=%C3%A4",
		} {
			is.Equal(f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"URL","credential":"x","url":"`+given+`"}`)["url"], want)
		}

		id := f.Tool("Mail", "lin_api_test_x")
		path := "/api/admin/tools/" + id
		rotated := f.Must(200, "GET", path, f.Owner, "")["credentialLastRotatedAt"]
		f.Clock.Add(time.Second)
		is.Equal(f.Must(200, "PUT", path, f.Owner, `{"credential":"   ","name":"Mail 2"}`)["credentialLastRotatedAt"], rotated) // blank: kept
		is.True(f.Must(200, "PUT", path, f.Owner, `{"credential":"lin_api_test_y"}`)["credentialLastRotatedAt"] != rotated)
		is.Equal(f.Must(200, "PUT", path, f.Owner, `{"instructions":"Say please."}`)["instructions"], "Say please.")
		is.Equal(f.Must(200, "PUT", path, f.Owner, `{"instructions":""}`)["instructions"], nil) // cleared
		is.Equal(f.Do("PUT", path, f.Owner, `{"authType":"other"}`).Status, 400)                // fixed, and unknown here
		own := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Own","credentialMode":"per_agent"}`)
		is.Equal(own["healthStatus"], "healthy")
		is.Equal(f.Do("PUT", "/api/admin/tools/"+own["id"].(string), f.Owner, `{"credential":"x"}`).Status, 400)

		health := func(end string) any {
			return f.Must(200, "PUT", path, f.Owner, `{"credentialExpiresAt":`+end+`}`)["healthStatus"]
		}
		is.Equal(health(`null`), "healthy")
		is.Equal(health(`"2026-12-01T00:00:00.000Z"`), "attention") // within 14 days
		is.Equal(health(`"2027-06-01T00:00:00.000Z"`), "healthy")
		f.Clock.Add(91 * 24 * time.Hour)
		is.Equal(health(`null`), "attention") // not rotated for 90 days
		is.Equal(health(`"2026-12-01T00:00:00.000Z"`), "action_needed")
	})
}

// TestDeletedTool is 4.2 as well: what goes with a tool.
func TestDeletedTool(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		tool := f.Tool("Linear", "lin_api_test_x")
		_, one := f.Agent("one")
		_, two := f.Agent("two")
		f.Approved(one, tool)
		f.Must(201, "POST", "/api/tools/"+tool+"/request", two, `{"reason":"needed"}`)
		gone := f.Must(200, "DELETE", "/api/admin/tools/"+tool, f.Owner, "")
		is.Equal(words(gone["approved_revocations"], gone["pending_revocations"], gone["tool_id"]), words(1.0, 1.0, tool))
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", one, "").Status, 404)
		is.Equal(len(f.Do("GET", "/api/admin/grants", f.Owner, "").Items(t)), 0)
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=grant.revoked", f.Owner, "").Items(t)), 2) // one for each
		row := f.Do("GET", "/api/admin/audit-log?action=tool.deleted", f.Owner, "").Items(t)[0]["metadata"].(map[string]any)
		is.Equal(words(row["approvedCount"], row["pendingCount"]), words(1.0, 1.0))
	})
}

// TestGrants is 4.3: every row of the table that a request over HTTP can show.
func TestGrants(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		ids := states(f, agent, key)
		grantOf := func(tool string) map[string]any {
			for _, g := range f.Do("GET", "/api/admin/grants?tool_id="+tool, f.Owner, "").Items(t) {
				return g
			}
			return nil
		}
		assign := func(tool, body string) servertest.Response {
			return f.Do("POST", "/api/admin/agents/"+agent+"/tools", f.Owner, `{"toolId":"`+tool+`"`+body+`}`)
		}
		events := func(action string) int {
			return len(f.Do("GET", "/api/admin/audit-log?limit=500&action="+action, f.Owner, "").Items(t))
		}
		is.Equal(grantOf(ids["denied"])["denialReason"], "not yet")
		is.Equal(grantOf(ids["revoked"])["denialReason"], nil) // a revoke clears it
		approved, assigned := events("grant.approved"), events("grant.assigned")
		for _, name := range []string{"none", "denied", "revoked"} {
			res := assign(ids[name], "")
			is.Equal(res.Status, 201)
			is.Equal(words(res.Object(t)["status"], res.Object(t)["denialReason"], res.Object(t)["reason"]), words("approved", nil, nil))
		}
		is.Equal(words(events("grant.approved")-approved, events("grant.assigned")-assigned), "0 3")
		pending := assign(ids["pending"], "")
		is.Equal(words(pending.Status, pending.Object(t)["reason"]), "201 needed") // kept
		is.Equal(words(events("grant.approved")-approved, events("grant.assigned")-assigned), "1 3")
		before := grantOf(ids["approved"])
		again := assign(ids["approved"], `,"credential":"ignored"`)
		is.Equal(words(again.Status, again.Object(t)["updatedAt"]), words(201, before["updatedAt"])) // unchanged, and no event
		is.Equal(words(events("grant.approved")-approved, events("grant.assigned")-assigned), "1 3")

		revoked := events("grant.revoked")
		for range 2 { // from any status
			f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+ids["denied"], f.Owner, "")
		}
		is.Equal(grantOf(ids["denied"])["status"], "revoked")
		is.True(events("grant.revoked") > revoked)

		own := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Own","credentialMode":"per_agent"}`)["id"].(string)
		is.Equal(assign(own, "").Status, 400) // needs a credential of its own
		is.Equal(assign(own, `,"credential":"lin_api_test_own"`).Status, 201)
		f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+own, f.Owner, "")
		request := f.Must(201, "POST", "/api/tools/"+own+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
		is.Equal(f.Do("POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{}`).Status, 400) // the old one went with the revoke
		f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{"credential":"lin_api_test_new"}`)
		is.Equal(f.Must(200, "GET", "/api/tools/"+own+"/credentials", key, "")["credential"], "lin_api_test_new")
		is.Equal(assign(unknownID, "").Status, 404)
	})
}
