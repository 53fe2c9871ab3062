package client

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// secretBody is a request's body that is zeroed when the round trip is over.
// net/http may still be reading then, when the server answered early; the lock
// keeps that reader from half-cleared bytes.
type secretBody struct {
	mu     sync.Mutex
	b      []byte
	offset int
}

// Read reads what is left.
func (s *secretBody) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.b == nil {
		return 0, io.ErrClosedPipe
	}
	if s.offset == len(s.b) {
		return 0, io.EOF
	}
	n := copy(p, s.b[s.offset:])
	s.offset += n
	return n, nil
}

// Close does nothing: the bytes are zeroed by destroy.
func (s *secretBody) Close() error { return nil }

func (s *secretBody) len() int { return len(s.b) }

func (s *secretBody) destroy() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.b)
	s.b = nil
}

// encodeBody encodes body as a JSON object and appends secret to it, under a name,
// without making a string of it.
func encodeBody(body any, name string, secret *vault.Secret) (*secretBody, error) {
	if body == nil {
		return nil, nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("client: encode the request: %w", err)
	}
	if secret == nil {
		return &secretBody{b: b}, nil
	}
	plain := secret.Bytes()
	if !utf8.Valid(plain) {
		return nil, ErrText
	}
	b = bytes.TrimSuffix(b, []byte("}"))
	// Six bytes hold every escape, so that appending never moves, and leaves, a copy.
	name = cmp.Or(name, "credential")
	full := make([]byte, 0, len(b)+len(`,"":""}`)+6*len(name)+6*len(plain))
	full = append(full, b...)
	if len(b) > 1 {
		full = append(full, ',')
	}
	full = append(appendEscaped(append(full, '"'), []byte(name)), `":"`...)
	full = appendEscaped(full, plain)
	full = append(full, `"}`...)
	return &secretBody{b: full}, nil
}

// appendEscaped appends valid UTF-8 as the inside of a JSON string.
func appendEscaped(b, text []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// decodeSecret takes a JSON value: the text of a string, or the value itself as
// JSON when it is anything else, which is how structured tokens are vended.
func decodeSecret(raw json.RawMessage) (*vault.Secret, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, ErrAnswer
	}
	if raw[0] != '"' {
		return vault.NewSecret(bytes.Clone(raw)), nil
	}
	inside := raw[1 : len(raw)-1]
	if !bytes.ContainsRune(inside, '\\') && utf8.Valid(inside) {
		return vault.NewSecret(bytes.Clone(inside)), nil
	}
	// Escapes are rare in credentials. The string is a copy that can't be zeroed.
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return nil, ErrAnswer
	}
	return vault.NewSecret([]byte(text)), nil
}
