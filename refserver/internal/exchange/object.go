package exchange

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// ObjectWriter builds a JSON object that holds secrets, in bytes of its own that
// are zeroed whenever they move and after they were sent. No string is ever made
// of a secret. The zero value is an empty object.
type ObjectWriter struct {
	b    []byte
	room *room  // where b began
	tail string // closes what encloses the object
	err  error
}

// Enveloped returns an ObjectWriter whose object is answered as {"data": …}.
func Enveloped() *ObjectWriter {
	o := &ObjectWriter{tail: "}"}
	o.raw(`{"data":`)
	return o
}

// Field adds a member that holds no secret.
func (o *ObjectWriter) Field(name string, value any) {
	switch v := value.(type) {
	case string:
		o.Text(name, v)
		return
	case int64:
		o.name(name)
		o.reserve(20)
		o.b = strconv.AppendInt(o.b, v, 10)
		return
	case appender:
		o.name(name)
		before := o.b
		if o.b = v.AppendJSON(before); &o.b[0] != &before[0] {
			clear(before)
		}
		return
	}
	b, err := json.Marshal(value)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.name(name)
	o.append(b)
}

// appender is a value that appends its own JSON, which holds no secret.
type appender interface{ AppendJSON(b []byte) []byte }

// Text adds a member that holds no secret. What is not UTF-8 in it is replaced.
func (o *ObjectWriter) Text(name, value string) {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	o.name(name)
	o.reserve(6*len(value) + 2)
	o.b = append(o.b, '"')
	o.b = appendEscaped(o.b, value)
	o.b = append(o.b, '"')
}

// Secret adds a secret as a string. One that is not UTF-8, which no JSON string
// can carry, is added in base64, and so says the member name_encoding.
func (o *ObjectWriter) Secret(name string, s *vault.Secret) {
	text := s.Bytes()
	if !utf8.Valid(text) {
		o.Field(name+"_encoding", "base64")
		o.name(name)
		o.raw(`"`)
		o.reserve(base64.StdEncoding.EncodedLen(len(text)))
		o.b = base64.StdEncoding.AppendEncode(o.b, text)
		o.raw(`"`)
		return
	}
	o.name(name)
	o.raw(`"`)
	o.reserve(6 * len(text)) // the longest escape of a byte
	o.b = appendEscaped(o.b, text)
	o.raw(`"`)
}

// SecretJSON adds a secret that is a JSON text as the value that it stands for,
// and any other as a string.
func (o *ObjectWriter) SecretJSON(name string, s *vault.Secret) {
	text := s.Bytes()
	if !utf8.Valid(text) || !json.Valid(text) {
		o.Secret(name, s)
		return
	}
	o.name(name)
	o.append(bytes.TrimSpace(text))
}

func (o *ObjectWriter) name(name string) {
	switch {
	case len(o.b) == 0 || o.b[len(o.b)-1] == ':':
		o.raw(`{"`)
	default:
		o.raw(`,"`)
	}
	o.raw(name)
	o.raw(`":`)
}

func (o *ObjectWriter) raw(s string) {
	o.reserve(len(s))
	o.b = append(o.b, s...)
}

func (o *ObjectWriter) append(b []byte) {
	o.reserve(len(b))
	o.b = append(o.b, b...)
}

// reserve makes room for n bytes and zeroes what it leaves.
func (o *ObjectWriter) reserve(n int) {
	if cap(o.b)-len(o.b) >= n {
		return
	}
	if o.b == nil && n <= len(room{}) {
		o.room = rooms.Get().(*room)
		o.b = o.room[:0]
		return
	}
	bigger := make([]byte, len(o.b), max(2*cap(o.b), len(o.b)+n))
	copy(bigger, o.b)
	clear(o.b)
	o.b = bigger
}

// room is where an object usually fits. Rooms are used again, once they are zeroed.
type room [4096]byte

var rooms = sync.Pool{New: func() any { return new(room) }}

func (o *ObjectWriter) end() ([]byte, error) {
	if len(o.b) == 0 || o.b[len(o.b)-1] == ':' {
		o.raw(`{`)
	}
	o.raw("}")
	o.raw(o.tail)
	return o.b, o.err
}

func (o *ObjectWriter) destroy() {
	clear(o.b[:cap(o.b)])
	o.b = nil
	if o.room != nil { // zeroed just now, or when b moved out of it
		rooms.Put(o.room)
		o.room = nil
	}
}

// appendEscaped appends valid UTF-8 as the inside of a JSON string.
func appendEscaped[T string | []byte](dst []byte, text T) []byte {
	const hex = "0123456789abcdef"
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
