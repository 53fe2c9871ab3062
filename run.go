package agentkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Run does the background work until ctx ends: it sweeps at every
// Config.SweepInterval, and replays the logs against the records at the start and
// at every Config.ReconcileInterval. Beside that, and without waiting for the first
// replay, it ships events to the Config.Sinks, carries out rotations of keys, and
// removes what retention lets go at every Config.RetentionInterval. Its start and
// its end are events. Every process has one Run; of several on one database, one at a
// time sweeps, one replays at the intervals, one removes, and one ships to each sink.
func (m *Manager) Run(ctx context.Context) error {
	defer m.anchors.run(ctx)()
	if err := m.recordServer(ctx, audit.ActionServerStarted); err != nil {
		return err
	}
	defer m.beside(ctx)() // before the replay, which reads the whole of every log
	if m.config.ReconcileInterval > 0 {
		m.reconcileAll(ctx)
	}
	sweep := time.NewTicker(m.config.SweepInterval)
	defer sweep.Stop()
	var reconcile <-chan time.Time
	if m.config.ReconcileInterval > 0 {
		ticker := time.NewTicker(m.config.ReconcileInterval)
		defer ticker.Stop()
		reconcile = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storage.UpdateTime)
			defer cancel()
			return m.recordServer(last, audit.ActionServerStopped)
		case <-sweep.C:
			if err := m.sweepTurn(ctx); err != nil && ctx.Err() == nil {
				m.log.LogAttrs(ctx, slog.LevelWarn, "sweep", slog.Any("error", err))
			}
		case <-reconcile:
			m.reconcileTurn(ctx)
		}
	}
}

// beside does what nothing else must wait for, and waits for its end. It ends
// with ctx.
func (m *Manager) beside(ctx context.Context) (wait func()) {
	var all sync.WaitGroup
	for _, s := range m.shippers {
		all.Go(func() { s.run(ctx) })
	}
	all.Go(func() { m.rotateInTurns(ctx) })
	if m.config.RetentionInterval > 0 {
		all.Go(func() { m.retainInTurns(ctx) })
	}
	return all.Wait
}

// pause waits, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// firstRetention is how long after its start a process looks for what retention
// lets go, if its interval is longer.
const firstRetention = time.Minute

func (m *Manager) retainInTurns(ctx context.Context) {
	for wait := min(m.config.RetentionInterval, firstRetention); pause(ctx, wait); wait = m.config.RetentionInterval {
		mine, err := m.turn(ctx, "retention", m.config.RetentionInterval/2)
		if err == nil && mine {
			err = m.Retain(ctx)
		}
		if err != nil && ctx.Err() == nil {
			m.log.LogAttrs(ctx, slog.LevelWarn, "retention", slog.Any("error", err))
		}
	}
}

// sweepTurn sweeps if it is this process's turn. What every process counts and
// holds in its own memory it looks after each time.
func (m *Manager) sweepTurn(ctx context.Context) error {
	if err := m.lookForSigningKey(ctx); err != nil {
		return err
	}
	mine, err := m.turn(ctx, "sweep", 2*m.config.SweepInterval)
	if err != nil || mine {
		return errors.Join(err, m.Sweep(ctx))
	}
	m.keys.expire(m.config.Clock(), false)
	return m.flush(ctx, false)
}

func (m *Manager) reconcileTurn(ctx context.Context) {
	mine, err := m.turn(ctx, "reconcile", m.config.ReconcileInterval/2)
	if err != nil && ctx.Err() == nil {
		m.log.LogAttrs(ctx, slog.LevelWarn, "reconcile", slog.Any("error", err))
	}
	if mine {
		m.conversions.forget()
		m.reconcileAll(ctx)
	}
}

// kindTurn is the kind of record that says whose turn a piece of work is. It
// decides nothing but who takes the trouble, and is no part of the log.
const kindTurn = "turn"

type turnPayload struct {
	Node  string `json:"node"`
	Until int64  `json:"until"`
}

// turn takes or keeps the turn at a piece of work for a time.
func (m *Manager) turn(ctx context.Context, work string, length time.Duration) (mine bool, err error) {
	err = m.update(ctx, storage.System, func(ctx context.Context, tx storage.Tx) error {
		now := micros(m.config.Clock())
		r, ok, err := tx.Record(ctx, kindTurn, work)
		if err != nil {
			return err
		}
		var held turnPayload
		if ok && json.Unmarshal(r.Payload, &held) == nil && held.Node != m.config.Node && now < held.Until {
			mine = false
			return nil
		}
		payload, err := json.Marshal(turnPayload{Node: m.config.Node, Until: now + duration(length)})
		if err != nil {
			return err
		}
		mine, err = tx.PutRecord(ctx, storage.Record{
			Organization: storage.System, Kind: kindTurn, ID: work, Payload: payload, UpdatedAt: now, Revision: r.Revision + 1,
		})
		return err
	})
	return mine, storageError(err)
}

