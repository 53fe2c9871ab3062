package adminapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
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

// words prints values with spaces between them.
func words(values ...any) string { return strings.TrimSuffix(fmt.Sprintln(values...), "\n") }

const (
	agentFields = "createdAt createdByEmail createdByUserId description grantedTools grantedToolsCount id lastActiveAt name organizationId owner pendingTools pendingToolsCount status toolsGranted toolsPending updatedAt"
	toolFields  = "approvedAgentList approvedAgents authType configKey createdAt credentialExpiresAt credentialLastRotatedAt credentialMode credentialPresent currentInstructionVersionId description healthStatus id instructions name organizationId pendingAgentList pendingAgents requiredApprovals updatedAt url"
	grantFields = "agentId approvals approvedAt asked createdAt cycle decidedAt decidedByEmail decidedByUserId denialReason duration expiresAt id maxVends organizationId reason requestedAt requiredApprovals scopes status ticket toolId updatedAt vendsLeft"
)

func TestAgentItem(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	created := f.Do("POST", "/api/admin/agents", f.Owner, `{"name":"  bot  ","description":"files bugs"}`)
	is.Equal(created.Status, 201)
	o := created.Object(t)
	is.Equal(keys(o), "agent agent_id api_key instructions")
	key := o["api_key"].(string)
	is.Equal(len(key), len("sk_agent_")+32)
	is.True(!strings.Contains(o["instructions"].(string), key))
	id := o["agent_id"].(string)

	item := f.Must(200, "GET", "/api/admin/agents/"+id, f.Owner, "")
	is.Equal(keys(item), agentFields) // never a digest of the key
	is.Equal(keys(o["agent"].(map[string]any)), agentFields)
	is.Equal(item["name"], "bot")
	is.Equal(item["organizationId"], f.Organization)
	is.Equal(item["createdByUserId"], f.OwnerID)
	is.Equal(item["createdByEmail"], "owner@example.com")
	is.Equal(item["owner"], f.OwnerID)
	is.Equal(item["lastActiveAt"], nil)
	is.Equal(item["createdAt"], "2026-11-23T06:40:14.128Z")

	granted, asked := f.Tool("Linear", "lin_api_test_x"), f.Tool("Mail", "lin_api_test_x")
	f.Approved(key, granted)
	f.Clock.Add(time.Second)
	request := f.Must(201, "POST", "/api/tools/"+asked+"/request", key, `{"reason":"needed"}`)["request_id"]
	item = f.Must(200, "PUT", "/api/admin/agents/"+id, f.Owner, `{"name":"robot"}`)
	is.Equal(item["name"], "robot")
	is.Equal(item["description"], "files bugs")
	is.Equal(item["lastActiveAt"], "2026-11-23T06:40:15.128Z")
	is.Equal(words(item["toolsGranted"], item["toolsPending"]), "[Linear] [Mail]")
	is.Equal(fmt.Sprint(item["grantedTools"]), "[map[toolId:"+granted+" toolName:Linear]]")
	is.Equal(fmt.Sprint(item["pendingTools"]), fmt.Sprintf("[map[requestId:%v toolCredentialMode:shared toolId:%s toolName:Mail]]", request, asked))
	is.Equal(item["grantedToolsCount"], 1.0)

	is.Equal(f.Must(200, "PUT", "/api/admin/agents/"+id, f.Owner, `{}`)["name"], "robot") // nothing to change is no error
	suspended := f.Must(200, "DELETE", "/api/admin/agents/"+id, f.Owner, "")
	is.Equal(fmt.Sprint(suspended), "map[ok:true revoked:2]")
	is.Equal(fmt.Sprint(f.Must(200, "DELETE", "/api/admin/agents/"+id, f.Owner, "")), "map[ok:true revoked:0]") // again
	is.Equal(f.Do("POST", "/api/admin/agents/"+id+"/tools", f.Owner, `{"toolId":"`+granted+`"}`).Status, 409)
	item = f.Must(200, "POST", "/api/admin/agents/"+id+"/reactivate", f.Owner, "")
	is.Equal(item["status"], "active")
	is.Equal(item["grantedToolsCount"], 0.0) // it starts with nothing
	is.Equal(f.Do("POST", "/api/admin/agents/"+id+"/reactivate", f.Owner, "").Status, 409)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, _ := f.Agent("bot")
	path := "/api/admin/agents/" + agent
	is.Equal(f.Send(servertest.Request{Method: "POST", Path: path + "/rotate-key", Token: f.Owner, Header: http.Header{"Origin": {"https://evil.example"}}}).Status, 403)
	rotated := f.Send(servertest.Request{Method: "POST", Path: path + "/rotate-key", Token: f.Owner, Header: http.Header{"Origin": {"http://example.com"}}}) // this host itself
	is.Equal(rotated.Status, 200)
	is.Equal(keys(rotated.Object(t)), "agent_id api_key instructions key")
	f.Must(200, "POST", path+"/rotate-key", f.Owner, `{"grace":60,"expiresIn":3600,"addresses":["198.51.100.0/24"]}`)
	items := f.Do("GET", path+"/keys", f.Owner, "").Items(t)
	is.Equal(len(items), 3)
	live := 0
	for _, item := range items {
		is.Equal(keys(item), "addresses agentId createdAt expiresAt id status")
		if item["status"] == "active" {
			live++
		}
		if fmt.Sprint(item["addresses"]) == "[198.51.100.0/24]" {
			is.Equal(item["expiresAt"], "2026-11-23T07:40:14.128Z")
			is.Equal(fmt.Sprint(f.Must(200, "DELETE", path+"/keys/"+item["id"].(string), f.Owner, "")), "map[ok:true]")
		}
	}
	is.Equal(live, 2) // the new one and the one in its grace
	for _, bad := range []string{`{"grace":-1}`, `{"grace":99999999}`, `{"grace":"1h"}`, `{"addresses":["x"]}`, `{"expiresIn":1.5}`, `{"graze":1}`} {
		is.Equal(f.Do("POST", path+"/rotate-key", f.Owner, bad).Status, 400)
	}
}

