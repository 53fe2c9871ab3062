package client

import (
	"encoding/json"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Seconds is a length of time that the API takes as whole seconds.
type Seconds time.Duration

// MarshalJSON writes whole seconds, rounded down.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(int64(time.Duration(s) / time.Second))
}

// AgentRecord is an agent as administrators see it.
type AgentRecord struct {
	ID             string       `json:"id"`
	Organization   string       `json:"organizationId"`
	Name           string       `json:"name"`
	Description    string       `json:"description"`
	Owner          string       `json:"owner"`
	CreatedBy      string       `json:"createdByUserId"`
	CreatedByEmail string       `json:"createdByEmail"`
	Status         string       `json:"status"` // active or suspended
	CreatedAt      time.Time    `json:"createdAt"`
	UpdatedAt      time.Time    `json:"updatedAt"`
	LastActiveAt   *time.Time   `json:"lastActiveAt"`
	Granted        []LinkedTool `json:"grantedTools"`
	Pending        []LinkedTool `json:"pendingTools"`
}

// LinkedTool is a tool that an agent may use or has asked for.
type LinkedTool struct {
	Request  string `json:"requestId,omitempty"`
	Tool     string `json:"toolId"`
	ToolName string `json:"toolName"`
}

// IssuedKey is an agent's new key, shown this once. The caller destroys Secret.
type IssuedKey struct {
	Agent  string
	Secret *vault.Secret
}

// KeyRecord is one of an agent's keys; never the key itself.
type KeyRecord struct {
	ID        string     `json:"id"`
	Status    string     `json:"status"` // active, revoked or expired
	ExpiresAt *time.Time `json:"expiresAt"`
	Addresses []string   `json:"addresses"`
	CreatedAt time.Time  `json:"createdAt"`
}

// ToolRecord is a tool as administrators see it; never with its credential.
type ToolRecord struct {
	ID                  string        `json:"id"`
	Key                 string        `json:"configKey"`
	Name                string        `json:"name"`
	Description         string        `json:"description"`
	URL                 *string       `json:"url"`
	AuthType            string        `json:"authType"`
	Mode                string        `json:"credentialMode"` // shared or per_agent
	RequiredApprovals   int64         `json:"requiredApprovals"`
	Instructions        *string       `json:"instructions"`
	InstructionVersion  *string       `json:"currentInstructionVersionId"`
	CredentialRotatedAt *time.Time    `json:"credentialLastRotatedAt"`
	CredentialExpiresAt *time.Time    `json:"credentialExpiresAt"`
	Health              string        `json:"healthStatus"` // healthy, attention or action_needed
	Approved            int64         `json:"approvedAgents"`
	Pending             int64         `json:"pendingAgents"`
	ApprovedAgents      []LinkedAgent `json:"approvedAgentList"`
	PendingAgents       []LinkedAgent `json:"pendingAgentList"`
}

// LinkedAgent is an agent that may use a tool or has asked for it.
type LinkedAgent struct {
	Request   string `json:"requestId,omitempty"`
	Agent     string `json:"agentId"`
	AgentName string `json:"agentName"`
}

// DeletedTool says what went with a tool.
type DeletedTool struct {
	ID              string `json:"tool_id"`
	ApprovedRevoked int64  `json:"approved_revocations"`
	PendingRevoked  int64  `json:"pending_revocations"`
}

// InboxItem is something that waits for a person. Which fields are set follows
// from Kind.
type InboxItem struct {
	Kind        string    `json:"kind"` // access_request, tool_suggestion or instruction_suggestion
	ID          string    `json:"id"`
	RequestedAt time.Time `json:"requestedAt"` // of what several asked for, the last time
	Agent       string    `json:"agentId,omitempty"`
	AgentName   string    `json:"agentName,omitempty"`
	Tool        string    `json:"toolId,omitempty"`
	ToolName    string    `json:"toolName,omitempty"`
	Name        string    `json:"name,omitempty"` // of a tool suggestion
	Reason      string    `json:"reason,omitempty"`
	Learned     string    `json:"learned,omitempty"`       // of an instruction suggestion
	Stale       bool      `json:"stale,omitempty"`         // of one: it is for an older version
	Supporters  int64     `json:"supporterCount,omitzero"` // how many agents asked for it
}

// Activity is something that happened to an agent or a tool.
type Activity struct {
	ID         string    `json:"id"`
	Action     string    `json:"action"`
	CreatedAt  time.Time `json:"createdAt"`
	Tool       string    `json:"toolId,omitempty"`     // of an agent's
	ToolName   string    `json:"toolName,omitempty"`   // of an agent's
	ActorLabel string    `json:"actorLabel,omitempty"` // of a tool's
}

// Notifications say which channels have a webhook. Nothing answers a webhook's URL
// but its first 18 characters, which are a part of the host. What is said of
// deliveries is nil as long as there was none.
type Notifications struct {
	Slack          bool       `json:"slackConfigured"`
	SlackPreview   *string    `json:"slackWebhookPreview"`
	SlackStatus    *string    `json:"lastSlackDeliveryStatus"` // success or failed
	SlackAt        *time.Time `json:"lastSlackDeliveryAt"`
	SlackError     *string    `json:"lastSlackError"`
	Discord        bool       `json:"discordConfigured"`
	DiscordPreview *string    `json:"discordWebhookPreview"`
	DiscordStatus  *string    `json:"lastDiscordDeliveryStatus"`
	DiscordAt      *time.Time `json:"lastDiscordDeliveryAt"`
	DiscordError   *string    `json:"lastDiscordError"`
}

