package grants

import "errors"

// Errors of the transitions. Their texts never contain a value of the row or
// of the input.
var (
	// ErrAlreadyPending occurs when access is requested while a request
	// waits for a decision.
	ErrAlreadyPending = errors.New("grants: a request is already pending")
	// ErrAlreadyApproved occurs when access is requested that the agent has.
	ErrAlreadyApproved = errors.New("grants: access is already approved")
	// ErrNotPending occurs when a grant that waits for no decision is
	// approved or denied.
	ErrNotPending = errors.New("grants: the grant is not pending")
	// ErrNotApproved occurs when a grant that gives no access is narrowed.
	ErrNotApproved = errors.New("grants: the grant is not approved")
	// ErrAlreadyDecided occurs when the same approver approves a cycle twice.
	ErrAlreadyDecided = errors.New("grants: this approver has already approved")
	// ErrOwnerAlone occurs when the agent's owner would be the only one who
	// approved although somebody else could. Ask another approver.
	ErrOwnerAlone = errors.New("grants: the owner of the agent cannot approve alone")
	// ErrApprovalsRequired occurs when a tool that requires several
	// approvals is assigned. Let the agent request it, and approve that.
	ErrApprovalsRequired = errors.New("grants: the tool requires several approvals and cannot be assigned by one")
	// ErrWidened occurs when terms are wider than those they must narrow.
	// It comes in a TermsError that names the field.
	ErrWidened = errors.New("grants: terms can only be narrowed")
	// ErrTerms occurs when terms are malformed or would leave nothing. It
	// comes in a TermsError that names the field.
	ErrTerms = errors.New("grants: terms are not valid")
	// ErrUnsettled occurs when the end of the grant has passed and is not
	// written yet. Write what Settle returns, then repeat the call.
	ErrUnsettled = errors.New("grants: the end of the grant has passed and is not recorded")
	// ErrInconsistent occurs when a row contradicts itself or its approval
	// rows. It was not written by this package; nothing is decided on it.
	ErrInconsistent = errors.New("grants: the stored grant is inconsistent")
	// ErrInput occurs when an argument is missing or out of range.
	ErrInput = errors.New("grants: input is not valid")
)

// TermsError says which field of Terms is at fault. Err is ErrTerms or
// ErrWidened.
type TermsError struct {
	Field string // "duration", "max_vends" or "scopes"
	Err   error
	text  string
}

// Error names the field and what it must be, never the value given.
func (e *TermsError) Error() string { return e.Err.Error() + ": " + e.Field + " " + e.text }

// Unwrap returns Err.
func (e *TermsError) Unwrap() error { return e.Err }
