package agentkey

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// ring holds the unwrapped data keys of one organization. It is used between
// acquire and release, and its keys are zeroed once it is retired and nobody
// uses it any more.
type ring struct {
	organization string
	keys         map[string]*vault.DataKey
	rows         *vault.RowSealer
	opener       *vault.Opener
	sealer       *vault.Sealer // nil until the organization seals its first value
	sealing      storage.DataKey
	signer       *audit.Signer   // of the reserved organization only
	signing      string          // the id of the key that signs
	gone         map[string]bool // keys that are destroyed
	expires      time.Time

	mu      sync.Mutex
	users   int
	retired bool
}

func (r *ring) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users--
	r.drop()
}

func (r *ring) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
	r.drop()
}

func (r *ring) drop() {
	if !r.retired || r.users > 0 {
		return
	}
	for _, k := range r.keys {
		k.Destroy()
	}
}

func (r *ring) use() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		return false
	}
	r.users++
	return true
}

// keyring unwraps data keys and keeps them for at most their lifetime. It calls
// the provider, so it is never used while a log head is held.
type keyring struct {
	store        storage.Store
	provider     vault.KeyProvider
	clock        func() time.Time
	lifetime     time.Duration
	timeout      time.Duration
	installation string

	trust atomic.Pointer[trust] // of when the reserved organization's keys were last read

	mu    sync.Mutex
	slots map[string]*slot
	left  map[string]int64 // reserved seals not used yet, by data key
}

// reserving lets one at a time reserve seals for an organization.
func (k *keyring) reserving(organization string) chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.slot(organization).reserving
}

// slot lets one goroutine at a time unwrap for an organization. Those who wait
// meanwhile share what it finds, its failure too: a provider that is away is not
// asked once for each of them. Its fields are the keyring's to lock.
type slot struct {
	turn      chan struct{} // holds a token while somebody has the slot
	reserving chan struct{} // and while somebody reserves seals
	ring      *ring
	failures  int64
	err       error // of the last failure
}

// slot is the organization's. The caller holds k.mu.
func (k *keyring) slot(organization string) *slot {
	s := k.slots[organization]
	if s == nil {
		s = &slot{turn: make(chan struct{}, 1), reserving: make(chan struct{}, 1)}
		k.slots[organization] = s
	}
	return s
}

// look takes the keys that are held for an organization, unless they have to be
// fresh or were held for their lifetime.
func (k *keyring) look(organization string, fresh bool) (s *slot, held *ring, failures int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s = k.slot(organization)
	if !fresh && s.ring != nil && k.clock().Before(s.ring.expires) && s.ring.use() {
		held = s.ring
	}
	return s, held, s.failures
}

// errNoKeys is why waiting for keys ends.
var errNoKeys = fmt.Errorf("%w: no answer in time", vault.ErrUnavailable)

// acquire gives the organization's keys. With fresh, keys that are held already
// are read and unwrapped again. The caller releases the ring.
//
// Waiting for somebody who unwraps them already, reading and unwrapping share the
// time that Config.KeyTimeout gives, and end when the caller is owed an answer.
func (k *keyring) acquire(ctx context.Context, organization string, fresh bool) (*ring, error) {
	s, held, failures := k.look(organization, fresh)
	if held != nil {
		return held, nil
	}
	bounded, cancel := k.bounded(ctx)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-bounded.Done():
		return nil, fmt.Errorf("%w: %w", ErrKeys, context.Cause(bounded))
	}
	_, held, now := k.look(organization, fresh)
	switch {
	case held != nil:
		return held, nil
	case now != failures:
		return nil, s.err
	}
	k.hold(s, nil)
	r, err := k.load(bounded, organization)
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if ctx.Err() == nil {
			s.failures++
			s.err = err
		}
		return nil, err
	}
	r.users = 1
	if k.lifetime > 0 {
		k.hold(s, r)
	} else {
		r.retired = true
	}
	return r, nil
}

// bounded is a context for one wait for the provider.
func (k *keyring) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, within(ctx, k.timeout), errNoKeys)
}

// hold puts keys into a slot in place of those that were there. The caller has the
// slot's turn.
func (k *keyring) hold(s *slot, r *ring) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.ring != nil {
		s.ring.retire()
	}
	s.ring = r
}

// forget lets go of an organization's keys, which are read again when they are
// next needed.
func (k *keyring) forget(organization string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.slot(organization); s.ring != nil {
		s.ring.retire()
		s.ring = nil
	}
}

// expire lets go of what has been held for its lifetime. It is zeroed at once or,
// if somebody is using it, after that.
func (k *keyring) expire(now time.Time, all bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.slots {
		if s.ring != nil && (all || !now.Before(s.ring.expires)) {
			s.ring.retire()
			s.ring = nil
		}
	}
}