// Onboarding says whether the organization still needs an introduction.
type Onboarding struct {
	DismissedAt *time.Time `json:"onboardingDismissedAt"`
}

// Request is an access request that waits for a decision.
type Request struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind"`
	Agent       string    `json:"agentId"`
	AgentName   string    `json:"agentName"`
	Tool        string    `json:"toolId"`
	ToolName    string    `json:"toolName"`
	Mode        string    `json:"toolCredentialMode"`
	Reason      string    `json:"reason"`
	RequestedAt time.Time `json:"requestedAt"`
}

// Grant is an agent's access to a tool, whatever its status.
type Grant struct {
	ID           string     `json:"id"`
	Agent        string     `json:"agentId"`
	AgentName    string     `json:"agentName"`
	Tool         string     `json:"toolId"`
	ToolName     string     `json:"toolName"`
	Status       string     `json:"status"`
	Reason       *string    `json:"reason"`
	DenialReason *string    `json:"denialReason"`
	RequestedAt  *time.Time `json:"requestedAt"`
	DecidedBy    *string    `json:"decidedByEmail"`
	DecidedAt    *time.Time `json:"decidedAt"`
	ExpiresAt    *time.Time `json:"expiresAt"`
	MaxVends     *int64     `json:"maxVends"`
	VendsLeft    *int64     `json:"vendsLeft"`
	Scopes       []string   `json:"scopes"`
	Approvals    *int64     `json:"approvals"`
	Required     *int64     `json:"requiredApprovals"`
}

// Revoked says what a revocation could not undo: it does not recall what the
// agent already holds.
type Revoked struct {
	Vends          int64      `json:"vends"`
	LastVendAt     *time.Time `json:"lastVendAt"`
	RotateUpstream bool       `json:"rotateUpstream"`
}

// Administrator is a person or service that may act on the organization.
type Administrator struct {
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	Kind      string    `json:"kind"`
	Role      string    `json:"role"` // owner, admin, approver or auditor
	Removed   bool      `json:"removed"`
	CreatedAt time.Time `json:"createdAt"`
}

// TokenRecord is an administrator's token; never the token itself.
type TokenRecord struct {
	ID            string     `json:"id"`
	Administrator string     `json:"administrator"`
	Name          string     `json:"name"`
	ExpiresAt     *time.Time `json:"expiresAt"`
	Revoked       bool       `json:"revoked"`
	CreatedAt     time.Time  `json:"createdAt"`
}

// IssuedToken is a new token, shown this once. The caller destroys Secret.
type IssuedToken struct {
	Token  TokenRecord
	Secret *vault.Secret
}

// Organization is the token's organization.
type Organization struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Locked    bool      `json:"locked"`
	CreatedAt time.Time `json:"createdAt"`
}

// Event is one entry of the audit log as the list shows it. For the exact bytes
// that are signed, see [Admin.Export].
type Event struct {
	Seq        int64           `json:"seq"` // place in the log, counted from 0
	ActorType  string          `json:"actorType"`
	ActorID    string          `json:"actorId"`
	ActorLabel string          `json:"actorLabel"`
	Action     string          `json:"action"`
	Outcome    string          `json:"outcome"`
	Reason     string          `json:"reason"`
	TargetType string          `json:"targetType"`
	TargetID   string          `json:"targetId"`
	Agent      string          `json:"agentId"`
	Tool       string          `json:"toolId"`
	Grant      string          `json:"grantId"`
	Request    string          `json:"requestId"`
	Count      int64           `json:"count"` // of aggregates
	Metadata   json.RawMessage `json:"metadata"`
	CreatedAt  time.Time       `json:"createdAt"`
	Leaf       string          `json:"leafHash"`
	// PersonalRemoved says that labels and texts of the event were removed.
	PersonalRemoved bool `json:"personalRemoved"`
}

// Verification is what a check of the log's hashes and signatures found.
type Verification struct {
	OK              bool      `json:"ok"`
	Events          int64     `json:"events"`
	ContentVerified int64     `json:"contentVerified"` // of these: the content is what was signed
	HashVerified    int64     `json:"hashVerified"`    // of these: the content was removed, its hash is what was signed
	PersonalErased  int64     `json:"personalErased"`  // events whose personal part is gone
	Findings        []Finding `json:"findings"`

	// Origin is that of an exported log that was verified without a server.
	Origin string `json:"origin,omitempty"`
}

// Finding is something wrong with the lines From to To, or one of them.
type Finding struct {
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	Problem string `json:"problem"`
}

// Reconciliation is what a replay of the log against the records found.
type Reconciliation struct {
	OK       bool          `json:"ok"`
	Events   int64         `json:"events"`
	Records  int64         `json:"records"`
	Findings []Discrepancy `json:"findings"`
}

// Discrepancy is a record that is not as the log says.
type Discrepancy struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Problem string `json:"problem"`
}
