package exchange

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/strictjson"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	notText    = "must be a string"
	notInteger = "must be a whole number"
	notTexts   = "must be a list of strings"
	notBool    = "must be true or false"
	notTime    = "must be a time such as 2026-11-23T06:40:14.128Z"
)

// Text takes a string, trimmed. Without the member into stays as it is; so it
// is with every method below.
func (f *Fields) Text(name string, into *string) {
	if v, ok := f.take(name, strictjson.String, notText); ok {
		*into = text(v)
	}
}

// OptionalText takes a string, trimmed.
func (f *Fields) OptionalText(name string, into **string) {
	if v, ok := f.take(name, strictjson.String, notText); ok {
		*into = new(text(v))
	}
}

// Texts takes a list of strings, each trimmed. An empty list is not nil.
func (f *Fields) Texts(name string, into *[]string) {
	v, ok := f.take(name, strictjson.Array, notTexts)
	if !ok {
		return
	}
	all := make([]string, 0, len(v.Items()))
	for i, item := range v.Items() {
		if item.Kind() != strictjson.String {
			f.refuse(name+"."+strconv.Itoa(i), notText)
			return
		}
		all = append(all, text(item))
	}
	*into = all
}

// Int takes a whole number.
func (f *Fields) Int(name string, into *int64) {
	var n *int64
	if f.OptionalInt(name, &n); n != nil {
		*into = *n
	}
}

// OptionalInt takes a whole number.
func (f *Fields) OptionalInt(name string, into **int64) {
	v, ok := f.take(name, strictjson.Number, notInteger)
	if !ok {
		return
	}
	n, ok := v.Int()
	if !ok {
		f.refuse(name, notInteger)
		return
	}
	*into = &n
}

// Bool takes true or false.
func (f *Fields) Bool(name string, into *bool) {
	if v, ok := f.take(name, strictjson.Bool, notBool); ok {
		*into = v.Literal() == "true"
	}
}

// maxSeconds is a century: far above every limit of the Manager's, and far from
// where a time.Duration ends.
const maxSeconds = 100 * 366 * 24 * 60 * 60

// Seconds takes a length of time in whole seconds.
func (f *Fields) Seconds(name string, into *time.Duration) {
	var n *int64
	f.OptionalInt(name, &n)
	switch {
	case n == nil:
	case *n < 0 || *n > maxSeconds:
		f.refuse(name, "must be between 0 and "+strconv.Itoa(maxSeconds)+" seconds")
	default:
		*into = time.Duration(*n) * time.Second
	}
}

// Time takes a time in UTC. null gives the zero time.
func (f *Fields) Time(name string, into **time.Time) {
	f.known = append(f.known, name)
	switch v := f.object.Member(name); v.Kind() {
	case strictjson.Absent:
	case strictjson.Null:
		*into = new(time.Time)
	case strictjson.String:
		t, ok := ParseTime(text(v))
		if !ok {
			f.refuse(name, notTime)
			return
		}
		*into = &t
	default:
		f.refuse(name, notTime)
	}
}

// Secret takes a string, trimmed, into bytes of its own that were never a
// string. A blank one is none.
func (f *Fields) Secret(name string, into **vault.Secret) {
	v, ok := f.take(name, strictjson.String, notText)
	if !ok {
		return
	}
	decoded := v.AppendText(make([]byte, 0, v.Size()))
	start := len(decoded) - len(trimLeft(decoded))
	end := start + len(trimRight(decoded[start:]))
	if start == end {
		return
	}
	*into = vault.NewSecret(decoded[start:end])
}

func text(v strictjson.Value) string {
	return strings.TrimFunc(string(v.AppendText(nil)), isSpace)
}

func trimLeft(b []byte) []byte {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if !isSpace(r) {
			break
		}
		b = b[n:]
	}
	return b
}

func trimRight(b []byte) []byte {
	for len(b) > 0 {
		r, n := utf8.DecodeLastRune(b)
		if !isSpace(r) {
			break
		}
		b = b[:len(b)-n]
	}
	return b
}

// isSpace is what the contract trims: the white space of ECMAScript.
func isSpace(r rune) bool {
	return r == '\ufeff' || r != '\u0085' && unicode.IsSpace(r)
}

// ParseTime reads a time in UTC as RFC 3339 has it, with Z.
func ParseTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !strings.HasSuffix(s, "Z") || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}

// ID takes the id of a record.
func (f *Fields) ID(name string, into *string) {
	v, ok := f.take(name, strictjson.String, notText)
	if !ok {
		return
	}
	id, ok := parseID(text(v))
	if !ok {
		f.refuse(name, "must be a UUID")
		return
	}
	*into = id
}