func TestToolItem(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	item := f.Must(201, "POST", "/api/admin/tools", f.Owner,
		`{"name":"Linear","description":"issues","url":"linear.app","authType":"oauth_token","credentialMode":"shared","credential":"lin_api_test_x","instructions":"Read first.","credentialExpiresAt":"2027-01-01T00:00:00Z","requiredApprovals":2}`)
	is.Equal(keys(item), toolFields)
	is.Equal(item["url"], "https://linear.app/")
	is.Equal(item["configKey"], "linear")
	is.Equal(item["credentialExpiresAt"], "2027-01-01T00:00:00.000Z")
	is.Equal(item["credentialLastRotatedAt"], "2026-11-23T06:40:14.128Z")
	is.Equal(item["healthStatus"], "healthy")
	is.Equal(item["requiredApprovals"], 2.0)
	path := "/api/admin/tools/" + item["id"].(string)
	f.Clock.Add(time.Hour)
	item = f.Must(200, "PUT", path, f.Owner, `{"instructions":"","credential":"lin_api_test_y","credentialExpiresAt":null}`)
	is.Equal(item["instructions"], nil)
	is.Equal(item["credentialExpiresAt"], nil)
	is.Equal(item["credentialLastRotatedAt"], "2026-11-23T07:40:14.128Z")
	item = f.Must(200, "PUT", path, f.Owner, `{"name":"Linear 2","credential":"   "}`) // a blank one is not sent
	is.Equal(item["credentialLastRotatedAt"], "2026-11-23T07:40:14.128Z")

	agent, key := f.Agent("bot")
	request := f.Must(201, "POST", "/api/tools/"+item["id"].(string)+"/request", key, `{"reason":"needed"}`)["request_id"]
	item = f.Must(200, "GET", path, f.Owner, "")
	is.Equal(words(item["pendingAgents"], item["approvedAgents"], item["approvedAgentList"]), "1 0 []")
	is.Equal(fmt.Sprint(item["pendingAgentList"]), fmt.Sprintf("[map[agentId:%s agentName:bot requestId:%v]]", agent, request))
	item = f.Must(200, "DELETE", path+"/credential", f.Owner, "")
	is.Equal(words(item["credentialPresent"], item["healthStatus"]), "false action_needed")
	is.Equal(fmt.Sprint(f.Must(200, "DELETE", path, f.Owner, "")),
		"map[approved_revocations:0 ok:true pending_revocations:1 tool_id:"+item["id"].(string)+"]")
	is.Equal(f.Do("GET", path, f.Owner, "").Status, 404)
}

