package agentkey

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// ImportAction is what an import does with one tool.
type ImportAction string

// The actions of an import.
const (
	ImportCreate    ImportAction = "create"
	ImportUpdate    ImportAction = "update"
	ImportUnchanged ImportAction = "unchanged"
	ImportRemove    ImportAction = "remove"  // it is not in the document; see ImportItem.Kept
	ImportInvalid   ImportAction = "invalid" // the entry can't be imported, nor any other with it
)

// ImportPlan is what an import does: an item for each entry of the document, in
// its order, and then one for each tool that is not in it, newest first.
type ImportPlan struct {
	// Digest names this plan: the document, the options, the revision of every tool
	// of the catalog, and the open grants that are affected. It is 64 hexadecimal
	// digits, and no secret.
	Digest string
	Prune  bool
	Count  ImportCount
	Items  []ImportItem
}

// ImportCount counts the items of a plan by their action.
type ImportCount struct{ Create, Update, Unchanged, Remove, Invalid int }

// ImportItem is what an import does with one tool.
type ImportItem struct {
	Action  ImportAction
	Entry   int          // its place in the document, from 1; 0: it is not there
	Key     string       // item-N for an invalid entry without a good key
	Name    string       // empty for an invalid entry
	Tool    string       // the tool's id; empty if there is none yet
	Changes []string     // the fields that an update changes; of an invalid entry for a tool that is there, those that differ
	Errors  []FieldError // of an invalid entry; they never hold a value
	Kept    bool         // of a tool to remove: it stays, because Prune is not set
	Grants  AffectedGrants

	entry    CatalogEntry // as it will be stored
	revision int64        // of the tool
}

// Document gives the item's entry as it will be stored, and whether it has one
// that is valid.
func (i ImportItem) Document() (CatalogEntry, bool) {
	return i.entry, i.Entry > 0 && i.Action != ImportInvalid
}

// AffectedGrants are the open grants that a change of their tool does something to.
type AffectedGrants struct {
	ApprovedEnd int64  // approved grants that end with the tool
	PendingEnd  int64  // pending requests that end with the tool
	PendingMore int64  // pending requests that need more approvers than before
	Items       []Link // the newest 20 of all of them
}

// importItems compares entries with a catalog. What it answers depends on nothing
// else.
func (m *Manager) importItems(entries []CatalogEntry, tools map[string]storage.Tool, o ImportOptions) []ImportItem {
	items := make([]ImportItem, 0, len(entries))
	missing := byKey(tools)
	for i, e := range entries {
		tool, known := missing[e.Key]
		item := importItem(e, tool, known)
		item.Entry = i + 1
		if item.Key == "" {
			item.Key = "item-" + strconv.Itoa(item.Entry)
		}
		items = append(items, item)
		delete(missing, e.Key)
	}
	m.capCatalog(items, len(tools), missing, o)
	for _, t := range slices.SortedFunc(maps.Values(missing), newestFirst) {
		items = append(items, ImportItem{
			Action: ImportRemove, Key: t.ConfigKey, Name: t.Name, Tool: t.ID, Kept: !o.Prune, entry: entryOf(t), revision: t.Revision,
		})
	}
	return items
}

// capCatalog refuses the new tools that the catalog has no room for.
func (m *Manager) capCatalog(items []ImportItem, have int, missing map[string]storage.Tool, o ImportOptions) {
	if o.Prune {
		have -= len(missing)
	}
	for i := range items {
		if items[i].Action != ImportCreate {
			continue
		}
		if have++; have > m.config.CatalogLimit {
			items[i].refuse("key", "is that of a new tool, and the catalog has room for "+strconv.Itoa(m.config.CatalogLimit)+" tools only")
		}
	}
}

