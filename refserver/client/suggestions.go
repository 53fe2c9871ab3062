package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// ToolWish proposes a tool that the catalog lacks.
type ToolWish struct {
	Name   string `json:"name"`          // 2 to 120 UTF-16 units, with a letter or a digit
	URL    string `json:"url,omitempty"` // an http or https URL or a host name
	Reason string `json:"reason"`        // 5 to 500 UTF-16 units
}

// ToolSuggested is a suggestion that was made or joined.
type ToolSuggested struct {
	ID       string `json:"suggestion_id"`
	Status   string `json:"status"`
	Existing bool   `json:"existing"` // it was pending already
	Message  string `json:"message"`
}

// SuggestTool proposes a tool for the catalog. A tool that is there already, or
// that was dismissed less than a day ago, is an Error of status 409 whose Hint
// says what to do.
func (a *Agent) SuggestTool(ctx context.Context, in ToolWish) (ToolSuggested, error) {
	var out ToolSuggested
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: []string{"api", "tools", "suggest"}, body: in}, &out)
	return out, err
}

// Supporter is an agent that stands behind a suggestion.
type Supporter struct {
	Agent            string    `json:"agentId"`
	AgentName        string    `json:"agentName"`
	Reason           string    `json:"latestReason"`
	FirstRequestedAt time.Time `json:"firstRequestedAt"`
	LastRequestedAt  time.Time `json:"lastRequestedAt"`
}

// ToolSuggestion is a tool that agents ask to have in the catalog.
type ToolSuggestion struct {
	ID               string      `json:"id"`
	Name             string      `json:"name"`
	URL              *string     `json:"url"`
	Status           string      `json:"status"` // pending, dismissed or accepted
	SupporterCount   int64       `json:"supporterCount"`
	Supporters       []Supporter `json:"supporters"` // the 20 who asked last
	FirstRequestedAt time.Time   `json:"firstRequestedAt"`
	LastRequestedAt  time.Time   `json:"lastRequestedAt"`
	DismissedUntil   *time.Time  `json:"dismissedUntil"`
	Tool             *string     `json:"convertedToolId"` // that it was accepted for
}

// ToolSuggestions lists what agents suggest, the suggestion that was made last
// first: those of this status, or all.
func (a *Admin) ToolSuggestions(ctx context.Context, status string) iter.Seq2[ToolSuggestion, error] {
	return list[ToolSuggestion](ctx, a, query("status", status), "suggestions")
}

// ToolSuggestion gives one suggestion.
func (a *Admin) ToolSuggestion(ctx context.Context, id string) (ToolSuggestion, error) {
	return get[ToolSuggestion](ctx, a, "suggestions", id)
}

// ToolSupporters lists all who stand behind a suggestion, the one that asked last
// first.
func (a *Admin) ToolSupporters(ctx context.Context, id string) iter.Seq2[Supporter, error] {
	return list[Supporter](ctx, a, url.Values{}, "suggestions", id, "supporters")
}

// DismissToolSuggestion decides against a suggested tool. It can be suggested
// again after a day.
func (a *Admin) DismissToolSuggestion(ctx context.Context, id string) (ToolSuggestion, error) {
	return send[ToolSuggestion](ctx, a, http.MethodPost, nil, nil, "suggestions", id, "dismiss")
}