// TestBadInput: a clear error for each, and nothing is stored.
func TestBadInput(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed","duration":60,"max_vends":5,"scopes":["a"]}`)["request_id"].(string)
	tests := []struct {
		method, path, body string
		status             int
		names              string // in the answer
	}{
		{"POST", "/agents", `{}`, 400, `"field":"name"`},
		{"POST", "/agents", `{"name":"a"}`, 400, `"field":"name"`},
		{"POST", "/agents", `{"name":"` + strings.Repeat("a", 121) + `"}`, 400, `"field":"name"`},
		{"POST", "/agents", `{"name":"a\u202eb"}`, 400, `"field":"name"`},
		{"POST", "/agents", `{"name":"a\nb"}`, 400, `"field":"name"`},
		{"POST", "/agents", `{"name":"bot","description":"` + strings.Repeat("a", 501) + `"}`, 400, `"field":"description"`},
		{"POST", "/agents", `{"name":"bot","nmae":"x"}`, 400, `known are name, description, owner, keyExpiresIn, addresses`},
		{"POST", "/agents", `{"name":"bot","name":"x2"}`, 400, "twice"},
		{"POST", "/agents", "{\"name\":\"b\xfft\"}", 400, "UTF-8"},
		{"POST", "/agents", ``, 415, "Content-Type"},
		{"POST", "/agents", `{"name":"bot","description":"` + strings.Repeat("a", 33000) + `"}`, 413, "32768"},
		{"PUT", "/agents/" + agent, `{"name":null}`, 400, `"field":"name"`},
		{"PUT", "/agents/" + agent, `[]`, 400, `"field":"input"`},
		{"POST", "/agents/" + agent + "/tools", `{}`, 400, `"field":"toolId"`},
		{"POST", "/agents/" + agent + "/tools", `{"toolId":"x"}`, 400, `"field":"toolId"`},
		{"POST", "/agents/" + agent + "/tools", `{"toolId":"` + unknownID + `"}`, 404, "tool"},
		{"POST", "/tools", `{"name":"New"}`, 400, `"field":"credential"`},
		{"POST", "/tools", `{"name":"New","credential":5}`, 400, `"field":"credential"`},
		{"POST", "/tools", `{"name":"New","credential":"x","credentialMode":"per_agent"}`, 400, `"field":"credential"`},
		{"POST", "/tools", `{"name":"New","credential":"x","authType":"password"}`, 400, `"field":"authType"`},
		{"POST", "/tools", `{"name":"New","credential":"x","credentialMode":"both"}`, 400, `"field":"credentialMode"`},
		{"POST", "/tools", `{"name":"New","credential":"x","url":"ftp://x"}`, 400, `"field":"url"`},
		{"POST", "/tools", `{"name":"New","credential":"x","url":"javascript:alert(1)"}`, 400, `"field":"url"`},
		{"POST", "/tools", `{"name":"New","credential":"x","requiredApprovals":101}`, 400, `"field":"requiredApprovals"`},
		{"POST", "/tools", `{"name":"New","credential":"x","instructions":"` + strings.Repeat("a", 4001) + `"}`, 400, `"field":"instructions"`},
		{"POST", "/tools", `{"name":"New","credential":"x","credentialExpiresAt":"tomorrow"}`, 400, `"field":"credentialExpiresAt"`},
		{"POST", "/tools", `{"name":"New","credential":"x","credentialExpiresAt":"2027-01-01T00:00:00+01:00"}`, 400, `"field":"credentialExpiresAt"`},
		{"PUT", "/tools/" + tool, `{"authType":"other"}`, 400, "not known"}, // it can't change
		{"PUT", "/tools/" + tool, `{"credentialMode":"per_agent"}`, 400, "not known"},
		{"POST", "/requests/" + request + "/approve", ``, 415, "Content-Type"}, // a body is required
		{"POST", "/requests/" + request + "/approve", `{"expiresIn":61}`, 400, "expiresIn"},
		{"POST", "/requests/" + request + "/approve", `{"maxVends":6}`, 400, "maxVends"},
		{"POST", "/requests/" + request + "/approve", `{"scopes":["a","b"]}`, 400, "scopes"},
		{"POST", "/requests/" + request + "/approve", `{"scopes":[]}`, 400, "scopes"},
		{"POST", "/requests/" + request + "/deny", `{"reason":"` + strings.Repeat("a", 501) + `"}`, 400, "reason"},
		{"POST", "/requests/" + unknownID + "/approve", `{}`, 404, "request"},
		{"POST", "/requests/" + unknownID + "/deny", `{}`, 404, "request"},
		{"POST", "/grants/" + request + "/narrow", `{"maxVends":1}`, 409, "approved"},
		{"DELETE", "/agents/" + agent + "/tools/" + unknownID, ``, 404, "hint"},
		{"PUT", "/organization", `{"name":"x"}`, 400, "name"},
		{"POST", "/administrators", `{"label":"x","role":"root"}`, 400, `"field":"role"`},
		{"POST", "/administrators", `{"label":"x","role":"admin","kind":"robot"}`, 400, `"field":"kind"`},
		{"POST", "/tokens", `{"administrator":"` + unknownID + `"}`, 404, "administrator"},
		{"POST", "/tokens", `{"expiresIn":-1}`, 400, "expiresIn"},
		{"GET", "/agents?limit=501", ``, 400, `"field":"limit"`},
		{"GET", "/agents?cursor=x", ``, 400, `"field":"cursor"`},
		{"GET", "/grants?status=open", ``, 400, `"field":"status"`},
		{"GET", "/grants?agent_id=", ``, 400, `"field":"agent_id"`},
		{"GET", "/audit-log?agent_id=", ``, 400, `"field":"agent_id"`},
		{"GET", "/audit-log?tool_id=x", ``, 400, `"field":"tool_id"`},
		{"GET", "/audit-log?from=yesterday", ``, 400, `"field":"from"`},
		{"GET", "/audit-log?to=2026-11-23T06:40:14", ``, 400, `"field":"to"`},
		{"GET", "/audit-log?from=2026-11-24T00:00:00Z&to=2026-11-23T00:00:00Z", ``, 400, `"field":"to"`},
		{"GET", "/audit-log?action=", ``, 400, `"field":"action"`},
		{"GET", "/audit-log?cursor=x", ``, 400, `"field":"cursor"`},
		{"GET", "/audit-log?limit=0", ``, 400, `"field":"limit"`},
		{"PATCH", "/agents/" + agent, `{}`, 405, "method"},
		{"GET", "/nothing", ``, 404, "no such path"},
	}
	before := f.Do("GET", "/api/admin/audit-log", f.Owner, "").Body
	for _, tt := range tests {
		t.Run(tt.method+" "+shape(tt.path)+" "+tt.body[:min(len(tt.body), 40)], func(t *testing.T) {
			is := is.New(t)
			res := f.Do(tt.method, "/api/admin"+tt.path, f.Owner, tt.body)
			if res.Status != tt.status || !strings.Contains(res.Body, tt.names) {
				t.Fatalf("status %d, want %d with %s: %s", res.Status, tt.status, tt.names, res.Body)
			}
			is.True(res.Object(t)["hint"] != nil)
		})
	}
	is := is.New(t)
	is.Equal(f.Do("GET", "/api/admin/audit-log", f.Owner, "").Body, before) // not one of them did anything
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	inbox := f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)
	is.Equal(len(inbox), 1)
	is.Equal(keys(inbox[0]), "agentDescription agentId agentName approvals asked id kind reason requestedAt requiredApprovals ticket toolCredentialMode toolId toolName")
	is.Equal(inbox[0]["kind"], "access_request")

	g := f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{"expiresIn":60,"maxVends":3,"scopes":["a"],"ticket":"OPS-1"}`)
	is.Equal(keys(g), grantFields) // never a credential, sealed or not
	is.Equal(words(g["status"], g["duration"], g["maxVends"], g["vendsLeft"], g["scopes"]), "approved 60 3 3 [a]")
	is.Equal(g["decidedByUserId"], f.OwnerID)
	is.Equal(len(f.Do("GET", "/api/admin/requests", f.Owner, "").Items(t)), 0)
	for _, verdict := range []string{"approve", "deny"} {
		is.Equal(f.Do("POST", "/api/admin/requests/"+request+"/"+verdict, f.Owner, `{}`).Status, 409) // decided already
	}
	g = f.Must(200, "POST", "/api/admin/grants/"+request+"/narrow", f.Owner, `{"expiresIn":30,"maxVends":2}`)
	is.Equal(words(g["duration"], g["maxVends"], g["scopes"], g["expiresAt"]), "30 2 [a] 2026-11-23T06:40:44.128Z")
	is.Equal(f.Do("POST", "/api/admin/grants/"+request+"/narrow", f.Owner, `{"maxVends":9}`).Status, 400)

	named := f.Do("GET", "/api/admin/grants?agent_id="+agent+"&tool_id="+tool+"&status=approved", f.Owner, "").Items(t)
	is.Equal(len(named), 1)
	is.Equal(words(named[0]["agentName"], named[0]["toolName"]), "bot Linear")
	is.Equal(len(f.Do("GET", "/api/admin/grants?status=denied", f.Owner, "").Items(t)), 0)

	f.Must(200, "GET", "/api/tools/"+tool+"/credentials", key, "")
	r := f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	is.Equal(keys(r), "hint lastVendAt ok rotateUpstream vends")
	is.Equal(r["lastVendAt"], "2026-11-23T06:40:14.128Z")
	r = f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "") // from any status
	is.Equal(r["ok"], true)

	g = f.Must(201, "POST", "/api/admin/agents/"+agent+"/tools", f.Owner, `{"toolId":"`+tool+`"}`)
	is.Equal(words(g["status"], g["reason"], g["cycle"]), "approved <nil> 2")
	g = f.Must(201, "POST", "/api/admin/agents/"+agent+"/tools", f.Owner, `{"toolId":"`+tool+`"}`)
	is.Equal(g["cycle"], 2.0) // it stands already
	denied := f.Must(201, "POST", "/api/tools/"+f.Tool("Mail", "lin_api_test_x")+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	g = f.Must(200, "POST", "/api/admin/requests/"+denied+"/deny", f.Owner, `{"reason":" not now "}`)
	is.Equal(words(g["status"], g["denialReason"]), "denied not now")
}

func TestPaging(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	first, _ := f.Agent("with keys")
	keys := "/api/admin/agents/" + first + "/keys"
	for i := range 7 {
		f.Must(200, "POST", "/api/admin/agents/"+first+"/rotate-key", f.Owner, "")
		_, key := f.Agent(fmt.Sprintf("bot %d", i))
		f.Must(201, "POST", "/api/tools/"+f.Tool(fmt.Sprintf("tool %d", i), "lin_api_test_x")+"/request", key, `{"reason":"needed"}`)
		f.Must(201, "POST", "/api/admin/administrators", f.Owner, `{"label":"somebody","role":"auditor"}`)
		f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"another"}`)
	}
	for _, path := range []string{"/api/admin/agents", "/api/admin/tools", "/api/admin/requests", "/api/admin/grants", "/api/admin/administrators", "/api/admin/tokens", "/api/admin/audit-log", keys} {
		t.Run(path, func(t *testing.T) {
			is := is.New(t)
			whole := f.Do("GET", path, f.Owner, "").Items(t)
			var paged []map[string]any
			for at := path + "?limit=3&x=y"; at != ""; {
				res := f.Do("GET", at, f.Owner, "")
				is.Equal(res.Status, 200)
				items := res.Items(t)
				is.True(len(items) <= 3)
				paged = append(paged, items...)
				at, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
			}
			is.True(len(whole) > 6)
			is.Equal(fmt.Sprint(paged), fmt.Sprint(whole)) // nothing twice, nothing missing
		})
	}
	is := is.New(t)
	is.Equal(len(f.Do("GET", "/api/admin/agents?name=bot+3", f.Owner, "").Items(t)), 1)
	is.Equal(f.Do("GET", "/api/admin/agents?name=nobody", f.Owner, "").Body, `{"data":[]}`)
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Clock.Add(time.Second + 500*time.Microsecond)
	f.Approved(key, tool)
	res := f.Send(servertest.Request{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key,
		Header: http.Header{"X-Request-Id": {"client-1"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}})
	is.Equal(res.Status, 200)

	list := func(query string) []map[string]any {
		return f.Do("GET", "/api/admin/audit-log"+query, f.Owner, "").Items(t)
	}
	vend := list("?action=credential.vended")[0]
	is.Equal(keys(vend), "action actorId actorLabel actorType agentId count createdAt grantId id leafHash metadata organizationId outcome personalRemoved reason requestId seq targetId targetType toolId")
	is.Equal(words(vend["actorType"], vend["actorId"], vend["actorLabel"]), "agent "+agent+" bot")
	is.Equal(vend["requestId"], res.Header.Get("X-Request-Id")) // ours, as the client was told
	metadata := vend["metadata"].(map[string]any)
	is.Equal(words(metadata["agentId"], metadata["toolId"], metadata["toolName"]), agent+" "+tool+" Linear")

	all := len(list(""))
	is.True(len(list("?agent_id="+agent)) >= 4) // created, requested, approved, vended
	is.True(len(list("?tool_id="+tool)) >= 4)
	is.Equal(len(list("?actor="+agent)), 2)
	is.Equal(len(list("?outcome=refused")), 0)
	is.Equal(len(list("?agent_id="+unknownID)), 0)
	is.Equal(vend["createdAt"], "2026-11-23T06:40:15.128Z") // of …15.1285
	is.Equal(len(list("?from=2026-11-23T06:40:15.128Z&to=2026-11-23T06:40:15.128Z")), 3)
	is.Equal(len(list("?to=2026-11-23T06:40:15.127Z"))+3, all)
	is.Equal(len(list("?from=2026-11-23T06:40:15.129Z")), 0)

	activity := f.Do("GET", "/api/admin/agents/"+agent+"/activity?limit=2", f.Owner, "").Items(t)
	is.Equal(len(activity), 2)
	is.Equal(keys(activity[0]), "action createdAt id toolId toolName")
	is.Equal(activity[0]["action"], "credential.vended")
	for limit, want := range map[string]int{"": 4, "?limit=0": 1, "?limit=99": 4, "?limit=x": 4, "?limit=-5": 1} {
		is.Equal(len(f.Do("GET", "/api/admin/agents/"+agent+"/activity"+limit, f.Owner, "").Items(t)), want)
	}
	is.Equal(keys(f.Do("GET", "/api/admin/tools/"+tool+"/activity", f.Owner, "").Items(t)[0]), "action actorLabel createdAt id")
	is.Equal(f.Do("GET", "/api/admin/tools/not-an-id/activity", f.Owner, "").Body, `{"data":[]}`)
}

