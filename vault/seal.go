package vault

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault/internal/primitive"
)

// MaxPlaintext is the largest plaintext in bytes.
const MaxPlaintext = 64 << 10

// A sealed value, version 1:
//
//	offset  length
//	0       1       version, 0x01
//	1       1       algorithm, 0x01: AES-256-GCM, 12-byte random nonce, 16-byte tag
//	2       16      id of the data key
//	18      12      nonce
//	30      1 to n  ciphertext, as long as the plaintext
//	30+n    16      tag
//
// FORMAT.md draws the associated data.
const (
	sealedLabel   = "agentkey/sealed/v1"
	sealedVersion = 0x01
	algAES256GCM  = 0x01
	sealedHeader  = 2 + keyIDSize
	gcmOverhead   = 12 + 16
	minSealed     = sealedHeader + gcmOverhead + 1
	maxSealed     = sealedHeader + gcmOverhead + MaxPlaintext
)

func newAEAD(key []byte) (cipher.AEAD, error) {
	aead, err := primitive.NewAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return aead, nil
}

// open authenticates and decrypts nonce, ciphertext and tag. The error of the
// standard library says nothing more than that it failed, and is dropped.
func open(aead cipher.AEAD, box, associated []byte) ([]byte, error) {
	plain, err := primitive.Open(aead, box, associated)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// Sealer seals and can't open. It is safe for concurrent use.
type Sealer struct {
	Redacted
	key *DataKey
}

// NewSealer returns a Sealer over k, which stays the caller's: once it is
// destroyed, sealing fails. It fails with [ErrPurpose] unless k is for sealing.
//
// The caller counts seals and changes keys long before 2^32 of them, where random
// nonces under one key are no longer safe to be distinct.
func NewSealer(k *DataKey) (*Sealer, error) {
	if err := k.wants(PurposeSeal); err != nil {
		return nil, err
	}
	return &Sealer{key: k}, nil
}

// KeyID returns the id of the data key that seals.
func (s *Sealer) KeyID() string { return s.key.id }

// Seal returns plain sealed to p. plain stays the caller's and has 1 to
// [MaxPlaintext] bytes, otherwise Seal fails with [ErrPlaintext]; with [ErrPlace]
// if p is incomplete, and with [ErrKeyDestroyed] if the key is gone.
func (s *Sealer) Seal(p Place, plain *Secret) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	n := plain.Len()
	if n == 0 || n > MaxPlaintext {
		return nil, ErrPlaintext
	}
	sealed := make([]byte, 0, sealedHeader+gcmOverhead+n)
	sealed = append(sealed, sealedVersion, algAES256GCM)
	sealed = append(sealed, s.key.rawID[:]...)
	err := s.key.use(func(m *material) error {
		sealed = m.aead.Seal(sealed, nil, plain.Bytes(), p.associatedData(sealed))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sealed, nil
}

// Opener opens and can't seal. Who holds one can read credentials; it is given to
// vending, delivery, re-sealing and diagnosis only. It is safe for concurrent use.
type Opener struct {
	Redacted
	keys map[string]*DataKey
}

// NewOpener returns an Opener over the keys, which stay the caller's: once one is
// destroyed, what it sealed does not open. It fails with [ErrPurpose] unless all
// are for sealing.
func NewOpener(keys ...*DataKey) (*Opener, error) {
	ring, err := keyRing(PurposeSeal, keys)
	if err != nil {
		return nil, err
	}
	return &Opener{keys: ring}, nil
}

// Open returns the plaintext of sealed, which the caller owns and destroys. It
// fails with [ErrPlace] if p is incomplete, [ErrFormat] if sealed has no known
// form, [ErrUnknownKey] if its key is not held, [ErrKeyDestroyed] if the key is
// gone, and [ErrOpen] if sealed was changed or belongs to another place.
func (o *Opener) Open(p Place, sealed []byte) (*Secret, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	id, err := SealedKeyID(sealed)
	if err != nil {
		return nil, err
	}
	key := o.keys[id]
	if key == nil {
		return nil, unknownKey(id, o.keys)
	}
	var plain *Secret
	err = key.use(func(m *material) error {
		b, err := open(m.aead, sealed[sealedHeader:], p.associatedData(sealed))
		if err == nil {
			plain = NewSecret(b)
		}
		return err
	})
	return plain, err
}

// SealedKeyID returns the id of the data key that sealed names, without opening
// it: what it says is not proven. It fails with [ErrFormat].
func SealedKeyID(sealed []byte) (string, error) {
	if len(sealed) < minSealed || len(sealed) > maxSealed {
		return "", fmt.Errorf("%w: length of sealed value", ErrFormat)
	}
	if sealed[0] != sealedVersion || sealed[1] != algAES256GCM {
		return "", fmt.Errorf("%w: version or algorithm of sealed value", ErrFormat)
	}
	return hex.EncodeToString(sealed[2:sealedHeader]), nil
}

// SealedDigest returns the SHA-256 of the sealed bytes, which the audit log keeps
// to say which bytes were stored.
func SealedDigest(sealed []byte) [32]byte { return sha256.Sum256(sealed) }

// unknownKey names the ids needed and held, which are no secret.
func unknownKey(id string, held map[string]*DataKey) error {
	ids := make([]string, 0, len(held))
	for k := range held {
		ids = append(ids, k)
	}
	slices.Sort(ids)
	return fmt.Errorf("%w: need data key %s, hold [%s]", ErrUnknownKey, id, strings.Join(ids, " "))
}
