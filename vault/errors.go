package vault

import (
	"errors"
	"fmt"
)

// ErrIntegrity is the family of errors that say stored bytes are not what was
// written: damaged, moved or forged. Nothing that fails so may be acted on, and
// trying again does not help.
var ErrIntegrity = errors.New("vault: integrity failure")

var (
	// ErrFormat says that sealed bytes, a row seal or a wrapped key have no known
	// form: wrong length, unknown version or unknown algorithm. An ErrIntegrity.
	ErrFormat = fmt.Errorf("%w: not a known format", ErrIntegrity)

	// ErrOpen says that a sealed value does not authenticate under its key at the
	// place given. An ErrIntegrity.
	ErrOpen = fmt.Errorf("%w: sealed value does not open here", ErrIntegrity)

	// ErrRowSeal says that a row's seal does not fit its columns. An ErrIntegrity.
	ErrRowSeal = fmt.Errorf("%w: row does not fit its seal", ErrIntegrity)

	// ErrUnwrap says that a wrapped key does not authenticate under the provider's
	// key and the context given. An ErrIntegrity.
	ErrUnwrap = fmt.Errorf("%w: wrapped key does not authenticate", ErrIntegrity)

	// ErrWrongKey says that an unwrapped key is not the one asked for: its derived
	// id differs. An ErrIntegrity.
	ErrWrongKey = fmt.Errorf("%w: unwrapped key has another id", ErrIntegrity)
)

var (
	// ErrUnknownKey says that the key named by sealed bytes, a seal or a wrapped key
	// is not held. Errors that wrap it name the ids needed and held, where they are
	// known. The right key, given, would mend it.
	ErrUnknownKey = errors.New("vault: unknown key")

	// ErrUnavailable says that a key provider could not be reached or did not answer
	// in time. It is the only error here that may pass by itself.
	ErrUnavailable = errors.New("vault: key provider unavailable")

	// ErrPlace says that a Place, a Row or a Context names nothing in a part that it
	// needs, or more than 1024 bytes. A fault of the caller.
	ErrPlace = errors.New("vault: incomplete or oversized place")

	// ErrPurpose says that a data key was given to what it is not made for, or that
	// its purpose is unknown. A fault of the caller.
	ErrPurpose = errors.New("vault: wrong purpose of data key")

	// ErrKeyDestroyed says that the data key was destroyed. Unwrap it again.
	ErrKeyDestroyed = errors.New("vault: data key is destroyed")

	// ErrKeyLength says that a key to wrap does not have 32 bytes.
	ErrKeyLength = errors.New("vault: key is not 32 bytes long")

	// ErrPlaintext says that a plaintext is empty, destroyed or longer than
	// MaxPlaintext.
	ErrPlaintext = errors.New("vault: plaintext must have 1 to 65536 bytes")

	// ErrTooLong says that a reader held more bytes than allowed.
	ErrTooLong = errors.New("vault: secret is too long")

	// ErrProvider says that a key provider answered outside its contract.
	ErrProvider = errors.New("vault: key provider broke its contract")
)
