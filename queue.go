package agentkey

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// maxBatch is how many operations share a transaction at most.
const maxBatch = 256

// maxWaiting bounds the operations that wait for one organization's head. Beyond
// it there is room for as many that take access away.
const maxWaiting = 4096

// maxPassed is how many that take access away may go before one who was there first.
const maxPassed = 256

// queues holds the queue of each organization.
type queues struct {
	mu             sync.Mutex
	byOrganization map[string]*queue
}

func (q *queues) of(organization string) *queue {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.byOrganization[organization]
	if one == nil {
		one = new(queue)
		q.byOrganization[organization] = one
	}
	return one
}

// queue coalesces commits: what has queued up until a transaction has the head is
// decided in it, in the order in which it came, and nobody ever waits for company.
// What takes access away goes before all else, so that no crowd of vends delays it;
// but nobody is passed more than maxPassed times.
// No goroutine belongs to it: the first who waits carries out the batch for all.
type queue struct {
	mu      sync.Mutex
	waiting []*pending
	busy    bool // somebody is carrying out a batch
}

// pending is an operation that waits, and its answer.
type pending struct {
	ctx  context.Context
	op   *operation
	by   time.Time // when it must have been decided; zero: it takes its time
	keys *rings    // nil: to be acquired
	// err is what the caller is told: ErrUnknown unless it is known better, as a panic
	// may pass through here. decided is what the last run came to, which counts once
	// that is committed.
	err, decided error
	turn         chan bool // true: it is this one's turn to carry out a batch; false: err is there
	lead         bool      // it carries out the next batch
	// passed is how many went before it that came later.
	passed int
}

// bounded is the context that p is carried out in when it goes alone.
func (p *pending) bounded() (context.Context, context.CancelFunc) {
	if p.by.IsZero() {
		return p.ctx, func() {}
	}
	return context.WithDeadline(p.ctx, p.by)
}

// submit queues p and answers what came of it. An operation whose caller goes
// before its turn is dropped, and so is one whose turn does not come within
// storage.UpdateTime, as long as one may wait for a head; one that is being
// carried out is waited for. A full queue is refused at once.
func (q *queue) submit(p *pending, carryOut func(context.Context, *company)) error {
	ctx := p.ctx
	if err := ctx.Err(); err != nil {
		return err
	}
	p.err, p.turn = ErrUnknown, make(chan bool, 1)
	q.mu.Lock()
	if !q.admit(p) {
		q.mu.Unlock()
		return ErrOverloaded
	}
	leads := !q.busy
	p.lead, q.busy = leads, true
	q.mu.Unlock()
	if leads {
		q.carry(ctx, carryOut)
		return p.err
	}
	left := storage.UpdateTime
	if !p.by.IsZero() {
		left = min(left, time.Until(p.by))
	}
	patience := time.NewTimer(left)
	defer patience.Stop()
	select {
	case lead := <-p.turn:
		if lead {
			q.carry(ctx, carryOut)
		}
	case <-ctx.Done():
		return q.giveUp(p, ctx.Err(), carryOut)
	case <-patience.C:
		return q.giveUp(p, fmt.Errorf("%w: %w", ErrStorage, storage.ErrBusy), carryOut)
	}
	return p.err
}

// admit lets p wait, unless the queue is full.
func (q *queue) admit(p *pending) bool {
	room, at := maxWaiting, len(q.waiting)
	if p.op.urgent {
		room *= 2
	}
	if len(q.waiting) >= room {
		return false
	}
	for ; p.op.urgent && at > 0 && q.waiting[at-1].passable(); at-- {
		q.waiting[at-1].passed++
	}
	q.waiting = slices.Insert(q.waiting, at, p)
	return true
}

// passable says whether what takes access away may go before p.
func (p *pending) passable() bool { return !p.op.urgent && !p.lead && p.passed < maxPassed }

// giveUp drops p, unless its turn has come: then it sees it through.
func (q *queue) giveUp(p *pending, why error, carryOut func(context.Context, *company)) error {
	if q.withdraw(p) {
		return why
	}
	if lead := <-p.turn; lead {
		q.carry(p.ctx, carryOut)
	}
	return p.err
}

// withdraw takes p out of the queue, unless its turn has come.
func (q *queue) withdraw(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, p)
	if i < 0 || p.lead {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// carry carries out one batch, the caller's operation in it, and hands over to
// the first who waits then.
func (q *queue) carry(ctx context.Context, carryOut func(context.Context, *company)) {
	c := &company{q: q}
	q.mu.Lock()
	c.take(c.first())
	q.mu.Unlock()
	defer func() {
		for _, p := range c.ps {
			p.turn <- false
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.busy = len(q.waiting) > 0; q.busy {
			first := q.waiting[0]
			first.lead = true
			first.turn <- true
		}
	}()
	if !c.by.IsZero() {
		leader := ctx
		if c.open {
			ctx = context.WithoutCancel(ctx)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.by)
		defer cancel()
		c.apart = func() bool { return true } // one caller's end is not the others'
		if len(c.ps) == 1 {
			c.apart = context.AfterFunc(leader, cancel)
			defer c.apart()
		}
	}
	carryOut(ctx, c)
}

// company is the operations that share a transaction.
type company struct {
	q     *queue
	ps    []*pending
	by    time.Time   // when it must have been decided; zero: it takes its time
	open  bool        // others may join
	apart func() bool // parts it from the caller that leads it, unless that has gone
}

// hurry is how much time those have left at least who share a transaction.
const hurry = 250 * time.Millisecond

// first is how many of those who wait share the next transaction. Who takes long,
// or has hardly any time left, goes alone.
func (c *company) first() (n int) {
	for _, p := range c.q.waiting[:min(len(c.q.waiting), maxBatch)] {
		if p.by.IsZero() || time.Until(p.by) < hurry {
			break
		}
		if n == 0 || p.by.Before(c.by) {
			c.by = p.by
		}
		n++
	}
	if c.open = n > 0; !c.open {
		c.by = c.q.waiting[0].by
		return 1
	}
	return n
}

func (c *company) take(n int) {
	c.ps = append(c.ps, c.q.waiting[:n]...)
	c.q.waiting = slices.Delete(c.q.waiting, 0, n)
}

// join takes in who has queued up while those before waited for the head, and
// answers all: the next head may be long in coming, where other processes write too.
func (c *company) join() []*pending {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	n := 0
	for n < len(c.q.waiting) && len(c.ps)+n < maxBatch && !c.q.waiting[n].by.Before(c.by) {
		n++
	}
	if n > 0 && (len(c.ps) > 1 || c.apart()) {
		c.take(n)
	}
	return c.ps
}
