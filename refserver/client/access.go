package client

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Agents lists agents, newest first: those of exactly this name, or all.
func (a *Admin) Agents(ctx context.Context, name string) iter.Seq2[AgentRecord, error] {
	return list[AgentRecord](ctx, a, query("name", name), "agents")
}

// NewAgentRecord describes an agent to register.
type NewAgentRecord struct {
	Name         string   `json:"name"`
	Description  string   `json:"description,omitempty"`
	Owner        string   `json:"owner,omitempty"` // an administrator's id; empty: the caller's own
	KeyExpiresIn Seconds  `json:"keyExpiresIn,omitempty"`
	Addresses    []string `json:"addresses,omitempty"` // CIDR; none: the key is valid from anywhere
}

type issuedKey struct {
	Agent string `json:"agent_id"`
	Key   string `json:"api_key"`
}

func (k issuedKey) issued(err error) (IssuedKey, error) {
	if err == nil && k.Key == "" {
		err = ErrAnswer
	}
	if err != nil {
		return IssuedKey{}, err
	}
	return IssuedKey{Agent: k.Agent, Secret: vault.NewSecret([]byte(k.Key))}, nil
}

// RegisterAgent registers an agent with its first key.
func (a *Admin) RegisterAgent(ctx context.Context, in NewAgentRecord) (IssuedKey, error) {
	out, err := send[issuedKey](ctx, a, http.MethodPost, in, nil, "agents")
	return out.issued(err)
}

// AgentChange changes what is not nil.
type AgentChange struct {
	Name        *string `json:"name,omitempty"`
	Description *string `json:"description,omitempty"`
	Owner       *string `json:"owner,omitempty"`
}

// UpdateAgent changes an agent.
func (a *Admin) UpdateAgent(ctx context.Context, id string, in AgentChange) (AgentRecord, error) {
	return send[AgentRecord](ctx, a, http.MethodPut, in, nil, "agents", id)
}

// Agent gives one agent.
func (a *Admin) Agent(ctx context.Context, id string) (AgentRecord, error) {
	return get[AgentRecord](ctx, a, "agents", id)
}

// SuspendAgent stops an agent and revokes all its grants. It is never limited.
func (a *Admin) SuspendAgent(ctx context.Context, id string) error {
	_, err := a.c.do(ctx, call{method: http.MethodDelete, path: adminPath("agents", id)}, nil)
	return err
}

// ReactivateAgent lets an agent act again; it starts with no grants.
func (a *Admin) ReactivateAgent(ctx context.Context, id string) error {
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: adminPath("agents", id, "reactivate"), body: struct{}{}}, nil)
	return err
}

// NewKey describes the key that takes over.
type NewKey struct {
	Grace     Seconds  `json:"grace,omitempty"`     // how long the old keys stay valid; 0: they die at once
	ExpiresIn Seconds  `json:"expiresIn,omitempty"` // 0: never
	Addresses []string `json:"addresses,omitempty"`
}

// RotateKey gives an agent a new key.
func (a *Admin) RotateKey(ctx context.Context, id string, in NewKey) (IssuedKey, error) {
	out, err := send[issuedKey](ctx, a, http.MethodPost, in, nil, "agents", id, "rotate-key")
	return out.issued(err)
}

// AgentKeys lists an agent's keys, newest first.
func (a *Admin) AgentKeys(ctx context.Context, id string) iter.Seq2[KeyRecord, error] {
	return list[KeyRecord](ctx, a, nil, "agents", id, "keys")
}

// RevokeKey ends one of an agent's keys at once.
func (a *Admin) RevokeKey(ctx context.Context, agent, key string) error {
	_, err := a.c.do(ctx, call{method: http.MethodDelete, path: adminPath("agents", agent, "keys", key)}, nil)
	return err
}

// Tools lists tools, newest first: those of exactly this name, or all.
func (a *Admin) Tools(ctx context.Context, name string) iter.Seq2[ToolRecord, error] {
	return list[ToolRecord](ctx, a, query("name", name), "tools")
}

// Tool gives one tool.
func (a *Admin) Tool(ctx context.Context, id string) (ToolRecord, error) {
	return get[ToolRecord](ctx, a, "tools", id)
}

// NewTool describes a tool to add. A shared tool is added with its credential.
type NewTool struct {
	Name                string     `json:"name"`
	Description         string     `json:"description,omitempty"`
	URL                 string     `json:"url,omitempty"`
	AuthType            string     `json:"authType"`       // api_key, oauth_token, bot_token or other
	Mode                string     `json:"credentialMode"` // shared or per_agent
	RequiredApprovals   int64      `json:"requiredApprovals,omitempty"`
	Instructions        string     `json:"instructions,omitempty"`
	CredentialExpiresAt *time.Time `json:"credentialExpiresAt,omitempty"`
	Suggestion          string     `json:"sourceSuggestionId,omitempty"` // the pending suggestion that it answers
}

