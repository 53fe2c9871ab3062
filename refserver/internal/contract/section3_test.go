package contract_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestAdministratorsAuthentication is 3.1 as far as it is served: a token stands
// where the session was.
func TestAdministratorsAuthentication(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		_, _, stranger := f.CreateOrganization("Other")
		for token, want := range map[string]int{"": 401, key: 401, "sk_admin_" + strings.Repeat("x", 32): 401, f.Owner: 200, stranger: 200} {
			is.Equal(f.Do("GET", "/api/admin/agents", token, "").Status, want)
		}
		is.Equal(len(f.Do("GET", "/api/admin/agents", stranger, "").Items(t)), 0) // their own organization
		short := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"short","expiresIn":60}`)
		is.Equal(f.Do("GET", "/api/admin/agents", short["token"].(string), "").Status, 200)
		f.Clock.Add(time.Minute)
		is.Equal(f.Do("GET", "/api/admin/agents", short["token"].(string), "").Status, 401)
		revoked := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"revoked"}`)
		f.Must(200, "DELETE", "/api/admin/tokens/"+revoked["id"].(string), f.Owner, "")
		is.Equal(f.Do("GET", "/api/admin/agents", revoked["token"].(string), "").Status, 401)
	})
}

// TestAdministratorsRoutes is 3: routes, statuses and shapes.
func TestAdministratorsRoutes(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		made := f.Must(201, "POST", "/api/admin/agents", f.Owner, `{"name":" bot ","description":" helps "}`)
		is.Equal(keys(made), "agent agent_id api_key instructions")
		agent, key := made["agent_id"].(string), made["api_key"].(string)
		has(t, made["agent"], "id organizationId name description createdByUserId createdByEmail status createdAt updatedAt lastActiveAt toolsGranted toolsPending grantedTools pendingTools")
		is.Equal(words(made["agent"].(map[string]any)["name"], made["agent"].(map[string]any)["description"]), "bot helps")

		unchanged := f.Must(200, "PUT", "/api/admin/agents/"+agent, f.Owner, `{}`) // a no-op that is recorded
		is.Equal(unchanged["name"], "bot")
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=agent.updated", f.Owner, "").Items(t)), 1)

		tool := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Linear","url":"linear.app","credential":"lin_api_test_x"}`)
		has(t, tool, "id configKey name description url authType credentialMode instructions currentInstructionVersionId credentialLastRotatedAt credentialExpiresAt healthStatus approvedAgents pendingAgents approvedAgentList pendingAgentList")
		id := tool["id"].(string)
		request := f.Must(201, "POST", "/api/tools/"+id+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
		item := f.Must(200, "GET", "/api/admin/agents/"+agent, f.Owner, "")
		is.Equal(words(item["toolsPending"], item["pendingTools"]), words([]string{"Linear"}, []any{map[string]any{"requestId": request, "toolId": id, "toolName": "Linear", "toolCredentialMode": "shared"}}))

		for _, body := range []string{"", "x"} { // a body is required
			is.Equal(f.Send(servertest.Request{Method: "POST", Path: "/api/admin/requests/" + request + "/approve", Token: f.Owner, Body: body, Header: http.Header{"Content-Type": {"application/json"}}}).Status, 400)
		}
		is.Equal(f.Do("POST", "/api/admin/requests/"+unknownID+"/approve", f.Owner, `{}`).Status, 404)
		grant := f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{}`)
		has(t, grant, "id organizationId agentId toolId status reason denialReason requestedAt decidedByUserId decidedByEmail decidedAt createdAt updatedAt")
		is.Equal(words(grant["status"], grant["reason"], grant["decidedByUserId"]), words("approved", "needed", f.OwnerID))
		is.Equal(f.Do("POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{}`).Status, 409)
		is.Equal(f.Do("POST", "/api/admin/requests/"+request+"/deny", f.Owner, `{}`).Status, 409)
		is.Equal(f.Do("POST", "/api/admin/requests/"+unknownID+"/deny", f.Owner, `{}`).Status, 404)

		tool = f.Must(200, "GET", "/api/admin/tools/"+id, f.Owner, "")
		is.Equal(words(tool["approvedAgents"], tool["pendingAgents"], tool["approvedAgentList"]), words(1.0, 0.0, []any{map[string]any{"agentId": agent, "agentName": "bot"}}))
		f.Must(200, "GET", "/api/tools/"+id+"/credentials", key, "")
		activity := f.Do("GET", "/api/admin/agents/"+agent+"/activity?limit=1", f.Owner, "").Items(t)
		is.Equal(len(activity), 1)
		is.Equal(keys(activity[0]), "action createdAt id toolId toolName")
		is.Equal(keys(f.Do("GET", "/api/admin/tools/"+id+"/activity", f.Owner, "").Items(t)[0]), "action actorLabel createdAt id")
		is.Equal(len(f.Do("GET", "/api/admin/agents/"+unknownID+"/activity", f.Owner, "").Items(t)), 0)

		rotated := f.Send(servertest.Request{Method: "POST", Path: "/api/admin/agents/" + agent + "/rotate-key", Token: f.Owner, Header: http.Header{"Origin": {"https://evil.example"}}})
		is.Equal(rotated.Status, 403)
		o := f.Must(200, "POST", "/api/admin/agents/"+agent+"/rotate-key", f.Owner, "")
		has(t, o, "agent_id api_key instructions")
		is.Equal(f.Do("GET", "/api/me", key, "").Status, 401) // the old one is dead at once
		key = o["api_key"].(string)
		is.Equal(f.Do("POST", "/api/admin/agents/not-an-id/rotate-key", f.Owner, "").Status, 404)

		is.Equal(f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+id, f.Owner, "")["ok"], true)
		is.Equal(f.Do("DELETE", "/api/admin/agents/"+agent+"/tools/"+unknownID, f.Owner, "").Status, 404)
		is.Equal(f.Do("DELETE", "/api/admin/agents/x/tools/y", f.Owner, "").Status, 404)
		gone := f.Must(200, "DELETE", "/api/admin/tools/"+id, f.Owner, "")
		is.Equal(keys(gone), "approved_revocations ok pending_revocations tool_id")
		for range 2 { // idempotent, and deletes nothing
			is.Equal(f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")["ok"], true)
		}
		is.Equal(f.Do("GET", "/api/me", key, "").Status, 403)
		is.Equal(f.Do("POST", "/api/admin/agents/"+agent+"/tools", f.Owner, `{"toolId":"`+f.Tool("Other", "x")+`"}`).Status, 409) // suspended
		for _, path := range []string{"/agents/" + unknownID, "/tools/" + unknownID, "/agents/x", "/tools/x"} {
			is.Equal(f.Do("PUT", "/api/admin"+path, f.Owner, `{}`).Status, 404)
		}
	})
}

