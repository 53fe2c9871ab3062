package storagetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	// A clause is told to end after clauseTime, which a busy machine needs, and given
	// up after watchTime more.
	clauseTime = time.Minute
	watchTime  = time.Second
	// promptly is longer than any call should take that waits for nobody, and
	// shorter than every limit of the contract.
	promptly = 1500 * time.Millisecond
	// lingering is how long a call is given to reach the point where it waits for
	// another: nothing of that can be observed from outside. A machine too slow
	// for it makes the suite miss a fault, never report one.
	lingering = 50 * time.Millisecond
)

// clause is one rule of the contract and the test of it.
type clause struct {
	group, name, sentence string
	check                 func(*check)
	needs                 func(claims) string // why it is skipped, or nothing
}

// result is what became of a clause. It was kept when both fields are empty.
type result struct {
	seen, skipped string
}

// check is one run of a clause. Its methods fail the clause by panicking with a
// failure, which run takes down before the backend has a chance to lose it.
type check struct {
	ctx    context.Context
	stores []storage.Store // two when several processes are tested
	claims claims
	calls  chan func(*testing.T)

	mu      sync.Mutex
	seen    string
	skipped string
}

// failure is what a clause panics with when it is broken.
type failure string

// skip is what a clause panics with when the store doesn't claim it after all.
type skip string

// run runs the clause on a goroutine of its own and watches it, so that a
// backend that hangs or panics fails this clause and no other.
func (cl clause) run(t *testing.T, open func(*testing.T) storage.Store, claimed claims) result {
	if cl.needs != nil {
		if why := cl.needs(claimed); why != "" {
			return result{skipped: why}
		}
	}
	most := cmp.Or(claimed.most, clauseTime)
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	c := &check{ctx: ctx, claims: claimed, calls: make(chan func(*testing.T))}
	c.stores = []storage.Store{open(t)}
	if cl.group == "processes" {
		c.stores = append(c.stores, claimed.openSecond(t, c.stores[0]))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.note()
		cl.check(c)
	}()
	watch := time.NewTimer(most + watchTime)
	defer watch.Stop()
	for {
		select {
		case call := <-c.calls:
			call(t)
		case <-done:
			return c.result()
		case <-watch.C:
			c.record(fmt.Sprintf("no end after %v: a call of the backend hangs or ignores its context", most+watchTime))
			return c.result()
		}
	}
}

func (c *check) result() result {
	c.mu.Lock()
	defer c.mu.Unlock()
	return result{seen: c.seen, skipped: c.skipped}
}

// record keeps the first thing that was seen to be wrong.
func (c *check) record(seen string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == "" {
		c.seen = seen
	}
}

// note is deferred where a failure must not get lost, and ends the panic.
func (c *check) note() {
	switch p := recover().(type) {
	case nil:
	case failure:
		c.record(string(p))
	case skip:
		c.skipped = string(p)
	default:
		c.record(fmt.Sprintf("panic: %v\n%s", p, stack()))
	}
}

func stack() []byte {
	b := make([]byte, 4<<10)
	return b[:runtime.Stack(b, false)]
}

// onTest runs fn on the test's own goroutine, where t.Fatal is allowed.
func (c *check) onTest(fn func(*testing.T)) {
	done := make(chan struct{})
	select {
	case c.calls <- func(t *testing.T) { defer close(done); fn(t) }:
		<-done
	case <-c.ctx.Done():
		failf("the clause ran out of time")
	}
}

// store is the first store, the only one unless several processes are tested.
func (c *check) store() storage.Store { return c.stores[0] }

// update runs fn in an Update that has to succeed.
func (c *check) update(organization string, fn func(context.Context, storage.Tx)) {
	ok(c.try(c.ctx, c.store(), organization, fn))
}

// try runs fn in an Update and answers its error.
func (c *check) try(ctx context.Context, s storage.Store, organization string, fn func(context.Context, storage.Tx)) error {
	ended := false
	err := s.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		defer c.noteAndGoOn()
		fn(ctx, tx)
		ended = true
		return nil
	})
	if err == nil && !ended {
		failf("Update answered nil although fn did not run to its end")
	}
	return err
}

// insist is try for as long as others keep the head busy.
func (c *check) insist(s storage.Store, organization string, fn func(context.Context, storage.Tx)) {
	for {
		err := c.try(c.ctx, s, organization, fn)
		if !errors.Is(err, storage.ErrBusy) || c.ctx.Err() != nil {
			ok(err)
			return
		}
	}
}

// view runs fn in a View that has to succeed.
func (c *check) view(organization string, fn func(context.Context, storage.ReadTx)) {
	c.viewOf(c.store(), organization, fn)
}

