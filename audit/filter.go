package audit

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// Filter selects events. A field with its zero value selects all; an event must pass every field.
type Filter struct {
	Agent   string // concerns this agent: as subject, actor or target
	Tool    string // concerns this tool: as subject or target
	Actor   string // the actor's id
	Target  string // the target's id
	Grant   string // concerns this grant: as decided on or as target
	Action  Action
	Outcome Outcome
	From    int64 // microseconds; not earlier than this
	To      int64 // microseconds; not later than this, inclusive; see EndOfMillisecond
}

// EndOfMillisecond returns the last microsecond of t's millisecond, for Filter.To: times are shown to people with three
// digits, and a range up to a time that was shown must hold the event that it was shown for.
func EndOfMillisecond(t time.Time) int64 {
	const millisecond = 1000
	us := t.UnixMicro()
	return us - (us%millisecond+millisecond)%millisecond + millisecond - 1
}

// Validate returns ErrInvalid, naming the field, when f can't select anything because a field is malformed.
func (f Filter) Validate() error {
	for _, field := range []struct {
		name, value string
		rule        rule
	}{
		{"agent", f.Agent, idRule}, {"tool", f.Tool, idRule}, {"actor", f.Actor, idRule}, {"target", f.Target, idRule},
		{"grant", f.Grant, idRule}, {"action", string(f.Action), actionRule}, {"outcome", string(f.Outcome), outcomeRule},
	} {
		if field.value == "" {
			continue
		}
		if complaint := field.rule.check(field.value); complaint != "" {
			return fmt.Errorf("%w: filter's %s %s", ErrInvalid, field.name, complaint)
		}
	}
	if f.From < 0 || f.To < 0 || f.From > MaxInteger || f.To > MaxInteger || f.To > 0 && f.From > f.To {
		return fmt.Errorf("%w: filter's range of time", ErrInvalid)
	}
	return nil
}

// Match reports whether f selects e. A store that selects by its own means must select the same.
func (f Filter) Match(e *Event) bool {
	return (f.Agent == "" || concerns(f.Agent, KindAgent, e.Agent, e) || e.Actor.Kind == ActorAgent && e.Actor.ID == f.Agent) &&
		(f.Tool == "" || concerns(f.Tool, KindTool, e.Tool, e)) &&
		(f.Grant == "" || concerns(f.Grant, KindGrant, e.Grant.ID, e)) &&
		(f.Actor == "" || e.Actor.ID == f.Actor) &&
		(f.Target == "" || e.Target.ID == f.Target) &&
		(f.Action == "" || e.Action == f.Action) &&
		(f.Outcome == "" || e.Outcome == f.Outcome) &&
		e.Time >= f.From && (f.To == 0 || e.Time <= f.To)
}

// concerns reports whether id is the subject or the target of e.
func concerns(id, kind, subject string, e *Event) bool {
	return subject == id || e.Target == Ref{Kind: kind, ID: id}
}

// Cursor is a place in a list of events that runs from the newest to the oldest: the next page holds events with a
// sequence number below Before. The zero Cursor is the beginning, at the newest event.
type Cursor struct{ Before int64 }

const cursorVersion = 1

// String returns the cursor as opaque text for a URL; that of the zero Cursor is empty.
func (c Cursor) String() string {
	if c.Before <= 0 {
		return ""
	}
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, uint64(c.Before))
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseCursor reads what String returned, or returns ErrFormat.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return Cursor{}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 9 || b[0] != cursorVersion {
		return Cursor{}, fmt.Errorf("%w: cursor", ErrFormat)
	}
	before := binary.BigEndian.Uint64(b[1:])
	c := Cursor{Before: int64(before & MaxInteger)}
	if before < 1 || before > MaxInteger || c.String() != s {
		return Cursor{}, fmt.Errorf("%w: cursor", ErrFormat)
	}
	return c, nil
}
