package agentkey

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// RequestContext is what is known of the request that a call serves. All of it
// is optional, and all of it is recorded: address and user agent in the part of
// the log that can be erased.
type RequestContext struct {
	Request       string     // this server's own id of the request
	ClientRequest string     // the client's id, at most 64 of A-Z a-z 0-9 . _ -
	Trace         string     // trace id
	Address       netip.Addr // where the request came from
	UserAgent     string
}

// Caller is an agent that calls: by its key, or vouched for by the host.
// A Caller prints as [redacted].
type Caller struct {
	secret   *vault.Secret // the key as presented; nil for a trusted agent
	org, id  string
	key      string // id of the key, once found
	trusted  bool
	context  RequestContext
	admitted *admission // by Admit, for one call
}

// admission is a charge that one call may use.
type admission struct {
	tier     ratelimit.Tier
	decision ratelimit.Decision
	used     atomic.Bool
}

// Key is an agent that presents its key, with nothing around it.
func Key(presented string) Caller {
	return Caller{secret: vault.NewSecret([]byte(presented))}
}

// TrustedAgent is an agent that the host has authenticated itself (by mutual
// TLS or SPIFFE, say). Its status, its grants, the limits and the log apply all
// the same.
func TrustedAgent(organization, id string) Caller {
	return Caller{org: organization, id: id, trusted: true}
}

// With gives the same caller with a request's context.
func (c Caller) With(rc RequestContext) Caller {
	c.context = rc
	return c
}

// Format prints [redacted], whatever the verb.
func (c Caller) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[redacted]") }

// LogValue logs [redacted].
func (c Caller) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON gives "[redacted]".
func (c Caller) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// digest is the SHA-256 of the key as presented, or nil when it can't be a key.
func (c Caller) digest() []byte {
	if c.secret.Len() < len(keyPrefix) || c.secret.Len() > 512 || !strings.HasPrefix(string(c.secret.Bytes()[:len(keyPrefix)]), keyPrefix) {
		return nil
	}
	sum := sha256.Sum256(c.secret.Bytes())
	return sum[:]
}

// Role is what an administrator may do. See Operation for the table.
type Role string

// The roles. An owner may do everything; an admin everything but manage other
// administrators and unlock the organization; an approver decides on requests
// and may take access away; an auditor only reads.
const (
	RoleOwner    Role = "owner"
	RoleAdmin    Role = "admin"
	RoleApprover Role = "approver"
	RoleAuditor  Role = "auditor"
)

// Known says whether r is one of the roles.
func (r Role) Known() bool {
	return r == RoleOwner || r == RoleAdmin || r == RoleApprover || r == RoleAuditor
}

// Actor is an administrator or an operator who acts. Every operation checks the
// actor's role; a zero Actor is refused everything.
type Actor struct {
	Organization string         `validate:"required,max=128,id"`
	Kind         string         `validate:"required,oneof=human service operator"`
	ID           string         `validate:"required,max=128,id"`
	Label        string         `validate:"utf16max=320,plain"` // name or e-mail, as people know the actor
	Role         Role           `validate:"required,oneof=owner admin approver auditor"`
	Auth         string         `validate:"max=64,code"` // how the actor was authenticated, in a-z, 0-9 and _
	Credential   string         `validate:"max=128,id"`  // id of the token or key used
	Behalf       string         `validate:"max=128,id"`  // for whom the actor acts
	Context      RequestContext `validate:"-"`

	token string // record of the token that Authenticate found, checked again under the head
}

func (a Actor) audit() audit.Actor {
	return audit.Actor{Kind: a.Kind, ID: a.ID, Auth: a.Auth, Credential: a.Credential, Behalf: a.Behalf}
}