func (c *check) viewOf(s storage.Store, organization string, fn func(context.Context, storage.ReadTx)) {
	ended := false
	err := s.View(c.ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		defer c.noteAndGoOn()
		fn(ctx, tx)
		ended = true
		return nil
	})
	ok(err)
	if !ended {
		failf("View answered nil although fn did not run to its end")
	}
}

// noteAndGoOn notes a failure on its way through the backend.
func (c *check) noteAndGoOn() {
	if p := recover(); p != nil {
		if f, is := p.(failure); is {
			c.record(string(f))
		}
		panic(p)
	}
}

// together runs fn n times at once and waits for all of them.
func (c *check) together(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			defer c.note()
			fn(i)
		})
	}
	all.Wait()
	c.rethrow()
}

// pending is a call that runs beside the clause.
type pending struct {
	c    *check
	done chan struct{}
}

func (c *check) start(fn func()) pending {
	p := pending{c, make(chan struct{})}
	go func() {
		defer close(p.done)
		defer c.note()
		fn()
	}()
	return p
}

// wait waits for the end of a call that has nothing to wait for any more.
func (p pending) wait() {
	p.c.await(p.done, "a call that has nothing to wait for any more")
	p.c.rethrow()
}

// promptly fails when the call takes longer than one that waits for nobody.
func (p pending) promptly(what string) {
	timer := time.NewTimer(promptly)
	defer timer.Stop()
	select {
	case <-p.done:
		p.c.rethrow()
	case <-timer.C:
		failf("%s did not end within %v", what, promptly)
	}
}

// rethrow ends the clause when another goroutine of it has failed.
func (c *check) rethrow() {
	if seen := c.result().seen; seen != "" {
		panic(failure(seen))
	}
}

// hold lets an Update hold the organization's head until release is called. It
// goes on reading, so as not to be taken for dead.
func (c *check) hold(s storage.Store, org string) (release func()) {
	holding, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	holder := c.start(func() {
		ok(c.try(c.ctx, s, org, func(ctx context.Context, tx storage.Tx) {
			once.Do(func() { close(holding) })
			beat := time.NewTicker(2 * lingering)
			defer beat.Stop()
			for {
				select {
				case <-released:
					return
				case <-beat.C:
					_, _, err := tx.Organization(ctx)
					ok(err)
				}
			}
		}))
	})
	select {
	case <-holding:
	case <-holder.done:
		c.rethrow()
		failf("Update ended before fn did")
	}
	return func() {
		close(released)
		holder.wait()
	}
}

// await waits for a signal that has to come.
func (c *check) await(signal <-chan struct{}, what string) {
	select {
	case <-signal:
	case <-c.ctx.Done():
		failf("no end of %s", what)
	}
}

// linger gives others time to reach the point where they wait.
func (c *check) linger(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
		failf("the clause ran out of time")
	}
}

// failf fails the clause and names the place in the suite.
func failf(format string, args ...any) {
	at := ""
	for skip := 1; skip < 8; skip++ {
		_, file, line, ok := runtime.Caller(skip)
		if ok && filepath.Base(file) != "check.go" {
			at = fmt.Sprintf(" (storagetest/%s:%d)", filepath.Base(file), line)
			break
		}
	}
	panic(failure(fmt.Sprintf(format, args...) + at))
}

func ok(err error) {
	if err != nil {
		failf("unexpected error: %v", err)
	}
}

// got is the value of a call that has to succeed.
func got[T any](value T, err error) T {
	ok(err)
	return value
}

// found is the value of a call that has to find something.
func found[T any](value T, is bool, err error) T {
	ok(err)
	if !is {
		failf("nothing was found")
	}
	return value
}

// missing is for a call that has to find nothing.
func missing[T any](value T, is bool, err error) {
	ok(err)
	if is {
		failf("found what must not be there: %+v", value)
	}
}

// yes and no are for calls whose result has to be true or false.
func yes(is bool, err error) {
	ok(err)
	if !is {
		failf("answered false, not true")
	}
}

func no(is bool, err error) {
	if err != nil {
		failf("answered an error, not false: %v", err)
	}
	if is {
		failf("answered true, not false")
	}
}

// is fails unless err is the sentinel.
func is(err, sentinel error) {
	if !errors.Is(err, sentinel) {
		failf("answered %s, not %q", describe(err), sentinel)
	}
}

func describe(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("%q", err)
}

// equal fails unless both are equal, empty slices and nil alike.
func equal(what string, got, want any) {
	if !same(got, want) {
		failf("%s: got %+v, want %+v", what, got, want)
	}
}
