package agentapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

const unknownID = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"

func TestVendHasTheContractsFields(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Must(201, "POST", "/api/admin/tools", f.Owner,
		`{"name":"Linear","url":"linear.app","credential":"  lin_api_test_\"quoted\"\u0007\nand é \t","instructions":"Send it as <Authorization>."}`)["id"].(string)
	f.Approved(key, tool)

	res := f.Do("GET", "/api/tools/"+tool+"/credentials", key, "")
	is.Equal(res.Status, http.StatusOK)
	is.Equal(res.Header.Get("Cache-Control"), "no-store, private")
	is.Equal(res.Header.Get("Pragma"), "no-cache")
	is.Equal(res.Header.Get("X-RateLimit-Limit"), "60")
	is.Equal(res.Header.Get("X-RateLimit-Remaining"), "59")
	is.Equal(res.Header.Get("X-RateLimit-Policy"), "60;w=60")
	is.Equal(res.Header.Get("X-RateLimit-Reset"), "1795416074128") // Unix milliseconds, a minute from now
	is.Equal(res.Header.Get("RateLimit-Policy"), `"credential";q=60;w=60`)
	is.Equal(res.Header.Get("RateLimit"), `"credential";r=59;t=60`)
	v := res.Object(t)
	is.Equal(keys(v), "audit_receipt auth_type credential instructions suggest_instructions_endpoint tool_id tool_name")
	is.Equal(v["credential"], "lin_api_test_\"quoted\"\a\nand é") // trimmed, and byte for byte otherwise
	is.Equal(v["instructions"], "Send it as <Authorization>.")
	is.Equal(v["suggest_instructions_endpoint"], "/api/tools/"+tool+"/instructions/suggest")
	is.Equal(v["auth_type"], "api_key")

	// The receipt is what the log says, under the log's own signature.
	text, err := json.Marshal(v["audit_receipt"])
	is.NoErr(err)
	receipt, err := audit.ParseReceipt(text)
	is.NoErr(err)
	verifiers, err := audit.NewVerifiers(f.Manager.PublicKey())
	is.NoErr(err)
	checkpoint, err := receipt.Verify(verifiers)
	is.NoErr(err)
	is.Equal(checkpoint.Origin, audit.Origin(f.Manager.Installation(), f.Organization, 1))
	receipt.Leaf[0] ^= 1
	_, err = receipt.Verify(verifiers)
	is.True(errors.Is(err, audit.ErrProof))
	receipt.Leaf[0] ^= 1
	event := f.Do("GET", "/api/admin/audit-log?action=credential.vended", f.Owner, "").Items(t)[0]
	is.Equal(event["seq"], float64(receipt.Index))
	is.Equal(event["leafHash"], receipt.Leaf.String())
}

func TestVendOfStructuredAndBinaryCredentials(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	tests := []struct{ name, authType, stored, want string }{
		{"object", "oauth_token", `{"access_token":"lin_api_test_a","n":12345678901234567890}`, `{"access_token":"lin_api_test_a","n":12345678901234567890}`},
		{"number", "oauth_token", `12345`, `12345`},
		{"word", "oauth_token", `lin_api_test_plain`, `"lin_api_test_plain"`},
		{"half an object", "oauth_token", `{"a":1`, `"{\"a\":1"`},
		{"object of another type", "api_key", `{"a":1}`, `"{\"a\":1}"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			text, err := json.Marshal(tt.stored)
			is.NoErr(err)
			tool := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"tool","authType":"`+tt.authType+`","credential":`+string(text)+`}`)["id"].(string)
			f.Approved(key, tool)
			var v struct {
				Credential json.RawMessage `json:"credential"`
			}
			is.NoErr(json.Unmarshal([]byte(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Body), &v))
			is.Equal(string(v.Credential), tt.want)
		})
	}

	// Only a host that stores credentials without HTTP can have one that is no text.
	is := is.New(t)
	binary := []byte{0xff, 0x00, 0xfe, '"'}
	owner := agentkey.Actor{Organization: f.Organization, Kind: "human", ID: f.OwnerID, Label: "owner", Role: agentkey.RoleOwner, Auth: "test"}
	tool, err := f.Manager.AddTool(context.Background(), owner, agentkey.AddToolInput{
		Name: "binary", AuthType: "other", Mode: "shared", Credential: agentkey.NewSecret(append([]byte{}, binary...)),
	})
	is.NoErr(err)
	f.Approved(key, tool.ID)
	v := f.Do("GET", "/api/tools/"+tool.ID+"/credentials", key, "").Object(t)
	is.Equal(v["credential_encoding"], "base64")
	is.Equal(v["credential"], base64.StdEncoding.EncodeToString(binary)) // not mended into another credential
}

func TestVendOfPerAgentCredential(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, one := f.Agent("one")
	_, two := f.Agent("two")
	tool := f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Mail","credentialMode":"per_agent"}`)["id"].(string)
	for key, secret := range map[string]string{one: "lin_api_test_one", two: "lin_api_test_two"} {
		request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
		without := f.Do("POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{"credential":"  "}`)
		is.Equal(without.Status, http.StatusBadRequest)
		is.True(strings.Contains(without.Body, `"field":"credential"`))
		f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{"credential":"`+secret+`"}`)
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Object(t)["credential"], secret)
	}
}

func TestVendShowsLimits(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed","duration":60,"max_vends":2}`)["request_id"].(string)
	f.Must(200, "POST", "/api/admin/requests/"+request+"/approve", f.Owner, `{}`)
	v := f.Must(200, "GET", "/api/tools/"+tool+"/credentials", key, "")
	is.Equal(v["vends_left"], 1.0)
	is.Equal(v["expires_at"], "2026-11-23T06:41:14.128Z")
	f.Clock.Add(time.Minute) // the end is exclusive
	is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, http.StatusForbidden)
}

