package bunstore

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// On SQLite all organizations have one writer, and a commit is most of what a
// short Update takes. So Updates that queue up for the writer share a transaction:
// whoever is done and sees others wait leaves it open to them, and queues up again
// behind them. Who comes to its second turn commits for all. Nobody waits for
// company, no goroutine belongs to it, and each Update runs in its caller's.
//
// Each takes its own head, in the state that those before it have left. What one
// of them did is undone alone, by a savepoint. Where that can't be, because SQLite
// has rolled back by itself or might, all is undone, and those who are not at
// fault run again, each in a transaction of its own.

// shared is a transaction that Updates share. It belongs to whoever is in the
// gate, but for done and err.
type shared struct {
	first *tx
	until <-chan time.Time // from then on it takes no other; nil: it was not left open yet
	wrote bool
	done  chan struct{} // closed when it has ended
	err   error         // what the commit answered; errApart: nothing was kept
}

// shareTime bounds how long an Update that is done waits for others' decisions
// before its own commit.
const shareTime = 20 * time.Millisecond

// errApart says that nothing of a shared transaction stands, through no fault of
// the Update that is told so.
var errApart = errors.New("bunstore: run again alone")

const (
	setSavepoint  statement = `SAVEPOINT agentkey_part`
	keepSavepoint statement = `RELEASE agentkey_part`
	undoSavepoint statement = `ROLLBACK TO agentkey_part`
)

// updateShared is Update among others on SQLite. It answers errApart when fn has
// to run again.
func (s *Store) updateShared(wait, ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	leave, err := s.passGate(wait, ctx, organization)
	if err != nil {
		return err
	}
	in := true
	defer func() {
		if in {
			leave()
		}
	}()
	g, t, err := s.join(wait, ctx, organization)
	if err != nil {
		return err
	}
	if err := s.runShared(ctx, g, t, fn); err != nil {
		return err
	}
	if s.gates.crowded(s.gate(organization)) {
		if t == g.first {
			g.until = time.After(cmp.Or(s.sharing, shareTime))
		}
		leave()
		leave, in = s.gates.enter(g.done, s.gate(organization))
	}
	if in && s.open == g {
		s.settle()
	}
	if g.err == nil || g.err == errApart {
		return g.err
	}
	left, cancel := context.WithTimeout(context.WithoutCancel(ctx), storage.OutcomeTime)
	defer cancel()
	return t.outcome(ctx, left, g.err)
}

// join takes the organization's head in the transaction that is open, or begins
// one.
func (s *Store) join(wait, ctx context.Context, organization string) (*shared, *tx, error) {
	if s.open != nil {
		select {
		case <-s.open.until:
			s.settle()
		default:
		}
	}
	g := s.open
	if g == nil {
		t, err := s.takeHead(wait, ctx, organization, nil)
		if err != nil {
			return nil, nil, err
		}
		s.open = &shared{first: t, done: make(chan struct{})}
		return s.open, t, nil
	}
	t := &tx{reader: &reader{store: s, pool: g.first.pool, sql: g.first.sql, bun: g.first.bun, organization: organization}}
	_, err := t.exec(ctx, setSavepoint)
	if err == nil {
		_, err = t.loadHead(ctx, readHead, organization)
	}
	if err != nil {
		s.end(g, errApart)
		return nil, nil, s.translate(ctx, err)
	}
	return g, t, nil
}

// runShared runs fn. On an error, and when it panics, nothing of it stands.
func (s *Store) runShared(ctx context.Context, g *shared, t *tx, fn func(context.Context, storage.Tx) error) error {
	stands := false
	defer func() {
		if !stands {
			s.drop(ctx, g, t)
		}
	}()
	if err := t.run(ctx, fn); err != nil {
		return err
	}
	if t != g.first {
		if _, err := t.exec(ctx, keepSavepoint); err != nil {
			return t.fail(ctx, err)
		}
	}
	stands = true
	g.wrote = g.wrote || t.wrote
	return nil
}

// drop undoes what one Update did, and what the others did as well where that
// can't be told apart. A transaction that SQLite has rolled back has no savepoint
// any more.
func (s *Store) drop(ctx context.Context, g *shared, t *tx) {
	if t != g.first && !damaging(t.failed) {
		_, err := t.exec(context.WithoutCancel(ctx), undoSavepoint)
		if err == nil {
			_, err = t.exec(context.WithoutCancel(ctx), keepSavepoint)
		}
		if err == nil {
			return
		}
	}
	s.end(g, errApart)
}

// damaging says whether an error of a statement is one after which SQLite may have
// rolled back, and what is in memory is not to be relied on.
func damaging(err error) bool {
	return errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrBusy)
}

// settle commits the transaction that is open, if there is one. The caller is in
// the gate.
func (s *Store) settle() {
	switch g := s.open; {
	case g == nil:
	case s.closed.Load():
		s.end(g, errApart) // those in it will meet that again
	case !g.wrote:
		s.end(g, nil)
	default:
		s.end(g, g.first.sql.Commit())
	}
}

// end ends a shared transaction, and tells those whose Updates are in it.
func (s *Store) end(g *shared, err error) {
	s.open = nil
	g.first.undo()
	g.err = err
	close(g.done)
}
