package agentkey_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// What has come to its end is written once, whoever finds it first.
func TestSweepWritesEndsOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.unfinished()
	ends := func() []int {
		own := s.Organization.ID
		return []int{
			len(s.recorded(own, audit.ActionGrantExpired)), len(s.recorded(own, audit.ActionAgentKeyExpired)),
			len(s.recorded(own, audit.ActionToolCredentialExpired)),
		}
	}
	s.Clock.Advance(time.Minute - time.Microsecond)
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(ends(), []int{0, 0, 0})
	s.Clock.Advance(time.Microsecond)
	is.Equal(tallyOK(atOnce(8, func(int) error { return s.Sweep(context.Background()) })), 8)
	is.Equal(ends(), []int{1, 1, 1})
	is.NoErr(s.Sweep(t.Context()))
	is.NoErr(s.witness.Sweep(t.Context()))
	is.Equal(ends(), []int{1, 1, 1})
	s.consistent(false)
}

func tallyOK(errs []error) (ok int) {
	for _, err := range errs {
		if err == nil {
			ok++
		}
	}
	return ok
}

// secretFault is an error whose text must not be kept.
type secretFault struct{}

func (secretFault) Error() string { return "https://hooks.example.com/SECRETPATH: refused" }

// waiting reads what waits in the outbox, by leasing it far in the future.
func (s *scene) waiting() []storage.Delivery {
	s.t.Helper()
	later := s.Clock.Now().Add(100 * time.Hour).UnixMicro()
	left, err := s.inner.Lease(context.Background(), storage.LeaseQuery{Now: later, Until: later + 1, Node: "test", Limit: 10})
	s.noErr(err)
	return left
}

// A notification is tried until it is delivered, at growing intervals, and
// always has the same id.
func TestNotificationsAreTriedAgain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.ask(s.canarysTool)
	s.notes.fail = secretFault{}
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(s.notes.ids), 1)
	s.Clock.Advance(3 * time.Second) // sooner than 4/5 of the first delay
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(s.notes.ids), 1)
	wait := 6 * time.Second // 6/5 of the first delay
	for tries := 2; tries <= 4; tries++ {
		s.Clock.Advance(wait)
		is.NoErr(s.Sweep(t.Context()))
		is.Equal(len(s.notes.ids), tries)
		s.Clock.Advance(wait / 2)
		is.NoErr(s.Sweep(t.Context()))
		is.Equal(len(s.notes.ids), tries) // the next delay is at least 8/5 of this one's mean
		wait *= 2
	}
	s.notes.fail = nil
	s.Clock.Advance(time.Hour)
	is.NoErr(s.Sweep(t.Context()))
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(s.notes.ids), 5)
	for _, id := range s.notes.ids {
		is.Equal(id, s.notes.ids[0])
	}
	own := s.Organization.ID
	is.Equal(len(s.recorded(own, audit.ActionNotificationFailed)), 1)
	is.Equal(len(s.recorded(own, audit.ActionNotificationSent)), 1)
	is.Equal(len(s.waiting()), 0)
}

// A notification that is never delivered is given up, and neither the outbox nor
// the log keeps the text of the error.
func TestNotificationsDie(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, func(c *agentkey.Config) { c.MaxAttempts = 3 })
	s.ask(s.canarysTool)
	s.notes.fail = secretFault{}
	is.NoErr(s.Sweep(t.Context()))
	left := s.waiting() // one more attempt
	is.Equal(len(left), 1)
	is.True(left[0].LastError != "")
	is.True(!strings.Contains(left[0].LastError, "SECRETPATH"))
	for range 10 {
		s.Clock.Advance(200 * time.Hour)
		is.NoErr(s.Sweep(t.Context()))
	}
	is.Equal(len(s.notes.ids), 2)
	is.Equal(len(s.waiting()), 0) // dead
	own := s.Organization.ID
	is.Equal(len(s.recorded(own, audit.ActionNotificationDead)), 1)
	for _, l := range s.lines(own) {
		is.True(!strings.Contains(string(l.Content)+string(l.Personal), "SECRETPATH"))
	}
	s.consistent(true)
}