// TestVendRefusals: each reason has its own status and hint, and no answer holds
// the credential.
func TestVendRefusals(t *testing.T) {
	t.Parallel()
	const secret = "lin_api_test_refusals"
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	vend := func(key, tool string) servertest.Response {
		return f.Do("GET", "/api/tools/"+tool+"/credentials", key, "")
	}
	agent, key := f.Agent("bot")
	tool := f.Tool("Linear", secret)
	_, _, other := f.CreateOrganization("Other")
	foreign := f.Must(201, "POST", "/api/admin/tools", other, `{"name":"theirs","credential":"lin_api_test_theirs"}`)["id"].(string)
	hints := map[string]string{}
	check := func(name string, res servertest.Response, status int) {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.Equal(res.Status, status)
			hint, _ := res.Object(t)["hint"].(string)
			is.True(hint != "")
			is.True(!strings.Contains(res.Body, secret))
			is.Equal(res.Header.Get("X-RateLimit-Limit"), "") // ordinary errors carry no rate headers
			is.Equal(res.Header.Get("Cache-Control"), "no-store")
			is.Equal(res.Header.Get("Pragma"), "")
			hints[name] = hint
		})
	}
	check("unknown tool", vend(key, unknownID), 404)
	check("malformed tool", vend(key, "not-an-id"), 404)
	check("tool of others", vend(key, foreign), 404)
	check("none", vend(key, tool), 403)
	request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
	check("pending", vend(key, tool), 403)
	f.Must(200, "POST", "/api/admin/requests/"+request+"/deny", f.Owner, `{}`)
	check("denied", vend(key, tool), 403)
	is := is.New(t)
	is.Equal(f.Approved(key, tool), request) // a new request keeps its id
	f.Must(200, "DELETE", "/api/admin/agents/"+agent+"/tools/"+tool, f.Owner, "")
	check("revoked", vend(key, tool), 403)
	f.Approved(key, tool)
	f.Must(200, "POST", "/api/admin/organization/lock", f.Owner, "")
	check("locked", vend(key, tool), 403)
	f.Must(200, "POST", "/api/admin/organization/unlock", f.Owner, "")
	f.Must(200, "DELETE", "/api/admin/tools/"+tool+"/credential", f.Owner, "")
	check("no credential", vend(key, tool), 409)
	f.Must(200, "PUT", "/api/admin/tools/"+tool, f.Owner, `{"credential":"`+secret+`","credentialExpiresAt":"2026-11-23T06:40:20Z"}`)
	is.Equal(vend(key, tool).Status, 200)
	f.Clock.Add(time.Minute)
	check("expired credential", vend(key, tool), 409)
	f.Must(200, "DELETE", "/api/admin/agents/"+agent, f.Owner, "")
	check("suspended", vend(key, tool), 403)
	check("suspended, malformed tool", vend(key, "not-an-id"), 403)

	seen := map[string]string{}
	for _, name := range []string{"none", "pending", "denied", "revoked", "locked", "no credential", "expired credential", "suspended"} {
		is.Equal(seen[hints[name]], "") // two reasons share a hint
		seen[hints[name]] = name
	}
}

func TestVendOrder(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{})
	_, key := f.Agent("bot")
	tool := f.Tool("Linear", "lin_api_test_x")
	f.Approved(key, tool)
	path := "/api/tools/" + tool + "/credentials"
	origin := http.Header{"Origin": {"https://evil.example"}}
	tests := []struct {
		name   string
		r      servertest.Request
		status int
		text   string
	}{
		{"origin before key", servertest.Request{Method: "GET", Path: path, Header: origin}, 403, "web page"},
		{"origin before malformed id", servertest.Request{Method: "GET", Path: "/api/tools/x/credentials", Token: key, Header: origin}, 403, "web page"},
		{"origin null", servertest.Request{Method: "GET", Path: path, Token: key, Header: http.Header{"Origin": {"null"}}}, 403, "web page"},
		{"second origin", servertest.Request{Method: "GET", Path: path, Token: key, Header: http.Header{"Origin": {"", "https://evil.example"}}}, 403, "web page"},
		{"key before malformed id", servertest.Request{Method: "GET", Path: "/api/tools/x/credentials"}, 401, "no key"},
		{"HEAD would be a vend", servertest.Request{Method: "HEAD", Path: path, Token: key}, 405, ""},
		{"POST", servertest.Request{Method: "POST", Path: path, Token: key}, 405, "method"},
		{"OPTIONS", servertest.Request{Method: "OPTIONS", Path: path, Token: key}, 204, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			res := f.Send(tt.r)
			is.Equal(res.Status, tt.status)
			is.True(strings.Contains(res.Body, tt.text))
			if tt.status == 405 {
				is.Equal(res.Header.Get("Allow"), "GET, OPTIONS")
			}
		})
	}
	is := is.New(t)
	is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=credential.vended", f.Owner, "").Items(t)), 0) // none of these vended
}
