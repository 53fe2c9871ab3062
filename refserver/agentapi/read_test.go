package agentapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// keys are an object's names, in order.
func keys(o map[string]any) string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, " ")
}

func tools(t *testing.T, f *servertest.Fixture, key, query string) ([]map[string]any, http.Header) {
	t.Helper()
	res := f.Do(http.MethodGet, "/api/tools"+query, key, "")
	if res.Status != http.StatusOK {
		t.Fatalf("status %d: %s", res.Status, res.Body)
	}
	var v struct {
		Tools []map[string]any `json:"tools"`
	}
	if err := json.Unmarshal([]byte(res.Body), &v); err != nil {
		t.Fatal(err)
	}
	return v.Tools, res.Header
}

func TestToolsShowEveryAccess(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	list, _ := tools(t, f, key, "")
	is.Equal(len(list), 0) // [] and not null: the key of another organization's catalog is empty

	byName := map[string]string{}
	for _, name := range []string{"none", "pending", "approved", "denied", "revoked", "limited", "expired", "used up"} {
		byName[name] = f.Tool(name, "lin_api_test_"+name)
	}
	ask := func(name, more string) string {
		return f.Must(201, "POST", "/api/tools/"+byName[name]+"/request", key, `{"reason":"needed for the test"`+more+`}`)["request_id"].(string)
	}
	approve := func(request string) { f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{}`) }
	ask("pending", "")
	approve(ask("approved", ""))
	f.Must(200, "POST", "/api/admin/requests/"+ask("denied", "")+"/deny", f.Owner, `{"reason":"not now"}`)
	approve(ask("revoked", ""))
	f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+byName["revoked"], f.Owner, "")
	approve(ask("limited", `,"duration":7200,"max_vends":3`))
	approve(ask("expired", `,"duration":1`))
	approve(ask("used up", `,"max_vends":1`))
	f.Must(200, "GET", "/api/tools/"+byName["used up"]+"/credentials", key, "")
	f.Clock.Add(2e9)

	list, header := tools(t, f, key, "")
	is.Equal(len(list), 8)
	is.Equal(list[0]["name"], "used up") // newest first
	is.Equal(list[7]["name"], "none")
	want := map[string]string{
		"none": "none", "pending": "pending", "approved": "approved", "denied": "denied", "revoked": "revoked",
		"limited": "approved", "expired": "expired", "used up": "used_up",
	}
	for _, item := range list {
		name := item["name"].(string)
		is.Equal(item["your_access"], want[name])
		fields := "description id name your_access"
		switch name {
		case "denied":
			fields = "denial_reason " + fields
		case "limited": // only a grant with a limit shows one
			fields = "description expires_at id name vends_left your_access"
			is.Equal(item["expires_at"], "2026-11-23T08:40:14.128Z")
			is.Equal(item["vends_left"], 3.0)
		}
		is.Equal(keys(item), fields)
	}
	is.Equal(header.Get("Link"), "") // the whole catalog

	me := f.Do("GET", "/api/me", key, "").Object(t)
	is.Equal(keys(me), "agent_id agent_name created_at description tools_approved tools_available tools_denied tools_pending")
	is.Equal(fmt.Sprint(me["tools_approved"]), "[approved limited]")
	is.Equal(fmt.Sprint(me["tools_pending"]), "[pending]")
	is.Equal(fmt.Sprint(me["tools_denied"]), "[map[name:denied reason:not now]]")
	is.Equal(me["tools_available"], 8.0)
	is.Equal(me["agent_id"], agent)
	is.Equal(me["created_at"], "2026-11-23T06:40:14.128Z")
}

func TestMeHintsWhenThereIsNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	me := f.Do("GET", "/api/me", key, "").Object(t)
	is.True(me["hint"] != nil)
	is.Equal(fmt.Sprintf("%v%v%v%q", me["tools_approved"], me["tools_pending"], me["tools_denied"], me["description"]), `[][][]""`)

	request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	is.Equal(f.Do("GET", "/api/me", key, "").Object(t)["hint"], nil) // something is pending
	f.Must(200, "POST", "/api/admin/requests/"+request+"/deny", f.Owner, `{}`)
	me = f.Do("GET", "/api/me", key, "").Object(t)
	is.True(me["hint"] != nil)                                                  // who was only denied gets it too
	is.Equal(fmt.Sprint(me["tools_denied"]), "[map[name:Linear reason:<nil>]]") // null, not left out
}

func TestToolsByPage(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	for i := range 5 {
		f.Tool(fmt.Sprintf("tool %d", i), "lin_api_test_x")
	}
	var seen []string
	query := "?limit=2"
	for range 5 {
		list, header := tools(t, f, key, query)
		for _, item := range list {
			seen = append(seen, item["name"].(string))
		}
		link := header.Get("Link")
		if link == "" {
			break
		}
		next, rest, _ := strings.Cut(strings.TrimPrefix(link, "</api/tools"), ">")
		is.Equal(rest, `; rel="next"`)
		query = next
	}
	is.Equal(strings.Join(seen, ","), "tool 4,tool 3,tool 2,tool 1,tool 0")

	for _, bad := range []string{"?limit=0", "?limit=501", "?limit=x", "?limit=", "?cursor=x", "?cursor="} {
		res := f.Do("GET", "/api/tools"+bad, key, "")
		is.Equal(res.Status, http.StatusBadRequest) // never a silent default
		is.True(strings.Contains(res.Body, `"details"`))
	}
}
