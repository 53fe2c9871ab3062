package anchor

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// cosigner verifies cosignatures of version 1 by one key (C2SP tlog-cosignature).
type cosigner struct {
	name string
	id   [4]byte
	key  ed25519.PublicKey
}

// cosignatureKey is the algorithm byte of an Ed25519 key for cosignatures.
const cosignatureKey = 4

// parseCosigner reads a verifier key, "NAME+HASH+KEY" (C2SP signed-note).
func parseCosigner(text string) (cosigner, error) {
	wrong := fmt.Errorf("%w: the witness's key must be NAME+HASH+KEY, a verifier key for cosignatures", ErrConfig)
	parts := strings.SplitN(strings.TrimSpace(text), "+", 3)
	if len(parts) != 3 || parts[0] == "" || strings.ContainsFunc(parts[0], func(r rune) bool { return r <= ' ' || r == '+' }) {
		return cosigner{}, wrong
	}
	id, err := hex.DecodeString(parts[1])
	key, keyErr := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || keyErr != nil || len(id) != 4 || len(key) != 1+ed25519.PublicKeySize || key[0] != cosignatureKey {
		return cosigner{}, wrong
	}
	c := cosigner{name: parts[0], key: key[1:]}
	sum := sha256.Sum256(append([]byte(c.name+"\n"), key...))
	if copy(c.id[:], sum[:]); !bytes.Equal(c.id[:], id) {
		return cosigner{}, wrong
	}
	return c, nil
}

// verify looks among signature lines for a cosignature of the signed note's text by
// this key. Lines of other keys don't count.
func (c cosigner) verify(note, lines []byte) error {
	text, _, ok := bytes.Cut(note, []byte("\n\n"))
	if !ok {
		return errors.New("anchor: witness: no signed note")
	}
	for line := range strings.Lines(string(lines)) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "— "+c.name+" ")
		signature, err := base64.StdEncoding.DecodeString(rest)
		if !ok || err != nil || len(signature) != 4+8+ed25519.SignatureSize || !bytes.Equal(signature[:4], c.id[:]) {
			continue
		}
		at := binary.BigEndian.Uint64(signature[4:12])
		message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text)
		if ed25519.Verify(c.key, message, signature[12:]) {
			return nil
		}
	}
	return errors.New("anchor: witness: its answer has no valid cosignature by the key that is known")
}
