package audit

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxInteger is the largest integer in the format, 2^53-1: the largest that every JSON reader keeps exact.
const MaxInteger = 1<<53 - 1

// A codec writes or reads canonical JSON: RFC 8785 restricted to objects, arrays, strings and integers of at least 0.
//
// One description serves both directions: a format is a function that names its members in ascending order, and the codec
// writes each or looks whether it comes next. So there is exactly one spelling of each value, and an unknown, repeated
// or misplaced key is found because nothing asks for it. Empty members are not written, and refused when read.
//
// The first error sticks, and everything after it does nothing.
type codec struct {
	decoding bool
	out      []byte // encoding: what was written
	in       string // decoding: the whole input, valid UTF-8
	pos      int    // decoding: how far it was read
	inner    bool   // a member of the current object was written or read
	err      error
}

// encode returns the canonical form of the object whose members fn names, of at most limit bytes and usually fewer than usual.
func encode(usual, limit int, fn func(*codec)) ([]byte, error) {
	c := codec{out: make([]byte, 0, usual)}
	c.members(fn)
	if c.err == nil && len(c.out) > limit {
		c.fail("content", "is too long")
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.out, nil
}

// decode reads the object whose members fn names from content.
func decode(content []byte, limit int, fn func(*codec)) error {
	c := codec{decoding: true}
	switch {
	case len(content) > limit:
		c.fail("content", "is too long")
	case !utf8.Valid(content):
		c.fail("content", "is not UTF-8")
	default:
		c.in = string(content)
		c.members(fn)
		if c.err == nil && c.pos != len(c.in) {
			c.fail("content", "goes on after its end")
		}
	}
	return c.err
}

// fail records the first error. It takes names and complaints only, never a value.
func (c *codec) fail(key, complaint string) {
	if c.err != nil {
		return
	}
	kind := ErrInvalid
	if c.decoding {
		kind = ErrFormat
	}
	c.err = fmt.Errorf("%w: %s %s", kind, key, complaint)
}

// accept reads token if it comes next.
func (c *codec) accept(token string) bool {
	if !strings.HasPrefix(c.in[c.pos:], token) {
		return false
	}
	c.pos += len(token)
	return true
}

// mark writes a structural token, or reads it and fails when something else comes next.
func (c *codec) mark(token string) {
	switch {
	case c.err != nil:
	case !c.decoding:
		c.out = append(c.out, token...)
	case !c.accept(token):
		c.fail("content", "is not canonical at byte "+strconv.Itoa(c.pos))
	}
}

// members writes or reads an object with the members that fn names.
func (c *codec) members(fn func(*codec)) {
	c.mark("{")
	c.inner = false
	if c.err == nil {
		fn(c)
	}
	c.mark("}")
	c.inner = true
}

// member begins the member key: it writes the key if the member is present, or reads it if it comes next.
// It reports whether a value follows.
func (c *codec) member(key string, present bool) bool {
	if c.err != nil {
		return false
	}
	if !c.decoding {
		if !present {
			return false
		}
		if c.inner {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, '"')
		c.out = append(c.out, key...)
		c.out = append(c.out, '"', ':')
		c.inner = true
		return true
	}
	rest := c.in[c.pos:]
	skip := len(key) + 3
	if c.inner {
		if rest == "" || rest[0] != ',' {
			return false
		}
		rest = rest[1:]
		skip++
	}
	if len(rest) < len(key)+3 || rest[0] != '"' || rest[1:1+len(key)] != key || rest[1+len(key)] != '"' || rest[2+len(key)] != ':' {
		return false
	}
	c.pos += skip
	c.inner = true
	return true
}

// object is a member that is itself an object; it is left out unless present.
func (c *codec) object(key string, present bool, fn func(*codec)) {
	if c.member(key, present) {
		c.members(fn)
		if c.decoding && strings.HasSuffix(c.in[:c.pos], "{}") {
			c.fail(key, "is empty")
		}
	}
}

// text is a string member that obeys r.
func (c *codec) text(key string, p *string, r rule) {
	if !c.member(key, *p != "") {
		if r.required {
			c.fail(key, "is required")
		}
		return
	}
	if c.decoding {
		*p = c.readString(key)
		if c.err == nil && *p == "" {
			c.fail(key, "is empty")
		}
	}
	if c.err != nil {
		return
	}
	if complaint := r.check(*p); complaint != "" {
		c.fail(key, complaint)
		return
	}
	if !c.decoding {
		c.out = appendString(c.out, *p)
	}
}

// integer is an integer member that is always there, zero too.
func (c *codec) integer(key string, p *int64) {
	if c.member(key, true) {
		c.number(key, p)
	} else {
		c.fail(key, "is required")
	}
}

// optional is an integer member that is left out when it is zero.
func (c *codec) optional(key string, p *int64) {
	if c.member(key, *p != 0) {
		c.number(key, p)
		if *p == 0 {
			c.fail(key, "is empty")
		}
	}
}

// number writes or reads an integer.
func (c *codec) number(key string, p *int64) {
	if !c.decoding {
		if *p < 0 || *p > MaxInteger {
			c.fail(key, "is out of range")
		}
		c.out = strconv.AppendInt(c.out, *p, 10)
		return
	}
	end := c.pos
	for end < len(c.in) && '0' <= c.in[end] && c.in[end] <= '9' {
		end++
	}
	n, ok := decimal(c.in[c.pos:end])
	if !ok {
		c.fail(key, "is not a canonical integer in range")
		return
	}
	c.pos = end
	*p = n
}

// flag is a member that is 1 or left out.
func (c *codec) flag(key string, p *bool) {
	var n int64
	if *p {
		n = 1
	}
	c.optional(key, &n)
	if n > 1 {
		c.fail(key, "is not a flag")
	}
	*p = n == 1
}

// octets is a member of exactly size bytes, in lower-case hexadecimal.
func (c *codec) octets(key string, p *[]byte, size int, required bool) {
	if !c.member(key, len(*p) > 0) {
		if required {
			c.fail(key, "is required")
		}
		return
	}
	if !c.decoding {
		if len(*p) != size {
			c.fail(key, "has the wrong length")
			return
		}
		c.out = append(c.out, '"')
		c.out = hex.AppendEncode(c.out, *p)
		c.out = append(c.out, '"')
		return
	}
	text := c.readString(key)
	if c.err != nil {
		return
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != size || strings.ContainsAny(text, "ABCDEF") {
		c.fail(key, "is not lower-case hexadecimal of the right length")
		return
	}
	*p = b
}

// list is a member that is an array of objects; an empty one is left out.
func list[T any](c *codec, key string, p *[]T, fn func(*codec, *T)) {
	if !c.member(key, len(*p) > 0) {
		return
	}
	c.mark("[")
	for i := 0; c.err == nil; i++ {
		if c.decoding {
			*p = append(*p, *new(T))
		}
		c.members(func(c *codec) { fn(c, &(*p)[i]) })
		if c.decoding && !c.accept(",") || !c.decoding && i == len(*p)-1 {
			break
		}
		if !c.decoding {
			c.mark(",")
		}
	}
	c.mark("]")
	c.inner = true
}

// mapping is a member that is an object with free keys, in ascending order; an empty one is left out.
func (c *codec) mapping(key string, p *map[string]string, value rule) {
	if !c.member(key, len(*p) > 0) {
		return
	}
	c.mark("{")
	c.inner = false
	if c.decoding {
		*p = c.readMap(key, value)
	} else {
		c.writeMap(key, *p, value)
	}
	c.mark("}")
	c.inner = true
}

func (c *codec) writeMap(key string, m map[string]string, value rule) {
	if len(m) > maxEntries {
		c.fail(key, "has too many entries")
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		complaint := entryKey(k)
		if complaint == "" {
			complaint = value.check(m[k])
		}
		if complaint != "" {
			c.fail(key, "entry "+complaint)
			return
		}
		if c.member(k, true) {
			c.out = appendString(c.out, m[k])
		}
	}
}

func (c *codec) readMap(key string, value rule) map[string]string {
	m := make(map[string]string)
	last := ""
	for c.err == nil {
		k := c.readString(key)
		c.mark(":")
		v := c.readString(key)
		complaint := entryKey(k)
		switch {
		case c.err != nil:
			return nil
		case complaint != "":
		case k <= last:
			complaint = "keys are not in order"
		case len(m) == maxEntries:
			complaint = "is one too many"
		default:
			complaint = value.check(v)
		}
		if complaint != "" {
			c.fail(key, "entry "+complaint)
			return nil
		}
		m[k], last = v, k
		if !c.accept(",") {
			break
		}
	}
	return m
}

// readString reads a string in its only canonical spelling.
func (c *codec) readString(key string) string {
	if c.err != nil {
		return ""
	}
	if !c.accept(`"`) {
		c.fail(key, "is not a string")
		return ""
	}
	rest := c.in[c.pos:]
	for i := 0; i < len(rest); i++ {
		switch b := rest[i]; {
		case b == '"':
			c.pos += i + 1
			return rest[:i]
		case b == '\\':
			return c.readEscaped(key, i)
		case b < 0x20:
			c.fail(key, "holds a bare control character")
			return ""
		}
	}
	c.fail(key, "does not end")
	return ""
}

// readEscaped reads a string whose first escape stands clean bytes from here. It accepts only a spelling that
// appendString would choose again.
func (c *codec) readEscaped(key string, clean int) string {
	rest := c.in[c.pos:]
	out := append(make([]byte, 0, clean+32), rest[:clean]...)
	for i := clean; i < len(rest); {
		b := rest[i]
		switch {
		case b == '"':
			c.pos += i + 1
			return string(out)
		case b < 0x20:
			c.fail(key, "holds a bare control character")
			return ""
		case b != '\\':
			out = append(out, b)
			i++
			continue
		}
		decoded, n := unescape(rest[i:])
		if n == 0 {
			c.fail(key, "holds an escape that is not canonical")
			return ""
		}
		out = append(out, decoded)
		i += n
	}
	c.fail(key, "does not end")
	return ""
}

// unescape returns the character that the escape at the beginning of s stands for and the escape's length, which is 0
// when RFC 8785 would not have written it so.
func unescape(s string) (byte, int) {
	if len(s) < 2 {
		return 0, 0
	}
	if i := strings.IndexByte(shortNames, s[1]); i >= 0 {
		return shortChars[i], 2
	}
	if len(s) < 6 || s[1:4] != "u00" {
		return 0, 0
	}
	n, err := strconv.ParseUint(s[4:6], 16, 8)
	if err != nil || n >= 0x20 || strings.IndexByte(shortChars, byte(n)) >= 0 || strings.ContainsAny(s[4:6], "ABCDEF") {
		return 0, 0
	}
	return byte(n), 6
}

// The characters that RFC 8785 writes as a backslash and a letter, and the letters.
const (
	shortChars = "\"\\\b\f\n\r\t"
	shortNames = `"\bfnrt`
)

// appendString appends s, which is valid UTF-8, as RFC 8785 writes it: nothing is escaped that need not be.
func appendString(out []byte, s string) []byte {
	out = append(out, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' {
			continue
		}
		out = append(out, s[start:i]...)
		start = i + 1
		if j := strings.IndexByte(shortChars, b); j >= 0 {
			out = append(out, '\\', shortNames[j])
		} else {
			out = append(out, '\\', 'u', '0', '0', '0'+b>>4, "0123456789abcdef"[b&15])
		}
	}
	out = append(out, s[start:]...)
	return append(out, '"')
}
