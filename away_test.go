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

// TestStorageAwayForAll: operations that share a transaction in which storage
// fails fail together, and not one after the other, each after a wait of its own.
func TestStorageAwayForAll(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &leaving{Store: memstore.New(), back: make(chan struct{})}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	_, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_away")
	store.away.Store(true)
	const calls = 9
	var asking sync.WaitGroup
	for range calls {
		asking.Go(func() {
			_, err := k.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
			if !errors.Is(err, agentkey.ErrStorage) {
				t.Errorf("storage is away, and the answer is %v", err)
			}
		})
	}
	// Long enough for the others to queue up behind the first; were it not, this
	// would show less and fail no less seldom.
	timer := time.NewTimer(100 * time.Millisecond)
	<-timer.C
	close(store.back)
	asking.Wait()
	is.True(store.tries.Load() <= calls) // one for each at most
}

// TestTurnNeverComes: an operation that queues up behind one that storage does
// not answer is told so in bounded time.
func TestTurnNeverComes(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &leaving{Store: memstore.New(), back: make(chan struct{})}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	_, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_turn")
	store.away.Store(true)
	ask := func() error {
		_, err := k.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
		return err
	}
	answers := make(chan error, 2)
	for range 2 {
		go func() { answers <- ask() }()
	}
	limit := time.NewTimer(storage.UpdateTime + 10*time.Second)
	defer limit.Stop()
	select {
	case err := <-answers: // of the one that waits
		is.True(errors.Is(err, agentkey.ErrStorage))
	case <-limit.C:
		t.Error("nobody was answered")
	}
	close(store.back)
	is.True(errors.Is(<-answers, agentkey.ErrStorage))
}

// leaving fails the first statement of every Update while it is away. The first
// such Update waits until back is closed.
type leaving struct {
	storage.Store
	away  atomic.Bool
	tries atomic.Int64
	back  chan struct{}
}

type leavingTx struct{ storage.Tx }

func (s *leaving) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	if !s.away.Load() {
		return s.Store.Update(ctx, organization, fn)
	}
	s.tries.Add(1)
	<-s.back
	return s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, leavingTx{tx}) })
}

func (leavingTx) Head(context.Context) (storage.Head, error) {
	return storage.Head{}, storage.ErrUnavailable
}
