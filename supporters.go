package agentkey

import (
	"context"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// SuggestionStatus says what became of a suggestion.
type SuggestionStatus string

// The statuses of a suggestion.
const (
	SuggestionPending   SuggestionStatus = "pending"
	SuggestionDismissed SuggestionStatus = "dismissed"
	SuggestionAccepted  SuggestionStatus = "accepted"
)

// Known says whether s is one of the statuses.
func (s SuggestionStatus) Known() bool {
	return s == SuggestionPending || s == SuggestionDismissed || s == SuggestionAccepted
}

// Supporter is an agent that stands behind a suggestion.
type Supporter struct {
	Agent            string
	AgentName        string
	Reason           string // the latest
	FirstRequestedAt int64
	LastRequestedAt  int64
}

// SupportersPage is a page of supporters.
type SupportersPage struct {
	Supporters []Supporter
	Next       string // empty: there are no more
}

// supportersInput is what both kinds of suggestion take.
type supportersInput struct {
	Suggestion string
	Cursor     string
	Limit      int
}

// supporters lists the agents behind a suggestion of a kind, the one that asked
// last first.
func (m *Manager) supporters(ctx context.Context, a Actor, op Operation, kind, of string, in supportersInput) (SupportersPage, error) {
	if err := m.authorize(ctx, a, op); err != nil {
		return SupportersPage{}, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return SupportersPage{}, err
	}
	scan, err := supportersScan(of, in.Suggestion, in.Cursor, limit)
	if err != nil {
		return SupportersPage{}, err
	}
	var out SupportersPage
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = SupportersPage{}
		suggestion := recordRef{kind, in.Suggestion}
		if err := u.load(ctx, tx, &needs{records: []recordRef{suggestion}}); err != nil {
			return err
		}
		if _, ok := u.records[suggestion]; !ok {
			return ErrNoSuggestion
		}
		page, err := u.scanSupporters(ctx, tx, scan)
		if err != nil {
			return err
		}
		if len(page) == limit {
			last := page[limit-1]
			out.Next = waitingSince(last.Last) + "/" + last.Agent
		}
		names, err := u.agentNames(ctx, tx, page)
		out.Supporters = supporters(page, names)
		return err
	})
	return out, err
}

type supporterPayload struct {
	Agent  string `json:"agent"`
	Reason string `json:"reason"`
	First  int64  `json:"first_requested_at"`
	Last   int64  `json:"last_requested_at"`
}

// supporter gives what is kept of an agent's support of a suggestion, and the
// record of it without its payload; a new one has revision 0.
func (u *unit) supporter(kind, suggestion, agent string) (p supporterPayload, r storage.Record, err error) {
	r, ok := u.records[recordRef{kind, suggestion + "/" + agent}]
	if !ok {
		return supporterPayload{Agent: agent, First: u.now}, storage.Record{Kind: kind, ID: suggestion + "/" + agent}, nil
	}
	p, err = parsePayload[supporterPayload](r)
	return p, r, err
}

// latestFirst puts an agent's support first among the latest.
func latestFirst(latest []supporterPayload, p supporterPayload) []supporterPayload {
	latest = slices.DeleteFunc(slices.Clone(latest), func(q supporterPayload) bool { return q.Agent == p.Agent })
	latest = slices.Insert(latest, 0, p)
	return latest[:min(len(latest), linked)]
}

// supportersScan lists a suggestion's supporters, the one that asked last first,
// from a cursor on: the time of the last request and the agent, with a slash.
func supportersScan(kind, id, cursor string, limit int) (storage.Scan, error) {
	s := storage.Scan{Kind: kind, Index: indexSuggestion, From: id + "/", To: id + "0", Descending: true, Limit: limit}
	if cursor == "" {
		return s, checkTexts(id)
	}
	at, agent, found := strings.Cut(cursor, "/")
	if !found || agent == "" {
		return s, invalid("cursor", "is not one that this list gave")
	}
	s.AfterValue, s.AfterID = id+"/"+at, id+"/"+agent
	return s, checkTexts(id, cursor)
}

func (u *unit) scanSupporters(ctx context.Context, tx storage.ReadTx, s storage.Scan) ([]supporterPayload, error) {
	found, err := u.scan(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	out := make([]supporterPayload, len(found))
	for i, r := range found {
		if out[i], err = parsePayload[supporterPayload](r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// agentNames reads the agents behind suggestions.
func (u *unit) agentNames(ctx context.Context, tx storage.ReadTx, behind []supporterPayload) (map[string]storage.Agent, error) {
	ids := make([]string, 0, len(behind))
	for _, p := range behind {
		ids = append(ids, p.Agent)
	}
	if err := u.addAgents(ctx, tx, ids); err != nil {
		return nil, err
	}
	return u.agents, nil
}

func supporters(behind []supporterPayload, agents map[string]storage.Agent) []Supporter {
	out := make([]Supporter, len(behind))
	for i, p := range behind {
		out[i] = Supporter{
			Agent: p.Agent, AgentName: agents[p.Agent].Name, Reason: p.Reason, FirstRequestedAt: p.First, LastRequestedAt: p.Last,
		}
	}
	return out
}
