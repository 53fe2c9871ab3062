package ratelimit

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// Memory is the Limiter of a single process. Each tier has its own lock and
// its own room for subjects, so that strangers who fill the tier before
// authentication cannot crowd out agents. It starts no goroutine: subjects
// that have become idle are dropped by later calls.
type Memory struct {
	tiers map[Tier]*memoryTier
}

var _ Limiter = (*Memory)(nil)

// NewMemory returns a limiter with these policies, which keeps at most
// maxSubjects subjects in each tier. A subject takes about 200 bytes and 8 to
// 16 for each call admitted within the window. The error is that of
// Policies.Validate, or says that maxSubjects is not positive.
func NewMemory(p Policies, maxSubjects int) (*Memory, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if maxSubjects < 1 {
		return nil, errors.New("ratelimit: the number of subjects must be positive")
	}
	m := &Memory{tiers: make(map[Tier]*memoryTier, len(p))}
	for tier, policy := range p {
		m.tiers[tier] = &memoryTier{policy: policy, max: maxSubjects, subjects: map[string]*list.Element{}, order: list.New()}
	}
	return m, nil
}

// Take decides and counts one call. Errors: ErrTier, ErrSubject, ErrFull, and
// the context's own. A tier that is off admits every call, also without a
// subject.
func (m *Memory) Take(ctx context.Context, tier Tier, subject string, now int64) (Decision, error) {
	if err := ctx.Err(); err != nil {
		return Decision{}, err
	}
	t := m.tiers[tier]
	if t == nil {
		return Decision{}, ErrTier
	}
	if t.policy.Off() {
		_, d := Admit(nil, t.policy, now)
		return d, nil
	}
	if subject == "" || len(subject) > MaxSubject {
		return Decision{}, ErrSubject
	}
	return t.take(subject, now)
}

// memoryTier is one tier's windows. A subject is there because a call of its
// was admitted; order holds them by their last admitted call, oldest first.
// Time never goes back within a tier, so the first one is always the next to
// become idle.
type memoryTier struct {
	policy Policy
	max    int

	mu       sync.Mutex
	latest   int64
	subjects map[string]*list.Element // of *memorySubject
	order    *list.List
}

type memorySubject struct {
	name  string
	times []int64 // never empty
}

func (t *memoryTier) take(subject string, now int64) (Decision, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest = max(t.latest, now)
	t.dropIdle()
	e := t.subjects[subject]
	if e == nil {
		return t.first(subject, now)
	}
	s := e.Value.(*memorySubject)
	times, d := t.admit(s.times, now)
	s.times = times
	if d.Allowed {
		t.order.MoveToBack(e)
	}
	return d, nil
}

// first decides the only known call of a subject.
func (t *memoryTier) first(subject string, now int64) (Decision, error) {
	if len(t.subjects) >= t.max {
		return Decision{}, ErrFull
	}
	times, d := t.admit(nil, now)
	t.subjects[subject] = t.order.PushBack(&memorySubject{name: subject, times: times})
	return d, nil
}

// admit decides at the latest time seen, but tells the caller how long to wait
// by the caller's own clock.
func (t *memoryTier) admit(times []int64, now int64) ([]int64, Decision) {
	times, d := Admit(times, t.policy, t.latest)
	if !d.Allowed {
		d.RetryAfter = wait(now, d.Reset)
	}
	return times, d
}

// dropIdle drops up to two subjects without a live call: more than a call can
// add, so that idle ones never pile up, and few enough to cost each call the
// same.
func (t *memoryTier) dropIdle() {
	for range 2 {
		e := t.order.Front()
		if e == nil {
			return
		}
		s := e.Value.(*memorySubject)
		if t.latest-s.times[len(s.times)-1] < t.policy.micros() {
			return
		}
		t.order.Remove(e)
		delete(t.subjects, s.name)
	}
}
