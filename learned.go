package agentkey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// SuggestInstructionsInput is what an agent learned about a tool, for those who
// use it next.
type SuggestInstructionsInput struct {
	Tool    string `validate:"required,max=128,id" json:"tool"`
	Learned string `validate:"utf16min=5,utf16max=2000,text" json:"learned"` // with at least one letter or digit
	Why     string `validate:"utf16min=5,utf16max=2000,text" json:"why"`
}

// InstructionsSuggested is the suggestion that an agent made or joined.
type InstructionsSuggested struct {
	ID       string
	Status   SuggestionStatus
	Existing bool // it was pending already, and has one more supporter or one more reason
}

// SettledInstructionsError says that the current version of a tool's instructions
// was decided on with the same suggestion in hand. It is an
// ErrInstructionsDismissed or an ErrInstructionsAccepted.
type SettledInstructionsError struct {
	Suggestion string
	Reason     string // why it was dismissed; empty when it was accepted
	cause      *Error
}

// Error is that of the sentinel.
func (e *SettledInstructionsError) Error() string { return e.cause.Error() }

// Unwrap gives the sentinel.
func (e *SettledInstructionsError) Unwrap() error { return e.cause }

// Kinds of records of what agents learned.
const (
	kindInstructionSuggestion = audit.KindInstructionSuggestion
	kindInstructionSupporter  = "tool_instruction_supporter" // id: the suggestion's, a slash, the agent's
)

// Further indexes of instruction suggestions, whose index "tool" holds the tool
// and a slash.
const (
	indexToolStatus = "tool_status" // the tool, a slash and the status
	indexLearned    = "identity"    // what was learned of which tool, and of which version
)

// learned is the record of an instruction suggestion.
type learned struct {
	id       string
	revision int64
	updated  int64
	learnedPayload
}

type learnedPayload struct {
	Tool             string             `json:"tool"`
	Base             string             `json:"base"` // the version that was current
	Number           int64              `json:"number"`
	Learned          string             `json:"learned"`
	Status           SuggestionStatus   `json:"status"`
	CreatedBy        string             `json:"created_by"`
	Supporters       int64              `json:"supporters"`
	Latest           []supporterPayload `json:"latest"` // the newest of them, so that a list needs no read for each
	FirstRequestedAt int64              `json:"first_requested_at"`
	LastRequestedAt  int64              `json:"last_requested_at"`
	DecidedBy        string             `json:"decided_by,omitempty"`
	DecidedByLabel   string             `json:"decided_by_label,omitempty"`
	DecidedAt        int64              `json:"decided_at,omitempty"`
	DismissalReason  string             `json:"dismissal_reason,omitempty"`
	Version          string             `json:"version,omitempty"` // that it was accepted with
}

func parseLearned(r storage.Record) (*learned, error) {
	p, err := parsePayload[learnedPayload](r)
	return &learned{id: r.ID, revision: r.Revision, updated: r.UpdatedAt, learnedPayload: p}, err
}

// learned gives an instruction suggestion that was read.
func (u *unit) learned(id string) (*learned, error) {
	r, ok := u.records[recordRef{kindInstructionSuggestion, id}]
	if !ok {
		return nil, ErrNoSuggestion
	}
	return parseLearned(r)
}

// putLearned writes an instruction suggestion as the target of the event that
// reports it.
func (u *unit) putLearned(e *entry, l *learned) error {
	e.Target = audit.Ref{Kind: audit.KindInstructionSuggestion, ID: l.id}
	e.Tool, e.To = l.Tool, string(l.Status)
	l.revision++
	return u.putPayload(e, storage.Record{
		Kind: kindInstructionSuggestion, ID: l.id, Index: l.index(), Revision: l.revision,
	}, l.learnedPayload)
}

func (l *learned) index() []storage.IndexEntry {
	entries := []storage.IndexEntry{
		{Name: indexTool, Value: l.Tool + "/"},
		{Name: indexStatus, Value: string(l.Status)},
		{Name: indexToolStatus, Value: l.Tool + "/" + string(l.Status)},
		{Name: indexLearned, Value: fmt.Sprintf("%s/%020d", learnedIdentity(l.Tool, l.Learned), l.Number)},
	}
	if l.Status == SuggestionPending {
		entries = append(entries, storage.IndexEntry{Name: requestedIndex, Value: waitingSince(l.LastRequestedAt)})
	}
	return entries
}

// learnedIdentity is what suggestions of one version are told apart by: the tool,
// and the words of what was learned. Texts are long, so it is a hash.
func learnedIdentity(tool, text string) string {
	sum := sha256.Sum256([]byte(tool + "\x00" + normalWords(text)))
	return hex.EncodeToString(sum[:])
}

// latestLearned finds of all suggestions with an identity the one that was made
// for the newest version: at most one is for the current one.
func latestLearned(identity string) storage.Scan {
	return storage.Scan{
		Kind: kindInstructionSuggestion, Index: indexLearned, From: identity + "/", To: identity + "0", Descending: true, Limit: 1,
	}
}