func TestAuditProofs(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	f.Approved(key, f.Tool("Linear", "lin_api_test_x"))
	verified := f.Must(200, "GET", "/api/admin/audit/verify", f.Owner, "")
	is.Equal(verified["ok"], true)
	is.Equal(fmt.Sprint(verified["findings"]), "[]")
	reconciled := f.Must(200, "GET", "/api/admin/audit/reconcile", f.Owner, "")
	is.Equal(reconciled["ok"], true)
	public := f.Must(200, "GET", "/api/admin/audit/public-key", f.Owner, "")
	is.Equal(public["publicKey"], f.Manager.PublicKey())
	_, err := audit.NewVerifiers(public["publicKey"].(string))
	is.NoErr(err)

	res := f.Do("GET", "/api/admin/audit/export", f.Owner, "")
	is.Equal(res.Status, 200)
	is.Equal(res.Header.Get("Content-Type"), "application/x-ndjson")
	is.Equal(res.Header.Get("Content-Disposition"), `attachment; filename="audit-log.jsonl"`)
	is.Equal(res.Header.Get("Cache-Control"), "no-store")
	lines := 0
	for s := bufio.NewScanner(strings.NewReader(res.Body)); s.Scan(); lines++ {
		is.True(json.Valid(s.Bytes()))
	}
	is.True(float64(lines) >= verified["events"].(float64))
	is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=audit.exported", f.Owner, "").Items(t)), 1)
	is.Equal(f.Do("HEAD", "/api/admin/audit/export", f.Owner, "").Status, 405) // it would be recorded, and show nothing
}

