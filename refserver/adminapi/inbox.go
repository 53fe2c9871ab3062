package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/storage"
)

type requestItem struct {
	Kind             agentkey.InboxKind     `json:"kind"`
	ID               string                 `json:"id"`
	Agent            string                 `json:"agentId"`
	AgentName        string                 `json:"agentName"`
	AgentDescription string                 `json:"agentDescription"`
	Tool             string                 `json:"toolId"`
	ToolName         string                 `json:"toolName"`
	ToolMode         storage.CredentialMode `json:"toolCredentialMode"`
	Reason           string                 `json:"reason"`
	RequestedAt      string                 `json:"requestedAt"`
	Ticket           *string                `json:"ticket"`
	Approvals        int64                  `json:"approvals"`
	Required         int64                  `json:"requiredApprovals"`
	Asked            terms                  `json:"asked"`
}

func requestOf(r *agentkey.Request) requestItem {
	return requestItem{
		Kind: agentkey.InboxAccessRequest, ID: r.ID, Agent: r.Agent, AgentName: r.AgentName, AgentDescription: r.AgentDescription,
		Tool: r.Tool, ToolName: r.ToolName, ToolMode: r.ToolMode, Reason: r.Reason, RequestedAt: exchange.Time(r.RequestedAt),
		Ticket: exchange.Optional(r.Ticket), Approvals: r.Approvals, Required: r.RequiredApprovals, Asked: termsOf(r.Asked),
	}
}

// inboxItem is an item in the shape of its kind.
func inboxItem(i agentkey.InboxItem) any {
	if i.ToolSuggestion != nil {
		return inboxSuggestion{i.Kind, suggestionOf(*i.ToolSuggestion)}
	}
	if i.InstructionSuggestion != nil {
		return instructionSuggestionOf(*i.InstructionSuggestion)
	}
	return requestOf(i.Request)
}

// listInbox is everything that waits for a person.
func (a *api) listInbox(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := agentkey.InboxInput{Kind: agentkey.InboxKind(q.Text("kind")), Cursor: q.Text("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	found, err := a.manager.Inbox(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	if found.Next != "" {
		x.NextPage(found.Next)
	}
	return data(x, http.StatusOK, each(found.Items, inboxItem))
}