// SuggestInstructions lets an agent propose what it learned about a tool for the
// tool's instructions. The agent needs access to the tool at this moment. A
// suggestion is one for a version of the instructions: the same words again, with
// other punctuation or case, add a supporter to it as long as it is pending, and
// are a *SettledInstructionsError when it was decided on. Once the instructions
// have changed, everything may be proposed anew. Of many agents that propose the
// same at once, one makes the suggestion and the others support it.
//
// The errors: ErrUnauthenticated, ErrRefused with the reason as for a vend,
// ErrNotFound, ErrConflict, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) SuggestInstructions(ctx context.Context, c Caller, in SuggestInstructionsInput) (InstructionsSuggested, error) {
	c, err := m.admit(ctx, c, ratelimit.TierRequest)
	if err != nil {
		return InstructionsSuggested{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return InstructionsSuggested{}, err
	}
	if normalWords(in.Learned) == "" {
		return InstructionsSuggested{}, invalid("learned", "must hold a letter or a digit")
	}
	l := &learning{m: m, caller: c, in: in, id: newID()}
	n := c.needs()
	n.tools, n.pairs, n.credentials = []string{in.Tool}, []storage.Pair{{Agent: c.id, Tool: in.Tool}}, true
	n.records = []recordRef{guideRef(in.Tool)}
	n.scans = []storage.Scan{latestLearned(learnedIdentity(in.Tool, in.Learned))}
	n.follow = func(u *unit) (refs []recordRef) {
		for ref := range u.records {
			if ref.kind == kindInstructionSuggestion {
				refs = append(refs, recordRef{kindInstructionSupporter, ref.id + "/" + c.id})
			}
		}
		return refs
	}
	err = m.commit(ctx, &operation{organization: c.org, needs: n, decide: l.decide})
	if err == nil {
		err = l.refused
	}
	if err != nil {
		return InstructionsSuggested{}, err
	}
	return l.out, nil
}

// learning is one proposal of an agent and its answer.
type learning struct {
	m      *Manager
	caller Caller
	in     SuggestInstructionsInput
	id     string // of the suggestion, if this makes one

	refused error
	out     InstructionsSuggested
}

func (l *learning) decide(u *unit) error {
	l.refused, l.out = nil, InstructionsSuggested{}
	agent, refused := l.caller.authenticate(u)
	if refused != nil {
		l.refused = refused
		l.m.refuseAuthentication(u, l.caller, agent, refused)
		return nil
	}
	tool, ok := u.tools[l.in.Tool]
	g := u.grant(agent.ID, l.in.Tool)
	// Whoever may have the credential may say how to use it, there or not.
	d := grants.Decide(g, grants.Facts{
		Intact: true, OrganizationLocked: u.locked(), AgentActive: true, ToolPresent: ok, Credential: grants.CredentialFacts{Present: true},
	}, u.now)
	if !d.Allowed {
		if d.Next != nil {
			if err := u.settle(*d.Next, d.Event, agent, tool); err != nil {
				return err
			}
		}
		l.refuse(u, agent, tool, refusedFor(d.Reason), "")
		return nil
	}
	guide, _, err := u.guide(tool.ID)
	if err != nil {
		return err
	}
	same, err := u.sameLearned(guide)
	if err != nil {
		return err
	}
	switch {
	case same == nil:
		return l.propose(u, agent, tool, guide)
	case same.Status == SuggestionPending:
		return l.support(u, agent, tool, same)
	}
	cause := ErrInstructionsDismissed
	if same.Status == SuggestionAccepted {
		cause = ErrInstructionsAccepted
	}
	l.refuse(u, agent, tool, cause, same.id)
	l.refused = &SettledInstructionsError{Suggestion: same.id, Reason: same.DismissalReason, cause: cause}
	return nil
}

// sameLearned is the suggestion that was found, if it is for the current version.
func (u *unit) sameLearned(guide guidePayload) (*learned, error) {
	for ref := range u.records {
		if ref.kind != kindInstructionSuggestion {
			continue
		}
		l, err := u.learned(ref.id)
		if err != nil || l.Base == guide.Version {
			return l, err
		}
	}
	return nil, nil
}

// refuse records that an agent's proposal was turned away, the first time in a
// minute.
func (l *learning) refuse(u *unit, agent storage.Agent, tool storage.Tool, cause *Error, suggestion string) {
	l.refused = cause
	key := refusalKey{organization: u.organization, subject: agent.ID, tool: tool.ID, reason: "learned " + cause.Code + suggestion}
	l.m.refuse(u, key, func() {
		e := u.event(l.caller.who(agent.Name), audit.ActionToolInstructionSuggestionRefused)
		e.Outcome, e.Reason = audit.OutcomeRefused, cause.Code
		describe(e, agent, tool, u.grant(agent.ID, tool.ID))
		e.Target = audit.Ref{Kind: audit.KindAgent, ID: agent.ID}
		if suggestion != "" {
			e.Target = audit.Ref{Kind: audit.KindInstructionSuggestion, ID: suggestion}
		}
	})
}

