package agentkey

import (
	"context"
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
	if m.refusals.repeat(key, u.now) {
		return
	}
	before := len(u.events)
	record()
	e := u.events[before]
	u.then(func() { m.refusals.add(key, e.Event) })
}

func (r *refusals) repeat(key refusalKey, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts[key]
	if c == nil {
		return false
	}
	c.repeats++
	if c.first == 0 {
		c.first = now
	}
	c.last = now
	return true
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

// put gives back what could not be written, to be tried again.
func (r *refusals) put(key refusalKey, c *refusalCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.counts[key]; have != nil {
		have.repeats += c.repeats
		have.first = c.first
		return
	}
	if len(r.counts) < maxRefusals {
		r.counts[key] = c
	}
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

func (f *failures) add(a netip.Addr, reason string, now int64) {
	address := "other"
	if a.IsValid() {
		a = a.Unmap().WithZone("")
		address = a.String()
		if a.Is6() {
			address = netip.PrefixFrom(a, 64).Masked().String()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[address+" "+reason] == nil && len(f.counts) >= maxFailures {
		address = "other"
	}
	c := f.counts[address+" "+reason]
	if c == nil {
		c = &failureCount{address: address, reason: reason, first: now}
		f.counts[address+" "+reason] = c
	}
	c.count++
	c.last = now
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

func (f *failures) put(cs []*failureCount) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		if have := f.counts[c.address+" "+c.reason]; have != nil {
			have.count += c.count
			have.first = min(have.first, c.first)
			continue
		}
		f.counts[c.address+" "+c.reason] = c
	}
}

// flush writes the counts of minutes that have passed, or all of them.
func (m *Manager) flush(ctx context.Context, all bool) error {
	before := micros(m.config.Clock()) / minute
	if all {
		before += 2
	}
	var failed error
	for key, c := range m.refusals.take(before) {
		if err := m.flushRefusal(ctx, key, c); err != nil {
			m.refusals.put(key, c)
			failed = err
		}
	}
	if taken := m.failures.take(before); len(taken) > 0 {
		if err := m.flushFailures(ctx, taken); err != nil {
			failed = err
		}
	}
	return failed
}

func (m *Manager) flushRefusal(ctx context.Context, key refusalKey, c *refusalCount) error {
	return m.commit(ctx, operation{organization: key.organization, decide: func(u *unit) error {
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
		err := m.commit(ctx, operation{organization: storage.System, decide: func(u *unit) error {
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
