package contract_test

import (
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// schemaFields are the names in a body's published schema.
func schemaFields(t *testing.T, f *servertest.Fixture, path string) map[string]any {
	t.Helper()
	s := f.Must(200, "GET", path, "", "")["schema"].(map[string]any)
	if keys(s) != "body description method path responses" {
		t.Errorf("the schema of %s has %s", path, keys(s))
	}
	return s["body"].(map[string]any)
}

// TestInstructions is 2.6 and 4.6.
func TestInstructions(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		_, key := f.Agent("bot")
		_, other := f.Agent("other")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool)
		path := "/api/tools/" + tool + "/instructions/suggest"
		learn := func(key, learned string) servertest.Response {
			return f.Do("POST", path, key, `{"learned":"`+learned+`","why":"It cost me a day."}`)
		}
		is.Equal(keys(schemaFields(t, f, path)), "learned why")
		is.Equal(learn(other, "Lists end at 100.").Status, 403)
		is.Equal(f.Do("POST", "/api/tools/"+unknownID+"/instructions/suggest", key, `{"learned":"Lists end.","why":"Because."}`).Status, 404)
		is.Equal(learn(key, strings.Repeat("x", 2001)).Status, 400)
		made := learn(key, "Lists end at 100.")
		is.Equal(made.Status, 201)
		is.Equal(keys(made.Object(t)), "existing message status suggestion_id")
		id := made.Object(t)["suggestion_id"].(string)
		is.Equal(words(learn(key, " lists END at 100 ").Object(t)["suggestion_id"], learn(key, "Lists end at 100!").Object(t)["existing"]), words(id, true))
		item := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)[0]
		has(t, item, "kind id toolId toolName baseVersionId learned supporterCount firstRequestedAt lastRequestedAt requestedAt supporters")
		has(t, item["supporters"].([]any)[0], "agentId agentName latestWhy firstRequestedAt lastRequestedAt")

		history := func() []map[string]any {
			return f.Do("GET", "/api/admin/tools/"+tool+"/instructions/history", f.Owner, "").Items(t)
		}
		is.Equal(words(len(history()), history()[0]["source"], history()[0]["instructions"]), "1 tool_create ")
		has(t, history()[0], "id organizationId toolId instructions source createdByUserId createdByEmail createdAt")
		put := func(status int, body string) map[string]any {
			return f.Must(status, "PUT", "/api/admin/tools/"+tool, f.Owner, body)
		}
		put(200, `{"name":"Linear 2"}`)
		is.Equal(len(history()), 1) // the text is the same
		put(200, `{"instructions":"Lists end at 100.","acceptedInstructionSuggestionId":"`+id+`"}`)
		is.Equal(words(len(history()), history()[0]["source"]), "2 suggestion_accept")
		put(409, `{"instructions":"x","acceptedInstructionSuggestionId":"`+id+`"}`)
		put(404, `{"restoreInstructionVersionId":"`+unknownID+`"}`)
		put(200, `{"restoreInstructionVersionId":"`+history()[1]["id"].(string)+`"}`)
		is.Equal(words(len(history()), history()[0]["source"], history()[0]["instructions"]), "3 restore ")

		no := learn(key, "Keys end.").Object(t)["suggestion_id"].(string)
		dismiss := "/api/admin/instruction-suggestions/" + no + "/dismiss"
		is.Equal(f.Do("POST", dismiss, f.Owner, `{"reason":"no"}`).Status, 400)
		f.Must(200, "POST", dismiss, f.Owner, `{"reason":"They don't."}`)
		is.Equal(f.Do("POST", dismiss, f.Owner, `{"reason":"They don't."}`).Status, 409)
		settled := learn(key, "KEYS end")
		is.Equal(settled.Status, 409)
		has(t, settled.Object(t), "error suggestion_id dismissal_reason message")
		is.Equal(settled.Object(t)["dismissal_reason"], "They don't.")
		is.Equal(f.Do("GET", "/api/admin/tools/x/instructions/history", f.Owner, "").Status, 404)
		is.Equal(len(f.Do("GET", "/api/admin/tools/"+unknownID+"/instructions/history", f.Owner, "").Items(t)), 0)
	})
}
