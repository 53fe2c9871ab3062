package refserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// shelf is a server with an agent that has access to a tool.
type shelf struct {
	*servertest.Fixture
	key, tool string
}

func newShelf(t *testing.T, o servertest.Options) *shelf {
	t.Helper()
	s := &shelf{Fixture: servertest.New(t, o)}
	_, s.key = s.Agent("bot")
	s.tool = s.Tool("Linear", "lin_api_test_guides")
	s.Approved(s.key, s.tool)
	return s
}

func (s *shelf) learn(learned string) servertest.Response {
	s.T.Helper()
	return s.Do("POST", "/api/tools/"+s.tool+"/instructions/suggest", s.key, `{"learned":"`+learned+`","why":"It cost me a day."}`)
}

func (s *shelf) write(status int, body string) map[string]any {
	s.T.Helper()
	return s.Must(status, "PUT", "/api/admin/tools/"+s.tool, s.Owner, body)
}

func sortedKeys(m map[string]any) string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestInstructionsOverHTTP: an agent proposes, administrators decide, versions are
// kept, on every database.
func TestInstructionsOverHTTP(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		instructionsLife(t, servertest.Options{Policies: agentkeytest.Unlimited()}, false)
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		instructionsLife(t, servertest.Options{Store: dbtest.SQLite(t)(t), Policies: agentkeytest.Unlimited()}, false)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		instructionsLife(t, servertest.Options{Store: dbtest.Postgres(t)(t), Policies: agentkeytest.Unlimited()}, true)
	})
}

