package agentkey

import (
	"errors"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

// Families of errors. Every error of a Manager that a caller could act on is
// of exactly one of them; test with errors.Is. Anything else is internal.
var (
	// ErrUnauthenticated: the key or token is missing, unknown, expired or revoked.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrRefused: the caller is known and may not have this now. The error is an
	// *Error whose Hint tells an agent what to do about it.
	ErrRefused = errors.New("refused")
	// ErrForbidden: the actor's role does not allow the operation.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: there is no such record in the organization.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the record is in a state that does not allow the operation.
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the input breaks a rule. The error is a *ValidationError.
	ErrInvalid = errors.New("invalid")
	// ErrLimited: a rate limit is used up. The error is a *LimitError.
	ErrLimited = errors.New("rate limited")
	// ErrUnavailable: storage, key provider or limiter can't answer now; nothing
	// was changed, or, for ErrUnknown, nobody can tell. Try again.
	ErrUnavailable = errors.New("unavailable")
)

// Error is a sentinel: one thing that can stand in the way, the family it
// belongs to, and a hint that is fit to show to an agent.
type Error struct {
	Code   string // stable, snake_case; also the reason in the log
	Family error
	Text   string
	Hint   string
}

// Error is family and text.
func (e *Error) Error() string { return e.Family.Error() + ": " + e.Text }

// Unwrap gives the family.
func (e *Error) Unwrap() error { return e.Family }

// The sentinels.
var (
	ErrNoKey        = &Error{"missing_key", ErrUnauthenticated, "no key", "Send the agent's key as `Authorization: Bearer sk_agent_…`."}
	ErrUnknownKey   = &Error{"unknown_key", ErrUnauthenticated, "unknown key", "This key is not valid. Ask an administrator for a new one."}
	ErrKeyExpired   = &Error{"key_expired", ErrUnauthenticated, "key has expired", "This key has expired. Ask an administrator for a new one."}
	ErrKeyRevoked   = &Error{"key_revoked", ErrUnauthenticated, "key was revoked", "This key was replaced or revoked. Ask an administrator for the current one."}
	ErrKeyAddress   = &Error{"key_address", ErrUnauthenticated, "key is not valid from this address", "This key is bound to other addresses."}
	ErrUnknownToken = &Error{"unknown_token", ErrUnauthenticated, "unknown token", "This token is not valid."}
	ErrTokenExpired = &Error{"token_expired", ErrUnauthenticated, "token has expired", "This token has expired. Ask an owner for a new one."}

	ErrSuspended             = &Error{"agent_suspended", ErrRefused, "agent is suspended", "This agent is suspended. Ask an administrator to reactivate it."}
	ErrOrganizationLocked    = &Error{"organization_locked", ErrRefused, "organization is locked", "Access is locked for the whole organization. Wait until an administrator unlocks it."}
	ErrOrganizationDestroyed = &Error{"organization_destroyed", ErrRefused, "organization is destroyed", "This organization's keys were destroyed. Nothing of it can be opened or changed any more; its log can be read."}
	ErrNoGrant               = &Error{"no_grant", ErrRefused, "no grant", grants.ReasonNoGrant.Hint()}
	ErrPending               = &Error{"pending", ErrRefused, "pending", grants.ReasonPending.Hint()}
	ErrDenied                = &Error{"denied", ErrRefused, "denied", grants.ReasonDenied.Hint()}
	ErrRevoked               = &Error{"revoked", ErrRefused, "revoked", grants.ReasonRevoked.Hint()}
	ErrExpired               = &Error{"expired", ErrRefused, "expired", grants.ReasonExpired.Hint()}
	ErrUsedUp                = &Error{"used_up", ErrRefused, "used up", grants.ReasonUsedUp.Hint()}

	ErrRole    = &Error{"role", ErrForbidden, "the role does not allow this", "Ask somebody with the role that this needs."}
	ErrNoActor = &Error{"no_actor", ErrForbidden, "no actor", "Say who acts."}

	ErrNoAgent         = &Error{"unknown_agent", ErrNotFound, "no such agent", "Check the agent's id."}
	ErrNoTool          = &Error{"unknown_tool", ErrNotFound, "no such tool", "List the tools with GET /api/tools and use an id from there."}
	ErrNoRequest       = &Error{"unknown_request", ErrNotFound, "no such request", "Check the request's id."}
	ErrNoKeyRecord     = &Error{"unknown_key_id", ErrNotFound, "no such key", "Check the key's id."}
	ErrNoAdministrator = &Error{"unknown_administrator", ErrNotFound, "no such administrator", "Check the administrator's id."}
	ErrNoToken         = &Error{"unknown_token_id", ErrNotFound, "no such token", "Check the token's id."}
	ErrNoSuggestion    = &Error{"unknown_suggestion", ErrNotFound, "no such suggestion", "Check the suggestion's id."}
	ErrNoVersion       = &Error{"unknown_version", ErrNotFound, "no such version of the tool's instructions", "Check the version's id."}
	ErrNoHold          = &Error{"unknown_hold", ErrNotFound, "no such legal hold", "Check the hold's id."}
	ErrNoOrganization  = &Error{"unknown_organization", ErrNotFound, "no such organization", "Check the organization's id."}

	ErrAlreadyPending        = &Error{"already_pending", ErrConflict, "a request is already pending", "Your request is waiting for a decision. Try again later; don't ask twice."}
	ErrAlreadyApproved       = &Error{"already_approved", ErrConflict, "access is already approved", "You have access already: fetch the credential."}
	ErrNotPending            = &Error{"not_pending", ErrConflict, "the request is not pending", "It was decided already."}
	ErrNotApproved           = &Error{"not_approved", ErrConflict, "the grant is not approved", "Only an approved grant can be narrowed."}
	ErrAlreadyDecided        = &Error{"already_decided", ErrConflict, "this approver has approved already", "Somebody else has to approve too."}
	ErrOwnerAlone            = &Error{"owner_alone", ErrConflict, "the agent's owner can't approve alone", "Another approver has to decide."}
	ErrApprovalsRequired     = &Error{"approvals_required", ErrConflict, "the tool needs more than one approver", "Let the agent request it, and approve that."}
	ErrAgentSuspended        = &Error{"agent_is_suspended", ErrConflict, "the agent is suspended", "Reactivate the agent first."}
	ErrAgentActive           = &Error{"agent_is_active", ErrConflict, "the agent is not suspended", "Only a suspended agent can be reactivated."}
	ErrNoCredential          = &Error{"no_credential", ErrConflict, "the tool has no credential", "An administrator has to add the credential first. You don't need to ask again."}
	ErrCredentialExpired     = &Error{"credential_expired", ErrConflict, "the credential has expired", "An administrator has to replace the credential first. You don't need to ask again."}
	ErrToolExists            = &Error{"existing_tool", ErrConflict, "the tool is in the catalog already", "Ask for access to it with POST /api/tools/{tool_id}/request."}
	ErrSuggestionDismissed   = &Error{"suggestion_dismissed", ErrConflict, "the suggestion was dismissed", "An administrator decided against this tool for now. Suggest it again after retry_after at the earliest."}
	ErrSuggestionDecided     = &Error{"suggestion_not_pending", ErrConflict, "the suggestion is not pending", "It was decided already."}
	ErrInstructionsDismissed = &Error{"instructions_dismissed", ErrConflict, "the suggestion was dismissed", "An administrator decided against it: read dismissal_reason, and don't propose it again."}
	ErrInstructionsAccepted  = &Error{"instructions_accepted", ErrConflict, "the suggestion was accepted already", "The instructions say it already: read them with the credential."}
	ErrInstructionsChanged   = &Error{"instructions_changed", ErrConflict, "the suggestion is for an older version of the instructions", "Read the current instructions, put into them what is still missing, and dismiss the suggestion."}
	ErrLastOwner             = &Error{"last_owner", ErrConflict, "the organization would be left without an owner", "Make somebody else an owner first."}
	ErrNotFirst              = &Error{"not_first", ErrConflict, "there is an organization already", "Use the token of an owner of it."}
	ErrTokenTaken            = &Error{"token_taken", ErrConflict, "the token is in use already", "Choose another token."}
	ErrCatalogFull           = &Error{"catalog_full", ErrConflict, "the catalog is full", "Delete tools that nobody uses."}
	ErrTooManyHolds          = &Error{"too_many_holds", ErrConflict, "there are too many legal holds", "Lift holds that are not needed any more, or place one on the whole organization."}
	ErrUnderHold             = &Error{"under_hold", ErrConflict, "a legal hold keeps this", "Lift the hold first, if it may be lifted."}
	ErrChanged               = &Error{"changed", ErrConflict, "the record changed meanwhile", "Read it again and repeat."}

	ErrNothingLost = &Error{"nothing_lost", ErrConflict, "the database continues everything that is kept elsewhere", "There is nothing to accept."}

	ErrClosed     = &Error{"closed", ErrUnavailable, "the manager is closed", "Try again in a moment."}
	ErrStorage    = &Error{"storage", ErrUnavailable, "storage does not answer", "Try again in a moment."}
	ErrKeys       = &Error{"keys", ErrUnavailable, "the key provider does not answer", "Try again in a moment."}
	ErrLimiter    = &Error{"limiter", ErrUnavailable, "the rate limiter does not answer", "Try again in a moment."}
	ErrOverloaded = &Error{"overloaded", ErrUnavailable, "too many calls wait", "Try again in a moment."}
	ErrClock      = &Error{"clock", ErrUnavailable, "the clock of this node is wrong", "Try again in a moment."}
	ErrUnknown    = &Error{"unknown_outcome", ErrUnavailable, "the outcome is unknown", "Look before you repeat this: it may have been done."}
	ErrIntegrity  = &Error{"integrity", ErrUnavailable, "a stored record fails its integrity check", "An administrator has to look at this: the record was damaged or changed by hand."}
)

// ExistingToolError says which tool of the catalog a suggestion is for. It is an
// ErrToolExists.
type ExistingToolError struct{ Tool, Name string }

// Error does not name the tool, whose name is the organization's own.
func (e *ExistingToolError) Error() string { return ErrToolExists.Error() }

// Unwrap gives ErrToolExists.
func (e *ExistingToolError) Unwrap() error { return ErrToolExists }

// CooldownError says until when a suggestion stays dismissed. It is an
// ErrSuggestionDismissed.
type CooldownError struct {
	Suggestion string
	RetryAfter time.Time // in UTC
}

// Error is that of ErrSuggestionDismissed.
func (e *CooldownError) Error() string { return ErrSuggestionDismissed.Error() }

// Unwrap gives ErrSuggestionDismissed.
func (e *CooldownError) Unwrap() error { return ErrSuggestionDismissed }

// FieldError is one thing wrong with an input. It never holds the input.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// ValidationError lists everything wrong with an input. It is an ErrInvalid.
type ValidationError struct{ Fields []FieldError }

// Error names every field.
func (e *ValidationError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + " " + f.Message
	}
	return ErrInvalid.Error() + ": " + strings.Join(parts, "; ")
}

// Unwrap gives ErrInvalid.
func (e *ValidationError) Unwrap() error { return ErrInvalid }

func invalid(field, message string) error {
	return &ValidationError{Fields: []FieldError{{Field: field, Message: message}}}
}

// LimitError says that a limit is used up, and until when. It is an ErrLimited.
type LimitError struct {
	Tier     ratelimit.Tier
	Decision ratelimit.Decision
}

// Error names the tier and its policy.
func (e *LimitError) Error() string {
	return ErrLimited.Error() + ": " + string(e.Tier) + " " + e.Decision.Policy.String()
}

// Unwrap gives ErrLimited.
func (e *LimitError) Unwrap() error { return ErrLimited }
