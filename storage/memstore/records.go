package memstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

func (r *reader) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	var found []storage.DataKey
	for _, k := range r.dataKeys.descend("") {
		found = append(found, *copyDataKey(*k))
	}
	return found, nil
}

func (t *tx) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	if err := t.enter(ctx, k.Check(t.name)); err != nil {
		return false, err
	}
	var stands int64
	old, ok := t.dataKeys.get(k.ID)
	if ok {
		stands = old.Revision
	}
	if !follows(k.Revision, stands) || k.State == vault.KeyActive && t.otherActive(k) {
		return false, nil
	}
	if ok && old.Purpose != k.Purpose {
		return false, t.invalid("identity of a data key changed")
	}
	t.dataKeys = t.dataKeys.put(k.ID, copyDataKey(k))
	return true, nil
}

// otherActive reports whether another key of k's purpose is active.
func (t *tx) otherActive(k storage.DataKey) bool {
	for _, other := range t.dataKeys.ascend("") {
		if other.ID != k.ID && other.Purpose == k.Purpose && other.State == vault.KeyActive {
			return true
		}
	}
	return false
}

func (t *tx) ReserveSeals(ctx context.Context, id string, n int64) (int64, bool, error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return 0, false, err
	}
	old, ok := t.dataKeys.get(id)
	if !ok {
		return 0, false, nil
	}
	k := *old
	k.Reserved += n
	t.dataKeys = t.dataKeys.put(id, &k)
	return k.Reserved, true, nil
}

func (r *reader) Record(ctx context.Context, kind, id string) (rec storage.Record, ok bool, err error) {
	if err := r.enter(ctx, storage.CheckText(kind, id)); err != nil {
		return rec, false, err
	}
	found, ok := r.records.get(key(kind, id))
	if !ok {
		return rec, false, nil
	}
	return *copyRecord(*found), true, nil
}

func (r *reader) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	if err := r.enter(ctx, s.Check()); err != nil {
		return nil, err
	}
	rows, prefix, cursor := r.index, key(s.Kind, s.Index, ""), key(s.Kind, s.Index, s.AfterValue, s.AfterID)
	if s.Index == "" {
		rows, prefix, cursor = r.records, key(s.Kind, ""), key(s.Kind, s.AfterID)
	}
	// All keys of the range lie from low up to below high.
	low, high := prefix+s.From, prefix+s.To
	if s.To == "" {
		high = prefix[:len(prefix)-1] + "\x01"
	}
	seen := func(k string) bool {
		return s.AfterID != "" && (s.Descending && k >= cursor || !s.Descending && k <= cursor)
	}
	seq := rows.ascend(low)
	if s.Descending {
		seq = rows.descend(high)
	}
	var found []storage.Record
	for k, rec := range seq {
		if k < low || k >= high || len(found) == s.Limit {
			break
		}
		if !seen(k) {
			found = append(found, *copyRecord(*rec))
		}
	}
	return found, nil
}

func (t *tx) PutRecord(ctx context.Context, rec storage.Record) (bool, error) {
	if err := t.enter(ctx, rec.Check(t.name)); err != nil {
		return false, err
	}
	var stands int64
	old, ok := t.records.get(key(rec.Kind, rec.ID))
	if ok {
		stands = old.Revision
	}
	if !follows(rec.Revision, stands) {
		return false, nil
	}
	if ok {
		t.dropIndex(old)
	} else {
		t.share(putRoute(t.name, rec.Kind, rec.ID))
	}
	stored := copyRecord(rec)
	t.records = t.records.put(key(rec.Kind, rec.ID), stored)
	for _, e := range rec.Index {
		t.index = t.index.put(key(rec.Kind, e.Name, e.Value, rec.ID), stored)
	}
	return true, nil
}

func (t *tx) DeleteRecord(ctx context.Context, kind, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(kind, id)); err != nil {
		return false, err
	}
	old, ok := t.records.get(key(kind, id))
	if !ok || old.Revision != revision {
		return false, nil
	}
	t.dropIndex(old)
	t.records = t.records.drop(key(kind, id))
	t.share(dropRoute(t.name, kind, id))
	return true, nil
}

func (t *tx) dropIndex(rec *storage.Record) {
	for _, e := range rec.Index {
		t.index = t.index.drop(key(rec.Kind, e.Name, e.Value, rec.ID))
	}
}

