package exchange

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

const jsonType = "application/json; charset=utf-8"

// Exchange is one request and its response. It belongs to the goroutine of its
// handler and ends with it.
type Exchange struct {
	// Request is the request as it came.
	Request *http.Request
	// Context is what is recorded of the request.
	Context agentkey.RequestContext

	w        *response
	config   Config
	answerBy time.Time
	endsBy   time.Time
	brief    context.Context
	timed    context.Context // nil: nobody has asked for it
	cancel   context.CancelFunc
	pattern  string
	origins  []string
}

// Ctx returns the request's context, which ends after Timeout.
func (x *Exchange) Ctx() context.Context {
	if x.timed == nil {
		x.timed, x.cancel = context.WithDeadline(x.brief, x.endsBy)
	}
	return x.timed
}

// Brief returns the request's context without Timeout and its timer, for a call of the
// Manager that answers in good time by itself, as a vend does.
func (x *Exchange) Brief() context.Context { return x.brief }

// With changes both contexts.
func (x *Exchange) With(change func(context.Context) context.Context) {
	x.brief = change(x.brief)
	if x.timed != nil {
		x.timed = change(x.timed)
	}
}

func (x *Exchange) release() {
	if x.cancel != nil {
		x.cancel()
	}
}

// waited moves the time of the answer by what the client took to send its body,
// of which so much was left before.
func (x *Exchange) waited(before time.Duration) {
	x.answerBy = x.answerBy.Add(before - time.Until(x.answerBy))
	x.With(func(ctx context.Context) context.Context { return agentkey.AnswerBy(ctx, x.answerBy) })
}

// Now tells the time.
func (x *Exchange) Now() time.Time { return x.config.Clock() }

// Header returns the headers of the response.
func (x *Exchange) Header() http.Header { return x.w.Header() }

// Bearer returns the token of the Authorization header, trimmed; it is empty
// when there is none, another scheme, or more than one header. The scheme's case
// does not matter.
func (x *Exchange) Bearer() string {
	headers := x.Request.Header.Values("Authorization")
	if len(headers) != 1 {
		return ""
	}
	scheme, token, found := strings.Cut(headers[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// JSON answers with v. What v encodes to must hold no secret.
func (x *Exchange) JSON(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.write(status, jsonType, b)
	return nil
}

// Bytes answers with a body that is made already.
func (x *Exchange) Bytes(status int, contentType string, body []byte) error {
	x.write(status, contentType, body)
	return nil
}

// Empty answers without a body.
func (x *Exchange) Empty(status int) error {
	x.w.WriteHeader(status)
	return nil
}

// Secret answers with an object that holds secrets and zeroes it after it was
// written. The copies within net/http are not ours.
func (x *Exchange) Secret(status int, o *ObjectWriter) error {
	defer o.destroy()
	b, err := o.end()
	if err != nil {
		return err
	}
	x.write(status, jsonType, b)
	return nil
}

func (x *Exchange) write(status int, contentType string, body []byte) {
	h := x.w.Header()
	values := []string{contentType, strconv.Itoa(len(body))}
	h["Content-Type"], h["Content-Length"] = values[0:1:1], values[1:2:2]
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // a client that is gone needs no answer
}

func (x *Exchange) redirect(to string) {
	if q := x.Request.URL.RawQuery; q != "" {
		to += "?" + q
	}
	h := x.w.Header()
	h.Set("Location", to)
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusPermanentRedirect)
}

// Stream answers with what fill writes. Nothing is sent before its first byte,
// so that an error until then has a status of its own; a later one cuts the
// connection. The answer may take as long as the given time.
func (x *Exchange) Stream(contentType, filename string, most time.Duration, fill func(ctx context.Context, w *StreamWriter) error) error {
	ctx, cancel := x.Longer(most)
	defer cancel()
	s := &StreamWriter{x: x, contentType: contentType, filename: filename}
	if err := fill(ctx, s); err != nil {
		return err
	}
	s.begin() // also when there was nothing to write
	return nil
}

// Longer gives a context for work that takes longer than Timeout. It lifts the
// server's write timeout and sets one of its own: when the context ends, so do
// writes.
func (x *Exchange) Longer(most time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(x.Request.Context(), most)
	control := http.NewResponseController(x.w.ResponseWriter)
	if control.SetWriteDeadline(time.Time{}) == nil {
		stop := context.AfterFunc(ctx, func() {
			if ctx.Err() == context.DeadlineExceeded {
				_ = control.SetWriteDeadline(time.Unix(1, 0)) // long past
			}
		})
		return ctx, func() { stop(); cancel() }
	}
	return ctx, cancel
}

// StreamWriter writes the body of a stream.
type StreamWriter struct {
	x                     *Exchange
	contentType, filename string
}

// Write sends p.
func (s *StreamWriter) Write(p []byte) (int, error) {
	s.begin()
	return s.x.w.Write(p)
}

func (s *StreamWriter) begin() {
	if s.x.w.begun {
		return
	}
	h := s.x.w.Header()
	h.Set("Content-Type", s.contentType)
	h.Set("Content-Disposition", `attachment; filename="`+s.filename+`"`)
	s.x.w.WriteHeader(http.StatusOK)
}

// response remembers what became of the response.
type response struct {
	http.ResponseWriter
	x      *Exchange
	begun  bool
	status int
}

// WriteHeader remembers the status.
func (w *response) WriteHeader(status int) {
	w.begun, w.status = true, status
	w.ResponseWriter.WriteHeader(status)
}

// Write remembers that the response has begun.
func (w *response) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// LimitHeaders says what is left of a limit: in the contract's headers and in
// those of draft-ietf-httpapi-ratelimit-headers. A limit that is off has none.
func (x *Exchange) LimitHeaders(tier ratelimit.Tier, d ratelimit.Decision) {
	if d.Policy.Off() {
		return
	}
	limit, window := strconv.Itoa(d.Limit), strconv.FormatInt(int64(d.Policy.Window/time.Second), 10)
	left := strconv.Itoa(max(0, d.Remaining))
	wait := time.Duration(d.Reset-x.config.Clock().UnixMicro()) * time.Microsecond
	if !d.Allowed {
		wait = d.RetryAfter
	}
	name := `"` + string(tier) + `"`
	values := [...]string{
		limit, left, strconv.FormatInt((d.Reset+999)/1000, 10), // milliseconds, never too early
		limit + ";w=" + window, name + ";q=" + limit + ";w=" + window, name + ";r=" + left + ";t=" + strconv.FormatInt(seconds(wait), 10),
	}
	h := x.w.Header()
	for i, header := range limitHeaders {
		h[header] = values[i : i+1 : i+1]
	}
}

// limitHeaders are the names of LimitHeaders as a http.Header has them, which saves
// making that form of them at each request.
var limitHeaders = [...]string{
	"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "X-Ratelimit-Policy", "Ratelimit-Policy", "Ratelimit",
}

// marshal encodes what always can be.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":"` + internal + `"}`)
	}
	return b
}

// Time writes a time as the contract has it: UTC with three digits.
func Time(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000Z")
}

// OptionalTime is Time, or nil for 0.
func OptionalTime(micros int64) *string {
	if micros == 0 {
		return nil
	}
	return new(Time(micros))
}

// Optional is nil for an empty text.
func Optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
