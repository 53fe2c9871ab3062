package agentkey

import (
	"context"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	defaultPage = 100
	maxPage     = 500
	// linked is how many of an item's grants are shown with it.
	linked = 20
)

func pageLimit(limit int) (int, error) {
	if limit < 0 || limit > maxPage {
		return 0, invalid("limit", "must be 1 to 500")
	}
	return or(limit, defaultPage), nil
}

// Agents lists agents, newest first.
func (m *Manager) Agents(ctx context.Context, a Actor, in ListInput) ([]AgentView, error) {
	if err := m.authorize(ctx, a, OpReadAgents); err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	return m.agentViews(ctx, a.Organization, storage.AgentQuery{Name: in.Name, After: in.After, Limit: limit})
}

// Agent reads one agent.
func (m *Manager) Agent(ctx context.Context, a Actor, id string) (AgentView, error) {
	if err := m.authorize(ctx, a, OpReadAgents); err != nil {
		return AgentView{}, err
	}
	return m.agentView(ctx, a, id)
}

func (m *Manager) agentView(ctx context.Context, a Actor, id string) (AgentView, error) {
	found, err := m.agentViews(ctx, a.Organization, storage.AgentQuery{IDs: []string{id}})
	if err != nil {
		return AgentView{}, err
	}
	if len(found) == 0 {
		return AgentView{}, ErrNoAgent
	}
	return found[0], nil
}

