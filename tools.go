package agentkey

import (
	"context"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// AddTool adds a tool to the catalog, a shared one with its credential.
func (m *Manager) AddTool(ctx context.Context, a Actor, in AddToolInput) (ToolView, error) {
	if err := m.authorize(ctx, a, OpAddTool); err != nil {
		return ToolView{}, err
	}
	if err := m.checkNewTool(&in); err != nil {
		return ToolView{}, err
	}
	tool := storage.Tool{
		Organization: a.Organization, ID: newID(), Name: in.Name, Description: in.Description, URL: in.URL, AuthType: in.AuthType,
		Mode: in.Mode, RequiredApprovals: max(in.RequiredApprovals, 1), Instructions: in.Instructions, Revision: 1,
	}
	var credential *storage.Credential
	if in.Mode == storage.Shared {
		c, err := m.newCredential(ctx, a.Organization, tool.ID, "", in.AuthType, micros(in.CredentialExpiresAt), in.Credential)
		if err != nil {
			return ToolView{}, err
		}
		credential = &c
	}
	free, err := m.configKey(ctx, a.Organization, slug(in.Name))
	if err != nil {
		return ToolView{}, err
	}
	n := needs{toolCount: true, configKey: free, changes: []toolChange{{tool: tool.ID, name: &tool.Name, url: &tool.URL, source: in.Suggestion}}}
	err = m.actSealing(ctx, a, OpAddTool, n, credential, in.Credential, func(u *unit) error {
		tool.ConfigKey = u.configKey
		return m.addTool(u, a, tool, credential)
	})
	if err != nil {
		return ToolView{}, err
	}
	return afterCommit(m.toolView(ctx, a, tool.ID))
}

// addTool adds a tool under the head, as part of whatever else is done there.
func (m *Manager) addTool(u *unit, a Actor, tool storage.Tool, credential *storage.Credential) error {
	if u.toolCount >= int64(m.config.CatalogLimit) {
		return ErrCatalogFull
	}
	u.toolCount++
	tool.CreatedAt = u.now
	e := u.toolEvent(a, audit.ActionToolCreated, tool)
	e.Details = map[string]string{"mode": string(tool.Mode)}
	if err := u.putTool(e, tool); err != nil {
		return err
	}
	if err := u.putIdentity(e, tool); err != nil {
		return err
	}
	if credential != nil {
		credential.CreatedAt, credential.RotatedAt = u.now, u.now
		if err := u.putCredential(e, *credential, true); err != nil {
			return err
		}
	}
	if err := u.beginGuide(a, tool); err != nil {
		return err
	}
	return m.resolveSuggestions(u, a, tool, resolvedByAdding)
}

func (m *Manager) checkNewTool(in *AddToolInput) error {
	if err := m.validation.input(in); err != nil {
		return err
	}
	var err error
	in.URL, err = normalURL(in.URL)
	return err
}

// problems are those of the credential and of the URL.
func (in *AddToolInput) problems() []FieldError {
	var errs []error
	switch {
	case in.Mode == storage.Shared && blank(in.Credential):
		errs = append(errs, invalid("credential", "is required for a shared tool"))
	case in.Mode == storage.PerAgent && !blank(in.Credential):
		errs = append(errs, invalid("credential", "must be left out: this tool has a credential for each agent"))
	}
	if in.Mode == storage.PerAgent && !in.CredentialExpiresAt.IsZero() {
		errs = append(errs, invalid("credentialExpiresAt", "must be left out: this tool has a credential for each agent"))
	}
	_, err := normalURL(in.URL)
	return fieldsOf(append(errs, checkEnd("credentialExpiresAt", in.CredentialExpiresAt), err)...)
}

func (u *unit) toolEvent(a Actor, action audit.Action, t storage.Tool) *entry {
	e := u.event(a.who(), action)
	e.Tool, e.Target = t.ID, audit.Ref{Kind: audit.KindTool, ID: t.ID}
	e.personal.ToolLabel = t.Name
	return e
}

// configKey is a key for a tool that is unique in its organization: the tool's
// name and, from the second of that name on, a number.
type configKey struct {
	base string
	n    int
}

func (k configKey) String() string {
	if k.n < 2 {
		return k.base
	}
	return k.base + "-" + strconv.Itoa(k.n)
}

// free is the first free key from k on.
func (k configKey) free(ctx context.Context, tx storage.ReadTx) (configKey, error) {
	for ; ; k.n++ {
		page, err := tx.Tools(ctx, storage.ToolQuery{ConfigKey: k.String(), Limit: 1})
		if err != nil || len(page.Tools) == 0 {
			return k, err
		}
	}
}

// configKey finds a key that is free, or nearly: it is looked at again under the
// head, from there on.
func (m *Manager) configKey(ctx context.Context, organization, base string) (k configKey, err error) {
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, _ *unit) error {
		k, err = configKey{base: base, n: 1}.free(ctx, tx)
		return err
	})
	return k, err
}

