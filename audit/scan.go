package audit

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"
)

// scanLine reads a line of an export in the spelling that Export gives those of sound events, in one pass. It takes a part of
// what parseEntry takes, and reads that in the same way; of whatever else there is it says nil, and parseEntry has to
// decide. Content and personal part are parts of line.
func scanLine(line []byte) *Line {
	const leafSize = (hashSize + 2) / 3 * 4 // in base64
	if !utf8.Valid(line) {
		return nil
	}
	s := scanner{in: line}
	l := new(Line)
	l.Content = s.member(`{"event":`, MaxContent)
	if l.Content == nil || !s.accept(`,"leaf":"`) || len(s.in)-s.pos < leafSize {
		return nil
	}
	var leaf [hashSize + 1]byte // the decoder may write a byte more
	n, err := base64.StdEncoding.Strict().Decode(leaf[:], s.in[s.pos:s.pos+leafSize])
	if err != nil || n != hashSize {
		return nil
	}
	l.Leaf = Hash(leaf[:hashSize])
	s.pos += leafSize
	if !s.accept(`",`) {
		return nil
	}
	if bytes.HasPrefix(s.in[s.pos:], []byte(`"personal":`)) {
		if l.Personal = s.member(`"personal":`, MaxPersonal); l.Personal == nil || !s.accept(",") {
			return nil
		}
	}
	if !s.accept(`"seq":`) {
		return nil
	}
	from := s.pos
	if !s.number() {
		return nil
	}
	seq, ok := decimal(string(s.in[from:s.pos]))
	if l.Seq = seq; !ok || !s.accept("}") || s.pos != len(s.in) {
		return nil
	}
	return l
}

// scanner passes over JSON without white space, fractions, negative numbers and words, which is all that this package writes.
type scanner struct {
	in  []byte
	pos int
}

func (s *scanner) accept(token string) bool {
	if len(s.in)-s.pos < len(token) || string(s.in[s.pos:s.pos+len(token)]) != token {
		return false
	}
	s.pos += len(token)
	return true
}

// member passes over a token and an object after it of at most limit bytes, and returns the object, or nil.
func (s *scanner) member(token string, limit int) []byte {
	if !s.accept(token) || s.pos == len(s.in) || s.in[s.pos] != '{' {
		return nil
	}
	from := s.pos
	if !s.value(0) || s.pos-from > limit {
		return nil
	}
	return s.in[from:s.pos:s.pos]
}

// maxDepth is how deep values are nested at most; those of this package are three deep.
const maxDepth = 16

func (s *scanner) value(depth int) bool {
	if s.pos == len(s.in) || depth == maxDepth {
		return false
	}
	switch s.in[s.pos] {
	case '"':
		return s.text()
	case '{':
		return s.list('}', depth)
	case '[':
		return s.list(']', depth)
	}
	return s.number()
}

// list passes over an object or an array, to its end.
func (s *scanner) list(end byte, depth int) bool {
	s.pos++
	if s.pos < len(s.in) && s.in[s.pos] == end {
		s.pos++
		return true
	}
	for {
		if end == '}' && (!s.text() || !s.accept(":")) || !s.value(depth+1) || s.pos == len(s.in) {
			return false
		}
		s.pos++
		switch s.in[s.pos-1] {
		case end:
			return true
		case ',':
		default:
			return false
		}
	}
}

// text passes over a string. Escapes are those that this package writes.
func (s *scanner) text() bool {
	if s.pos == len(s.in) || s.in[s.pos] != '"' {
		return false
	}
	for i := s.pos + 1; i < len(s.in); i++ {
		switch b := s.in[i]; {
		case b == '"':
			s.pos = i + 1
			return true
		case b < 0x20:
			return false
		case b == '\\':
			_, n := unescape(string(s.in[i:min(i+6, len(s.in))]))
			if n == 0 {
				return false
			}
			i += n - 1
		}
	}
	return false
}

// number passes over an integer without leading zeros.
func (s *scanner) number() bool {
	from := s.pos
	for s.pos < len(s.in) && '0' <= s.in[s.pos] && s.in[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > from && (s.in[from] != '0' || s.pos == from+1)
}
