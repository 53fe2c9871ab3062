package agentkey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// How heads are brought to anchors.
const (
	anchorEvery   = 500 * time.Millisecond // Run looks for new heads
	anchorTime    = 10 * time.Second       // one head may take
	anchorStart   = time.Minute            // all logs may take when a process starts
	anchorDelay   = time.Minute            // the longest wait after a failure
	anchorWorkers = 8                      // heads on their way to one anchor at a time
	anchorPart    = 4 * anchorWorkers      // logs that are looked at before those with new heads come again
)

// anchoring brings heads to the anchors of this process, and knows what they have.
type anchoring struct {
	m      *Manager
	all    []*anchored
	halted atomic.Bool // a log went back: nothing is decided any more

	vouched atomic.Pointer[audit.Verifiers] // also whose signatures AcceptRestore was told to believe
}

// verifiers are whose signatures count for what is kept.
func (g *anchoring) verifiers() *audit.Verifiers {
	if v := g.vouched.Load(); v != nil {
		return v
	}
	return g.m.verifiers()
}

// anchored is one anchor with what this process knows of it.
type anchored struct {
	Anchor
	m *Manager

	mu      sync.Mutex
	dirty   map[string]bool          // logs to be looked at; true: this process knows of a new head
	busy    map[string]chan struct{} // logs whose head is on its way
	kept    map[string]*keptHead
	covered int64 // time of the reserved log's last event that is kept
	at      int64 // when it last took a head
	failing error // of the last attempt, nil when it succeeded
	fails   int
	skip    int // so many rounds, after failures
}

type keptHead struct {
	audit.Checkpoint
	signed, edge []byte
}

func newAnchoring(m *Manager, anchors []Anchor) *anchoring {
	g := &anchoring{m: m}
	for _, a := range anchors {
		g.all = append(g.all, &anchored{
			Anchor: a, m: m, dirty: make(map[string]bool), busy: make(map[string]chan struct{}), kept: make(map[string]*keptHead),
		})
	}
	return g
}

// changed tells the anchors that a log has a new head. It is called after every
// commit, and does next to nothing.
func (g *anchoring) changed(organization string) {
	for _, a := range g.all {
		a.mark(organization, true)
	}
}

// halt ends all deciding: two histories must not both go on.
func (g *anchoring) halt(ctx context.Context, a *anchored, organization string) {
	if !g.halted.Swap(true) {
		g.m.log.LogAttrs(ctx, slog.LevelError, "the database does not continue a head that is kept elsewhere: nothing is decided from here on",
			slog.String("anchor", a.Name()), slog.String("organization", organization))
	}
}

// take waits until no head of the log is on its way to the anchor, and takes its
// turn.
func (a *anchored) take(ctx context.Context, organization string) error {
	for {
		a.mu.Lock()
		other, ok := a.busy[organization]
		if !ok {
			a.busy[organization] = make(chan struct{})
			delete(a.dirty, organization) // what is committed from here on makes it so again
			a.mu.Unlock()
			return nil
		}
		a.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *anchored) release(organization string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.busy[organization])
	delete(a.busy, organization)
	if err != nil {
		a.dirty[organization] = true
	}
}

// keep brings the log's present head to the anchor. fresh says that nothing need be
// kept of it yet.
func (a *anchored) keep(ctx context.Context, organization string, fresh bool) (err error) {
	if err := a.take(ctx, organization); err != nil {
		return err
	}
	defer func() { a.release(organization, err) }()
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	if organization == storage.System && !fresh {
		if err := a.others(ctx); err != nil {
			return err
		}
	}
	var before *AnchorHead
	for {
		h, err := a.offer(ctx, organization, fresh)
		if !errors.Is(err, ErrRolledBack) {
			return err
		}
		// Another process may have committed and anchored since the head was read.
		if before != nil && string(before.Signed) == string(h.Signed) {
			a.m.anchors.halt(ctx, a, organization)
			return err
		}
		before = h
	}
}