// slug is the name in lower-case letters and digits joined by hyphens.
func slug(name string) string {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	s := strings.Trim(cut(strings.Join(parts, "-"), 100), "-")
	if s == "" {
		return "tool"
	}
	return s
}

// UpdateTool changes a tool. A credential given replaces the one there is, at
// once and for every agent.
func (m *Manager) UpdateTool(ctx context.Context, a Actor, id string, in UpdateToolInput) (ToolView, error) {
	op := OpUpdateTool
	if !blank(in.Credential) {
		op = OpReplaceCredential
	}
	if err := m.authorize(ctx, a, op); err != nil {
		return ToolView{}, err
	}
	if err := m.checkToolChange(&in); err != nil {
		return ToolView{}, err
	}
	var next *storage.Credential
	if !blank(in.Credential) {
		c, err := m.replacement(ctx, a, id, in)
		if err != nil {
			return ToolView{}, err
		}
		next = c
	}
	n := updateNeeds(id)
	n.records = append(n.records, in.takesUp()...)
	n.changes = []toolChange{{tool: id, name: in.Name, url: in.URL}}
	err := m.actSealing(ctx, a, op, n, next, in.Credential, func(u *unit) error { return m.updateTool(u, a, id, in, next) })
	if err != nil {
		return ToolView{}, err
	}
	return afterCommit(m.toolView(ctx, a, id))
}

func (m *Manager) checkToolChange(in *UpdateToolInput) error {
	if err := m.validation.input(in); err != nil {
		return err
	}
	if in.URL != nil {
		normal, err := normalURL(*in.URL)
		if err != nil {
			return err
		}
		in.URL = &normal
	}
	if in.AcceptSuggestion != "" && in.RestoreVersion != "" {
		return invalid("restoreInstructionVersionId", "must be left out where a suggestion is accepted")
	}
	return nil
}

// problems are those of the URL and of the end.
func (in *UpdateToolInput) problems() []FieldError {
	var errs []error
	if in.URL != nil {
		_, err := normalURL(*in.URL)
		errs = append(errs, err)
	}
	if in.CredentialExpiresAt != nil {
		errs = append(errs, checkEnd("credentialExpiresAt", *in.CredentialExpiresAt))
	}
	return fieldsOf(errs...)
}

// updateNeeds is what updateTool decides on, but for what a change takes up
// and resolves.
func updateNeeds(tools ...string) needs {
	n := needs{tools: tools, credentials: true}
	for _, id := range tools {
		n.records = append(n.records, guideRef(id))
	}
	return n
}

