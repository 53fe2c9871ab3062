package agentkey

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// sealBlock is how many seals are reserved at a time. What is left of a block
// when a process ends counts as used.
const sealBlock = 1024

// sealAt seals a value to its place under the organization's newest data key.
// Every seal lies in a block that was reserved durably before, and the key is
// followed by the next one before its seals run out.
func (m *Manager) sealAt(ctx context.Context, p vault.Place, secret *vault.Secret) ([]byte, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	for run := range maxRuns {
		var sealed []byte
		r, err := m.keys.acquire(ctx, p.Organization, run > 0)
		if err == nil {
			sealed, err = m.sealWith(ctx, r, p, secret)
			r.release()
		}
		if errors.Is(err, ErrIntegrity) {
			m.reportIntegrity(ctx, p.Organization, err)
		}
		if err == nil || !errors.Is(err, errStale) {
			return sealed, err
		}
	}
	return nil, fmt.Errorf("%w: data keys keep changing", ErrStorage)
}

func (m *Manager) sealWith(ctx context.Context, r *ring, p vault.Place, secret *vault.Secret) ([]byte, error) {
	if r.sealer == nil {
		return nil, &integrityError{kind: audit.KindDataKey, id: p.Organization}
	}
	if m.tooOld(r.sealing) || !m.keys.take(r.sealing.ID) {
		if err := m.replenish(ctx, p.Organization, r.sealing); err != nil {
			return nil, err
		}
	}
	return r.sealer.Seal(p, secret)
}

// replenish reserves seals and takes one. One goroutine at a time does so for an
// organization: those who wait take from its block, lest each of them use up a
// block, or a key, of its own.
func (m *Manager) replenish(ctx context.Context, organization string, key storage.DataKey) error {
	reserving := m.keys.reserving(organization)
	select {
	case reserving <- struct{}{}:
		defer func() { <-reserving }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrStorage, ctx.Err())
	}
	if !m.tooOld(key) && m.keys.take(key.ID) {
		return nil
	}
	n, err := m.reserve(ctx, organization, key.ID)
	if err != nil {
		return err
	}
	m.keys.give(key.ID, n-1)
	return nil
}

// take takes one of the seals that are reserved for a key.
func (k *keyring) take(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left[key] == 0 {
		return false
	}
	k.left[key]--
	return true
}

func (k *keyring) give(key string, n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left[key] += n
}

// reserve reserves a block of seals of the active seal key and answers its size.
// A key that is used up or too old is followed by a new one: the answer is then
// errStale, and the caller reads the keys again.
func (m *Manager) reserve(ctx context.Context, organization, key string) (n int64, err error) {
	roll := false
	err = m.update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		n, roll = 0, false
		keys, err := tx.DataKeys(ctx)
		if err != nil {
			return err
		}
		for _, d := range keys {
			if d.ID != key {
				continue
			}
			if d.State != vault.KeyActive {
				return errStale
			}
			if n = min(sealBlock, m.config.SealsPerKey-d.Reserved); n <= 0 || m.tooOld(d) {
				roll = true
				return nil
			}
			_, _, err := tx.ReserveSeals(ctx, key, n)
			return err
		}
		return errStale
	})
	switch {
	case errors.Is(err, errStale):
		return 0, errStale
	case err != nil:
		return 0, storageError(err)
	case !roll:
		return n, nil
	}
	if err := m.roll(ctx, organization, key); err != nil {
		return 0, err
	}
	return 0, errStale
}

func (m *Manager) tooOld(d storage.DataKey) bool {
	return m.config.KeyAge > 0 && micros(m.config.Clock())-d.CreatedAt >= duration(m.config.KeyAge)
}

// roll makes the next seal key of an organization. The one before only opens
// from then on. If another process was faster, its key is kept.
func (m *Manager) roll(ctx context.Context, organization, old string) error {
	key, next, err := m.keys.wrap(ctx, organization, vault.PurposeSeal, micros(m.config.Clock()))
	if err != nil {
		return err
	}
	defer key.Destroy()
	return m.commit(ctx, &operation{organization: organization, decide: func(u *unit) error {
		for _, d := range u.dataKeys {
			if d.ID != old || d.State != vault.KeyActive {
				continue
			}
			e := u.event(system, audit.ActionDataKeyRolled)
			e.Target = audit.Ref{Kind: audit.KindDataKey, ID: next.ID}
			e.Details = map[string]string{"purpose": string(next.Purpose), "provider": next.Provider, "previous": old}
			d.State, d.Revision = vault.KeyDecryptOnly, d.Revision+1
			if err := u.putDataKey(e, d); err != nil {
				return err
			}
			next.CreatedAt = u.now
			return u.putDataKey(e, next)
		}
		return nil
	}})
}
