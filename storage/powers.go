package storage

import (
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// Pinger is an optional power of a Store: a cheap round trip to the database.
// Without it, readiness is judged by Organizations.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Summarizer is an optional power of a ReadTx: what a page of agents or tools
// shows of their grants, in a number of statements that does not grow with the
// page. Without it the Manager asks Grants for each item.
type Summarizer interface {
	// GrantSummaries answers one summary for each id and status that has a grant,
	// in no order. What it answers is what Grants with Total would.
	GrantSummaries(ctx context.Context, q SummaryQuery) ([]GrantSummary, error)
}

// SummaryQuery asks for the grants of some agents or of some tools, but not of
// both: at most MaxIDs ids.
type SummaryQuery struct {
	Agents   []string
	Tools    []string
	Statuses []grants.Status
	Limit    int // of grants for each id and status, 1 to MaxPage
}

// GrantSummary is how many grants of a status an agent or a tool has, and the
// newest of them, in descending order of ids.
type GrantSummary struct {
	ID     string // of the agent or the tool
	Status grants.Status
	Count  int64
	Grants []grants.Grant
}

// Check answers ErrInvalid for a query over its limits.
func (q SummaryQuery) Check() error {
	if len(q.Agents)+len(q.Tools) > MaxIDs || q.Limit < 1 || q.Limit > MaxPage || (len(q.Agents) > 0 && len(q.Tools) > 0) {
		return fmt.Errorf("%w: summary", ErrInvalid)
	}
	return first(CheckText(q.Agents...), CheckText(q.Tools...))
}

// KeyLister is an optional power of a ReadTx: an agent's keys by pages. Without it
// the Manager reads all keys of the agent for each page.
type KeyLister interface {
	// AgentKeys answers an agent's keys in descending order of ids, those below
	// after (empty: from the newest on), at most limit, which is 1 to MaxPage.
	AgentKeys(ctx context.Context, agent, after string, limit int) ([]Key, error)
}

// Recency is an optional power of a Store: when something last happened to each
// of some agents, in a number of statements that does not grow with them. Without
// it the Manager looks through each agent's events.
type Recency interface {
	// LatestEvents answers, for each of these agents that has one, the time of the
	// newest event of one of these actions that concerns the agent, as an
	// audit.Filter means it. It is as complete as Events. At most MaxIDs agents.
	LatestEvents(ctx context.Context, organization string, agents []string, actions []audit.Action) (map[string]int64, error)
}
