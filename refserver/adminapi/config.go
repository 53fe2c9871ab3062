package adminapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/catalogfile"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

const (
	// maxDocument is the longest catalog document that may be sent, in bytes.
	maxDocument = 262144
	// documentTime bounds how long the catalog may be on its way, either way.
	documentTime = time.Minute
)

// exportCatalog answers the catalog as a file, as YAML unless JSON is asked for.
func (a *api) exportCatalog(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	write, media, extension := catalogfile.WriteYAML, "application/yaml", "yaml"
	switch format := q.Text("format"); {
	case format == "json":
		write, media, extension = catalogfile.WriteJSON, "application/json", "json"
	case format != "yaml" && q.Has("format"):
		q.Refuse("format", "must be yaml or json")
	}
	if err := q.Err(); err != nil {
		return err
	}
	return x.Stream(media, "tool-catalog."+extension, documentTime, func(ctx context.Context, w *exchange.StreamWriter) error {
		doc, err := a.manager.ExportCatalog(ctx, actor)
		if err != nil {
			return err
		}
		return write(w, doc)
	})
}

// importCatalog plans with dryRun=1, and else does what it plans. It answers the
// plan.
func (a *api) importCatalog(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	dryRun := q.Flag("dryRun")
	o := agentkey.ImportOptions{Prune: q.Flag("prune"), Plan: q.Text("plan")}
	if q.Has("plan") && (len(o.Plan) != 64 || strings.Trim(o.Plan, "0123456789abcdef") != "") {
		q.Refuse("plan", "must be the digest of a plan")
	}
	// A word misspelled here would import what was to be looked at.
	q.Only("dryRun", "prune", "plan")
	if err := q.Err(); err != nil {
		return err
	}
	doc, err := readCatalog(x)
	if err != nil {
		return err
	}
	ctx, cancel := x.Longer(documentTime)
	defer cancel()
	act := a.manager.ImportCatalog
	if dryRun {
		act = a.manager.PlanImport
	}
	plan, err := act(ctx, actor, doc, o)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, planOf(plan))
}

// readCatalog reads the document in the body, whose content type says its format
// or leaves that to its first character.
func readCatalog(x *exchange.Exchange) (agentkey.CatalogDocument, error) {
	var format catalogfile.Format
	switch x.MediaType() {
	case "application/json":
		format = catalogfile.JSON
	case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml":
		format = catalogfile.YAML
	case "", "text/plain":
		format = catalogfile.Sniffed
	default:
		return agentkey.CatalogDocument{}, &exchange.Error{
			Status: http.StatusBadRequest, Code: "content_type", Text: "the document must be YAML or JSON",
			Hint: "Send it with `Content-Type: application/yaml` or `application/json`, without a Content-Encoding.",
		}
	}
	text, err := x.Text(exchange.Body{Limit: maxDocument, Advice: "Import a longer catalog in parts."})
	if err != nil {
		return agentkey.CatalogDocument{}, err
	}
	defer text.Destroy()
	doc, err := catalogfile.Read(text.Bytes(), format)
	var syntax *catalogfile.SyntaxError
	if errors.As(err, &syntax) {
		err = &exchange.Error{
			Status: http.StatusBadRequest, Code: "document", Text: syntax.Error(),
			Hint: "Export the catalog to see the form of a document.",
		}
	}
	return doc, err
}

type importPlan struct {
	Digest string       `json:"digest"`
	Prune  bool         `json:"prune"`
	Counts importCounts `json:"counts"`
	Items  []importItem `json:"items"`
	Tools  []importTool `json:"importedTools"` // the valid entries, as they are stored
}

type importCounts struct {
	Create    int `json:"create"`
	Update    int `json:"update"`
	Unchanged int `json:"unchanged"`
	Remove    int `json:"remove"`
	Invalid   int `json:"invalid"`
}

type importItem struct {
	Action  agentkey.ImportAction `json:"action"`
	Key     string                `json:"key"`
	Name    string                `json:"name"`
	Changes []string              `json:"changes,omitempty"`
	Errors  []string              `json:"errors,omitempty"`
	Entry   int                   `json:"entry,omitempty"` // from 1
	Tool    string                `json:"toolId,omitempty"`
	Kept    bool                  `json:"kept,omitempty"`
	Grants  *affectedGrants       `json:"grants,omitempty"`
}

type affectedGrants struct {
	ApprovedEnd int64          `json:"approvedEnd"`
	PendingEnd  int64          `json:"pendingEnd"`
	PendingMore int64          `json:"pendingNeedMoreApprovals"`
	Items       []pendingAgent `json:"items"` // ends at 20
}

type importTool struct {
	Key               string  `json:"key"`
	Name              string  `json:"name"`
	Description       string  `json:"description"`
	URL               *string `json:"url"`
	AuthType          string  `json:"authType"`
	Mode              string  `json:"credentialMode"`
	RequiredApprovals int64   `json:"requiredApprovals"`
	Instructions      string  `json:"instructions"`
}

func planOf(p agentkey.ImportPlan) importPlan {
	out := importPlan{
		Digest: p.Digest, Prune: p.Prune, Counts: importCounts(p.Count), Items: each(p.Items, importItemOf), Tools: []importTool{},
	}
	for _, i := range p.Items {
		if e, valid := i.Document(); valid {
			out.Tools = append(out.Tools, importTool{
				e.Key, e.Name, e.Description, exchange.Optional(e.URL), e.AuthType, string(e.Mode), max(e.RequiredApprovals, 1), e.Instructions,
			})
		}
	}
	return out
}

func importItemOf(i agentkey.ImportItem) importItem {
	item := importItem{Action: i.Action, Key: i.Key, Name: i.Name, Changes: i.Changes, Entry: i.Entry, Tool: i.Tool, Kept: i.Kept}
	for _, e := range i.Errors {
		item.Errors = append(item.Errors, strings.TrimSpace(e.Field+" "+e.Message))
	}
	if g := i.Grants; len(g.Items) > 0 {
		item.Grants = &affectedGrants{
			g.ApprovedEnd, g.PendingEnd, g.PendingMore,
			each(g.Items, func(l agentkey.Link) pendingAgent { return pendingAgent{l.Request, l.Agent, l.AgentName} }),
		}
	}
	return item
}
