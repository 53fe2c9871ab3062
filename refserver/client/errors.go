package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

var (
	// ErrPlainHTTP occurs when a server that is not on this machine is named with
	// http instead of https.
	ErrPlainHTTP = errors.New("client: refusing to send a secret over plain http; name the server with https")
	// ErrServerURL occurs when the server's URL is not an absolute http or https
	// URL, or carries user information, a query or a fragment.
	ErrServerURL = errors.New("client: the server's URL must be http(s)://HOST[:PORT][/PATH] and nothing more")
	// ErrNoSecret occurs when the token or key is missing or can't be one.
	ErrNoSecret = errors.New("client: the token or key is missing or malformed")
	// ErrAnswer occurs when an answer is not what the API promises: another
	// content type, too long, or not JSON. Something else than an AgentKey server
	// may have answered.
	ErrAnswer = errors.New("client: the answer is not that of an AgentKey server")
	// ErrText occurs when a credential to be sent is not valid UTF-8: JSON can't
	// carry it.
	ErrText = errors.New("client: the credential is not valid UTF-8 text")
)

// Error is an answer of the server with a status other than success. Its texts
// come from the server, which never puts a secret into them.
type Error struct {
	Status     int           // HTTP status
	Message    string        // what went wrong
	Hint       string        // what to do about it, or empty
	Details    []FieldError  // what is wrong with which field, for status 400
	RetryAfter time.Duration // for 429 and 503: when to try again, 0 if the server did not say
	Request    string        // the server's id of the request, as it stands in its log

	Suggestion      string // of a 409: the suggestion that stands in the way
	DismissalReason string // and why it was dismissed
}

// FieldError is one thing wrong with one field of the input.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Error gives status and message.
func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = strings.ToLower(http.StatusText(e.Status))
	}
	return fmt.Sprintf("the server answered %d: %s", e.Status, text)
}

// Is lets errors.Is compare an Error with another one by status alone, as in
// errors.Is(err, &client.Error{Status: 404}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Status == e.Status && t.Message == ""
}

// readError makes an Error of an answer; body is at most maxAnswer long.
func readError(res *http.Response, body []byte) *Error {
	e := &Error{Status: res.StatusCode, Request: res.Header.Get("X-Request-Id"), RetryAfter: retryAfter(res.Header)}
	var answer struct {
		Error   string       `json:"error"`
		Hint    string       `json:"hint"`
		Details []FieldError `json:"details"`

		Suggestion      string  `json:"suggestion_id"`
		DismissalReason *string `json:"dismissal_reason"`
	}
	if json.Unmarshal(body, &answer) == nil {
		e.Message, e.Hint, e.Details = answer.Error, answer.Hint, answer.Details
		e.Suggestion = answer.Suggestion
		if answer.DismissalReason != nil {
			e.DismissalReason = *answer.DismissalReason
		}
	}
	return e
}
