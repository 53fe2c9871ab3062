package strictjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Kind is the type of a value.
type Kind uint8

// The kinds of values. The zero Kind is that of the zero Value, which stands
// for a member that is not there.
const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

// MaxInteger is the greatest magnitude of a number that [Value.Int] accepts:
// what every JSON implementation carries exactly.
const MaxInteger = 1<<53 - 1

// Value is one value of a parsed text. It refers to the bytes of that text and
// is no longer valid once they are changed or zeroed. The zero Value is absent.
type Value struct {
	kind    Kind
	raw     []byte // of a string: between its quotes; of a number or literal: as written
	members []member
	items   []Value
}

type member struct {
	name  string
	value Value
}

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// Member returns the object's member of that name; it is absent when there is
// none or v is no object.
func (v Value) Member(name string) Value {
	for _, m := range v.members {
		if m.name == name {
			return m.value
		}
	}
	return Value{}
}

// Names returns the names of an object's members in the order of the text.
func (v Value) Names() []string {
	names := make([]string, len(v.members))
	for i, m := range v.members {
		names[i] = m.name
	}
	return names
}

// Items returns an array's elements.
func (v Value) Items() []Value { return v.items }

// Int returns a number that is written as an integer of at most MaxInteger in
// magnitude.
func (v Value) Int() (n int64, ok bool) {
	if v.kind != Number || len(v.raw) > 17 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v.raw), 10, 64)
	return n, err == nil && n >= -MaxInteger && n <= MaxInteger
}

// Literal returns a number, true, false or null as it is written.
func (v Value) Literal() string {
	if v.kind == Number || v.kind == Bool || v.kind == Null {
		return string(v.raw)
	}
	return ""
}

// AppendText appends the decoded text of a string to dst. It needs at most as
// many bytes as the text has between its quotes, see [Value.Size], so that a
// dst with that capacity is never moved.
func (v Value) AppendText(dst []byte) []byte {
	if v.kind != String {
		return dst
	}
	return appendText(dst, v.raw)
}

// Size is a bound of the length of what AppendText appends.
func (v Value) Size() int { return len(v.raw) }

// appendText decodes what stands between the quotes. It was checked by Parse.
func appendText(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			i++
			continue
		}
		if raw[i+1] != 'u' {
			dst = append(dst, unescaped[raw[i+1]])
			i += 2
			continue
		}
		r := hex4(raw[i+2:])
		i += 6
		if utf16.IsSurrogate(r) {
			r = utf16.DecodeRune(r, hex4(raw[i+2:]))
			i += 6
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

var unescaped = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// hex4 reads four hexadecimal digits; -1 when they are not.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