// propose makes a suggestion, whose first supporter is the agent.
func (l *learning) propose(u *unit, agent storage.Agent, tool storage.Tool, guide guidePayload) error {
	s := &learned{id: l.id, learnedPayload: learnedPayload{
		Tool: tool.ID, Base: guide.Version, Number: guide.Number, Learned: l.in.Learned, CreatedBy: agent.ID,
		Status: SuggestionPending, FirstRequestedAt: u.now,
	}}
	if err := l.write(u, audit.ActionToolInstructionSuggestionCreated, agent, tool, s); err != nil {
		return err
	}
	return l.m.notify(u, Notification{
		Topic: TopicInstructionsSuggested, Suggestion: s.id, Agent: agent.ID, AgentName: agent.Name,
		Tool: tool.ID, ToolName: tool.Name, Learned: l.in.Learned, Reason: l.in.Why,
	})
}

func (l *learning) support(u *unit, agent storage.Agent, tool storage.Tool, s *learned) error {
	l.out.Existing = true
	return l.write(u, audit.ActionToolInstructionSuggestionSupported, agent, tool, s)
}

// write writes the suggestion and the agent's support of it.
func (l *learning) write(u *unit, action audit.Action, agent storage.Agent, tool storage.Tool, s *learned) error {
	l.out.ID, l.out.Status = s.id, s.Status
	e := u.event(l.caller.who(agent.Name), action)
	describe(e, agent, tool, u.grant(agent.ID, tool.ID))
	e.personal.Text = l.in.Why
	e.personal.Extra = map[string]string{"learned": l.in.Learned}
	if l.out.Existing {
		e.From = string(s.Status)
	}
	s.LastRequestedAt = u.now
	p, r, err := u.supporter(kindInstructionSupporter, s.id, agent.ID)
	if err != nil {
		return err
	}
	if r.Revision == 0 {
		s.Supporters++
	}
	p.Reason, p.Last = l.in.Why, u.now
	s.Latest = latestFirst(s.Latest, p)
	if err := u.putLearned(e, s); err != nil {
		return err
	}
	r.Revision++
	r.Index = []storage.IndexEntry{{Name: indexTool, Value: tool.ID + "/"}, {Name: indexSuggestion, Value: s.id + "/" + sortable(p.Last)}}
	return u.putPayload(e, r, p)
}

// acceptable is a suggestion that a change of a tool takes up: pending, and for
// the version that the change replaces.
func (u *unit) acceptable(tool, id string, guide guidePayload) (*learned, error) {
	l, err := u.learned(id)
	switch {
	case err != nil:
		return nil, err
	case l.Tool != tool:
		return nil, ErrNoSuggestion
	case l.Status != SuggestionPending:
		return nil, ErrSuggestionDecided
	case l.Base != guide.Version:
		return nil, ErrInstructionsChanged
	}
	return l, nil
}

// accept notes that a version of the instructions holds what was learned.
func (u *unit) accept(a Actor, tool storage.Tool, l *learned, version string) error {
	e := u.toolEvent(a, audit.ActionToolInstructionSuggestionAccepted, tool)
	e.Details = map[string]string{"version": version}
	e.From = string(l.Status)
	l.Status, l.Version = SuggestionAccepted, version
	l.DecidedBy, l.DecidedByLabel, l.DecidedAt = a.ID, a.Label, u.now
	return u.putLearned(e, l)
}

// DismissInstructionSuggestion ends a pending suggestion, whichever version it is
// for. The reason is shown to agents that propose the same for that version.
//
// The errors: ErrForbidden, ErrNotFound, ErrConflict when it is not pending,
// ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) DismissInstructionSuggestion(ctx context.Context, a Actor, id, reason string) (InstructionSuggestion, error) {
	if err := m.authorize(ctx, a, OpDismissInstructions); err != nil {
		return InstructionSuggestion{}, err
	}
	in := struct {
		Reason string `validate:"utf16min=5,utf16max=4000,text" json:"reason"`
	}{reason}
	if err := m.validation.input(&in); err != nil {
		return InstructionSuggestion{}, err
	}
	n := needs{records: []recordRef{{kindInstructionSuggestion, id}}, follow: func(u *unit) []recordRef {
		l, err := u.learned(id)
		if err != nil {
			return nil
		}
		return []recordRef{guideRef(l.Tool)}
	}}
	err := m.act(ctx, a, OpDismissInstructions, n, func(u *unit) error {
		l, err := u.learned(id)
		if err != nil {
			return err
		}
		if _, stands := u.records[guideRef(l.Tool)]; !stands {
			return ErrNoSuggestion // it goes with its tool
		}
		if l.Status != SuggestionPending {
			return ErrSuggestionDecided
		}
		e := u.event(a.who(), audit.ActionToolInstructionSuggestionDismissed)
		e.personal.Text = in.Reason
		e.From = string(l.Status)
		l.Status, l.DismissalReason = SuggestionDismissed, in.Reason
		l.DecidedBy, l.DecidedByLabel, l.DecidedAt = a.ID, a.Label, u.now
		return u.putLearned(e, l)
	})
	if err != nil {
		return InstructionSuggestion{}, err
	}
	return afterCommit(m.instructionSuggestion(ctx, a.Organization, id))
}
