package adminapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

const unknownID = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"

// call is a route with what it needs to succeed, the operation that the Manager
// checks, and its status when it does.
type call struct {
	method, path, body string
	op                 agentkey.Operation
	status             int
}

// calls makes records of an organization and gives every route a call that the
// owner may make on them.
func calls(f *servertest.Fixture, owner string) []call {
	must := func(status int, method, path, body string) map[string]any {
		f.T.Helper()
		return f.Must(status, method, "/api/admin"+path, owner, body)
	}
	agent := func() (string, string) {
		o := must(201, "POST", "/agents", `{"name":"bot","owner":"sponsor"}`)
		return o["agent_id"].(string), o["api_key"].(string)
	}
	tool := func() string {
		return must(201, "POST", "/tools", `{"name":"Linear","credential":"lin_api_test_x"}`)["id"].(string)
	}
	pending := func() string {
		_, key := agent()
		return f.Must(201, "POST", "/api/tools/"+tool()+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	}
	a, key := agent()
	granted, spare := tool(), tool()
	wish := f.Must(201, "POST", "/api/tools/suggest", key, `{"name":"Sentry","reason":"needed"}`)["suggestion_id"].(string)
	grant := f.Must(201, "POST", "/api/tools/"+granted+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	must(200, "POST", "/requests/"+grant+"/approve", `{}`)
	suspended, _ := agent()
	must(200, "DELETE", "/agents/"+suspended, "")
	keyID := f.Do("GET", "/api/admin/agents/"+suspended+"/keys", owner, "").Items(f.T)[0]["id"].(string)
	person := must(201, "POST", "/administrators", `{"label":"somebody","role":"auditor"}`)["id"].(string)
	leaver := must(201, "POST", "/administrators", `{"label":"leaver","role":"auditor"}`)["id"].(string)
	hold := must(201, "POST", "/holds", `{"scope":"organization","reason":"a dispute"}`)["id"].(string)
	token := must(201, "POST", "/tokens", `{"administrator":"`+person+`"}`)["id"].(string)

	return []call{
		{"GET", "/agents", "", agentkey.OpReadAgents, 200},
		{"POST", "/agents", `{"name":"new bot"}`, agentkey.OpRegisterAgent, 201},
		{"GET", "/agents/" + a, "", agentkey.OpReadAgents, 200},
		{"PUT", "/agents/" + a, `{"name":"renamed"}`, agentkey.OpUpdateAgent, 200},
		{"POST", "/agents/" + suspended + "/reactivate", "", agentkey.OpReactivateAgent, 200},
		{"POST", "/agents/" + a + "/rotate-key", "", agentkey.OpRotateKey, 200},
		{"GET", "/agents/" + a + "/keys", "", agentkey.OpReadAgents, 200},
		{"DELETE", "/agents/" + suspended + "/keys/" + keyID, "", agentkey.OpRevokeKey, 200},
		{"GET", "/agents/" + a + "/activity", "", agentkey.OpReadAudit, 200},
		{"POST", "/agents/" + a + "/tools", `{"toolId":"` + spare + `"}`, agentkey.OpAssign, 201},
		{"DELETE", "/agents/" + a + "/tools/" + spare, "", agentkey.OpRevoke, 200},

		{"GET", "/tools", "", agentkey.OpReadTools, 200},
		{"POST", "/tools", `{"name":"New","credential":"lin_api_test_x"}`, agentkey.OpAddTool, 201},
		{"GET", "/tools/" + spare, "", agentkey.OpReadTools, 200},
		{"PUT", "/tools/" + spare, `{"name":"Renamed"}`, agentkey.OpUpdateTool, 200},
		{"DELETE", "/tools/" + spare + "/credential", "", agentkey.OpRemoveCredential, 200},
		{"PUT", "/tools/" + spare, `{"credential":"lin_api_test_y"}`, agentkey.OpReplaceCredential, 200},
		{"GET", "/tools/" + spare + "/activity", "", agentkey.OpReadAudit, 200},
		{"DELETE", "/tools/" + spare, "", agentkey.OpDeleteTool, 200},

		{"GET", "/config/export", "", agentkey.OpExportCatalog, 200},
		{"PUT", "/config/import?dryRun=1", `{"version":1,"tools":[]}`, agentkey.OpPlanImport, 200},
		{"PUT", "/config/import", `{"version":1,"tools":[]}`, agentkey.OpImportCatalog, 200},

		{"GET", "/suggestions", "", agentkey.OpReadToolSuggestions, 200},
		{"GET", "/suggestions/" + wish, "", agentkey.OpReadToolSuggestions, 200},
		{"GET", "/suggestions/" + wish + "/supporters", "", agentkey.OpReadToolSuggestions, 200},
		{"POST", "/suggestions/" + wish + "/dismiss", "", agentkey.OpDismissToolSuggestion, 200},

		{"GET", "/requests", "", agentkey.OpReadInbox, 200},
		{"POST", "/requests/" + pending() + "/approve", `{}`, agentkey.OpApprove, 200},
		{"POST", "/requests/" + pending() + "/deny", `{}`, agentkey.OpDeny, 200},
		{"GET", "/grants", "", agentkey.OpReadGrants, 200},
		{"POST", "/grants/" + grant + "/narrow", `{"maxVends":5}`, agentkey.OpNarrow, 200},
		{"DELETE", "/agents/" + a, "", agentkey.OpSuspendAgent, 200},

		{"GET", "/organization", "", agentkey.OpReadOrganization, 200},
		{"PUT", "/organization", `{"name":"Renamed"}`, agentkey.OpUpdateOrganization, 200},
		{"POST", "/organization/lock", "", agentkey.OpLockdown, 200},
		{"POST", "/organization/unlock", "", agentkey.OpUnlock, 200},
		{"GET", "/onboarding", "", agentkey.OpReadSettings, 200},
		{"POST", "/onboarding/dismiss", "", agentkey.OpDismissOnboarding, 200},
		{"GET", "/notifications", "", agentkey.OpReadNotificationSettings, 200},
		{"POST", "/notifications", `{"clearSlack":true}`, agentkey.OpUpdateNotificationSettings, 200},
		{"GET", "/administrators", "", agentkey.OpReadAdministrators, 200},
		{"POST", "/administrators", `{"label":"new","role":"auditor"}`, agentkey.OpManageAdministrators, 201},
		{"PUT", "/administrators/" + person, `{"role":"approver"}`, agentkey.OpManageAdministrators, 200},
		{"DELETE", "/administrators/" + leaver, "", agentkey.OpRemoveAdministrator, 200},
		{"GET", "/tokens", "", agentkey.OpReadAdministrators, 200},
		{"POST", "/tokens", `{"name":"mine"}`, agentkey.OpManageOwnTokens, 201},
		{"POST", "/tokens", `{"administrator":"` + person + `"}`, agentkey.OpManageTokens, 201},
		{"DELETE", "/tokens/" + token, "", agentkey.OpRevokeToken, 200},

		{"GET", "/audit-log", "", agentkey.OpReadAudit, 200},
		{"GET", "/audit/verify", "", agentkey.OpVerifyAudit, 200},
		{"GET", "/audit/reconcile", "", agentkey.OpVerifyAudit, 200},
		{"GET", "/audit/export", "", agentkey.OpExportAudit, 200},
		{"GET", "/audit/public-key", "", agentkey.OpReadAudit, 200},
		{"GET", "/audit/keys", "", agentkey.OpReadAudit, 200},
		{"GET", "/audit/checkpoint", "", agentkey.OpReadAudit, 200},
		{"GET", "/audit/proof/inclusion?seq=1", "", agentkey.OpVerifyAudit, 200},
		{"GET", "/audit/proof/consistency?from=1", "", agentkey.OpVerifyAudit, 200},

		{"GET", "/audit/retention", "", agentkey.OpReadRetention, 200},
		{"PUT", "/audit/retention", `{"contentDays":45}`, agentkey.OpSetRetention, 200},
		{"GET", "/audit/retention/plan?contentDays=45", "", agentkey.OpReadRetention, 200},
		{"GET", "/holds", "", agentkey.OpReadRetention, 200},
		{"POST", "/holds", `{"scope":"agent","of":"` + a + `","reason":"a dispute"}`, agentkey.OpManageHolds, 201},
		{"POST", "/holds/" + hold + "/lift", `{"reason":"it is over"}`, agentkey.OpManageHolds, 200},
		{"POST", "/audit/erasure/plan", `{"person":"` + leaver + `"}`, agentkey.OpPlanErasure, 200},
		{"POST", "/audit/erasure", `{"person":"` + leaver + `"}`, agentkey.OpErasePerson, 200},
		{"GET", "/audit/tail?from=1", "", agentkey.OpTailAudit, 200},
		{"GET", "/audit/shipping", "", agentkey.OpReadShipping, 200},

		{"GET", "/incident?since=2020-01-01T00:00:00.000Z&agent=" + a, "", agentkey.OpReportIncident, 200},
		{"POST", "/incident/leaked-key", `{"credential":"sk_agent_unknown"}`, agentkey.OpReportLeak, 200},
	}
}

// TestRoleMatrix calls every route in every role. Records are made anew for each
// role, so that no call rests on what another one left.
func TestRoleMatrix(t *testing.T) {
	t.Parallel()
	table := agentkey.Operations()
	for _, role := range []agentkey.Role{agentkey.RoleOwner, agentkey.RoleAdmin, agentkey.RoleApprover, agentkey.RoleAuditor} {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()
			f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
			_, token := f.Administrator(role)
			all := calls(f, f.Owner)
			for _, c := range all {
				t.Run(c.method+" "+shape(c.path)+" "+string(c.op), func(t *testing.T) {
					is := is.New(t)
					res := f.Do(c.method, "/api/admin"+c.path, token, c.body)
					if !slices.Contains(table[c.op], role) {
						is.Equal(res.Status, http.StatusForbidden)
						is.Equal(res.Object(t)["error"], "the role does not allow this")
						is.True(res.Object(t)["hint"] != nil)
						// The owner does it instead, so that the calls after it find what they need.
						res = f.Do(c.method, "/api/admin"+c.path, f.Owner, c.body)
					}
					if res.Status != c.status {
						t.Fatalf("status %d, want %d: %s", res.Status, c.status, res.Body)
					}
				})
			}
		})
	}
}