// updateTool changes a tool under the head, as part of whatever else is done
// there.
func (m *Manager) updateTool(u *unit, a Actor, id string, in UpdateToolInput, next *storage.Credential) error {
	tool, ok := u.tools[id]
	if !ok {
		return ErrNoTool
	}
	set(&tool.Name, in.Name)
	set(&tool.Description, in.Description)
	set(&tool.URL, in.URL)
	set(&tool.RequiredApprovals, in.RequiredApprovals)
	guide, err := u.revise(&tool, in)
	if err != nil {
		return err
	}
	tool.Revision++
	e := u.toolEvent(a, audit.ActionToolUpdated, tool)
	e.Details = map[string]string{"mode": string(tool.Mode), "rotated": strconv.FormatBool(next != nil)}
	if guide.changed {
		e.Details["version_source"] = string(guide.source)
	}
	if err := u.putTool(e, tool); err != nil {
		return err
	}
	if err := u.putIdentity(e, tool); err != nil {
		return err
	}
	if err := u.putRevision(a, tool, guide); err != nil {
		return err
	}
	if err := u.updateCredential(a, tool, in, next); err != nil {
		return err
	}
	return m.resolveSuggestions(u, a, tool, resolvedByChange)
}

// replacement seals the credential that a tool is to have.
func (m *Manager) replacement(ctx context.Context, a Actor, id string, in UpdateToolInput) (*storage.Credential, error) {
	var tool storage.Tool
	found := false
	if err := m.view(ctx, a.Organization, needs{tools: []string{id}}, func(u *unit) { tool, found = u.tools[id] }); err != nil {
		return nil, err
	}
	switch {
	case !found:
		return nil, ErrNoTool
	case tool.Mode == storage.PerAgent:
		return nil, invalid("credential", "must be left out: this tool has a credential for each agent")
	}
	var expires int64
	if in.CredentialExpiresAt != nil {
		expires = micros(*in.CredentialExpiresAt)
	}
	c, err := m.newCredential(ctx, a.Organization, id, "", tool.AuthType, expires, in.Credential)
	return &c, err
}

// updateCredential replaces a shared tool's credential, or changes only when it ends.
func (u *unit) updateCredential(a Actor, tool storage.Tool, in UpdateToolInput, next *storage.Credential) error {
	current, present := u.credentials[storage.CredentialRef{Tool: tool.ID}]
	if next != nil {
		e := u.toolEvent(a, audit.ActionToolCredentialReplaced, tool)
		if in.CredentialExpiresAt == nil && present && current.Status == storage.CredentialActive && current.ExpiresAt > u.now {
			next.ExpiresAt = current.ExpiresAt
		}
		next.CreatedAt, next.RotatedAt = u.now, u.now
		return u.replaceCredential(e, *next)
	}
	if in.CredentialExpiresAt == nil || tool.Mode != storage.Shared {
		return nil
	}
	if !present {
		return ErrNoCredential
	}
	e := u.toolEvent(a, audit.ActionToolUpdated, tool)
	e.Target = audit.Ref{Kind: audit.KindCredential, ID: current.ID}
	current.ExpiresAt = micros(*in.CredentialExpiresAt)
	current.Status = storage.CredentialActive
	if current.ExpiresAt != 0 && current.ExpiresAt <= u.now {
		current.Status = storage.CredentialExpired
	}
	current.Revision++
	return u.putCredential(e, current, false)
}

// RemoveCredential removes a shared tool's credential: nothing is vended for it
// until another one is there.
func (m *Manager) RemoveCredential(ctx context.Context, a Actor, id string) (ToolView, error) {
	if err := m.authorize(ctx, a, OpRemoveCredential); err != nil {
		return ToolView{}, err
	}
	err := m.act(ctx, a, OpRemoveCredential, updateNeeds(id), func(u *unit) error {
		tool, ok := u.tools[id]
		if !ok {
			return ErrNoTool
		}
		c, ok := u.credentials[storage.CredentialRef{Tool: id}]
		if !ok {
			return ErrNoCredential
		}
		u.deleteCredential(u.toolEvent(a, audit.ActionToolCredentialRemoved, tool), c)
		return nil
	})
	if err != nil {
		return ToolView{}, err
	}
	return afterCommit(m.toolView(ctx, a, id))
}

