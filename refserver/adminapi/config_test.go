package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"
	"pgregory.net/rapid"

	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// eachDatabase runs a test with a server on SQLite and with one on Postgres.
func eachDatabase(t *testing.T, test func(t *testing.T, f *servertest.Fixture)) {
	t.Helper()
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		test(t, servertest.New(t, servertest.Options{Store: open(t), Policies: servertest.Unlimited()}))
	})
}

// importText sends a document; media may be empty for no content type.
func importText(f *servertest.Fixture, query, media, text string) servertest.Response {
	f.T.Helper()
	h := http.Header{"Content-Type": nil}
	if media != "" {
		h.Set("Content-Type", media)
	}
	return f.Send(servertest.Request{Method: "PUT", Path: "/api/admin/config/import" + query, Token: f.Owner, Body: text, Header: h})
}

func counts(t *testing.T, res servertest.Response) string {
	t.Helper()
	if res.Status != http.StatusOK {
		t.Fatalf("status %d: %s", res.Status, res.Body)
	}
	c := res.Object(t)["counts"].(map[string]any)
	return fmt.Sprint(c["create"], c["update"], c["unchanged"], c["remove"], c["invalid"])
}

// access is what an agent has of a tool, empty if that is not there.
func access(f *servertest.Fixture, key, tool string) string {
	f.T.Helper()
	for _, t := range f.Must(200, "GET", "/api/tools", key, "")["tools"].([]any) {
		if t := t.(map[string]any); t["id"] == tool {
			return t["your_access"].(string)
		}
	}
	return ""
}