func putRoute(organization, kind, id string) func(*root) bool {
	return func(r *root) bool {
		r.records = r.records.put(key(kind, id, organization), organization)
		return true
	}
}

func dropRoute(organization, kind, id string) func(*root) bool {
	return func(r *root) bool {
		r.records = r.records.drop(key(kind, id, organization))
		return true
	}
}

func (r *reader) Windows(ctx context.Context, refs []storage.WindowRef) ([]storage.Window, error) {
	if err := r.enter(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	var found []storage.Window
	seen := make(map[storage.WindowRef]bool, len(refs))
	for _, ref := range refs {
		if err := storage.CheckText(ref.Tier, ref.Subject); err != nil {
			return nil, r.fail(err)
		}
		if w, ok := r.windows.get(key(ref.Tier, ref.Subject)); ok && !seen[ref] {
			found = append(found, *copyWindow(*w))
			seen[ref] = true
		}
	}
	return found, nil
}

func (t *tx) PutWindows(ctx context.Context, ws []storage.Window) error {
	if err := t.enter(ctx, checkIDs(len(ws))); err != nil {
		return err
	}
	for _, w := range ws {
		if err := storage.CheckText(w.Tier, w.Subject); err != nil {
			return t.fail(err)
		}
		if len(w.Times) == 0 {
			t.windows = t.windows.drop(key(w.Tier, w.Subject))
		} else {
			t.windows = t.windows.put(key(w.Tier, w.Subject), copyWindow(w))
		}
	}
	return nil
}

func (t *tx) Enqueue(ctx context.Context, ds []storage.Delivery) error {
	if err := t.enter(ctx, checkIDs(len(ds))); err != nil {
		return err
	}
	for _, d := range ds {
		if err := d.Check(t.name); err != nil {
			return t.fail(err)
		}
		if !t.share(enqueue(copyDelivery(d))) {
			return t.invalid("id of a delivery is taken")
		}
	}
	return nil
}

func (t *tx) Settle(ctx context.Context, s storage.Settlement) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(s.ID, s.LeaseNode, s.LastError, string(s.State))); err != nil {
		return false, err
	}
	if !s.Done && s.State != storage.DeliveryPending && s.State != storage.DeliveryDead {
		return false, t.fail(fmt.Errorf("%w: state of a delivery", storage.ErrInvalid))
	}
	return t.share(settle(t.name, s)), nil
}

func outboxKey(d *storage.Delivery) string { return key(d.Organization, d.ID) }
func queueKey(d *storage.Delivery) string  { return timeKey(d.NextAt) + outboxKey(d) }

func enqueue(d *storage.Delivery) func(*root) bool {
	return func(r *root) bool {
		if r.outbox.has(outboxKey(d)) {
			return false
		}
		r.replaceDelivery(nil, d)
		return true
	}
}

func settle(organization string, s storage.Settlement) func(*root) bool {
	return func(r *root) bool {
		old, ok := r.outbox.get(key(organization, s.ID))
		if !ok || old.LeaseUntil == 0 || old.LeaseUntil != s.LeaseUntil || old.LeaseNode != s.LeaseNode {
			return false
		}
		if s.Done {
			r.replaceDelivery(old, nil)
			return true
		}
		d := *old
		d.State, d.NextAt, d.LastError = s.State, s.NextAt, s.LastError
		d.LeaseUntil, d.LeaseNode = 0, ""
		r.replaceDelivery(old, &d)
		return true
	}
}

// replaceDelivery puts is in the place of was, either of which may be nil, and
// keeps the queue.
func (r *root) replaceDelivery(was, is *storage.Delivery) {
	if was != nil {
		r.outbox, r.queue = r.outbox.drop(outboxKey(was)), r.queue.drop(queueKey(was))
	}
	if is == nil {
		return
	}
	r.outbox = r.outbox.put(outboxKey(is), is)
	if is.State != storage.DeliveryDead {
		r.queue = r.queue.put(queueKey(is), is)
	}
}

// recordHolders names at most two organizations that hold the record.
func (r *root) recordHolders(kind, id string) []string {
	var found []string
	prefix := key(kind, id, "")
	for k, organization := range r.records.ascend(prefix) {
		if !strings.HasPrefix(k, prefix) || len(found) == 2 {
			break
		}
		found = append(found, organization)
	}
	return found
}