func (m *Manager) recordServer(ctx context.Context, action audit.Action) error {
	err := m.commit(ctx, &operation{organization: storage.System, decide: func(u *unit) error {
		u.event(system, action).Target = audit.Ref{Kind: audit.KindServer, ID: m.config.Node}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("agentkey: %s: %w", action, err)
	}
	return nil
}

func (m *Manager) reconcileAll(ctx context.Context) {
	err := m.eachOrganization(ctx, func(id string) error {
		if _, err := m.reconcile(ctx, id); err != nil && ctx.Err() == nil {
			m.log.LogAttrs(ctx, slog.LevelError, "reconcile", slog.String("organization", id), slog.Any("error", err))
		}
		if err := m.renewTiles(ctx, id); err != nil && ctx.Err() == nil {
			m.log.LogAttrs(ctx, slog.LevelWarn, "tiles of the log", slog.String("organization", id), slog.Any("error", err))
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		m.log.LogAttrs(ctx, slog.LevelError, "reconcile", slog.Any("error", err))
	}
}

// Sweep does one round of background work: it writes what has come to its end,
// opens the requests that accepted suggestions still ask for, removes what went
// with deleted tools, flushes what was counted, delivers notifications that are due, and zeroes data
// keys that were held for their lifetime. Run calls it; a host with a scheduler
// of its own may instead.
func (m *Manager) Sweep(ctx context.Context) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	m.keys.expire(m.config.Clock(), false)
	return errors.Join(m.sweepEnds(ctx), m.sweepConversions(ctx), m.sweepRemovals(ctx), m.flush(ctx, false), m.deliver(ctx))
}

// sweepPage is how many ends one page of a sweep writes.
const sweepPage = 500

func (m *Manager) sweepEnds(ctx context.Context) error {
	for {
		due, err := m.store.Due(ctx, micros(m.config.Clock()), sweepPage)
		if err != nil {
			return storageError(err)
		}
		var failed error
		for _, d := range due {
			if err := m.end(ctx, d); err != nil {
				failed = errors.Join(failed, err)
			}
		}
		if failed != nil || len(due) < sweepPage {
			return failed
		}
	}
}

// end writes that a record has come to its end, if it still has.
func (m *Manager) end(ctx context.Context, d storage.Due) error {
	n := needs{credentials: true, ended: true}
	decide := func(u *unit) error { return nil }
	switch d.Kind {
	case audit.KindGrant:
		n.agents, n.tools, n.pairs = []string{d.Agent}, []string{d.Tool}, []storage.Pair{{Agent: d.Agent, Tool: d.Tool}}
		decide = func(u *unit) error {
			_, err := u.settled(d.Agent, d.Tool)
			return err
		}
	case audit.KindKey:
		n.keys, n.agents = []string{d.ID}, []string{d.Agent}
		decide = func(u *unit) error { return u.endKey(d.ID) }
	case audit.KindCredential:
		n.tools = []string{d.Tool}
		if d.Grant != "" {
			n.grants = []string{d.Grant}
		}
		decide = func(u *unit) error { return u.endCredential(d) }
	}
	return m.commit(ctx, &operation{organization: d.Organization, needs: n, decide: decide})
}

func (u *unit) endKey(id string) error {
	k, ok := u.keys[id]
	if !ok || k.Status != storage.KeyActive || k.ExpiresAt == 0 || u.now < k.ExpiresAt {
		return nil
	}
	e := u.event(system, audit.ActionAgentKeyExpired)
	e.Agent, e.Target = k.Agent, audit.Ref{Kind: audit.KindKey, ID: k.ID}
	e.From, e.To = string(k.Status), string(storage.KeyExpired)
	k.Status = storage.KeyExpired
	k.Revision++
	return u.putKey(e, k)
}

func (u *unit) endCredential(d storage.Due) error {
	c, ok := u.credentials[storage.CredentialRef{Tool: d.Tool, Grant: d.Grant}]
	if !ok || c.Status != storage.CredentialActive || c.ExpiresAt == 0 || u.now < c.ExpiresAt {
		return nil
	}
	e := u.event(system, audit.ActionToolCredentialExpired)
	e.Tool, e.Target = c.Tool, audit.Ref{Kind: audit.KindCredential, ID: c.ID}
	e.From, e.To = string(c.Status), string(storage.CredentialExpired)
	e.personal.ToolLabel = u.tools[c.Tool].Name
	c.Status = storage.CredentialExpired
	c.Revision++
	return u.putCredential(e, c, false)
}

// How deliveries are tried.
const (
	leaseTime  = 60_000_000 // microseconds
	leaseCount = 50
	notifyTime = 30 * time.Second
	firstDelay = 5 * time.Second
	maxDelay   = time.Hour
)

func (m *Manager) deliver(ctx context.Context) error {
	if m.config.Notifier == nil {
		return nil
	}
	now := micros(m.config.Clock())
	leased, err := m.store.Lease(ctx, storage.LeaseQuery{Now: now, Until: now + leaseTime, Node: m.config.Node, Limit: leaseCount})
	if err != nil {
		return storageError(err)
	}
	var failed error
	for _, d := range leased {
		if micros(m.config.Clock()) >= now+leaseTime {
			break // the lease is over; whoever leases it next delivers it
		}
		if err := m.deliverOne(ctx, d); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (m *Manager) deliverOne(ctx context.Context, d storage.Delivery) error {
	n, err := m.openDelivery(ctx, d)
	if errors.Is(err, ErrIntegrity) || errors.Is(err, errOutlived) {
		if !errors.Is(err, errOutlived) {
			m.reportIntegrity(ctx, d.Organization, err)
		}
		d.Attempts = int64(m.config.MaxAttempts) // nobody is told what nobody said
	} else if err != nil {
		return err
	} else {
		limited, cancel := context.WithTimeout(ctx, notifyTime)
		err = m.config.Notifier.Notify(limited, n)
		cancel()
	}
	s := storage.Settlement{ID: d.ID, LeaseUntil: d.LeaseUntil, LeaseNode: d.LeaseNode, Done: err == nil}
	action := audit.ActionNotificationSent
	if err != nil {
		// The error's text may hold the address it failed to reach, which may be a secret.
		s.LastError = cut(fmt.Sprintf("%T", err), 200)
		s.State, s.NextAt = storage.DeliveryPending, micros(m.config.Clock())+duration(delay(d.Attempts))
		action = audit.ActionNotificationFailed
		if d.Attempts >= int64(m.config.MaxAttempts) {
			s.State, action = storage.DeliveryDead, audit.ActionNotificationDead
		}
	}
	return m.settleDelivery(ctx, d, n, s, action)
}

// deliveryRow is what the seal of a notification covers. The seal stands before
// the payload, in the same column.
func deliveryRow(installation, organization, id string, payload []byte) vault.Row {
	var c vault.Columns
	c.Bytes("payload", payload)
	return vault.Row{
		Installation: installation, Organization: organization,
		Kind: audit.KindNotification, Record: id, Revision: 1, Columns: c,
	}
}

// errOutlived says that a notification waited for longer than the key that sealed
// it was kept: nobody can tell any more whether it is genuine.
var errOutlived = errors.New("agentkey: notification is older than its row key")

// openDelivery reads a notification whose seal says that it was written here.
func (m *Manager) openDelivery(ctx context.Context, d storage.Delivery) (n Notification, err error) {
	r, err := m.keys.acquire(ctx, d.Organization, false)
	if err != nil {
		return n, err
	}
	defer r.release()
	damaged := &integrityError{kind: audit.KindNotification, id: d.ID}
	if len(d.Payload) < vault.RowSealSize {
		return n, damaged
	}
	seal, payload := d.Payload[:vault.RowSealSize], d.Payload[vault.RowSealSize:]
	if id, err := vault.RowSealKeyID(seal); err == nil && r.gone[id] {
		return n, errOutlived
	}
	if r.rows.Verify(deliveryRow(m.installation, d.Organization, d.ID, payload), seal) != nil || json.Unmarshal(payload, &n) != nil {
		return n, damaged
	}
	return n, nil
}

// delay grows with every attempt and is spread by a fifth either way.
func delay(attempts int64) time.Duration {
	d := min(firstDelay<<min(max(attempts-1, 0), 20), maxDelay)
	return d*4/5 + rand.N(d*2/5)
}

func (m *Manager) settleDelivery(ctx context.Context, d storage.Delivery, n Notification, s storage.Settlement, action audit.Action) error {
	return m.commit(ctx, &operation{organization: d.Organization, needs: needs{ended: true}, decide: func(u *unit) error {
		u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
			_, err := tx.Settle(ctx, s) // a lease that was lost is somebody else's to settle
			return true, err
		})
		if action == audit.ActionNotificationFailed && d.Attempts > 1 {
			return nil // the first failure and the last are events
		}
		e := u.event(system, action)
		e.Target = audit.Ref{Kind: audit.KindNotification, ID: d.ID}
		e.Agent, e.Tool = n.Agent, n.Tool
		e.Details = map[string]string{"topic": d.Topic}
		if n.Request != "" {
			e.Details["request"] = n.Request
		}
		if n.Suggestion != "" {
			e.Details["suggestion"] = n.Suggestion
		}
		if action != audit.ActionNotificationSent {
			e.Outcome, e.Reason = audit.OutcomeFailed, "not_delivered"
		}
		return nil
	}})
}
