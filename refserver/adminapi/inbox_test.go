package adminapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

func TestInbox(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	linear, github := f.Tool("Linear", "lin_api_test_x"), f.Tool("GitHub", "ghp_test_x")
	first := f.Must(201, "POST", "/api/tools/"+linear+"/request", key, `{"reason":"to file issues"}`)["request_id"].(string)
	f.Clock.Add(time.Second)
	second := f.Must(201, "POST", "/api/tools/"+github+"/request", key, `{"reason":"to read code"}`)["request_id"].(string)
	inbox := func(query string) []map[string]any {
		return f.Do("GET", "/api/admin/requests"+query, f.Owner, "").Items(t)
	}
	all := inbox("")
	is.Equal(words(all[0]["id"], all[1]["id"]), second+" "+first) // what was asked for last comes first
	item := all[1]
	is.Equal(keys(item), "agentDescription agentId agentName approvals asked id kind reason requestedAt requiredApprovals ticket toolCredentialMode toolId toolName")
	is.Equal(words(item["kind"], item["agentId"], item["agentName"], item["toolId"], item["toolName"], item["toolCredentialMode"]),
		"access_request "+agent+" bot "+linear+" Linear shared")
	is.Equal(item["requestedAt"], "2026-11-23T06:40:14.128Z")
	is.Equal(fmt.Sprint(inbox("?kind=access_request")), fmt.Sprint(all))
	res := f.Do("GET", "/api/admin/requests?limit=1", f.Owner, "")
	next, _, _ := strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	is.Equal(f.Do("GET", next, f.Owner, "").Items(t)[0]["id"], first)
	for _, query := range []string{"?kind=grant", "?cursor=x", "?limit=0", "?limit=501"} {
		is.Equal(f.Do("GET", "/api/admin/requests"+query, f.Owner, "").Status, 400)
	}
}

func TestOnboarding(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	is.Equal(f.Do("GET", "/api/admin/onboarding", f.Owner, "").Body, `{"data":{"onboardingDismissedAt":null}}`)
	const dismissed = `{"data":{"onboardingDismissedAt":"2026-11-23T06:40:14.128Z"}}`
	is.Equal(f.Do("POST", "/api/admin/onboarding/dismiss", f.Owner, "").Body, dismissed)
	f.Clock.Add(time.Hour)
	is.Equal(f.Do("POST", "/api/admin/onboarding/dismiss", f.Owner, "").Body, dismissed) // the first time stands
	is.Equal(f.Do("GET", "/api/admin/onboarding", f.Owner, "").Body, dismissed)
	is.Equal(f.Do("GET", "/api/admin/audit-log?action=organization.updated", f.Owner, "").Items(t)[0]["metadata"],
		map[string]any{"onboarding": "dismissed"})
}

// TestActivityPages: the contract's limits are clamped, and a cursor goes on.
func TestActivityPages(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	for range 24 {
		f.Must(200, "GET", "/api/tools/"+tool+"/credentials", key, "")
	}
	for path, all := range map[string]int{
		"/api/admin/agents/" + agent + "/activity": 27, // 24 vends, asked, approved, and made
		"/api/admin/tools/" + tool + "/activity":   28, // and the first version of its instructions
	} {
		for limit, want := range map[string]int{"": 5, "?limit=x": 5, "?limit=-1": 1, "?limit=0": 1, "?limit=20": 20, "?limit=999": 20} {
			is.Equal(len(f.Do("GET", path+limit, f.Owner, "").Items(t)), want)
		}
		seen := map[any]bool{}
		for at := path + "?limit=20"; at != ""; {
			res := f.Do("GET", at, f.Owner, "")
			for _, item := range res.Items(t) {
				seen[item["id"]] = true
			}
			at, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
		}
		is.Equal(len(seen), all)
		is.Equal(f.Do("GET", path+"?cursor=x", f.Owner, "").Status, 400)
	}
}
