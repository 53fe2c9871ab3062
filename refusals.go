package agentkey

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"sync"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

const minute = 60_000_000 // microseconds

// maxRefusals and maxFailures bound what is counted in memory between flushes.
const (
	maxRefusals = 1 << 16
	maxFailures = 1 << 14
)

// refusalKey is what refusals are counted by: the first of a minute is recorded
// in the transaction that decides it, its repeats are counted.
type refusalKey struct {
	organization, subject, tool, reason string
	minute                              int64
}

type refusalCount struct {
	repeats     int64
	first, last int64
	event       audit.Event // what the repeats repeat
}

type refusals struct {
	mu     sync.Mutex
	counts map[refusalKey]*refusalCount
}

// refuse records a refusal with record, unless the same was recorded within this
// minute already: then it is counted. A full table records every one.
func (m *Manager) refuse(u *unit, key refusalKey, record func()) {
	key.minute = u.now / minute
	first, ok := m.refusals.find(key)
	if !ok {
		var earlier recorded // in this transaction
		earlier, ok = u.batch.recorded[key]
		first = earlier.event
	}
	if ok {
		now := u.now
		u.then(func() { m.refusals.repeat(key, first, now) })
		return
	}
	before := len(u.events)
	record()
	e := u.events[before]
	u.batch.recorded[key] = recorded{u, e.Event}
	u.then(func() { m.refusals.add(key, e.Event) })
}

// find gives the event that recorded a refusal in its minute.
func (r *refusals) find(key refusalKey) (audit.Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts[key]
	if c == nil {
		return audit.Event{}, false
	}
	return c.event, true
}

// repeat counts one more refusal after the one that first recorded. A flush may
// have taken the count since it was found; it then begins anew.
func (r *refusals) repeat(key refusalKey, first audit.Event, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts[key]
	if c == nil {
		c = &refusalCount{event: first}
		r.counts[key] = c
	}
	c.repeats++
	if c.first == 0 {
		c.first = now
	}
	c.last = max(c.last, now)
}

func (r *refusals) add(key refusalKey, e audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[key] == nil && len(r.counts) < maxRefusals {
		r.counts[key] = &refusalCount{event: e}
	}
}

// take removes what has ended before the given minute.
func (r *refusals) take(before int64) map[refusalKey]*refusalCount {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := make(map[refusalKey]*refusalCount)
	for key, c := range r.counts {
		if key.minute < before {
			delete(r.counts, key)
			if c.repeats > 0 {
				taken[key] = c
			}
		}
	}
	return taken
}

// put gives back what could not be written, to be tried again. Its place was
// free until it was taken: only a first refusal that is committed adds one.
func (r *refusals) put(key refusalKey, c *refusalCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.counts[key]; have != nil {
		have.repeats += c.repeats
		have.first, have.last = c.first, max(have.last, c.last)
		return
	}
	r.counts[key] = c
}

// failures counts failed authentication by address, an IPv6 address by its /64.
type failures struct {
	mu     sync.Mutex
	counts map[string]*failureCount
}

type failureCount struct {
	address     string
	reason      string
	count       int64
	first, last int64
}

func (c *failureCount) key() string { return c.address + " " + c.reason }

// noAddress is where failures are counted whose address is not known or has no
// place of its own.
const noAddress = "other"

func (f *failures) add(a netip.Addr, reason string, now int64) {
	address := noAddress
	if a.IsValid() {
		a = a.Unmap().WithZone("")
		address = a.String()
		if a.Is6() {
			address = netip.PrefixFrom(a, 64).Masked().String()
		}
	}
	f.put([]*failureCount{{address: address, reason: reason, count: 1, first: now, last: now}})
}

func (f *failures) take(before int64) []*failureCount {
	f.mu.Lock()
	defer f.mu.Unlock()
	var taken []*failureCount
	for key, c := range f.counts {
		if c.first/minute < before {
			delete(f.counts, key)
			taken = append(taken, c)
		}
	}
	return taken
}

// put adds counts. Once there are as many as may be kept, what has no place yet
// is counted under no address: a flood from many addresses fills no memory, also
// not while nothing can be written.
func (f *failures) put(cs []*failureCount) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		if f.counts[c.key()] == nil && len(f.counts) >= maxFailures {
			c.address = noAddress
		}
		have := f.counts[c.key()]
		if have == nil {
			f.counts[c.key()] = c
			continue
		}
		have.count += c.count
		have.first, have.last = min(have.first, c.first), max(have.last, c.last)
	}
}

// flush writes the counts of minutes that have passed, or all of them. It gives
// up on an organization that can't be written to, and on all of them when
// storage is away, lest it wait once for each count.
func (m *Manager) flush(ctx context.Context, all bool) error {
	before := micros(m.config.Clock()) / minute
	if all {
		before = math.MaxInt64
	}
	var failed error
	skip := make(map[string]bool)
	for key, c := range m.refusals.take(before) {
		if skip[key.organization] || errors.Is(failed, ErrStorage) {
			m.refusals.put(key, c)
			continue
		}
		if err := m.flushRefusal(ctx, key, c); err != nil {
			m.refusals.put(key, c)
			skip[key.organization] = true
			failed = errors.Join(failed, err)
		}
	}
	if taken := m.failures.take(before); len(taken) > 0 {
		failed = errors.Join(failed, m.flushFailures(ctx, taken))
	}
	return failed
}

func (m *Manager) flushRefusal(ctx context.Context, key refusalKey, c *refusalCount) error {
	return m.alone(ctx, &operation{organization: key.organization, needs: needs{ended: true}, decide: func(u *unit) error {
		e := u.event(system, c.event.Action)
		actor := c.event.Actor
		e.Actor, e.Outcome, e.Reason, e.Target = actor, c.event.Outcome, c.event.Reason, c.event.Target
		e.Agent, e.Tool, e.Grant, e.Details = c.event.Agent, c.event.Tool, c.event.Grant, c.event.Details
		e.Count, e.Span = c.repeats, max(c.last-c.first, 0)
		return nil
	}})
}

// maxFailureEvents bounds the events of one flush; the rest follow in the next.
const maxFailureEvents = 500

func (m *Manager) flushFailures(ctx context.Context, taken []*failureCount) error {
	for start := 0; start < len(taken); start += maxFailureEvents {
		part := taken[start:min(start+maxFailureEvents, len(taken))]
		err := m.alone(ctx, &operation{organization: storage.System, decide: func(u *unit) error {
			for _, c := range part {
				e := u.event(who{actor: audit.Actor{Kind: audit.ActorUnknown}}, audit.ActionAuthFailed)
				e.Outcome, e.Reason = audit.OutcomeRefused, c.reason
				e.Count, e.Span = c.count, max(c.last-c.first, 0)
				e.personal.Address = c.address
			}
			return nil
		}})
		if err != nil {
			m.failures.put(taken[start:])
			return err
		}
	}
	return nil
}
