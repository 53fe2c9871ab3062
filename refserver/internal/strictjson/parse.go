package strictjson

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 32

// SyntaxError says what is wrong with a text, and where. It never holds any of
// the text.
type SyntaxError struct {
	Offset  int // in bytes
	Problem string
}

// Error names the problem and the place.
func (e *SyntaxError) Error() string {
	return "json: " + e.Problem + " at byte " + strconv.Itoa(e.Offset)
}

// Parse reads one value and nothing but white space around it. The Value refers
// to text. The error is a *SyntaxError. It is safe for concurrent use.
func Parse(text []byte) (Value, error) {
	p := parser{text: text}
	if bad := invalidUTF8(text); bad >= 0 {
		return Value{}, &SyntaxError{bad, "invalid UTF-8"}
	}
	v := p.value(0)
	p.space()
	if p.err == nil && p.at < len(text) {
		p.fail("something follows the value")
	}
	if p.err != nil {
		return Value{}, p.err
	}
	return v, nil
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

// parser reads from at on. After the first problem every method does nothing.
type parser struct {
	text []byte
	at   int
	err  error
}

func (p *parser) fail(problem string) {
	if p.err == nil {
		p.err = &SyntaxError{p.at, problem}
		p.at = len(p.text) // nothing is read any more
	}
}

// peek returns the next byte, 0 at the end: NUL is nowhere allowed in JSON
// outside of strings.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) accept(c byte) bool {
	if p.err != nil || p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) value(depth int) Value {
	p.space()
	if depth > MaxDepth {
		p.fail("nesting is too deep")
		return Value{}
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return Value{kind: String, raw: p.str()}
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == 't':
		return p.literal("true", Bool)
	case c == 'f':
		return p.literal("false", Bool)
	case c == 'n':
		return p.literal("null", Null)
	case p.at == len(p.text):
		p.fail("the text ends too early")
	default:
		p.fail("no value")
	}
	return Value{}
}

func (p *parser) literal(word string, kind Kind) Value {
	rest := p.text[p.at:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		p.fail("no value")
		return Value{}
	}
	p.at += len(word)
	return Value{kind: kind, raw: rest[:len(word)]}
}

func (p *parser) array(depth int) Value {
	p.at++
	v := Value{kind: Array}
	p.space()
	if p.accept(']') {
		return v
	}
	for p.err == nil {
		v.items = append(v.items, p.value(depth+1))
		p.space()
		if p.accept(']') {
			break
		}
		if !p.accept(',') {
			p.fail("no comma or closing bracket")
		}
	}
	return v
}

func (p *parser) object(depth int) Value {
	p.at++
	v := Value{kind: Object}
	p.space()
	if p.accept('}') {
		return v
	}
	seen := make(map[string]bool)
	for p.err == nil {
		p.space()
		if p.peek() != '"' {
			p.fail("no member name")
			break
		}
		start := p.at
		name := string(appendText(nil, p.str()))
		if p.err == nil && seen[name] {
			p.at = start
			p.fail("a member name occurs twice")
			break
		}
		seen[name] = true
		p.space()
		if !p.accept(':') {
			p.fail("no colon")
		}
		v.members = append(v.members, member{name, p.value(depth + 1)})
		p.space()
		if p.accept('}') {
			break
		}
		if !p.accept(',') {
			p.fail("no comma or closing brace")
		}
	}
	return v
}

// str reads a string and returns what stands between its quotes, or nil.
func (p *parser) str() []byte {
	p.at++
	start := p.at
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return p.text[start : p.at-1]
		case c < ' ':
			p.fail("a control character in a string")
			return nil
		case c == '\\':
			if !p.escape() {
				return nil
			}
		default:
			p.at++
		}
	}
	p.fail("a string without end")
	return nil
}

func (p *parser) escape() bool {
	rest := p.text[p.at:]
	if len(rest) < 2 || rest[1] != 'u' && unescaped[rest[1]] == 0 {
		p.fail("an unknown escape")
		return false
	}
	if rest[1] != 'u' {
		p.at += 2
		return true
	}
	r := hex4(rest[2:])
	if r < 0 {
		p.fail("an unknown escape")
		return false
	}
	if !utf16.IsSurrogate(r) {
		p.at += 6
		return true
	}
	if len(rest) < 12 || rest[6] != '\\' || rest[7] != 'u' || utf16.DecodeRune(r, hex4(rest[8:])) == utf8.RuneError {
		p.fail("half of a surrogate pair")
		return false
	}
	p.at += 12
	return true
}

func (p *parser) number() Value {
	start := p.at
	p.accept('-')
	if !p.accept('0') && !p.digits() {
		p.fail("a malformed number")
	}
	if p.accept('.') && !p.digits() {
		p.fail("a malformed number")
	}
	if p.accept('e') || p.accept('E') {
		if !p.accept('+') {
			p.accept('-')
		}
		if !p.digits() {
			p.fail("a malformed number")
		}
	}
	if p.err != nil {
		return Value{}
	}
	return Value{kind: Number, raw: p.text[start:p.at]}
}

func (p *parser) digits() bool {
	start := p.at
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
	}
	return p.at > start
}
