package exchange

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/strictjson"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Body says what a route reads.
type Body struct {
	Limit    int    // bytes; exactly as many pass
	Advice   string // added to the hint when there are more
	Optional bool   // no body at all is an empty object
	Strict   bool   // unknown properties are refused, not ignored
}

// Read reads the body and hands its members to fill, in the order of the
// contract: content type, declared length, counted length, JSON, then the
// members. It fails when any member is not as fill wants it; all of them are
// listed. The bytes of the body are zeroed before it returns; what fill took as
// secrets is the caller's, also when Read fails.
func (x *Exchange) Read(b Body, fill func(f *Fields)) error {
	r := x.Request
	if b.Optional && r.ContentLength == 0 {
		fill(&Fields{})
		return nil
	}
	if !isJSON(r.Header) {
		return errMedia
	}
	text, err := x.Text(b)
	if err != nil {
		return err
	}
	defer text.Destroy()
	v, err := strictjson.Parse(text.Bytes())
	var syntax *strictjson.SyntaxError
	if errors.As(err, &syntax) {
		return &Error{http.StatusBadRequest, "json", "the body is not valid JSON: " + syntax.Problem + " at byte " + strconv.Itoa(syntax.Offset),
			"Send one JSON object in UTF-8, each name once, and nothing after it."}
	}
	if v.Kind() != strictjson.Object {
		return InvalidField("input", "must be an object")
	}
	f := &Fields{object: v}
	fill(f)
	return f.end(b.Strict)
}

// Text reads the body as it is, within its limit: the declared length, then the
// counted one. The caller destroys it.
func (x *Exchange) Text(b Body) (*vault.Secret, error) {
	if x.Request.ContentLength > int64(b.Limit) {
		return nil, tooLarge(b)
	}
	left := time.Until(x.answerBy)
	text, err := vault.SecretFromReader(x.Request.Body, b.Limit)
	x.waited(left)
	if errors.Is(err, vault.ErrTooLong) {
		return nil, tooLarge(b)
	}
	if err != nil {
		return nil, &Error{http.StatusBadRequest, "body", "the body could not be read", "Send the whole body, as long as Content-Length says."}
	}
	return text, nil
}

func tooLarge(b Body) error {
	hint := "Send at most " + strconv.Itoa(b.Limit) + " bytes."
	if b.Advice != "" {
		hint += " " + b.Advice
	}
	return &Error{http.StatusRequestEntityTooLarge, "body_too_large", "the body is too large", hint}
}

// MediaType is the body's content type in lower case, without its parameters;
// empty when none came. Content that is encoded further has a type of its own,
// which no route knows.
func (x *Exchange) MediaType() string { return mediaType(x.Request.Header) }

func mediaType(h http.Header) string {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "encoded"
	}
	return strings.ToLower(strings.TrimSpace(media))
}

// isJSON reports whether the content type is application/json or ends in +json.
func isJSON(h http.Header) bool {
	media := mediaType(h)
	main, sub, found := strings.Cut(media, "/")
	return media == "application/json" || found && main != "" && len(sub) > len("+json") && strings.HasSuffix(sub, "+json")
}

// Fields hands out the members of a body and notes what is wrong with them.
type Fields struct {
	object   strictjson.Value
	known    []string
	problems []agentkey.FieldError
	rules    func() error // nil: there are none
}

// Check gives the input that was filled, and what finds the rules that it breaks:
// the Manager's CheckInput. It is asked only when a member is wrong already, so
// that one answer lists everything; else the Manager says so itself, once it
// knows who asks.
func (f *Fields) Check(check func(in any) error, in any) {
	f.rules = func() error { return check(in) }
}

func (f *Fields) end(strict bool) error {
	if strict {
		for _, name := range f.object.Names() {
			if !slices.Contains(f.known, name) {
				// The name itself may be a secret in the wrong place.
				f.refuse("input", "has a property that is not known here; known are "+strings.Join(f.known, ", "))
				break
			}
		}
	}
	if len(f.problems) == 0 {
		return nil
	}
	var invalid *agentkey.ValidationError
	if f.rules != nil && errors.As(f.rules(), &invalid) {
		for _, p := range invalid.Fields {
			if !f.refused(p.Field) {
				f.problems = append(f.problems, p)
			}
		}
	}
	return &agentkey.ValidationError{Fields: f.problems}
}

// refused reports whether a member or a part of it was found wrong already.
func (f *Fields) refused(name string) bool {
	return slices.ContainsFunc(f.problems, func(known agentkey.FieldError) bool {
		return known.Field == name || strings.HasPrefix(known.Field, name+".")
	})
}

func (f *Fields) refuse(name, message string) {
	f.problems = append(f.problems, agentkey.FieldError{Field: name, Message: message})
}

// take gives the member of that name if it is there and of that kind.
func (f *Fields) take(name string, kind strictjson.Kind, message string) (strictjson.Value, bool) {
	f.known = append(f.known, name)
	v := f.object.Member(name)
	switch v.Kind() {
	case strictjson.Absent:
		return v, false
	case kind:
		return v, true
	}
	f.refuse(name, message)
	return v, false
}
