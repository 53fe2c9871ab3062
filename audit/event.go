package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

const (
	// Version is the version of the event format that this package writes and reads.
	Version = 1

	// MaxContent is the greatest length of an event's content, in bytes.
	MaxContent = 64 << 10

	saltSize = 16
	hashSize = sha256.Size
)

// Outcome says how what an event reports ended.
type Outcome string

const (
	OutcomeOK      Outcome = "ok"      // it was done
	OutcomeRefused Outcome = "refused" // it was decided against; Reason says why
	OutcomeFailed  Outcome = "failed"  // it was allowed but could not be done; Reason says why
)

// Event is one entry of an organization's log. Times are microseconds since the Unix epoch, UTC. Ids are 1 to 128
// printable ASCII characters, codes 1 to 64 of a-z, 0-9 and _. An event never holds a secret, and nothing about a person
// beyond opaque ids: labels, addresses and free text belong to the personal part.
//
// The zero value of a field that is not required is the same as its absence.
type Event struct {
	Seq           int64             // position in the log, counted from 0; the leaf's index
	Time          int64             // when it was decided
	Organization  string            // whose log this is; required, letters, digits, '.', '_' and '-'
	Actor         Actor             // who acted; required
	Action        Action            // what happened; required
	Outcome       Outcome           // how it ended; required
	Reason        string            // a code; required unless the outcome is ok
	Target        Ref               // what it happened to
	Agent         string            // the agent concerned
	Tool          string            // the tool concerned
	Grant         GrantRef          // the grant decided on
	Credential    CredentialRef     // the credential that was vended
	From          string            // the target's status before, a code
	To            string            // the target's status after, a code
	Changes       []Change          // every deciding record that changed, in the order of the changes
	Sealed        []SealedRef       // every newly sealed value
	Approvals     []Approval        // the decisions that this outcome rests on
	Ticket        string            // a reference into another system, at most 200 UTF-16 units
	Request       string            // our id of the request
	ClientRequest string            // the client's own id of the request
	Trace         string            // the trace id
	Node          string            // the process that committed
	Software      string            // its version
	Count         int64             // for aggregates: how many like this one
	Span          int64             // for aggregates: over how many microseconds; only with Count
	Details       map[string]string // further facts, at most 32; keys a-z then a-z, 0-9, _ (64), values up to 1024 bytes
	Salt          []byte            // 16 random bytes of NewSalt; required
	Personal      []byte            // HashPersonal of the personal part; empty when there is none
}

// Actor is who acted. The id may be left out only for the kinds [ActorSystem] and [ActorUnknown].
type Actor struct {
	Kind       string // required, a code
	ID         string
	Auth       string // how it was authenticated, a code
	Credential string // id of the key or token that it presented
	Behalf     string // id of whom it acted for
}

// Ref names a record. Kind is a code.
type Ref struct {
	Kind string
	ID   string
}

// GrantRef names a grant as it was decided on.
type GrantRef struct {
	ID       string
	Revision int64
	Cycle    int64
}

// CredentialRef names a credential as it was vended.
type CredentialRef struct {
	ID       string
	Revision int64
}

// Change says what a deciding record became: at Revision, counted from 1, either its State, a hash of
// the record's deciding columns under the event's salt, or Removed. What makes up the hash is for the one who keeps the record
// to define.
type Change struct {
	Kind     string
	ID       string
	Revision int64
	State    []byte
	Removed  bool
}

// SealedRef binds a newly sealed value to the log by the SHA-256 of its sealed bytes.
type SealedRef struct {
	Kind   string
	ID     string
	Digest []byte
}

// Approval is one decision that counted. Verdict is a code.
type Approval struct {
	Actor   Ref
	Verdict string
}

// Encode returns the exact bytes of e, as they are stored, exported and hashed: one line of canonical JSON without a newline
// at its end, of at most MaxContent bytes. It returns ErrInvalid, naming the field, when e breaks a rule.
func (e Event) Encode() ([]byte, error) { return e.encode() }

func (e *Event) encode() ([]byte, error) { return encode(1024, MaxContent, e.members) }

