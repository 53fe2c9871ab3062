package memstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Store is a storage.Store in memory. It is safe for concurrent use; Updates of
// different organizations run at the same time. Make one with New.
type Store struct {
	root   atomic.Pointer[root]
	closed chan struct{}

	mu     sync.Mutex               // held for moments only: by a commit, Lease and Close
	heads  map[string]chan struct{} // one slot per organization: who fills it holds the head
	closes sync.Once
}

var _ storage.Store = (*Store)(nil)

// root is everything that was committed. It is never changed once published.
type root struct {
	organizations tree[*organization]
	keys          tree[keyPlace]          // by digest
	records       tree[string]            // the organization, by kind, id and organization
	outbox        tree[*storage.Delivery] // by organization and id
	queue         tree[*storage.Delivery] // the pending ones, by NextAt, organization and id
}

// keyPlace is where the key with a digest is kept.
type keyPlace struct{ organization, id string }

// New returns an empty store. It starts no goroutine.
func New() *Store {
	s := &Store{closed: make(chan struct{}), heads: make(map[string]chan struct{})}
	s.root.Store(new(root))
	return s
}

// Close ends the store: Updates that were not committed fail, and every later
// call answers storage.ErrClosed. It may be called more than once, and answers
// nil.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes.Do(func() { close(s.closed) })
	return nil
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// running marks the context that a running fn was given.
type running struct{}

// enter is what every method begins with.
func (s *Store) enter(ctx context.Context, texts ...string) error {
	if s.isClosed() {
		return storage.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return storage.CheckText(texts...)
}

func (s *Store) enterTx(ctx context.Context, organization string) error {
	if err := s.enter(ctx, organization); err != nil {
		return err
	}
	if ctx.Value(running{}) != nil {
		return storage.ErrNested
	}
	if organization == "" {
		return fmt.Errorf("%w: no organization", storage.ErrInvalid)
	}
	return nil
}

// Update implements storage.Store. A transaction that meets a key digest or a
// lease which another organization's took in the meantime runs again.
func (s *Store) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	if err := s.enterTx(ctx, organization); err != nil {
		return err
	}
	head, err := s.takeHead(ctx, organization)
	if err != nil {
		return err
	}
	defer func() { <-head }()
	inside := context.WithValue(ctx, running{}, true)
	for {
		t := &tx{reader: newReader(s.root.Load(), organization)}
		if err := t.run(inside, fn); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if done, err := s.commit(t); done || err != nil {
			return err
		}
	}
}

// takeHead waits until the organization's head is free.
func (s *Store) takeHead(ctx context.Context, organization string) (chan struct{}, error) {
	s.mu.Lock()
	head, ok := s.heads[organization]
	if !ok {
		head = make(chan struct{}, 1)
		s.heads[organization] = head
	}
	s.mu.Unlock()
	select {
	case head <- struct{}{}:
		return head, nil
	default:
	}
	patience := time.NewTimer(storage.UpdateTime)
	defer patience.Stop()
	select {
	case head <- struct{}{}:
		return head, nil
	case <-s.closed:
		return nil, storage.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, storage.ErrBusy
	}
}

// commit publishes what t did. It answers false when what t did to the parts
// that all organizations share can't be done any more.
func (s *Store) commit(t *tx) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return false, storage.ErrClosed
	}
	next := *s.root.Load()
	for _, change := range t.shared {
		if !change(&next) {
			return false, nil
		}
	}
	state := t.organization // a copy, lest the transaction outlive itself
	next.organizations = next.organizations.put(t.name, &state)
	s.root.Store(&next)
	return true, nil
}

// View implements storage.Store.
func (s *Store) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	if err := s.enterTx(ctx, organization); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, storage.ViewTime)
	defer cancel()
	r := newReader(s.root.Load(), organization)
	defer r.done.Store(true)
	if err := fn(context.WithValue(bounded, running{}, true), r); err != nil {
		return err
	}
	if r.failed != nil {
		return r.failed
	}
	return bounded.Err()
}
