package grants

import (
	"fmt"
	"slices"
)

// Status is the state of a grant.
type Status string

// The states of a grant. StatusNone is never stored: it is what an agent
// without a grant sees.
const (
	StatusNone     Status = "none"
	StatusPending  Status = "pending"
	StatusApproved Status = "approved"
	StatusDenied   Status = "denied"
	StatusRevoked  Status = "revoked"
	StatusExpired  Status = "expired"
	StatusUsedUp   Status = "used_up"
)

// Statuses returns every status a stored grant can have, in a fresh slice.
func Statuses() []Status {
	return []Status{StatusPending, StatusApproved, StatusDenied, StatusRevoked, StatusExpired, StatusUsedUp}
}

// Known reports whether a stored grant can have this status.
func (s Status) Known() bool { return slices.Contains(Statuses(), s) }

// Open reports whether the grant gives access or may still come to give it
// without a new request.
func (s Status) Open() bool { return s == StatusPending || s == StatusApproved }

// Grant is the one record of an agent's access to a tool. Times are
// microseconds since the Unix epoch; 0 means "not".
type Grant struct {
	ID           string
	Organization string
	Agent        string
	Tool         string

	// Cycle counts the times the question was opened: 1 for the first
	// request or assignment, and one more for each that follows a denial, a
	// revocation or an end. Approvals count within their cycle only.
	Cycle  int64
	Status Status

	// Asked are the terms of the request; zero when an administrator
	// assigned the tool without one. Granted are the terms in force. While
	// the grant is pending they are what the approvers so far have left of
	// Asked, and zero before the first of them.
	Asked   Terms
	Granted Terms

	Reason       string // why the agent asks
	DenialReason string // why it was denied
	Ticket       string // a reference outside, such as an issue

	RequestedAt int64
	DecidedAt   int64 // last decision of an administrator that stands
	ApprovedAt  int64
	ExpiresAt   int64 // exclusive: at this time the grant has expired

	// VendsUsed counts vends while Granted.MaxVends is above 0, from the
	// moment that limit came into force.
	VendsUsed int64

	// DecidedBy and its companions say who took the last decision: approved
	// (as the last of several), denied, revoked, assigned or narrowed.
	DecidedBy      string
	DecidedByLabel string
	DecidedByKind  string

	// RequiredApprovals is how many distinct approvers the cycle needs. It
	// is fixed when the cycle begins; a tool that comes to require more
	// raises it while the grant is pending, one that requires less does not
	// lower it.
	RequiredApprovals int64
	// Approvals is how many distinct approvers the cycle has. It must agree
	// with the approval rows, so that a row added or removed is noticed. A
	// denial sets it to 0.
	Approvals int64

	CreatedAt int64
	UpdatedAt int64
	Revision  int64  // 1 at first, one more at every change
	Seal      []byte // the row's seal, opaque here; absent from a changed row
}

// Decider is the administrator who decides.
type Decider struct {
	ID    string // required; distinct approvers are told apart by it alone
	Kind  string
	Label string
}

// Verdict is what an approver decided.
type Verdict string

// The verdicts.
const (
	VerdictApprove Verdict = "approve"
	VerdictDeny    Verdict = "deny"
)

// Approval is the record of one approver's decision on one cycle of a grant.
// Organization, Grant, Cycle and Actor identify it. An approver who denies
// what they approved before changes their row: its revision is raised.
type Approval struct {
	Organization string
	Grant        string
	Cycle        int64
	Actor        string
	ActorKind    string
	ActorLabel   string
	Verdict      Verdict
	Reason       string
	Time         int64
	// Terms are those this approval left in force; zero for a denial.
	Terms Terms
	// OwnerAlone says that the agent's owner approved with nobody else
	// because there was nobody else who could.
	OwnerAlone bool
	Revision   int64
	Seal       []byte // the row's seal, opaque here
}

// Event names what happened to a grant. The action in the audit log is
// "grant." followed by it.
type Event string

// The events. EventNone says that nothing changed.
const (
	EventNone             Event = ""
	EventRequested        Event = "requested"
	EventApprovalRecorded Event = "approval_recorded"
	EventApproved         Event = "approved"
	EventAssigned         Event = "assigned"
	EventDenied           Event = "denied"
	EventRevoked          Event = "revoked"
	EventNarrowed         Event = "narrowed"
	EventExpired          Event = "expired"
	EventUsedUp           Event = "used_up"
)

