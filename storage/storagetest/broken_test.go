package storagetest_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

type (
	updateFn = func(context.Context, storage.Tx) error
	viewFn   = func(context.Context, storage.ReadTx) error
)

// withTx is a store whose Updates give fn another Tx.
type withTx struct {
	storage.Store
	wrap func(tx storage.Tx, org string) storage.Tx
}

func (s withTx) Update(ctx context.Context, org string, fn updateFn) error {
	return s.Store.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, s.wrap(tx, org)) })
}

// withUpdate is a store with another Update.
type withUpdate struct {
	storage.Store
	update func(ctx context.Context, org string, fn updateFn) error
}

func (s withUpdate) Update(ctx context.Context, org string, fn updateFn) error {
	return s.update(ctx, org, fn)
}

// withView is a store with another View.
type withView struct {
	storage.Store
	view func(ctx context.Context, org string, fn viewFn) error
}

func (s withView) View(ctx context.Context, org string, fn viewFn) error { return s.view(ctx, org, fn) }

// forgivingTx finds a bad row by itself and goes on.
type forgivingTx struct {
	storage.Tx
	org string
}

func (t forgivingTx) PutRecord(ctx context.Context, r storage.Record) (bool, error) {
	if err := r.Check(t.org); err != nil {
		return false, err
	}
	return t.Tx.PutRecord(ctx, r)
}

// appliesAnyway commits although fn has failed.
func appliesAnyway(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		var failed error
		err := s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			failed = fn(ctx, tx)
			return nil
		})
		return errors.Join(failed, err)
	}}
}

// partialTx notes the windows, which the store then keeps whatever happens.
type partialTx struct {
	storage.Tx
	windows *[]storage.Window
}

func (t partialTx) PutWindows(ctx context.Context, ws []storage.Window) error {
	*t.windows = append(*t.windows, ws...)
	return t.Tx.PutWindows(ctx, ws)
}

func partial(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		var windows []storage.Window
		err := s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			return fn(ctx, partialTx{tx, &windows})
		})
		if errors.Is(err, context.Canceled) || len(windows) == 0 || err == nil {
			return err
		}
		_ = s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error { return tx.PutWindows(ctx, windows) })
		return err
	}}
}

// staleTx reads grants and head as they were before the wait for the head.
type staleTx struct {
	storage.Tx
	before storage.ReadTx
	wrote  *bool
}

func (t staleTx) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	*t.wrote = true
	return t.Tx.PutGrant(ctx, g)
}

func (t staleTx) DeleteTool(ctx context.Context, id string, revision int64) (bool, error) {
	*t.wrote = true
	return t.Tx.DeleteTool(ctx, id, revision)
}

func (t staleTx) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	if _, err := t.Head(ctx); err != nil || *t.wrote {
		return t.Tx.Grants(ctx, q)
	}
	if err := q.Check(); err != nil {
		return t.Tx.Grants(ctx, q)
	}
	return t.before.Grants(context.WithoutCancel(ctx), q)
}

// decidesWhileLocking decides on what it saw when it began to wait.
func decidesWhileLocking(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		var before storage.ReadTx
		err := errors.New("never run")
		_ = s.View(ctx, org, func(_ context.Context, tx storage.ReadTx) error {
			before = tx
			err = s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
				return fn(ctx, staleTx{tx, before, new(bool)})
			})
			return nil
		})
		if before == nil {
			return s.Update(ctx, org, fn)
		}
		return err
	}}
}

// staleHead answers the first head of a transaction from before the wait.
type staleHeadTx struct {
	storage.Tx
	before storage.Head
	first  *bool
}

func (t staleHeadTx) Head(ctx context.Context) (storage.Head, error) {
	h, err := t.Tx.Head(ctx)
	if err == nil && *t.first {
		h = t.before
	}
	return h, err
}

func (t staleHeadTx) Append(ctx context.Context, a storage.Append) error {
	*t.first = false
	return t.Tx.Append(ctx, a)
}

func staleHead(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		var before storage.Head
		_ = s.View(ctx, org, func(ctx context.Context, tx storage.ReadTx) (err error) {
			before, err = tx.Head(ctx)
			return err
		})
		first := true
		return s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			return fn(ctx, staleHeadTx{tx, before, &first})
		})
	}}
}

// optimistic tries fn out, on nothing, while another holds the head.
func optimistic(s storage.Store) storage.Store {
	var running atomic.Int32
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		if running.Add(1) > 1 {
			func() {
				defer func() { _ = recover() }()
				_ = memstore.New().Update(ctx, org, fn)
			}()
		}
		defer running.Add(-1)
		return s.Update(ctx, org, fn)
	}}
}

// lossyTx puts an agent over any other revision.
type lossyTx struct{ storage.Tx }

func (t lossyTx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	put, err := t.Tx.PutAgent(ctx, a)
	if put || err != nil || a.Revision == 1 {
		return put, err
	}
	p, err := t.Agents(ctx, storage.AgentQuery{IDs: []string{a.ID}})
	if err != nil || len(p.Agents) == 0 {
		return false, err
	}
	a.Revision = p.Agents[0].Revision + 1
	return t.Tx.PutAgent(ctx, a)
}

// insertsTx inserts whatever revision it is given.
type insertsTx struct {
	storage.Tx
	org string
}

func (t insertsTx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	if a.Check(t.org) == nil && a.Revision > 1 {
		p, err := t.Agents(ctx, storage.AgentQuery{IDs: []string{a.ID}})
		if err == nil && len(p.Agents) == 0 {
			a.Revision = 1
		}
	}
	return t.Tx.PutAgent(ctx, a)
}

// dragsAlong undoes, with an Update that fails, the next one of each other
// organization, and tells nobody.
func dragsAlong(s storage.Store) storage.Store {
	var mu sync.Mutex
	total, own, last := 0, make(map[string]int), make(map[string]int)
	strangers := func(org string, failed int) (more bool) {
		mu.Lock()
		defer mu.Unlock()
		total, own[org] = total+failed, own[org]+failed
		before, known := last[org]
		last[org] = total - own[org]
		return known && before < last[org]
	}
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		err := s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			if err := fn(ctx, tx); err != nil {
				strangers(org, 1)
				return err
			}
			if strangers(org, 0) {
				return errLie
			}
			return nil
		})
		if errors.Is(err, errLie) {
			return nil
		}
		return err
	}}
}

var errLie = errors.New("rolled back")

// liar says that it has committed.
func liar(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		err := s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			if err := fn(ctx, tx); err != nil {
				return err
			}
			if _, err := tx.Head(ctx); err != nil {
				return nil // lets the error of the transaction through
			}
			return errLie
		})
		if errors.Is(err, errLie) {
			return nil
		}
		return err
	}}
}