// has wants these members, whatever else is there, and none that would show a
// key or a credential.
func has(t *testing.T, object any, names string) {
	t.Helper()
	o := object.(map[string]any)
	for name := range strings.FieldsSeq(names) {
		if _, found := o[name]; !found {
			t.Errorf("no %s among %s", name, keys(o))
		}
	}
	for _, name := range []string{"apiKeyHash", "credentialEncrypted", "credential"} {
		if _, found := o[name]; found {
			t.Errorf("%s is shown", name)
		}
	}
}

// TestAuditLog is 8 and its route: rows, filters, pages.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		grant := f.Approved(key, tool)
		f.Must(200, "GET", "/api/tools/"+tool+"/credentials", key, "")
		f.Must(200, "PUT", "/api/admin/agents/"+agent, f.Owner, `{"name":"renamed"}`)
		f.Must(200, "PUT", "/api/admin/tools/"+tool, f.Owner, `{"name":"Linear 2","credential":"lin_api_test_y"}`)
		f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
		f.Must(200, "POST", "/api/admin/agents/"+agent+"/rotate-key", f.Owner, "")
		f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
		f.Must(200, "DELETE", "/api/admin/tools/"+tool, f.Owner, "")
		at := map[string]string{"agent": agent, "tool": tool, "access_grant": grant}
		for _, tt := range []struct{ action, actor, target, metadata string }{
			{"agent.created", "human", "agent", "name"},
			{"agent.updated", "human", "agent", "agentId name"},
			{"agent.suspended", "human", "agent", ""},
			{"agent.key_rotated", "human", "agent", ""},
			{"tool.created", "human", "tool", "credentialMode name toolId toolName"},
			{"tool.updated", "human", "tool", "rotatedCredential credentialMode name toolId toolName"},
			{"tool.deleted", "human", "tool", "toolId toolName approvedCount pendingCount"},
			{"grant.requested", "agent", "access_grant", "agentId toolId toolName"},
			{"grant.approved", "human", "access_grant", "agentId toolId toolName"},
			{"grant.revoked", "human", "access_grant", "agentId toolId toolName"},
			{"credential.vended", "agent", "tool", "agentId toolId toolName"},
		} {
			rows := f.Do("GET", "/api/admin/audit-log?action="+tt.action, f.Owner, "").Items(t)
			is.Equal(len(rows), 1)
			row := rows[0]
			has(t, row, "id organizationId actorType actorId actorLabel action targetType targetId metadata createdAt")
			is.Equal(words(row["actorType"], row["targetType"], row["targetId"]), words(tt.actor, tt.target, at[tt.target]))
			if tt.metadata != "" {
				has(t, row["metadata"], tt.metadata)
			}
			if tt.actor == "agent" {
				is.Equal(row["actorId"], agent)
			} else {
				is.Equal(row["actorId"], f.OwnerID)
			}
		}
		updated := f.Do("GET", "/api/admin/audit-log?action=tool.updated", f.Owner, "").Items(t)[0]["metadata"].(map[string]any)
		is.Equal(words(updated["rotatedCredential"], updated["credentialMode"], updated["name"]), words(true, "shared", "Linear 2"))
		deleted := f.Do("GET", "/api/admin/audit-log?action=tool.deleted", f.Owner, "").Items(t)[0]["metadata"].(map[string]any)
		is.Equal(words(deleted["approvedCount"], deleted["pendingCount"]), words(0.0, 0.0))

		for query, want := range map[string]int{
			"agent_id=" + agent + "&limit=500": 8, "tool_id=" + tool + "&limit=500": 8, "action=grant.revoked": 1, "other=1&action=grant.revoked": 1,
			"action=grant.revoked&to=2026-11-23T06:40:14.127Z": 0, "action=grant.revoked&to=2026-11-23T06:40:14.128Z": 1, "action=grant.revoked&from=2026-11-23T06:40:14.129Z": 0,
		} {
			rows := f.Do("GET", "/api/admin/audit-log?"+query, f.Owner, "").Items(t)
			if strings.Contains(query, "_id=") {
				is.True(len(rows) >= want) // those of the contract, and more
				continue
			}
			is.Equal(len(rows), want)
		}
		for _, query := range []string{"agent_id=", "agent_id=x", "tool_id=", "from=yesterday", "from=2026-11-23T06:40:14%2B01:00", "to=", "action=", "limit=0", "limit=501"} {
			is.Equal(f.Do("GET", "/api/admin/audit-log?"+query, f.Owner, "").Status, 400)
		}
	})
}

// TestRoles: whoever may not, is told so, and it is recorded.
func TestRoles(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, auditor := f.Administrator(agentkey.RoleAuditor)
		refused := f.Do("POST", "/api/admin/agents", auditor, `{"name":"bot"}`)
		is.Equal(words(refused.Status, refused.Object(t)["hint"] != nil), "403 true")
		is.Equal(f.Do("GET", "/api/admin/audit-log", auditor, "").Status, 200)
	})
}
