package exchange

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go"
)

// statuses is the one table from what can go wrong to what HTTP calls it. What
// is not in it is internal: its text stays inside.
var statuses = []struct {
	is     error
	status int
	text   string // when the error brings none that is fit to show
}{
	{agentkey.ErrUnauthenticated, http.StatusUnauthorized, "not authenticated"},
	{agentkey.ErrRefused, http.StatusForbidden, "access refused"},
	{agentkey.ErrForbidden, http.StatusForbidden, "not allowed"},
	{agentkey.ErrNotFound, http.StatusNotFound, "not found"},
	{agentkey.ErrConflict, http.StatusConflict, "conflict"},
	{agentkey.ErrInvalid, http.StatusBadRequest, "invalid input"},
	{agentkey.ErrLimited, http.StatusTooManyRequests, "rate limit exceeded"},
	{agentkey.ErrUnavailable, http.StatusServiceUnavailable, "temporarily unavailable"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "temporarily unavailable"},
	{context.Canceled, http.StatusServiceUnavailable, "temporarily unavailable"},
}

const (
	internal = "internal error"
	// pause is what Retry-After says with 503, in seconds: as long as storage may
	// take for one statement.
	pause = "2"
)

// Error is an answer that HTTP itself calls for, before the Manager is asked.
type Error struct {
	Status int
	Code   string // stable, snake_case
	Text   string
	Hint   string
}

// Error is the text.
func (e *Error) Error() string { return e.Text }

// The answers of the Router and the reading of bodies.
var (
	errNoRoute = &Error{http.StatusNotFound, "unknown_path", "no such path", "Check the path; the API begins with /api."}
	errMethod  = &Error{http.StatusMethodNotAllowed, "method", "method not allowed", "Use one of the methods that the Allow header lists."}
	errMedia   = &Error{http.StatusUnsupportedMediaType, "content_type", "the body must be JSON", "Send the body with `Content-Type: application/json`, without a Content-Encoding."}
	errPanic   = errors.New("panic")
)

// Extended is an error whose answer says more than that of others: members beside
// those that every error has. None of them may hold a secret.
type Extended struct {
	Err    error
	Fields map[string]any
}

// Error is that of Err.
func (e *Extended) Error() string { return e.Err.Error() }

// Unwrap gives Err.
func (e *Extended) Unwrap() error { return e.Err }

// InvalidField is the answer to one field that breaks a rule; the message never
// holds the value.
func InvalidField(field, message string) error {
	return &agentkey.ValidationError{Fields: []agentkey.FieldError{{Field: field, Message: message}}}
}

// problem is an error as it is answered.
type problem struct {
	status  int
	code    string
	text    string
	hint    string
	details []agentkey.FieldError
}

func describe(err error) problem {
	var own *Error
	if errors.As(err, &own) {
		return problem{status: own.Status, code: own.Code, text: own.Text, hint: own.Hint}
	}
	p := problem{status: http.StatusInternalServerError, code: "internal", text: internal}
	for _, row := range statuses {
		if errors.Is(err, row.is) {
			p = problem{status: row.status, code: strings.ReplaceAll(row.text, " ", "_"), text: row.text}
			break
		}
	}
	if p.status == http.StatusInternalServerError {
		return p
	}
	var sentinel *agentkey.Error
	if errors.As(err, &sentinel) {
		p.code, p.text, p.hint = sentinel.Code, sentinel.Text, sentinel.Hint
	}
	var invalid *agentkey.ValidationError
	if errors.As(err, &invalid) {
		p.details = invalid.Fields
		if len(p.details) > 0 {
			p.text = p.details[0].Field + " " + p.details[0].Message
		}
	}
	var limit *agentkey.LimitError
	if errors.As(err, &limit) {
		p.code, p.hint = "rate_limited", "Wait as long as Retry-After says; calls meanwhile don't make it longer."
	}
	return p
}

// fail answers err, or cuts the connection when the response has begun.
func (x *Exchange) fail(err error) {
	p := describe(err)
	ctx := x.brief
	switch p.status {
	case http.StatusInternalServerError:
		if err != errPanic {
			// Errors hold no secret by the rules of every package; they stay in the log.
			x.config.Logger.ErrorContext(ctx, "internal error", "route", x.pattern, "request", x.Context.Request, "error", err)
		}
	case http.StatusUnauthorized:
		x.config.Logger.WarnContext(ctx, "authentication failed", "event", "auth_failure",
			"reason", p.code, "ip", x.Context.Address, "request", x.Context.Request)
	case http.StatusServiceUnavailable:
		x.config.Logger.WarnContext(ctx, "unavailable", "route", x.pattern, "reason", p.code, "request", x.Context.Request)
	}
	if x.w.begun {
		panic(http.ErrAbortHandler)
	}
	x.refuse(p, err)
}

// refuse writes the error's headers and body.
func (x *Exchange) refuse(p problem, err error) {
	h := x.w.Header()
	switch p.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", pause)
	case http.StatusTooManyRequests:
		var limit *agentkey.LimitError
		if errors.As(err, &limit) {
			x.LimitHeaders(limit.Tier, limit.Decision)
			h.Set("Retry-After", strconv.FormatInt(seconds(limit.Decision.RetryAfter), 10))
		}
	}
	if p.hint == "" && p.status == http.StatusBadRequest {
		p.hint = schemaHint(x.pattern)
	}
	h.Add("Vary", "Accept")
	if wantsProblem(x.Request.Header.Values("Accept")) {
		x.write(p.status, "application/problem+json", extend(marshal(problemBody{
			Type: "about:blank", Title: http.StatusText(p.status), Status: p.status, Detail: p.text,
			Code: p.code, Hint: p.hint, Details: p.details,
		}), err))
		return
	}
	x.write(p.status, jsonType, extend(marshal(errorBody{Error: p.text, Hint: p.hint, Details: p.details}), err))
}

// extend adds to an object what an error says besides.
func extend(object []byte, err error) []byte {
	var more *Extended
	if !errors.As(err, &more) || len(more.Fields) == 0 {
		return object
	}
	return append(append(object[:len(object)-1], ','), marshal(more.Fields)[1:]...)
}

type errorBody struct {
	Error   string                `json:"error"`
	Hint    string                `json:"hint,omitempty"`
	Details []agentkey.FieldError `json:"details,omitempty"`
}

type problemBody struct {
	Type    string                `json:"type"`
	Title   string                `json:"title"`
	Status  int                   `json:"status"`
	Detail  string                `json:"detail"`
	Code    string                `json:"code"`
	Hint    string                `json:"hint,omitempty"`
	Details []agentkey.FieldError `json:"details,omitempty"`
}

// schemaHint says where the rules for a body are found.
func schemaHint(pattern string) string {
	if strings.HasPrefix(pattern, "/api/tools/") {
		return "GET the same path for the schema of the body."
	}
	return "Correct the fields that `details` lists and send the request again."
}

// wantsProblem reports whether the client asks for application/problem+json by
// name and weighs it no less than application/json. A range such as */* does not
// ask for it.
func wantsProblem(accept []string) bool {
	problem, plain := 0.0, 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, _ := strings.Cut(part, ";")
		switch media = strings.TrimSpace(media); {
		case strings.EqualFold(media, "application/problem+json"):
			problem = max(problem, weight(params))
		case strings.EqualFold(media, "application/json"):
			plain = max(plain, weight(params))
		}
	}
	return problem > 0 && problem >= plain
}

// weight is the q among the parameters of a media range: 1 without one, 0 for one
// that is none.
func weight(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}

// seconds rounds up to whole seconds, at least one: who waits that long does
// not come too early.
func seconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}
