package adminapi

import (
	"errors"
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type versionItem struct {
	ID           string                     `json:"id"`
	Organization string                     `json:"organizationId"`
	Tool         string                     `json:"toolId"`
	Number       int64                      `json:"number"`
	Instructions string                     `json:"instructions"`
	Source       agentkey.InstructionSource `json:"source"`
	Suggestion   *string                    `json:"suggestionId"`
	RestoredFrom *string                    `json:"restoredFromVersionId"`
	CreatedBy    string                     `json:"createdByUserId"`
	CreatedLabel *string                    `json:"createdByEmail"`
	CreatedAt    string                     `json:"createdAt"`
	Current      bool                       `json:"current"`
}

func versionOf(v agentkey.InstructionVersion) versionItem {
	return versionItem{
		ID: v.ID, Organization: v.Organization, Tool: v.Tool, Number: v.Number, Instructions: v.Instructions, Source: v.Source,
		Suggestion: exchange.Optional(v.Suggestion), RestoredFrom: exchange.Optional(v.RestoredFrom),
		CreatedBy: v.CreatedBy, CreatedLabel: exchange.Optional(v.CreatedByLabel), CreatedAt: exchange.Time(v.CreatedAt), Current: v.Current,
	}
}

// listVersions answers an unknown tool with an empty list, as the contract has it.
func (a *api) listVersions(x *exchange.Exchange, actor agentkey.Actor) error {
	tool, ok := x.PathID("id")
	q := x.Query()
	in := agentkey.InstructionVersionsInput{Tool: tool, After: q.ID("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	page, err := a.manager.InstructionVersions(x.Ctx(), actor, in)
	if err != nil && !(ok && errors.Is(err, agentkey.ErrNoTool)) {
		return err
	}
	if page.Next != "" {
		x.NextPage(page.Next)
	}
	return data(x, http.StatusOK, each(page.Versions, versionOf))
}

func (a *api) getVersion(x *exchange.Exchange, actor agentkey.Actor) error {
	tool, _ := x.PathID("id")
	id, _ := x.PathID("versionId")
	v, err := a.manager.InstructionVersion(x.Ctx(), actor, tool, id)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, versionOf(v))
}

type diffLine struct {
	Op   agentkey.DiffOp `json:"op"`
	Text string          `json:"text"`
	From *int            `json:"fromLine"`
	To   *int            `json:"toLine"`
}

type diffItem struct {
	From    *versionItem `json:"from"` // null: before the first version
	To      versionItem  `json:"to"`
	Unified string       `json:"unified"`
	Lines   []diffLine   `json:"lines"`
}

func lineOf(l agentkey.DiffLine) diffLine {
	return diffLine{Op: l.Op, Text: l.Text, From: optionalInt(l.From), To: optionalInt(l.To)}
}

func optionalInt(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// diffVersions compares two versions; without from and to it shows the last change.
func (a *api) diffVersions(x *exchange.Exchange, actor agentkey.Actor) error {
	tool, _ := x.PathID("id")
	q := x.Query()
	from, to := q.ID("from"), q.ID("to")
	if err := q.Err(); err != nil {
		return err
	}
	d, err := a.manager.DiffInstructions(x.Ctx(), actor, tool, from, to)
	if err != nil {
		return err
	}
	item := diffItem{To: versionOf(d.To), Unified: d.Unified, Lines: each(d.Lines, lineOf)}
	if d.From.ID != "" {
		item.From = new(versionOf(d.From))
	}
	return data(x, http.StatusOK, item)
}

type instructionSupporter struct {
	Agent            string `json:"agentId"`
	AgentName        string `json:"agentName"`
	Why              string `json:"latestWhy"`
	FirstRequestedAt string `json:"firstRequestedAt"`
	LastRequestedAt  string `json:"lastRequestedAt"`
}

func instructionSupporterOf(s agentkey.Supporter) instructionSupporter {
	return instructionSupporter{s.Agent, s.AgentName, s.Reason, exchange.Time(s.FirstRequestedAt), exchange.Time(s.LastRequestedAt)}
}

type instructionSuggestionItem struct {
	Kind             agentkey.InboxKind        `json:"kind"`
	ID               string                    `json:"id"`
	Organization     string                    `json:"organizationId"`
	Tool             string                    `json:"toolId"`
	ToolName         string                    `json:"toolName"`
	Base             string                    `json:"baseVersionId"`
	BaseNumber       int64                     `json:"baseVersionNumber"`
	Stale            bool                      `json:"stale"` // for an older version: it can't be accepted any more
	Learned          string                    `json:"learned"`
	Status           agentkey.SuggestionStatus `json:"status"`
	SupporterCount   int64                     `json:"supporterCount"`
	Supporters       []instructionSupporter    `json:"supporters"` // ends at 20
	FirstRequestedAt string                    `json:"firstRequestedAt"`
	LastRequestedAt  string                    `json:"lastRequestedAt"`
	RequestedAt      string                    `json:"requestedAt"`
	DismissalReason  *string                   `json:"dismissalReason"`
	Accepted         *string                   `json:"acceptedVersionId"`
	DecidedBy        *string                   `json:"decidedByUserId"`
	DecidedLabel     *string                   `json:"decidedByEmail"`
	DecidedAt        *string                   `json:"decidedAt"`
}

func instructionSuggestionOf(s agentkey.InstructionSuggestion) instructionSuggestionItem {
	return instructionSuggestionItem{
		Kind: agentkey.InboxInstructionSuggestion, ID: s.ID, Organization: s.Organization, Tool: s.Tool, ToolName: s.ToolName,
		Base: s.BaseVersion, BaseNumber: s.BaseNumber, Stale: s.Stale, Learned: s.Learned, Status: s.Status,
		SupporterCount: s.SupporterCount, Supporters: each(s.Supporters, instructionSupporterOf),
		FirstRequestedAt: exchange.Time(s.FirstRequestedAt), LastRequestedAt: exchange.Time(s.LastRequestedAt), RequestedAt: exchange.Time(s.LastRequestedAt),
		DismissalReason: exchange.Optional(s.DismissalReason), Accepted: exchange.Optional(s.AcceptedVersion),
		DecidedBy: exchange.Optional(s.DecidedBy), DecidedLabel: exchange.Optional(s.DecidedByLabel), DecidedAt: exchange.OptionalTime(s.DecidedAt),
	}
}

func (a *api) listInstructionSuggestions(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := agentkey.InstructionSuggestionsInput{
		Tool: q.ID("tool_id"), Status: agentkey.SuggestionStatus(q.Text("status")), After: q.ID("cursor"), Limit: q.Limit(),
	}
	if q.Has("status") && !in.Status.Known() {
		q.Refuse("status", "must be one of pending, dismissed, accepted")
	}
	if err := q.Err(); err != nil {
		return err
	}
	page, err := a.manager.InstructionSuggestions(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	if page.Next != "" {
		x.NextPage(page.Next)
	}
	return data(x, http.StatusOK, each(page.Suggestions, instructionSuggestionOf))
}

func answerInstructionSuggestion(x *exchange.Exchange) func(agentkey.InstructionSuggestion, error) error {
	return func(s agentkey.InstructionSuggestion, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, instructionSuggestionOf(s))
	}
}

func (a *api) getInstructionSuggestion(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	return answerInstructionSuggestion(x)(a.manager.InstructionSuggestion(x.Ctx(), actor, id))
}

func (a *api) dismissInstructionSuggestion(x *exchange.Exchange, actor agentkey.Actor) error {
	var reason string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Text("reason", &reason) }); err != nil {
		return err
	}
	id, _ := x.PathID("id")
	return answerInstructionSuggestion(x)(a.manager.DismissInstructionSuggestion(x.Ctx(), actor, id, reason))
}

func (a *api) listInstructionSupporters(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	q := x.Query()
	in := agentkey.InstructionSupportersInput{Suggestion: id, Cursor: q.Text("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	page, err := a.manager.InstructionSupporters(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	if page.Next != "" {
		x.NextPage(page.Next)
	}
	return data(x, http.StatusOK, each(page.Supporters, instructionSupporterOf))
}
