package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Agent is a client with an agent's key.
type Agent struct{ c *connection }

// NewAgent returns a client of the server at the URL, such as
// https://agentkey.example.com. It takes no ownership of key, which must live as
// long as the client. Errors: ErrServerURL, ErrPlainHTTP, ErrNoSecret.
func NewAgent(server string, key *vault.Secret, o Options) (*Agent, error) {
	c, err := connect(server, key, o)
	if err != nil {
		return nil, err
	}
	return &Agent{c}, nil
}

// CatalogTool is a tool as an agent sees it.
type CatalogTool struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Description  string     `json:"description"`
	Access       string     `json:"your_access"` // none, pending, approved, denied, revoked, expired or used_up
	DenialReason string     `json:"denial_reason"`
	ExpiresAt    *time.Time `json:"expires_at"`
	VendsLeft    *int64     `json:"vends_left"`
}

// Profile is an agent's view of itself.
type Profile struct {
	ID          string    `json:"agent_id"`
	Name        string    `json:"agent_name"`
	Description string    `json:"description"`
	CreatedAt   time.Time `json:"created_at"`
	Approved    []string  `json:"tools_approved"`
	Pending     []string  `json:"tools_pending"`
	Denied      []struct {
		Name   string  `json:"name"`
		Reason *string `json:"reason"`
	} `json:"tools_denied"`
	Available int64  `json:"tools_available"`
	Hint      string `json:"hint"`
}

// AccessRequest asks for access to a tool.
type AccessRequest struct {
	Reason   string   // 5 to 500 UTF-16 units
	Duration Seconds  // counted from approval; 0: no end
	MaxVends int64    // 0: no limit
	Scopes   []string // none: no restriction
	Ticket   string   // a reference into another system; may be empty
}

// Requested is an access request that was taken.
type Requested struct {
	ID      string `json:"request_id"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Credential is a vended credential.
type Credential struct {
	Tool         string
	ToolName     string
	AuthType     string
	Instructions string
	// Secret is the credential; structured ones are JSON. The caller destroys it.
	Secret *vault.Secret
	// Receipt is the proof that the vend stands in the log, as the server wrote it.
	// audit.ParseReceipt reads it; with the log's public key it is verified offline.
	Receipt json.RawMessage
}

// Tools lists the whole catalog.
func (a *Agent) Tools(ctx context.Context) ([]CatalogTool, error) {
	var out struct {
		Tools []CatalogTool `json:"tools"`
	}
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: []string{"api", "tools"}, again: true}, &out)
	return out.Tools, err
}

// Me tells the agent about itself.
func (a *Agent) Me(ctx context.Context) (Profile, error) {
	var out Profile
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: []string{"api", "me"}, again: true}, &out)
	return out, err
}

// RequestAccess asks for access to the tool. A request that is pending or
// approved already is an Error of status 409.
func (a *Agent) RequestAccess(ctx context.Context, tool string, in AccessRequest) (Requested, error) {
	body := struct {
		Reason   string   `json:"reason"`
		Duration Seconds  `json:"duration,omitempty"`
		MaxVends int64    `json:"max_vends,omitempty"`
		Scopes   []string `json:"scopes,omitempty"`
		Ticket   string   `json:"ticket,omitempty"`
	}{in.Reason, in.Duration, in.MaxVends, in.Scopes, in.Ticket}
	var out Requested
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: []string{"api", "tools", tool, "request"}, body: body}, &out)
	return out, err
}

// Credential fetches the tool's credential. Without access it is an Error of
// status 403 whose Hint says what to do. A vend counts; it is never repeated.
func (a *Agent) Credential(ctx context.Context, tool string) (*Credential, error) {
	res, err := a.c.answer(ctx, call{method: http.MethodGet, path: []string{"api", "tools", tool, "credentials"}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := readBody(res, maxAnswer)
	if err != nil {
		return nil, err
	}
	defer body.Destroy()
	var out struct {
		ID           string          `json:"tool_id"`
		Name         string          `json:"tool_name"`
		AuthType     string          `json:"auth_type"`
		Credential   json.RawMessage `json:"credential"`
		Instructions string          `json:"instructions"`
		Receipt      json.RawMessage `json:"audit_receipt"`
	}
	if json.Unmarshal(body.Bytes(), &out) != nil {
		return nil, ErrAnswer
	}
	defer clear(out.Credential)
	secret, err := decodeSecret(out.Credential)
	if err != nil {
		return nil, err
	}
	return &Credential{
		Tool: out.ID, ToolName: out.Name, AuthType: out.AuthType,
		Instructions: out.Instructions, Secret: secret, Receipt: out.Receipt,
	}, nil
}
