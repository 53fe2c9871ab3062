package agentkey

import (
	"context"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// HoldScope says what a legal hold is on.
type HoldScope string

// The scopes of a legal hold.
const (
	HoldOrganization HoldScope = "organization" // everything
	HoldAgent        HoldScope = "agent"        // what concerns an agent
	HoldTool         HoldScope = "tool"         // what concerns a tool
	HoldPerson       HoldScope = "person"       // what a person or service did, and what was done to them
)

// HoldInput places a legal hold.
type HoldInput struct {
	Scope  HoldScope `validate:"oneof=organization agent tool person" json:"scope"`
	ID     string    `validate:"max=128,id" json:"id"` // of the agent, tool or person; empty for the organization
	Reason string    `validate:"utf16min=1,utf16max=500,text" json:"reason"`
}

func (in *HoldInput) problems() []FieldError {
	if (in.Scope == HoldOrganization) == (in.ID == "") {
		return nil
	}
	return []FieldError{{Field: "id", Message: "must name the agent, tool or person, and must be empty for the organization"}}
}

// Hold is a legal hold that stands: what falls under it is neither removed by
// retention nor erased.
type Hold struct {
	Key      string // the id of the hold itself
	Scope    HoldScope
	ID       string
	Reason   string
	PlacedAt int64
	PlacedBy string // the id of who did
}

type holdPayload struct {
	Scope    HoldScope `json:"scope"`
	ID       string    `json:"id"`
	Reason   string    `json:"reason"`
	PlacedAt int64     `json:"placed_at"`
	PlacedBy string    `json:"placed_by"`
}

func (p holdPayload) view(key string) Hold {
	return Hold{Key: key, Scope: p.Scope, ID: p.ID, Reason: p.Reason, PlacedAt: p.PlacedAt, PlacedBy: p.PlacedBy}
}

// maxHolds bounds the holds of an organization: every removal reads them all.
const maxHolds = 500

// holds are those of an organization.
type holds []Hold

func holdsOf(u *unit) (all holds, err error) {
	for ref := range u.records {
		if ref.kind != kindHold {
			continue
		}
		p, _, err := payloadOf[holdPayload](u, ref)
		if err != nil {
			return nil, err
		}
		all = append(all, p.view(ref.id))
	}
	slices.SortFunc(all, func(a, b Hold) int { return strings.Compare(b.Key, a.Key) })
	return all, nil
}

// on says whether a hold stands on the organization or on one of these.
func (h holds) on(agent, tool, person string) bool {
	return slices.ContainsFunc(h, func(one Hold) bool {
		switch one.Scope {
		case HoldOrganization:
			return true
		case HoldAgent:
			return one.ID == agent
		case HoldTool:
			return one.ID == tool
		default: // of a person; and what is unknown holds
			return one.ID == person
		}
	})
}

// cover says whether an event falls under a hold. It is what Events finds by
// the same id.
func (h holds) cover(e *audit.Event) bool {
	return slices.ContainsFunc(h, func(one Hold) bool {
		switch one.Scope {
		case HoldOrganization:
			return true
		case HoldAgent:
			return audit.Filter{Agent: one.ID}.Match(e)
		case HoldTool:
			return audit.Filter{Tool: one.ID}.Match(e)
		default:
			return e.Actor.ID == one.ID || e.Actor.Behalf == one.ID || e.Target.ID == one.ID ||
				slices.ContainsFunc(e.Approvals, func(a audit.Approval) bool { return a.Actor.ID == one.ID })
		}
	})
}

// PlaceHold places a legal hold. From its return on nothing that falls under it is
// removed or erased. The reason is kept in the hold, and in the part of its event
// that can be erased.
//
// The errors: ErrForbidden, ErrInvalid, ErrTooManyHolds, ErrLimited, ErrUnavailable.
func (m *Manager) PlaceHold(ctx context.Context, a Actor, in HoldInput) (Hold, error) {
	if err := m.authorize(ctx, a, OpManageHolds); err != nil {
		return Hold{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Hold{}, err
	}
	key := newID()
	var out Hold
	err := m.act(ctx, a, OpManageHolds, needs{recordKinds: []string{kindHold}}, func(u *unit) error {
		all, err := holdsOf(u)
		if err != nil {
			return err
		}
		if len(all) >= maxHolds {
			return ErrTooManyHolds
		}
		p := holdPayload{Scope: in.Scope, ID: in.ID, Reason: in.Reason, PlacedAt: u.now, PlacedBy: a.ID}
		out = p.view(key)
		e := u.holdEvent(a, audit.ActionLogHoldPlaced, out, in.Reason)
		return u.putPayload(e, storage.Record{Kind: kindHold, ID: key, Revision: 1}, p)
	})
	return out, err
}

func (u *unit) holdEvent(a Actor, action audit.Action, h Hold, reason string) *entry {
	e := u.event(a.who(), action)
	e.Target = audit.Ref{Kind: kindHold, ID: h.Key}
	e.Details = map[string]string{"scope": string(h.Scope)}
	switch h.Scope {
	case HoldAgent:
		e.Agent = h.ID
	case HoldTool:
		e.Tool = h.ID
	case HoldPerson:
		e.Details["person"] = h.ID
	}
	e.personal.Text = reason
	return e
}

// LiftHold ends a legal hold. What fell under it alone is removed by the policy
// again.
//
// The errors: ErrForbidden, ErrInvalid, ErrNoHold, ErrLimited, ErrUnavailable.
func (m *Manager) LiftHold(ctx context.Context, a Actor, key, reason string) error {
	if err := m.authorize(ctx, a, OpManageHolds); err != nil {
		return err
	}
	in := struct {
		Reason string `validate:"utf16min=1,utf16max=500,text" json:"reason"`
	}{reason}
	if err := m.validation.input(&in); err != nil {
		return err
	}
	ref := recordRef{kindHold, key}
	return m.act(ctx, a, OpManageHolds, needs{records: []recordRef{ref}}, func(u *unit) error {
		r, ok := u.records[ref]
		if !ok {
			return ErrNoHold
		}
		p, _, err := payloadOf[holdPayload](u, ref)
		if err != nil {
			return err
		}
		u.deleteRecord(u.holdEvent(a, audit.ActionLogHoldLifted, p.view(key), in.Reason), r)
		return nil
	})
}

// Holds lists the legal holds that stand, newest first.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) Holds(ctx context.Context, a Actor) ([]Hold, error) {
	if err := m.authorize(ctx, a, OpReadRetention); err != nil {
		return nil, err
	}
	all := holds{}
	var damaged error
	err := m.view(ctx, a.Organization, needs{recordKinds: []string{kindHold}, ended: true}, func(u *unit) { all, damaged = holdsOf(u) })
	if err == nil {
		err = damaged
	}
	return all, err
}
