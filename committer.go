package agentkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// operation is one thing to be decided under an organization's head. decide is
// pure: it works on what the unit has read, may run more than once, and leaves
// its answer where its maker finds it. An error of decide undoes the operation;
// a refusal that is to be recorded is an event of the unit and no error.
type operation struct {
	organization string
	needs        needs
	decide       func(u *unit) error
}

// maxRuns bounds how often an operation is decided again because data keys or
// rows changed in between.
const maxRuns = 4

// heads remembers the heads that this process wrote last. Such a head is
// extended without checking its signature again, as long as it is still there
// as it was written.
type heads struct {
	mu   sync.Mutex
	last map[string]knownHead
}

type knownHead struct {
	head storage.Head
	tree audit.Tree
}

func (h *heads) get(organization string) (knownHead, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k, ok := h.last[organization]
	return k, ok
}

func (h *heads) set(organization string, k knownHead) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[organization] = k
}

// commit decides op under the head, writes its changes and events in one
// transaction, and runs what follows the commit once that is durable.
func (m *Manager) commit(ctx context.Context, op operation) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	return m.carryOut(ctx, op)
}

// carryOut is commit for those who are counted in already, and for Close.
func (m *Manager) carryOut(ctx context.Context, op operation) error {
	fresh := false
	for range maxRuns {
		u, err := m.attempt(ctx, op, fresh)
		if err == nil {
			for _, f := range u.committed {
				f()
			}
			return nil
		}
		if errors.Is(err, ErrIntegrity) {
			m.reportIntegrity(ctx, op.organization, err)
			return err
		}
		if !errors.Is(err, errStale) && !errors.Is(err, errConflict) {
			return err
		}
		fresh = errors.Is(err, errStale)
	}
	if fresh {
		return fmt.Errorf("%w: data keys keep changing", ErrStorage)
	}
	return fmt.Errorf("%w: %w", ErrStorage, errConflict)
}

// attempt runs op once in a transaction of its own. Keys are unwrapped before
// the head is taken, never while it is held.
func (m *Manager) attempt(ctx context.Context, op operation, fresh bool) (*unit, error) {
	r, err := m.keys.acquire(ctx, op.organization, fresh)
	if err != nil {
		return nil, err
	}
	defer r.release()
	signing, err := m.keys.acquire(ctx, storage.System, false)
	if err != nil {
		return nil, err
	}
	defer signing.release()

	var u *unit
	var next knownHead
	var fault error // what went wrong before storage was asked to commit
	err = m.store.Update(ctx, op.organization, func(ctx context.Context, tx storage.Tx) error {
		u, next = &unit{organization: op.organization, installation: m.installation, ring: r}, knownHead{}
		fault = m.decide(ctx, tx, u, op, signing.signer, &next)
		return fault
	})
	if err != nil {
		if fault != nil && errors.Is(err, fault) {
			return nil, operationError(fault)
		}
		return nil, storageError(err)
	}
	if next.head.Size > 0 {
		m.heads.set(op.organization, next)
	}
	return u, nil
}

// operationError leaves what an operation decided as it is and maps the rest.
func operationError(err error) error {
	if errors.Is(err, errStale) || errors.Is(err, errConflict) || isOwn(err) {
		return err
	}
	return storageError(err)
}

// isOwn says whether err belongs to one of the families.
func isOwn(err error) bool {
	for _, family := range []error{
		ErrUnauthenticated, ErrRefused, ErrForbidden, ErrNotFound, ErrConflict, ErrInvalid, ErrLimited, ErrUnavailable,
	} {
		if errors.Is(err, family) {
			return true
		}
	}
	return false
}

func (m *Manager) decide(ctx context.Context, tx storage.Tx, u *unit, op operation, signer *audit.Signer, next *knownHead) error {
	head, err := tx.Head(ctx)
	if err != nil {
		return err
	}
	tree, err := m.checkHead(u, head)
	if err != nil {
		return err
	}
	clock := micros(m.config.Clock())
	u.now = max(clock, head.Time)
	u.skewed = head.Now != 0 && max(clock-head.Now, head.Now-clock) > maxSkew
	if err := u.load(ctx, tx, op.needs); err != nil {
		return err
	}
	if err := op.decide(u); err != nil {
		return err
	}
	for _, w := range u.writes {
		ok, err := w(ctx, tx)
		if err != nil {
			return err
		}
		if !ok {
			return errConflict
		}
	}
	if len(u.outbox) > 0 {
		if err := tx.Enqueue(ctx, u.outbox); err != nil {
			return err
		}
	}
	if len(u.events) == 0 {
		return nil
	}
	*next, err = m.appendEvents(ctx, tx, u, head, tree, signer)
	return err
}

// checkHead proves a head that this process did not write last. A log is never
// shorter than this process left it, nor another one of the same length.
func (m *Manager) checkHead(u *unit, head storage.Head) (audit.Tree, error) {
	known, ok := m.heads.get(u.organization)
	switch {
	case ok && sameHead(known.head, head):
		return known.tree, nil
	case ok && head.Epoch <= known.head.Epoch && head.Size <= known.head.Size:
		return audit.Tree{}, &headError{organization: u.organization}
	}
	return m.checkStoredHead(u, head)
}

