package storage

import (
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// All times are int64 microseconds since the Unix epoch; 0 means not set.
// Every record has a Revision, 1 when inserted and one more at each change, and
// every deciding record a Seal: the row seal over its deciding columns, opaque
// to a backend.

// Organization is a tenant. Identity: ID.
type Organization struct {
	ID        string
	Name      string
	Locked    bool // every vend and every request is refused
	CreatedAt int64
	UpdatedAt int64
	Revision  int64
	Seal      []byte
}

// AgentStatus says whether an agent may act.
type AgentStatus string

// The statuses of an agent.
const (
	AgentActive    AgentStatus = "active"
	AgentSuspended AgentStatus = "suspended"
)

// Agent is a program that asks for tools. Identity: Organization, ID. Agents
// are never deleted.
type Agent struct {
	Organization   string
	ID             string
	Name           string
	Description    string
	Owner          string // the administrator who answers for it, or empty
	CreatedBy      string
	CreatedByLabel string
	Status         AgentStatus
	CreatedAt      int64
	UpdatedAt      int64
	Revision       int64
	Seal           []byte
}

// KeyStatus says whether a key still authenticates.
type KeyStatus string

// The statuses of a key.
const (
	KeyActive  KeyStatus = "active"
	KeyRevoked KeyStatus = "revoked"
	KeyExpired KeyStatus = "expired"
)

// Key is one of an agent's keys, of which only the SHA-256 digest is kept.
// Identity: Organization, ID, Agent, Digest. Digests are unique in the store.
type Key struct {
	Organization string
	ID           string
	Agent        string
	Digest       []byte
	Status       KeyStatus
	ExpiresAt    int64
	Addresses    []string // address ranges in CIDR form it may be used from; none: any
	CreatedAt    int64
	UpdatedAt    int64
	Revision     int64
	Seal         []byte
}

// CredentialMode says whose credential a tool has.
type CredentialMode string

// The credential modes of a tool.
const (
	Shared   CredentialMode = "shared"
	PerAgent CredentialMode = "per_agent"
)

// Tool is a service that agents may be let into. Identity: Organization, ID,
// ConfigKey, which is unique in the organization.
type Tool struct {
	Organization      string
	ID                string
	ConfigKey         string
	Name              string
	Description       string
	URL               string
	AuthType          string
	Mode              CredentialMode
	RequiredApprovals int64
	Instructions      string
	CreatedAt         int64
	UpdatedAt         int64
	Revision          int64
	Seal              []byte
}

// CredentialStatus says whether a credential may be vended.
type CredentialStatus string

// The statuses of a credential.
const (
	CredentialActive  CredentialStatus = "active"
	CredentialExpired CredentialStatus = "expired"
)

// Credential is a sealed secret: a tool's own (Grant empty) or one that belongs
// to a single grant. Identity: Organization, ID, Tool, Grant; there is at most
// one for each tool and grant.
type Credential struct {
	Organization string
	ID           string
	Tool         string
	Grant        string
	AuthType     string
	Status       CredentialStatus
	ExpiresAt    int64
	RotatedAt    int64
	Sealed       []byte
	// SealedRevision is the revision that Sealed was sealed for: a change of the
	// expiry makes a new revision and leaves the value as it is.
	SealedRevision int64
	CreatedAt      int64
	UpdatedAt      int64
	Revision       int64
	Seal           []byte
}

// CredentialRef names a credential by what it belongs to.
type CredentialRef struct {
	Tool, Grant string
}

// DataKey is a wrapped data key. Identity: Organization, ID, Purpose.
type DataKey struct {
	Organization string
	ID           string
	Purpose      vault.Purpose
	State        vault.KeyState
	Provider     string // the id of the provider's key that wrapped it
	Wrapped      []byte
	Reserved     int64 // seals reserved so far; no deciding column
	CreatedAt    int64
	UpdatedAt    int64
	Revision     int64
	Seal         []byte
}

// Head is the head of a log.
type Head struct {
	audit.Head
	Seal     []byte // the row seal over the head's columns
	KeptSize int64  // size of the newest kept checkpoint
	KeptTime int64  // and when it was kept
	Now      int64  // the database's clock, 0 where it has none of its own
}

// Append is what one transaction adds to a log.
type Append struct {
	Lines []audit.Line
	Head  audit.Head
	Seal  []byte
	Keep  bool // keep the head among the checkpoints
}

// Checkpoint is a head that was kept.
type Checkpoint struct {
	Size   int64
	Signed []byte
}

// Erasure removes parts of a line.
type Erasure struct {
	Seq      int64
	Content  bool
	Personal bool
}

// Record is a row of the generic role. Identity: Organization, Kind, ID.
type Record struct {
	Organization string
	Kind         string // [a-z_]{1,64}
	ID           string // at most 200 bytes
	Index        []IndexEntry
	Payload      []byte // at most 1 MiB
	UpdatedAt    int64
	Revision     int64
	Seal         []byte
}

// IndexEntry makes a record findable by a scan of the index of that name. A
// record has at most 8 entries, one for a name; a value has at most 512 bytes.
type IndexEntry struct {
	Name, Value string
}

// DeliveryState says what has become of a delivery.
type DeliveryState string

// The states of a delivery. A delivery that succeeded is removed.
const (
	DeliveryPending DeliveryState = "pending"
	DeliveryDead    DeliveryState = "dead"
)

// Delivery is a notification on its way.
type Delivery struct {
	Organization string
	ID           string
	Topic        string
	Payload      []byte
	State        DeliveryState
	Attempts     int64
	CreatedAt    int64
	NextAt       int64
	LeaseUntil   int64
	LeaseNode    string
	LastError    string
}

// Settlement is what became of a leased delivery: gone when Done, otherwise
// postponed to NextAt or, in state dead, kept.
type Settlement struct {
	ID         string
	LeaseUntil int64 // the lease that is being settled
	LeaseNode  string
	Done       bool
	State      DeliveryState
	NextAt     int64
	LastError  string
}

// WindowRef names a rate limit window.
type WindowRef struct {
	Tier, Subject string
}

// Window is a shared rate limit window: the encoded times of its admitted calls.
type Window struct {
	WindowRef
	Times     []byte
	UpdatedAt int64
}
