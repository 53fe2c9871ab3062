package grants

import (
	"slices"
	"strings"
)

// Identity says which grant is meant.
type Identity struct {
	ID           string // for a grant that does not exist yet; otherwise ignored
	Organization string
	Agent        string
	Tool         string
}

// RequestInput is what an agent asks.
type RequestInput struct {
	Identity
	Reason string
	Ticket string
	Asked  Terms
	// RequiredApprovals is what the tool requires; 0 means 1.
	RequiredApprovals int64
}

// Request opens a request: there is no grant yet (prev is nil), or it was
// denied, revoked, expired or used up, in which case the same grant begins its
// next cycle and forgets reason, decision, terms and count of the last one.
// Errors: ErrAlreadyPending, ErrAlreadyApproved, ErrUnsettled, ErrTerms,
// ErrInput, ErrInconsistent.
func Request(prev *Grant, in RequestInput, now int64) (Transition, error) {
	if prev != nil {
		if err := in.matches(*prev); err != nil {
			return Transition{}, err
		}
		switch prev.Status {
		case StatusPending:
			return Transition{}, ErrAlreadyPending
		case StatusApproved:
			return Transition{}, settledOr(*prev, now, ErrAlreadyApproved)
		}
	}
	if err := in.Asked.Validate(); err != nil {
		return Transition{}, err
	}
	n, err := begin(prev, in.Identity, in.RequiredApprovals, now)
	if err != nil {
		return Transition{}, err
	}
	n.Status = StatusPending
	n.Asked = in.Asked.clone()
	n.Reason, n.Ticket = in.Reason, in.Ticket
	n.RequestedAt = n.UpdatedAt
	return Transition{Event: EventRequested, From: before(prev), Grant: n}, nil
}

// ApproveInput is one approver's consent.
type ApproveInput struct {
	By Decider
	// Owner is the id of the agent's owner, or empty when it has none.
	Owner string
	// OtherApprovers says whether anybody but the owner may approve.
	OtherApprovers bool
	// Terms may narrow what was asked and what earlier approvers of the
	// cycle left of it. A field that is zero keeps it.
	Terms Terms
	// RequiredApprovals is what the tool requires now; 0 means 1. It can
	// raise what the cycle began with, never lower it.
	RequiredApprovals int64
	// Approvals are all approval rows of the grant. Those of earlier cycles
	// are passed over.
	Approvals []Approval
	Reason    string
}

// Approve records one approval. When the cycle then has as many distinct
// approvers as it requires, the grant is approved (EventApproved) under the
// tightest of their terms, counted from now; until then it stays pending
// (EventApprovalRecorded). The agent's owner is never the only approver unless
// nobody else could approve, and then Approval.OwnerAlone says so.
// Errors: ErrNotPending, ErrAlreadyDecided, ErrOwnerAlone, ErrWidened,
// ErrTerms, ErrInput, ErrInconsistent.
func Approve(g Grant, in ApproveInput, now int64) (Transition, error) {
	if err := g.deciding(in.By, now); err != nil {
		return Transition{}, err
	}
	required, err := requiredApprovals(in.RequiredApprovals)
	if err != nil {
		return Transition{}, err
	}
	approvers, err := g.approvers(in.Approvals)
	if err != nil {
		return Transition{}, err
	}
	if slices.Contains(approvers, in.By.ID) {
		return Transition{}, ErrAlreadyDecided
	}
	terms, err := in.Terms.within(g.bound())
	if err != nil {
		return Transition{}, err
	}
	approvers = append(approvers, in.By.ID)
	n := g.next(now)
	n.RequiredApprovals = max(n.RequiredApprovals, required)
	n.Approvals = int64(len(approvers))
	complete := n.Approvals >= n.RequiredApprovals
	alone := complete && onlyOwner(approvers, in.Owner)
	if alone && in.OtherApprovers {
		return Transition{}, ErrOwnerAlone
	}
	event := EventApprovalRecorded
	n.Granted = terms.clone()
	if complete {
		event = EventApproved
		n.approve(in.By, terms)
	}
	row := n.approval(in.By, VerdictApprove)
	row.Reason, row.Terms, row.OwnerAlone = in.Reason, terms.clone(), alone
	return Transition{Event: event, From: g.Status, Grant: n, Approval: row}, nil
}

// DenyInput is one approver's refusal.
type DenyInput struct {
	By     Decider
	Reason string // trimmed; may be empty
	// Approvals are all approval rows of the grant, so that an approver who
	// changes their mind changes their row.
	Approvals []Approval
}

