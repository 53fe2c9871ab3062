package agentapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestLoop plays the whole loop as an agent sees it.
func TestLoop(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_loop")
	path := "/api/tools/" + tool

	refused := f.Do(http.MethodGet, path+"/credentials", key, "")
	is.Equal(refused.Status, http.StatusForbidden)
	is.True(refused.Object(t)["hint"] != nil) // the agent learns what to do

	asked := f.Do(http.MethodPost, path+"/request", key, `{"reason":"to file bugs","duration":3600}`)
	is.Equal(asked.Status, http.StatusCreated)
	is.Equal(asked.Object(t)["status"], "pending")
	request := asked.Object(t)["request_id"].(string)

	again := f.Do(http.MethodPost, path+"/request", key, `{"reason":"to file bugs"}`)
	is.Equal(again.Status, http.StatusConflict)
	is.True(again.Object(t)["hint"] != nil)
	pending := f.Do(http.MethodGet, path+"/credentials", key, "")
	is.Equal(pending.Status, http.StatusForbidden)
	is.True(pending.Object(t)["hint"] != refused.Object(t)["hint"]) // each state has its own hint

	granted := f.Must(http.StatusOK, http.MethodPost, "/api/admin/requests/"+request+"/approve", f.Owner, `{"expiresIn":1800}`)
	is.Equal(granted["status"], "approved")
	is.Equal(granted["expiresAt"], "2026-11-23T07:10:14.128Z")

	vend := f.Do(http.MethodGet, path+"/credentials", key, "")
	is.Equal(vend.Status, http.StatusOK)
	is.Equal(vend.Object(t)["credential"], "lin_api_test_loop")

	revoked := f.Must(http.StatusOK, http.MethodDelete, "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	is.Equal(revoked["ok"], true)
	is.Equal(revoked["vends"], 1.0)
	is.Equal(revoked["rotateUpstream"], true)
	cut := f.Do(http.MethodGet, path+"/credentials", key, "")
	is.Equal(cut.Status, http.StatusForbidden)
	is.True(!strings.Contains(cut.Body, "lin_api_test_loop"))
}