// offer reads the head and hands it to the anchor, unless that has it.
func (a *anchored) offer(ctx context.Context, organization string, fresh bool) (*AnchorHead, error) {
	a.mu.Lock()
	memory, covered := a.kept[organization], a.covered
	a.mu.Unlock()
	h, err := a.m.anchorHead(ctx, organization, memory)
	if err != nil {
		return h, err
	}
	h.covered, h.fresh = covered, fresh
	took := memory == nil || string(memory.signed) != string(h.Signed)
	if took {
		if memory != nil { // whatever the anchor says: this process knows what it kept
			if err := h.follows(ctx, memory.Checkpoint); err != nil {
				return h, err
			}
		}
		if err := a.Keep(ctx, h); err != nil {
			return h, err
		}
		memory = &keptHead{h.Checkpoint, h.Signed, h.edge}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept[organization] = memory
	if took {
		a.at = micros(a.m.config.Clock())
	}
	if organization == storage.System {
		a.covered = max(a.covered, h.at)
	}
	return h, nil
}

// others keeps a head of every log of which this process has kept none. It comes
// before the reserved log's, which says up to when all logs are kept: one that is
// missing and began before that was lost.
func (a *anchored) others(ctx context.Context) error {
	return a.m.eachOrganization(ctx, func(id string) error {
		a.mu.Lock()
		_, ok := a.kept[id]
		a.mu.Unlock()
		if ok || id == storage.System {
			return nil
		}
		return a.passable(a.keep(ctx, id, false))
	})
}

// passable leaves out what concerns one log alone: a head that is not what was
// signed is refused and recorded where it is used.
func (a *anchored) passable(err error) error {
	if errors.Is(err, ErrIntegrity) {
		return nil
	}
	return err
}

// everyOne keeps the heads of these logs, several at a time, the reserved one's last,
// and answers what went wrong with each that failed.
func (a *anchored) everyOne(ctx context.Context, organizations []string, fresh bool) map[string]error {
	failed := make(map[string]error)
	var mu sync.Mutex
	var all sync.WaitGroup
	next := make(chan string)
	work := func() {
		for id := range next {
			if err := a.keep(ctx, id, fresh); err != nil {
				mu.Lock()
				failed[id] = err
				mu.Unlock()
			}
		}
	}
	for range min(anchorWorkers, len(organizations)) {
		all.Go(work)
	}
	last := false
	for _, id := range organizations {
		if id == storage.System {
			last = true
			continue
		}
		next <- id
	}
	close(next)
	all.Wait()
	if last {
		if err := a.keep(ctx, storage.System, fresh); err != nil {
			failed[storage.System] = err
		}
	}
	return failed
}

// round keeps what is to be kept: new heads first, and then, for as long as is left
// of its time, those that were only to be looked at. It says when something failed first and
// when all is well again, and waits longer after each failure.
func (a *anchored) round(ctx context.Context) {
	a.mu.Lock()
	a.skip--
	waits := a.skip > 0
	a.mu.Unlock()
	turn, cancel := context.WithTimeout(ctx, anchorEvery)
	defer cancel()
	ids := append(a.due(true), a.due(false)...)
	for !waits && len(ids) > 0 && !a.m.anchors.halted.Load() && a.part(ctx, ids) && turn.Err() == nil {
		ids = a.due(false)
	}
}

// due are the logs with new heads, or a part of those that are to be looked at.
func (a *anchored) due(fresh bool) (ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, new := range a.dirty {
		if new == fresh && (fresh || len(ids) < anchorPart) {
			ids = append(ids, id)
		}
	}
	return ids
}

// part keeps the heads of some logs, and says whether all is well.
func (a *anchored) part(ctx context.Context, ids []string) bool {
	failed := a.everyOne(ctx, ids, false)
	if ctx.Err() != nil {
		return false
	}
	for id, err := range failed {
		if a.passable(err) == nil {
			a.m.log.LogAttrs(ctx, slog.LevelError, "head not kept elsewhere", slog.String("anchor", a.Name()), slog.String("organization", id), slog.Any("error", err))
			a.forget(id)
			delete(failed, id)
		}
	}
	a.settle(ctx, failed)
	return len(failed) == 0
}

// settle notes how a round went.
func (a *anchored) settle(ctx context.Context, failed map[string]error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(failed) == 0 {
		if a.fails > 0 {
			a.m.log.LogAttrs(ctx, slog.LevelInfo, "heads are kept elsewhere again", slog.String("anchor", a.Name()))
		}
		a.fails, a.skip, a.failing = 0, 0, nil
		return
	}
	var id string
	for id, a.failing = range failed {
		break
	}
	a.skip = min(1<<min(a.fails, 10), int(anchorDelay/anchorEvery))
	if a.fails++; a.fails == 1 || a.fails%10 == 0 {
		a.m.log.LogAttrs(ctx, slog.LevelWarn, "heads are not kept elsewhere", slog.String("anchor", a.Name()),
			slog.Int("logs", len(failed)), slog.String("organization", id), slog.Any("error", a.failing))
	}
}

// run keeps heads until ctx ends, and at every Config.AnchorInterval looks at every
// log, for those that other processes extend too.
func (a *anchored) run(ctx context.Context) {
	sweep, round := time.NewTicker(a.m.config.AnchorInterval), time.NewTicker(anchorEvery)
	defer sweep.Stop()
	defer round.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			if err := a.m.eachOrganization(ctx, func(id string) error { a.mark(id, false); return nil }); err != nil && ctx.Err() == nil {
				a.m.log.LogAttrs(ctx, slog.LevelWarn, "look for heads to keep elsewhere", slog.Any("error", err))
			}
		case <-round.C:
			a.round(ctx)
		}
	}
}