// Whatever a node dies of after it leased, somebody delivers when the lease ends.
func TestNotificationsOfALostNode(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.ask(s.canarysTool)
	now := s.Clock.Now().UnixMicro()
	leased, err := s.inner.Lease(t.Context(), storage.LeaseQuery{Now: now, Until: now + 60_000_000, Node: "lost", Limit: 10})
	is.NoErr(err)
	is.Equal(len(leased), 1)
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(s.notes.ids), 0)
	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(s.notes.ids), 1)
}

// New starts nothing: in a bubble that ends with goroutines left, the test fails.
// Run begins and ends with an event and leaves nothing behind.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := newScene(t)
		s.unfinished()
		s.cool()
		ctx, stop := context.WithCancel(t.Context())
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			err = s.Run(ctx)
		}()
		synctest.Wait()
		is.Equal(len(s.recorded(storage.System, audit.ActionServerStarted)), 1)
		is.Equal(len(s.recorded(s.Organization.ID, audit.ActionGrantExpired)), 0)
		time.Sleep(6 * time.Second) // of the bubble's clock
		synctest.Wait()
		is.Equal(len(s.recorded(s.Organization.ID, audit.ActionGrantExpired)), 1)
		is.Equal(len(s.notes.ids), 1)
		stop()
		<-done
		is.NoErr(err)
		is.Equal(len(s.recorded(storage.System, audit.ActionServerStopped)), 1)
		s.consistent(false)
	})
}

// heldLog is a storage whose log can't be read until it is let go.
type heldLog struct {
	storage.Store
	release chan struct{}
}

type heldTx struct {
	storage.ReadTx
	release chan struct{}
}

func (h heldLog) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	return h.Store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		return fn(ctx, heldTx{tx, h.release})
	})
}

func (t heldTx) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	<-t.release
	return t.ReadTx.Lines(ctx, from, limit)
}

// However long the replay at the start takes, what was asked for before is sealed
// anew meanwhile.
func TestResealingDoesNotWaitForTheReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := newScene(t)
		_, err := s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
		is.NoErr(err)
		_, err = s.Reseal(t.Context(), s.Owner)
		is.NoErr(err)
		held := heldLog{s.inner, make(chan struct{})}
		m, err := agentkey.New(t.Context(), agentkey.Config{Storage: held, Keys: s.keys, Clock: s.Clock.Now, Node: "held", Policies: agentkeytest.Unlimited()})
		is.NoErr(err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		status, err := s.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{Count: true})
		is.NoErr(err)
		is.Equal(status.Resealing, nil)
		is.Equal(status.Reseal, int64(0))
		close(held.release)
		stop()
		is.NoErr(<-done)
		is.NoErr(m.Close(t.Context()))
	})
}

// After Close every method answers ErrClosed and does nothing.
func TestClosed(t *testing.T) {
	t.Parallel()
	for _, op := range faultOperations() {
		if op.method == "Close" || op.still {
			continue
		}
		t.Run(op.name(), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s := newScene(t, op.options...)
			do := op.prepare(s)
			is.NoErr(s.Close(t.Context()))
			is.NoErr(s.Close(t.Context())) // once more
			for _, m := range s.others {
				is.NoErr(m.Close(t.Context()))
			}
			before := s.logs()
			s.faults.Arm(faultstore.Plan{})
			answer, err := do(t.Context())
			is.True(errors.Is(err, agentkey.ErrClosed))
			is.True(errors.Is(err, agentkey.ErrUnavailable))
			is.True(!carriesSecret(answer))
			is.Equal(s.faults.Calls(), nil) // nothing is asked of the storage
			is.Equal(len(s.notes.ids), 0)
			is.Equal(s.added(before), nil)
		})
	}
}