// AddTool adds a tool; credential is nil for tools with a credential per agent.
func (a *Admin) AddTool(ctx context.Context, in NewTool, credential *vault.Secret) (ToolRecord, error) {
	return send[ToolRecord](ctx, a, http.MethodPost, in, credential, "tools")
}

// ToolChange changes what is not nil.
type ToolChange struct {
	Name              *string `json:"name,omitempty"`
	Description       *string `json:"description,omitempty"`
	URL               *string `json:"url,omitempty"`
	RequiredApprovals *int64  `json:"requiredApprovals,omitempty"`
	Instructions      *string `json:"instructions,omitempty"`
	// CredentialExpiresAt points to nil for a credential that never expires.
	CredentialExpiresAt **time.Time `json:"credentialExpiresAt,omitempty"`
	// AcceptSuggestion is the instruction suggestion that Instructions take up.
	AcceptSuggestion string `json:"acceptedInstructionSuggestionId,omitempty"`
	// RestoreVersion is the version of the instructions to go back to.
	RestoreVersion string `json:"restoreInstructionVersionId,omitempty"`
}

// UpdateTool changes a tool and, unless it is nil, replaces its credential.
func (a *Admin) UpdateTool(ctx context.Context, id string, in ToolChange, credential *vault.Secret) (ToolRecord, error) {
	return send[ToolRecord](ctx, a, http.MethodPut, in, credential, "tools", id)
}

// RemoveCredential removes a shared tool's credential. It is never limited.
func (a *Admin) RemoveCredential(ctx context.Context, id string) error {
	_, err := a.c.do(ctx, call{method: http.MethodDelete, path: adminPath("tools", id, "credential")}, nil)
	return err
}

// DeleteTool deletes a tool with its credentials and grants.
func (a *Admin) DeleteTool(ctx context.Context, id string) (DeletedTool, error) {
	return send[DeletedTool](ctx, a, http.MethodDelete, nil, nil, "tools", id)
}

// Requests lists access requests that wait for a decision, newest first.
func (a *Admin) Requests(ctx context.Context) iter.Seq2[Request, error] {
	return list[Request](ctx, a, query("kind", "access_request"), "requests")
}

// Decision narrows what was asked for; zero fields leave it as asked.
type Decision struct {
	ExpiresIn Seconds  `json:"expiresIn,omitempty"`
	MaxVends  int64    `json:"maxVends,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
	Ticket    string   `json:"ticket,omitempty"`
}

// Approve approves a request; credential is what a tool with a credential per
// agent needs, else nil.
func (a *Admin) Approve(ctx context.Context, request string, in Decision, credential *vault.Secret) (Grant, error) {
	return send[Grant](ctx, a, http.MethodPost, in, credential, "requests", request, "approve")
}

// Deny denies a request. It is never limited.
func (a *Admin) Deny(ctx context.Context, request, reason string) (Grant, error) {
	return send[Grant](ctx, a, http.MethodPost, reasonBody(reason), nil, "requests", request, "deny")
}

// GrantQuery finds grants; empty fields select all.
type GrantQuery struct{ Agent, Tool, Status string }

// Grants lists grants, newest first.
func (a *Admin) Grants(ctx context.Context, in GrantQuery) iter.Seq2[Grant, error] {
	return list[Grant](ctx, a, query("agent_id", in.Agent, "tool_id", in.Tool, "status", in.Status), "grants")
}

// Assign gives an agent a tool that it did not ask for.
func (a *Admin) Assign(ctx context.Context, agent, tool string, in Decision, credential *vault.Secret) (Grant, error) {
	body := struct {
		Tool string `json:"toolId"`
		Decision
	}{tool, in}
	return send[Grant](ctx, a, http.MethodPost, body, credential, "agents", agent, "tools")
}

// Revoke takes a tool from an agent at once. It is never limited.
func (a *Admin) Revoke(ctx context.Context, agent, tool string) (Revoked, error) {
	return send[Revoked](ctx, a, http.MethodDelete, nil, nil, "agents", agent, "tools", tool)
}

// Narrow makes the limits of an approved grant narrower. It is never limited.
func (a *Admin) Narrow(ctx context.Context, grant string, in Decision) (Grant, error) {
	return send[Grant](ctx, a, http.MethodPost, in, nil, "grants", grant, "narrow")
}