// importItem compares one entry with the tool that has its key.
func importItem(e CatalogEntry, tool storage.Tool, known bool) ImportItem {
	item := ImportItem{Action: ImportCreate, entry: e}
	if len(e.Problems) > 0 {
		item.refuse("", "")
		item.Errors = e.Problems
		return item
	}
	item.Key, item.Name = e.Key, e.Name
	if !known || e.URL != tool.URL {
		normal, err := normalURL(e.URL)
		switch {
		case utf16Len(e.URL) > maxURL:
			item.refuse("url", "must have at most "+strconv.Itoa(maxURL)+" characters")
		case err != nil:
			item.refuse("url", "must be an http or https URL or a host name")
		}
		item.entry.URL = normal
	}
	if !known {
		return item
	}
	item.Tool, item.revision = tool.ID, tool.Revision
	if item.entry.RequiredApprovals == 0 {
		item.entry.RequiredApprovals = tool.RequiredApprovals
	}
	if e.AuthType != tool.AuthType {
		item.refuse("authType", "can't be changed: it is "+tool.AuthType+"; delete the tool and add it again, or give it another key")
	}
	if e.Mode != tool.Mode {
		item.refuse("credentialMode", "can't be changed: it is "+string(tool.Mode)+"; delete the tool and add it again, or give it another key")
	}
	item.Changes = item.entry.differences(entryOf(tool))
	switch {
	case item.Action == ImportInvalid:
	case len(item.Changes) > 0:
		item.Action = ImportUpdate
	default:
		item.Action = ImportUnchanged
	}
	return item
}

func (i *ImportItem) refuse(field, message string) {
	i.Action, i.Name = ImportInvalid, ""
	if field != "" {
		i.Errors = append(i.Errors, FieldError{Field: field, Message: message})
	}
}