func (k *keyring) load(ctx context.Context, organization string) (*ring, error) {
	var rows []storage.DataKey
	var former []storage.Record
	viewing, end := reading(ctx)
	defer end()
	err := k.store.View(viewing, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		if rows, err = tx.DataKeys(ctx); err != nil || organization != storage.System {
			return err
		}
		former, err = tx.ScanRecords(ctx, storage.Scan{Kind: kindSigningKey, Limit: storage.MaxPage})
		return err
	})
	if err != nil {
		return nil, storageError(err)
	}
	if len(rows) == 0 {
		return nil, ErrNoOrganization
	}
	keys := make(map[string]*vault.DataKey, len(rows))
	if err := k.unwrap(ctx, organization, rows, keys); err != nil {
		destroyKeys(keys)
		return nil, err
	}
	r, err := newRing(organization, k.installation, keys, rows)
	if err != nil {
		destroyKeys(keys)
		return nil, err
	}
	if organization == storage.System {
		t, err := k.trusts(r, former)
		if err != nil {
			destroyKeys(keys)
			return nil, err
		}
		k.trust.Store(t)
	}
	r.expires = k.clock().Add(k.lifetime)
	return r, nil
}

// unwrap unwraps the keys that rows describe. Those that seal rows come first:
// with them, what the other rows say is proven before the provider is asked, so
// that an edited row is not taken for a provider that does not answer.
func (k *keyring) unwrap(ctx context.Context, organization string, rows []storage.DataKey, keys map[string]*vault.DataKey) error {
	for _, d := range rows {
		if d.Purpose != vault.PurposeRow {
			continue
		}
		err := k.unwrapOne(ctx, organization, d, keys)
		if errors.Is(err, vault.ErrIntegrity) {
			return &integrityError{kind: audit.KindDataKey, id: d.ID}
		}
		if err != nil {
			return keyError(err)
		}
	}
	sealer, err := rowSealer(organization, keys, rows)
	if err != nil {
		return err
	}
	if err := checkDataKeys(sealer, k.installation, organization, rows); err != nil {
		return err
	}
	for _, d := range rows {
		if d.Purpose == vault.PurposeRow {
			continue
		}
		if err := k.unwrapOne(ctx, organization, d, keys); err != nil {
			return keyError(err)
		}
	}
	return nil
}

func (k *keyring) unwrapOne(ctx context.Context, organization string, d storage.DataKey, keys map[string]*vault.DataKey) error {
	if d.State == vault.KeyDestroyed {
		return nil
	}
	key, err := vault.Unwrap(ctx, k.provider, vault.Wrapped{Provider: d.Provider, Blob: d.Wrapped}, d.ID, d.Purpose,
		vault.Context{Installation: k.installation, Organization: organization, Purpose: string(d.Purpose), Key: d.ID})
	if err != nil {
		return err
	}
	keys[d.ID] = key
	return nil
}

func destroyKeys(keys map[string]*vault.DataKey) {
	for _, key := range keys {
		key.Destroy()
	}
}

