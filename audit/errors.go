package audit

import "errors"

// The errors of this package. None of them ever contains a value that was given, only the name of the field.
var (
	// ErrInvalid says that something that was to be written breaks a rule of the format: a missing or overlong field,
	// a character that is not allowed, an event out of sequence. Nothing was produced.
	ErrInvalid = errors.New("audit: invalid")

	// ErrFormat says that bytes that were read are not what this package writes, bit for bit: another version, unknown,
	// repeated or unordered keys, or any other way to write the same thing.
	ErrFormat = errors.New("audit: malformed")

	// ErrSignature says that a checkpoint carries no valid signature of a known key that may speak for its origin.
	ErrSignature = errors.New("audit: no valid signature")

	// ErrMismatch says that a stored head is signed, but is not the head of this log, or that its size or edge is not what was
	// signed. Whoever sees it must not extend the log.
	ErrMismatch = errors.New("audit: head does not match what was signed")

	// ErrProof says that a proof does not show what it claims. The log may have been changed, or the proof may be of other
	// events, sizes or logs than was thought; it proves nothing either way.
	ErrProof = errors.New("audit: the proof does not hold")
)
