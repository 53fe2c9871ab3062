package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/vault/internal/primitive"
)

// A row seal, version 1:
//
//	offset  length
//	0       1       version, 0x01
//	1       16      id of the data key
//	17      32      HMAC-SHA-256
//
// FORMAT.md draws what the HMAC is over.
const (
	rowVersion = 0x01
	rowHeader  = 1 + keyIDSize
)

// rowIdentitySize is room for what the HMAC reads before the columns, with ids as
// long as UUIDs.
const rowIdentitySize = 320

// RowSealSize is the length of a row seal in bytes.
const RowSealSize = rowHeader + sha256.Size

// RowSealer seals rows and verifies their seals. It is safe for concurrent use.
//
// A seal says that who held the key wrote the row so, at some time. That it is the
// newest state of the record it can't say: an old row put back whole, with its
// seal, verifies, and is found by replaying the audit log.
type RowSealer struct {
	Redacted
	active *DataKey
	keys   map[string]*DataKey
}

// NewRowSealer returns a RowSealer that seals with active and verifies with active
// and older. The keys stay the caller's: once one is destroyed, its seals are no
// longer made or accepted. It fails with [ErrPurpose] unless all are for rows.
func NewRowSealer(active *DataKey, older ...*DataKey) (*RowSealer, error) {
	if err := active.wants(PurposeRow); err != nil {
		return nil, err
	}
	ring, err := keyRing(PurposeRow, older)
	if err != nil {
		return nil, err
	}
	ring[active.id] = active
	return &RowSealer{active: active, keys: ring}, nil
}

// KeyID returns the id of the data key that seals.
func (s *RowSealer) KeyID() string { return s.active.id }

// Seal returns the seal of r. It fails with [ErrPlace] if the identity of r is
// incomplete, and with [ErrKeyDestroyed] if the key is gone.
func (s *RowSealer) Seal(r Row) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	seal := append(make([]byte, 0, RowSealSize), rowVersion)
	seal = append(seal, s.active.rawID[:]...)
	mac, err := s.active.rowMAC(seal, r)
	if err != nil {
		return nil, err
	}
	return append(seal, mac...), nil
}

// Verify returns nil if seal is the seal of r. Every seal that is not gives an
// [ErrIntegrity]: [ErrRowSeal] if the row was changed, [ErrFormat] if seal has no
// known form, and one that is also an [ErrUnknownKey] if its key is not held. A row
// with an incomplete identity is an [ErrPlace], a destroyed key [ErrKeyDestroyed].
func (s *RowSealer) Verify(r Row, seal []byte) error {
	if err := r.check(); err != nil {
		return err
	}
	id, err := RowSealKeyID(seal)
	if err != nil {
		return err
	}
	key := s.keys[id]
	if key == nil {
		return fmt.Errorf("%w: %w", ErrIntegrity, unknownKey(id, s.keys))
	}
	mac, err := key.rowMAC(seal[:rowHeader], r)
	if err != nil {
		return err
	}
	if !primitive.Equal(mac, seal[rowHeader:]) {
		return ErrRowSeal
	}
	return nil
}

// RowSealKeyID returns the id of the data key that seal names, without verifying
// it: what it says is not proven. It fails with [ErrFormat].
func RowSealKeyID(seal []byte) (string, error) {
	if len(seal) != RowSealSize {
		return "", fmt.Errorf("%w: length of row seal", ErrFormat)
	}
	if seal[0] != rowVersion {
		return "", fmt.Errorf("%w: version of row seal", ErrFormat)
	}
	return hex.EncodeToString(seal[1:rowHeader]), nil
}

// rowMAC returns the HMAC of r under the key and the header of its seal.
func (k *DataKey) rowMAC(header []byte, r Row) ([]byte, error) {
	b := appendPart(make([]byte, 0, rowIdentitySize), rowLabel)
	b = appendPart(b, header[:1])
	b = appendPart(b, header[1:rowHeader])
	b = r.identity(b)
	var sum []byte
	err := k.use(func(m *material) error {
		sum = m.macs.MAC(m.key, b, r.Columns.encoded)
		return nil
	})
	return sum, err
}
