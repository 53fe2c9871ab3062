package vault

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

var errNotEncoded = errors.New("vault: a redacted value is not encoded")

// Redacted, embedded in a struct, makes that struct and every copy of it print as
// "[redacted]": for all verbs of fmt, in slog, in JSON and in text encodings.
// Binary encodings and gob are refused, because what they wrote would look like
// the value and be lost.
//
// fmt calls no methods on unexported fields of other structs and walks into them
// instead. A type that embeds Redacted must therefore keep what is secret out of
// reach of reflection as well: behind a closure, as [Secret] does.
//
// The methods have value receivers, so that copies are covered too. Redacted has
// no state and is safe for concurrent use.
type Redacted struct{}

// String returns "[redacted]".
func (Redacted) String() string { return redacted }

// GoString returns "[redacted]".
func (Redacted) GoString() string { return redacted }

// Format writes "[redacted]", whatever the verb and flags.
func (Redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[redacted]" as a string value.
func (Redacted) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns "[redacted]" as a JSON string.
func (Redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "[redacted]".
func (Redacted) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalBinary always fails.
func (Redacted) MarshalBinary() ([]byte, error) { return nil, errNotEncoded }

// GobEncode always fails.
func (Redacted) GobEncode() ([]byte, error) { return nil, errNotEncoded }
