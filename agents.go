package agentkey

import (
	"context"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// RegisterAgent makes an agent and its first key, which is shown this once.
func (m *Manager) RegisterAgent(ctx context.Context, a Actor, in RegisterAgentInput) (IssuedKey, error) {
	if err := m.authorize(ctx, a, OpRegisterAgent); err != nil {
		return IssuedKey{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return IssuedKey{}, err
	}
	if in.Owner == "" {
		in.Owner = a.ID
	}
	secret := newKey(keyPrefix)
	out := IssuedKey{Secret: secret}
	agent := storage.Agent{
		Organization: a.Organization, ID: newID(), Name: in.Name, Description: in.Description, Owner: in.Owner,
		CreatedBy: a.ID, CreatedByLabel: a.Label, Status: storage.AgentActive, Revision: 1,
	}
	key := storage.Key{
		Organization: a.Organization, ID: newID(), Agent: agent.ID, Digest: digestOf(secret),
		Status: storage.KeyActive, Addresses: in.Addresses, Revision: 1,
	}
	err := m.act(ctx, a, OpRegisterAgent, needs{}, func(u *unit) error {
		agent.CreatedAt, key.CreatedAt = u.now, u.now
		key.ExpiresAt = after(u.now, in.KeyExpiresIn)
		e := u.agentEvent(a.who(), audit.ActionAgentCreated, agent)
		if err := u.putAgent(e, agent); err != nil {
			return err
		}
		if err := u.putKey(e, key); err != nil {
			return err
		}
		out.Agent, out.Key = u.agents[agent.ID], u.keys[key.ID]
		return nil
	})
	return issued(out, err)
}

func issued(k IssuedKey, err error) (IssuedKey, error) {
	if err != nil {
		k.Secret.Destroy()
		return IssuedKey{}, err
	}
	return k, nil
}

// after is the time d from now, 0 for none.
func after(now int64, d time.Duration) int64 {
	if d == 0 {
		return 0
	}
	return now + duration(d)
}

func (u *unit) agentEvent(w who, action audit.Action, agent storage.Agent) *entry {
	e := u.event(w, action)
	e.Agent, e.Target = agent.ID, audit.Ref{Kind: audit.KindAgent, ID: agent.ID}
	e.personal.AgentLabel = agent.Name
	return e
}

// changeAgent runs change on an agent under the head.
func (m *Manager) changeAgent(ctx context.Context, a Actor, op Operation, id string, n needs, change func(u *unit, agent storage.Agent) error) error {
	n.agents = append(n.agents, id)
	return m.act(ctx, a, op, n, func(u *unit) error {
		agent, ok := u.agents[id]
		if !ok {
			return ErrNoAgent
		}
		return change(u, agent)
	})
}

// UpdateAgent changes an agent's name, description or owner.
func (m *Manager) UpdateAgent(ctx context.Context, a Actor, id string, in UpdateAgentInput) (AgentView, error) {
	if err := m.authorize(ctx, a, OpUpdateAgent); err != nil {
		return AgentView{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return AgentView{}, err
	}
	err := m.changeAgent(ctx, a, OpUpdateAgent, id, needs{}, func(u *unit, agent storage.Agent) error {
		set(&agent.Name, in.Name)
		set(&agent.Description, in.Description)
		set(&agent.Owner, in.Owner)
		agent.Revision++
		return u.putAgent(u.agentEvent(a.who(), audit.ActionAgentUpdated, agent), agent)
	})
	if err != nil {
		return AgentView{}, err
	}
	return afterCommit(m.agentView(ctx, a, id))
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// SuspendAgent stops an agent: when it returns, no call of the agent that begins
// afterwards succeeds. Its pending and approved grants are revoked, each with an
// event. Suspending a suspended agent changes nothing.
func (m *Manager) SuspendAgent(ctx context.Context, a Actor, id string) (SuspendedAgent, error) {
	if err := m.authorize(ctx, a, OpSuspendAgent); err != nil {
		return SuspendedAgent{}, err
	}
	var out SuspendedAgent
	n := needs{grantsOf: []storage.GrantQuery{{Agent: id, Statuses: open}}, named: true, credentials: true, approvals: true}
	err := m.changeAgent(ctx, a, OpSuspendAgent, id, n, func(u *unit, agent storage.Agent) (err error) {
		out, err = u.suspend(a.who(), a.decider(), agent)
		return err
	})
	return out, err
}

// suspend suspends an agent that is not suspended yet, and revokes its open grants.
func (u *unit) suspend(w who, by grants.Decider, agent storage.Agent) (out SuspendedAgent, err error) {
	if agent.Status == storage.AgentSuspended {
		return SuspendedAgent{Agent: agent}, nil
	}
	e := u.agentEvent(w, audit.ActionAgentSuspended, agent)
	e.From, e.To = string(agent.Status), string(storage.AgentSuspended)
	agent.Status = storage.AgentSuspended
	agent.Revision++
	if err := u.putAgent(e, agent); err != nil {
		return out, err
	}
	out.Agent = u.agents[agent.ID]
	out.Revoked, err = u.revokeOpen(w, by, agent)
	return out, err
}

// open are the statuses of grants that give access or may come to.
var open = []grants.Status{grants.StatusPending, grants.StatusApproved}

// revokeOpen revokes all open grants of an agent.
func (u *unit) revokeOpen(w who, by grants.Decider, agent storage.Agent) (revoked int, err error) {
	for _, g := range u.sortedGrants(every) {
		t, err := grants.RevokeOpen(g, by, u.now)
		if err != nil {
			return 0, grantError(err)
		}
		switch t.Event {
		case grants.EventNone:
			continue
		case grants.EventRevoked:
			e := u.event(w, audit.ActionGrantRevoked)
			u.dropCredential(e, t.Grant)
			if err := u.transition(e, t, agent, u.tools[g.Tool]); err != nil {
				return 0, err
			}
			revoked++
		default:
			if err := u.settle(t.Grant, t.Event, agent, u.tools[g.Tool]); err != nil {
				return 0, err
			}
		}
	}
	return revoked, nil
}

// ReactivateAgent lets a suspended agent act again. It starts with no grants.
func (m *Manager) ReactivateAgent(ctx context.Context, a Actor, id string) (Agent, error) {
	if err := m.authorize(ctx, a, OpReactivateAgent); err != nil {
		return Agent{}, err
	}
	var out Agent
	err := m.changeAgent(ctx, a, OpReactivateAgent, id, needs{}, func(u *unit, agent storage.Agent) error {
		if agent.Status != storage.AgentSuspended {
			return ErrAgentActive
		}
		e := u.agentEvent(a.who(), audit.ActionAgentReactivated, agent)
		e.From, e.To = string(agent.Status), string(storage.AgentActive)
		agent.Status = storage.AgentActive
		agent.Revision++
		if err := u.putAgent(e, agent); err != nil {
			return err
		}
		out = u.agents[id]
		return nil
	})
	return out, err
}

// RotateKey gives an agent a new key, shown this once. The old ones die at once,
// or at the end of the grace.
func (m *Manager) RotateKey(ctx context.Context, a Actor, id string, in RotateKeyInput) (IssuedKey, error) {
	if err := m.authorize(ctx, a, OpRotateKey); err != nil {
		return IssuedKey{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return IssuedKey{}, err
	}
	secret := newKey(keyPrefix)
	out := IssuedKey{Secret: secret}
	next := storage.Key{
		Organization: a.Organization, ID: newID(), Agent: id, Digest: digestOf(secret),
		Status: storage.KeyActive, Addresses: in.Addresses, Revision: 1,
	}
	err := m.changeAgent(ctx, a, OpRotateKey, id, needs{keysOfAgents: []string{id}}, func(u *unit, agent storage.Agent) error {
		e := u.agentEvent(a.who(), audit.ActionAgentKeyRotated, agent)
		for _, k := range u.sortedKeys() {
			if k.Status != storage.KeyActive {
				continue
			}
			if in.Grace == 0 {
				k.Status = storage.KeyRevoked
			} else if end := after(u.now, in.Grace); k.ExpiresAt == 0 || k.ExpiresAt > end {
				k.ExpiresAt = end
			} else {
				continue
			}
			k.Revision++
			if err := u.putKey(e, k); err != nil {
				return err
			}
		}
		next.CreatedAt, next.ExpiresAt = u.now, after(u.now, in.ExpiresIn)
		if err := u.putKey(e, next); err != nil {
			return err
		}
		out.Agent, out.Key = agent, u.keys[next.ID]
		return nil
	})
	return issued(out, err)
}

// RevokeKey ends one of an agent's keys. Revoking a dead key changes nothing.
func (m *Manager) RevokeKey(ctx context.Context, a Actor, agent, key string) error {
	if err := m.authorize(ctx, a, OpRevokeKey); err != nil {
		return err
	}
	return m.changeAgent(ctx, a, OpRevokeKey, agent, needs{keys: []string{key}}, func(u *unit, agent storage.Agent) error {
		k, ok := u.keys[key]
		if !ok || k.Agent != agent.ID {
			return ErrNoKeyRecord
		}
		if k.Status != storage.KeyActive {
			return nil
		}
		return u.revokeKey(a.who(), agent, k)
	})
}

// revokeKey ends an active key.
func (u *unit) revokeKey(w who, agent storage.Agent, k storage.Key) error {
	e := u.agentEvent(w, audit.ActionAgentKeyRevoked, agent)
	e.Target = audit.Ref{Kind: audit.KindKey, ID: k.ID}
	e.From, e.To = string(k.Status), string(storage.KeyRevoked)
	k.Status = storage.KeyRevoked
	k.Revision++
	return u.putKey(e, k)
}
