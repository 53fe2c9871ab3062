package grants

// Facts are what Decide needs besides the grant. All of it must have been read
// in the transaction that acts on the decision. The zero value is refused.
type Facts struct {
	// Intact says that every row read for this decision, the grant among
	// them, passed the check of its seal.
	Intact             bool
	OrganizationLocked bool
	// AgentActive says that the agent is known and not suspended.
	AgentActive bool
	ToolPresent bool
	// Credential is the one that would be vended: the tool's, or the
	// grant's own.
	Credential CredentialFacts
}

// CredentialFacts are what Decide needs of a credential.
type CredentialFacts struct {
	Present   bool
	ExpiresAt int64 // microseconds, exclusive; 0: never
}

// Reason says in one word why access was refused. It is part of events and
// answers and never changes its meaning.
type Reason string

// The reasons. ReasonNone belongs to what is allowed.
const (
	ReasonNone               Reason = ""
	ReasonNoGrant            Reason = "no_grant"
	ReasonPending            Reason = "pending"
	ReasonApprovalsMissing   Reason = "approvals_missing" // pending, approved by some of several
	ReasonDenied             Reason = "denied"
	ReasonRevoked            Reason = "revoked"
	ReasonExpired            Reason = "expired"
	ReasonUsedUp             Reason = "used_up"
	ReasonOrganizationLocked Reason = "organization_locked"
	ReasonAgentSuspended     Reason = "agent_suspended"
	ReasonNoTool             Reason = "no_tool"
	ReasonNoCredential       Reason = "no_credential"
	ReasonCredentialExpired  Reason = "credential_expired"
	ReasonIntegrity          Reason = "integrity_failed" // a row's seal does not fit
	ReasonUndecidable        Reason = "undecidable"      // a row contradicts itself, or the time is out of range
)

// Reasons returns every reason for a refusal, in a fresh slice.
func Reasons() []Reason {
	return []Reason{
		ReasonNoGrant, ReasonPending, ReasonApprovalsMissing, ReasonDenied, ReasonRevoked, ReasonExpired,
		ReasonUsedUp, ReasonOrganizationLocked, ReasonAgentSuspended, ReasonNoTool, ReasonNoCredential,
		ReasonCredentialExpired, ReasonIntegrity, ReasonUndecidable,
	}
}

// Hint returns one sentence that an agent can act on. It names no record and
// no secret. It is empty for ReasonNone and for what is not a reason.
func (r Reason) Hint() string {
	switch r {
	case ReasonNoGrant:
		return "You have not asked for this tool yet: request access with a reason, and a person will decide."
	case ReasonPending:
		return "Your request waits for a person's decision: try again later, do not request again."
	case ReasonApprovalsMissing:
		return "Your request is approved by some of the people it needs: wait for the others, do not request again."
	case ReasonDenied:
		return "Your request was denied: read the denial reason, and request again only if it no longer applies."
	case ReasonRevoked:
		return "Your access was revoked: stop using the credential, and request access again if you still need it."
	case ReasonExpired:
		return "Your access has reached its end: request access again if you still need it."
	case ReasonUsedUp:
		return "You have fetched this credential as often as was granted: request access again if you still need it."
	case ReasonOrganizationLocked:
		return "The organization is locked and nothing is handed out: wait until an administrator unlocks it."
	case ReasonAgentSuspended:
		return "You are suspended: ask an administrator to reactivate you."
	case ReasonNoTool:
		return "There is no such tool: list the catalog to see which tools there are."
	case ReasonNoCredential:
		return "The tool has no credential yet: ask an administrator to add one, then try again."
	case ReasonCredentialExpired:
		return "The tool's credential has expired: ask an administrator to replace it, then try again."
	case ReasonIntegrity, ReasonUndecidable:
		return "Your access could not be verified and was refused: tell an administrator, who finds the reason in the audit log."
	case ReasonNone:
	}
	return ""
}

