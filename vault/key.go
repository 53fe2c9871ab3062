package vault

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/agentkey-dev/agentkey-go/vault/internal/primitive"
)

// KeySize is the length of every data key in bytes.
const KeySize = 32

const (
	keyIDSize    = 16
	dataKeyLabel = "agentkey/data-key-id/v1|"
)

// Purpose says what a data key may be used for. A key has exactly one purpose, and
// its id depends on it.
type Purpose string

// The purposes of data keys.
const (
	// PurposeSeal is for AES-256-GCM over credentials.
	PurposeSeal Purpose = "seal"
	// PurposeRow is for HMAC-SHA-256 over deciding rows.
	PurposeRow Purpose = "row"
	// PurposeSign is for the Ed25519 seed that signs log heads.
	PurposeSign Purpose = "sign"
)

func (p Purpose) valid() bool { return p == PurposeSeal || p == PurposeRow || p == PurposeSign }

// KeyState is the state of a stored data key. The package does not track it: who
// keeps data keys reads it in each transaction.
type KeyState string

// The states of data keys, in the order in which a key passes through them.
const (
	// KeyActive means that the key seals and opens.
	KeyActive KeyState = "active"
	// KeyDecryptOnly means that the key opens and verifies what it sealed before.
	KeyDecryptOnly KeyState = "decrypt_only"
	// KeyDestroyed means that the key is gone and what it sealed stays closed.
	KeyDestroyed KeyState = "destroyed"
)

// DataKey is an unwrapped 32-byte key. It prints as "[redacted]"; see [Redacted].
//
// It is safe for concurrent use. Destroy waits for uses that are under way; uses
// after it fail with [ErrKeyDestroyed], in every Sealer, Opener and RowSealer that
// was built over the key. The zero DataKey has no purpose and is refused.
type DataKey struct {
	Redacted
	purpose  Purpose
	id       string           // rawID in hexadecimal
	rawID    [keyIDSize]byte  // as it stands in the formats
	material func() *material // a closure for the reason given at Secret
}

// material is what must not be seen of a data key.
type material struct {
	mu   sync.RWMutex
	key  []byte          // nil once destroyed
	aead cipher.AEAD     // of a seal key only
	macs *primitive.MACs // of a row key, and what it keeps is derived from that
}

// NewDataKey makes a new random data key. It fails with [ErrPurpose] if p is not
// one of the purposes above.
func NewDataKey(p Purpose) (*DataKey, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("vault: make data key: %w", err)
	}
	return newDataKey(key, p)
}

// newDataKey takes ownership of key and zeroes it if it fails.
func newDataKey(key []byte, p Purpose) (*DataKey, error) {
	if !p.valid() {
		clear(key)
		return nil, ErrPurpose
	}
	m := &material{key: key, macs: new(primitive.MACs)}
	if p == PurposeSeal {
		aead, err := newAEAD(key)
		if err != nil {
			clear(key)
			return nil, err
		}
		m.aead = aead
	}
	id := dataKeyID(key, p)
	return &DataKey{
		purpose:  p,
		id:       hex.EncodeToString(id[:]),
		rawID:    id,
		material: func() *material { return m },
	}, nil
}

// dataKeyID derives the id of a key. An HMAC shows nothing of its key, and the
// label can't be the start of a row's encoding, which begins with a length.
func dataKeyID(key []byte, p Purpose) [keyIDSize]byte {
	return [keyIDSize]byte(primitive.MAC(key, []byte(dataKeyLabel+string(p)))[:keyIDSize])
}

// ID returns the id derived from the key and its purpose: 32 lower-case
// hexadecimal digits. It is not secret and stays known after Destroy.
func (k *DataKey) ID() string { return k.id }

// Purpose returns what the key is for.
func (k *DataKey) Purpose() Purpose { return k.purpose }

// SigningSeed returns a copy of the key as a seed for Ed25519, which the caller
// owns and destroys. It fails with [ErrPurpose] unless the key is for signing, and
// with [ErrKeyDestroyed] after Destroy.
func (k *DataKey) SigningSeed() (*Secret, error) {
	if err := k.wants(PurposeSign); err != nil {
		return nil, err
	}
	var seed *Secret
	err := k.use(func(m *material) error {
		seed = NewSecret(append(make([]byte, 0, KeySize), m.key...))
		return nil
	})
	return seed, err
}