// Deny ends a pending request, however many have approved it.
// Errors: ErrNotPending, ErrInput.
func Deny(g Grant, in DenyInput, now int64) (Transition, error) {
	if err := checkDecision(in.By, now); err != nil {
		return Transition{}, err
	}
	if g.Status != StatusPending {
		return Transition{}, ErrNotPending
	}
	n := g.next(now)
	n.Status = StatusDenied
	n.DenialReason = strings.TrimSpace(in.Reason)
	n.Granted = Terms{}
	n.Approvals = 0
	n.decided(in.By)
	row := n.approval(in.By, VerdictDeny)
	row.Reason = n.DenialReason
	for _, a := range in.Approvals {
		if a.of(g) && a.Actor == in.By.ID {
			row.Revision = max(row.Revision, a.Revision+1)
		}
	}
	return Transition{Event: EventDenied, From: g.Status, Grant: n, Approval: row}, nil
}

// AssignInput is an administrator's decision to give access unasked.
type AssignInput struct {
	Identity
	By Decider
	// Owner and OtherApprovers are as in ApproveInput.
	Owner          string
	OtherApprovers bool
	// Terms bound the access. For a pending request they may only narrow
	// what was asked, and a zero field keeps it.
	Terms Terms
	// Ticket and Reason are the administrator's own. The reason goes to the
	// approval's row, never to the grant's; the ticket of a pending request
	// stays.
	Ticket string
	Reason string
	// RequiredApprovals is what the tool requires; 0 means 1.
	RequiredApprovals int64
}

// Assign gives access by one administrator's decision. A pending request is
// approved by it (EventApproved); an approved grant stays as it is; in all
// other cases a new cycle begins and is approved at once (EventAssigned).
//
// An assignment counts as one approval and is held to the same rules: a tool
// that requires several approvals can't be assigned, and the agent's owner
// can't assign alone when somebody else could. Otherwise it would be the way
// around both.
// Errors: ErrApprovalsRequired, ErrOwnerAlone, ErrUnsettled, ErrWidened,
// ErrTerms, ErrInput, ErrInconsistent.
func Assign(prev *Grant, in AssignInput, now int64) (Transition, error) {
	if err := checkDecision(in.By, now); err != nil {
		return Transition{}, err
	}
	required, err := requiredApprovals(in.RequiredApprovals)
	if err != nil {
		return Transition{}, err
	}
	if prev != nil {
		if err := in.matches(*prev); err != nil {
			return Transition{}, err
		}
		switch {
		case prev.Status == StatusApproved:
			if err := settledOr(*prev, now, prev.Check()); err != nil {
				return Transition{}, err
			}
			return unchanged(*prev), nil
		case prev.Status == StatusPending && max(prev.RequiredApprovals, required) == 1:
			return Approve(*prev, ApproveInput{
				By: in.By, Owner: in.Owner, OtherApprovers: in.OtherApprovers, Terms: in.Terms, Reason: in.Reason,
			}, now)
		case prev.Status == StatusPending:
			return Transition{}, ErrApprovalsRequired
		}
	}
	if required > 1 {
		return Transition{}, ErrApprovalsRequired
	}
	return assign(prev, in, now)
}

// assign begins a cycle and approves it.
func assign(prev *Grant, in AssignInput, now int64) (Transition, error) {
	if err := in.Terms.Validate(); err != nil {
		return Transition{}, err
	}
	alone := onlyOwner([]string{in.By.ID}, in.Owner)
	if alone && in.OtherApprovers {
		return Transition{}, ErrOwnerAlone
	}
	n, err := begin(prev, in.Identity, in.RequiredApprovals, now)
	if err != nil {
		return Transition{}, err
	}
	n.Ticket = in.Ticket
	n.Approvals = 1
	n.approve(in.By, in.Terms)
	row := n.approval(in.By, VerdictApprove)
	row.Reason, row.Terms, row.OwnerAlone = in.Reason, in.Terms.clone(), alone
	return Transition{Event: EventAssigned, From: before(prev), Grant: n, Approval: row}, nil
}

// Revoke takes access away, or the chance of it. It works from every status,
// also from revoked, each time with a new revision, and clears an old denial
// reason. What was granted, and since when, stays readable in the row.
// Error: ErrInput.
func Revoke(g Grant, by Decider, now int64) (Transition, error) {
	if err := checkDecision(by, now); err != nil {
		return Transition{}, err
	}
	n := g.next(now)
	n.Status = StatusRevoked
	n.DenialReason = ""
	n.decided(by)
	return Transition{Event: EventRevoked, From: g.Status, Grant: n}, nil
}

// RevokeOpen is what suspending an agent and deleting a tool do to each of the
// grants: pending and approved ones are revoked, one whose end has passed is
// settled, all others stay as they are. Error: ErrInput.
func RevokeOpen(g Grant, by Decider, now int64) (Transition, error) {
	if err := checkDecision(by, now); err != nil {
		return Transition{}, err
	}
	if t := Settle(g, now); t.Changed() || !g.Status.Open() {
		return t, nil
	}
	return Revoke(g, by, now)
}

