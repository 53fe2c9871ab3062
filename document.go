package agentkey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// CatalogVersion is the version of the catalog documents that this library
// writes and reads.
const CatalogVersion = 1

// CatalogDocument is the catalog of an organization as a document that people
// keep, review and import again. It never holds a credential. The library takes
// and gives structs; the reference server writes and reads YAML and JSON.
type CatalogDocument struct {
	Version int            `json:"version"` // CatalogVersion
	Tools   []CatalogEntry `json:"tools"`   // by key, ascending, in an export; in any order in an import
}

// CatalogEntry is one tool of a catalog document. Its key says which tool it is:
// a tool can be renamed by an import, never moved to another key.
type CatalogEntry struct {
	Key         string                 `validate:"required,utf16max=120,key" json:"key"`
	Name        string                 `validate:"utf16min=2,utf16max=120,plain" json:"name"`
	Description string                 `validate:"utf16max=500,text" json:"description"`
	URL         string                 `validate:"plain" json:"url"` // at most 500 characters, unless the tool has exactly this one
	AuthType    string                 `validate:"oneof=api_key oauth_token bot_token other" json:"authType"`
	Mode        storage.CredentialMode `validate:"oneof=shared per_agent" json:"credentialMode"`
	// RequiredApprovals of 0 is what the tool has, or 1 if it is new.
	RequiredApprovals int64  `validate:"min=0,max=100" json:"requiredApprovals"`
	Instructions      string `validate:"utf16max=4000,text" json:"instructions"`
	// CredentialConfigured says in an export whether a shared tool has a credential.
	// An import ignores it.
	CredentialConfigured bool `validate:"-" json:"credentialConfigured"`
	// Problems is what the reader of a document found wrong with the entry before it
	// became one. With any, it is an invalid entry.
	Problems []FieldError `validate:"-" json:"-"`
}

// maxURL is the longest URL that may be given, in UTF-16 units.
const maxURL = 500

// ImportOptions say how a catalog document is imported.
type ImportOptions struct {
	// Prune deletes the tools that are not in the document, as DeleteTool does,
	// with their credentials and grants. Without it they are kept.
	Prune bool
	// Plan is the Digest of a plan. The import is then exactly that plan, or
	// ErrChanged. Empty: whatever the document means when the import is decided.
	Plan string
}

// ExportCatalog gives the whole catalog. That it was exported is an event. It is
// one consistent read, in memory as a whole: as many tools as the catalog may
// have.
func (m *Manager) ExportCatalog(ctx context.Context, a Actor) (CatalogDocument, error) {
	if err := m.authorize(ctx, a, OpExportCatalog); err != nil {
		return CatalogDocument{}, err
	}
	err := m.act(ctx, a, OpExportCatalog, needs{}, func(u *unit) error {
		u.event(a.who(), audit.ActionConfigExported).Target = audit.Ref{Kind: audit.KindToolCatalog, ID: a.Organization}
		return nil
	})
	if err != nil {
		return CatalogDocument{}, err
	}
	doc := CatalogDocument{Version: CatalogVersion}
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{catalog: true}); err != nil {
			return err
		}
		configured, err := u.configured(ctx, tx)
		if err != nil {
			return err
		}
		doc.Tools = make([]CatalogEntry, 0, len(u.tools))
		for _, t := range u.tools {
			e := entryOf(t)
			e.CredentialConfigured = configured[t.ID]
			doc.Tools = append(doc.Tools, e)
		}
		slices.SortFunc(doc.Tools, func(a, b CatalogEntry) int { return strings.Compare(a.Key, b.Key) })
		return nil
	})
	return doc, err
}

// credentialChunk is how many credentials are held at a time where only their
// being there counts: one may have 64 KiB.
const credentialChunk = 200

