package vault

import (
	"crypto/subtle"
	"fmt"
	"io"
	"math"
)

// Secret owns plaintext bytes and gives them only to who asks for [Secret.Bytes].
// Everything that prints or encodes it gets "[redacted]"; see [Redacted].
//
// Copies of a Secret share the same bytes: destroying one destroys all. Any number
// of goroutines may read at once. Destroy must not run at the same time as a read,
// because Bytes hands out the live bytes. The zero Secret and a nil one are empty.
type Secret struct {
	Redacted
	// cell is a closure because neither fmt nor any walker by reflection can see
	// what a function holds, whichever unexported field the Secret sits in.
	cell func() *[]byte
}

// NewSecret returns a Secret that takes ownership of b: the caller must not use b
// afterwards. Destroy zeroes the length of b, not its spare capacity.
func NewSecret(b []byte) *Secret {
	if b == nil {
		b = []byte{}
	}
	b = b[:len(b):len(b)]
	p := &b
	return &Secret{cell: func() *[]byte { return p }}
}

// SecretFromReader reads r to its end into a Secret. It fails with [ErrTooLong] if
// r holds more than max bytes, and with r's own error if reading fails; in both
// cases, and whenever the buffer grows, what was read before is zeroed.
func SecretFromReader(r io.Reader, max int) (*Secret, error) {
	if max < 0 {
		return nil, ErrTooLong
	}
	max = min(max, math.MaxInt-1) // so that max+1 is a number
	buf := make([]byte, 0, min(max, 511)+1)
	for idle := 0; idle < 100; idle++ {
		// At most max+1 bytes are asked for: one more than allowed tells too many.
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			idle = 0
		}
		switch {
		case len(buf) > max:
			clear(buf[:cap(buf)])
			return nil, ErrTooLong
		case err == io.EOF:
			// A reader may use the whole buffer as scratch space.
			clear(buf[len(buf):cap(buf)])
			return NewSecret(buf), nil
		case err != nil:
			clear(buf[:cap(buf)])
			return nil, fmt.Errorf("vault: read secret: %w", err)
		case len(buf) == cap(buf):
			buf = grow(buf, max+1)
		}
	}
	clear(buf[:cap(buf)])
	return nil, fmt.Errorf("vault: read secret: %w", io.ErrNoProgress)
}

// grow doubles the capacity of buf up to limit and zeroes the old bytes.
func grow(buf []byte, limit int) []byte {
	bigger := make([]byte, len(buf), min(2*cap(buf), limit))
	copy(bigger, buf)
	clear(buf[:cap(buf)])
	return bigger
}

// Bytes returns the live bytes, not a copy: they are zeroed by Destroy and must
// not be kept or changed. It returns nil after Destroy.
func (s *Secret) Bytes() []byte {
	if s == nil || s.cell == nil {
		return nil
	}
	return *s.cell()
}

// Len returns the number of bytes, 0 after Destroy.
func (s *Secret) Len() int { return len(s.Bytes()) }

// Destroy zeroes the bytes and forgets them. It may be called more than once.
func (s *Secret) Destroy() {
	if s == nil || s.cell == nil {
		return
	}
	p := s.cell()
	clear(*p)
	*p = nil
}

// Equal reports whether both secrets hold the same bytes, in time that depends on
// their lengths only. A nil, zero or destroyed Secret equals nothing, so that one
// destroyed too early never passes for a match.
func (s *Secret) Equal(o *Secret) bool {
	a, b := s.Bytes(), o.Bytes()
	if a == nil || b == nil {
		return false
	}
	return subtle.ConstantTimeCompare(a, b) == 1
}