// DeleteTool removes a tool with its credential and all grants to it. Each
// pending and approved grant is revoked with an event of its own.
func (m *Manager) DeleteTool(ctx context.Context, a Actor, id string) (DeletedTool, error) {
	if err := m.authorize(ctx, a, OpDeleteTool); err != nil {
		return DeletedTool{}, err
	}
	var out DeletedTool
	err := m.act(ctx, a, OpDeleteTool, deleteNeeds(id), func(u *unit) (err error) {
		out, err = m.deleteTool(u, a, id)
		return err
	})
	return out, err
}

// deleteNeeds is what deleteTool decides on.
func deleteNeeds(tools ...string) needs {
	n := needs{tools: tools, named: true, credentials: true, approvals: true, records: []recordRef{removalsRef}}
	for _, id := range tools {
		n.records = append(n.records, guideRef(id))
		n.grantsOf = append(n.grantsOf, storage.GrantQuery{Tool: id})
		n.records = append(n.records, recordRef{kindToolIdentity, id})
	}
	return n
}

// deleteTool deletes a tool under the head, as part of whatever else is done
// there.
func (m *Manager) deleteTool(u *unit, a Actor, id string) (DeletedTool, error) {
	tool, ok := u.tools[id]
	if !ok {
		return DeletedTool{}, ErrNoTool
	}
	out := u.endGrants(a, tool)
	e := u.toolEvent(a, audit.ActionToolDeleted, tool)
	if c, ok := u.credentials[storage.CredentialRef{Tool: id}]; ok {
		u.removed(e, audit.KindCredential, c.ID, c.Revision)
	}
	if known, ok := u.records[recordRef{kindToolIdentity, id}]; ok {
		u.deleteRecord(e, known)
	}
	e.Details = map[string]string{"approved": strconv.Itoa(out.ApprovedRevoked), "pending": strconv.Itoa(out.PendingRevoked)}
	if err := u.removeLater(e, id); err != nil {
		return DeletedTool{}, err
	}
	u.deleteTool(e, tool)
	u.toolCount--
	return out, nil
}

// endGrants notes that the grants to a tool go with it: each open one in an event
// of its own.
func (u *unit) endGrants(a Actor, tool storage.Tool) DeletedTool {
	out := DeletedTool{ID: tool.ID}
	var e *entry
	for _, g := range u.sortedGrants(func(g grants.Grant) bool { return g.Tool == tool.ID }) {
		if t := grants.Settle(g, u.now); !g.Status.Open() || t.Changed() {
			if e == nil || len(e.Changes) > maxChanges {
				e = u.toolEvent(a, audit.ActionGrantRemoved, tool)
			}
			u.removeGrant(e, g)
			continue
		}
		revoked := u.event(a.who(), audit.ActionGrantRevoked)
		describe(revoked, u.agents[g.Agent], tool, &g)
		revoked.Agent = g.Agent
		revoked.Target = audit.Ref{Kind: audit.KindGrant, ID: g.ID}
		revoked.From, revoked.To = string(g.Status), string(grants.StatusRevoked)
		u.removeGrant(revoked, g)
		if g.Status == grants.StatusApproved {
			out.ApprovedRevoked++
		} else {
			out.PendingRevoked++
		}
	}
	return out
}

// maxChanges bounds the records whose removal one event reports.
const maxChanges = 200

// removeGrant notes that a grant goes with its tool, and with it its approvals
// and its credential. The storage removes them with the tool, but not the record
// of a pending grant.
func (u *unit) removeGrant(e *entry, g grants.Grant) {
	u.removed(e, audit.KindGrant, g.ID, g.Revision)
	if g.Status == grants.StatusPending {
		u.delist(e, g)
	}
	for _, a := range u.approvals[g.ID] {
		u.removed(e, audit.KindApproval, storage.ApprovalID(a), a.Revision)
	}
	if c, ok := u.credentials[storage.CredentialRef{Tool: g.Tool, Grant: g.ID}]; ok {
		u.removed(e, audit.KindCredential, c.ID, c.Revision)
	}
}
