package storagetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// strayingTx looks for records in every organization.
type strayingTx struct {
	storage.Tx
	store storage.Store
}

func (t strayingTx) Record(ctx context.Context, kind, id string) (r storage.Record, ok bool, err error) {
	if r, ok, err = t.Tx.Record(ctx, kind, id); ok || err != nil {
		return r, ok, err
	}
	orgs, err := t.store.FindRecord(ctx, kind, id)
	if err != nil || len(orgs) == 0 {
		return r, false, err
	}
	err = t.store.View(context.Background(), orgs[0], func(ctx context.Context, tx storage.ReadTx) error {
		r, ok, err = tx.Record(ctx, kind, id)
		return err
	})
	return r, ok, err
}

// adoptingTx takes rows of other organizations for its own.
type adoptingTx struct {
	storage.Tx
	org string
}

func (t adoptingTx) PutTool(ctx context.Context, tool storage.Tool) (bool, error) {
	tool.Organization = t.org
	return t.Tx.PutTool(ctx, tool)
}

// keeper keeps the payloads it is given.
type keeper struct {
	mu       sync.Mutex
	payloads map[string][]byte
}

type keepingTx struct {
	storage.Tx
	org string
	*keeper
}

func (t keepingTx) PutRecord(ctx context.Context, r storage.Record) (bool, error) {
	ok, err := t.Tx.PutRecord(ctx, r)
	if ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.payloads[t.org+r.Kind+r.ID] = r.Payload
	}
	return ok, err
}

func (t keepingTx) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	r, ok, err := t.Tx.Record(ctx, kind, id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if kept := t.payloads[t.org+kind+id]; ok && len(kept) == len(r.Payload) {
		r.Payload = kept
	}
	return r, ok, err
}

// collatingView lists agents as people would.
type collatingView struct{ storage.ReadTx }

func (t collatingView) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	p, err := t.ReadTx.Agents(ctx, q)
	slices.SortStableFunc(p.Agents, func(a, b storage.Agent) int {
		return strings.Compare(strings.ToLower(b.ID), strings.ToLower(a.ID))
	})
	return p, err
}

// strictTx takes a conflict for a failed statement.
type strictTx struct{ storage.Tx }

func (t strictTx) PutTool(ctx context.Context, tool storage.Tool) (bool, error) {
	ok, err := t.Tx.PutTool(ctx, tool)
	if err == nil && !ok && tool.Revision == 1 && tool.ID == "tool-9" {
		return false, errors.New("UNIQUE constraint failed")
	}
	return ok, err
}

// gappyTx mends what doesn't follow the head.
type gappyTx struct{ storage.Tx }

func (t gappyTx) Append(ctx context.Context, a storage.Append) error {
	head, err := t.Head(ctx)
	if err != nil || len(a.Lines) == 0 {
		return t.Tx.Append(ctx, a)
	}
	a.Lines = slices.Clone(a.Lines)
	for i := range a.Lines {
		a.Lines[i].Seq = head.Size + int64(i)
	}
	return t.Tx.Append(ctx, a)
}

// laxTx lets a key refer to nothing.
type laxTx struct {
	storage.Tx
	org string
}

func (t laxTx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	if k.Check(t.org) == nil && k.Agent == "none" {
		_, err := t.PutAgent(ctx, storage.Agent{Organization: t.org, ID: k.Agent, Revision: 1})
		if err != nil {
			return false, err
		}
	}
	return t.Tx.PutKey(ctx, k)
}

// repairingTx mends text, as some drivers do.
type repairingTx struct{ storage.Tx }

func (t repairingTx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	a.Description = strings.ToValidUTF8(a.Description, "\ufffd")
	return t.Tx.PutAgent(ctx, a)
}

// roundingTx keeps milliseconds.
type roundingTx struct{ storage.Tx }

func (t roundingTx) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	k.CreatedAt = k.CreatedAt / 1000 * 1000
	return t.Tx.PutDataKey(ctx, k)
}

// generousTx has no largest page.
type generousTx struct{ storage.Tx }

func (t generousTx) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	return t.Tx.Lines(ctx, from, min(limit, storage.MaxPage))
}

// laggingStore answers event queries from an index that lags behind.
type laggingStore struct{ storage.Store }

func (s laggingStore) Events(ctx context.Context, org string, q storage.EventQuery) (storage.EventPage, error) {
	newest, err := s.Store.Events(ctx, org, storage.EventQuery{Limit: 1})
	if err == nil && q.Before == 0 && !q.Count && len(newest.Lines) == 1 && newest.Lines[0].Seq > 0 {
		q.Before = newest.Lines[0].Seq
	}
	return s.Store.Events(ctx, org, q)
}

// doubleStore leases without regard to leases.
type doubleStore struct {
	storage.Store
	mu   *sync.Mutex
	last *[]storage.Delivery
}

