package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type supporter struct {
	Agent            string `json:"agentId"`
	AgentName        string `json:"agentName"`
	Reason           string `json:"latestReason"`
	FirstRequestedAt string `json:"firstRequestedAt"`
	LastRequestedAt  string `json:"lastRequestedAt"`
}

type suggestionItem struct {
	ID               string                    `json:"id"`
	Organization     string                    `json:"organizationId"`
	Name             string                    `json:"name"`
	URL              *string                   `json:"url"`
	Status           agentkey.SuggestionStatus `json:"status"`
	SupporterCount   int64                     `json:"supporterCount"`
	Supporters       []supporter               `json:"supporters"` // ends at 20
	FirstRequestedAt string                    `json:"firstRequestedAt"`
	LastRequestedAt  string                    `json:"lastRequestedAt"`
	RequestedAt      string                    `json:"requestedAt"`
	DismissedUntil   *string                   `json:"dismissedUntil"`
	Tool             *string                   `json:"convertedToolId"`
	CreatedAt        string                    `json:"createdAt"`
	UpdatedAt        string                    `json:"updatedAt"`
}

// inboxSuggestion is a suggestion among the other items of the inbox.
type inboxSuggestion struct {
	Kind agentkey.InboxKind `json:"kind"`
	suggestionItem
}

func supporterOf(s agentkey.Supporter) supporter {
	return supporter{s.Agent, s.AgentName, s.Reason, exchange.Time(s.FirstRequestedAt), exchange.Time(s.LastRequestedAt)}
}

func suggestionOf(s agentkey.ToolSuggestion) suggestionItem {
	return suggestionItem{
		ID: s.ID, Organization: s.Organization, Name: s.Name, URL: exchange.Optional(s.URL), Status: s.Status,
		SupporterCount: s.SupporterCount, Supporters: each(s.Supporters, supporterOf),
		FirstRequestedAt: exchange.Time(s.FirstRequestedAt), LastRequestedAt: exchange.Time(s.LastRequestedAt),
		RequestedAt: exchange.Time(s.LastRequestedAt), DismissedUntil: exchange.OptionalTime(s.DismissedUntil),
		Tool: exchange.Optional(s.Tool), CreatedAt: exchange.Time(s.FirstRequestedAt), UpdatedAt: exchange.Time(s.UpdatedAt),
	}
}

func (a *api) listSuggestions(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := agentkey.ToolSuggestionsInput{Status: agentkey.SuggestionStatus(q.Text("status")), After: q.ID("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	found, err := a.manager.ToolSuggestions(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, found, in.Limit, func(s agentkey.ToolSuggestion) string { return s.ID })
	return data(x, http.StatusOK, each(found, suggestionOf))
}

func (a *api) getSuggestion(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	return answerSuggestion(x)(a.manager.ToolSuggestion(x.Ctx(), actor, id))
}

func (a *api) dismissSuggestion(x *exchange.Exchange, actor agentkey.Actor) error {
	if x.ForeignOrigin() {
		return errForeign
	}
	id, _ := x.PathID("id")
	return answerSuggestion(x)(a.manager.DismissToolSuggestion(x.Ctx(), actor, id))
}

func answerSuggestion(x *exchange.Exchange) func(agentkey.ToolSuggestion, error) error {
	return func(s agentkey.ToolSuggestion, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, suggestionOf(s))
	}
}

// listSupporters is all who stand behind a suggestion, the one that asked last
// first.
func (a *api) listSupporters(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	q := x.Query()
	in := agentkey.ToolSupportersInput{Suggestion: id, Cursor: q.Text("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	page, err := a.manager.ToolSupporters(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	if page.Next != "" {
		x.NextPage(page.Next)
	}
	return data(x, http.StatusOK, each(page.Supporters, supporterOf))
}