func instructionsLife(t *testing.T, o servertest.Options, clocked bool) {
	t.Helper()
	is := is.New(t)
	s := newShelf(t, o)
	tool := "/api/admin/tools/" + s.tool
	began := s.Must(200, "GET", tool, s.Owner, "")
	first := began["currentInstructionVersionId"].(string)

	made := s.learn("Lists end at 100 items.")
	is.Equal(made.Status, 201)
	is.Equal(sortedKeys(made.Object(t)), "existing message status suggestion_id")
	is.Equal(made.Object(t)["existing"], false)
	id := made.Object(t)["suggestion_id"].(string)
	again := s.learn("lists end at 100 items")
	is.Equal(again.Status, 201)
	is.Equal(again.Object(t)["existing"], true)
	is.Equal(again.Object(t)["suggestion_id"], id)

	inbox := s.Do("GET", "/api/admin/requests?kind=instruction_suggestion", s.Owner, "").Items(t)
	is.Equal(len(inbox), 1)
	for _, name := range []string{"id", "toolId", "toolName", "baseVersionId", "learned", "supporterCount", "firstRequestedAt", "lastRequestedAt", "requestedAt", "supporters"} {
		is.True(inbox[0][name] != nil)
	}
	is.Equal(inbox[0]["baseVersionId"], first)
	is.Equal(sortedKeys(inbox[0]["supporters"].([]any)[0].(map[string]any)), "agentId agentName firstRequestedAt lastRequestedAt latestWhy")
	is.Equal(len(s.Do("GET", "/api/admin/requests", s.Owner, "").Items(t)), 1)

	accepted := s.write(200, `{"instructions":"Lists end at 100 items.","acceptedInstructionSuggestionId":"`+id+`"}`)
	second := accepted["currentInstructionVersionId"].(string)
	is.True(second != first)
	is.Equal(s.Do("PUT", tool, s.Owner, `{"acceptedInstructionSuggestionId":"`+id+`"}`).Status, 409)
	is.Equal(len(s.Do("GET", "/api/admin/requests", s.Owner, "").Items(t)), 0)
	if !clocked { // a database with a clock of its own does not believe a fixed one
		is.Equal(s.Must(200, "GET", "/api/tools/"+s.tool+"/credentials", s.key, "")["instructions"], "Lists end at 100 items.")
	}

	dismissed := s.learn("Keys end after a year.").Object(t)["suggestion_id"].(string)
	path := "/api/admin/instruction-suggestions/" + dismissed
	is.Equal(s.Do("POST", path+"/dismiss", s.Owner, `{"reason":"no"}`).Status, 400)
	row := s.Must(200, "POST", path+"/dismiss", s.Owner, `{"reason":"They end after two."}`)
	is.Equal(row["status"], "dismissed")
	is.Equal(s.Do("POST", path+"/dismiss", s.Owner, `{"reason":"They end after two."}`).Status, 409)
	settled := s.learn("KEYS end after a year!")
	is.Equal(settled.Status, 409)
	is.Equal(sortedKeys(settled.Object(t)), "dismissal_reason error hint message suggestion_id")
	is.Equal(settled.Object(t)["dismissal_reason"], "They end after two.")
	is.Equal(settled.Object(t)["suggestion_id"], dismissed)

	renamed := s.write(200, `{"name":"Linear 2","instructions":"Lists end at 100 items."}`)
	is.Equal(renamed["currentInstructionVersionId"], second) // the text is the same
	restored := s.write(200, `{"restoreInstructionVersionId":"`+first+`"}`)
	is.Equal(restored["instructions"], nil)
	stale := s.learn("Keys end after a year.").Object(t)["suggestion_id"].(string)
	s.write(200, `{"instructions":"Lists end at 250 items.\nKeys end."}`)
	is.Equal(s.Do("PUT", tool, s.Owner, `{"instructions":"x","acceptedInstructionSuggestionId":"`+stale+`"}`).Status, 409)
	is.Equal(s.Must(200, "GET", "/api/admin/instruction-suggestions/"+stale, s.Owner, "")["stale"], true)

	versions := s.Do("GET", tool+"/instructions/history", s.Owner, "").Items(t)
	is.Equal(len(versions), 4)
	is.Equal(versions[0]["source"], "manual")
	is.Equal(versions[1]["source"], "restore")
	is.Equal(versions[2]["source"], "suggestion_accept")
	is.Equal(versions[3]["source"], "tool_create")
	is.Equal(versions[2]["createdByEmail"], "owner@example.com")
	page := s.Do("GET", tool+"/instructions/history?limit=3", s.Owner, "")
	is.Equal(len(page.Items(t)), 3)
	is.True(strings.Contains(page.Header.Get("Link"), `rel="next"`))
	is.Equal(s.Must(200, "GET", tool+"/instructions/history/"+second, s.Owner, "")["number"], 2.0)

	diff := s.Must(200, "GET", tool+"/instructions/diff?from="+second, s.Owner, "")
	is.True(strings.HasSuffix(diff["unified"].(string), "@@ -1 +1,2 @@\n-Lists end at 100 items.\n+Lists end at 250 items.\n+Keys end.\n"))
	is.Equal(len(diff["lines"].([]any)), 3)
	is.Equal(s.Must(200, "GET", tool+"/instructions/diff?to="+first, s.Owner, "")["from"], nil)
	for query, want := range map[string]int{"": 4 - 1, "?status=pending": 1, "?status=dismissed&tool_id=" + s.tool: 1, "?limit=2": 2} {
		is.Equal(len(s.Do("GET", "/api/admin/instruction-suggestions"+query, s.Owner, "").Items(t)), want)
	}
	is.Equal(len(s.Do("GET", "/api/admin/instruction-suggestions/"+id+"/supporters", s.Owner, "").Items(t)), 1)
	actions := map[string]int{}
	for _, e := range s.Do("GET", "/api/admin/audit-log?limit=500&tool_id="+s.tool, s.Owner, "").Items(t) {
		actions[e["action"].(string)]++
	}
	for action, n := range map[string]int{
		"tool.instructions.version_created": 4, "tool.instructions.restored": 1, "tool_instruction_suggestion.created": 3,
		"tool_instruction_suggestion.supported": 1, "tool_instruction_suggestion.accepted": 1, "tool_instruction_suggestion.dismissed": 1,
	} {
		is.Equal(fmt.Sprint(action, actions[action]), fmt.Sprint(action, n))
	}
	is.Equal(s.Must(200, "GET", "/api/admin/audit/reconcile", s.Owner, "")["ok"], true)
}

