package agentkey

import (
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// kindSigningKey is the kind of the records that keep the public part of a key that
// signed heads before the present one, under the id of its data key, or under its
// hash where that was lost with a restore.
const kindSigningKey = "signing_key"

type signingKeyPayload struct {
	PublicKey string `json:"public_key"`
	Until     int64  `json:"until"`
}

// trust is whose signatures count.
type trust struct {
	key       string // the id of the data key that signs
	public    string
	verifiers *audit.Verifiers
}

// trusts puts together whose signatures count, of the reserved organization's keys
// and the records of former ones, which have to fit their seals.
func (k *keyring) trusts(r *ring, former []storage.Record) (*trust, error) {
	if r.signer == nil {
		return nil, &integrityError{kind: audit.KindDataKey, id: storage.System}
	}
	t := &trust{public: r.signer.PublicKey(), key: r.signing}
	all := []string{t.public}
	for _, f := range former {
		f.Organization = storage.System
		if r.rows.Verify(f.Row(k.installation), f.Seal) != nil {
			return nil, &integrityError{kind: f.Kind, id: f.ID}
		}
		p, err := parsePayload[signingKeyPayload](f)
		if err != nil {
			return nil, err
		}
		all = append(all, p.PublicKey)
	}
	var err error
	if t.verifiers, err = audit.NewVerifiers(all...); err != nil {
		return nil, &integrityError{kind: kindSigningKey, id: storage.System}
	}
	return t, nil
}

// PublicKey is the key that verifies the heads that this installation signs now,
// as a verifier key of signed notes (C2SP).
func (m *Manager) PublicKey() string { return m.keys.trust.Load().public }

func (m *Manager) verifiers() *audit.Verifiers { return m.keys.trust.Load().verifiers }

// trusted is whose signatures count, after a look whether another process has
// rotated the signing key.
func (m *Manager) trusted(ctx context.Context) (*audit.Verifiers, error) {
	if err := m.lookForSigningKey(ctx); err != nil {
		return nil, err
	}
	return m.verifiers(), nil
}

// lookForSigningKey reads the signing key anew if it is another than was last read.
func (m *Manager) lookForSigningKey(ctx context.Context) error {
	keys, err := m.dataKeys(ctx, storage.System)
	if err != nil {
		return err
	}
	for _, d := range keys {
		if d.Purpose == vault.PurposeSign && d.State == vault.KeyActive && d.ID == m.keys.trust.Load().key {
			return nil
		}
	}
	r, err := m.keys.acquire(ctx, storage.System, true)
	if err != nil {
		return err
	}
	r.release()
	return nil
}

// SigningKeyRotation is the handover from one signing key to the next. Whoever
// trusts the former one and has this trusts the present one: the receipt, whose
// checkpoint the former key signed, proves that the event is in the log, and the
// event names both.
type SigningKeyRotation struct {
	Former, Present string // public keys, as audit.NewVerifiers takes them
	Event           []byte // the exact bytes
	Receipt         audit.Receipt
}

// RotateSigningKey makes the next key that signs the logs' heads. The event that
// says so is signed by the key before it, whose private part is destroyed in the
// same transaction and whose public part is kept. It is for an Operator.
//
// Other processes on the database take the new key within Config.SweepInterval, if
// they Run, else within Config.KeyLifetime, and at the latest when they find a head
// that is signed with it; until then their heads have the former one's signature,
// which counts as before.
//
// The errors: ErrForbidden, ErrKeys, ErrUnavailable.
func (m *Manager) RotateSigningKey(ctx context.Context, a Actor) (out SigningKeyRotation, err error) {
	if err := m.authorize(ctx, a, OpRotateSigningKey); err != nil {
		return out, err
	}
	if err := m.enter(); err != nil {
		return out, err
	}
	defer m.leave()
	key, next, err := m.keys.wrap(ctx, storage.System, vault.PurposeSign, micros(m.config.Clock()))
	if err != nil {
		return out, err
	}
	defer key.Destroy()
	signer, err := newSigner(m.installation, key)
	if err != nil {
		return out, err
	}
	out.Present = signer.PublicKey()
	var e *entry
	err = m.act(ctx, a, OpRotateSigningKey, needs{}, func(u *unit) (err error) {
		out.Former = u.ring.signer.PublicKey()
		e, err = u.rotateSigningKey(a, next, out)
		return err
	})
	if err != nil {
		return SigningKeyRotation{}, err
	}
	out.Event, out.Receipt = e.appended.Contents[e.place], e.appended.Receipt(e.place)
	if err := m.lookForSigningKey(ctx); err != nil {
		return SigningKeyRotation{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return out, nil
}

func (u *unit) rotateSigningKey(a Actor, next storage.DataKey, r SigningKeyRotation) (*entry, error) {
	e := u.event(a.who(), audit.ActionLogSigningKeyRotated)
	e.Target = audit.Ref{Kind: audit.KindDataKey, ID: next.ID}
	e.Details = map[string]string{"provider": next.Provider, "former": r.Former, "present": r.Present}
	for _, d := range u.dataKeys {
		if d.Purpose != vault.PurposeSign || d.State != vault.KeyActive {
			continue
		}
		e.Details["previous"] = d.ID
		err := u.putPayload(e, storage.Record{Kind: kindSigningKey, ID: d.ID, Revision: 1},
			signingKeyPayload{PublicKey: r.Former, Until: u.now})
		if err == nil {
			err = u.destroyKey(a.who(), d)
		}
		if err != nil {
			return nil, err
		}
	}
	next.CreatedAt = u.now
	return e, u.putDataKey(e, next)
}

// CheckHandover checks that the installation's signing key was handed over, by what
// RotateSigningKey gave, and answers the present public key. former are the keys
// that are trusted. It needs nothing but these.
//
// The errors: audit.ErrSignature when no trusted key signed, audit.ErrMismatch when
// the event is not what was signed or is another one, and audit.ErrFormat.
func CheckHandover(former *audit.Verifiers, event []byte, receipt audit.Receipt) (present string, err error) {
	e, err := audit.Parse(event)
	if err != nil {
		return "", err
	}
	c, err := receipt.Verify(former)
	if err != nil {
		return "", err
	}
	if _, organization, _, err := audit.ParseOrigin(c.Origin); err != nil || organization != storage.System || audit.LeafHash(event) != receipt.Leaf {
		return "", fmt.Errorf("%w: the receipt is of another event", audit.ErrMismatch)
	}
	if e.Action != audit.ActionLogSigningKeyRotated || e.Organization != storage.System {
		return "", fmt.Errorf("%w: it is no event of a rotated signing key", audit.ErrMismatch)
	}
	if _, err := audit.NewVerifiers(e.Details["present"]); err != nil {
		return "", err
	}
	return e.Details["present"], nil
}
