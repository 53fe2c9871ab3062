package adminapi

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// terms are the limits of a grant; null where there is none.
type terms struct {
	Duration *int64   `json:"duration"` // seconds from approval
	MaxVends *int64   `json:"maxVends"`
	Scopes   []string `json:"scopes"` // empty: no restriction is named
}

func termsOf(t agentkey.Terms) terms {
	out := terms{Scopes: append([]string{}, t.Scopes...)}
	if t.Duration > 0 {
		out.Duration = new(t.Duration / int64(time.Second/time.Microsecond))
	}
	if t.MaxVends > 0 {
		out.MaxVends = &t.MaxVends
	}
	return out
}

type grantItem struct {
	ID           string        `json:"id"`
	Organization string        `json:"organizationId"`
	Agent        string        `json:"agentId"`
	Tool         string        `json:"toolId"`
	Status       grants.Status `json:"status"`
	Reason       *string       `json:"reason"`
	DenialReason *string       `json:"denialReason"`
	RequestedAt  *string       `json:"requestedAt"`
	DecidedBy    *string       `json:"decidedByUserId"`
	DecidedLabel *string       `json:"decidedByEmail"`
	DecidedAt    *string       `json:"decidedAt"`
	CreatedAt    string        `json:"createdAt"`
	UpdatedAt    string        `json:"updatedAt"`
	Cycle        int64         `json:"cycle"`
	Ticket       *string       `json:"ticket"`
	Approvals    int64         `json:"approvals"`
	Required     int64         `json:"requiredApprovals"`
	Asked        terms         `json:"asked"`
	terms                      // in force
	ApprovedAt   *string       `json:"approvedAt"`
	ExpiresAt    *string       `json:"expiresAt"`
	VendsLeft    *int64        `json:"vendsLeft"`
}

func grantOf(g agentkey.Grant) grantItem {
	item := grantItem{
		ID: g.ID, Organization: g.Organization, Agent: g.Agent, Tool: g.Tool, Status: g.Status,
		Reason: exchange.Optional(g.Reason), DenialReason: exchange.Optional(g.DenialReason),
		RequestedAt: exchange.OptionalTime(g.RequestedAt), DecidedBy: exchange.Optional(g.DecidedBy),
		DecidedLabel: exchange.Optional(g.DecidedByLabel), DecidedAt: exchange.OptionalTime(g.DecidedAt),
		CreatedAt: exchange.Time(g.CreatedAt), UpdatedAt: exchange.Time(g.UpdatedAt),
		Cycle: g.Cycle, Ticket: exchange.Optional(g.Ticket), Approvals: g.Approvals, Required: g.RequiredApprovals,
		Asked: termsOf(g.Asked), terms: termsOf(g.Granted),
		ApprovedAt: exchange.OptionalTime(g.ApprovedAt), ExpiresAt: exchange.OptionalTime(g.ExpiresAt),
	}
	if g.Granted.MaxVends > 0 {
		item.VendsLeft = new(max(0, g.Granted.MaxVends-g.VendsUsed))
	}
	return item
}

func answerGrant(x *exchange.Exchange, status int) func(agentkey.Grant, error) error {
	return func(g agentkey.Grant, err error) error {
		if err != nil {
			return inOurNames(err)
		}
		return data(x, status, grantOf(g))
	}
}

// inOurNames gives the fields of a grant's terms the names that they have in the
// bodies here.
func inOurNames(err error) error {
	var invalid *agentkey.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	names := map[string]string{"duration": "expiresIn", "max_vends": "maxVends"}
	fields := slices.Clone(invalid.Fields)
	for i, f := range fields {
		if name, found := names[f.Field]; found {
			fields[i].Field = name
		}
	}
	return &agentkey.ValidationError{Fields: fields}
}

type namedGrant struct {
	grantItem
	AgentName string                 `json:"agentName"`
	ToolName  string                 `json:"toolName"`
	ToolMode  storage.CredentialMode `json:"toolCredentialMode"`
}