// Parse returns the event whose exact bytes content is: Encode of the result is content again. Anything else is ErrFormat.
// The result shares no memory with content.
func Parse(content []byte) (Event, error) {
	if len(content) <= MaxContent && !bytes.HasSuffix(content, []byte(`,"version":1}`)) {
		return Event{}, fmt.Errorf("%w: content is not an event of version 1", ErrFormat)
	}
	var e Event
	if err := decode(content, MaxContent, e.members); err != nil {
		return Event{}, err
	}
	return e, nil
}

// members is the event format, version 1. Its order is the order of the bytes. Nothing here can ever change.
func (e *Event) members(c *codec) {
	version := int64(Version)
	c.text("action", (*string)(&e.Action), actionRule)
	if !c.member("actor", true) {
		c.fail("actor", "is required")
	}
	c.members(e.Actor.members)
	c.text("agent", &e.Agent, idRule)
	list(c, "approvals", &e.Approvals, (*codec).approval)
	list(c, "changes", &e.Changes, (*codec).change)
	c.text("client_request", &e.ClientRequest, idRule)
	c.optional("count", &e.Count)
	c.object("credential", e.Credential != (CredentialRef{}), e.Credential.members)
	c.mapping("details", &e.Details, detailRule)
	c.text("from", &e.From, codeRule)
	c.object("grant", e.Grant != (GrantRef{}), e.Grant.members)
	c.text("node", &e.Node, idRule)
	c.text("organization", &e.Organization, nameRule)
	c.text("outcome", (*string)(&e.Outcome), outcomeRule)
	c.octets("personal", &e.Personal, hashSize, false)
	c.text("reason", &e.Reason, rule{e.Outcome != OutcomeOK, code})
	c.text("request", &e.Request, idRule)
	c.octets("salt", &e.Salt, saltSize, true)
	list(c, "sealed", &e.Sealed, (*codec).sealed)
	c.integer("seq", &e.Seq)
	c.text("software", &e.Software, idRule)
	c.optional("span", &e.Span)
	c.object("target", e.Target != (Ref{}), e.Target.members)
	c.text("ticket", &e.Ticket, ticketRule)
	c.integer("time", &e.Time)
	c.text("to", &e.To, codeRule)
	c.text("tool", &e.Tool, idRule)
	c.text("trace", &e.Trace, idRule)
	c.integer("version", &version)
	if version != Version {
		c.fail("version", "is not 1")
	}
	if e.Span != 0 && e.Count == 0 {
		c.fail("span", "needs a count")
	}
}

func (a *Actor) members(c *codec) {
	c.text("auth", &a.Auth, codeRule)
	c.text("behalf", &a.Behalf, idRule)
	c.text("credential", &a.Credential, idRule)
	c.text("id", &a.ID, idRule)
	c.text("kind", &a.Kind, needCode)
	if a.ID == "" && a.Kind != ActorSystem && a.Kind != ActorUnknown {
		c.fail("actor's id", "is required")
	}
}

func (r *Ref) members(c *codec) {
	c.text("id", &r.ID, needID)
	c.text("kind", &r.Kind, needCode)
}

func (g *GrantRef) members(c *codec) {
	c.optional("cycle", &g.Cycle)
	c.text("id", &g.ID, needID)
	c.optional("revision", &g.Revision)
}

func (r *CredentialRef) members(c *codec) {
	c.text("id", &r.ID, needID)
	c.optional("revision", &r.Revision)
}

func (c *codec) approval(a *Approval) {
	a.Actor.members(c)
	c.text("verdict", &a.Verdict, needCode)
}

func (c *codec) change(ch *Change) {
	c.text("id", &ch.ID, needID)
	c.text("kind", &ch.Kind, needCode)
	c.flag("removed", &ch.Removed)
	c.integer("revision", &ch.Revision)
	c.octets("state", &ch.State, hashSize, false)
	switch {
	case ch.Revision < 1:
		c.fail("revision", "of a change is less than 1")
	case ch.Removed == (len(ch.State) > 0):
		c.fail("changes", "need either a state or removed")
	}
}

func (c *codec) sealed(s *SealedRef) {
	c.octets("digest", &s.Digest, hashSize, true)
	c.text("id", &s.ID, needID)
	c.text("kind", &s.Kind, needCode)
}

// NewSalt returns 16 fresh random bytes. The salt keeps the hashes in an event from being matched against guesses of what
// was hashed by someone who holds the hashes but not the content.
func NewSalt() []byte {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails; it ends the program rather than return weak bytes
	return salt
}
