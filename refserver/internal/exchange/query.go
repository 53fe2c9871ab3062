package exchange

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// MaxLimit is the most items of a page that may be asked for.
const MaxLimit = 500

// PathID returns the id in the path in its one spelling. What is no id becomes
// the nil UUID, which no record has: a handler that does not look at ok answers a
// malformed id exactly as an unknown one, after the same checks.
func (x *Exchange) PathID(name string) (id string, ok bool) {
	id, ok = parseID(x.Request.PathValue(name))
	if !ok {
		return uuid.Nil.String(), false
	}
	return id, true
}

// parseID accepts any UUID of 36 characters.
func parseID(s string) (string, bool) {
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return "", false
	}
	return id.String(), true
}

// Query reads the query of a request and notes what is wrong with it.
type Query struct {
	values url.Values
	broken bool // some of it could not be read
	fields Fields
}

// Query returns the request's query.
func (x *Exchange) Query() *Query {
	values, err := url.ParseQuery(x.Request.URL.RawQuery)
	return &Query{values: values, broken: err != nil}
}

// Text returns a parameter's value.
func (q *Query) Text(name string) string { return strings.TrimSpace(q.values.Get(name)) }

// Has reports whether the parameter is there at all.
func (q *Query) Has(name string) bool { return q.values.Has(name) }

// ID returns a parameter that must be an id when it is there.
func (q *Query) ID(name string) string {
	if !q.values.Has(name) {
		return ""
	}
	id, ok := parseID(q.values.Get(name))
	if !ok {
		q.fields.refuse(name, "must be a UUID")
	}
	return id
}

// Micros returns a time as microseconds, 0 when it is not there.
func (q *Query) Micros(name string) int64 {
	if !q.values.Has(name) {
		return 0
	}
	t, ok := ParseTime(q.values.Get(name))
	if !ok {
		q.fields.refuse(name, notTime)
		return 0
	}
	return t.UnixMicro()
}

// Limit returns the parameter "limit", 1 to MaxLimit, or 0 when it is not there.
func (q *Query) Limit() int {
	if !q.values.Has("limit") {
		return 0
	}
	n, err := strconv.Atoi(q.values.Get("limit"))
	if err != nil || n < 1 || n > MaxLimit {
		q.fields.refuse("limit", "must be between 1 and "+strconv.Itoa(MaxLimit))
		return 0
	}
	return n
}

// Number returns a parameter that must be a whole number of at least 0 when it is
// there; otherwise it is 0.
func (q *Query) Number(name string) int64 {
	if !q.values.Has(name) {
		return 0
	}
	n, err := strconv.ParseUint(q.Text(name), 10, 63)
	if err != nil {
		q.fields.refuse(name, "must be a whole number of at least 0")
		return 0
	}
	return int64(n)
}

// Flag returns a parameter that is 1 or true, or 0 or false; it is false when it
// is not there.
func (q *Query) Flag(name string) bool {
	switch q.values.Get(name) {
	case "1", "true":
		return true
	case "0", "false":
		return false
	}
	if q.values.Has(name) {
		q.fields.refuse(name, "must be 1 or 0")
	}
	return false
}

// Only refuses parameters of any other name, those that come twice, and a query
// of which a part can't be read.
func (q *Query) Only(names ...string) {
	if q.broken {
		q.fields.refuse("input", "has a query that can't be read")
	}
	for name, values := range q.values {
		if !slices.Contains(names, name) {
			q.fields.refuse("input", "has a parameter that is not known here; known are "+strings.Join(names, ", "))
			return
		}
		if len(values) > 1 {
			q.fields.refuse(name, "must come once")
		}
	}
}

// Refuse notes that a parameter is not as it must be.
func (q *Query) Refuse(name, message string) { q.fields.refuse(name, message) }

// Err lists everything that is wrong.
func (q *Query) Err() error { return q.fields.end(false) }

// NextPage links to the page after this one.
func (x *Exchange) NextPage(cursor string) {
	next := x.Request.URL.Query()
	next.Set("cursor", cursor)
	u := url.URL{Path: x.Request.URL.Path, RawQuery: next.Encode()}
	x.w.Header().Set("Link", "<"+u.String()+`>; rel="next"`)
}
