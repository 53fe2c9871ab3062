package agentapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestSuggest is §2.5: its statuses, fields and headers, on both databases.
func TestSuggest(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		f := servertest.New(t, servertest.Options{Store: open(t)})
		_, key := f.Agent("bot")
		_, other := f.Agent("other")
		suggest := func(key, body string, status int) servertest.Response {
			t.Helper()
			res := f.Do("POST", "/api/tools/suggest", key, body)
			is.Equal(res.Status, status)
			is.Equal(res.Header.Get("X-RateLimit-Policy") != "", status == 201 || status == 409) // also on the two conflicts
			return res
		}
		first := suggest(key, `{"name":"Linear","url":"","reason":"to file bugs"}`, 201).Object(t)
		is.Equal(keys(first), "existing message status suggestion_id")
		is.Equal([]any{first["status"], first["existing"]}, []any{"pending", false})
		second := suggest(other, `{"name":" LINEAR! ","url":"https://linear.app","reason":"me too please","unknown":1}`, 201).Object(t)
		is.Equal([]any{second["suggestion_id"], second["existing"]}, []any{first["suggestion_id"], true})

		id := first["suggestion_id"].(string)
		row := f.Must(200, "POST", "/api/admin/suggestions/"+id+"/dismiss", f.Owner, "")
		is.Equal([]any{row["status"], row["supporterCount"], row["url"]}, []any{"dismissed", float64(2), "https://linear.app/"})
		is.Equal(f.Do("POST", "/api/admin/suggestions/"+id+"/dismiss", f.Owner, "").Status, 409)
		cooling := suggest(key, `{"name":"linear","reason":"to file bugs"}`, 409)
		is.Equal(keys(cooling.Object(t)), "error hint retry_after suggestion_id")
		is.Equal(cooling.Object(t)["retry_after"], row["dismissedUntil"])
		is.Equal(cooling.Object(t)["suggestion_id"], id)

		tool := f.Tool("Sentry", "sen_api_test_x")
		there := suggest(key, `{"name":"sentry","reason":"to read errors"}`, 409)
		is.Equal(keys(there.Object(t)), "error hint message tool_id tool_name")
		is.Equal([]any{there.Object(t)["tool_id"], there.Object(t)["tool_name"]}, []any{tool, "Sentry"})
		problem := f.Send(servertest.Request{Method: "POST", Path: "/api/tools/suggest", Token: key, Body: `{"name":"sentry","reason":"to read errors"}`,
			Header: http.Header{"Accept": {"application/problem+json"}}})
		is.Equal(problem.Status, 409)
		is.Equal(keys(problem.Object(t)), "code detail hint message status title tool_id tool_name type")
		suggest(key, `{"name":"👍👍","reason":"to file bugs"}`, 400)
		suggest("", `{}`, 401)
	})
}

// TestSuggestedToolIsAdded: the inbox shows the demand, adding the tool answers
// it, and every supporter has a pending request.
func TestSuggestedToolIsAdded(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		f := servertest.New(t, servertest.Options{Store: open(t), Policies: servertest.Unlimited()})
		agents := map[string]string{}
		var wish string
		for i := range 22 {
			name := fmt.Sprintf("bot %d", i)
			_, key := f.Agent(name)
			agents[name] = key
			wish = f.Must(201, "POST", "/api/tools/suggest", key, `{"name":"Linear","reason":"to file bugs"}`)["suggestion_id"].(string)
		}
		item := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)[0]
		is.Equal(keys(item), "convertedToolId createdAt dismissedUntil firstRequestedAt id kind lastRequestedAt name organizationId requestedAt status supporterCount supporters updatedAt url")
		is.Equal([]any{item["kind"], item["id"], item["supporterCount"]}, []any{"tool_suggestion", wish, float64(22)})
		is.Equal(len(item["supporters"].([]any)), 20) // cut, beside the full count
		is.Equal(keys(item["supporters"].([]any)[0].(map[string]any)), "agentId agentName firstRequestedAt lastRequestedAt latestReason")
		page := f.Do("GET", "/api/admin/suggestions/"+wish+"/supporters?limit=20", f.Owner, "")
		is.Equal(len(page.Items(t)), 20)
		next := strings.Trim(strings.SplitN(page.Header.Get("Link"), ">", 2)[0], "<")
		is.Equal(len(f.Do("GET", next, f.Owner, "").Items(t)), 2)

		tool := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Issue tracker","credential":"lin_api_test_x","sourceSuggestionId":"`+wish+`"}`)
		is.Equal(tool["pendingAgents"], float64(22))
		row := f.Must(200, "GET", "/api/admin/suggestions/"+wish, f.Owner, "")
		is.Equal([]any{row["status"], row["convertedToolId"]}, []any{"accepted", tool["id"]})
		mine := f.Must(200, "GET", "/api/me", agents["bot 3"], "")
		is.Equal(fmt.Sprint(mine["tools_pending"]), "[Issue tracker]")
		is.Equal(len(f.Do("GET", "/api/admin/suggestions?status=pending", f.Owner, "").Items(t)), 0)
		is.Equal(len(f.Do("GET", "/api/admin/suggestions?status=accepted", f.Owner, "").Items(t)), 1)
		is.Equal(f.Do("GET", "/api/admin/suggestions?status=other", f.Owner, "").Status, 400)
		f.Must(200, "DELETE", "/api/admin/tools/"+tool["id"].(string), f.Owner, "")
		is.Equal(f.Must(200, "GET", "/api/admin/suggestions/"+wish, f.Owner, "")["convertedToolId"], nil) // the row stays
	})
}

// TestSuggestSchema: what a suggestion looks like needs no key.
func TestSuggestSchema(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	schema := f.Must(200, "GET", "/api/tools/suggest", "", "")["schema"].(map[string]any)
	is.Equal([]any{schema["method"], schema["path"]}, []any{"POST", "/api/tools/suggest"})
	is.Equal(keys(schema["body"].(map[string]any)), "name reason url")
	is.Equal(keys(schema["responses"].(map[string]any)), "201 400 409 (cooldown) 409 (existing tool) 413 415 429")
}

// TestSuggestionsShareTheHourlyLimit with access requests.
func TestSuggestionsShareTheHourlyLimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Sentry", "sen_api_test_x")
	for i := range 9 {
		f.Must(201, "POST", "/api/tools/suggest", key, fmt.Sprintf(`{"name":"Tool %d","reason":"to file bugs"}`, i))
	}
	f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"to read errors"}`)
	res := f.Do("POST", "/api/tools/suggest", key, `garbage`) // the limit comes before the body
	is.Equal(res.Status, 429)
	is.Equal(res.Header.Get("X-RateLimit-Policy"), "10;w=3600")
}