// Decision is the answer to "may this agent have the credential now?".
type Decision struct {
	Allowed bool
	Reason  Reason // why not; ReasonNone when allowed
	// Next is the grant to write in the same transaction, or nil. An allowed
	// vend that counts raises VendsUsed, and the last one makes the grant
	// used_up; if the vend then does not happen, say because the credential
	// does not open, Next must not be written. A refused one has it when the
	// decision found that the end has passed; then write it in any case.
	Next *Grant
	// Event is EventExpired or EventUsedUp when Next has that new status,
	// and EventNone when Next only counts.
	Event Event
}

// Decide says whether the agent of grant g may have the credential at now.
// A nil g is a grant that does not exist. Of several reasons to refuse, the
// one given is the first of: rows that can't be trusted, organization, agent,
// tool, grant, credential. Neither g nor its slices are changed.
func Decide(g *Grant, f Facts, now int64) Decision {
	switch {
	case !f.Intact:
		return Decision{Reason: ReasonIntegrity}
	case checkTime(now) != nil, g != nil && g.Check() != nil:
		return Decision{Reason: ReasonUndecidable}
	}
	var d Decision
	if g != nil {
		now = g.at(now)
		if t := Settle(*g, now); t.Changed() {
			next := t.Grant // and not t, which would be made for every decision
			d.Next, d.Event = &next, t.Event
			g = &next
		}
	}
	if d.Reason = refusal(g, f, now); d.Reason != ReasonNone {
		return d
	}
	d.Allowed = true
	d.Next, d.Event = g.vend(now)
	return d
}

// refusal is why a settled grant gives no access, or ReasonNone.
func refusal(g *Grant, f Facts, now int64) Reason {
	switch {
	case f.OrganizationLocked:
		return ReasonOrganizationLocked
	case !f.AgentActive:
		return ReasonAgentSuspended
	case !f.ToolPresent:
		return ReasonNoTool
	case g == nil:
		return ReasonNoGrant
	case g.Status != StatusApproved:
		return g.refusal()
	case !f.Credential.Present:
		return ReasonNoCredential
	case f.Credential.ExpiresAt != 0 && now >= f.Credential.ExpiresAt:
		return ReasonCredentialExpired
	}
	return ReasonNone
}

// refusal is why a grant that is not approved gives no access.
func (g *Grant) refusal() Reason {
	switch g.Status {
	case StatusPending:
		if g.Approvals > 0 {
			return ReasonApprovalsMissing
		}
		return ReasonPending
	case StatusDenied:
		return ReasonDenied
	case StatusRevoked:
		return ReasonRevoked
	case StatusExpired:
		return ReasonExpired
	case StatusUsedUp:
		return ReasonUsedUp
	case StatusNone, StatusApproved:
	}
	return ReasonUndecidable
}

// vend counts one vend where vends are counted.
func (g *Grant) vend(now int64) (*Grant, Event) {
	if g.Granted.MaxVends == 0 {
		return nil, EventNone
	}
	n := g.next(now)
	n.VendsUsed++
	if n.VendsUsed < n.Granted.MaxVends {
		return &n, EventNone
	}
	n.Status = StatusUsedUp
	return &n, EventUsedUp
}

// Settle writes down an end that has passed at now: an approved grant becomes
// expired, or used_up when its count was reached. Any other grant is returned
// unchanged. Whoever loads a grant to change it settles it first, so that the
// log names every end; what Settle wrote stands, whatever a clock says later.
// A time that is out of range settles nothing.
func Settle(g Grant, now int64) Transition {
	event, ended := g.ended(now)
	if !ended || checkTime(now) != nil {
		return unchanged(g)
	}
	n := g.next(now)
	n.Status = StatusExpired
	if event == EventUsedUp {
		n.Status = StatusUsedUp
	}
	return Transition{Event: event, From: g.Status, Grant: n}
}

// Access returns the status to show for g at now: StatusNone for nil, and
// expired or used_up for an end that has passed, written or not.
func Access(g *Grant, now int64) Status {
	if g == nil || !g.Status.Known() {
		return StatusNone
	}
	return Settle(*g, now).Grant.Status
}
