package agentkey

import (
	"context"
	"iter"
	"slices"
	"strings"
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

// agentViews reads agents with what a list shows of each. The number of its
// statements does not grow with the page.
func (m *Manager) agentViews(ctx context.Context, organization string, q storage.AgentQuery) ([]AgentView, error) {
	if err := checkTexts(append(q.IDs, q.Name, q.After)...); err != nil {
		return nil, err
	}
	var out []AgentView
	var ids []string
	err := m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		page, err := tx.Agents(ctx, q)
		if err != nil {
			return err
		}
		out, ids = make([]AgentView, len(page.Agents)), make([]string, len(page.Agents))
		for i, agent := range page.Agents {
			agent.Organization = organization
			if err := u.verify(agent.Row(u.installation), agent.Seal); err != nil {
				return err
			}
			out[i], ids[i] = AgentView{Agent: agent}, agent.ID
		}
		linked, err := u.linked(ctx, tx, storage.SummaryQuery{Agents: ids})
		for i := range out {
			out[i].Granted, out[i].Pending = linked.of(ids[i], grants.StatusApproved), linked.of(ids[i], grants.StatusPending)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	latest, err := m.lastActive(ctx, organization, ids)
	for i := range out {
		out[i].LastActiveAt = latest[ids[i]]
	}
	return out, err
}

// links are the open grants of some agents or tools.
type links map[linksOf]Linked

type linksOf struct {
	id     string
	status grants.Status
}

// of are the grants of one of them with a status.
func (l links) of(id string, status grants.Status) Linked {
	found, ok := l[linksOf{id, status}]
	if !ok {
		return Linked{Items: []Link{}}
	}
	return found
}

// linked reads the newest open grants of each of some agents or tools, by status,
// and how many there are.
func (u *unit) linked(ctx context.Context, tx storage.ReadTx, q storage.SummaryQuery) (links, error) {
	q.Statuses, q.Limit = open, linked
	summaries, err := summarized(ctx, tx, q)
	if err != nil {
		return nil, err
	}
	var agentIDs, toolIDs []string
	for _, s := range summaries {
		for i := range s.Grants {
			agentIDs, toolIDs = append(agentIDs, s.Grants[i].Agent), append(toolIDs, s.Grants[i].Tool)
		}
	}
	agents, tools, err := u.parties(ctx, tx, agentIDs, toolIDs)
	if err != nil {
		return nil, err
	}
	out := make(links, len(summaries))
	for _, s := range summaries {
		l := Linked{Count: s.Count, Items: make([]Link, 0, len(s.Grants))}
		for i := range s.Grants {
			g := &s.Grants[i]
			if err := u.proven(g); err != nil {
				return nil, err
			}
			if grants.Access(g, u.now) != s.Status {
				l.Count-- // its end has passed and is not written yet
				continue
			}
			t := tools[g.Tool]
			l.Items = append(l.Items, Link{
				Request: g.ID, Agent: g.Agent, AgentName: agents[g.Agent].Name, Tool: g.Tool, ToolName: t.Name, ToolMode: t.Mode,
			})
		}
		out[linksOf{s.ID, s.Status}] = l
	}
	return out, nil
}

// proven checks the seal of a grant that was read.
func (u *unit) proven(g *grants.Grant) error {
	g.Organization = u.organization
	return u.verify(storage.GrantRow(u.installation, *g), g.Seal)
}

// parties reads the agents and tools of grants.
func (u *unit) parties(ctx context.Context, tx storage.ReadTx, agentIDs, toolIDs []string) (map[string]storage.Agent, map[string]storage.Tool, error) {
	agents, err := u.agentsByID(ctx, tx, agentIDs)
	if err != nil {
		return nil, nil, err
	}
	tools, err := u.toolNames(ctx, tx, toolIDs)
	return agents, tools, err
}

// summarized asks the storage for summaries, or puts them together where it has
// no power to.
func summarized(ctx context.Context, tx storage.ReadTx, q storage.SummaryQuery) ([]storage.GrantSummary, error) {
	if s, ok := tx.(storage.Summarizer); ok {
		return s.GrantSummaries(ctx, q)
	}
	var all []storage.GrantSummary
	one := func(id string, g storage.GrantQuery) error {
		for _, status := range q.Statuses {
			g.Statuses, g.Limit, g.Total = []grants.Status{status}, q.Limit, true
			page, err := tx.Grants(ctx, g)
			if err != nil {
				return err
			}
			if page.Total > 0 {
				all = append(all, storage.GrantSummary{ID: id, Status: status, Count: page.Total, Grants: page.Grants})
			}
		}
		return nil
	}
	for _, id := range q.Agents {
		if err := one(id, storage.GrantQuery{Agent: id}); err != nil {
			return nil, err
		}
	}
	for _, id := range q.Tools {
		if err := one(id, storage.GrantQuery{Tool: id}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// named gives grants with the names of their agents and tools, in their order.
func (u *unit) named(ctx context.Context, tx storage.ReadTx, found []grants.Grant) ([]Request, error) {
	agentIDs, toolIDs := make([]string, len(found)), make([]string, len(found))
	for i, g := range found {
		agentIDs[i], toolIDs[i] = g.Agent, g.Tool
	}
	agents, tools, err := u.parties(ctx, tx, agentIDs, toolIDs)
	if err != nil {
		return nil, err
	}
	out := make([]Request, 0, len(found))
	for _, g := range found {
		if err := u.proven(&g); err != nil {
			return nil, err
		}
		a, t := agents[g.Agent], tools[g.Tool]
		out = append(out, Request{Grant: g, AgentName: a.Name, AgentDescription: a.Description, ToolName: t.Name, ToolMode: t.Mode})
	}
	return out, nil
}

// distinct are the ids, each once, in parts that one read takes.
func distinct(ids []string) iter.Seq[[]string] {
	return slices.Chunk(slices.Compact(slices.Sorted(slices.Values(ids))), loadChunk)
}

// agentsByID reads agents.
func (u *unit) agentsByID(ctx context.Context, tx storage.ReadTx, ids []string) (map[string]storage.Agent, error) {
	agents := make(map[string]storage.Agent)
	for part := range distinct(ids) {
		page, err := tx.Agents(ctx, storage.AgentQuery{IDs: part})
		if err != nil {
			return nil, err
		}
		for _, a := range page.Agents {
			a.Organization = u.organization
			if err := u.verify(a.Row(u.installation), a.Seal); err != nil {
				return nil, err
			}
			agents[a.ID] = a
		}
	}
	return agents, nil
}

// toolNames reads tools.
func (u *unit) toolNames(ctx context.Context, tx storage.ReadTx, ids []string) (map[string]storage.Tool, error) {
	tools := make(map[string]storage.Tool)
	for part := range distinct(ids) {
		page, err := tx.Tools(ctx, storage.ToolQuery{IDs: part})
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
	}
	return tools, nil
}

// accessHistory are the actions that count as activity of an agent.
func accessHistory() []audit.Action {
	return []audit.Action{
		audit.ActionGrantRequested, audit.ActionGrantAssigned, audit.ActionGrantApproved,
		audit.ActionGrantDenied, audit.ActionGrantRevoked, audit.ActionCredentialVended,
	}
}

// lastActive are the times of the newest events of some agents' access histories.
func (m *Manager) lastActive(ctx context.Context, organization string, agents []string) (map[string]int64, error) {
	actions := accessHistory()
	if r, ok := m.store.(storage.Recency); ok {
		latest, err := r.LatestEvents(ctx, organization, agents, actions)
		return latest, storageError(err)
	}
	latest := make(map[string]int64, len(agents))
	for _, agent := range agents {
		at, err := m.lastActiveOf(ctx, organization, agent, actions)
		if err != nil {
			return nil, err
		}
		latest[agent] = at
	}
	return latest, nil
}

func (m *Manager) lastActiveOf(ctx context.Context, organization, agent string, actions []audit.Action) (int64, error) {
	q := storage.EventQuery{Filter: audit.Filter{Agent: agent}, Limit: 50}
	for {
		page, err := m.store.Events(ctx, organization, q)
		if err != nil {
			return 0, storageError(err)
		}
		for _, l := range page.Lines {
			if e, err := audit.Parse(l.Content); err == nil && slices.Contains(actions, e.Action) {
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
func (m *Manager) AgentKeys(ctx context.Context, a Actor, in AgentKeysInput) ([]AgentKey, error) {
	if err := m.authorize(ctx, a, OpReadAgents); err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	if err := checkTexts(in.Agent, in.After); err != nil {
		return nil, err
	}
	out := []AgentKey{}
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = out[:0]
		if err := u.load(ctx, tx, &needs{agents: []string{in.Agent}}); err != nil {
			return err
		}
		if _, ok := u.agents[in.Agent]; !ok {
			return ErrNoAgent
		}
		found, err := keysPage(ctx, tx, in.Agent, in.After, limit)
		for _, k := range found {
			k.Organization = u.organization
			if err := u.verify(k.Row(u.installation), k.Seal); err != nil {
				return err
			}
			k.Digest = nil
			out = append(out, k)
		}
		return err
	})
	return out, err
}

// keysPage asks the storage for a page of an agent's keys, or cuts it from all of
// them where it has no power to.
func keysPage(ctx context.Context, tx storage.ReadTx, agent, after string, limit int) ([]storage.Key, error) {
	if l, ok := tx.(storage.KeyLister); ok {
		return l.AgentKeys(ctx, agent, after, limit)
	}
	all, err := tx.Keys(ctx, storage.KeyQuery{Agents: []string{agent}})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b storage.Key) int { return strings.Compare(b.ID, a.ID) })
	if after != "" {
		all = slices.DeleteFunc(all, func(k storage.Key) bool { return k.ID >= after })
	}
	return all[:min(limit, len(all))], nil
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
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		linked, err := u.linked(ctx, tx, storage.SummaryQuery{Tools: n.tools})
		for _, t := range page.Tools {
			out = append(out, u.toolView(u.tools[t.ID], linked))
		}
		return err
	})
	return out, err
}

func (u *unit) toolView(t storage.Tool, linked links) ToolView {
	v := ToolView{
		Tool: t, InstructionVersion: u.currentVersion(t.ID),
		Approved: linked.of(t.ID, grants.StatusApproved), Pending: linked.of(t.ID, grants.StatusPending),
	}
	c, present := u.credentials[storage.CredentialRef{Tool: t.ID}]
	if present {
		v.Credential = CredentialView{
			Present: true, ID: c.ID, Status: c.Status, Revision: c.Revision, ExpiresAt: c.ExpiresAt, RotatedAt: c.RotatedAt,
		}
	}
	v.Health = health(t, c, present, u.now)
	return v
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
		if err := u.load(ctx, tx, &needs{}); err != nil {
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
