// Package grants holds what decides whether an agent may have a credential:
// the grant, the approvals behind it, every transition between its states and
// the decision itself, as pure functions.
//
// Nothing here reads a clock, makes an id or does I/O. Times and durations are
// int64 microseconds (times since the Unix epoch, UTC); the caller passes the
// time. All functions may be called from several goroutines at once; none
// keeps or changes its arguments.
//
// There is one grant for each agent and tool. It moves like this:
//
//	none, denied, revoked, expired, used_up --Request--> pending
//	pending --Approve--> pending (approvals missing) or approved
//	pending --Deny--> denied
//	none, denied, revoked, expired, used_up, pending --Assign--> approved
//	approved --Narrow--> approved, with tighter terms
//	approved --Settle, Decide--> expired or used_up
//	any --Revoke--> revoked
//
// Rules that hold everywhere:
//
//   - Deny wins. What is unknown or contradicts itself is refused; one denial
//     ends a request however many have approved it; Revoke and Deny never fail
//     because of what else is wrong with the row.
//   - Terms only ever get tighter between the request and the end of a grant.
//   - An end is exclusive: at exactly ExpiresAt the grant has expired. Once it
//     is written, no clock undoes it.
//   - A change never mutates what it was given. It returns the next row, with
//     its revision raised by one and without a seal: the caller seals it anew.
package grants
