package contract_test

import (
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestInbox is 4.4: what waits for a person, the newest first.
func TestInbox(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		first := f.Tool("First", "lin_api_test_x")
		second := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Second","credentialMode":"per_agent"}`)["id"].(string)
		for _, tool := range []string{first, second} {
			f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed for `+tool+`"}`)
			f.Clock.Add(time.Second)
		}
		items := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)
		is.Equal(len(items), 2)
		has(t, items[0], "kind id agentId agentName agentDescription toolId toolName toolCredentialMode reason requestedAt")
		is.Equal(words(items[0]["kind"], items[0]["agentId"], items[0]["agentName"], items[0]["toolName"], items[0]["toolCredentialMode"]), words("access_request", agent, "bot", "Second", "per_agent"))
		is.Equal(words(items[0]["requestedAt"], items[1]["requestedAt"]), "2026-11-23T06:40:15.128Z 2026-11-23T06:40:14.128Z")
		page := f.Do("GET", "/api/admin/requests?limit=1", f.Owner, "")
		is.Equal(len(page.Items(t)), 1)
		is.True(page.Header.Get("Link") != "")
		f.Must(200, "POST", "/api/admin/requests/"+items[0]["id"].(string)+"/deny", f.Owner, `{}`)
		is.Equal(len(f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)), 1)
	})
}
