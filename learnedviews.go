package agentkey

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// InstructionSuggestion is what agents learned about a tool and propose for its
// instructions.
type InstructionSuggestion struct {
	ID               string
	Organization     string
	Tool             string
	ToolName         string
	BaseVersion      string // the version of the instructions that it is for
	BaseNumber       int64
	Stale            bool // of a pending one: that version is not the current one, so that it can't be accepted any more
	Learned          string
	Status           SuggestionStatus
	CreatedBy        string // the first supporter's id
	SupporterCount   int64
	Supporters       []Supporter // the 20 whose last request is newest
	FirstRequestedAt int64
	LastRequestedAt  int64
	DecidedBy        string
	DecidedByLabel   string
	DecidedAt        int64
	DismissalReason  string
	AcceptedVersion  string // the version that holds it
	UpdatedAt        int64
	Revision         int64
}

// InstructionSuggestionsInput asks for a page of instruction suggestions, the one
// that was made last first.
type InstructionSuggestionsInput struct {
	Tool   string           // empty: of every tool
	Status SuggestionStatus // empty: all
	After  string           // Next of the page before
	Limit  int              // 1 to 500; 0: 100
}

// InstructionSuggestionsPage is a page of instruction suggestions. It may hold
// fewer than were asked for although there are more.
type InstructionSuggestionsPage struct {
	Suggestions []InstructionSuggestion
	Next        string // the After of the next page; empty: there are no more
}

// InstructionSupportersInput asks for a page of a suggestion's supporters, the one
// that asked last first.
type InstructionSupportersInput struct {
	Suggestion string
	Cursor     string // Next of the page before
	Limit      int    // 1 to 500; 0: 100
}

// InstructionSuggestions lists what agents propose for tools' instructions, the
// suggestion that was made last first.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) InstructionSuggestions(ctx context.Context, a Actor, in InstructionSuggestionsInput) (InstructionSuggestionsPage, error) {
	if err := m.authorize(ctx, a, OpReadInstructions); err != nil {
		return InstructionSuggestionsPage{}, err
	}
	scan, err := in.scan()
	if err != nil {
		return InstructionSuggestionsPage{}, err
	}
	var out InstructionSuggestionsPage
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = InstructionSuggestionsPage{}
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		found, err := u.scan(ctx, tx, scan)
		if err != nil {
			return err
		}
		if len(found) == scan.Limit {
			out.Next = found[len(found)-1].ID
		}
		out.Suggestions, err = u.learnedViews(ctx, tx, found)
		return err
	})
	return out, err
}

// scan is where the page is found.
func (in InstructionSuggestionsInput) scan() (s storage.Scan, err error) {
	s = storage.Scan{Kind: kindInstructionSuggestion, AfterID: in.After, Descending: true}
	if s.Limit, err = pageLimit(in.Limit); err != nil {
		return s, err
	}
	if in.Status != "" && !in.Status.Known() {
		return s, invalid("status", "is not a status of a suggestion")
	}
	value := ""
	switch {
	case in.Tool != "" && in.Status != "":
		s.Index, value = indexToolStatus, in.Tool+"/"+string(in.Status)
	case in.Tool != "":
		s.Index, value = indexTool, in.Tool+"/"
	case in.Status != "":
		s.Index, value = indexStatus, string(in.Status)
	}
	if s.Index != "" {
		s.From, s.To = value, value+"\x01"
	}
	if in.After != "" {
		s.AfterValue = value
	}
	return s, checkTexts(in.Tool, in.After)
}

// InstructionSuggestion reads one instruction suggestion.
//
// The errors: ErrForbidden, ErrNotFound, ErrLimited, ErrUnavailable.
func (m *Manager) InstructionSuggestion(ctx context.Context, a Actor, id string) (InstructionSuggestion, error) {
	if err := m.authorize(ctx, a, OpReadInstructions); err != nil {
		return InstructionSuggestion{}, err
	}
	return m.instructionSuggestion(ctx, a.Organization, id)
}

func (m *Manager) instructionSuggestion(ctx context.Context, organization, id string) (out InstructionSuggestion, err error) {
	ref := recordRef{kindInstructionSuggestion, id}
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{records: []recordRef{ref}}); err != nil {
			return err
		}
		r, ok := u.records[ref]
		if !ok {
			return ErrNoSuggestion
		}
		found, err := u.learnedViews(ctx, tx, []storage.Record{r})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return ErrNoSuggestion
		}
		out = found[0]
		return nil
	})
	return out, err
}

// learnedViews gives instruction suggestions as administrators see them, without
// those that go with a deleted tool. It reads the names of all agents, all tools
// and their current versions at once.
func (u *unit) learnedViews(ctx context.Context, tx storage.ReadTx, found []storage.Record) ([]InstructionSuggestion, error) {
	all := make([]*learned, len(found))
	var behind []supporterPayload
	var toolIDs []string
	var guides []recordRef
	for i, r := range found {
		var err error
		if all[i], err = parseLearned(r); err != nil {
			return nil, err
		}
		behind = append(behind, all[i].Latest...)
		toolIDs = append(toolIDs, all[i].Tool)
		guides = append(guides, guideRef(all[i].Tool))
	}
	if err := u.loadNamed(ctx, tx, guides); err != nil {
		return nil, err
	}
	names, err := u.agentNames(ctx, tx, behind)
	if err != nil {
		return nil, err
	}
	tools, err := u.toolNames(ctx, tx, toolIDs)
	if err != nil {
		return nil, err
	}
	out := make([]InstructionSuggestion, 0, len(all))
	for _, l := range all {
		tool, ok := tools[l.Tool]
		if !ok {
			continue
		}
		out = append(out, InstructionSuggestion{
			ID: l.id, Organization: u.organization, Tool: l.Tool, ToolName: tool.Name, BaseVersion: l.Base, BaseNumber: l.Number,
			Stale: l.Status == SuggestionPending && l.Base != u.currentVersion(l.Tool), Learned: l.Learned, Status: l.Status, CreatedBy: l.CreatedBy,
			SupporterCount: l.Supporters, Supporters: supporters(l.Latest, names),
			FirstRequestedAt: l.FirstRequestedAt, LastRequestedAt: l.LastRequestedAt,
			DecidedBy: l.DecidedBy, DecidedByLabel: l.DecidedByLabel, DecidedAt: l.DecidedAt, DismissalReason: l.DismissalReason,
			AcceptedVersion: l.Version, UpdatedAt: l.updated, Revision: l.revision,
		})
	}
	return out, nil
}

// waitingLearned are the suggestions in the inbox.
func waitingLearned(ctx context.Context, tx storage.ReadTx, u *unit, found []storage.Record) ([]InboxItem, error) {
	views, err := u.learnedViews(ctx, tx, found)
	out := make([]InboxItem, 0, len(views))
	for i, v := range views {
		if v.Status == SuggestionPending {
			out = append(out, InboxItem{Kind: InboxInstructionSuggestion, ID: v.ID, RequestedAt: v.LastRequestedAt, InstructionSuggestion: &views[i]})
		}
	}
	return out, err
}

// InstructionSupporters lists the agents that stand behind an instruction
// suggestion, the one that asked last first.
//
// The errors: ErrForbidden, ErrNotFound, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) InstructionSupporters(ctx context.Context, a Actor, in InstructionSupportersInput) (SupportersPage, error) {
	return m.supporters(ctx, a, OpReadInstructions, kindInstructionSuggestion, kindInstructionSupporter, supportersInput(in))
}
