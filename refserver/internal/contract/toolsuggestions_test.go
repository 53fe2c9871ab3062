package contract_test

import (
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestToolSuggestions is 2.5 and 4.5.
func TestToolSuggestions(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, one := f.Agent("one")
		_, two := f.Agent("two")
		suggest := func(key, body string) servertest.Response { return f.Do("POST", "/api/tools/suggest", key, body) }
		is.Equal(keys(schemaFields(t, f, "/api/tools/suggest")), "name reason url")

		first := suggest(one, `{"name":" Jira ","url":"jira.example","reason":"needed"}`)
		is.Equal(first.Status, 201)
		is.Equal(keys(first.Object(t)), "existing message status suggestion_id")
		is.Equal(words(first.Object(t)["status"], first.Object(t)["existing"]), "pending false")
		id := first.Object(t)["suggestion_id"]
		for _, body := range []string{`{"name":"Jira Cloud","url":"https://www.jira.example/x","reason":"needed too"}`, `{"name":"JIRA!","reason":"once more","url":""}`} {
			again := suggest(two, body) // by the domain, and by the name
			is.Equal(words(again.Status, again.Object(t)["suggestion_id"], again.Object(t)["existing"]), words(201, id, true))
		}
		for _, bad := range []string{`{"name":"x","reason":"needed"}`, `{"name":"ok","reason":"four"}`, `{"name":"ok","reason":"needed","url":"ftp://x/y"}`} {
			is.Equal(suggest(one, bad).Status, 400)
		}
		item := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)[0]
		has(t, item, "kind id name url supporterCount firstRequestedAt lastRequestedAt requestedAt supporters")
		is.Equal(words(item["kind"], item["name"], item["url"], item["supporterCount"]), words("tool_suggestion", "Jira", "https://jira.example/", 2.0))
		has(t, item["supporters"].([]any)[0], "agentId agentName latestReason firstRequestedAt lastRequestedAt")

		// Dismissed, it rests for a day.
		path := "/api/admin/suggestions/" + id.(string) + "/dismiss"
		f.Must(200, "POST", path, f.Owner, "")
		is.Equal(f.Do("POST", path, f.Owner, "").Status, 409)
		is.Equal(f.Do("POST", "/api/admin/suggestions/x/dismiss", f.Owner, "").Status, 404)
		cold := suggest(one, `{"name":"Jira","reason":"needed"}`)
		is.Equal(cold.Status, 409)
		is.Equal(keys(cold.Object(t)), "error hint retry_after suggestion_id")
		is.Equal(cold.Object(t)["retry_after"], "2026-11-24T06:40:14.128Z")
		f.Clock.Add(24 * time.Hour)
		is.Equal(words(suggest(one, `{"name":"Jira","reason":"needed again"}`).Object(t)["existing"]), "false")

		// Added, it opens a request for each who wanted it, unless they are suspended by then.
		gone, three := f.Agent("three")
		suggest(three, `{"name":"Jira","reason":"needed"}`)
		f.Must(200, "DELETE", "/api/admin/agents/"+gone, f.Owner, "")
		f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Jira","url":"jira.example","credential":"lin_api_test_j","sourceSuggestionId":"`+id.(string)+`"}`)
		grants := f.Do("GET", "/api/admin/grants?status=pending", f.Owner, "").Items(t)
		is.Equal(len(grants), 2)
		is.Equal(f.Must(200, "GET", "/api/admin/suggestions/"+id.(string), f.Owner, "")["supporterCount"], 3.0)
		there := suggest(one, `{"name":"Other","url":"https://jira.example/","reason":"needed"}`)
		is.Equal(there.Status, 409)
		is.Equal(keys(there.Object(t)), "error hint message tool_id tool_name")
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=tool_suggestion.accepted", f.Owner, "").Items(t)), 1)
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=grant.requested_from_suggestion", f.Owner, "").Items(t)), 2)
	})
}
