// Package bound is what providers over a service hand out to be encrypted: a data
// key, and a proof that this key belongs to this context.
//
// Services bind a context by themselves, if they are what they say and are set up
// for it. The proof is inside of what they encrypt, so that one which ignores the
// context, or answers with the bytes of somebody else, is noticed by us.
package bound

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Size is the length of what is encrypted, in bytes.
const Size = vault.KeySize + sha256.Size

// label begins the message of the proof. Neither the id of a data key nor a row's
// seal, which are made with the same keys, have a message that begins so.
const label = "agentkey/wrapped-context/v1|"

// Append appends key and the proof that binds it to c:
//
//	key | HMAC-SHA-256(key, label | c encoded)
//
// It fails with vault.ErrKeyLength unless key has 32 bytes. The caller zeroes what
// it returns.
func Append(b, key []byte, c vault.Context) ([]byte, error) {
	if len(key) != vault.KeySize {
		return nil, vault.ErrKeyLength
	}
	b = append(b, key...)
	return append(b, proof(key, c)...), nil
}

// Open returns a copy of the key within plain, which the caller zeroes, if it was
// bound to c; plain is zeroed in any case. Everything else is a vault.ErrUnwrap.
func Open(plain []byte, c vault.Context) ([]byte, error) {
	defer clear(plain)
	if len(plain) != Size {
		return nil, fmt.Errorf("%w: length of what the service decrypted", vault.ErrUnwrap)
	}
	key := plain[:vault.KeySize]
	if !hmac.Equal(plain[vault.KeySize:], proof(key, c)) {
		return nil, fmt.Errorf("%w: what the service decrypted is not of this context", vault.ErrUnwrap)
	}
	return append(make([]byte, 0, vault.KeySize), key...), nil
}

func proof(key []byte, c vault.Context) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(c.AppendEncoded([]byte(label)))
	return mac.Sum(nil)
}
