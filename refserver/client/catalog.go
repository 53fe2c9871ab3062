package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
)

// CatalogDocument is a catalog as a document, as it stands in a file.
type CatalogDocument struct {
	Text []byte
	Type string // application/yaml or application/json; empty: the server looks at the first character
}

// ImportPlan says what importing a document does, or did.
type ImportPlan struct {
	Digest string       `json:"digest"` // names exactly this plan
	Prune  bool         `json:"prune"`
	Counts ImportCounts `json:"counts"`
	Items  []ImportItem `json:"items"`
}

// ImportCounts counts a plan's items by their action.
type ImportCounts struct {
	Create    int `json:"create"`
	Update    int `json:"update"`
	Unchanged int `json:"unchanged"`
	Remove    int `json:"remove"`
	Invalid   int `json:"invalid"`
}

// ImportItem is what an import does with one tool.
type ImportItem struct {
	Action  string         `json:"action"` // create, update, unchanged, remove or invalid
	Key     string         `json:"key"`
	Name    string         `json:"name"`
	Changes []string       `json:"changes,omitempty"`
	Errors  []string       `json:"errors,omitempty"`
	Entry   int            `json:"entry,omitempty"` // its place in the document, from 1
	Tool    string         `json:"toolId,omitempty"`
	Kept    bool           `json:"kept,omitempty"` // the document lacks it, and it stays
	Grants  AffectedGrants `json:"grants,omitzero"`
}

// AffectedGrants are the open grants that a change does something to.
type AffectedGrants struct {
	ApprovedEnd int64         `json:"approvedEnd"`
	PendingEnd  int64         `json:"pendingEnd"`
	PendingMore int64         `json:"pendingNeedMoreApprovals"`
	Items       []LinkedAgent `json:"items"` // at most 20
}

// ExportCatalog writes the catalog as a document to w; format is yaml or json.
// When it fails, what was written is not a whole document.
func (a *Admin) ExportCatalog(ctx context.Context, format string, w io.Writer) error {
	res, err := a.c.answer(ctx, call{method: http.MethodGet, path: adminPath("config", "export"), query: query("format", format), again: true})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		return transportError(err)
	}
	return nil
}

// PlanImport says what importing the document would do, and does nothing. With
// prune, tools that the document lacks would be deleted.
func (a *Admin) PlanImport(ctx context.Context, d CatalogDocument, prune bool) (ImportPlan, error) {
	q := importQuery(prune)
	q.Set("dryRun", "1")
	return a.importCatalog(ctx, d, q, true)
}

// ImportCatalog imports the document. With the digest of a plan it does exactly
// what was planned, or fails with status 409; without one, it does whatever the
// document means by then.
func (a *Admin) ImportCatalog(ctx context.Context, d CatalogDocument, prune bool, plan string) (ImportPlan, error) {
	q := importQuery(prune)
	if plan != "" {
		q.Set("plan", plan)
	}
	return a.importCatalog(ctx, d, q, false)
}

func importQuery(prune bool) url.Values {
	if prune {
		return url.Values{"prune": {"1"}}
	}
	return url.Values{}
}

func (a *Admin) importCatalog(ctx context.Context, d CatalogDocument, q url.Values, again bool) (ImportPlan, error) {
	if d.Type == "" {
		d.Type = "text/plain"
	}
	var out data[ImportPlan]
	_, err := a.c.do(ctx, call{
		method: http.MethodPut, path: adminPath("config", "import"), query: q, text: d.Text, media: d.Type, again: again, slow: true,
	}, &out)
	return out.Data, err
}
