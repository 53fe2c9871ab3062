package contract_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// put imports a document.
func put(f *servertest.Fixture, query, media, document string) servertest.Response {
	return f.Send(servertest.Request{
		Method: "PUT", Path: "/api/admin/config/import" + query, Token: f.Owner, Body: document, Header: http.Header{"Content-Type": {media}},
	})
}

// TestCatalogDocument is 5: export, plan, import.
func TestCatalogDocument(t *testing.T) {
	t.Parallel()
	each(t, unlimited(), func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		f.Must(201, "POST", "/api/admin/tools", f.Owner, `{"name":"Zoo","credential":"lin_api_test_z","url":"zoo.example","instructions":"Say\nplease: \"x\" # no"}`)
		f.Tool("Linear", "lin_api_test_x") // without a URL
		exports := map[string]string{}
		for query, want := range map[string]string{"": "yaml", "?format=yaml": "yaml", "?format=json": "json"} {
			res := f.Do("GET", "/api/admin/config/export"+query, f.Owner, "")
			is.Equal(words(res.Status, res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition")), `200 application/`+want+` attachment; filename="tool-catalog.`+want+`"`)
			is.True(!strings.Contains(res.Body, "lin_api_test")) // no secrets
			is.True(strings.Index(res.Body, "linear") < strings.Index(res.Body, "zoo"))
			exports[want] = res.Body
		}
		doc := servertest.Response{Body: exports["json"]}.Object(t)
		is.Equal(doc["version"], 1.0)
		has(t, doc["tools"].([]any)[0], "key name description url authType credentialMode instructions credentialConfigured")
		is.Equal(f.Do("GET", "/api/admin/config/export?format=xml", f.Owner, "").Status, 400)

		// An export imports as unchanged, whatever form it is in.
		for media, document := range map[string]string{
			"application/yaml": exports["yaml"], "text/x-yaml; charset=utf-8": exports["yaml"], "text/plain": exports["json"], "": exports["yaml"], "application/json": exports["json"],
		} {
			plan := put(f, "?dryRun=1", media, document)
			is.Equal(plan.Status, 200)
			o := plan.Object(t)
			has(t, o, "counts items importedTools")
			is.Equal(counts(o), "0 0 2 0 0")
		}
		is.Equal(put(f, "?dryRun=1", "application/xml", exports["yaml"]).Status, 400)
		for _, bad := range []string{`{"version":2,"tools":[]}`, `{"tools":[]}`, `[]`, `{"version":1,"tools":`, `{"version":1}`} {
			is.Equal(put(f, "", "application/json", bad).Status, 400)
		}
		is.Equal(put(f, "", "application/json", strings.Repeat(" ", 262145)).Status, 413)

		const entry = `{"key":%q,"name":%q,"authType":"api_key","credentialMode":"per_agent"}`
		next := `{"version":1,"tools":[` + strings.Replace(fmt.Sprintf(entry, "linear", "Linear 2"), "per_agent", "shared", 1) + `,` + fmt.Sprintf(entry, "new-tool", "New") + `]}`
		plan := put(f, "?dryRun=1", "application/json", next).Object(t)
		is.Equal(counts(plan), "1 1 0 1 0")
		is.Equal(len(f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t)), 2) // only planned
		applied := put(f, "", "application/json", next)
		is.Equal(applied.Status, 200)
		is.Equal(counts(applied.Object(t)), "1 1 0 1 0")
		is.Equal(len(f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t)), 3) // nothing is deleted
		is.Equal(len(f.Do("GET", "/api/admin/audit-log?action=tool.created", f.Owner, "").Items(t)), 3)
		row := f.Do("GET", "/api/admin/audit-log?action=config.import_applied", f.Owner, "").Items(t)[0]
		is.Equal(row["targetType"], "tool_catalog")
		metadata := row["metadata"].(map[string]any)
		is.Equal(words(metadata["created"], metadata["updated"], metadata["unchanged"], metadata["removedPreviewOnly"]), words(1.0, 1.0, 0.0, 1.0))

		invalid := `{"version":1,"tools":[` + fmt.Sprintf(entry, "fine", "Fine") + `,` + fmt.Sprintf(entry, "Not A Key", "x") + `,` + fmt.Sprintf(entry, "fine", "Again") + `]}`
		is.Equal(counts(put(f, "?dryRun=1", "application/json", invalid).Object(t)), "1 0 0 3 2")
		is.Equal(put(f, "", "application/json", invalid).Status, 400)
		is.Equal(len(f.Do("GET", "/api/admin/tools", f.Owner, "").Items(t)), 3) // nothing was done
	})
}

func counts(plan map[string]any) string {
	c := plan["counts"].(map[string]any)
	return words(c["create"], c["update"], c["unchanged"], c["remove"], c["invalid"])
}