// Narrow tightens the terms of an approved grant: an earlier end (the duration
// still counts from approval), fewer vends, fewer scopes. A zero field keeps
// what is in force; terms that change nothing return the grant unchanged. The
// first limit on vends counts from now; a lower one keeps the count. Terms that
// would leave nothing are ErrTerms: revoke instead.
// Errors: ErrNotApproved, ErrUnsettled, ErrWidened, ErrTerms, ErrInput,
// ErrInconsistent.
func Narrow(g Grant, terms Terms, by Decider, now int64) (Transition, error) {
	if err := checkDecision(by, now); err != nil {
		return Transition{}, err
	}
	if g.Status != StatusApproved {
		return Transition{}, ErrNotApproved
	}
	if err := settledOr(g, now, g.Check()); err != nil {
		return Transition{}, err
	}
	terms, err := terms.within(g.Granted)
	if err != nil {
		return Transition{}, err
	}
	if terms.Equal(g.Granted) {
		return unchanged(g), nil
	}
	n := g.next(now)
	n.Granted = terms.clone()
	n.ExpiresAt = terms.end(n.ApprovedAt)
	n.decided(by)
	switch event, _ := n.ended(now); event {
	case EventExpired:
		return Transition{}, termsError("duration", ErrTerms, "would end the grant at once; revoke it instead")
	case EventUsedUp:
		return Transition{}, termsError("max_vends", ErrTerms, "would leave no vend; revoke the grant instead")
	}
	return Transition{Event: EventNarrowed, From: g.Status, Grant: n}, nil
}

// begin returns the row with which a cycle begins, its status still unset.
// That prev is the grant that id means has been checked.
func begin(prev *Grant, id Identity, required, now int64) (Grant, error) {
	required, err := requiredApprovals(required)
	if err != nil {
		return Grant{}, err
	}
	if err := checkTime(now); err != nil {
		return Grant{}, err
	}
	if prev == nil {
		if id.ID == "" || id.Organization == "" || id.Agent == "" || id.Tool == "" {
			return Grant{}, ErrInput
		}
		return Grant{
			ID: id.ID, Organization: id.Organization, Agent: id.Agent, Tool: id.Tool,
			Cycle: 1, RequiredApprovals: required, CreatedAt: now, UpdatedAt: now, Revision: 1,
		}, nil
	}
	if err := prev.Check(); err != nil {
		return Grant{}, err
	}
	return Grant{
		ID: prev.ID, Organization: prev.Organization, Agent: prev.Agent, Tool: prev.Tool,
		Cycle: prev.Cycle + 1, RequiredApprovals: required, RequestedAt: prev.RequestedAt,
		CreatedAt: prev.CreatedAt, UpdatedAt: prev.at(now), Revision: prev.Revision + 1,
	}, nil
}

func (id Identity) matches(g Grant) error {
	if id.Organization != g.Organization || id.Agent != g.Agent || id.Tool != g.Tool {
		return ErrInput
	}
	return nil
}

// bound is what the next approver may narrow.
func (g Grant) bound() Terms {
	if g.Approvals == 0 {
		return g.Asked
	}
	return g.Granted
}

// deciding checks that g can be approved by somebody now.
func (g Grant) deciding(by Decider, now int64) error {
	if err := checkDecision(by, now); err != nil {
		return err
	}
	if g.Status != StatusPending {
		return ErrNotPending
	}
	return g.Check()
}

// of reports whether a belongs to the present cycle of g.
func (a Approval) of(g Grant) bool {
	return a.Organization == g.Organization && a.Grant == g.ID && a.Cycle == g.Cycle
}

// approvers returns the distinct approvers of the present cycle. They must be
// as many as the grant says, and a denial can't stand beside a pending grant.
func (g Grant) approvers(rows []Approval) ([]string, error) {
	var ids []string
	for _, a := range rows {
		switch {
		case !a.of(g):
		case a.Verdict != VerdictApprove || a.Actor == "" || slices.Contains(ids, a.Actor):
			return nil, inconsistent("approval rows")
		default:
			ids = append(ids, a.Actor)
		}
	}
	if int64(len(ids)) != g.Approvals {
		return nil, inconsistent("number of approvals")
	}
	return ids, nil
}

// onlyOwner reports whether nobody but the owner has approved.
func onlyOwner(approvers []string, owner string) bool {
	return owner != "" && !slices.ContainsFunc(approvers, func(id string) bool { return id != owner })
}

func requiredApprovals(n int64) (int64, error) {
	if n < 0 || n > MaxRequiredApprovals {
		return 0, ErrInput
	}
	return max(n, 1), nil
}

func checkDecision(by Decider, now int64) error {
	if by.ID == "" {
		return ErrInput
	}
	return checkTime(now)
}

func checkTime(now int64) error {
	if now <= 0 || now > maxTime {
		return ErrInput
	}
	return nil
}

// settledOr returns ErrUnsettled for a grant whose end has passed, else err.
func settledOr(g Grant, now int64, err error) error {
	if _, ended := g.ended(now); ended {
		return ErrUnsettled
	}
	return err
}

func before(prev *Grant) Status {
	if prev == nil {
		return StatusNone
	}
	return prev.Status
}

func unchanged(g Grant) Transition { return Transition{From: g.Status, Grant: g} }
