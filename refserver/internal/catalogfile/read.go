package catalogfile

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/strictjson"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Format is a form of document.
type Format int

// The formats. Sniffed is JSON if the text begins with a brace or a bracket, else
// YAML.
const (
	Sniffed Format = iota
	JSON
	YAML
)

// SyntaxError says that a text is not of its format. It never holds any of the
// text.
type SyntaxError struct {
	Format  string // JSON or YAML
	Problem string
}

// Error names format and problem.
func (e *SyntaxError) Error() string {
	return "the document is not valid " + e.Format + ": " + e.Problem
}

// Read reads a document. The error is a *SyntaxError, or an
// *agentkey.ValidationError when the document as a whole is not of the right
// shape. What is wrong with single entries stands in their Problems. Texts are
// answered as they stand there, not trimmed.
func Read(text []byte, format Format) (agentkey.CatalogDocument, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if format == Sniffed {
		format = YAML
		if start := bytes.TrimLeft(text, " \t\r\n"); len(start) > 0 && (start[0] == '{' || start[0] == '[') {
			format = JSON
		}
	}
	if !utf8.Valid(text) {
		return agentkey.CatalogDocument{}, &SyntaxError{format.String(), "it is not UTF-8 text"}
	}
	if format == YAML {
		var err error
		if text, err = asJSON(text); err != nil {
			return agentkey.CatalogDocument{}, err
		}
	}
	v, err := strictjson.Parse(text)
	var syntax *strictjson.SyntaxError
	if errors.As(err, &syntax) {
		problem := syntax.Problem
		if format == JSON {
			problem += " at byte " + strconv.Itoa(syntax.Offset)
		}
		return agentkey.CatalogDocument{}, &SyntaxError{format.String(), problem}
	}
	return document(v)
}

// String is the format's name.
func (f Format) String() string {
	if f == JSON {
		return "JSON"
	}
	return "YAML"
}

func document(v strictjson.Value) (doc agentkey.CatalogDocument, err error) {
	if v.Kind() != strictjson.Object {
		return doc, invalid("input", "must be an object with version and tools")
	}
	r := reader{value: v}
	doc.Version = int(r.integer("version"))
	tools := r.take("tools", strictjson.Array, "must be a list")
	if tools.Kind() == strictjson.Absent && len(r.problems) == 0 {
		r.refuse("tools", "is required")
	}
	r.end("input")
	if len(r.problems) > 0 {
		return doc, &agentkey.ValidationError{Fields: r.problems}
	}
	doc.Tools = make([]agentkey.CatalogEntry, len(tools.Items()))
	for i, item := range tools.Items() {
		doc.Tools[i] = entry(item)
	}
	return doc, nil
}

func entry(v strictjson.Value) (e agentkey.CatalogEntry) {
	r := reader{value: v}
	if v.Kind() != strictjson.Object {
		r.refuse("", "must be an object")
		e.Problems = r.problems
		return e
	}
	e.Key, e.Name, e.Description = r.text("key"), r.text("name"), r.text("description")
	if v.Member("url").Kind() == strictjson.Null {
		r.known = append(r.known, "url") // as exports write it
	} else {
		e.URL = r.text("url")
	}
	e.AuthType, e.Mode = r.text("authType"), storage.CredentialMode(r.text("credentialMode"))
	e.RequiredApprovals = r.integer("requiredApprovals")
	if v.Member("requiredApprovals").Kind() != strictjson.Absent && len(r.problems) == 0 && e.RequiredApprovals < 1 {
		r.refuse("requiredApprovals", "must be at least 1")
	}
	e.Instructions = r.text("instructions")
	e.CredentialConfigured = r.take("credentialConfigured", strictjson.Bool, "must be true or false").Literal() == "true"
	r.end("")
	e.Problems = r.problems
	return e
}

func invalid(field, message string) error {
	return &agentkey.ValidationError{Fields: []agentkey.FieldError{{Field: field, Message: message}}}
}

// reader takes the members of an object and notes what is wrong with them.
type reader struct {
	value    strictjson.Value
	known    []string
	problems []agentkey.FieldError
}

func (r *reader) refuse(field, message string) {
	r.problems = append(r.problems, agentkey.FieldError{Field: field, Message: message})
}

// take gives the member if it is there and of that kind.
func (r *reader) take(name string, kind strictjson.Kind, message string) strictjson.Value {
	r.known = append(r.known, name)
	v := r.value.Member(name)
	if k := v.Kind(); k != kind && k != strictjson.Absent {
		r.refuse(name, message)
		return strictjson.Value{}
	}
	return v
}

func (r *reader) text(name string) string {
	return string(r.take(name, strictjson.String, "must be text; in YAML, put it in quotes").AppendText(nil))
}

func (r *reader) integer(name string) int64 {
	const message = "must be a whole number"
	v := r.take(name, strictjson.Number, message)
	n, ok := v.Int()
	if !ok && v.Kind() == strictjson.Number {
		r.refuse(name, message)
	}
	return n
}

// end refuses members that nobody took. Their names are not repeated: one may be
// a secret in the wrong place.
func (r *reader) end(path string) {
	known := make(map[string]bool, len(r.known))
	for _, name := range r.known {
		known[name] = true
	}
	for i, name := range r.value.Names() {
		if !known[name] {
			r.refuse(path, "has a property that is not known here, its "+ordinal(i+1)+"; known are "+strings.Join(r.known, ", "))
		}
	}
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}
