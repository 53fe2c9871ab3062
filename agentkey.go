package agentkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Manager carries all sealing, deciding, vending and recording. It is safe for
// concurrent use. It starts no goroutine; background work is done by Run.
type Manager struct {
	config       Config
	store        storage.Store
	limiter      ratelimit.Limiter
	log          *slog.Logger
	validation   *validation
	installation string
	keys         *keyring
	queues       queues
	heads        heads
	refusals     refusals
	failures     failures
	routes       routes
	conversions  conversions
	shippers     []*shipper
	anchors      *anchoring
	held         int // how many records one pass over a log holds in memory

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

// New validates the configuration and looks at the storage once. On an empty
// storage it begins an installation: its id, its signing key, and the reserved
// organization's log. It never migrates.
//
// With a key provider that can't unwrap what the installation was begun with, the
// error is an ErrKeys that names the keys needed and held by id.
func New(ctx context.Context, c Config) (*Manager, error) {
	v, err := newValidation()
	if err != nil {
		return nil, err
	}
	if err := c.check(v); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	if c.Limiter == nil {
		if c.Limiter, err = ratelimit.NewMemory(c.Policies, maxSubjects); err != nil {
			return nil, fmt.Errorf("agentkey: Config.Policies: %w", err)
		}
	}
	m := &Manager{
		config: c, store: c.Storage, limiter: c.Limiter, log: c.Logger, validation: v, held: heldRecords,
		queues:   queues{byOrganization: make(map[string]*queue)},
		heads:    heads{last: make(map[string]knownHead), seen: make(map[string]seenHead)},
		refusals: refusals{counts: make(map[refusalKey]*refusalCount)},
		failures: failures{counts: make(map[string]*failureCount)},
		keys: &keyring{
			store: c.Storage, provider: c.Keys, clock: c.Clock, lifetime: c.KeyLifetime, timeout: c.KeyTimeout,
			slots: make(map[string]*slot), left: make(map[string]int64),
		},
	}
	for _, s := range c.Sinks {
		m.shippers = append(m.shippers, &shipper{m: m, SinkConfig: s})
	}
	m.anchors = newAnchoring(m, c.Anchors)
	if err := m.open(ctx); err != nil {
		return nil, err
	}
	if err := m.anchors.check(ctx); err != nil {
		m.keys.expire(c.Clock(), true)
		return nil, err
	}
	return m, nil
}

// Kinds of generic records.
const (
	kindInstallation  = "installation"
	kindAdministrator = "administrator"
	kindToken         = "token"
	kindRegistration  = "registration"
)

const installationRecord = "self"

type installationPayload struct {
	ID string `json:"id"`
}

// open reads the installation, or begins one.
func (m *Manager) open(ctx context.Context) error {
	for range maxRuns {
		var r storage.Record
		var found bool
		err := m.store.View(ctx, storage.System, func(ctx context.Context, tx storage.ReadTx) (err error) {
			r, found, err = tx.Record(ctx, kindInstallation, installationRecord)
			return err
		})
		if err != nil {
			return fmt.Errorf("agentkey: read installation: %w", storageError(err))
		}
		if !found {
			if err := m.begin(ctx); err != nil && !errors.Is(err, errConflict) {
				return fmt.Errorf("agentkey: begin installation: %w", err)
			}
			continue
		}
		return m.resume(ctx, r)
	}
	// Its log has begun, and the record that began with it is not there.
	return fmt.Errorf("agentkey: installation record: %w", ErrIntegrity)
}

func (m *Manager) resume(ctx context.Context, r storage.Record) error {
	var p installationPayload
	if err := json.Unmarshal(r.Payload, &p); err != nil || p.ID == "" {
		return fmt.Errorf("agentkey: installation record: %w", ErrIntegrity)
	}
	m.installation, m.keys.installation = p.ID, p.ID
	keys, err := m.keys.acquire(ctx, storage.System, true)
	if err != nil {
		return fmt.Errorf("agentkey: keys of the installation: %w", err)
	}
	defer keys.release()
	r.Organization = storage.System
	if err := keys.rows.Verify(r.Row(p.ID), r.Seal); err != nil || keys.signer == nil {
		return fmt.Errorf("agentkey: installation record: %w", ErrIntegrity)
	}
	return nil
}

// begin makes the installation: its id, the reserved organization's data keys
// and its first event, all in one transaction.
func (m *Manager) begin(ctx context.Context) error {
	m.installation = newID()
	m.keys.installation = m.installation
	now := micros(m.config.Clock())
	r, rows, err := m.newKeys(ctx, storage.System, now, vault.PurposeRow, vault.PurposeSeal, vault.PurposeSign)
	if err != nil {
		return err
	}
	defer destroyKeys(r.keys)
	payload, err := json.Marshal(installationPayload{ID: m.installation})
	if err != nil {
		return err
	}
	err = m.update(ctx, storage.System, func(ctx context.Context, tx storage.Tx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		if head.Size > 0 {
			return errConflict
		}
		u := m.firstUnit(storage.System, now, r)
		e := u.event(system, audit.ActionInstallationCreated)
		e.Target = audit.Ref{Kind: audit.KindInstallation, ID: m.installation}
		record := storage.Record{Kind: kindInstallation, ID: installationRecord, Payload: payload, Revision: 1}
		if err := u.putRecord(e, record); err != nil {
			return err
		}
		for _, d := range rows {
			if err := u.putDataKey(e, d); err != nil {
				return err
			}
		}
		for _, w := range u.writes {
			if ok, err := w(ctx, tx); err != nil || !ok {
				return errors.Join(err, errConflict)
			}
		}
		_, err = m.appendEvents(ctx, tx, u, u.events, head, audit.Tree{}, r.signer)
		return err
	})
	if errors.Is(err, errConflict) {
		return errConflict
	}
	return storageError(err)
}

func (m *Manager) firstUnit(organization string, now int64, r *ring) *unit {
	return &unit{state: &state{
		organization: organization, installation: m.installation, now: now, ring: r,
		records: make(map[recordRef]storage.Record),
	}}
}

// newKeys makes and wraps the first data keys of an organization.
func (m *Manager) newKeys(ctx context.Context, organization string, now int64, purposes ...vault.Purpose) (*ring, []storage.DataKey, error) {
	ctx = AnswerBy(ctx, within(ctx, m.config.KeyTimeout)) // for all of them
	keys := make(map[string]*vault.DataKey, len(purposes))
	rows := make([]storage.DataKey, 0, len(purposes))
	var rowKey *vault.DataKey
	for _, p := range purposes {
		key, row, err := m.keys.wrap(ctx, organization, p, now)
		if err != nil {
			destroyKeys(keys)
			return nil, nil, err
		}
		keys[key.ID()] = key
		rows = append(rows, row)
		if p == vault.PurposeRow {
			rowKey = key
		}
	}
	sealer, err := vault.NewRowSealer(rowKey)
	if err != nil {
		destroyKeys(keys)
		return nil, nil, fmt.Errorf("agentkey: row key: %w", err)
	}
	sealed := make([]storage.DataKey, len(rows))
	for i, d := range rows {
		sealed[i] = d
		if sealed[i].Seal, err = sealer.Seal(d.Row(m.installation)); err != nil {
			destroyKeys(keys)
			return nil, nil, fmt.Errorf("agentkey: row key: %w", err)
		}
	}
	r, err := newRing(organization, m.installation, keys, sealed)
	if err != nil {
		destroyKeys(keys)
		return nil, nil, err
	}
	return r, rows, nil
}

// enter counts a call in, unless the Manager is closed.
func (m *Manager) enter() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.calls.Add(1)
	return nil
}

