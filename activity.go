package agentkey

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// ActivityInput asks for a page of what happened to an agent or a tool.
type ActivityInput struct {
	Cursor string // Next of the page before
	Limit  int    // 0: 5; anything else is taken as the nearest of 1 to 20
}

// A short page is enough to glance at; Events has all of it.
const (
	defaultActivity = 5
	maxActivity     = 20
)

// AgentActivity lists the newest events that concern an agent. An unknown one has
// none.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) AgentActivity(ctx context.Context, a Actor, agent string, in ActivityInput) (EventsPage, error) {
	if agent == "" {
		return EventsPage{}, invalid("agent", "is required")
	}
	return m.activity(ctx, a, audit.Filter{Agent: agent}, in)
}

// ToolActivity lists the newest events that concern a tool, as AgentActivity does
// for an agent. A tool that was deleted keeps its own.
func (m *Manager) ToolActivity(ctx context.Context, a Actor, tool string, in ActivityInput) (EventsPage, error) {
	if tool == "" {
		return EventsPage{}, invalid("tool", "is required")
	}
	return m.activity(ctx, a, audit.Filter{Tool: tool}, in)
}

func (m *Manager) activity(ctx context.Context, a Actor, f audit.Filter, in ActivityInput) (EventsPage, error) {
	limit := min(max(or(in.Limit, defaultActivity), 1), maxActivity)
	return m.Events(ctx, a, EventsInput{Filter: f, Cursor: in.Cursor, Limit: limit})
}
