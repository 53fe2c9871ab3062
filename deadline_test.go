package agentkey_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// answerTime is how soon a caller is answered whatever storage does.
const answerTime = 3 * time.Second

// TestOneDeadline: what an operation has waited for its turn is taken from what
// storage may take for it, so that one whose turn comes late on a database that
// just went silent is answered in time all the same.
func TestOneDeadline(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := newHolding()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_deadline")
	k.Allow(agent, tool)
	store.record()
	var vending sync.WaitGroup
	vend := func(ctx context.Context) {
		vending.Go(func() {
			if v, err := k.Vend(ctx, caller, tool.ID); err == nil {
				v.Credential.Destroy()
			}
		})
	}
	vend(t.Context())
	<-store.entered // it holds the head
	began := time.Now()
	vend(t.Context())
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	vend(soon) // its caller goes, and is nobody else's measure
	<-soon.Done()
	close(store.release)
	vending.Wait()
	is.Equal(len(store.deadlines), 2) // the first, and who waited; not who has gone
	for _, deadline := range store.deadlines {
		is.True(deadline.Sub(began)+storage.OutcomeTime <= answerTime)
		is.True(deadline.Sub(began)+storage.OutcomeTime > answerTime/2)
	}
}

// TestAnswerBy: a caller that is owed an answer earlier gets it, from reads and
// changes, with an error that says what is away.
func TestAnswerBy(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := newHolding()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_answer")
	k.Allow(agent, tool)
	store.silent.Store(true)
	const left = storage.OutcomeTime + 50*time.Millisecond
	for name, call := range map[string]func(ctx context.Context) error{
		"vend": func(ctx context.Context) error {
			_, err := k.Vend(ctx, agentkey.TrustedAgent(k.Owner.Organization, agent.ID), tool.ID)
			return err
		},
		"key":  func(ctx context.Context) error { _, err := k.Vend(ctx, caller, tool.ID); return err },
		"read": func(ctx context.Context) error { _, err := k.Manager.Tool(ctx, k.Owner, tool.ID); return err },
	} {
		began := time.Now()
		err := call(agentkey.AnswerBy(t.Context(), began.Add(left)))
		if !errors.Is(err, agentkey.ErrStorage) {
			t.Errorf("%s: %v", name, err)
		}
		is.True(time.Since(began) < answerTime/2)
	}
}

// TestLongChanges: what changes as many rows as there are is not held to the time
// of one operation, also for a caller that is owed an answer.
func TestLongChanges(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := newHolding()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	agent, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_long")
	store.record()
	close(store.release)
	ctx := agentkey.AnswerBy(t.Context(), time.Now().Add(time.Minute))
	_, err := k.SuspendAgent(ctx, k.Owner, agent.ID)
	is.NoErr(err)
	_, err = k.DeleteTool(ctx, k.Owner, tool.ID)
	is.NoErr(err)
	is.Equal(len(store.deadlines), 2)
	is.True(store.deadlines[0].IsZero())
	is.True(store.deadlines[1].IsZero())
}

// holding is a storage that notes what time its Updates are given, and whose
// first one then waits until it is released. While it is silent nothing is
// answered.
type holding struct {
	storage.Store
	silent  atomic.Bool
	entered chan struct{}
	release chan struct{}

	mu        sync.Mutex
	recording bool
	deadlines []time.Time
}

func newHolding() *holding {
	return &holding{Store: memstore.New(), entered: make(chan struct{}, 1), release: make(chan struct{})}
}

func (s *holding) record() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recording = true
}

// begin notes a deadline, and reports whether it is the first.
func (s *holding) begin(ctx context.Context) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.recording {
		return false
	}
	deadline, _ := ctx.Deadline()
	s.deadlines = append(s.deadlines, deadline)
	return len(s.deadlines) == 1
}

func (s *holding) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	if s.silent.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	holds := s.begin(ctx)
	return s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		err := fn(ctx, tx)
		if holds {
			s.entered <- struct{}{}
			<-s.release
		}
		return err
	})
}

func (s *holding) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	if s.silent.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.View(ctx, organization, fn)
}

func (s *holding) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	if s.silent.Load() {
		<-ctx.Done()
		return storage.Key{}, false, ctx.Err()
	}
	return s.Store.FindKey(ctx, digest)
}
