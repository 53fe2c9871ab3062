package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
)

// Sink takes the events of logs to where they are gathered. Whoever ships to it keeps the contract:
//
//   - order: the batches of one log come one after another, their lines in ascending order without a gap, from the first line on.
//     Those of different logs come in any order.
//   - at least once: a batch counts as shipped only when Ship returned nil. Otherwise it comes again, the same lines or more,
//     until it is. So after a failure, a crash or a change of who ships, lines may come twice; origin and number tell which.
//   - a sink that fails is asked again later, with growing pauses. Nothing else waits for it, and nothing is dropped.
//
// The sink keeps its side:
//
//   - Ship returns nil only when what it was given is safe: on the disk, or accepted by the other side.
//   - It returns soon after ctx ends.
//   - Its errors hold neither an address with credentials in it nor a token: they are logged.
//
// Ship is called by one goroutine at a time. The batch is the caller's: a sink keeps nothing of it.
type Sink interface {
	Ship(ctx context.Context, b Batch) error
}

// Batch is a run of lines of one log. A line whose content was removed before it was shipped has only number and leaf hash.
type Batch struct {
	Origin string // the log's, in its present epoch
	Lines  []Line // one at least
}

// shippedPrefix begins every line that is shipped.
const shippedPrefix = `{"origin":"`

// Shipped returns l as it is shipped, without a newline: as in an exported log, with the log's origin before the rest. It returns
// ErrInvalid for a line that no log can hold.
func (l Line) Shipped(origin string) ([]byte, error) {
	if _, _, _, err := ParseOrigin(origin); err != nil {
		return nil, fmt.Errorf("%w: origin of a line", ErrInvalid)
	}
	out, err := appendLine(append([]byte(shippedPrefix), origin...), &l)
	if err != nil {
		return nil, err
	}
	at := len(shippedPrefix) + len(origin)
	return slices.Replace(out, at, at+1, '"', ','), nil // the brace that opens the exported line
}

// ParseShipped reads what Line.Shipped returned, or returns ErrFormat. That the content hashes to the leaf is not checked.
func ParseShipped(text []byte) (origin string, l Line, err error) {
	malformed := fmt.Errorf("%w: shipped line", ErrFormat)
	rest, ok := bytes.CutPrefix(text, []byte(shippedPrefix))
	name, rest, found := bytes.Cut(rest, []byte(`",`))
	if !ok || !found {
		return "", Line{}, malformed
	}
	if _, _, _, err := ParseOrigin(string(name)); err != nil {
		return "", Line{}, malformed
	}
	entry, err := parseEntry(append([]byte{'{'}, rest...))
	if err != nil || entry.Line == nil {
		return "", Line{}, malformed
	}
	return string(name), *entry.Line, nil
}

// OCSF returns an event in OCSF's terms, as ExportOCSF writes it, without a newline. Of a line whose content was removed there are
// number and leaf hash as JSON of our own. It returns ErrFormat for a content that is no event.
func (l Line) OCSF(origin string) ([]byte, error) {
	if len(l.Content) == 0 {
		return fmt.Appendf(nil, `{"log_name":%q,"sequence":%d,"leaf":%q}`, origin, l.Seq, base64.StdEncoding.EncodeToString(l.Leaf[:])), nil
	}
	e, err := Parse(l.Content)
	if err != nil {
		return nil, err
	}
	var p Personal
	if len(l.Personal) > 0 {
		if p, err = ParsePersonal(l.Personal); err != nil {
			return nil, err
		}
	}
	return marshalOCSF(ocsfOf(origin, &l, &e, p))
}

func marshalOCSF(v any) ([]byte, error) {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false)
	if err := to.Encode(v); err != nil {
		return nil, fmt.Errorf("audit: OCSF: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
