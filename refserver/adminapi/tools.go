package adminapi

import (
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/storage"
)

type approvedAgent struct {
	Agent     string `json:"agentId"`
	AgentName string `json:"agentName"`
}

type pendingAgent struct {
	Request   string `json:"requestId"`
	Agent     string `json:"agentId"`
	AgentName string `json:"agentName"`
}

type toolItem struct {
	ID                string                 `json:"id"`
	Organization      string                 `json:"organizationId"`
	ConfigKey         string                 `json:"configKey"`
	Name              string                 `json:"name"`
	Description       string                 `json:"description"`
	URL               *string                `json:"url"`
	AuthType          string                 `json:"authType"`
	Mode              storage.CredentialMode `json:"credentialMode"`
	RequiredApprovals int64                  `json:"requiredApprovals"`
	Instructions      *string                `json:"instructions"`
	InstructionsAt    *string                `json:"currentInstructionVersionId"`
	HasCredential     bool                   `json:"credentialPresent"`
	RotatedAt         *string                `json:"credentialLastRotatedAt"`
	ExpiresAt         *string                `json:"credentialExpiresAt"`
	Health            agentkey.Health        `json:"healthStatus"`
	Approved          int64                  `json:"approvedAgents"`
	Pending           int64                  `json:"pendingAgents"`
	ApprovedList      []approvedAgent        `json:"approvedAgentList"` // these lists end at 20
	PendingList       []pendingAgent         `json:"pendingAgentList"`
	CreatedAt         string                 `json:"createdAt"`
	UpdatedAt         string                 `json:"updatedAt"`
}

func toolOf(v agentkey.ToolView) toolItem {
	return toolItem{
		ID: v.ID, Organization: v.Organization, ConfigKey: v.ConfigKey, Name: v.Name, Description: v.Description,
		URL: exchange.Optional(v.URL), AuthType: v.AuthType, Mode: v.Mode, RequiredApprovals: v.RequiredApprovals,
		Instructions: exchange.Optional(v.Instructions), InstructionsAt: exchange.Optional(v.InstructionVersion), HasCredential: v.Credential.Present,
		RotatedAt: exchange.OptionalTime(v.Credential.RotatedAt), ExpiresAt: exchange.OptionalTime(v.Credential.ExpiresAt),
		Health: v.Health, Approved: v.Approved.Count, Pending: v.Pending.Count,
		ApprovedList: each(v.Approved.Items, func(l agentkey.Link) approvedAgent { return approvedAgent{l.Agent, l.AgentName} }),
		PendingList:  each(v.Pending.Items, func(l agentkey.Link) pendingAgent { return pendingAgent{l.Request, l.Agent, l.AgentName} }),
		CreatedAt:    exchange.Time(v.CreatedAt), UpdatedAt: exchange.Time(v.UpdatedAt),
	}
}

func (a *api) listTools(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := page(q)
	if err := q.Err(); err != nil {
		return err
	}
	tools, err := a.manager.Tools(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, tools, in.Limit, func(v agentkey.ToolView) string { return v.ID })
	return data(x, http.StatusOK, each(tools, toolOf))
}

func (a *api) getTool(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	return answerTool(x, http.StatusOK)(a.manager.Tool(x.Ctx(), actor, id))
}

func answerTool(x *exchange.Exchange, status int) func(agentkey.ToolView, error) error {
	return func(v agentkey.ToolView, err error) error {
		if err != nil {
			return err
		}
		return data(x, status, toolOf(v))
	}
}

func (a *api) createTool(x *exchange.Exchange, actor agentkey.Actor) error {
	in := agentkey.AddToolInput{AuthType: "api_key", Mode: storage.Shared}
	defer func() { in.Credential.Destroy() }()
	var expires *time.Time
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("name", &in.Name)
		f.Text("description", &in.Description)
		f.Text("url", &in.URL)
		f.Text("authType", &in.AuthType)
		f.Text("credentialMode", (*string)(&in.Mode))
		f.Int("requiredApprovals", &in.RequiredApprovals)
		f.Text("instructions", &in.Instructions)
		f.Secret("credential", &in.Credential)
		f.Time("credentialExpiresAt", &expires)
		f.ID("sourceSuggestionId", &in.Suggestion)
		if expires != nil {
			in.CredentialExpiresAt = *expires
		}
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	return answerTool(x, http.StatusCreated)(a.manager.AddTool(x.Ctx(), actor, in))
}

func (a *api) updateTool(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.UpdateToolInput
	defer func() { in.Credential.Destroy() }()
	err := x.Read(needed, func(f *exchange.Fields) {
		f.OptionalText("name", &in.Name)
		f.OptionalText("description", &in.Description)
		f.OptionalText("url", &in.URL)
		f.OptionalInt("requiredApprovals", &in.RequiredApprovals)
		f.OptionalText("instructions", &in.Instructions)
		f.Secret("credential", &in.Credential)
		f.Time("credentialExpiresAt", &in.CredentialExpiresAt)
		f.ID("acceptedInstructionSuggestionId", &in.AcceptSuggestion)
		f.ID("restoreInstructionVersionId", &in.RestoreVersion)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	id, _ := x.PathID("id")
	return answerTool(x, http.StatusOK)(a.manager.UpdateTool(x.Ctx(), actor, id, in))
}

func (a *api) deleteTool(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	d, err := a.manager.DeleteTool(x.Ctx(), actor, id)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		ok
		ID       string `json:"tool_id"`
		Approved int    `json:"approved_revocations"`
		Pending  int    `json:"pending_revocations"`
	}{ok{true}, d.ID, d.ApprovedRevoked, d.PendingRevoked})
}

func (a *api) removeCredential(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	return answerTool(x, http.StatusOK)(a.manager.RemoveCredential(x.Ctx(), actor, id))
}