func (m *Manager) agentViews(ctx context.Context, organization string, q storage.AgentQuery) ([]AgentView, error) {
	if err := checkTexts(append(q.IDs, q.Name, q.After)...); err != nil {
		return nil, err
	}
	out := []AgentView{}
	err := m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = out[:0]
		if err := u.load(ctx, tx, needs{}); err != nil {
			return err
		}
		page, err := tx.Agents(ctx, q)
		if err != nil {
			return err
		}
		for _, agent := range page.Agents {
			agent.Organization = organization
			if err := u.verify(agent.Row(u.installation), agent.Seal); err != nil {
				return err
			}
			v := AgentView{Agent: agent}
			if v.Granted, err = u.linked(ctx, tx, storage.GrantQuery{Agent: agent.ID}, grants.StatusApproved); err != nil {
				return err
			}
			if v.Pending, err = u.linked(ctx, tx, storage.GrantQuery{Agent: agent.ID}, grants.StatusPending); err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].LastActiveAt, err = m.lastActive(ctx, organization, out[i].ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// linked reads the newest grants of an agent or a tool with a status, and how
// many there are.
func (u *unit) linked(ctx context.Context, tx storage.ReadTx, q storage.GrantQuery, status grants.Status) (Linked, error) {
	q.Statuses, q.Limit, q.Total = []grants.Status{status}, linked, true
	page, err := tx.Grants(ctx, q)
	if err != nil {
		return Linked{}, err
	}
	out := Linked{Count: page.Total, Items: make([]Link, 0, len(page.Grants))}
	named, err := u.named(ctx, tx, page.Grants)
	if err != nil {
		return Linked{}, err
	}
	for _, r := range named {
		if grants.Access(&r.Grant, u.now) != status {
			out.Count-- // its end has passed and is not written yet
			continue
		}
		out.Items = append(out.Items, Link{
			Request: r.ID, Agent: r.Agent, AgentName: r.AgentName, Tool: r.Tool, ToolName: r.ToolName, ToolMode: r.ToolMode,
		})
	}
	return out, nil
}

// named gives grants with the names of their agents and tools.
func (u *unit) named(ctx context.Context, tx storage.ReadTx, found []grants.Grant) ([]Request, error) {
	out := make([]Request, 0, len(found))
	if len(found) == 0 {
		return out, nil
	}
	agents := make([]string, len(found))
	tools := make([]string, len(found))
	for i, g := range found {
		agents[i], tools[i] = g.Agent, g.Tool
	}
	page, err := tx.Agents(ctx, storage.AgentQuery{IDs: agents})
	if err != nil {
		return nil, err
	}
	byID := make(map[string]storage.Agent, len(page.Agents))
	for _, a := range page.Agents {
		a.Organization = u.organization
		if err := u.verify(a.Row(u.installation), a.Seal); err != nil {
			return nil, err
		}
		byID[a.ID] = a
	}
	toolByID, err := u.toolNames(ctx, tx, tools)
	if err != nil {
		return nil, err
	}
	for _, g := range found {
		g.Organization = u.organization
		if err := u.verify(storage.GrantRow(u.installation, g), g.Seal); err != nil {
			return nil, err
		}
		a, t := byID[g.Agent], toolByID[g.Tool]
		out = append(out, Request{Grant: g, AgentName: a.Name, AgentDescription: a.Description, ToolName: t.Name, ToolMode: t.Mode})
	}
	return out, nil
}

func (u *unit) toolNames(ctx context.Context, tx storage.ReadTx, ids []string) (map[string]storage.Tool, error) {
	tools := make(map[string]storage.Tool, len(ids))
	if len(ids) == 0 {
		return tools, nil
	}
	page, err := tx.Tools(ctx, storage.ToolQuery{IDs: ids})
	if err != nil {
		return nil, err
	}
	for _, t := range page.Tools {
		t.Organization = u.organization
		if err := u.verify(t.Row(u.installation), t.Seal); err != nil {
			return nil, err
		}
		tools[t.ID] = t
	}
	return tools, nil
}

// accessHistory are the actions that count as activity of an agent.
var accessHistory = map[audit.Action]bool{
	audit.ActionGrantRequested: true, audit.ActionGrantAssigned: true, audit.ActionGrantApproved: true,
	audit.ActionGrantDenied: true, audit.ActionGrantRevoked: true, audit.ActionCredentialVended: true,
}

// lastActive is the time of the newest event of an agent's access history.
func (m *Manager) lastActive(ctx context.Context, organization, agent string) (int64, error) {
	q := storage.EventQuery{Filter: audit.Filter{Agent: agent}, Limit: 50}
	for {
		page, err := m.store.Events(ctx, organization, q)
		if err != nil {
			return 0, storageError(err)
		}
		for _, l := range page.Lines {
			if e, err := audit.Parse(l.Content); err == nil && accessHistory[e.Action] {
				return e.Time, nil
			}
		}
		if page.Next == 0 {
			return 0, nil
		}
		q.Before = page.Next
	}
}

// AgentKeys lists an agent's keys, newest first: never the keys themselves.
func (m *Manager) AgentKeys(ctx context.Context, a Actor, agent string) ([]AgentKey, error) {
	if err := m.authorize(ctx, a, OpReadAgents); err != nil {
		return nil, err
	}
	out := []AgentKey{}
	found := false
	err := m.view(ctx, a.Organization, needs{agents: []string{agent}, keysOfAgents: []string{agent}}, func(u *unit) {
		_, found = u.agents[agent]
		for _, k := range u.sortedKeys() {
			k.Digest = nil
			out = append([]AgentKey{k}, out...)
		}
	})
	if err == nil && !found {
		err = ErrNoAgent
	}
	return out, err
}

// Tools lists tools, newest first.
func (m *Manager) Tools(ctx context.Context, a Actor, in ListInput) ([]ToolView, error) {
	if err := m.authorize(ctx, a, OpReadTools); err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	return m.toolViews(ctx, a.Organization, storage.ToolQuery{Name: in.Name, After: in.After, Limit: limit})
}

// Tool reads one tool.
func (m *Manager) Tool(ctx context.Context, a Actor, id string) (ToolView, error) {
	if err := m.authorize(ctx, a, OpReadTools); err != nil {
		return ToolView{}, err
	}
	return m.toolView(ctx, a, id)
}

func (m *Manager) toolView(ctx context.Context, a Actor, id string) (ToolView, error) {
	found, err := m.toolViews(ctx, a.Organization, storage.ToolQuery{IDs: []string{id}})
	if err != nil {
		return ToolView{}, err
	}
	if len(found) == 0 {
		return ToolView{}, ErrNoTool
	}
	return found[0], nil
}

func (m *Manager) toolViews(ctx context.Context, organization string, q storage.ToolQuery) ([]ToolView, error) {
	if err := checkTexts(append(q.IDs, q.Name, q.After)...); err != nil {
		return nil, err
	}
	out := []ToolView{}
	err := m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = out[:0]
		page, err := tx.Tools(ctx, q)
		if err != nil {
			return err
		}
		n := needs{credentials: true}
		for _, t := range page.Tools {
			n.tools = append(n.tools, t.ID)
			n.records = append(n.records, guideRef(t.ID))
		}
		if err := u.load(ctx, tx, n); err != nil {
			return err
		}
		for _, t := range page.Tools {
			v, err := u.toolView(ctx, tx, u.tools[t.ID])
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

func (u *unit) toolView(ctx context.Context, tx storage.ReadTx, t storage.Tool) (v ToolView, err error) {
	v = ToolView{Tool: t, InstructionVersion: u.currentVersion(t.ID)}
	c, present := u.credentials[storage.CredentialRef{Tool: t.ID}]
	if present {
		v.Credential = CredentialView{
			Present: true, ID: c.ID, Status: c.Status, Revision: c.Revision, ExpiresAt: c.ExpiresAt, RotatedAt: c.RotatedAt,
		}
	}
	v.Health = health(t, c, present, u.now)
	if v.Approved, err = u.linked(ctx, tx, storage.GrantQuery{Tool: t.ID}, grants.StatusApproved); err != nil {
		return v, err
	}
	v.Pending, err = u.linked(ctx, tx, storage.GrantQuery{Tool: t.ID}, grants.StatusPending)
	return v, err
}

// expiresSoon and rotatedLongAgo are when a credential wants attention.
const (
	expiresSoon    = 14 * 24 * time.Hour
	rotatedLongAgo = 90 * 24 * time.Hour
)

func health(t storage.Tool, c storage.Credential, present bool, now int64) Health {
	switch {
	case t.Mode == storage.PerAgent:
		return Healthy
	case !present, c.Status == storage.CredentialExpired, c.ExpiresAt != 0 && c.ExpiresAt <= now:
		return ActionNeeded
	case c.ExpiresAt != 0 && c.ExpiresAt-now <= duration(expiresSoon), now-c.RotatedAt > duration(rotatedLongAgo):
		return Attention
	}
	return Healthy
}

// Grants lists grants, newest first.
func (m *Manager) Grants(ctx context.Context, a Actor, in GrantsInput) ([]Request, error) {
	if err := m.authorize(ctx, a, OpReadGrants); err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	if err := checkTexts(in.Agent, in.Tool, in.After); err != nil {
		return nil, err
	}
	q := storage.GrantQuery{Agent: in.Agent, Tool: in.Tool, After: in.After, Limit: limit}
	if in.Status != "" {
		if !in.Status.Known() {
			return nil, invalid("status", "is not a status of a grant")
		}
		q.Statuses = []grants.Status{in.Status}
	}
	out := []Request{}
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, needs{}); err != nil {
			return err
		}
		page, err := tx.Grants(ctx, q)
		if err != nil {
			return err
		}
		out, err = u.named(ctx, tx, page.Grants)
		return err
	})
	return out, err
}
