package agentkey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"github.com/google/uuid"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	keyPrefix   = "sk_agent_"
	tokenPrefix = "sk_admin_"
	// keyBytes is how many random bytes a key or token has.
	keyBytes = 24
)

// newID makes a UUIDv7. Ids made later sort later.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// newKey makes a key or token: the prefix and 24 random bytes in base64url.
func newKey(prefix string) *Secret {
	var raw [keyBytes]byte
	rand.Read(raw[:]) // never fails: see crypto/rand
	text := make([]byte, len(prefix)+base64.RawURLEncoding.EncodedLen(keyBytes))
	copy(text, prefix)
	base64.RawURLEncoding.Encode(text[len(prefix):], raw[:])
	clear(raw[:])
	return vault.NewSecret(text)
}

func digestOf(s *Secret) []byte {
	sum := sha256.Sum256(s.Bytes())
	return sum[:]
}

// equalDigest compares in constant time.
func equalDigest(a, b []byte) bool {
	return len(a) == sha256.Size && subtle.ConstantTimeCompare(a, b) == 1
}