func TestExport(t *testing.T) {
	eachDatabase(t, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		f.Tool("Linear", "lin_api_test_1")
		f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"no","credentialMode":"per_agent","authType":"other","instructions":"a\nb"}`)
		for format, want := range map[string][2]string{
			"": {"application/yaml", "yaml"}, "?format=yaml": {"application/yaml", "yaml"}, "?format=json": {"application/json", "json"},
		} {
			res := f.Do("GET", "/api/admin/config/export"+format, f.Owner, "")
			is.Equal(res.Status, http.StatusOK)
			is.Equal(res.Header.Get("Content-Type"), want[0])
			is.Equal(res.Header.Get("Content-Disposition"), `attachment; filename="tool-catalog.`+want[1]+`"`)
			is.Equal(res.Header.Get("Cache-Control"), "no-store")
			is.True(!strings.Contains(res.Body, "lin_api_test"))
			is.True(strings.Index(res.Body, `"linear"`) < strings.Index(res.Body, `"no"`)) // by key
			for _, media := range []string{want[0], "", "text/plain; charset=utf-8"} {
				is.Equal(counts(t, importText(f, "", media, res.Body)), "0 0 2 0 0")
			}
		}
		var doc map[string]any
		is.NoErr(json.Unmarshal([]byte(f.Do("GET", "/api/admin/config/export?format=json", f.Owner, "").Body), &doc))
		is.Equal(doc["version"], 1.0)
		is.Equal(doc["tools"].([]any)[1].(map[string]any)["url"], nil)
		for _, bad := range []string{"xml", "", "YAML"} {
			is.Equal(f.Do("GET", "/api/admin/config/export?format="+bad, f.Owner, "").Status, http.StatusBadRequest)
		}
		is.Equal(f.Do("HEAD", "/api/admin/config/export", f.Owner, "").Status, http.StatusMethodNotAllowed) // it would be recorded
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=config.exported", f.Owner, "").Items(t)), 4)
	})
}

const threeTools = `version: 1
tools:
  - key: linear
    name: Linear issues
    url: linear.app
    authType: api_key
    credentialMode: shared
    instructions: |
      Be kind.
      Be short.
  - {key: fresh, name: "no", authType: bot_token, credentialMode: per_agent}
`

func TestPlanAndImport(t *testing.T) {
	eachDatabase(t, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		linear, gone := f.Tool("Linear", "lin_api_test_1"), f.Tool("Gone", "gon_api_test_1")
		f.Approved(key, linear)
		f.Approved(key, gone)

		plan := importText(f, "?dryRun=1&prune=1", "application/yaml", threeTools)
		is.Equal(counts(t, plan), "1 1 0 1 0")
		items := plan.Object(t)["items"].([]any)
		is.Equal(items[0].(map[string]any)["changes"], []any{"name", "url", "instructions"})
		removal := items[2].(map[string]any)
		is.Equal(removal["action"], "remove")
		is.Equal(removal["kept"], nil)
		affected := removal["grants"].(map[string]any)
		is.Equal(affected["approvedEnd"], 1.0)
		is.Equal(affected["items"].([]any)[0].(map[string]any)["agentId"], agent)
		is.Equal(plan.Object(t)["importedTools"].([]any)[0].(map[string]any)["url"], "https://linear.app/")
		is.Equal(access(f, key, gone), "approved") // nothing was done

		preview := importText(f, "?dryRun=true", "application/yaml", threeTools)
		is.Equal(counts(t, preview), "1 1 0 1 0")
		is.Equal(preview.Object(t)["items"].([]any)[2].(map[string]any)["kept"], true)

		digest := plan.Object(t)["digest"].(string)
		f.Tool("Late", "lat_api_test_1")
		is.Equal(importText(f, "?prune=1&plan="+digest, "application/yaml", threeTools).Status, http.StatusConflict)
		is.Equal(access(f, key, gone), "approved")

		digest = importText(f, "?dryRun=1&prune=1", "text/yaml", threeTools).Object(t)["digest"].(string)
		done := importText(f, "?prune=1&plan="+digest, "application/yaml", threeTools)
		is.Equal(counts(t, done), "1 1 0 2 0")
		is.Equal(done.Object(t)["digest"], digest)
		is.Equal(access(f, key, gone), "")
		is.Equal(access(f, key, linear), "approved")
		changed := f.Must(200, "GET", "/api/admin/tools/"+linear, f.Owner, "")
		is.Equal(changed["instructions"], "Be kind.\nBe short.")
		is.Equal(changed["credentialPresent"], true)
		names := map[string]bool{}
		for _, tool := range f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t) {
			names[tool["configKey"].(string)+"="+tool["name"].(string)] = true
		}
		is.Equal(names, map[string]bool{"linear=Linear issues": true, "fresh=no": true})
		applied := f.Do("GET", "/api/admin/audit-log?action=config.import_applied", f.Owner, "").Items(t)
		is.Equal(len(applied), 1)
		is.Equal(applied[0]["metadata"], map[string]any{"created": 1.0, "updated": 1.0, "unchanged": 0.0, "removed": 2.0, "removedPreviewOnly": 0.0})
		is.Equal(applied[0]["targetId"], f.Organization)
	})
}

func TestImportWithoutACredential(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	_, key := f.Agent("bot")
	is.Equal(counts(t, importText(f, "", "application/json",
		`{"version":1,"tools":[{"key":"linear","name":"Linear","url":null,"authType":"api_key","credentialMode":"shared"}]}`)), "1 0 0 0 0")
	tool := f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t)[0]
	is.Equal(tool["healthStatus"], "action_needed")
	f.Approved(key, tool["id"].(string))
	res := f.Do("GET", "/api/tools/"+tool["id"].(string)+"/credentials", key, "")
	is.Equal(res.Status, http.StatusConflict)
	is.True(res.Object(t)["hint"] != nil)
}

func TestInvalidEntries(t *testing.T) {
	eachDatabase(t, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		f.Tool("Linear", "lin_api_test_1")
		text := `{"version":1,"tools":[
			{"key":"good","name":"Good","authType":"other","credentialMode":"per_agent"},
			{"key":"Bad","name":"B","authType":"none","credentialMode":"per_agent"},
			{"key":"linear","name":"Linear","authType":"api_key","credentialMode":"per_agent"},
			{"key":"good","name":7,"authType":"other","credentialMode":"per_agent","sk_secret_in_the_wrong_place":1}]}`
		plan := importText(f, "?dryRun=1", "application/json", text)
		is.Equal(counts(t, plan), "1 0 0 0 3")
		keys := ""
		for _, i := range plan.Object(t)["items"].([]any) {
			keys += " " + i.(map[string]any)["key"].(string)
			if i.(map[string]any)["key"] == "linear" {
				is.Equal(i.(map[string]any)["changes"], []any{"credentialMode"}) // named, and refused
			}
		}
		is.Equal(keys, " good item-2 linear item-4")
		res := importText(f, "", "application/json", text)
		is.Equal(res.Status, http.StatusBadRequest)
		var fields []string
		for _, d := range res.Object(t)["details"].([]any) {
			fields = append(fields, d.(map[string]any)["field"].(string))
		}
		is.Equal(fields, []string{"item-2.key", "item-2.name", "item-2.authType", "item-3.credentialMode", "item-4.name", "item-4"})
		is.True(!strings.Contains(plan.Body+res.Body, "sk_secret"))
		is.Equal(len(f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t)), 1) // nothing was done
	})
}

func TestImportBodies(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	const none = "version: 1\ntools: []\n"
	filled := func(n int) string { return none + "#" + strings.Repeat("x", n-len(none)-2) + "\n" }
	for name, c := range map[string]struct {
		query, media, text string
		want               int
	}{
		"exactly the limit":       {"", "application/yaml", filled(262144), 200},
		"one more":                {"", "application/yaml", filled(262145), 413},
		"a parameter of the type": {"", "application/JSON; charset=utf-8", `{"version":1,"tools":[]}`, 200},
		"x-yaml":                  {"", "application/x-yaml", none, 200},
		"text/x-yaml":             {"", "text/x-yaml", none, 200},
		"sniffed JSON":            {"", "text/plain", " \n{\"version\":1,\"tools\":[]}", 200},
		"sniffed YAML":            {"", "", none, 200},
		"JSON is YAML":            {"", "application/yaml", `{"version":1,"tools":[]}`, 200},
		"YAML is not JSON":        {"", "application/json", none, 400},
		"a list":                  {"", "", `[]`, 400},
		"another type":            {"", "text/html", none, 400},
		"vendor's JSON":           {"", "application/vnd.x+json", `{"version":1,"tools":[]}`, 400},
		"empty":                   {"", "application/yaml", "", 400},
		"another version":         {"", "application/yaml", "version: 2\ntools: []\n", 400},
		"half of a rune":          {"", "application/yaml", none + "# \xc3\n", 400},
		"key twice":               {"", "application/json", `{"version":1,"version":1,"tools":[]}`, 400},
		"dryRun misspelled":       {"?dryrun=1", "application/yaml", none, 400},
		"dryRun of another value": {"?dryRun=yes", "application/yaml", none, 400},
		"dryRun empty":            {"?dryRun=", "application/yaml", none, 400},
		"dryRun twice":            {"?dryRun=0&dryRun=1", "application/yaml", none, 400},
		"query unreadable":        {"?dryRun=1;x", "application/yaml", none, 400},
		"no digest":               {"?plan=x", "application/yaml", none, 400},
		"another digest":          {"?plan=" + strings.Repeat("0", 64), "application/yaml", none, 409},
		"not a dry run":           {"?dryRun=0&prune=false", "application/yaml", none, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if res := importText(f, c.query, c.media, c.text); res.Status != c.want {
				t.Errorf("status %d, want %d: %s", res.Status, c.want, res.Body)
			}
		})
	}
	is := is.New(t)
	res := f.Send(servertest.Request{Method: "PUT", Path: "/api/admin/config/import", Token: f.Owner, Body: none, Header: http.Header{
		"Content-Type": {"application/yaml"}, "Content-Encoding": {"gzip"},
	}})
	is.Equal(res.Status, http.StatusBadRequest)
}

// anyBody is a tool with texts that a document could spoil, as JSON.
func anyBody() *rapid.Generator[string] {
	runes := rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("aZ09 -:#'\"\\{}[]&*!|>%@`~\n\n\r\t\u00a0\u2028\ufeff\u200b漢é🙂")))
	text := func(n int) *rapid.Generator[string] {
		return rapid.OneOf(
			rapid.SampledFrom([]string{"no", "yes", "null", "~", "true", "1e3", "0x10", "017", "2026-11-23", "12:30", "1_000", "<<", "- a", "a: b", "a\n\n  b\n \nc"}),
			rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(runes, 0, n).Draw(t, "runes")) }))
	}
	return rapid.Custom(func(t *rapid.T) string {
		tool := map[string]any{
			"name": text(40).Draw(t, "name"), "description": text(40).Draw(t, "description"), "instructions": text(200).Draw(t, "instructions"),
			"url":      rapid.SampledFrom([]string{"", "linear.app", "https://bücher.example/ä ö?q=%zz", "http://h/" + strings.Repeat("é", 400)}).Draw(t, "url"),
			"authType": rapid.SampledFrom([]string{"api_key", "oauth_token", "bot_token", "other"}).Draw(t, "auth"), "credentialMode": "per_agent",
			"requiredApprovals": rapid.IntRange(1, 100).Draw(t, "approvals"),
		}
		b, _ := json.Marshal(tool)
		return string(b)
	})
}

// Whatever the catalog holds, both exports import as unchanged.
func TestExportsImportAsUnchanged(t *testing.T) {
	t.Parallel()
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	made := 0
	rapid.Check(t, func(rt *rapid.T) {
		is := is.New(rt)
		res := f.Do("POST", "/api/admin/tools", f.Owner, anyBody().Draw(rt, "tool"))
		switch res.Status {
		case http.StatusCreated:
			made++
		case http.StatusBadRequest: // not every text is a name
		default:
			rt.Fatalf("status %d: %s", res.Status, res.Body)
		}
		for _, format := range []string{"yaml", "json"} {
			doc := f.Do("GET", "/api/admin/config/export?format="+format, f.Owner, "").Body
			plan := importText(f, "?dryRun=1&prune=1", "application/"+format, doc)
			is.Equal(plan.Status, http.StatusOK)
			is.Equal(counts(t, plan), fmt.Sprintf("0 0 %d 0 0", made))
		}
	})
	is.New(t).True(made > 10)
}