func (m *Manager) leave() { m.calls.Done() }

// Close refuses new calls, waits for those under way until ctx ends, writes the
// refusals counted so far and zeroes the data keys in memory. The storage stays
// open. Closing twice is fine; if the counts could not be written, closing again
// tries again.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		m.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("agentkey: close: %w", ctx.Err())
	}
	err := m.flush(ctx, true) // also what the calls waited for have counted
	m.anchors.flush(ctx)
	m.keys.expire(m.config.Clock(), true)
	return err
}

// Installation is the id of this installation, made with its first New.
func (m *Manager) Installation() string { return m.installation }

// Ready says whether a vend could be decided now: storage takes changes, the keys
// of the installation are at hand, and this node's clock is that of the database.
// It answers within the time that a transaction and a call to the key provider
// may take.
func (m *Manager) Ready(ctx context.Context) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	ctx, cancel := context.WithTimeout(ctx, m.config.KeyTimeout)
	defer cancel()
	r, err := m.keys.acquire(ctx, storage.System, false)
	if err != nil {
		return err
	}
	r.release()
	if p, ok := m.store.(storage.Pinger); ok {
		pinging, cancel := reading(ctx)
		defer cancel()
		if err := p.Ping(pinging); err != nil {
			return storageError(err)
		}
	}
	return m.commit(ctx, &operation{organization: storage.System, decide: func(u *unit) error {
		if u.skewed {
			return ErrClock
		}
		return nil
	}})
}

// who is the actor of an event with what is known of the request.
type who struct {
	actor   audit.Actor
	label   string
	context RequestContext
}

// system is who acts when time passes.
var system = who{actor: audit.Actor{Kind: audit.ActorSystem}}

func (a Actor) who() who { return who{actor: a.audit(), label: a.Label, context: a.Context} }

// duration gives d in microseconds, rounded up: a short limit must not become 0,
// which is none.
func duration(d time.Duration) int64 {
	us := d.Microseconds()
	if d > time.Duration(us)*time.Microsecond {
		us++
	}
	return us
}
