package filestore

import (
	"cmp"
	"context"
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

func (r *reader) Head(ctx context.Context) (storage.Head, error) {
	if err := r.begin(ctx); err != nil {
		return storage.Head{}, err
	}
	return clone(r.org.Head), nil
}

func (r *reader) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	if err := r.begin(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	rest := r.org.Lines[min(max(from, 0), int64(len(r.org.Lines))):]
	return clone(rest[:min(limit, len(rest))]), nil
}

func (r *reader) Checkpoints(ctx context.Context, after int64, limit int) ([]storage.Checkpoint, error) {
	if err := r.begin(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	rest := r.org.Checkpoints
	for len(rest) > 0 && rest[0].Size <= after {
		rest = rest[1:]
	}
	return clone(rest[:min(limit, len(rest))]), nil
}

func (t *tx) Append(ctx context.Context, a storage.Append) error {
	if err := t.begin(ctx, a.Check(t.org.Head)); err != nil {
		return err
	}
	a = clone(a)
	t.org.Lines = append(t.org.Lines, a.Lines...)
	t.org.Head.Head, t.org.Head.Seal = a.Head, a.Seal
	if a.Keep {
		t.org.Head.KeptSize, t.org.Head.KeptTime = a.Head.Size, a.Head.Time
		t.org.Checkpoints = append(t.org.Checkpoints, storage.Checkpoint{Size: a.Head.Size, Signed: a.Head.Signed})
	}
	return nil
}

func (t *tx) Erase(ctx context.Context, erasures []storage.Erasure) error {
	if err := t.begin(ctx, checkIDs(len(erasures))); err != nil {
		return err
	}
	for _, e := range erasures {
		if e.Seq < 0 || e.Seq >= int64(len(t.org.Lines)) {
			return t.invalid("erasure of no line")
		}
		line := &t.org.Lines[e.Seq]
		if e.Content {
			line.Content = nil
		}
		if e.Personal {
			line.Personal = nil
		}
	}
	return nil
}

func (r *reader) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	err := r.begin(ctx, storage.CheckText(kind, id))
	rec, ok := r.org.Records[join(kind, id)]
	if err != nil || !ok {
		return storage.Record{}, false, err
	}
	return clone(rec), true, nil
}

// place is where a record stands in an index.
type place struct{ value, id string }

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.value, o.value), cmp.Compare(p.id, o.id))
}

// placeOf is the place of a record in the scan's index, if it has one. Without
// an index the value is the id itself.
func placeOf(rec storage.Record, index string) (place, bool) {
	if index == "" {
		return place{rec.ID, rec.ID}, true
	}
	for _, e := range rec.Index {
		if e.Name == index {
			return place{e.Value, rec.ID}, true
		}
	}
	return place{}, false
}

func (r *reader) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	if err := r.begin(ctx, s.Check()); err != nil {
		return nil, err
	}
	direction := 1
	if s.Descending {
		direction = -1
	}
	cursor := place{s.AfterValue, s.AfterID}
	if s.Index == "" {
		cursor.value = s.AfterID
	}
	var found []storage.Record
	for _, rec := range r.org.Records {
		p, ok := placeOf(rec, s.Index)
		if ok && rec.Kind == s.Kind && p.value >= s.From && (s.To == "" || p.value < s.To) &&
			(s.AfterID == "" || direction*p.compare(cursor) > 0) {
			found = append(found, rec)
		}
	}
	slices.SortFunc(found, func(a, b storage.Record) int {
		p, _ := placeOf(a, s.Index)
		q, _ := placeOf(b, s.Index)
		return direction * p.compare(q)
	})
	return clone(found[:min(s.Limit, len(found))]), nil
}

func (t *tx) PutRecord(ctx context.Context, rec storage.Record) (bool, error) {
	if err := t.begin(ctx, rec.Check(t.name)); err != nil {
		return false, err
	}
	return put(t.org.Records, join(rec.Kind, rec.ID), rec, func(r storage.Record) int64 { return r.Revision }, anyRow), nil
}

func (t *tx) DeleteRecord(ctx context.Context, kind, id string, revision int64) (bool, error) {
	err := t.begin(ctx, storage.CheckText(kind, id))
	if rec, ok := t.org.Records[join(kind, id)]; err != nil || !ok || rec.Revision != revision {
		return false, err
	}
	delete(t.org.Records, join(kind, id))
	return true, nil
}

func (t *tx) Enqueue(ctx context.Context, ds []storage.Delivery) error {
	if err := t.begin(ctx, checkIDs(len(ds))); err != nil {
		return err
	}
	for _, d := range ds {
		if err := d.Check(t.name); err != nil {
			t.failed = err
			return err
		}
		if _, taken := t.org.Outbox[d.ID]; taken {
			return t.invalid("id of a delivery is taken")
		}
		t.org.Outbox[d.ID] = clone(d)
	}
	return nil
}

func (t *tx) Settle(ctx context.Context, s storage.Settlement) (bool, error) {
	err := t.begin(ctx, storage.CheckText(s.ID, s.LeaseNode, s.LastError, string(s.State)))
	d, ok := t.org.Outbox[s.ID]
	if err != nil || !ok || d.LeaseUntil == 0 || d.LeaseUntil != s.LeaseUntil || d.LeaseNode != s.LeaseNode {
		return false, err
	}
	d.State, d.NextAt, d.LastError, d.LeaseUntil, d.LeaseNode = s.State, s.NextAt, s.LastError, 0, ""
	t.org.Outbox[s.ID] = d
	if s.Done {
		delete(t.org.Outbox, s.ID)
	}
	return true, nil
}

func (r *reader) Windows(ctx context.Context, refs []storage.WindowRef) ([]storage.Window, error) {
	if err := r.begin(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	found, _ := list(r.org.Windows, nil, "", len(refs), func(w storage.Window) bool {
		return slices.Contains(refs, w.WindowRef)
	})
	return found, nil
}

func (t *tx) PutWindows(ctx context.Context, ws []storage.Window) error {
	if err := t.begin(ctx, checkIDs(len(ws))); err != nil {
		return err
	}
	for _, w := range ws {
		if err := storage.CheckText(w.Tier, w.Subject); err != nil {
			t.failed = err
			return err
		}
		t.org.Windows[join(w.Tier, w.Subject)] = clone(w)
		if len(w.Times) == 0 {
			delete(t.org.Windows, join(w.Tier, w.Subject))
		}
	}
	return nil
}
