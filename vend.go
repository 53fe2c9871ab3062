package agentkey

import (
	"context"
	"errors"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// reasons maps why a vend is refused to what the agent is told.
var reasons = map[grants.Reason]*Error{
	grants.ReasonNoGrant:            ErrNoGrant,
	grants.ReasonPending:            ErrPending,
	grants.ReasonApprovalsMissing:   ErrPending,
	grants.ReasonDenied:             ErrDenied,
	grants.ReasonRevoked:            ErrRevoked,
	grants.ReasonExpired:            ErrExpired,
	grants.ReasonUsedUp:             ErrUsedUp,
	grants.ReasonOrganizationLocked: ErrOrganizationLocked,
	grants.ReasonAgentSuspended:     ErrSuspended,
	grants.ReasonNoTool:             ErrNoTool,
	grants.ReasonNoCredential:       ErrNoCredential,
	grants.ReasonCredentialExpired:  ErrCredentialExpired,
}

func refusedFor(r grants.Reason) *Error {
	if e := reasons[r]; e != nil {
		return e
	}
	return ErrIntegrity
}

// Vend hands out a tool's credential to an agent whose grant stands. It is
// decided, opened and recorded in one transaction under the organization's log
// head, and the plaintext leaves only after that transaction is durable.
//
// The errors: ErrUnauthenticated, ErrRefused with the reason, ErrNotFound,
// ErrConflict when the credential is missing or has expired, ErrLimited,
// ErrUnavailable. On any error nothing was revealed.
func (m *Manager) Vend(ctx context.Context, c Caller, tool string) (*Vended, error) {
	c, err := m.admit(ctx, c, ratelimit.TierCredential)
	if err != nil {
		return nil, err
	}
	if tool == "" || len(tool) > 128 || !isID(tool) {
		// Nobody is told so whose key or agent is not what admit took it for.
		if err := m.checkAgent(ctx, c); err != nil {
			m.forgetRoute(c)
			return nil, err
		}
		return nil, ErrNoTool
	}
	v := &vend{m: m, caller: c, tool: tool}
	op := &operation{organization: c.org, needs: c.needs(), decide: v.decide, bulk: true}
	n := &op.needs
	n.tools, n.pairs, n.credentials, n.bulk = []string{tool}, []storage.Pair{{Agent: c.id, Tool: tool}}, true, true
	if m.config.SharedLimits {
		n.windows = []storage.WindowRef{v.window()}
	}
	if err := m.commit(ctx, op); err != nil {
		v.secret.Destroy()
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		v.secret.Destroy() // recorded, but nobody is there to take it
		return nil, err
	}
	if v.refused != nil {
		if errors.Is(v.refused, ErrUnauthenticated) {
			m.forgetRoute(c)
		}
		return nil, v.refused
	}
	v.out.Credential = v.secret
	v.out.Receipt = v.event.appended.Receipt(v.event.place)
	return v.out, nil
}

// vend is one vend's operation and its answer.
type vend struct {
	m      *Manager
	caller Caller
	tool   string

	secret  *vault.Secret
	limit   ratelimit.Decision
	refused error
	event   *entry
	out     *Vended
}

// window is the shared window that the vend is charged to.
func (v *vend) window() storage.WindowRef {
	return storage.WindowRef{Tier: string(ratelimit.TierCredential), Subject: v.caller.id}
}

func (v *vend) decide(u *unit) error {
	v.secret.Destroy()
	v.secret, v.refused, v.out = nil, nil, nil
	if u.skewed {
		return ErrClock
	}
	agent, refused := v.caller.authenticate(u)
	if refused != nil {
		v.refused = refused
		v.m.refuseAuthentication(u, v.caller, agent, refused)
		return nil
	}
	if err := v.charge(u, agent); err != nil || v.refused != nil {
		return err
	}
	tool, toolPresent := u.tools[v.tool]
	grant := u.grant(agent.ID, v.tool)
	credential, present := u.credential(tool, grant)
	d := grants.Decide(grant, grants.Facts{
		Intact: true, OrganizationLocked: u.locked(), AgentActive: true, ToolPresent: toolPresent,
		Credential: grants.CredentialFacts{Present: present, ExpiresAt: credentialEnd(credential)},
	}, u.now)
	if !d.Allowed {
		return v.refuse(u, agent, tool, grant, d)
	}
	secret, err := u.open(credential)
	if err != nil {
		return v.unreadable(u, agent, tool, grant, credential)
	}
	v.secret = secret
	return v.allow(u, agent, tool, *grant, credential, d)
}

// charge charges the vend to its shared window, where windows are shared.
func (v *vend) charge(u *unit, agent storage.Agent) (err error) {
	if !v.m.config.SharedLimits {
		if a := v.caller.admitted; a != nil {
			v.limit = a.decision
		}
		return nil
	}
	v.limit, err = u.admit(v.window(), v.m.config.Policies[ratelimit.TierCredential])
	if err == nil && !v.limit.Allowed {
		v.refused = v.m.limited(u, v.caller.who(agent.Name), agent.ID, ratelimit.TierCredential, v.limit)
	}
	return err
}

func (v *vend) allow(u *unit, agent storage.Agent, tool storage.Tool, g grants.Grant, c storage.Credential, d grants.Decision) error {
	e := u.event(v.caller.who(agent.Name), audit.ActionCredentialVended)
	v.event = e
	if d.Next != nil {
		g = *d.Next
		if err := u.putGrant(e, g); err != nil {
			return err
		}
	}
	describe(e, agent, tool, &g)
	e.Target = audit.Ref{Kind: audit.KindTool, ID: tool.ID}
	e.Credential = audit.CredentialRef{ID: c.ID, Revision: c.Revision}
	if d.Event == grants.EventUsedUp {
		u.ended(g, d.Event, agent, tool)
		u.dropCredential(e, g)
	}
	v.out = &Vended{Tool: tool, Grant: g.ID, ExpiresAt: g.ExpiresAt, VendsLeft: vendsLeft(g), Limit: v.limit}
	return nil
}

func (v *vend) refuse(u *unit, agent storage.Agent, tool storage.Tool, g *grants.Grant, d grants.Decision) error {
	v.refused = refusedFor(d.Reason)
	if d.Next != nil {
		if err := u.settle(*d.Next, d.Event, agent, tool); err != nil {
			return err
		}
		g = d.Next
	}
	// An unknown tool's id is the agent's own invention: it is not told apart.
	v.m.refuse(u, refusalKey{organization: u.organization, subject: agent.ID, tool: tool.ID, reason: "vend " + string(d.Reason)}, func() {
		e := u.event(v.caller.who(agent.Name), audit.ActionCredentialRefused)
		e.Outcome, e.Reason = audit.OutcomeRefused, string(d.Reason)
		describe(e, agent, tool, g)
		e.Target = audit.Ref{Kind: audit.KindAgent, ID: agent.ID}
		if tool.ID != "" {
			e.Target = audit.Ref{Kind: audit.KindTool, ID: tool.ID}
		}
	})
	return nil
}

// unreadable refuses a vend whose value does not open in its place.
func (v *vend) unreadable(u *unit, agent storage.Agent, tool storage.Tool, g *grants.Grant, c storage.Credential) error {
	v.refused = ErrIntegrity
	v.m.refuse(u, refusalKey{organization: u.organization, subject: agent.ID, tool: tool.ID, reason: "unreadable"}, func() {
		e := u.event(v.caller.who(agent.Name), audit.ActionCredentialRefused)
		e.Outcome, e.Reason = audit.OutcomeRefused, string(grants.ReasonIntegrity)
		describe(e, agent, tool, g)
		e.Target = audit.Ref{Kind: audit.KindCredential, ID: c.ID}
	})
	return nil
}

func describe(e *entry, agent storage.Agent, tool storage.Tool, g *grants.Grant) {
	e.Agent, e.Tool = agent.ID, tool.ID
	e.personal.AgentLabel, e.personal.ToolLabel = agent.Name, tool.Name
	if g != nil {
		e.Grant = audit.GrantRef{ID: g.ID, Revision: g.Revision, Cycle: g.Cycle}
	}
}

func vendsLeft(g grants.Grant) int64 {
	if g.Granted.MaxVends == 0 {
		return -1
	}
	return max(g.Granted.MaxVends-g.VendsUsed, 0)
}

func credentialEnd(c storage.Credential) int64 {
	if c.Status == storage.CredentialExpired {
		return max(min(c.ExpiresAt, c.UpdatedAt), 1)
	}
	return c.ExpiresAt
}

func (u *unit) locked() bool { return u.org == nil || u.org.Locked }

func (u *unit) grant(agent, tool string) *grants.Grant {
	g, ok := u.grants[storage.Pair{Agent: agent, Tool: tool}]
	if !ok {
		return nil
	}
	return &g
}

// credential is what the grant would vend: the tool's own, or the grant's.
func (u *unit) credential(t storage.Tool, g *grants.Grant) (storage.Credential, bool) {
	ref := storage.CredentialRef{Tool: t.ID}
	if t.Mode == storage.PerAgent {
		if g == nil {
			return storage.Credential{}, false
		}
		ref.Grant = g.ID
	}
	c, ok := u.credentials[ref]
	return c, ok
}

// open opens a credential in the place that the query named, with a key whose
// state was read in this transaction.
func (u *unit) open(c storage.Credential) (*vault.Secret, error) {
	if err := u.usable(c.Sealed); err != nil {
		return nil, err
	}
	return u.ring.opener.Open(c.Place(u.installation), c.Sealed)
}

// settle writes that a grant has come to its end.
func (u *unit) settle(next grants.Grant, event grants.Event, agent storage.Agent, tool storage.Tool) error {
	e := u.ended(next, event, agent, tool)
	u.dropCredential(e, next)
	return u.putGrant(e, next)
}

func (u *unit) ended(g grants.Grant, event grants.Event, agent storage.Agent, tool storage.Tool) *entry {
	action := audit.ActionGrantExpired
	if event == grants.EventUsedUp {
		action = audit.ActionGrantUsedUp
	}
	e := u.event(system, action)
	describe(e, agent, tool, &g)
	e.Agent, e.Tool = g.Agent, g.Tool
	e.Target = audit.Ref{Kind: audit.KindGrant, ID: g.ID}
	e.From, e.To = string(grants.StatusApproved), string(g.Status)
	return e
}

// dropCredential removes a grant's own credential, whose time is over.
func (u *unit) dropCredential(e *entry, g grants.Grant) {
	if c, ok := u.credentials[storage.CredentialRef{Tool: g.Tool, Grant: g.ID}]; ok {
		u.deleteCredential(e, c)
	}
}