// configured says which of the tools read have a shared credential.
func (u *unit) configured(ctx context.Context, tx storage.ReadTx) (map[string]bool, error) {
	var refs []storage.CredentialRef
	for id, t := range u.tools {
		if t.Mode == storage.Shared {
			refs = append(refs, storage.CredentialRef{Tool: id})
		}
	}
	there := make(map[string]bool, len(refs))
	for part := range slices.Chunk(refs, credentialChunk) {
		found, err := tx.Credentials(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			c.Organization = u.organization
			if err := u.verify(c.Row(u.installation), c.Seal); err != nil {
				return nil, err
			}
			there[c.Tool] = true
		}
	}
	return there, nil
}

func entryOf(t storage.Tool) CatalogEntry {
	return CatalogEntry{
		Key: t.ConfigKey, Name: t.Name, Description: t.Description, URL: t.URL, AuthType: t.AuthType, Mode: t.Mode,
		RequiredApprovals: t.RequiredApprovals, Instructions: t.Instructions,
	}
}

// PlanImport says what importing a document would do, and does none of it.
// Entries that can't be imported are items of the plan, with what is wrong with
// them. A document as a whole that is none is a *ValidationError.
func (m *Manager) PlanImport(ctx context.Context, a Actor, doc CatalogDocument, o ImportOptions) (ImportPlan, error) {
	if err := m.authorize(ctx, a, OpPlanImport); err != nil {
		return ImportPlan{}, err
	}
	entries, err := m.checkDocument(doc)
	if err != nil {
		return ImportPlan{}, err
	}
	return m.planImport(ctx, a, entries, o)
}

// ImportCatalog makes the catalog what a document says, in one transaction: every
// tool is added, changed or deleted just as AddTool, UpdateTool and DeleteTool do
// it, with the same events, or nothing is done at all. The plan answered is what
// was done. New tools have no credential: they need one before anything is vended
// for them.
//
// With any invalid entry it is a *ValidationError that lists what is wrong with
// all of them, and with ImportOptions.Plan it is ErrChanged when the catalog, the
// document or the open grants concerned are not those that were planned for.
func (m *Manager) ImportCatalog(ctx context.Context, a Actor, doc CatalogDocument, o ImportOptions) (ImportPlan, error) {
	if err := m.authorize(ctx, a, OpImportCatalog); err != nil {
		return ImportPlan{}, err
	}
	entries, err := m.checkDocument(doc)
	if err != nil {
		return ImportPlan{}, err
	}
	var plan ImportPlan
	err = ErrChanged
	for run := 0; run < maxRuns && errors.Is(err, ErrChanged); run++ {
		if plan, err = m.planImport(ctx, a, entries, o); err != nil {
			return ImportPlan{}, err
		}
		if o.Plan != "" && o.Plan != plan.Digest {
			return ImportPlan{}, ErrChanged
		}
		if err := plan.invalid(); err != nil {
			return ImportPlan{}, err
		}
		err = m.applyImport(ctx, a, entries, o, plan)
	}
	if err != nil {
		return ImportPlan{}, err
	}
	return plan, nil
}

// planImport plans on one consistent read.
func (m *Manager) planImport(ctx context.Context, a Actor, entries []CatalogEntry, o ImportOptions) (plan ImportPlan, err error) {
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{catalog: true}); err != nil {
			return err
		}
		items := m.importItems(entries, u.tools, o)
		if err := bounded(items); err != nil {
			return err
		}
		n := affectedNeeds(items)
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		plan = u.importPlan(items, o)
		return nil
	})
	if err != nil {
		return ImportPlan{}, err
	}
	return plan, plan.bounded()
}

