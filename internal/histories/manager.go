package histories

import (
	"context"
	"errors"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Manager is a Target in this process.
type Manager struct {
	*agentkey.Manager
	// Actor administers the organization. The other actor is made up.
	Actor agentkey.Actor
	// Move advances the clock of every Manager of the history. Nil: a history with
	// Advance can't be recorded.
	Move func(time.Duration)
}

var _ Target = (*Manager)(nil)

// owner is whose the agents are: none of the actors.
const owner = "somebody-else"

// by is who makes the call.
func (m *Manager) by(c Call) agentkey.Actor {
	if c.Actor == 0 {
		return m.Actor
	}
	return agentkey.Actor{
		Organization: m.Actor.Organization, Kind: m.Actor.Kind, ID: "approver", Label: "approver@example.com", Role: agentkey.RoleApprover, Auth: "test",
	}
}

// fact is what agents learn about the shared tool.
const fact = "Pages end at 100 items."

// reason is why agents ask here.
const reason = "to file issues"

// RegisterAgent makes an agent.
func (m *Manager) RegisterAgent(ctx context.Context, name string) (id, key string, err error) {
	issued, err := m.Manager.RegisterAgent(ctx, m.Actor, agentkey.RegisterAgentInput{Name: name, Owner: owner})
	if err != nil {
		return "", "", err
	}
	defer issued.Secret.Destroy()
	return issued.Agent.ID, string(issued.Secret.Bytes()), nil
}

// AddTool makes a tool.
func (m *Manager) AddTool(ctx context.Context, name, credential string, approvals int64) (string, error) {
	in := agentkey.AddToolInput{Name: name, AuthType: "api_key", Mode: storage.PerAgent, RequiredApprovals: approvals}
	if credential != "" {
		in.Mode, in.Credential = storage.Shared, agentkey.NewSecret([]byte(credential))
	}
	v, err := m.Manager.AddTool(ctx, m.Actor, in)
	return v.ID, err
}

// Do makes the call.
func (m *Manager) Do(ctx context.Context, c Call) Answer {
	a, err := m.do(ctx, c)
	if err != nil {
		return Answer{Output: Output{Code: code(err)}}
	}
	return a
}

func (m *Manager) do(ctx context.Context, c Call) (Answer, error) {
	switch c.Kind {
	case Vend:
		return m.vend(ctx, c)
	case Request:
		return decided(m.RequestAccess(ctx, c.caller(m.Actor), agentkey.RequestInput{
			Tool: c.ToolID, Reason: reason, MaxVends: c.Terms.Max, Duration: c.Terms.duration(),
		}))
	case Approve:
		return decided(m.Approve(ctx, m.by(c), c.GrantID, c.decision()))
	case Deny:
		return decided(m.Deny(ctx, m.by(c), c.GrantID, "no"))
	case Assign:
		return decided(m.Assign(ctx, m.by(c), agentkey.AssignInput{Agent: c.AgentID, Tool: c.ToolID, DecisionInput: c.decision()}))
	case Narrow:
		return decided(m.Narrow(ctx, m.Actor, c.GrantID, agentkey.Terms{
			MaxVends: c.Terms.Max, Duration: c.Terms.duration().Microseconds(),
		}))
	case Revoke:
		r, err := m.Revoke(ctx, m.Actor, c.AgentID, c.ToolID)
		return decided(r.Grant, err)
	case Suspend:
		s, err := m.SuspendAgent(ctx, m.Actor, c.AgentID)
		return Answer{Output: Output{Revoked: int64(s.Revoked)}}, err
	case Reactivate:
		_, err := m.ReactivateAgent(ctx, m.Actor, c.AgentID)
		return Answer{}, err
	case Rotate:
		return m.rotate(ctx, c)
	case Replace:
		_, err := m.UpdateTool(ctx, m.Actor, c.ToolID, agentkey.UpdateToolInput{Credential: c.secret()})
		return Answer{}, err
	case Lock:
		_, err := m.Lock(ctx, m.Actor, reason)
		return Answer{}, err
	case Unlock:
		_, err := m.Unlock(ctx, m.Actor, reason)
		return Answer{}, err
	case Suggest:
		s, err := m.SuggestTool(ctx, c.caller(m.Actor), agentkey.SuggestToolInput{Name: c.Wanted, Reason: reason})
		return Answer{Output: Output{Joined: s.Existing}, Wish: s.ID}, err
	case Dismiss:
		_, err := m.DismissToolSuggestion(ctx, m.Actor, c.Wish)
		return Answer{}, err
	case Add:
		id, err := m.AddTool(ctx, c.Wanted, c.Secret, 1)
		return Answer{ToolID: id}, err
	case Learn:
		s, err := m.SuggestInstructions(ctx, c.caller(m.Actor), agentkey.SuggestInstructionsInput{Tool: c.ToolID, Learned: fact, Why: reason})
		return Answer{Output: Output{Joined: s.Existing}, FactID: s.ID}, err
	case Reject:
		_, err := m.DismissInstructionSuggestion(ctx, m.Actor, c.FactID, reason)
		return Answer{}, err
	case Accept, Rewrite:
		_, err := m.UpdateTool(ctx, m.Actor, c.ToolID, agentkey.UpdateToolInput{Instructions: &c.Instructions, AcceptSuggestion: c.FactID})
		return Answer{}, err
	case Advance:
		m.Move(c.Terms.duration())
	case Sweep:
		return Answer{}, m.Sweep(ctx)
	}
	return Answer{}, nil
}

func (m *Manager) vend(ctx context.Context, c Call) (Answer, error) {
	v, err := m.Vend(ctx, c.caller(m.Actor), c.ToolID)
	if err != nil {
		return Answer{}, err
	}
	defer v.Credential.Destroy()
	return Answer{Output: Output{Left: v.VendsLeft}, Secret: string(v.Credential.Bytes()), Guide: v.Tool.Instructions}, nil
}

func (m *Manager) rotate(ctx context.Context, c Call) (Answer, error) {
	issued, err := m.RotateKey(ctx, m.Actor, c.AgentID, agentkey.RotateKeyInput{})
	if err != nil {
		return Answer{}, err
	}
	defer issued.Secret.Destroy()
	return Answer{KeyText: string(issued.Secret.Bytes())}, nil
}

func decided(g agentkey.Grant, err error) (Answer, error) {
	return Answer{Output: Output{Cycle: g.Cycle}, GrantID: g.ID}, err
}

func (c Call) caller(a agentkey.Actor) agentkey.Caller {
	if c.KeyText == "" {
		return agentkey.TrustedAgent(a.Organization, c.AgentID)
	}
	return agentkey.Key(c.KeyText)
}

func (c Call) decision() agentkey.DecisionInput {
	return agentkey.DecisionInput{Credential: c.secret(), MaxVends: c.Terms.Max, Duration: c.Terms.duration()}
}

func (c Call) secret() *agentkey.Secret {
	if c.Secret == "" {
		return nil
	}
	return agentkey.NewSecret([]byte(c.Secret))
}

func (t Terms) duration() time.Duration { return time.Duration(t.Seconds) * time.Second }

// code is what the model calls an error of the library.
func code(err error) string {
	var known *agentkey.Error
	switch {
	case errors.Is(err, agentkey.ErrUnknown):
		return Unknown
	case errors.Is(err, agentkey.ErrUnavailable) && !errors.Is(err, agentkey.ErrIntegrity):
		return Unavailable
	case errors.Is(err, agentkey.ErrInvalid):
		return Invalid
	case errors.As(err, &known):
		return known.Code
	}
	return Internal
}