// Destroy zeroes the key, and leaves what the standard library has derived from it to
// the garbage collector. It may be called more than once.
func (k *DataKey) Destroy() {
	if k == nil || k.material == nil {
		return
	}
	m := k.material()
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.key)
	m.key, m.aead, m.macs = nil, nil, nil
}

// use runs fn while the key can't be destroyed.
func (k *DataKey) use(fn func(*material) error) error {
	if k.material == nil {
		return ErrKeyDestroyed
	}
	m := k.material()
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.key == nil {
		return ErrKeyDestroyed
	}
	return fn(m)
}

// wants fails unless the key is for p.
func (k *DataKey) wants(p Purpose) error {
	if k == nil || k.purpose != p {
		return fmt.Errorf("%w: want %s", ErrPurpose, p)
	}
	return nil
}

// keyRing indexes data keys of one purpose by id.
func keyRing(p Purpose, keys []*DataKey) (map[string]*DataKey, error) {
	ring := make(map[string]*DataKey, len(keys))
	for _, k := range keys {
		if err := k.wants(p); err != nil {
			return nil, err
		}
		ring[k.id] = k
	}
	return ring, nil
}

// Wrap wraps k with the provider's current key, bound to c. Purpose and Key of c
// are filled in from k where empty; anything else than k's own is an [ErrPlace].
//
// The key is unwrapped again before Wrap returns: a provider that wraps what it
// can't unwrap would otherwise be noticed only when something sealed is needed
// back. Wrap calls the provider over the network; hold no lock meanwhile.
func Wrap(ctx context.Context, kp KeyProvider, k *DataKey, c Context) (Wrapped, error) {
	if k == nil || !k.purpose.valid() {
		return Wrapped{}, ErrPurpose
	}
	c, err := c.forKey(k.id, k.purpose)
	if err != nil {
		return Wrapped{}, err
	}
	key, err := k.copyOut()
	if err != nil {
		return Wrapped{}, err
	}
	defer clear(key)
	w, err := kp.WrapKey(ctx, key, c)
	if err != nil {
		return Wrapped{}, fmt.Errorf("vault: wrap data key %s: %w", k.id, err)
	}
	if err := w.check(); err != nil {
		return Wrapped{}, err
	}
	back, err := Unwrap(ctx, kp, w, k.id, k.purpose, c)
	if err != nil {
		return Wrapped{}, fmt.Errorf("vault: check of wrapped key: %w", err)
	}
	back.Destroy()
	return w, nil
}

// copyOut returns a copy of the key's bytes, which the caller zeroes.
func (k *DataKey) copyOut() ([]byte, error) {
	key := make([]byte, KeySize)
	err := k.use(func(m *material) error {
		copy(key, m.key)
		return nil
	})
	return key, err
}

// Unwrap opens w with the provider and returns the data key, if the id derived
// from it under p is id; otherwise it fails with [ErrWrongKey]. The context is
// treated as by [Wrap]. The provider's errors are kept: [ErrUnavailable],
// [ErrUnknownKey], [ErrUnwrap] and the context's own.
func Unwrap(ctx context.Context, kp KeyProvider, w Wrapped, id string, p Purpose, c Context) (*DataKey, error) {
	if !p.valid() {
		return nil, ErrPurpose
	}
	c, err := c.forKey(id, p)
	if err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("%w: wrapped key", ErrFormat)
	}
	key, err := kp.UnwrapKey(ctx, w, c)
	if err != nil {
		clear(key)
		return nil, fmt.Errorf("vault: unwrap data key: %w", err)
	}
	if len(key) != KeySize {
		clear(key)
		return nil, fmt.Errorf("%w: wrong length", ErrWrongKey)
	}
	k, err := newDataKey(key, p)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(k.id), []byte(id)) != 1 {
		k.Destroy()
		return nil, ErrWrongKey
	}
	return k, nil
}