// Transition is what a call did to a grant.
type Transition struct {
	Event Event
	From  Status // before; StatusNone for a grant that did not exist
	// Grant is the row to write, or the row as it was when nothing changed.
	Grant Grant
	// Approval is the decision's own row to write with it, or nil.
	Approval *Approval
}

// Changed reports whether there is anything to write.
func (t Transition) Changed() bool { return t.Event != EventNone }

// MaxRequiredApprovals is the most approvers that a tool can require.
const MaxRequiredApprovals = 100

// maxTime is the last microsecond of the year 9999. Times above it are faults,
// and the bound keeps every sum of a time and a duration within int64.
const maxTime = 253402300799999999

// Check reports whether the row makes sense by itself; if not, the error is
// ErrInconsistent and names what is wrong, never a value. A row that came from
// this package's transitions always does. Check does not look at the seal.
func (g Grant) Check() error {
	switch {
	case g.ID == "" || g.Organization == "" || g.Agent == "" || g.Tool == "":
		return inconsistent("identity")
	case !g.Status.Known():
		return inconsistent("status")
	case g.Cycle < 1 || g.Revision < 1:
		return inconsistent("cycle or revision")
	case g.RequiredApprovals < 1 || g.RequiredApprovals > MaxRequiredApprovals || g.Approvals < 0:
		return inconsistent("approvals")
	case g.Status == StatusPending && g.Approvals >= g.RequiredApprovals:
		return inconsistent("approvals complete but pending")
	case g.Asked.Validate() != nil || g.Granted.Validate() != nil:
		return inconsistent("terms")
	case g.VendsUsed < 0 || g.Status == StatusPending && g.VendsUsed > 0:
		return inconsistent("vends used")
	}
	for _, t := range []int64{g.RequestedAt, g.DecidedAt, g.ApprovedAt, g.CreatedAt, g.UpdatedAt} {
		if t < 0 || t > maxTime {
			return inconsistent("times")
		}
	}
	if g.Status != StatusApproved {
		return nil
	}
	return g.checkApproved()
}

// checkApproved is the part of Check for the one status that gives access.
func (g Grant) checkApproved() error {
	switch {
	case g.Approvals < g.RequiredApprovals:
		return inconsistent("approvals missing")
	case g.ApprovedAt == 0:
		return inconsistent("approval time")
	case g.ExpiresAt != g.Granted.end(g.ApprovedAt):
		return inconsistent("end")
	case g.Granted.Narrows(g.Asked) != nil:
		return inconsistent("terms wider than asked")
	}
	return nil
}

func inconsistent(what string) error { return fmt.Errorf("%w: %s", ErrInconsistent, what) }

// ended reports whether the end of the terms in force has passed at now, and
// how. It looks at approved grants only.
func (g Grant) ended(now int64) (Event, bool) {
	switch {
	case g.Status != StatusApproved:
		return EventNone, false
	case g.ExpiresAt != 0 && g.at(now) >= g.ExpiresAt:
		return EventExpired, true
	case g.Granted.MaxVends > 0 && g.VendsUsed >= g.Granted.MaxVends:
		return EventUsedUp, true
	}
	return EventNone, false
}

// at is the time a call at now counts as: a row never changes before its own
// last change, so a clock that goes back revives nothing.
func (g Grant) at(now int64) int64 { return max(now, g.UpdatedAt) }

// next returns the row that a change at now starts from: a copy that shares
// no memory with g, one revision further and without the seal.
func (g Grant) next(now int64) Grant {
	g.Asked, g.Granted = g.Asked.clone(), g.Granted.clone()
	g.UpdatedAt = g.at(now)
	g.Revision++
	g.Seal = nil
	return g
}

// decided stamps the decider.
func (g *Grant) decided(by Decider) {
	g.DecidedBy, g.DecidedByKind, g.DecidedByLabel = by.ID, by.Kind, by.Label
	g.DecidedAt = g.UpdatedAt
}

// approve puts terms in force from the row's own time on. A pending row has
// neither a denial nor a count that would have to go.
func (g *Grant) approve(by Decider, terms Terms) {
	g.Status = StatusApproved
	g.Granted = terms.clone()
	g.ApprovedAt = g.UpdatedAt
	g.ExpiresAt = terms.end(g.ApprovedAt)
	g.decided(by)
}

// approval is the row of a decision on g, which already carries its new time.
func (g Grant) approval(by Decider, v Verdict) *Approval {
	return &Approval{
		Organization: g.Organization, Grant: g.ID, Cycle: g.Cycle,
		Actor: by.ID, ActorKind: by.Kind, ActorLabel: by.Label,
		Verdict: v, Time: g.UpdatedAt, Revision: 1,
	}
}