// differences names the fields that differ, in the order of a document.
func (e CatalogEntry) differences(from CatalogEntry) []string {
	var fields []string
	for _, f := range []struct {
		name    string
		differs bool
	}{
		{"name", e.Name != from.Name},
		{"description", e.Description != from.Description},
		{"url", e.URL != from.URL},
		{"authType", e.AuthType != from.AuthType},
		{"credentialMode", e.Mode != from.Mode},
		{"requiredApprovals", e.RequiredApprovals != from.RequiredApprovals},
		{"instructions", e.Instructions != from.Instructions},
	} {
		if f.differs {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// change is the input of the update: what differs and nothing else.
func (i ImportItem) change() UpdateToolInput {
	var in UpdateToolInput
	e := i.entry
	for _, field := range i.Changes {
		switch field {
		case "name":
			in.Name = &e.Name
		case "description":
			in.Description = &e.Description
		case "url":
			in.URL = &e.URL
		case "requiredApprovals":
			in.RequiredApprovals = &e.RequiredApprovals
		case "instructions":
			in.Instructions = &e.Instructions
		}
	}
	return in
}

// removes says whether the item ends its tool.
func (i ImportItem) removes() bool { return i.Action == ImportRemove && !i.Kept }

// changes says whether the item changes that field of its tool.
func (i ImportItem) changes(field string) bool { return slices.Contains(i.Changes, field) }

// affectedNeeds is what affectedGrants looks at, and what deleting decides on.
func affectedNeeds(items []ImportItem) needs {
	var removed []string
	var changed []storage.GrantQuery
	for _, item := range items {
		switch {
		case item.removes():
			removed = append(removed, item.Tool)
		case item.changes("requiredApprovals"):
			changed = append(changed, storage.GrantQuery{Tool: item.Tool, Statuses: []grants.Status{grants.StatusPending}})
		}
	}
	n := deleteNeeds(removed...)
	n.grantsOf = append(n.grantsOf, changed...)
	return n
}

// importPlan adds to items what they do to the grants that were read.
func (u *unit) importPlan(items []ImportItem, o ImportOptions) ImportPlan {
	plan := ImportPlan{Prune: o.Prune, Items: slices.Clone(items)}
	at := make(map[string]*ImportItem, len(items))
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.Tool != "" {
			at[item.Tool] = item
		}
		plan.Count.add(item.Action)
	}
	seen := sha256.New()
	encoder := json.NewEncoder(seen)
	for _, g := range slices.Backward(u.sortedGrants(every)) {
		item := at[g.Tool]
		if item == nil || !u.affected(item, g) {
			continue
		}
		if len(item.Grants.Items) < linked {
			item.Grants.Items = append(item.Grants.Items, Link{
				Request: g.ID, Agent: g.Agent, AgentName: u.agents[g.Agent].Name, Tool: item.Tool, ToolName: item.Name, ToolMode: item.entry.Mode,
			})
		}
		_ = encoder.Encode([]any{g.ID, g.Status, g.Cycle, g.Approvals}) // texts and numbers always encode
	}
	plan.Digest = plan.digest(u.organization, seen.Sum(nil))
	return plan
}

// affected counts a grant with its item if that does something to it.
func (u *unit) affected(item *ImportItem, g grants.Grant) bool {
	t := grants.Settle(g, u.now)
	switch status := t.Grant.Status; {
	case item.removes() && status == grants.StatusApproved:
		item.Grants.ApprovedEnd++
	case item.removes() && status == grants.StatusPending:
		item.Grants.PendingEnd++
	case item.changes("requiredApprovals") && status == grants.StatusPending && item.entry.RequiredApprovals > g.RequiredApprovals:
		item.Grants.PendingMore++
	default:
		return false
	}
	return true
}

func (c *ImportCount) add(action ImportAction) {
	switch action {
	case ImportCreate:
		c.Create++
	case ImportUpdate:
		c.Update++
	case ImportUnchanged:
		c.Unchanged++
	case ImportRemove:
		c.Remove++
	case ImportInvalid:
		c.Invalid++
	}
}

// digest covers everything that decides what an import does.
func (p ImportPlan) digest(organization string, affected []byte) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	_ = e.Encode([]any{"agentkey catalog import plan 1", organization, p.Prune, affected})
	for _, i := range p.Items {
		_ = e.Encode([]any{i.Action, i.Entry, i.Key, i.Tool, i.revision, i.Kept, i.Changes, i.Errors, i.entry})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// removed is how many tools the plan removes.
func (p ImportPlan) removed() int {
	if !p.Prune {
		return 0
	}
	return p.Count.Remove
}

// details are what the event of an import says.
func (p ImportPlan) details() map[string]string {
	return map[string]string{
		"created": strconv.Itoa(p.Count.Create), "updated": strconv.Itoa(p.Count.Update), "unchanged": strconv.Itoa(p.Count.Unchanged),
		"removed": strconv.Itoa(p.removed()), "kept": strconv.Itoa(p.Count.Remove - p.removed()),
	}
}

// invalid is what is wrong with the document's entries, if anything is.
func (p ImportPlan) invalid() error {
	if p.Count.Invalid == 0 {
		return nil
	}
	bad := &ValidationError{}
	for _, item := range p.Items {
		for _, f := range item.Errors {
			field := strings.TrimSuffix("item-"+strconv.Itoa(item.Entry)+"."+f.Field, ".")
			bad.Fields = append(bad.Fields, FieldError{Field: field, Message: f.Message})
		}
	}
	return bad
}

// Bounds of one import. They keep the transaction, during which nothing else of
// the organization is decided, short.
const (
	maxImportChanges  = 1500 // tools added or changed
	maxImportRemovals = 500  // tools deleted, or with another number of approvals: their grants are read one tool at a time
	maxImportGrants   = 5000 // open grants that end
)

// bounded refuses what would take too long, before the grants are read.
func bounded(items []ImportItem) error {
	changed, slow := 0, 0
	for _, item := range items {
		switch {
		case item.removes(), item.changes("requiredApprovals"):
			slow++
		case item.Action == ImportCreate, item.Action == ImportUpdate:
			changed++
		}
	}
	switch {
	case slow > maxImportRemovals:
		return invalid("tools", "must not delete more than "+strconv.Itoa(maxImportRemovals)+
			" tools, or change what they require, in one import; do some before with a document that has the others as they are")
	case changed > maxImportChanges:
		return invalid("tools", "must not add or change more than "+strconv.Itoa(maxImportChanges)+" tools in one import; split the document")
	}
	return nil
}

func (p ImportPlan) bounded() error {
	var ended int64
	for _, item := range p.Items {
		ended += item.Grants.ApprovedEnd + item.Grants.PendingEnd
	}
	if ended > maxImportGrants {
		return invalid("tools", "must not end more than "+strconv.Itoa(maxImportGrants)+" grants in one import; delete some tools before")
	}
	return nil
}