// run keeps heads until stop is called, which waits for those on their way.
func (g *anchoring) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, a := range g.all {
		all.Go(func() { a.run(ctx) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// closed says whether an operation must not be decided, since the database was put
// back.
func (g *anchoring) closed(op *operation) bool {
	return (g.halted.Load() || g.m.config.Restoring) && !op.restoring
}

// mark says that a log's head is to be looked at, or known to be a new one.
func (a *anchored) mark(organization string, fresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dirty[organization] = a.dirty[organization] || fresh
}

// forget leaves a log alone until there is something new of it, or its turn comes.
func (a *anchored) forget(organization string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.dirty, organization)
}

// flush keeps what was committed and not yet kept, when a process ends.
func (g *anchoring) flush(ctx context.Context) {
	var all sync.WaitGroup
	for _, a := range g.all {
		a.mu.Lock()
		ids := slices.Collect(maps.Keys(a.dirty))
		a.mu.Unlock()
		if len(ids) > 0 && !g.halted.Load() {
			all.Go(func() { a.everyOne(ctx, ids, false) })
		}
	}
	all.Wait()
}

// awaited is where a context holds what AwaitAnchors was given.
type awaited struct{}

type awaiting struct {
	within time.Duration
	report func(anchored bool)
}

// AwaitAnchors returns a context in which a change that the Manager commits also waits,
// for so long at most, until every anchor has a head that covers it: for revocations,
// which an older copy of the database would undo. report is called before the call
// returns; false says that the change stands, and that not every anchor has it yet.
// It is not called when nothing was changed, or when there are no anchors.
func AwaitAnchors(ctx context.Context, within time.Duration, report func(anchored bool)) context.Context {
	return context.WithValue(ctx, awaited{}, awaiting{within, report})
}

// await waits for the anchors where ctx asks for it.
func (g *anchoring) await(ctx context.Context, organization string) {
	if len(g.all) == 0 {
		return
	}
	w, ok := ctx.Value(awaited{}).(awaiting)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.within)
	defer cancel()
	var missed atomic.Bool
	var all sync.WaitGroup
	for _, a := range g.all {
		all.Go(func() {
			if a.keep(ctx, organization, false) != nil {
				missed.Store(true)
			}
		})
	}
	all.Wait()
	w.report(!missed.Load())
}

// check compares every log with every anchor, when a Manager is made. A log that an
// anchor does not know, or that went back, is an error that names it. An anchor that
// is away is asked again by Run.
func (g *anchoring) check(ctx context.Context) error {
	if len(g.all) == 0 || g.m.config.Restoring {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, anchorStart)
	defer cancel()
	var ids []string
	err := g.m.eachOrganization(ctx, func(id string) error { ids = append(ids, id); return nil })
	if err != nil {
		return err
	}
	errs := make([]error, len(g.all))
	var all sync.WaitGroup
	for i, a := range g.all {
		all.Go(func() { errs[i] = a.check(ctx, ids) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (a *anchored) check(ctx context.Context, ids []string) error {
	// Where nobody has begun anything there is nothing to lose.
	fresh := a.m.config.InitAnchors || len(ids) < 2
	k, missing, err := a.look(ctx, storage.System)
	switch {
	case err == nil && missing && !fresh:
		return a.refused(map[string]error{storage.System: ErrAnchorMissing})
	case err == nil && !missing:
		size := min(k.Size, a.m.sizeOf(ctx))
		if a.covered, err = a.m.eventTime(ctx, storage.System, max(size-1, 0)); err != nil {
			return err
		}
	case a.fatal(err):
		return a.refused(map[string]error{storage.System: err})
	}
	failed := a.everyOne(ctx, ids, fresh)
	if refused := maps.Collect(filter(failed, a.fatal)); len(refused) > 0 {
		return a.refused(refused)
	}
	if ctx.Err() == nil || len(failed) > 0 {
		a.settle(ctx, failed)
	}
	return nil
}

func filter(all map[string]error, keep func(error) bool) func(yield func(string, error) bool) {
	return func(yield func(string, error) bool) {
		for id, err := range all {
			if keep(err) && !yield(id, err) {
				return
			}
		}
	}
}

// fatal says whether a process must not start with this.
func (a *anchored) fatal(err error) bool {
	return errors.Is(err, ErrRolledBack) || errors.Is(err, ErrAnchorMissing) || errors.Is(err, ErrAnchorDamaged)
}

// refusedNamed is how many logs an error names.
const refusedNamed = 5

// refused is the error of a start that must not be. It names logs, and each error of
// theirs once.
func (a *anchored) refused(failed map[string]error) error {
	ids := slices.Sorted(maps.Keys(failed))
	named := strings.Join(ids[:min(len(ids), refusedNamed)], ", ")
	if len(ids) > refusedNamed {
		named += fmt.Sprintf(" and %d more", len(ids)-refusedNamed)
	}
	worst := failed[ids[0]]
	for _, err := range failed {
		if errors.Is(err, ErrRolledBack) {
			worst = err
		}
	}
	return fmt.Errorf("agentkey: anchor %s: log of %s: %w", a.Name(), named, worst)
}

// sizeOf is the size of the reserved log.
func (m *Manager) sizeOf(ctx context.Context) int64 {
	h, err := m.anchorHead(ctx, storage.System, nil)
	if err != nil {
		return 0
	}
	return h.Size
}

// look asks what the anchor has of a log, and changes nothing.
func (a *anchored) look(ctx context.Context, organization string) (k lost, missing bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	h, err := a.m.anchorHead(ctx, organization, nil)
	if err != nil {
		return k, false, err
	}
	h.survey = func(found lost) { k = found }
	err = a.Keep(ctx, h)
	if errors.Is(err, errSurveyed) || errors.Is(err, ErrRolledBack) {
		err = nil
	}
	return k, h.missing, err
}