// checkStoredHead proves a head by its signature and its seal. Every log whose
// organization has data keys has begun: they were made in its first transaction.
func (m *Manager) checkStoredHead(u *unit, head storage.Head) (audit.Tree, error) {
	damaged := &headError{organization: u.organization}
	if head.Size == 0 {
		return audit.Tree{}, damaged
	}
	tree, err := audit.CheckHead(head.Head, u.installation, u.organization, m.verifiers())
	if err != nil {
		return audit.Tree{}, damaged
	}
	if err := u.ring.rows.Verify(storage.HeadRow(u.installation, u.organization, head.Head), head.Seal); err != nil {
		return audit.Tree{}, damaged
	}
	return tree, nil
}

func sameHead(a, b storage.Head) bool {
	return a.Epoch == b.Epoch && a.Size == b.Size && a.Time == b.Time &&
		string(a.Edge) == string(b.Edge) && string(a.Signed) == string(b.Signed) && string(a.Seal) == string(b.Seal)
}

// headError says that the head of a log is not what was signed. Nothing can be
// appended to such a log, not even that. It is an ErrIntegrity.
type headError struct{ organization string }

func (e *headError) Error() string { return ErrIntegrity.Error() + ": head of the log" }
func (e *headError) Unwrap() error { return ErrIntegrity }

// appendChunk is how many events one signed head covers at most.
const appendChunk = 4096

// appendEvents numbers, encodes and hashes the unit's events and signs the head.
func (m *Manager) appendEvents(ctx context.Context, tx storage.Tx, u *unit, head storage.Head, tree audit.Tree, signer *audit.Signer) (next knownHead, err error) {
	if head.Size == 0 {
		head.Epoch = 1
	}
	next = knownHead{head: head, tree: tree}
	for part := range slices.Chunk(u.events, appendChunk) {
		if next, err = m.appendPart(ctx, tx, u, part, next, signer); err != nil {
			return knownHead{}, err
		}
	}
	u.signed = next.head.Signed
	return next, nil
}

func (m *Manager) appendPart(ctx context.Context, tx storage.Tx, u *unit, part []*entry, from knownHead, signer *audit.Signer) (knownHead, error) {
	events := make([]audit.Event, len(part))
	lines := make([]audit.Line, len(part))
	for i, e := range part {
		e.Seq, e.Node, e.Software = from.head.Size+int64(i), m.config.Node, software
		if !e.personal.IsZero() {
			e.personal.Salt = audit.NewSalt()
			personal, err := e.personal.Encode()
			if err != nil {
				return knownHead{}, fmt.Errorf("agentkey: personal part: %w", err)
			}
			lines[i].Personal, e.Event.Personal = personal, audit.HashPersonal(personal)
		}
		events[i] = e.Event
	}
	x, err := audit.Extend(from.head.Head, from.tree, events, signer)
	if err != nil {
		return knownHead{}, fmt.Errorf("agentkey: extend the log: %w", err)
	}
	for i, e := range part {
		e.leaf = x.Leaves[i]
		lines[i].Seq, lines[i].Content, lines[i].Leaf = events[i].Seq, x.Contents[i], x.Leaves[i]
	}
	seal, err := u.ring.rows.Seal(storage.HeadRow(u.installation, u.organization, x.Head))
	if err != nil {
		return knownHead{}, fmt.Errorf("agentkey: seal the head: %w", err)
	}
	next := storage.Head{Head: x.Head, Seal: seal, KeptSize: from.head.KeptSize, KeptTime: from.head.KeptTime}
	keep := x.Head.Size-next.KeptSize >= keepEvents || u.now-next.KeptTime >= keepTime
	if keep {
		next.KeptSize, next.KeptTime = x.Head.Size, u.now
	}
	if err := tx.Append(ctx, storage.Append{Lines: lines, Head: x.Head, Seal: seal, Keep: keep}); err != nil {
		return knownHead{}, err
	}
	return knownHead{head: next, tree: x.Tree}, nil
}

// maxSkew is how far a node's clock may be from the database's, where that has one.
const maxSkew = 5_000_000

// Heads are kept at least this often, if anything happens.
const (
	keepEvents = 256
	keepTime   = 60_000_000
)

const software = "agentkey/" + Version

// reportIntegrity records that a row or a head is not what was written. Repeats
// within a minute are counted. Where the organization's own log can't be
// written, because its head or its data keys are what was changed, it goes to the
// reserved one's.
func (m *Manager) reportIntegrity(ctx context.Context, organization string, cause error) {
	target := audit.Ref{Kind: audit.KindLog, ID: organization}
	log := storage.System
	if damaged := (*integrityError)(nil); errors.As(cause, &damaged) {
		target = audit.Ref{Kind: damaged.kind, ID: damaged.id}
		if damaged.kind != audit.KindDataKey {
			log = organization
		}
	}
	m.log.LogAttrs(ctx, slog.LevelError, "integrity failure", slog.String("organization", organization),
		slog.String("kind", target.Kind), slog.String("id", target.ID))
	key := refusalKey{organization: log, subject: organization + "/" + target.Kind + "/" + target.ID, reason: ErrIntegrity.Code}
	u, err := m.attempt(ctx, operation{organization: log, needs: needs{logOnly: true}, decide: func(u *unit) error {
		m.refuse(u, key, func() {
			e := u.event(system, audit.ActionIntegrityFailed)
			e.Outcome, e.Reason, e.Target = audit.OutcomeRefused, ErrIntegrity.Code, target
			if log != organization {
				e.Details = map[string]string{"organization": organization}
			}
		})
		return nil
	}}, false)
	if err != nil {
		m.log.LogAttrs(ctx, slog.LevelError, "integrity failure not recorded", slog.String("organization", organization), slog.Any("error", err))
		return
	}
	for _, f := range u.committed {
		f()
	}
}