// newRing makes a ring of keys that are described by rows, whose seals are proven.
func newRing(organization, installation string, keys map[string]*vault.DataKey, rows []storage.DataKey) (*ring, error) {
	r := &ring{organization: organization, keys: keys, gone: make(map[string]bool)}
	var sign, seal *vault.DataKey
	var seals []*vault.DataKey
	for _, d := range rows {
		key := keys[d.ID]
		if key == nil {
			r.gone[d.ID] = true
			continue
		}
		active := d.State == vault.KeyActive
		switch {
		case d.Purpose == vault.PurposeSign && active:
			sign, r.signing = key, d.ID
		case d.Purpose == vault.PurposeSeal:
			seals = append(seals, key)
			if active {
				seal, r.sealing = key, d
			}
		}
	}
	var err error
	if r.rows, err = rowSealer(organization, keys, rows); err != nil {
		return nil, err
	}
	if r.opener, err = vault.NewOpener(seals...); err != nil {
		return nil, fmt.Errorf("agentkey: seal keys: %w", err)
	}
	if seal != nil {
		if r.sealer, err = vault.NewSealer(seal); err != nil {
			return nil, fmt.Errorf("agentkey: seal key: %w", err)
		}
	}
	if sign != nil {
		if r.signer, err = newSigner(installation, sign); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// rowSealer seals with the active row key and verifies with all that are held.
func rowSealer(organization string, keys map[string]*vault.DataKey, rows []storage.DataKey) (*vault.RowSealer, error) {
	var active *vault.DataKey
	var older []*vault.DataKey
	for _, d := range rows {
		switch key := keys[d.ID]; {
		case key == nil || d.Purpose != vault.PurposeRow:
		case d.State == vault.KeyActive:
			active = key
		default:
			older = append(older, key)
		}
	}
	if active == nil {
		return nil, &integrityError{kind: audit.KindDataKey, id: organization}
	}
	sealer, err := vault.NewRowSealer(active, older...)
	if err != nil {
		return nil, fmt.Errorf("agentkey: row keys: %w", err)
	}
	return sealer, nil
}

func checkDataKeys(rows *vault.RowSealer, installation, organization string, keys []storage.DataKey) error {
	for _, d := range keys {
		d.Organization = organization
		if err := rows.Verify(d.Row(installation), d.Seal); err != nil {
			return &integrityError{kind: audit.KindDataKey, id: d.ID}
		}
	}
	return nil
}

func newSigner(installation string, key *vault.DataKey) (*audit.Signer, error) {
	seed, err := key.SigningSeed()
	if err != nil {
		return nil, fmt.Errorf("agentkey: signing key: %w", err)
	}
	defer seed.Destroy()
	signer, err := audit.NewSigner(audit.SignerName(installation), seed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("agentkey: signing key: %w", err)
	}
	return signer, nil
}

// wrap makes a data key and the row that keeps it, not sealed yet.
func (k *keyring) wrap(ctx context.Context, organization string, purpose vault.Purpose, now int64) (*vault.DataKey, storage.DataKey, error) {
	key, err := vault.NewDataKey(purpose)
	if err != nil {
		return nil, storage.DataKey{}, fmt.Errorf("agentkey: %w", err)
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	wrapper, _ := k.wrapper(organization, purpose)
	wrapped, err := vault.Wrap(ctx, wrapper, key, vault.Context{
		Installation: k.installation, Organization: organization, Purpose: string(purpose), Key: key.ID(),
	})
	if err != nil {
		key.Destroy()
		return nil, storage.DataKey{}, keyError(err)
	}
	return key, storage.DataKey{
		Organization: organization, ID: key.ID(), Purpose: purpose, State: vault.KeyActive,
		Provider: wrapped.Provider, Wrapped: wrapped.Blob, CreatedAt: now, UpdatedAt: now, Revision: 1,
	}, nil
}

// wrapper is who wraps the data keys of an organization: where the provider has keys
// of organizations, the one that seals values is wrapped by the organization's own.
// Everything of the installation, and what seals rows, is wrapped by the common key:
// a destroyed organization's log has to be verified.
func (k *keyring) wrapper(organization string, purpose vault.Purpose) (p vault.KeyProvider, own bool) {
	if o, ok := k.provider.(vault.OrganizationKeys); ok && purpose == vault.PurposeSeal && organization != storage.System {
		if p, own = o.OwnKey(organization); own {
			return p, true
		}
	}
	return k.provider, false
}

// ownKeys says whether organizations have keys of their own.
func (k *keyring) ownKeys() bool {
	_, own := k.wrapper("any", vault.PurposeSeal)
	return own
}

// current names the provider's current key, the common one.
func (k *keyring) current(ctx context.Context) (string, error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	id, err := k.provider.CurrentKey(ctx)
	if err != nil {
		return "", keyError(err)
	}
	return id, nil
}

// wrappers names the keys that wrap an organization's data keys now, by their
// purpose: common, or the organization's own, "" while that is not there.
func (k *keyring) wrappers(ctx context.Context, organization, common string) (map[vault.Purpose]string, error) {
	out := map[vault.Purpose]string{vault.PurposeRow: common, vault.PurposeSign: common, vault.PurposeSeal: common}
	p, own := k.wrapper(organization, vault.PurposeSeal)
	if !own {
		return out, nil
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	id, err := p.CurrentKey(ctx)
	if err != nil && !errors.Is(err, vault.ErrUnknownKey) {
		return nil, keyError(err)
	}
	out[vault.PurposeSeal] = id
	return out, nil
}

// keyError says that the provider can't answer, or that what it answered is not
// what was wrapped. The text of an error of a wrong key names ids, never keys.
func keyError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, vault.ErrUnknownKey), errors.Is(err, vault.ErrIntegrity):
		return fmt.Errorf("%w: %w", ErrKeys, err)
	}
	return fmt.Errorf("%w: %w", ErrKeys, err)
}

// storageError maps what a backend answers to this package's errors.
func storageError(err error) error {
	var own *Error
	switch {
	case err == nil, errors.As(err, &own), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, storage.ErrUnknown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, storage.ErrBusy), errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrClosed),
		errors.Is(err, storage.ErrSchema), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrStorage, err)
	case errors.Is(err, storage.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrIntegrity, err)
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}
