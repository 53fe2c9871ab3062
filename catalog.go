package agentkey

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Catalog shows an agent the tools of its organization and where it stands with
// each of them.
func (m *Manager) Catalog(ctx context.Context, c Caller, in CatalogInput) (Catalog, error) {
	if in.Limit < 0 || in.Limit > storage.MaxPage {
		return Catalog{}, invalid("limit", "is out of range")
	}
	if err := checkTexts(in.After); err != nil {
		return Catalog{}, err
	}
	out := Catalog{Items: []CatalogItem{}}
	err := m.agentRead(ctx, c, func(ctx context.Context, tx storage.ReadTx, u *unit, agent storage.Agent) error {
		limit := or(in.Limit, m.config.CatalogLimit)
		page, err := tx.Tools(ctx, storage.ToolQuery{After: in.After, Limit: limit})
		if err != nil {
			return err
		}
		if err := u.load(ctx, tx, &needs{grantsOf: []storage.GrantQuery{{Agent: agent.ID}}}); err != nil {
			return err
		}
		out.Items = make([]CatalogItem, 0, len(page.Tools))
		for _, t := range page.Tools {
			t.Organization = u.organization
			if err := u.verify(t.Row(u.installation), t.Seal); err != nil {
				return err
			}
			out.Items = append(out.Items, catalogItem(t, u.grant(agent.ID, t.ID), u.now))
		}
		if in.Limit > 0 && len(page.Tools) == limit {
			out.Next = page.Tools[limit-1].ID
		}
		return nil
	})
	return out, err
}

func catalogItem(t storage.Tool, g *grants.Grant, now int64) CatalogItem {
	item := CatalogItem{ID: t.ID, Name: t.Name, Description: t.Description, Access: grants.Access(g, now), VendsLeft: -1}
	if g == nil {
		return item
	}
	switch item.Access {
	case grants.StatusDenied:
		item.DenialReason = g.DenialReason
	case grants.StatusApproved:
		item.ExpiresAt, item.VendsLeft = g.ExpiresAt, vendsLeft(*g)
	}
	return item
}

// Profile shows an agent what is known of it and what it has.
func (m *Manager) Profile(ctx context.Context, c Caller) (Profile, error) {
	var out Profile
	err := m.agentRead(ctx, c, func(ctx context.Context, tx storage.ReadTx, u *unit, agent storage.Agent) error {
		out = Profile{Agent: agent, Approved: []string{}, Pending: []string{}, Denied: []Denial{}}
		count, err := tx.Tools(ctx, storage.ToolQuery{Total: true})
		if err != nil {
			return err
		}
		out.Available = count.Total
		if err := u.load(ctx, tx, &needs{grantsOf: []storage.GrantQuery{{Agent: agent.ID}}}); err != nil {
			return err
		}
		listed := u.sortedGrants(every)
		n := needs{}
		for _, g := range listed {
			n.tools = append(n.tools, g.Tool)
		}
		tools, err := u.toolNames(ctx, tx, n.tools)
		if err != nil {
			return err
		}
		for _, g := range listed {
			switch grants.Access(&g, u.now) {
			case grants.StatusApproved:
				out.Approved = append(out.Approved, tools[g.Tool].Name)
			case grants.StatusPending:
				out.Pending = append(out.Pending, tools[g.Tool].Name)
			case grants.StatusDenied:
				out.Denied = append(out.Denied, Denial{Tool: tools[g.Tool].Name, Reason: g.DenialReason})
			}
		}
		return nil
	})
	return out, err
}

// agentRead authenticates an agent, charges it a read, and gives fn one
// consistent state in which the agent may act.
func (m *Manager) agentRead(ctx context.Context, c Caller, fn func(ctx context.Context, tx storage.ReadTx, u *unit, agent storage.Agent) error) error {
	c, err := m.admit(ctx, c, ratelimit.TierRead)
	if err != nil {
		return err
	}
	var refused *Error
	n := c.needs()
	err = m.read(ctx, c.org, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		var agent storage.Agent
		if agent, refused = c.authenticate(u); refused != nil {
			return nil
		}
		return fn(ctx, tx, u, agent)
	})
	if err == nil && refused != nil {
		return m.refuseKey(ctx, c)
	}
	return err
}