// TestAuditProofsHold checks what the server proves with nothing but its public
// keys and a checkpoint that was fetched before.
func TestAuditProofsHold(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	get := func(path string) []byte {
		text, err := json.Marshal(f.Must(200, "GET", "/api/admin/audit/"+path, f.Owner, ""))
		is.NoErr(err)
		return text
	}
	var keys struct {
		Keys []string `json:"publicKeys"`
	}
	is.NoErr(json.Unmarshal(get("keys"), &keys))
	is.Equal(keys.Keys, f.Manager.PublicKeys())
	v, err := audit.NewVerifiers(keys.Keys...)
	is.NoErr(err)
	var early struct {
		Origin, Root, Checkpoint string
		Size                     int64
	}
	is.NoErr(json.Unmarshal(get("checkpoint"), &early))
	kept, err := audit.OpenCheckpoint([]byte(early.Checkpoint), v)
	is.NoErr(err)
	is.Equal(kept.Origin, early.Origin)
	is.Equal(kept.Size, early.Size)
	is.Equal(kept.Root.String(), early.Root)
	f.Agent("bot")

	receipt, err := audit.ParseReceipt(get("proof/inclusion?seq=2"))
	is.NoErr(err)
	late, err := receipt.Verify(v)
	is.NoErr(err)
	is.True(late.Size > kept.Size)
	receipt, err = audit.ParseReceipt(get(fmt.Sprint("proof/inclusion?seq=2&size=", kept.Size)))
	is.NoErr(err)
	is.NoErr(receipt.VerifyIn(kept))
	grown, err := audit.ParseConsistency(get(fmt.Sprint("proof/consistency?from=", kept.Size)))
	is.NoErr(err)
	is.NoErr(grown.Verify(kept, late))

	for _, path := range []string{
		"inclusion", "inclusion?seq=-1", "inclusion?seq=x", "inclusion?seq=1e3", "inclusion?seq=9999", "inclusion?seq=2&size=2", "inclusion?seq=2&size=9999",
		"inclusion?seq=99999999999999999999", "consistency", "consistency?from=x", "consistency?from=9999", "consistency?from=3&to=2", "consistency?from=1&to=9999",
	} {
		is.Equal(f.Do("GET", "/api/admin/audit/proof/"+path, f.Owner, "").Status, 400)
	}
}

