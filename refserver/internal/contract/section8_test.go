package contract_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestMetadata is 8: what the events of suggestions and instructions say, row by row.
// Those of agents, tools and grants are TestAuditLog's, the import's TestCatalogDocument's.
func TestMetadata(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		_, two := f.Agent("two")
		ask := func(status int, key, path, body string) map[string]any {
			return f.Must(status, "POST", "/api/tools/"+path, key, body)
		}
		admin := func(status int, method, path, body string) map[string]any {
			return f.Must(status, method, "/api/admin"+path, f.Owner, body)
		}
		// A suggestion: made, supported, dismissed, at rest.
		jira := ask(201, key, "suggest", `{"name":"Jira","url":"jira.example","reason":"needed"}`)["suggestion_id"].(string)
		ask(201, two, "suggest", `{"name":"Jira Cloud","url":"https://www.jira.example/x","reason":"needed"}`)
		admin(200, "POST", "/suggestions/"+jira+"/dismiss", "")
		ask(409, key, "suggest", `{"name":"Jira","reason":"needed"}`)
		// Another: for a tool that is there, taken up by its name, and by an edit.
		linear := f.Tool("Linear", "lin_api_test_x")
		ask(409, key, "suggest", `{"name":"Linear","reason":"needed"}`)
		wiki := ask(201, key, "suggest", `{"name":"Wiki","reason":"needed"}`)["suggestion_id"].(string)
		wikiTool := admin(201, "POST", "/tools", `{"name":"A wiki","credential":"lin_api_test_w","sourceSuggestionId":"`+wiki+`"}`)["id"].(string)
		mail := ask(201, key, "suggest", `{"name":"Mail","reason":"needed"}`)["suggestion_id"].(string)
		chat := ask(201, key, "suggest", `{"name":"Chat","reason":"needed"}`)["suggestion_id"].(string)
		mailTool := f.Tool("Mail", "lin_api_test_m")
		admin(200, "PUT", "/tools/"+linear, `{"name":"Chat"}`)
		// What was learned: made, supported, dismissed, taken up, and undone.
		f.Approved(two, linear)
		learn := func(learned string) string {
			return ask(201, two, linear+"/instructions/suggest", `{"learned":"`+learned+`","why":"I counted."}`)["suggestion_id"].(string)
		}
		ends := learn("Lists end at 100.")
		learn("Lists end at 100.")
		no := learn("Keys end.")
		admin(200, "POST", "/instruction-suggestions/"+no+"/dismiss", `{"reason":"They don't."}`)
		first := f.Do("GET", "/api/admin/tools/"+linear+"/instructions/history", f.Owner, "").Items(t)[0]["id"].(string)
		taken := admin(200, "PUT", "/tools/"+linear, `{"instructions":"Lists end at 100.","acceptedInstructionSuggestionId":"`+ends+`"}`)["currentInstructionVersionId"]
		restored := admin(200, "PUT", "/tools/"+linear, `{"restoreInstructionVersionId":"`+first+`"}`)["currentInstructionVersionId"]

		for _, tt := range []struct {
			action, actor, kind string
			target              any
			metadata            map[string]any // of the newest, at least
		}{
			{"tool_suggestion.created", "agent", "tool_suggestion", chat, map[string]any{"toolName": "Chat", "url": nil}},
			{"tool_suggestion.supported", "agent", "tool_suggestion", jira, map[string]any{
				"toolName": "Jira", "url": "https://jira.example/", "submittedName": "Jira Cloud", "submittedUrl": "https://www.jira.example/x",
			}},
			{"tool_suggestion.dismissed", "human", "tool_suggestion", jira, map[string]any{"toolName": "Jira", "dismissedUntil": "2026-11-24T06:40:14.128Z"}},
			{"tool_suggestion.cooldown_rejected", "agent", "tool_suggestion", jira, map[string]any{"retryAfter": "2026-11-24T06:40:14.128Z"}},
			{"tool_suggestion.redirected_to_existing_tool", "agent", "tool", linear, map[string]any{"toolId": linear, "toolName": "Linear"}},
			{"tool_suggestion.accepted", "human", "tool_suggestion", wiki, map[string]any{"toolId": wikiTool, "toolName": "A wiki", "resolutionSource": "source_suggestion"}},
			{"tool_suggestion.auto_resolved", "human", "tool_suggestion", chat, map[string]any{"toolId": linear, "toolName": "Chat", "resolutionSource": "tool_updated"}},
			{"grant.requested_from_suggestion", "human", "access_grant", nil, map[string]any{"agentId": agent, "toolId": linear, "toolName": "Chat", "suggestionId": chat}},
			{"tool_instruction_suggestion.created", "agent", "tool_instruction_suggestion", no, map[string]any{"toolId": linear, "toolName": "Chat"}},
			{"tool_instruction_suggestion.supported", "agent", "tool_instruction_suggestion", ends, map[string]any{"toolId": linear, "toolName": "Chat"}},
			{"tool_instruction_suggestion.dismissed", "human", "tool_instruction_suggestion", no, map[string]any{"toolId": linear, "reason": "They don't."}},
			{"tool_instruction_suggestion.accepted", "human", "tool_instruction_suggestion", ends, map[string]any{"toolId": linear, "toolName": "Chat", "instructionVersionId": taken}},
			{"tool.instructions.version_created", "human", "tool_instruction_version", restored, map[string]any{"source": "restore", "toolId": linear, "toolName": "Chat"}},
			{"tool.instructions.restored", "human", "tool_instruction_version", restored, map[string]any{"restoredFromVersionId": first, "toolId": linear, "toolName": "Chat"}},
			{"tool.updated", "human", "tool", linear, map[string]any{"instructionVersionSource": "restore", "rotatedCredential": false}},
		} {
			rows := f.Do("GET", "/api/admin/audit-log?limit=1&action="+tt.action, f.Owner, "").Items(t)
			if len(rows) != 1 {
				t.Errorf("%s: no row", tt.action)
				continue
			}
			row := rows[0]
			if row["actorType"] != tt.actor || row["targetType"] != tt.kind || tt.target != nil && row["targetId"] != tt.target {
				t.Errorf("%s: by %v of %v %v", tt.action, row["actorType"], row["targetType"], row["targetId"])
			}
			said := row["metadata"].(map[string]any)
			for name, want := range tt.metadata {
				if value, found := said[name]; !found || value != want {
					t.Errorf("%s: %s is %v (%t), and not %v", tt.action, name, value, found, want)
				}
			}
		}
		// The first of them, each of its own kind.
		for _, row := range f.Do("GET", "/api/admin/audit-log?action=tool_suggestion.auto_resolved", f.Owner, "").Items(t) {
			if row["targetId"] == mail {
				is.Equal(words(row["metadata"].(map[string]any)["toolId"], row["metadata"].(map[string]any)["resolutionSource"]), words(mailTool, "tool_created"))
			}
		}
		created := f.Do("GET", "/api/admin/audit-log?action=tool_suggestion.created", f.Owner, "").Items(t)
		is.Equal(created[len(created)-1]["metadata"].(map[string]any)["url"], "https://jira.example/")

		// A dismissed one that is proposed again after its rest counts as supported.
		f.Clock.Add(24 * time.Hour)
		ask(201, key, "suggest", `{"name":"Jira","reason":"needed"}`)
		row := f.Do("GET", "/api/admin/audit-log?limit=1&action=tool_suggestion.supported", f.Owner, "").Items(t)[0]
		is.Equal(words(row["targetId"], row["metadata"].(map[string]any)["submittedName"], row["metadata"].(map[string]any)["submittedUrl"]), words(jira, "Jira", nil))
		is.Equal(len(f.Must(200, "GET", "/api/admin/suggestions/"+jira, f.Owner, "")["supporters"].([]any)), 2) // those it had
	})
}

