package adminapi

import (
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
