package agentkey

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// RequestAccess asks for a tool and says why. There is one grant for each agent
// and tool; asking again after a denial, a revocation or an end reuses it.
//
// The errors: ErrUnauthenticated, ErrRefused, ErrNotFound, ErrConflict when a
// request is pending or access approved already, ErrInvalid, ErrLimited,
// ErrUnavailable.
func (m *Manager) RequestAccess(ctx context.Context, c Caller, in RequestInput) (Grant, error) {
	c, err := m.admit(ctx, c, ratelimit.TierRequest)
	if err != nil {
		return Grant{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Grant{}, err
	}
	asked := in.terms()
	id := newID()
	n := c.needs()
	n.tools, n.pairs, n.credentials, n.approvals = []string{in.Tool}, []storage.Pair{{Agent: c.id, Tool: in.Tool}}, true, true
	var out Grant
	var refused error
	err = m.commit(ctx, &operation{organization: c.org, needs: n, decide: func(u *unit) error {
		out, refused = Grant{}, nil
		agent, no := c.authenticate(u)
		if no != nil {
			refused = no
			m.refuseAuthentication(u, c, agent, no)
			return nil
		}
		tool, ok := u.tools[in.Tool]
		if !ok {
			refused = ErrNoTool
			m.refuseRequest(u, c, agent, tool, ErrNoTool)
			return nil
		}
		if u.locked() {
			refused = ErrOrganizationLocked
			m.refuseRequest(u, c, agent, tool, ErrOrganizationLocked)
			return nil
		}
		g, err := u.settled(agent.ID, tool.ID)
		if err != nil {
			return err
		}
		t, err := grants.Request(g, grants.RequestInput{
			Identity: grants.Identity{ID: id, Organization: c.org, Agent: agent.ID, Tool: tool.ID},
			Reason:   in.Reason, Ticket: in.Ticket, Asked: asked, RequiredApprovals: tool.RequiredApprovals,
		}, u.now)
		if err != nil {
			refused = grantError(err)
			if known := (*Error)(nil); errors.As(refused, &known) {
				m.refuseRequest(u, c, agent, tool, known)
			}
			return nil
		}
		e := u.event(c.who(agent.Name), audit.ActionGrantRequested)
		e.personal.Text = in.Reason
		if err := u.transition(e, t, agent, tool); err != nil {
			return err
		}
		u.dropCredential(e, t.Grant)
		out = t.Grant
		return m.notify(u, Notification{
			Topic: TopicAccessRequested, Request: out.ID, Agent: agent.ID, AgentName: agent.Name,
			Tool: tool.ID, ToolName: tool.Name, Reason: in.Reason,
		})
	}})
	if err == nil {
		err = refused
	}
	return out, err
}

func (m *Manager) refuseRequest(u *unit, c Caller, agent storage.Agent, tool storage.Tool, cause *Error) {
	m.refuse(u, refusalKey{organization: u.organization, subject: agent.ID, tool: tool.ID, reason: "request " + cause.Code}, func() {
		e := u.event(c.who(agent.Name), audit.ActionGrantRequestRefused)
		e.Outcome, e.Reason = audit.OutcomeRefused, cause.Code
		describe(e, agent, tool, u.grant(agent.ID, tool.ID))
		e.Target = audit.Ref{Kind: audit.KindAgent, ID: agent.ID}
	})
}

func (in *RequestInput) terms() Terms {
	return Terms{Duration: duration(in.Duration), MaxVends: in.MaxVends, Scopes: in.Scopes}
}

// problems are those of the terms.
func (in *RequestInput) problems() []FieldError {
	return termsProblems(in.terms(), "duration", "max_vends")
}

func (in *DecisionInput) terms() Terms {
	return Terms{Duration: duration(in.Duration), MaxVends: in.MaxVends, Scopes: in.Scopes}
}

// problems are those of the terms.
func (in *DecisionInput) problems() []FieldError {
	return termsProblems(in.terms(), "expiresIn", "maxVends")
}

// notify writes a notification in the transaction that it reports.
func (m *Manager) notify(u *unit, n Notification) error {
	if m.config.Notifier == nil {
		return nil
	}
	n.ID, n.Organization, n.Time = newID(), u.organization, time.UnixMicro(u.now).UTC()
	payload, err := json.Marshal(n)
	if err != nil {
		return err
	}
	seal, err := u.ring.rows.Seal(deliveryRow(u.installation, u.organization, n.ID, payload))
	if err != nil {
		return err
	}
	u.outbox = append(u.outbox, storage.Delivery{
		Organization: u.organization, ID: n.ID, Topic: string(n.Topic), Payload: append(seal, payload...),
		State: storage.DeliveryPending, CreatedAt: u.now, NextAt: u.now,
	})
	return nil
}

// decision is what approving and assigning have in common.
type decision struct {
	agent, tool string
	grant       string // the grant's id, made before where there is none yet
	terms       Terms
	others      bool // somebody else than the agent's owner could approve
	credential  *storage.Credential
}

// prepare reads where a decision leads, and seals the credential given with it:
// whatever it finds is read again under the head.
func (m *Manager) prepare(ctx context.Context, a Actor, n needs, in *DecisionInput) (d decision, err error) {
	if err := m.validation.input(in); err != nil {
		return d, err
	}
	d.terms = in.terms()
	var tool storage.Tool
	err = m.view(ctx, a.Organization, n, func(u *unit) {
		for _, g := range u.grants {
			d.grant, d.agent, d.tool = g.ID, g.Agent, g.Tool
		}
	})
	if err != nil {
		return d, err
	}
	for _, p := range n.pairs {
		d.agent, d.tool = p.Agent, p.Tool
	}
	if d.tool == "" {
		return d, ErrNoRequest
	}
	found := false
	err = m.view(ctx, a.Organization, needs{tools: []string{d.tool}}, func(u *unit) { tool, found = u.tools[d.tool] })
	if err != nil {
		return d, err
	}
	if d.grant == "" {
		d.grant = newID()
	}
	if d.others, err = m.otherApprovers(ctx, a); err != nil {
		return d, err
	}
	if !found || tool.Mode != storage.PerAgent || blank(in.Credential) {
		return d, nil
	}
	c, err := m.newCredential(ctx, a.Organization, d.tool, d.grant, tool.AuthType, 0, in.Credential)
	d.credential = &c
	return d, err
}

// otherApprovers asks the host whether somebody but the actor could approve; the
// administrators that the Manager keeps are counted under the head.
func (m *Manager) otherApprovers(ctx context.Context, a Actor) (bool, error) {
	if m.config.SoleApprover == nil {
		return false, nil
	}
	sole, err := m.config.SoleApprover(ctx, a)
	return !sole, err
}

func (d decision) needs() needs {
	return needs{
		agents: []string{d.agent}, tools: []string{d.tool}, pairs: []storage.Pair{{Agent: d.agent, Tool: d.tool}},
		approvals: true, credentials: true, recordKinds: []string{kindAdministrator},
	}
}

// Approve approves a pending request, or adds one approval where the tool needs
// several. Terms may only be narrower than what was asked. The grant of a
// per-agent tool needs a credential by its last approval.
func (m *Manager) Approve(ctx context.Context, a Actor, request string, in DecisionInput) (Grant, error) {
	if err := m.authorize(ctx, a, OpApprove); err != nil {
		return Grant{}, err
	}
	d, err := m.prepare(ctx, a, needs{grants: []string{request}}, &in)
	if err != nil {
		return Grant{}, err
	}
	var out Grant
	err = m.actSealing(ctx, a, OpApprove, d.needs(), d.credential, in.Credential, func(u *unit) error {
		agent, tool := u.agents[d.agent], u.tools[d.tool]
		g := u.grant(d.agent, d.tool)
		switch {
		case g == nil || g.ID != request:
			return ErrNoRequest
		case agent.Status != storage.AgentActive:
			return ErrAgentSuspended
		}
		t, err := grants.Approve(*g, grants.ApproveInput{
			By: a.decider(), Owner: agent.Owner, OtherApprovers: m.others(u, d, agent), Terms: d.terms,
			RequiredApprovals: tool.RequiredApprovals, Approvals: u.approvals[g.ID],
		}, u.now)
		if err != nil {
			return grantError(err)
		}
		out = t.Grant
		return m.grantAccess(u, a, d, t, agent, tool, in.Ticket)
	})
	return out, err
}

// Assign gives an agent a tool that it did not ask for, or approves its pending
// request. A grant that is approved already stays as it is.
func (m *Manager) Assign(ctx context.Context, a Actor, in AssignInput) (Grant, error) {
	if err := m.authorize(ctx, a, OpAssign); err != nil {
		return Grant{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Grant{}, err
	}
	d, err := m.prepare(ctx, a, needs{pairs: []storage.Pair{{Agent: in.Agent, Tool: in.Tool}}}, &in.DecisionInput)
	if err != nil {
		return Grant{}, err
	}
	var out Grant
	err = m.actSealing(ctx, a, OpAssign, d.needs(), d.credential, in.Credential, func(u *unit) error {
		agent, known := u.agents[in.Agent]
		tool, found := u.tools[in.Tool]
		switch {
		case !known:
			return ErrNoAgent
		case !found:
			return ErrNoTool
		case agent.Status != storage.AgentActive:
			return ErrAgentSuspended
		}
		g, err := u.settled(agent.ID, tool.ID)
		if err != nil {
			return err
		}
		t, err := grants.Assign(g, grants.AssignInput{
			Identity: grants.Identity{ID: d.grant, Organization: a.Organization, Agent: agent.ID, Tool: tool.ID},
			By:       a.decider(), Owner: agent.Owner, OtherApprovers: m.others(u, d, agent),
			Terms: d.terms, Ticket: in.Ticket, RequiredApprovals: tool.RequiredApprovals,
		}, u.now)
		if err != nil {
			return grantError(err)
		}
		out = t.Grant
		if !t.Changed() {
			return nil
		}
		if d.credential != nil && d.credential.Grant != t.Grant.ID {
			return ErrChanged // the grant came to be after the credential was sealed
		}
		return m.grantAccess(u, a, d, t, agent, tool, in.Ticket)
	})
	return out, err
}

// grantAccess writes an approval with its event and, where the tool has one for
// each agent, the credential.
func (m *Manager) grantAccess(u *unit, a Actor, d decision, t grants.Transition, agent storage.Agent, tool storage.Tool, ticket string) error {
	actions := map[grants.Event]audit.Action{
		grants.EventApproved:         audit.ActionGrantApproved,
		grants.EventApprovalRecorded: audit.ActionGrantApprovalRecorded,
		grants.EventAssigned:         audit.ActionGrantAssigned,
	}
	e := u.event(a.who(), actions[t.Event])
	e.Ticket = ticket
	if err := u.transition(e, t, agent, tool); err != nil {
		return err
	}
	if tool.Mode != storage.PerAgent {
		return nil
	}
	if d.credential != nil {
		return u.replaceCredential(e, *d.credential)
	}
	if _, ok := u.credentials[storage.CredentialRef{Tool: tool.ID, Grant: t.Grant.ID}]; !ok && t.Grant.Status == grants.StatusApproved {
		return invalid("credential", "is required: this tool has a credential for each agent")
	}
	return nil
}

// Deny ends a pending request. The reason is shown to the agent.
func (m *Manager) Deny(ctx context.Context, a Actor, request, reason string) (Grant, error) {
	if err := m.authorize(ctx, a, OpDeny); err != nil {
		return Grant{}, err
	}
	in := struct {
		Reason string `validate:"utf16max=500,text" json:"reason"`
	}{reason}
	if err := m.validation.input(&in); err != nil {
		return Grant{}, err
	}
	return m.decideGrant(ctx, a, OpDeny, request, func(u *unit, g Grant) (grants.Transition, *entry, error) {
		t, err := grants.Deny(g, grants.DenyInput{By: a.decider(), Reason: in.Reason, Approvals: u.approvals[g.ID]}, u.now)
		if err != nil {
			return t, nil, grantError(err)
		}
		e := u.event(a.who(), audit.ActionGrantDenied)
		e.personal.Text = in.Reason
		u.dropCredential(e, t.Grant)
		return t, e, nil
	})
}

// Narrow tightens the terms of an approved grant: an earlier end, fewer vends,
// fewer scopes. The duration still counts from approval.
func (m *Manager) Narrow(ctx context.Context, a Actor, grant string, terms Terms) (Grant, error) {
	if err := m.authorize(ctx, a, OpNarrow); err != nil {
		return Grant{}, err
	}
	if err := terms.Validate(); err != nil {
		return Grant{}, grantError(err)
	}
	return m.decideGrant(ctx, a, OpNarrow, grant, func(u *unit, g Grant) (grants.Transition, *entry, error) {
		t, err := grants.Narrow(g, terms, a.decider(), u.now)
		if err != nil || !t.Changed() {
			return t, nil, grantError(err)
		}
		return t, u.event(a.who(), audit.ActionGrantNarrowed), nil
	})
}

// decideGrant decides on a grant by its id. An end that has passed is written
// first, whatever comes of the decision.
func (m *Manager) decideGrant(ctx context.Context, a Actor, op Operation, id string, decide func(u *unit, g Grant) (grants.Transition, *entry, error)) (Grant, error) {
	d := decision{}
	err := m.view(ctx, a.Organization, needs{grants: []string{id}}, func(u *unit) {
		for p := range u.grants {
			d.agent, d.tool = p.Agent, p.Tool
		}
	})
	if err != nil {
		return Grant{}, err
	}
	if d.tool == "" {
		return Grant{}, ErrNoRequest
	}
	var out Grant
	var refused error
	err = m.act(ctx, a, op, d.needs(), func(u *unit) error {
		out, refused = Grant{}, nil
		g, err := u.settled(d.agent, d.tool)
		if err != nil {
			return err
		}
		if g == nil || g.ID != id {
			return ErrNoRequest
		}
		t, e, err := decide(u, *g)
		if err != nil {
			refused = err
			return nil
		}
		if out = t.Grant; e == nil {
			return nil
		}
		return u.transition(e, t, u.agents[d.agent], u.tools[d.tool])
	})
	if err == nil {
		err = refused
	}
	return out, err
}

// Revoke takes an agent's access to a tool away, whatever its status: when it
// returns, no vend of it that begins afterwards succeeds. It answers what the
// agent was given since approval, which a revocation does not recall.
func (m *Manager) Revoke(ctx context.Context, a Actor, agent, tool string) (RevokedGrant, error) {
	if err := m.authorize(ctx, a, OpRevoke); err != nil {
		return RevokedGrant{}, err
	}
	d := decision{agent: agent, tool: tool}
	var out RevokedGrant
	err := m.act(ctx, a, OpRevoke, d.needs(), func(u *unit) error {
		g := u.grant(agent, tool)
		if g == nil {
			return ErrNoRequest
		}
		t, err := grants.Revoke(*g, a.decider(), u.now)
		if err != nil {
			return grantError(err)
		}
		e := u.event(a.who(), audit.ActionGrantRevoked)
		u.dropCredential(e, t.Grant)
		out.Grant = t.Grant
		return u.transition(e, t, u.agents[agent], u.tools[tool])
	})
	if err != nil {
		return RevokedGrant{}, err
	}
	m.countVends(ctx, &out)
	return out, nil
}

// countVends looks up what was vended under a grant since it was approved. The
// revocation stands whether or not that can be told.
func (m *Manager) countVends(ctx context.Context, r *RevokedGrant) {
	if r.Grant.ApprovedAt == 0 {
		return
	}
	counting, cancel := reading(ctx)
	defer cancel()
	page, err := m.store.Events(counting, r.Grant.Organization, storage.EventQuery{Count: true, Filter: audit.Filter{
		Agent: r.Grant.Agent, Tool: r.Grant.Tool, Action: audit.ActionCredentialVended, From: r.Grant.ApprovedAt,
	}})
	if err != nil {
		m.log.WarnContext(ctx, "vends since approval not counted", "organization", r.Grant.Organization)
		r.RotateUpstream = true
		return
	}
	r.Vends, r.LastVend, r.RotateUpstream = page.Count, page.Latest, page.Count > 0
}

// others says whether somebody but the agent's owner could approve: as the host
// says, or as the administrators say that the Manager keeps.
func (m *Manager) others(u *unit, d decision, agent storage.Agent) bool {
	if m.config.SoleApprover != nil {
		return d.others
	}
	return u.otherApprovers(agent.Owner)
}

// otherApprovers says whether the Manager keeps an administrator other than the
// owner who may approve.
func (u *unit) otherApprovers(owner string) bool {
	for ref, r := range u.records {
		if ref.kind != kindAdministrator || ref.id == owner {
			continue
		}
		if p, err := parseAdministrator(r); err == nil && !p.Removed && strings.Contains("owner admin approver", string(p.Role)) {
			return true
		}
	}
	return false
}