// TestInstructionsRefusals: statuses, hints and headers of what is not taken.
func TestInstructionsRefusals(t *testing.T) {
	t.Parallel()
	s := newShelf(t, servertest.Options{Policies: servertest.Unlimited()})
	const unknown = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"
	_, stranger := s.Agent("stranger")
	suggest := "/api/tools/" + s.tool + "/instructions/suggest"
	good := `{"learned":"Lists end.","why":"I saw it."}`
	tool := "/api/admin/tools/" + s.tool
	for _, test := range []struct {
		name, method, path, token, body string
		status                          int
	}{
		{"no key", "POST", suggest, "", good, 401},
		{"no grant", "POST", suggest, stranger, good, 403},
		{"unknown tool", "POST", "/api/tools/" + unknown + "/instructions/suggest", s.key, good, 404},
		{"malformed tool", "POST", "/api/tools/x/instructions/suggest", s.key, good, 404},
		{"no fields", "POST", suggest, s.key, `{}`, 400},
		{"too short", "POST", suggest, s.key, `{"learned":"abc","why":"abc"}`, 400},
		{"no JSON", "POST", suggest, s.key, `x`, 400},
		{"too large", "POST", suggest, s.key, `{"learned":"` + strings.Repeat("x", 8192) + `"}`, 413},
		{"unknown version", "GET", tool + "/instructions/history/" + unknown, s.Owner, "", 404},
		{"malformed version", "GET", tool + "/instructions/history/x", s.Owner, "", 404},
		{"history of a malformed tool", "GET", "/api/admin/tools/x/instructions/history", s.Owner, "", 404},
		{"diff of an unknown version", "GET", tool + "/instructions/diff?from=" + unknown, s.Owner, "", 404},
		{"diff of a malformed version", "GET", tool + "/instructions/diff?from=x", s.Owner, "", 400},
		{"diff of an unknown tool", "GET", "/api/admin/tools/" + unknown + "/instructions/diff", s.Owner, "", 404},
		{"dismiss an unknown one", "POST", "/api/admin/instruction-suggestions/" + unknown + "/dismiss", s.Owner, `{"reason":"not true"}`, 404},
		{"dismiss a malformed one", "POST", "/api/admin/instruction-suggestions/x/dismiss", s.Owner, `{"reason":"not true"}`, 404},
		{"accept an unknown one", "PUT", tool, s.Owner, `{"acceptedInstructionSuggestionId":"` + unknown + `"}`, 404},
		{"restore an unknown one", "PUT", tool, s.Owner, `{"restoreInstructionVersionId":"` + unknown + `"}`, 404},
		{"a malformed id in a body", "PUT", tool, s.Owner, `{"restoreInstructionVersionId":"x"}`, 400},
		{"both", "PUT", tool, s.Owner, `{"restoreInstructionVersionId":"` + unknown + `","acceptedInstructionSuggestionId":"` + unknown + `"}`, 400},
		{"a status that is none", "GET", "/api/admin/instruction-suggestions?status=new", s.Owner, "", 400},
		{"supporters of an unknown one", "GET", "/api/admin/instruction-suggestions/" + unknown + "/supporters", s.Owner, "", 404},
		{"an agent's key", "GET", "/api/admin/instruction-suggestions", s.key, "", 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			is := is.New(t)
			res := s.Do(test.method, test.path, test.token, test.body)
			is.Equal(res.Status, test.status)
			is.True(res.Object(t)["error"] != nil)
			is.Equal(res.Header.Get("X-RateLimit-Limit"), "")
		})
	}
	is := is.New(t)
	is.Equal(len(s.Do("GET", "/api/admin/tools/"+unknown+"/instructions/history", s.Owner, "").Items(t)), 0) // as the contract has it
	schema := s.Do("GET", "/api/tools/any/instructions/suggest", "", "")
	is.Equal(schema.Status, 200)
	is.True(strings.Contains(schema.Body, `"max_length":2000`))
}

// TestInstructionsLimit: proposals share the window of requests, headers stand on
// what was taken and on the 409 with its members, in both forms.
func TestInstructionsLimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t, servertest.Options{}) // one request is used up
	made := s.learn("Lists end at 100 items.")
	is.Equal(made.Header.Get("X-RateLimit-Remaining"), "8")
	id := made.Object(t)["suggestion_id"].(string)
	s.Must(200, "POST", "/api/admin/instruction-suggestions/"+id+"/dismiss", s.Owner, `{"reason":"not true"}`)
	settled := s.learn("Lists end at 100 items.")
	is.Equal(settled.Status, 409)
	is.Equal(settled.Header.Get("X-RateLimit-Remaining"), "7")
	is.Equal(settled.Header.Get("X-RateLimit-Policy"), "10;w=3600")
	problem := s.Send(servertest.Request{
		Method: "POST", Path: "/api/tools/" + s.tool + "/instructions/suggest", Token: s.key,
		Body:   `{"learned":"Lists end at 100 items.","why":"I saw it."}`,
		Header: http.Header{"Accept": {"application/problem+json"}},
	})
	is.Equal(problem.Header.Get("Content-Type"), "application/problem+json")
	var body map[string]any
	is.NoErr(json.Unmarshal([]byte(problem.Body), &body))
	is.Equal(body["code"], "instructions_dismissed")
	is.Equal(body["dismissal_reason"], "not true")
	for range 6 {
		is.Equal(s.learn("abc").Status, 400) // counts too
	}
	is.Equal(s.learn("Lists end.").Status, 429)
}