// TestOtherOrganization: whatever the role, records of another organization are
// not there, and a list never shows them.
func TestOtherOrganization(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, _, stranger := f.CreateOrganization("Other")
	f.Must(201, "POST", "/api/admin/agents", stranger, `{"name":"their bot"}`)
	all := calls(f, f.Owner)
	before := f.Do("GET", "/api/admin/audit-log", f.Owner, "").Body
	for _, c := range all {
		t.Run(c.method+" "+shape(c.path)+" "+string(c.op), func(t *testing.T) {
			is := is.New(t)
			res := f.Do(c.method, "/api/admin"+c.path, stranger, c.body)
			if strings.HasSuffix(c.path, "/activity") {
				is.Equal(len(res.Items(t)), 0) // by the contract an empty list, not 404
				return
			}
			if strings.Contains(c.path, "0") || strings.Contains(c.body, `Id":"`) || strings.Contains(c.body, `administrator":"`) {
				is.Equal(res.Status, http.StatusNotFound)
				return
			}
			is.True(!strings.Contains(res.Body, f.Organization))
		})
	}
	is.New(t).Equal(f.Do("GET", "/api/admin/audit-log", f.Owner, "").Body, before) // nothing happened here
}

// TestWithoutToken: every route asks for one first, whatever else is wrong.
func TestWithoutToken(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	all := calls(f, f.Owner)
	o := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"short","expiresIn":1}`)
	f.Clock.Add(2e9)
	for _, c := range all {
		for name, token := range map[string]string{"none": "", "agent's key": key, "unknown": "sk_admin_" + strings.Repeat("x", 32), "expired": o["token"].(string)} {
			res := f.Do(c.method, "/api/admin"+c.path, token, `garbage`)
			if res.Status != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s with %s: status %d", c.method, c.path, name, res.Status)
			}
		}
	}
}

// TestMalformedIDs are answered as unknown ones.
func TestMalformedIDs(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	for _, c := range calls(f, f.Owner) {
		path, _, _ := strings.Cut(c.path, "?")
		if !strings.Contains(path, "0") || strings.HasSuffix(path, "/activity") {
			continue
		}
		for _, id := range []string{unknownID, "x", "..%2f..", "%00", "urn:uuid:" + unknownID, "{" + unknownID + "}", strings.Repeat("a", 500)} {
			segments := strings.Split(c.path, "/")
			segments[2] = id
			res := f.Do(c.method, "/api/admin"+strings.Join(segments, "/"), f.Owner, c.body)
			if res.Status != http.StatusNotFound {
				t.Errorf("%s %s: status %d %s", c.method, strings.Join(segments, "/"), res.Status, res.Body)
			}
		}
	}
}

// TestIDsHaveOneSpelling: upper case is the same id, no other form is one.
func TestIDsHaveOneSpelling(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	id := f.Tool("Linear", "lin_api_test_x")
	is.Equal(f.Do("GET", "/api/admin/tools/"+strings.ToUpper(id), f.Owner, "").Status, 200)
	for _, form := range []string{"urn:uuid:" + id, "{" + id + "}", strings.ReplaceAll(id, "-", "")} {
		is.Equal(f.Do("GET", "/api/admin/tools/"+form, f.Owner, "").Status, 404)
	}
}

// shape makes a name for a test of a path.
func shape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if len(s) == 36 {
			segments[i] = "{id}"
		}
	}
	return fmt.Sprint(strings.Join(segments, "/"))
}

// TestNoNeighbourStopsARevocation: whoever shares an administrator's address can
// use up its limit, and keeps nobody from taking access away.
func TestNoNeighbourStopsARevocation(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	policies := servertest.Unlimited()
	policies[ratelimit.TierPreauth] = ratelimit.Policy{Limit: 40, Window: time.Hour}
	f := servertest.New(t, servertest.Options{Policies: policies})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	approver, _ := f.Administrator(agentkey.RoleApprover)
	token := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"spare"}`)["id"].(string)
	for f.Do("GET", "/api/me", "sk_agent_x", "").Status != 429 {
	}
	is.Equal(f.Do("GET", "/api/admin/agents", f.Owner, "").Status, 429)
	for _, path := range []string{"/agents/" + agent + "/tools/" + tool, "/tools/" + tool + "/credential", "/tokens/" + token, "/administrators/" + approver, "/agents/" + agent} {
		is.Equal(f.Do("DELETE", "/api/admin"+path, f.Owner, "").Status, 200)
		is.Equal(f.Do("DELETE", "/api/admin"+path, "sk_admin_x", "").Status, 429) // a guess is counted
	}
}
