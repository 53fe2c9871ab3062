// Package primitive is all the cryptography that package vault calls: AES-256-GCM and
// HMAC-SHA-256 of the standard library, in the forms in which it calls them. It is
// apart so that test vectors of others, which bring their own keys, nonces and
// messages, go through the very same functions.
package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
)

// NewAEAD returns AES-GCM that draws its own nonces, from the random source of the
// standard library, and writes them before the ciphertext: the only form that the
// FIPS 140-3 mode of the Go runtime allows. A nonce has 12 bytes, a tag 16, and a
// key 32: others are refused.
func NewAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, aes.KeySizeError(len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Open authenticates and decrypts nonce, ciphertext and tag.
func Open(aead cipher.AEAD, box, associated []byte) ([]byte, error) {
	return aead.Open(nil, nil, box, associated)
}

// MAC is HMAC-SHA-256 of a message that is given in parts.
func MAC(key []byte, message ...[]byte) []byte { return sum(hmac.New(sha256.New, key), message) }

func sum(mac hash.Hash, message [][]byte) []byte {
	for _, part := range message {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// MACs is MAC of one key, again and again: it keeps hashes that have taken the key
// in, half of what a short message costs, and so holds what is derived from the key
// for as long as it is there. It is safe for concurrent use.
type MACs struct{ idle sync.Pool }

// MAC wants the same key each time.
func (m *MACs) MAC(key []byte, message ...[]byte) []byte {
	mac, ok := m.idle.Get().(hash.Hash)
	if !ok {
		mac = hmac.New(sha256.New, key)
	}
	code := sum(mac, message)
	mac.Reset()
	m.idle.Put(mac)
	return code
}

// Equal compares two codes in constant time.
func Equal(a, b []byte) bool { return hmac.Equal(a, b) }