func (a *api) listGrants(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := agentkey.GrantsInput{
		Agent: q.ID("agent_id"), Tool: q.ID("tool_id"), Status: grants.Status(q.Text("status")),
		After: q.ID("cursor"), Limit: q.Limit(),
	}
	if q.Has("status") && !slices.Contains(grants.Statuses(), in.Status) {
		q.Refuse("status", "must be one of pending, approved, denied, revoked, expired, used_up")
	}
	if err := q.Err(); err != nil {
		return err
	}
	found, err := a.manager.Grants(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, found, in.Limit, func(r agentkey.Request) string { return r.ID })
	return data(x, http.StatusOK, each(found, namedOf))
}

func namedOf(r agentkey.Request) namedGrant {
	return namedGrant{grantOf(r.Grant), r.AgentName, r.ToolName, r.ToolMode}
}

func decision(f *exchange.Fields, in *agentkey.DecisionInput) {
	f.Secret("credential", &in.Credential)
	f.Seconds("expiresIn", &in.Duration)
	f.Int("maxVends", &in.MaxVends)
	f.Texts("scopes", &in.Scopes)
	f.Text("ticket", &in.Ticket)
}

func (a *api) approve(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.DecisionInput
	defer func() { in.Credential.Destroy() }()
	err := x.Read(needed, func(f *exchange.Fields) {
		decision(f, &in)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	id, _ := x.PathID("id")
	return answerGrant(x, http.StatusOK)(a.manager.Approve(x.Ctx(), actor, id, in))
}

func (a *api) deny(x *exchange.Exchange, actor agentkey.Actor) error {
	var reason string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Text("reason", &reason) }); err != nil {
		return err
	}
	id, _ := x.PathID("id")
	return answerGrant(x, http.StatusOK)(a.manager.Deny(x.Ctx(), actor, id, reason))
}

func (a *api) assign(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.AssignInput
	defer func() { in.Credential.Destroy() }()
	in.Agent, _ = x.PathID("id")
	err := x.Read(needed, func(f *exchange.Fields) {
		f.ID("toolId", &in.Tool)
		decision(f, &in.DecisionInput)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	return answerGrant(x, http.StatusCreated)(a.manager.Assign(x.Ctx(), actor, in))
}

const rotateHint = "Revoking does not recall what the agent already holds. Replace the credential at the service itself."

// revoke says besides ok what it could not undo.
func (a *api) revoke(x *exchange.Exchange, actor agentkey.Actor) error {
	agent, _ := x.PathID("id")
	tool, _ := x.PathID("toolId")
	r, err := a.manager.Revoke(x.Ctx(), actor, agent, tool)
	if err != nil {
		return err
	}
	out := struct {
		ok
		Vends          int64   `json:"vends"` // since approval
		LastVendAt     *string `json:"lastVendAt"`
		RotateUpstream bool    `json:"rotateUpstream"`
		Hint           string  `json:"hint,omitempty"`
	}{ok: ok{true}, Vends: r.Vends, LastVendAt: exchange.OptionalTime(r.LastVend), RotateUpstream: r.RotateUpstream}
	if r.RotateUpstream {
		out.Hint = rotateHint
	}
	return data(x, http.StatusOK, out)
}

// narrow takes limits in the terms of an approval: expiresIn counts from it.
func (a *api) narrow(x *exchange.Exchange, actor agentkey.Actor) error {
	var (
		t  agentkey.Terms
		in time.Duration
	)
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Seconds("expiresIn", &in)
		f.Int("maxVends", &t.MaxVends)
		f.Texts("scopes", &t.Scopes)
	})
	if err != nil {
		return err
	}
	t.Duration = in.Microseconds()
	id, _ := x.PathID("id")
	return answerGrant(x, http.StatusOK)(a.manager.Narrow(x.Ctx(), actor, id, t))
}
