package faultstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Kind says how a call fails.
type Kind int

// The kinds. Those from UnknownApplied on are failures of a commit; armed for
// any other call they do nothing.
const (
	// Unavailable answers storage.ErrUnavailable, and nothing is done.
	Unavailable Kind = iota + 1
	// Busy answers storage.ErrBusy, and nothing is done.
	Busy
	// Poisoned lets the call succeed and dooms its transaction: every later call
	// answers storage.ErrPoisoned, and nothing is kept. A method of the store
	// itself answers storage.ErrUnavailable.
	Poisoned
	// Hang answers nothing until the context ends, then the context's error.
	Hang
	// UnknownApplied commits, and answers storage.ErrUnknown.
	UnknownApplied
	// UnknownLost does not commit, and answers storage.ErrUnknown.
	UnknownLost
	// Found commits, and answers nil only after it looked for the commit: what a
	// backend does whose commit was not answered and found to stand.
	Found
	// Rerun does not commit; the transaction runs once more, and that run commits.
	Rerun
)

// Kinds gives every kind.
func Kinds() []Kind {
	return []Kind{Unavailable, Busy, Poisoned, Hang, UnknownApplied, UnknownLost, Found, Rerun}
}

// OfCommit says whether only a commit fails in this way.
func (k Kind) OfCommit() bool { return k >= UnknownApplied }

// String is the kind in words.
func (k Kind) String() string {
	names := [...]string{
		"none", "unavailable", "busy", "poisoned", "hang", "unknown, applied", "unknown, lost", "found", "rerun",
	}
	if k < 0 || int(k) >= len(names) {
		return "unknown kind"
	}
	return names[k]
}

// Plan is what is to go wrong.
type Plan struct {
	// At is the number of the call that fails; 0: none does.
	At   int
	Kind Kind
	// Forever lets every call from At on fail, not that one alone. A Rerun is
	// never repeated within one Update.
	Forever bool
}

// Commit is the name of the call that ends an Update.
const Commit = "Commit"

// Store is a storage.Store whose calls can fail. It is safe for concurrent use;
// which call gets which number is then up to the scheduler.
type Store struct {
	inner storage.Store

	mu    sync.Mutex
	plan  Plan
	calls []string
	held  int
}

var _ storage.Store = (*Store)(nil)

// New wraps a store, which keeps working until Arm is called.
func New(inner storage.Store) *Store { return &Store{inner: inner} }

// Arm begins to count calls anew and lets them fail as p says.
func (s *Store) Arm(p Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.calls = p, nil
}

// Disarm lets every call succeed. What was counted stays.
func (s *Store) Disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan = Plan{}
}

// Calls gives the names of the calls since the last Arm, in order.
func (s *Store) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

// Held says how many Updates hold a log head now.
func (s *Store) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *Store) hold(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
}

type holding struct{}

// Holding says whether ctx is that of a running Update: of somebody who holds a
// log head.
func Holding(ctx context.Context) bool { return ctx.Value(holding{}) != nil }

// next counts a call and answers how it fails, 0 when it does not.
func (s *Store) next(name string) Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
	n := len(s.calls)
	if s.plan.At == 0 || n < s.plan.At || (n > s.plan.At && !s.plan.Forever) {
		return 0
	}
	if s.plan.Kind.OfCommit() && name != Commit {
		return 0
	}
	return s.plan.Kind
}

// fail is what a call answers that fails in a way that is not of a commit.
func fail(ctx context.Context, k Kind) error {
	switch k {
	case Busy:
		return fmt.Errorf("faultstore: %w", storage.ErrBusy)
	case Hang:
		<-ctx.Done()
		return ctx.Err()
	default:
		return fmt.Errorf("faultstore: %w", storage.ErrUnavailable)
	}
}

// enter counts a method of the store itself.
func (s *Store) enter(ctx context.Context, name string) error {
	if k := s.next(name); k != 0 {
		return fail(ctx, k)
	}
	return nil
}

var (
	errDropped = errors.New("faultstore: commit did not arrive")
	errAgain   = errors.New("faultstore: run again")
)

// Update implements storage.Store. Taking the head is one call, the commit
// another.
func (s *Store) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	if err := s.enter(ctx, "Update"); err != nil {
		return err
	}
	rerun := false
	for {
		var fault Kind // of the commit
		err := s.inner.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) (err error) {
			s.hold(1)
			defer s.hold(-1)
			ctx = context.WithValue(ctx, holding{}, true)
			g := &gate{store: s}
			defer func() { g.ended = true }()
			if err := fn(ctx, &writer{Tx: tx, reader: reader{ReadTx: tx, gate: g}}); err != nil {
				return err
			}
			if err := g.err; err != nil {
				return err
			}
			fault = s.next(Commit)
			return s.commit(ctx, fault, rerun)
		})
		switch {
		case errors.Is(err, errAgain):
			rerun = true
			continue
		case errors.Is(err, errDropped), err == nil && fault == UnknownApplied:
			return fmt.Errorf("faultstore: %w", storage.ErrUnknown)
		}
		return err
	}
}

// commit answers what keeps a transaction from being committed, if anything does.
func (s *Store) commit(ctx context.Context, fault Kind, rerun bool) error {
	switch fault {
	case 0, UnknownApplied, Found:
		return nil
	case UnknownLost:
		return errDropped
	case Rerun:
		if rerun {
			return nil
		}
		return errAgain
	}
	return fail(ctx, fault)
}

// View implements storage.Store.
func (s *Store) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	if err := s.enter(ctx, "View"); err != nil {
		return err
	}
	return s.inner.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		g := &gate{store: s}
		defer func() { g.ended = true }()
		if err := fn(ctx, &reader{ReadTx: tx, gate: g}); err != nil {
			return err
		}
		return g.err
	})
}

// FindKey implements storage.Store.
func (s *Store) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	if err := s.enter(ctx, "FindKey"); err != nil {
		return storage.Key{}, false, err
	}
	return s.inner.FindKey(ctx, digest)
}

// FindRecord implements storage.Store.
func (s *Store) FindRecord(ctx context.Context, kind, id string) ([]string, error) {
	if err := s.enter(ctx, "FindRecord"); err != nil {
		return nil, err
	}
	return s.inner.FindRecord(ctx, kind, id)
}

// Organizations implements storage.Store.
func (s *Store) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	if err := s.enter(ctx, "Organizations"); err != nil {
		return nil, err
	}
	return s.inner.Organizations(ctx, after, limit)
}

// Lease implements storage.Store.
func (s *Store) Lease(ctx context.Context, q storage.LeaseQuery) ([]storage.Delivery, error) {
	if err := s.enter(ctx, "Lease"); err != nil {
		return nil, err
	}
	return s.inner.Lease(ctx, q)
}

// Due implements storage.Store.
func (s *Store) Due(ctx context.Context, now int64, limit int) ([]storage.Due, error) {
	if err := s.enter(ctx, "Due"); err != nil {
		return nil, err
	}
	return s.inner.Due(ctx, now, limit)
}

// Events implements storage.Store.
func (s *Store) Events(ctx context.Context, organization string, q storage.EventQuery) (storage.EventPage, error) {
	if err := s.enter(ctx, "Events"); err != nil {
		return storage.EventPage{}, err
	}
	return s.inner.Events(ctx, organization, q)
}
