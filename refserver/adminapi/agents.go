package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/storage"
)

type grantedTool struct {
	Tool     string `json:"toolId"`
	ToolName string `json:"toolName"`
}

type pendingTool struct {
	Request  string                 `json:"requestId"`
	Tool     string                 `json:"toolId"`
	ToolName string                 `json:"toolName"`
	Mode     storage.CredentialMode `json:"toolCredentialMode"`
}

type agentItem struct {
	ID             string              `json:"id"`
	Organization   string              `json:"organizationId"`
	Name           string              `json:"name"`
	Description    string              `json:"description"`
	Owner          *string             `json:"owner"`
	CreatedBy      *string             `json:"createdByUserId"`
	CreatedByEmail *string             `json:"createdByEmail"`
	Status         storage.AgentStatus `json:"status"`
	CreatedAt      string              `json:"createdAt"`
	UpdatedAt      string              `json:"updatedAt"`
	LastActiveAt   *string             `json:"lastActiveAt"`
	GrantedNames   []string            `json:"toolsGranted"`
	PendingNames   []string            `json:"toolsPending"`
	Granted        []grantedTool       `json:"grantedTools"`
	Pending        []pendingTool       `json:"pendingTools"`
	GrantedCount   int64               `json:"grantedToolsCount"` // the lists end at 20
	PendingCount   int64               `json:"pendingToolsCount"`
}

func agentOf(v agentkey.AgentView) agentItem {
	toolName := func(l agentkey.Link) string { return l.ToolName }
	return agentItem{
		ID: v.ID, Organization: v.Organization, Name: v.Name, Description: v.Description,
		Owner: exchange.Optional(v.Owner), CreatedBy: exchange.Optional(v.CreatedBy), CreatedByEmail: exchange.Optional(v.CreatedByLabel),
		Status: v.Status, CreatedAt: exchange.Time(v.CreatedAt), UpdatedAt: exchange.Time(v.UpdatedAt),
		LastActiveAt: exchange.OptionalTime(v.LastActiveAt),
		GrantedNames: each(v.Granted.Items, toolName), PendingNames: each(v.Pending.Items, toolName),
		Granted: each(v.Granted.Items, func(l agentkey.Link) grantedTool { return grantedTool{l.Tool, l.ToolName} }),
		Pending: each(v.Pending.Items, func(l agentkey.Link) pendingTool {
			return pendingTool{l.Request, l.Tool, l.ToolName, l.ToolMode}
		}),
		GrantedCount: v.Granted.Count, PendingCount: v.Pending.Count,
	}
}

func (a *api) listAgents(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := page(q)
	if err := q.Err(); err != nil {
		return err
	}
	agents, err := a.manager.Agents(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, agents, in.Limit, func(v agentkey.AgentView) string { return v.ID })
	return data(x, http.StatusOK, each(agents, agentOf))
}

func (a *api) getAgent(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	v, err := a.manager.Agent(x.Ctx(), actor, id)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, agentOf(v))
}

// instructions tell who runs the agent what to do with a new key.
const instructions = "Give this key to the agent as a secret, such as the environment variable AGENTKEY_API_KEY; it is not shown again. " +
	"The agent sends it as `Authorization: Bearer <key>`, lists the tools with GET /api/tools, asks for one with " +
	"POST /api/tools/{tool_id}/request, and, once a person has approved, fetches its credential with " +
	"GET /api/tools/{tool_id}/credentials each time that it needs it."

func (a *api) createAgent(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.RegisterAgentInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("name", &in.Name)
		f.Text("description", &in.Description)
		f.Text("owner", &in.Owner)
		f.Seconds("keyExpiresIn", &in.KeyExpiresIn)
		f.Texts("addresses", &in.Addresses)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	issued, err := a.manager.RegisterAgent(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	defer issued.Secret.Destroy()
	o := issuedKey(issued)
	o.Field("agent", agentOf(agentkey.AgentView{Agent: issued.Agent}))
	return x.Secret(http.StatusCreated, o)
}

func issuedKey(issued agentkey.IssuedKey) *exchange.ObjectWriter {
	o := exchange.Enveloped()
	o.Field("agent_id", issued.Agent.ID)
	o.Secret("api_key", issued.Secret)
	o.Field("instructions", instructions)
	return o
}

func (a *api) updateAgent(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.UpdateAgentInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.OptionalText("name", &in.Name)
		f.OptionalText("description", &in.Description)
		f.OptionalText("owner", &in.Owner)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	id, _ := x.PathID("id")
	v, err := a.manager.UpdateAgent(x.Ctx(), actor, id, in)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, agentOf(v))
}

// suspendAgent is DELETE of an agent, which deletes nothing.
func (a *api) suspendAgent(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	s, err := a.manager.SuspendAgent(x.Ctx(), actor, id)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		ok
		Revoked int `json:"revoked"`
	}{ok{true}, s.Revoked})
}

// reactivateAgent answers with an agent that has no grants, whatever it had.
func (a *api) reactivateAgent(x *exchange.Exchange, actor agentkey.Actor) error {
	if err := x.Read(optional, func(*exchange.Fields) {}); err != nil {
		return err
	}
	id, _ := x.PathID("id")
	agent, err := a.manager.ReactivateAgent(x.Ctx(), actor, id)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, agentOf(agentkey.AgentView{Agent: agent}))
}

var errForeign = &exchange.Error{
	Status: http.StatusForbidden, Code: "origin", Text: "the request comes from another site",
	Hint: "Send it from your own process, without an Origin header.",
}

func (a *api) rotateKey(x *exchange.Exchange, actor agentkey.Actor) error {
	if x.ForeignOrigin() {
		return errForeign
	}
	var in agentkey.RotateKeyInput
	err := x.Read(optional, func(f *exchange.Fields) {
		f.Seconds("grace", &in.Grace)
		f.Seconds("expiresIn", &in.ExpiresIn)
		f.Texts("addresses", &in.Addresses)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	id, _ := x.PathID("id")
	issued, err := a.manager.RotateKey(x.Ctx(), actor, id, in)
	if err != nil {
		return err
	}
	defer issued.Secret.Destroy()
	o := issuedKey(issued)
	o.Field("key", keyOf(issued.Key))
	return x.Secret(http.StatusOK, o)
}

type keyItem struct {
	ID        string            `json:"id"`
	Agent     string            `json:"agentId"`
	Status    storage.KeyStatus `json:"status"`
	ExpiresAt *string           `json:"expiresAt"`
	Addresses []string          `json:"addresses"`
	CreatedAt string            `json:"createdAt"`
}

func keyOf(k agentkey.AgentKey) keyItem {
	return keyItem{k.ID, k.Agent, k.Status, exchange.OptionalTime(k.ExpiresAt), append([]string{}, k.Addresses...), exchange.Time(k.CreatedAt)}
}

func (a *api) listKeys(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	q := x.Query()
	in := agentkey.AgentKeysInput{Agent: id, After: q.ID("cursor"), Limit: q.Limit()}
	if err := q.Err(); err != nil {
		return err
	}
	keys, err := a.manager.AgentKeys(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, keys, in.Limit, func(k agentkey.AgentKey) string { return k.ID })
	return data(x, http.StatusOK, each(keys, keyOf))
}

func (a *api) revokeKey(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	key, _ := x.PathID("keyId")
	if err := a.manager.RevokeKey(x.Ctx(), actor, id, key); err != nil {
		return err
	}
	return done(x)
}