func (s doubleStore) Lease(ctx context.Context, q storage.LeaseQuery) ([]storage.Delivery, error) {
	ds, err := s.Store.Lease(ctx, q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && len(ds) == 0 && len(*s.last) > 0 && (*s.last)[0].LeaseUntil > q.Now {
		ds, *s.last = *s.last, nil
		return ds, nil
	}
	*s.last = ds
	return ds, err
}

// bare is a context without values, so that nobody knows what it runs in.
type bare struct{ context.Context }

func (bare) Value(any) any { return nil }

func nests(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		return s.Update(bare{ctx}, org, fn)
	}}
}

// undeadTx answers after its end.
type undeadTx struct{ storage.Tx }

func (t undeadTx) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	k, err := t.Tx.DataKeys(ctx)
	if errors.Is(err, storage.ErrClosed) {
		return nil, nil
	}
	return k, err
}

// tireless goes on when its context has ended.
func tireless(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.Update(context.WithoutCancel(ctx), org, fn)
	}}
}

// lockedView makes readers wait for the writer.
func lockedView(s storage.Store) storage.Store {
	return withView{s, func(ctx context.Context, org string, fn viewFn) error {
		return s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, tx) })
	}}
}

// fickleTx reads every record as it is now.
type fickleTx struct {
	storage.ReadTx
	store storage.Store
	org   string
}

func (t fickleTx) Record(ctx context.Context, kind, id string) (r storage.Record, ok bool, err error) {
	if _, err := t.Head(ctx); err != nil {
		return r, false, err
	}
	err = t.store.View(bare{ctx}, t.org, func(ctx context.Context, tx storage.ReadTx) error {
		r, ok, err = tx.Record(ctx, kind, id)
		return err
	})
	return r, ok, err
}

// endlessView doesn't bound a View.
func endlessView(s storage.Store) storage.Store {
	return withView{s, func(ctx context.Context, org string, fn viewFn) error {
		err := s.View(ctx, org, func(bounded context.Context, tx storage.ReadTx) error {
			return fn(context.WithoutCancel(bounded), tx)
		})
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil
		}
		return err
	}}
}

// confused takes a busy head for an ended context.
func confused(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		err := s.Update(ctx, org, fn)
		if errors.Is(err, storage.ErrBusy) {
			return context.DeadlineExceeded
		}
		return err
	}}
}

// twiceRun runs fn twice in one transaction and keeps what both runs did.
func twiceRun(s storage.Store) storage.Store {
	return withUpdate{s, func(ctx context.Context, org string, fn updateFn) error {
		return s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
			if _, ok, err := tx.Organization(ctx); err != nil || ok || org != "acme" {
				return fn(ctx, tx)
			}
			if err := fn(ctx, tx); err != nil {
				return err
			}
			if h, err := tx.Head(ctx); err != nil || h.Size > 0 {
				return nil
			}
			list, err := tx.ScanRecords(ctx, storage.Scan{Kind: "setting", From: "record", To: "recore", Limit: 1})
			if err != nil || len(list) == 0 {
				return err
			}
			return fn(ctx, tx)
		})
	}}
}

// immortal goes on after Close.
type immortal struct{ storage.Store }

func (immortal) Close() error { return nil }

// sharedDigests lets every organization have a digest.
type sharingTx struct {
	storage.Tx
	org string
}

func (t sharingTx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	ok, err := t.Tx.PutKey(ctx, k)
	if err == nil && !ok && strings.HasPrefix(t.org, "org-") && k.Revision == 1 {
		return len(t.org) == len("org-0-0"), nil
	}
	return ok, err
}

// hoarder keeps several active data keys.
type hoarderTx struct{ storage.Tx }

func (t hoarderTx) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	ok, err := t.Tx.PutDataKey(ctx, k)
	if err == nil && !ok && k.State == vault.KeyActive && k.ID == "seal-1" {
		return true, nil
	}
	return ok, err
}

// flaky is a store of which one commit's answer gets lost. When it is honest it
// finds out what became of it.
type flaky struct {
	storage.Store
	honest  bool
	lose    atomic.Bool
	applied bool
}

var errLost = errors.New("connection lost")

func (s *flaky) Update(ctx context.Context, org string, fn updateFn) error {
	if !s.lose.CompareAndSwap(true, false) {
		return s.Store.Update(ctx, org, fn)
	}
	var before, after int64
	err := s.Store.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
		h, err := tx.Head(ctx)
		before = h.Size
		if err = errors.Join(err, fn(ctx, tx)); err != nil {
			return err
		}
		h, err = tx.Head(ctx)
		after = h.Size
		if err == nil && !s.applied {
			return errLost
		}
		return err
	})
	switch {
	case err != nil && !errors.Is(err, errLost):
		return err
	case before == after:
		return storage.ErrUnknown
	case s.honest && s.applied:
		return nil
	default:
		return storage.ErrUnavailable
	}
}

// hanging never answers, whatever its context says.
type hanging struct{ storage.Store }

func (hanging) Update(context.Context, string, updateFn) error {
	time.Sleep(time.Minute)
	return nil
}
