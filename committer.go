package agentkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

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
	// bulk says that decide looks up what it needs by id and goes through no list:
	// the reads of neighbours that say so are made together.
	bulk bool
	// urgent says that it takes access away: it goes before all that does not.
	urgent bool
	// restoring says that it is part of AcceptRestore.
	restoring bool
}

// long says whether the operation may change as many rows as there are. It has a
// transaction of its own, which takes the time that it needs.
func (o *operation) long() bool { return len(o.needs.grantsOf) > 0 || o.needs.catalog }

// maxRuns bounds how often an operation is decided again because data keys or
// rows changed in between.
const maxRuns = 4

// commit decides op under the head, writes its changes and events, and runs what
// follows the commit once that is durable. Operations that wait for the same head
// share a transaction, see queue.
func (m *Manager) commit(ctx context.Context, op *operation) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	// The keys are at hand before the operation queues up: who waits for a provider
	// that is slow or away holds up nobody, and all who do share what it answers.
	keys, err := m.rings(ctx, op.organization, false)
	if err != nil {
		if errors.Is(err, ErrIntegrity) {
			m.reportIntegrity(ctx, op.organization, err)
		}
		return err
	}
	defer keys.release()
	p := &pending{ctx: ctx, op: op, keys: keys}
	if !op.long() {
		p.by = decidedBy(ctx)
	}
	err = m.queues.of(op.organization).submit(p, m.carryOut)
	switch ended := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded) && ended == nil:
		return storageError(err) // it was our own
	case errors.Is(err, context.Canceled) && ended != nil:
		return ended
	}
	if err == nil {
		m.anchors.await(ctx, op.organization)
	}
	return err
}

// rings are the keys that a transaction needs: the organization's own, and those
// that sign heads.
type rings struct{ own, signing *ring }

// rings takes both from memory, or asks the provider, which has the time of one
// call for the two.
func (m *Manager) rings(ctx context.Context, organization string, fresh bool) (*rings, error) {
	if fresh {
		m.keys.forget(storage.System) // the key that signs heads may be another now
	}
	if _, own, _ := m.keys.look(organization, fresh); own != nil {
		if _, signing, _ := m.keys.look(storage.System, false); signing != nil {
			return &rings{own, signing}, nil
		}
		own.release()
	}
	ctx = AnswerBy(ctx, within(ctx, m.config.KeyTimeout))
	own, err := m.keys.acquire(ctx, organization, fresh)
	if err != nil {
		return nil, err
	}
	signing, err := m.keys.acquire(ctx, storage.System, false)
	if err != nil {
		own.release()
		return nil, err
	}
	return &rings{own, signing}, nil
}

func (r *rings) release() {
	r.own.release()
	r.signing.release()
}

// carryOut decides operations of one organization in one transaction, and tells
// each what came of it. If something is wrong with one of them, each gets a
// transaction of its own, so that it fails nobody else. If it is storage that
// fails, all fail together.
func (m *Manager) carryOut(ctx context.Context, c *company) {
	b, err := m.attempt(ctx, c, false)
	ps := c.ps // with those who have joined
	var fault *faultError
	switch {
	case err == nil:
		for _, p := range ps {
			p.err = p.decided
		}
		b.committed()
	case len(ps) > 1 && errors.As(err, &fault) && !away(err):
		for _, p := range ps {
			ctx, cancel := p.bounded()
			p.err = m.alone(ctx, p.op)
			cancel()
		}
	case len(ps) > 1:
		for _, p := range ps {
			p.err = err
		}
	default:
		ps[0].err = m.again(ctx, ps[0].op, err)
	}
}

