package agentkey

import (
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// The records and types that a first program needs, so that it imports this
// package, one storage and one key provider.
type (
	// Organization is a tenant.
	Organization = storage.Organization
	// Agent is a program that asks for tools.
	Agent = storage.Agent
	// AgentKey is the record of one of an agent's keys; never the key itself.
	AgentKey = storage.Key
	// Tool is a service that agents may be let into.
	Tool = storage.Tool
	// Grant is an agent's access to a tool, whatever its status.
	Grant = grants.Grant
	// Terms are the limits of a grant.
	Terms = grants.Terms
	// Secret holds bytes that print as [redacted].
	Secret = vault.Secret
	// Event is one entry of the audit log.
	Event = audit.Event
)

// NewSecret takes ownership of b.
func NewSecret(b []byte) *Secret { return vault.NewSecret(b) }

// ListInput asks for a page of a list, newest first.
type ListInput struct {
	Name  string // exact name; empty: all
	After string // the id of the last item of the page before
	Limit int    // 1 to 500; 0: 100
}

// AgentKeysInput asks for a page of an agent's keys.
type AgentKeysInput struct {
	Agent string
	After string // the id of the last key of the page before
	Limit int    // 1 to 500; 0: 100
}

// RegisterAgentInput describes a new agent.
type RegisterAgentInput struct {
	Name         string        `validate:"utf16min=2,utf16max=120,plain" json:"name"`
	Description  string        `validate:"utf16max=500,text" json:"description"`
	Owner        string        `validate:"max=128,id" json:"owner"` // empty: the actor
	KeyExpiresIn time.Duration `validate:"min=0" json:"keyExpiresIn"`
	Addresses    []string      `validate:"max=64,dive,cidr" json:"addresses"`
}

// UpdateAgentInput changes what is not nil.
type UpdateAgentInput struct {
	Name        *string `validate:"omitnil,utf16min=2,utf16max=120,plain" json:"name"`
	Description *string `validate:"omitnil,utf16max=500,text" json:"description"`
	Owner       *string `validate:"omitnil,max=128,id" json:"owner"`
}

// RotateKeyInput describes the key that takes over.
type RotateKeyInput struct {
	Grace     time.Duration `validate:"min=0,max=720h" json:"grace"` // how long the old keys stay valid; 0: they die at once
	ExpiresIn time.Duration `validate:"min=0" json:"expiresIn"`
	Addresses []string      `validate:"max=64,dive,cidr" json:"addresses"`
}

// IssuedKey is an agent with a key that was just made. The secret is shown this
// once; only its SHA-256 is kept. The caller destroys it.
type IssuedKey struct {
	Agent  Agent
	Key    AgentKey
	Secret *Secret
}

// AgentView is an agent as administrators see it.
type AgentView struct {
	Agent
	LastActiveAt int64
	Granted      Linked
	Pending      Linked
}

// Linked is the count of an item's grants of one kind and the newest 20.
type Linked struct {
	Count int64
	Items []Link
}

// Link is one grant seen from its agent or its tool.
type Link struct {
	Request   string // the grant's id
	Agent     string
	AgentName string
	Tool      string
	ToolName  string
	ToolMode  storage.CredentialMode
}

// AddToolInput describes a new tool.
type AddToolInput struct {
	Name                string                 `validate:"utf16min=2,utf16max=120,plain" json:"name"`
	Description         string                 `validate:"utf16max=500,text" json:"description"`
	URL                 string                 `validate:"utf16max=500,plain" json:"url"` // absolute http(s) URL or host name
	AuthType            string                 `validate:"oneof=api_key oauth_token bot_token other" json:"authType"`
	Mode                storage.CredentialMode `validate:"oneof=shared per_agent" json:"credentialMode"`
	RequiredApprovals   int64                  `validate:"min=0,max=100" json:"requiredApprovals"` // 0: 1
	Instructions        string                 `validate:"utf16max=4000,text" json:"instructions"`
	Credential          *Secret                `validate:"-" json:"credential"` // required when shared, forbidden otherwise
	CredentialExpiresAt time.Time              `validate:"-" json:"credentialExpiresAt"`
	// Suggestion is the pending tool suggestion that this tool answers, whatever
	// it says; those that the tool fits are accepted in any case. One that is not
	// pending or not there is passed over.
	Suggestion string `validate:"max=128,id" json:"sourceSuggestionId"`
}

// UpdateToolInput changes what is not nil.
type UpdateToolInput struct {
	Name                *string    `validate:"omitnil,utf16min=2,utf16max=120,plain" json:"name"`
	Description         *string    `validate:"omitnil,utf16max=500,text" json:"description"`
	URL                 *string    `validate:"omitnil,utf16max=500,plain" json:"url"`
	RequiredApprovals   *int64     `validate:"omitnil,min=1,max=100" json:"requiredApprovals"`
	Instructions        *string    `validate:"omitnil,utf16max=4000,text" json:"instructions"`
	Credential          *Secret    `validate:"-" json:"credential"`          // nil or blank: kept; of shared tools only
	CredentialExpiresAt *time.Time `validate:"-" json:"credentialExpiresAt"` // zero time: it never expires
	// AcceptSuggestion is the pending instruction suggestion that Instructions take
	// up. Nothing is merged: the new text is what Instructions say.
	AcceptSuggestion string `validate:"max=128,id" json:"acceptedInstructionSuggestionId"`
	// RestoreVersion is the version of the instructions to go back to. Where
	// Instructions are given too, they count.
	RestoreVersion string `validate:"max=128,id" json:"restoreInstructionVersionId"`
}

// ToolView is a tool as administrators see it: never with its credential.
type ToolView struct {
	Tool
	InstructionVersion string // the id of the current version of the instructions
	Credential         CredentialView
	Health             Health
	Approved           Linked
	Pending            Linked
}

// CredentialView says what is known of a credential without opening it.
type CredentialView struct {
	Present   bool
	ID        string
	Status    storage.CredentialStatus
	Revision  int64
	ExpiresAt int64
	RotatedAt int64
}

// Health says whether somebody should look after a tool's credential.
type Health string

// The healths of a tool. Attention: it expires within 14 days or was last
// rotated more than 90 days ago. ActionNeeded: it is missing or expired.
const (
	Healthy      Health = "healthy"
	Attention    Health = "attention"
	ActionNeeded Health = "action_needed"
)

// DeletedTool says what went with a tool.
type DeletedTool struct {
	ID              string
	ApprovedRevoked int
	PendingRevoked  int
}

// CatalogInput asks for a page of the catalog; the zero value for all of it.
type CatalogInput struct {
	After string
	Limit int // 0: all
}

// CatalogItem is a tool as an agent sees it.
type CatalogItem struct {
	ID           string
	Name         string
	Description  string
	Access       grants.Status // StatusNone when it never asked
	DenialReason string
	ExpiresAt    int64 // of an approved grant that ends
	VendsLeft    int64 // of an approved grant with a limit; -1: no limit
}

// Catalog is a page of the catalog, newest tool first.
type Catalog struct {
	Items []CatalogItem
	Next  string // the After of the next page, or empty
}

// Profile is an agent's view of itself.
type Profile struct {
	Agent     Agent
	Approved  []string // names of tools
	Pending   []string
	Denied    []Denial
	Available int64 // tools in the catalog
}

// Denial is a denied tool and why.
type Denial struct{ Tool, Reason string }

// RequestInput asks for access to a tool.
type RequestInput struct {
	Tool     string        `validate:"required,max=128,id" json:"tool"`
	Reason   string        `validate:"utf16min=5,utf16max=500,text" json:"reason"`
	Duration time.Duration `validate:"min=0" json:"duration"` // counted from approval; 0: no end
	MaxVends int64         `validate:"min=0" json:"max_vends"`
	Scopes   []string      `validate:"max=64,dive,utf16min=1,utf16max=200,plain" json:"scopes"`
	Ticket   string        `validate:"utf16max=200,plain" json:"ticket"`
}

// Vended is a credential that was handed out. It was recorded before it was
// returned. The caller destroys the secret.
type Vended struct {
	Tool       Tool
	Credential *Secret
	Grant      string
	ExpiresAt  int64
	VendsLeft  int64         // -1: no limit
	Receipt    audit.Receipt // proves that the vend stands in the log, with the public key alone
	Limit      ratelimit.Decision
}

// DecisionInput is how an approver decides for an agent.
type DecisionInput struct {
	Credential *Secret       `validate:"-" json:"credential"`    // required for per-agent tools, ignored for shared ones
	Duration   time.Duration `validate:"min=0" json:"expiresIn"` // 0: as asked; only ever narrower
	MaxVends   int64         `validate:"min=0" json:"maxVends"`
	Scopes     []string      `validate:"max=64,dive,utf16min=1,utf16max=200,plain" json:"scopes"`
	Ticket     string        `validate:"utf16max=200,plain" json:"ticket"`
}

// AssignInput gives an agent a tool that it did not ask for.
type AssignInput struct {
	Agent string `validate:"required,max=128,id" json:"agentId"`
	Tool  string `validate:"required,max=128,id" json:"toolId"`
	DecisionInput
}

// Request is a grant with the names of what it is about.
type Request struct {
	Grant
	AgentName        string
	AgentDescription string
	ToolName         string
	ToolMode         storage.CredentialMode
}

// GrantsInput finds grants.
type GrantsInput struct {
	Agent  string
	Tool   string
	Status grants.Status
	After  string
	Limit  int // 1 to 500; 0: 100
}

// RevokedGrant says what a revocation could not undo: revoking does not recall
// what an agent already holds.
type RevokedGrant struct {
	Grant          Grant
	Vends          int64 // since approval
	LastVend       int64
	RotateUpstream bool // the credential should be replaced at the service itself
}

// SuspendedAgent says what a suspension revoked.
type SuspendedAgent struct {
	Agent   Agent
	Revoked int
}

// CreateOrganizationInput describes a new organization and its first owner.
type CreateOrganizationInput struct {
	Name  string  `validate:"utf16min=2,utf16max=120,plain" json:"name"`
	Owner string  `validate:"utf16min=1,utf16max=320,plain" json:"owner"` // label of the first administrator
	Token *Secret `validate:"-" json:"token"`                             // nil: one is made; else at least 32 characters
	// First makes the installation's first organization, or fails with
	// ErrNotFirst: of several processes that start together, one makes it.
	First bool `validate:"-" json:"-"`
}

// CreatedOrganization is an organization with its first owner and token.
type CreatedOrganization struct {
	Organization  Organization
	Administrator Administrator
	Token         IssuedToken
}

// Administrator is a person or service whom the Manager keeps and lets act.
type Administrator struct {
	ID        string
	Label     string
	Kind      string // human or service
	Role      Role
	Removed   bool
	CreatedAt int64
	UpdatedAt int64
	Revision  int64
}

// AddAdministratorInput describes a new administrator.
type AddAdministratorInput struct {
	Label string `validate:"utf16min=1,utf16max=320,plain" json:"label"`
	Kind  string `validate:"omitempty,oneof=human service" json:"kind"` // empty: human
	Role  Role   `validate:"oneof=owner admin approver auditor" json:"role"`
}

// UpdateAdministratorInput changes what is not nil.
type UpdateAdministratorInput struct {
	Label *string `validate:"omitnil,utf16min=1,utf16max=320,plain" json:"label"`
	Role  *Role   `validate:"omitnil,oneof=owner admin approver auditor" json:"role"`
}

// Token is the record of an administrator's token; never the token itself.
type Token struct {
	ID            string
	Administrator string
	Name          string
	ExpiresAt     int64
	Revoked       bool
	CreatedAt     int64
	Revision      int64
}

// CreateTokenInput describes a new token.
type CreateTokenInput struct {
	Administrator string        `validate:"max=128,id" json:"administrator"` // empty: the actor's own
	Name          string        `validate:"utf16max=120,plain" json:"name"`
	ExpiresIn     time.Duration `validate:"min=0" json:"expiresIn"` // 0: never
}

// IssuedToken is a token that was just made, shown this once.
type IssuedToken struct {
	Token  Token
	Secret *Secret
}

// EventsInput finds events, newest first.
type EventsInput struct {
	Filter audit.Filter
	Cursor string // Next of the page before
	Limit  int    // 1 to 500; 0: 100
}

// LoggedEvent is an event with its personal part, as long as that is kept.
type LoggedEvent struct {
	audit.Event
	Personal audit.Personal
	Leaf     audit.Hash
	// PersonalRemoved says that there was a personal part, which retention removed
	// or an erasure erased.
	PersonalRemoved bool
}

// EventsPage is a page of events.
type EventsPage struct {
	Events []LoggedEvent
	Next   string // empty: there are no more

	// Of the last page: how many events' content retention has removed, and below which
	// number. No list shows these, and no filter finds them. -1: that can't be told now.
	Removed      int64
	RemovedBelow int64
}

// RecordInput is an event of the host's own.
type RecordInput struct {
	Action  string            `validate:"required,max=128" json:"action"` // x.<namespace>.<what>
	Target  audit.Ref         `validate:"-" json:"target"`
	Agent   string            `validate:"max=128,id" json:"agent"`
	Tool    string            `validate:"max=128,id" json:"tool"`
	Details map[string]string `validate:"max=32" json:"details"`          // neither secret nor personal
	Text    string            `validate:"utf16max=2000,text" json:"text"` // kept in the part that can be erased
}

// Reconciliation is what a replay of the log against the records found.
type Reconciliation struct {
	Events   int64
	Records  int64
	Findings []Discrepancy
}

// OK says whether log and records agree.
func (r Reconciliation) OK() bool { return len(r.Findings) == 0 }

// Discrepancy is a record that is not as the log says.
type Discrepancy struct {
	Kind, ID string
	Problem  string
}