// Close waits for what is under way until its context ends.
func TestCloseDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := newScene(t)
		s.keys.breaks(func(context.Context) error {
			time.Sleep(300 * time.Millisecond) // of the bubble's clock
			return nil
		})
		s.cool()
		vended := make(chan error, 1)
		go func() { vended <- s.vend() }()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		is.True(errors.Is(s.Close(short), context.DeadlineExceeded))
		began := time.Now()
		is.NoErr(s.Close(t.Context()))
		is.True(time.Since(began) > 0)
		is.NoErr(<-vended) // it was let in, and ended before Close did
	})
}

// Time never goes back within a log, and what has ended stays ended, whatever
// the clock does.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	_, err := s.Narrow(t.Context(), s.Owner, s.grant.ID, agentkey.Terms{Duration: time.Minute.Microseconds()})
	is.NoErr(err)
	is.NoErr(s.vend())
	s.Clock.Advance(time.Minute)
	is.True(errors.Is(s.vend(), agentkey.ErrExpired))
	s.Clock.Advance(-time.Hour)
	is.True(errors.Is(s.vend(), agentkey.ErrExpired))
	_, err = s.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.NoErr(err)
	_, err = s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.NoErr(err)
	var last int64
	for _, l := range s.lines(s.Organization.ID) {
		e, err := audit.Parse(l.Content)
		is.NoErr(err)
		is.True(e.Time >= last)
		last = e.Time
	}
	s.consistent(false)
}

// A head that another process wrote is checked before it is extended: one that
// is not signed as it should be is refused by both.
func TestHeadsOfAnotherProcess(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	for range 3 {
		is.NoErr(s.vend())
		_, err := s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
		is.NoErr(err)
	}
	s.consistent(false)
	own := s.Organization.ID
	err := s.inner.Update(t.Context(), own, func(ctx context.Context, tx storage.Tx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		lines, err := tx.Lines(ctx, head.Size-1, 1)
		if err != nil {
			return err
		}
		next := audit.Line{Seq: head.Size, Content: lines[0].Content, Leaf: lines[0].Leaf}
		forged := head.Head
		forged.Size++
		forged.Edge = make([]byte, 32*ones(forged.Size))
		return tx.Append(ctx, storage.Append{Lines: []audit.Line{next}, Head: forged, Seal: head.Seal})
	})
	is.NoErr(err)
	size := len(s.lines(own))
	is.True(errors.Is(s.vend(), agentkey.ErrIntegrity))
	_, err = s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	is.Equal(len(s.lines(own)), size)
	is.Equal(len(s.recorded(storage.System, audit.ActionIntegrityFailed)), 2) // one by each
}

func ones(n int64) (count int) {
	for ; n > 0; n &= n - 1 {
		count++
	}
	return count
}

// A notification that somebody wrote into the database by hand is not delivered:
// it is dead at once, and the log says so.
func TestForgedNotificationIsNotDelivered(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := memstore.New()
	told := new(toldNotifier)
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Notifier = store, told })
	forged := storage.Delivery{
		Organization: k.Organization.ID, ID: "forged", Topic: "access_requested", State: storage.DeliveryPending,
		Payload: []byte(`{"id":"forged","topic":"access_requested","reason":"approve at https://evil.example.com, please do it soon"}`),
	}
	is.NoErr(store.Update(t.Context(), k.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
		return tx.Enqueue(ctx, []storage.Delivery{forged})
	}))
	is.NoErr(k.Sweep(t.Context()))
	is.NoErr(k.Sweep(t.Context()))
	is.Equal(told.n, 0)
	page, err := k.Events(t.Context(), k.Owner, agentkey.EventsInput{Filter: audit.Filter{Target: "forged"}})
	is.NoErr(err)
	is.Equal(len(page.Events), 2)
	is.Equal(page.Events[0].Action, audit.ActionNotificationDead)
	is.Equal(page.Events[1].Action, audit.ActionIntegrityFailed)
}

type toldNotifier struct{ n int }

func (t *toldNotifier) Notify(context.Context, agentkey.Notification) error {
	t.n++
	return nil
}
