package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// InstructionVersion is one version of the instructions that agents get with a
// tool's credential.
type InstructionVersion struct {
	ID           string    `json:"id"`
	Tool         string    `json:"toolId"`
	Number       int64     `json:"number"` // 1 for the one that the tool was added with
	Instructions string    `json:"instructions"`
	Source       string    `json:"source"` // tool_create, manual, suggestion_accept or restore
	Suggestion   *string   `json:"suggestionId"`
	RestoredFrom *string   `json:"restoredFromVersionId"`
	CreatedBy    *string   `json:"createdByEmail"`
	CreatedAt    time.Time `json:"createdAt"`
	Current      bool      `json:"current"`
}

// InstructionsDiff is what changed between two versions.
type InstructionsDiff struct {
	From    *InstructionVersion `json:"from"` // nil: before the first one there was no text
	To      InstructionVersion  `json:"to"`
	Unified string              `json:"unified"` // empty when nothing changed
	Lines   []DiffLine          `json:"lines"`
}

// DiffLine is a line of either text, or of both.
type DiffLine struct {
	Op   string `json:"op"` // equal, removed or added
	Text string `json:"text"`
	From *int   `json:"fromLine"`
	To   *int   `json:"toLine"`
}

// InstructionSuggestion is what agents learned about a tool.
type InstructionSuggestion struct {
	ID              string                 `json:"id"`
	Tool            string                 `json:"toolId"`
	ToolName        string                 `json:"toolName"`
	Base            string                 `json:"baseVersionId"`
	Stale           bool                   `json:"stale"` // for an older version: it can't be accepted any more
	Learned         string                 `json:"learned"`
	Status          string                 `json:"status"` // pending, dismissed or accepted
	SupporterCount  int64                  `json:"supporterCount"`
	Supporters      []InstructionSupporter `json:"supporters"` // the newest 20
	LastRequestedAt time.Time              `json:"lastRequestedAt"`
	DismissalReason *string                `json:"dismissalReason"`
	AcceptedVersion *string                `json:"acceptedVersionId"`
	DecidedBy       *string                `json:"decidedByEmail"`
	DecidedAt       *time.Time             `json:"decidedAt"`
}

// InstructionSupporter is an agent that stands behind a suggestion.
type InstructionSupporter struct {
	Agent           string    `json:"agentId"`
	AgentName       string    `json:"agentName"`
	Why             string    `json:"latestWhy"`
	LastRequestedAt time.Time `json:"lastRequestedAt"`
}

// InstructionVersions lists the versions of a tool's instructions, newest first.
func (a *Admin) InstructionVersions(ctx context.Context, tool string) iter.Seq2[InstructionVersion, error] {
	return list[InstructionVersion](ctx, a, url.Values{}, "tools", tool, "instructions", "history")
}

// InstructionVersion gives one version.
func (a *Admin) InstructionVersion(ctx context.Context, tool, id string) (InstructionVersion, error) {
	return get[InstructionVersion](ctx, a, "tools", tool, "instructions", "history", id)
}

// DiffInstructions compares two versions. An empty to is the current one, an empty
// from the one before to.
func (a *Admin) DiffInstructions(ctx context.Context, tool, from, to string) (InstructionsDiff, error) {
	var out data[InstructionsDiff]
	_, err := a.c.do(ctx, call{
		method: http.MethodGet, path: adminPath("tools", tool, "instructions", "diff"), query: query("from", from, "to", to), again: true,
	}, &out)
	return out.Data, err
}

// InstructionSuggestions lists what agents propose, the newest suggestion first:
// for one tool or for all, of one status or of all.
func (a *Admin) InstructionSuggestions(ctx context.Context, tool, status string) iter.Seq2[InstructionSuggestion, error] {
	return list[InstructionSuggestion](ctx, a, query("tool_id", tool, "status", status), "instruction-suggestions")
}

// InstructionSuggestion gives one suggestion.
func (a *Admin) InstructionSuggestion(ctx context.Context, id string) (InstructionSuggestion, error) {
	return get[InstructionSuggestion](ctx, a, "instruction-suggestions", id)
}

// InstructionSupporters lists the agents behind a suggestion, the one that asked
// last first.
func (a *Admin) InstructionSupporters(ctx context.Context, id string) iter.Seq2[InstructionSupporter, error] {
	return list[InstructionSupporter](ctx, a, url.Values{}, "instruction-suggestions", id, "supporters")
}

// DismissInstructionSuggestion ends a pending suggestion. The reason is shown to
// agents that propose the same again. To accept one, see ToolChange.
func (a *Admin) DismissInstructionSuggestion(ctx context.Context, id, reason string) (InstructionSuggestion, error) {
	return send[InstructionSuggestion](ctx, a, http.MethodPost, reasonBody(reason), nil, "instruction-suggestions", id, "dismiss")
}

// InstructionsSuggested is the suggestion that an agent made or joined.
type InstructionsSuggested struct {
	ID       string `json:"suggestion_id"`
	Status   string `json:"status"`
	Existing bool   `json:"existing"`
	Message  string `json:"message"`
}

// SuggestInstructions says what the agent learned about a tool, and why that
// matters. What was decided on already is an Error of status 409 with its
// Suggestion and, where it was dismissed, the DismissalReason.
func (a *Agent) SuggestInstructions(ctx context.Context, tool, learned, why string) (InstructionsSuggested, error) {
	body := struct {
		Learned string `json:"learned"`
		Why     string `json:"why"`
	}{learned, why}
	var out InstructionsSuggested
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: []string{"api", "tools", tool, "instructions", "suggest"}, body: body}, &out)
	return out, err
}
