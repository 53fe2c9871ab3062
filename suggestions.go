package agentkey

import (
	"context"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// SuggestionCooldown is how long a tool that was dismissed can't be suggested
// again.
const SuggestionCooldown = 24 * time.Hour

// SuggestToolInput proposes a tool that the catalog lacks.
type SuggestToolInput struct {
	Name   string `validate:"utf16min=2,utf16max=120,plain" json:"name"` // with at least one letter or digit
	URL    string `validate:"utf16max=500,plain" json:"url"`             // absolute http(s) URL or host name, or empty
	Reason string `validate:"utf16min=5,utf16max=500,text" json:"reason"`
}

// ToolSuggested is the suggestion that an agent made or joined.
type ToolSuggested struct {
	ID       string
	Status   SuggestionStatus
	Existing bool // it was pending already, and has one more supporter or one more request
}

// ToolSuggestion is a tool that agents ask to have in the catalog.
type ToolSuggestion struct {
	ID               string
	Organization     string
	Name             string // as its first supporter wrote it
	URL              string // of the first supporter who gave one
	Status           SuggestionStatus
	CreatedBy        string // the first supporter's id
	SupporterCount   int64
	Supporters       []Supporter // the 20 whose last request is newest
	FirstRequestedAt int64
	LastRequestedAt  int64
	DismissedUntil   int64  // of a dismissed one: when it may be suggested again
	Tool             string // that it was accepted for; empty once that is deleted
	UpdatedAt        int64
	Revision         int64
}

// ToolSuggestionsInput asks for a page of tool suggestions, the one that was made
// last first.
type ToolSuggestionsInput struct {
	Status SuggestionStatus // empty: all
	After  string           // the id of the last item of the page before
	Limit  int              // 1 to 500; 0: 100
}

// ToolSupportersInput asks for a page of a suggestion's supporters, the one that
// asked last first.
type ToolSupportersInput struct {
	Suggestion string
	Cursor     string // Next of the page before
	Limit      int    // 1 to 500; 0: 100
}

// SuggestTool proposes a tool for the catalog. What is in the catalog already is
// an *ExistingToolError, what was dismissed less than SuggestionCooldown ago a
// *CooldownError, and what is pending gets one more supporter. Two suggestions
// are the same when their domains are equal or, unless both have one, their
// names are, whatever their case, punctuation and Unicode form. No two pending
// suggestions are the same, however many agents make them at once.
//
// The errors: ErrUnauthenticated, ErrRefused, ErrConflict, ErrInvalid,
// ErrLimited, ErrUnavailable.
func (m *Manager) SuggestTool(ctx context.Context, c Caller, in SuggestToolInput) (ToolSuggested, error) {
	c, err := m.admit(ctx, c, ratelimit.TierRequest)
	if err != nil {
		return ToolSuggested{}, err
	}
	wanted, err := m.checkSuggestion(&in)
	if err != nil {
		return ToolSuggested{}, err
	}
	id := newID()
	n := c.needs()
	n.suggested = &suggested{identity: wanted, agent: c.id}
	var out ToolSuggested
	var refused error
	err = m.commit(ctx, &operation{organization: c.org, needs: n, decide: func(u *unit) (err error) {
		agent, no := c.authenticate(u)
		switch {
		case no != nil:
			out, refused = ToolSuggested{}, no
			m.refuseAuthentication(u, c, agent, no)
			return nil
		case u.locked():
			out, refused = ToolSuggested{}, ErrOrganizationLocked
			m.refuseSuggestion(u, c, agent, rejection{action: audit.ActionToolSuggestionRefused, cause: ErrOrganizationLocked, target: audit.Ref{Kind: audit.KindAgent, ID: agent.ID}})
			return nil
		}
		out, refused, err = m.suggestTool(u, c, agent, id, in)
		return err
	}})
	if err == nil {
		err = refused
	}
	return out, err
}

// checkSuggestion normalizes the input and says what the suggestion is known by.
func (m *Manager) checkSuggestion(in *SuggestToolInput) (identity, error) {
	if err := m.validation.input(in); err != nil {
		return identity{}, err
	}
	var err error
	if in.URL, err = normalURL(in.URL); err != nil {
		return identity{}, err
	}
	wanted := identityOf(in.Name, in.URL)
	if wanted.name == "" {
		return wanted, invalid("name", "must hold a letter or a digit")
	}
	return wanted, nil
}

// suggestTool decides on a suggestion: for a tool that is there, against one that
// was dismissed, or by what it adds.
func (m *Manager) suggestTool(u *unit, c Caller, agent storage.Agent, id string, in SuggestToolInput) (out ToolSuggested, refused, err error) {
	if tool, ok := u.tools[u.match.tool]; ok {
		m.refuseSuggestion(u, c, agent, rejection{
			action: audit.ActionToolSuggestionRedirectedToExistingTool, cause: ErrToolExists, target: audit.Ref{Kind: audit.KindTool, ID: tool.ID},
		})
		return out, &ExistingToolError{Tool: tool.ID, Name: tool.Name}, nil
	}
	s, stands, err := u.suggestion(u.match.suggestion)
	if err != nil {
		return out, nil, err
	}
	if stands && s.Status == SuggestionDismissed && u.now < s.DismissedUntil {
		m.refuseSuggestion(u, c, agent, rejection{
			action: audit.ActionToolSuggestionCooldownRejected, cause: ErrSuggestionDismissed,
			target:  audit.Ref{Kind: audit.KindToolSuggestion, ID: s.id},
			details: map[string]string{"retry_after": timestamp(s.DismissedUntil)},
		})
		return out, &CooldownError{Suggestion: s.id, RetryAfter: time.UnixMicro(s.DismissedUntil).UTC()}, nil
	}
	e := u.event(c.who(agent.Name), audit.ActionToolSuggestionCreated)
	e.Agent, e.personal.AgentLabel, e.personal.Text = agent.ID, agent.Name, in.Reason
	e.To = string(SuggestionPending)
	if stands {
		e.Action, e.From = audit.ActionToolSuggestionSupported, string(s.Status)
		e.personal.Extra = map[string]string{"submitted_name": in.Name}
		if in.URL != "" {
			e.personal.Extra["submitted_url"] = in.URL
		}
	} else {
		s = &suggestion{id: id, suggestionPayload: suggestionPayload{Name: in.Name, CreatedBy: agent.ID, FirstRequestedAt: u.now}}
	}
	existing := s.Status == SuggestionPending
	s.Status, s.DismissedUntil, s.LastRequestedAt = SuggestionPending, 0, u.now
	if s.URL == "" && !u.match.domainTaken {
		s.URL = in.URL
	}
	if err := u.support(e, s, agent.ID, in.Reason); err != nil {
		return out, nil, err
	}
	out = ToolSuggested{ID: s.id, Status: s.Status, Existing: existing}
	if existing {
		return out, nil, nil
	}
	return out, nil, m.notify(u, Notification{
		Topic: TopicToolSuggested, Suggestion: s.id, Agent: agent.ID, AgentName: agent.Name,
		ToolName: s.Name, ToolURL: s.URL, Reason: in.Reason,
	})
}

// rejection is why an agent's suggestion was turned away.
type rejection struct {
	action  audit.Action
	cause   *Error
	target  audit.Ref
	details map[string]string
}

// refuseSuggestion records that an agent's suggestion was turned away, the first
// time in a minute.
func (m *Manager) refuseSuggestion(u *unit, c Caller, agent storage.Agent, r rejection) {
	m.refuse(u, refusalKey{organization: u.organization, subject: agent.ID, tool: r.target.ID, reason: "suggest " + r.cause.Code}, func() {
		e := u.event(c.who(agent.Name), r.action)
		e.Outcome, e.Reason, e.Agent, e.Target, e.Details = audit.OutcomeRefused, r.cause.Code, agent.ID, r.target, r.details
		e.personal.AgentLabel = agent.Name
		if tool, ok := u.tools[r.target.ID]; ok && r.target.Kind == audit.KindTool {
			e.Tool, e.personal.ToolLabel = tool.ID, tool.Name
		}
	})
}

// support adds an agent to those who stand behind a suggestion, or notes that it
// has asked again, and writes both.
func (u *unit) support(e *entry, s *suggestion, agent, reason string) error {
	p, r, err := u.supporter(kindToolSupporter, s.id, agent)
	if err != nil {
		return err
	}
	if r.Revision == 0 {
		s.Supporters++
	}
	p.Reason, p.Last = reason, u.now
	s.Latest = latestFirst(s.Latest, p)
	if err := u.putSuggestion(e, s); err != nil {
		return err
	}
	r.Index = []storage.IndexEntry{{Name: indexSuggestion, Value: s.id + "/" + waitingSince(p.Last)}}
	r.Revision++
	return u.putPayload(e, r, p)
}

// DismissToolSuggestion ends a pending suggestion. The tool can't be suggested
// again before SuggestionCooldown has passed; then the same suggestion, with the
// supporters that it had, is pending again.
func (m *Manager) DismissToolSuggestion(ctx context.Context, a Actor, id string) (ToolSuggestion, error) {
	if err := m.authorize(ctx, a, OpDismissToolSuggestion); err != nil {
		return ToolSuggestion{}, err
	}
	err := m.act(ctx, a, OpDismissToolSuggestion, needs{records: []recordRef{{kindToolSuggestion, id}}}, func(u *unit) error {
		s, ok, err := u.suggestion(id)
		switch {
		case err != nil:
			return err
		case !ok:
			return ErrNoSuggestion
		case s.Status != SuggestionPending:
			return ErrSuggestionDecided
		}
		e := u.event(a.who(), audit.ActionToolSuggestionDismissed)
		e.From, e.To = string(s.Status), string(SuggestionDismissed)
		s.Status, s.DismissedUntil = SuggestionDismissed, u.now+duration(SuggestionCooldown)
		e.Details = map[string]string{"dismissed_until": timestamp(s.DismissedUntil)}
		return u.putSuggestion(e, s)
	})
	if err != nil {
		return ToolSuggestion{}, err
	}
	return afterCommit(m.toolSuggestion(ctx, a.Organization, id))
}

// ToolSuggestions lists tool suggestions, the one that was made last first.
func (m *Manager) ToolSuggestions(ctx context.Context, a Actor, in ToolSuggestionsInput) ([]ToolSuggestion, error) {
	if err := m.authorize(ctx, a, OpReadToolSuggestions); err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	if err := checkTexts(in.After); err != nil {
		return nil, err
	}
	scan := storage.Scan{Kind: kindToolSuggestion, AfterID: in.After, Descending: true, Limit: limit}
	if in.Status != "" {
		if !in.Status.Known() {
			return nil, invalid("status", "is not a status of a suggestion")
		}
		scan.Index, scan.From, scan.To = indexStatus, string(in.Status), string(in.Status)+"\x01"
		if in.After != "" {
			scan.AfterValue = scan.From
		}
	}
	out := []ToolSuggestion{}
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		found, err := tx.ScanRecords(ctx, scan)
		if err != nil {
			return err
		}
		out, err = u.suggestionViews(ctx, tx, found)
		return err
	})
	return out, err
}

// ToolSuggestion reads one tool suggestion.
func (m *Manager) ToolSuggestion(ctx context.Context, a Actor, id string) (ToolSuggestion, error) {
	if err := m.authorize(ctx, a, OpReadToolSuggestions); err != nil {
		return ToolSuggestion{}, err
	}
	return m.toolSuggestion(ctx, a.Organization, id)
}

func (m *Manager) toolSuggestion(ctx context.Context, organization, id string) (out ToolSuggestion, err error) {
	if err := checkTexts(id); err != nil {
		return out, err
	}
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		r, ok, err := tx.Record(ctx, kindToolSuggestion, id)
		if err != nil {
			return err
		}
		if !ok {
			return ErrNoSuggestion
		}
		found, err := u.suggestionViews(ctx, tx, []storage.Record{r})
		if err == nil {
			out = found[0]
		}
		return err
	})
	return out, err
}

// ToolSupporters lists the agents that stand behind a tool suggestion, the one
// that asked last first.
func (m *Manager) ToolSupporters(ctx context.Context, a Actor, in ToolSupportersInput) (SupportersPage, error) {
	return m.supporters(ctx, a, OpReadToolSuggestions, kindToolSuggestion, kindToolSupporter, supportersInput(in))
}
