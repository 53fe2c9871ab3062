package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

func TestCatalogDocument(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var calls []string
	a := admin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls = append(calls, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Content-Type")+" "+string(body))
		switch {
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Type", "application/yaml")
			_, _ = io.WriteString(w, "version: 1\n")
		case r.URL.Query().Get("plan") == "old":
			answer(w, http.StatusConflict, `{"error":"the record changed meanwhile"}`)
		default:
			answer(w, http.StatusOK, `{"data":{"digest":"d","counts":{"create":2},"items":[{"action":"create","key":"a","name":"A"}],"importedTools":[]}}`)
		}
	}, client.Options{})
	var out bytes.Buffer
	is.NoErr(a.ExportCatalog(t.Context(), "yaml", &out))
	is.Equal(out.String(), "version: 1\n")
	doc := client.CatalogDocument{Text: []byte("tools"), Type: "application/yaml"}
	plan, err := a.PlanImport(t.Context(), doc, true)
	is.NoErr(err)
	is.Equal(plan.Digest, "d")
	is.Equal(plan.Counts.Create, 2)
	is.Equal(plan.Items[0].Key, "a")
	_, err = a.ImportCatalog(t.Context(), client.CatalogDocument{Text: doc.Text}, false, plan.Digest)
	is.NoErr(err)
	_, err = a.ImportCatalog(t.Context(), doc, false, "old")
	is.True(errors.Is(err, &client.Error{Status: http.StatusConflict}))
	is.Equal(string(doc.Text), "tools") // the caller's, as it was
	is.Equal(calls, []string{
		"GET /api/admin/config/export?format=yaml  ",
		"PUT /api/admin/config/import?dryRun=1&prune=1 application/yaml tools",
		"PUT /api/admin/config/import?plan=d text/plain tools",
		"PUT /api/admin/config/import?plan=old application/yaml tools",
	})
}