// away says whether an error is nothing that any one operation could bring about:
// each would meet the same, one waiting time after the other.
func away(err error) bool {
	for _, e := range []error{storage.ErrUnavailable, storage.ErrBusy, storage.ErrClosed, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// alone decides one operation in a transaction of its own, whoever waits.
func (m *Manager) alone(ctx context.Context, op *operation) error {
	return m.again(ctx, op, errConflict)
}

// again decides op until its rows and data keys stay as they are. The error is
// that of its last run.
func (m *Manager) again(ctx context.Context, op *operation, err error) error {
	for range maxRuns {
		if errors.Is(err, ErrIntegrity) {
			m.reportIntegrity(ctx, op.organization, err)
			return err
		}
		if !errors.Is(err, errStale) && !errors.Is(err, errConflict) {
			return err
		}
		p := &pending{ctx: ctx, op: op}
		var b *batch
		if b, err = m.attempt(ctx, &company{ps: []*pending{p}}, errors.Is(err, errStale)); err == nil {
			b.committed()
			return p.decided
		}
	}
	if errors.Is(err, errStale) {
		return fmt.Errorf("%w: data keys keep changing", ErrStorage)
	}
	if errors.Is(err, errConflict) {
		return fmt.Errorf("%w: %w", ErrStorage, errConflict)
	}
	if errors.Is(err, ErrIntegrity) {
		m.reportIntegrity(ctx, op.organization, err)
	}
	return err
}

// batch is the operations of one transaction and what they come to.
type batch struct {
	m        *Manager
	ps       []*pending
	fresh    bool    // the keys were read for this
	units    []*unit // of the operations that stand, in their order
	recorded map[refusalKey]recorded
	next     knownHead
}

// recorded is a refusal that a unit of the batch has recorded.
type recorded struct {
	unit  *unit
	event audit.Event
}

// faultError is what went wrong before storage was asked to commit: nothing of
// the batch stands.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// attempt runs operations once in one transaction. Keys are unwrapped before the
// head is taken, never while it is held. On an error nothing of them stands, or,
// for ErrUnknown, nobody can tell.
func (m *Manager) attempt(ctx context.Context, c *company, fresh bool) (*batch, error) {
	first := c.ps[0]
	organization := first.op.organization
	if m.anchors.closed(first.op) {
		return nil, ErrRolledBack
	}
	keys := first.keys
	if keys == nil || fresh {
		var err error
		if keys, err = m.rings(ctx, organization, fresh); err != nil {
			return nil, err
		}
		defer keys.release()
	}
	var b *batch
	var fault error
	run := func(ctx context.Context, tx storage.Tx) error {
		ps := c.ps
		if c.open {
			ps = c.join()
		}
		b = &batch{m: m, ps: ps, fresh: fresh, recorded: make(map[refusalKey]recorded)}
		fault = b.run(ctx, tx, organization, keys)
		return fault
	}
	var err error
	if first.op.bulk {
		err = storage.UpdateBulk(ctx, m.store, organization, needsOf(c.ps[:neighbours(c.ps)]).query(), run)
	} else {
		err = m.store.Update(ctx, organization, run)
	}
	if err != nil {
		if fault != nil && errors.Is(err, fault) {
			return nil, &faultError{operationError(fault)}
		}
		return nil, storageError(err)
	}
	if b.next.head.Size > 0 {
		m.heads.set(organization, b.next)
		m.anchors.changed(organization)
	}
	return b, nil
}

// committed runs what follows the commit.
func (b *batch) committed() {
	for _, u := range b.units {
		for _, f := range u.committed {
			f()
		}
	}
}

// operationError leaves what an operation decided as it is and maps the rest.
func operationError(err error) error {
	if err == nil || errors.Is(err, errStale) || errors.Is(err, errConflict) || isOwn(err) {
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

// run decides the operations one after another, each on what those before it
// have left, and writes what stands under one signed head.
func (b *batch) run(ctx context.Context, tx storage.Tx, organization string, keys *rings) error {
	head, err := tx.Head(ctx)
	if err != nil {
		return err
	}
	base := state{head: head.Head, organization: organization, installation: b.m.installation, ring: keys.own, batch: b, fresh: b.fresh}
	tree, err := b.m.checkHead(&unit{state: &base}, head)
	if err != nil {
		return err
	}
	clock := micros(b.m.config.Clock())
	base.now = max(clock, head.Time)
	base.skewed = head.Now != 0 && max(clock-head.Now, head.Now-clock) > maxSkew
	for rest := b.ps; len(rest) > 0; {
		n := neighbours(rest)
		if err := b.decide(ctx, tx, &base, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return b.append(ctx, tx, head, tree, keys.signing.signer)
}

// neighbours is how many operations from the first on are read for together.
func neighbours(ps []*pending) int {
	n := 1
	for ps[0].op.bulk && n < len(ps) && ps[n].op.bulk {
		n++
	}
	return n
}

// needsOf is what some operations need together.
func needsOf(ps []*pending) *needs {
	n := &ps[0].op.needs
	if len(ps) > 1 {
		n = n.andOf(ps[1:])
	}
	return n
}

// decide reads what some operations need, lets each decide, and writes what they
// changed, so that the next ones read it.
func (b *batch) decide(ctx context.Context, tx storage.Tx, base *state, ps []*pending) error {
	read := *base
	shared := &unit{state: &read}
	if err := shared.load(ctx, tx, needsOf(ps)); err != nil {
		return err
	}
	for _, p := range ps {
		u := &unit{state: &read}
		if p.decided = operationError(p.op.decide(u)); p.decided != nil {
			if errors.Is(p.decided, errStale) || errors.Is(p.decided, errConflict) || errors.Is(p.decided, ErrIntegrity) || len(ps) > 1 {
				return p.decided // what it has changed already stands in the state of its neighbours
			}
			clear(read.charged)
			maps.DeleteFunc(b.recorded, func(_ refusalKey, r recorded) bool { return r.unit == u })
			continue
		}
		b.units = append(b.units, u)
		if err := u.write(ctx, tx); err != nil {
			return err
		}
	}
	return read.writeWindows(ctx, tx)
}

func (u *unit) write(ctx context.Context, tx storage.Tx) error {
	for _, w := range u.writes {
		ok, err := w(ctx, tx)
		if err != nil {
			return err
		}
		if !ok {
			return errConflict
		}
	}
	if len(u.outbox) == 0 {
		return nil
	}
	return tx.Enqueue(ctx, u.outbox)
}

// append appends the events of all units.
func (b *batch) append(ctx context.Context, tx storage.Tx, head storage.Head, tree audit.Tree, signer *audit.Signer) error {
	var events []*entry
	for _, u := range b.units {
		events = append(events, u.events...)
		if u.lostEpoch > 0 {
			head.Epoch = max(head.Epoch, u.lostEpoch) + 1
		}
	}
	if len(events) == 0 {
		return nil
	}
	var err error
	b.next, err = b.m.appendEvents(ctx, tx, b.units[0], events, head, tree, signer)
	return err
}

// appendChunk is how many events one signed head covers at most.
const appendChunk = 4096

// appendEvents numbers, encodes and hashes events and signs the head.
func (m *Manager) appendEvents(ctx context.Context, tx storage.Tx, u *unit, events []*entry, head storage.Head, tree audit.Tree, signer *audit.Signer) (next knownHead, err error) {
	if head.Size == 0 {
		head.Epoch = 1
	}
	next = knownHead{head: head, tree: tree}
	for part := range slices.Chunk(events, appendChunk) {
		if next, err = m.appendPart(ctx, tx, u, part, next, signer); err != nil {
			return knownHead{}, err
		}
	}
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
		e.appended, e.place = &x, i
		lines[i].Seq, lines[i].Content, lines[i].Leaf = events[i].Seq, x.Contents[i], x.Leaves[i]
	}
	seal, err := u.ring.rows.Seal(storage.HeadRow(u.installation, u.organization, x.Head))
	if err != nil {
		return knownHead{}, fmt.Errorf("agentkey: seal the head: %w", err)
	}
	next := storage.Head{Head: x.Head, Seal: seal, KeptSize: from.head.KeptSize, KeptTime: from.head.KeptTime}
	// The head with the last signature of an old key is what the new one is trusted by.
	rotated := slices.ContainsFunc(part, func(e *entry) bool { return e.Action == audit.ActionLogSigningKeyRotated })
	keep := rotated || x.Head.Size-next.KeptSize >= keepEvents || u.now-next.KeptTime >= keepTime
	if keep {
		next.KeptSize, next.KeptTime = x.Head.Size, u.now
	}
	if err := tx.Append(ctx, storage.Append{Lines: lines, Head: x.Head, Seal: seal, Keep: keep}); err != nil {
		return knownHead{}, err
	}
	return knownHead{head: next, tree: x.Tree, root: x.Root}, nil
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
	p := &pending{ctx: ctx, op: &operation{organization: log, needs: needs{logOnly: true}, decide: func(u *unit) error {
		m.refuse(u, key, func() {
			e := u.event(system, audit.ActionIntegrityFailed)
			e.Outcome, e.Reason, e.Target = audit.OutcomeRefused, ErrIntegrity.Code, target
			if log != organization {
				e.Details = map[string]string{"organization": organization}
			}
		})
		return nil
	}}}
	bounded, cancel := context.WithDeadline(ctx, decidedBy(ctx))
	defer cancel()
	b, err := m.attempt(bounded, &company{ps: []*pending{p}}, false)
	if err != nil {
		m.log.LogAttrs(ctx, slog.LevelError, "integrity failure not recorded", slog.String("organization", organization), slog.Any("error", err))
		return
	}
	b.committed()
}