// applyImport does what was planned, if that is still what the document means.
func (m *Manager) applyImport(ctx context.Context, a Actor, entries []CatalogEntry, o ImportOptions, plan ImportPlan) error {
	ids := make([]string, plan.Count.Create)
	for i := range ids {
		ids[i] = newID()
	}
	return m.act(ctx, a, OpImportCatalog, importNeeds(plan, ids), func(u *unit) error {
		if u.importPlan(m.importItems(entries, u.tools, o), o).Digest != plan.Digest {
			return ErrChanged
		}
		for _, step := range []func() error{
			func() error { return m.importRemovals(u, a, plan) },
			func() error { return m.importUpdates(u, a, plan) },
			func() error { return m.importAdditions(u, a, plan, ids) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		e := u.event(a.who(), audit.ActionConfigImportApplied)
		e.Target = audit.Ref{Kind: audit.KindToolCatalog, ID: a.Organization}
		e.Details = plan.details()
		return nil
	})
}

// importNeeds is what carrying out a plan decides on; added are the ids of the
// tools that it adds.
func importNeeds(plan ImportPlan, added []string) needs {
	var updated []string
	var changes []toolChange
	for _, item := range plan.Items {
		switch item.Action {
		case ImportUpdate:
			in := item.change()
			updated = append(updated, item.Tool)
			changes = append(changes, toolChange{tool: item.Tool, name: in.Name, url: in.URL})
		case ImportCreate:
			changes = append(changes, toolChange{tool: added[0], name: &item.entry.Name, url: &item.entry.URL})
			added = added[1:]
		}
	}
	n := affectedNeeds(plan.Items).and(updateNeeds(updated...))
	n.changes = changes
	n.catalog, n.toolCount = true, true
	return n
}

func (m *Manager) importRemovals(u *unit, a Actor, plan ImportPlan) error {
	for _, item := range plan.Items {
		if item.Action != ImportRemove || item.Kept {
			continue
		}
		if _, err := m.deleteTool(u, a, item.Tool); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) importUpdates(u *unit, a Actor, plan ImportPlan) error {
	for _, item := range plan.Items {
		if item.Action != ImportUpdate {
			continue
		}
		if err := m.updateTool(u, a, item.Tool, item.change(), nil); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) importAdditions(u *unit, a Actor, plan ImportPlan, ids []string) error {
	for _, item := range plan.Items {
		if item.Action != ImportCreate {
			continue
		}
		e := item.entry
		tool := storage.Tool{
			Organization: a.Organization, ID: ids[0], ConfigKey: e.Key, Name: e.Name, Description: e.Description, URL: e.URL,
			AuthType: e.AuthType, Mode: e.Mode, RequiredApprovals: max(e.RequiredApprovals, 1), Instructions: e.Instructions, Revision: 1,
		}
		ids = ids[1:]
		if err := m.addTool(u, a, tool, nil); err != nil {
			return err
		}
	}
	return nil
}

// checkDocument checks what can be checked without the catalog. The entries it
// answers are copies, trimmed, each with its problems.
func (m *Manager) checkDocument(doc CatalogDocument) ([]CatalogEntry, error) {
	if doc.Version != CatalogVersion {
		return nil, invalid("version", "must be "+strconv.Itoa(CatalogVersion))
	}
	if limit := m.config.CatalogLimit; len(doc.Tools) > limit {
		return nil, invalid("tools", "must have at most "+strconv.Itoa(limit)+" entries, as the catalog")
	}
	entries := slices.Clone(doc.Tools)
	first := make(map[string]int, len(entries))
	for i := range entries {
		e := &entries[i]
		e.Problems = slices.Clone(e.Problems)
		if len(e.Problems) > 0 {
			continue
		}
		trim(reflect.ValueOf(e).Elem())
		err := m.validation.check(e)
		var bad *ValidationError
		switch {
		case errors.As(err, &bad):
			e.Problems = bad.Fields
			continue
		case err != nil:
			return nil, err
		}
		if at, taken := first[e.Key]; taken {
			e.problem("key", fmt.Sprintf("is that of entry %d already", at+1))
			continue
		}
		first[e.Key] = i
	}
	return entries, nil
}

func (e *CatalogEntry) problem(field, message string) {
	e.Problems = append(e.Problems, FieldError{Field: field, Message: message})
}

// byKey finds tools by their keys.
func byKey(tools map[string]storage.Tool) map[string]storage.Tool {
	m := make(map[string]storage.Tool, len(tools))
	for _, t := range tools {
		m[t.ConfigKey] = t
	}
	return m
}

// newestFirst is the order of every list of tools.
func newestFirst(a, b storage.Tool) int { return cmp.Compare(b.ID, a.ID) }