func TestAdministration(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	org := f.Must(200, "GET", "/api/admin/organization", f.Owner, "")
	is.Equal(keys(org), "createdAt id locked name updatedAt")
	is.Equal(f.Must(200, "PUT", "/api/admin/organization", f.Owner, `{"name":" Acme "}`)["name"], "Acme")
	is.Equal(f.Must(200, "POST", "/api/admin/organization/lock", f.Owner, `{"reason":"drill"}`)["locked"], true)
	is.Equal(f.Must(200, "POST", "/api/admin/organization/unlock", f.Owner, "")["locked"], false)

	person := f.Must(201, "POST", "/api/admin/administrators", f.Owner, `{"label":"auditor@example.com","role":"auditor"}`)
	is.Equal(keys(person), "createdAt id kind label removed role updatedAt")
	is.Equal(words(person["kind"], person["role"], person["removed"]), "human auditor false")
	id := person["id"].(string)
	issued := f.Do("POST", "/api/admin/tokens", f.Owner, `{"administrator":"`+id+`","name":"laptop","expiresIn":60}`)
	is.Equal(issued.Status, 201)
	o := issued.Object(t)
	is.Equal(keys(o), "administrator createdAt expiresAt id name revoked token")
	token := o["token"].(string)
	is.Equal(f.Do("GET", "/api/admin/agents", token, "").Status, 200)
	for _, item := range f.Do("GET", "/api/admin/tokens", f.Owner, "").Items(t) {
		is.Equal(keys(item), "administrator createdAt expiresAt id name revoked") // shown once, not again
	}
	is.Equal(f.Must(200, "PUT", "/api/admin/administrators/"+id, f.Owner, `{"role":"admin"}`)["role"], "admin")
	is.Equal(f.Do("POST", "/api/admin/agents", token, `{"name":"bot"}`).Status, 201) // at once
	f.Must(200, "DELETE", "/api/admin/tokens/"+o["id"].(string), f.Owner, "")
	is.Equal(f.Do("GET", "/api/admin/agents", token, "").Status, 401) // at once
	f.Must(200, "DELETE", "/api/admin/administrators/"+id, f.Owner, "")
	is.Equal(f.Do("DELETE", "/api/admin/administrators/"+f.OwnerID, f.Owner, "").Status, 409) // the last owner stays
	is.Equal(f.Do("PUT", "/api/admin/administrators/"+f.OwnerID, f.Owner, `{"role":"admin"}`).Status, 409)
}

// TestAdministratorLimits: changes are limited, taking access away never is.
func TestAdministratorLimits(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	grant := f.Approved(key, tool)
	for range 27 {
		is.Equal(f.Do("PUT", "/api/admin/agents/"+agent, f.Owner, `{}`).Status, 200)
	}
	limited := f.Do("PUT", "/api/admin/agents/"+agent, f.Owner, `{}`)
	is.Equal(limited.Status, 429)
	is.Equal(limited.Header.Get("X-RateLimit-Policy"), "30;w=60")
	is.Equal(limited.Header.Get("Retry-After"), "60")
	f.Must(200, "POST", "/api/admin/grants/"+grant+"/narrow", f.Owner, `{"maxVends":1}`)
	f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
	f.Must(200, "POST", "/api/admin/organization/lock", f.Owner, "")
	read := f.Do("GET", "/api/admin/agents", f.Owner, "")
	is.Equal(read.Status, 200)                         // reads have their own limit
	is.Equal(read.Header.Get("X-RateLimit-Limit"), "") // by the contract not on success
}