// TestLooseQueries is 3: what a query may say that selects nothing, or too much.
func TestLooseQueries(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, _ := f.Agent("bot")
		for range 25 {
			f.Must(200, "PUT", "/api/admin/agents/"+agent, f.Owner, `{}`)
		}
		for query, want := range map[string]int{
			"": 5, "?limit=": 5, "?limit=many": 5, "?limit=NaN": 5, "?limit=0": 1, "?limit=-9": 1, "?limit=7": 7, "?limit=21": 20, "?limit=99999999999999999999": 20, "?limit=-99999999999999999999": 1,
		} {
			is.Equal(words(query, len(f.Do("GET", "/api/admin/agents/"+agent+"/activity"+query, f.Owner, "").Items(t))), words(query, want))
		}
		// An action is compared exactly: what none is called selects none.
		for _, action := range []string{"agent.created", "Agent.created", "agent", "agent.created.", "%20agent.created%20", "%F0%9F%98%80", "notification.sent"} {
			res := f.Do("GET", "/api/admin/audit-log?action="+action, f.Owner, "")
			is.Equal(res.Status, 200)
			is.Equal(len(res.Items(t)) == 1, action == "agent.created" || action == "%20agent.created%20")
		}
		is.Equal(f.Do("GET", "/api/admin/audit-log?action=agent&agent_id=x", f.Owner, "").Status, 400) // the rest still counts
		is.Equal(f.Do("GET", "/api/admin/audit-log?action=agent", "", "").Status, 401)
	})
}

// TestForeignPages is 3: what a page of another site may not set off, whatever
// else it holds.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		id := f.Must(201, "POST", "/api/tools/suggest", key, `{"name":"Jira","reason":"needed"}`)["suggestion_id"].(string)
		from := func(path, origin, token string) int {
			return f.Send(servertest.Request{Method: "POST", Path: "/api/admin" + path, Token: token, Header: http.Header{"Origin": {origin}}}).Status
		}
		for _, path := range []string{"/agents/" + agent + "/rotate-key", "/suggestions/" + id + "/dismiss"} {
			for _, origin := range []string{"https://evil.example", "null", "https://example.com.evil.example"} {
				is.Equal(from(path, origin, f.Owner), 403)
			}
			is.Equal(from(path, "https://evil.example", ""), 401)
			is.Equal(from(path, "https://example.com", f.Owner), 200) // the host of these requests
		}
		is.Equal(f.Must(200, "GET", "/api/admin/suggestions/"+id, f.Owner, "")["status"], "dismissed")

		is.Equal(f.Do("POST", "/api/admin/tools", f.Owner, `{"name":"Wiki","credential":"lin_api_test_w","sourceSuggestionId":"x"}`).Status, 400)
		// One that is none, or settled, is passed over.
		for _, source := range []string{unknownID, id} {
			f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Wiki","credential":"lin_api_test_w","sourceSuggestionId":"`+source+`"}`)
		}
	})
}
