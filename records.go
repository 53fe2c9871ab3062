package agentkey

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// loadRecords reads generic records: by id, whole kinds, by an index, and then
// what those lead to.
func (u *unit) loadRecords(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.records = make(map[recordRef]storage.Record)
	if err := u.loadNamed(ctx, tx, slices.Concat(n.records, u.pendingRefs(n))); err != nil {
		return err
	}
	for _, kind := range n.recordKinds {
		if err := u.loadKind(ctx, tx, kind); err != nil {
			return err
		}
	}
	for _, s := range n.scans {
		if _, err := u.scan(ctx, tx, s); err != nil {
			return err
		}
	}
	if n.follow == nil {
		return nil
	}
	return u.loadNamed(ctx, tx, n.follow(u))
}

// pendingRefs name the records that stand beside the pending grants read.
func (u *unit) pendingRefs(n *needs) (refs []recordRef) {
	if !n.approvals {
		return nil
	}
	for _, g := range u.grants {
		if g.Status == grants.StatusPending {
			refs = append(refs, recordRef{kindAccessRequest, g.ID})
		}
	}
	return refs
}

// fewRecords of a kind are read one by one.
const fewRecords = 2

func (u *unit) loadNamed(ctx context.Context, tx storage.ReadTx, refs []recordRef) error {
	byKind := make(map[string][]string)
	for _, ref := range refs {
		byKind[ref.kind] = append(byKind[ref.kind], ref.id)
	}
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		ids := slices.Compact(slices.Sorted(slices.Values(byKind[kind])))
		if len(ids) > fewRecords {
			if err := u.loadRange(ctx, tx, kind, ids); err != nil {
				return err
			}
			continue
		}
		for _, id := range ids {
			r, ok, err := tx.Record(ctx, kind, id)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := u.addRecord(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadRange reads the records of these ids, which ascend. What lies next to each
// other is read together, and the ids of what was made one after another do: a
// page of a list takes one scan. Each scan begins at an id that is left, so that
// wide gaps cost calls and no more.
func (u *unit) loadRange(ctx context.Context, tx storage.ReadTx, kind string, ids []string) error {
	for len(ids) > 0 {
		s := storage.Scan{Kind: kind, From: ids[0], Limit: min(len(ids), storage.MaxPage)}
		found, err := tx.ScanRecords(ctx, s)
		if err != nil {
			return err
		}
		for _, r := range found {
			if _, wanted := slices.BinarySearch(ids, r.ID); !wanted {
				continue
			}
			if err := u.addRecord(r); err != nil {
				return err
			}
		}
		if len(found) < s.Limit {
			return nil
		}
		seen, last := slices.BinarySearch(ids, found[len(found)-1].ID)
		if last {
			seen++
		}
		ids = ids[seen:]
	}
	return nil
}

func (u *unit) loadKind(ctx context.Context, tx storage.ReadTx, kind string) error {
	s := storage.Scan{Kind: kind, Limit: storage.MaxPage}
	for {
		found, err := u.scan(ctx, tx, s)
		if err != nil || len(found) < s.Limit {
			return err
		}
		s.AfterID = found[len(found)-1].ID
	}
}

// scan reads records by an index or by their ids and gives them in that order.
// That a record stands in an index says nothing unless its own entry, which is
// sealed, says the same.
func (u *unit) scan(ctx context.Context, tx storage.ReadTx, s storage.Scan) ([]storage.Record, error) {
	found, err := tx.ScanRecords(ctx, s)
	if err != nil {
		return nil, err
	}
	for i, r := range found {
		if !stands(r, s) {
			return nil, &integrityError{kind: r.Kind, id: r.ID}
		}
		if err := u.addRecord(r); err != nil {
			return nil, err
		}
		found[i].Organization = u.organization
	}
	return found, nil
}

// stands says whether a record's own entries put it where the scan found it.
func stands(r storage.Record, s storage.Scan) bool {
	return s.Index == "" || slices.ContainsFunc(r.Index, func(e storage.IndexEntry) bool {
		return e.Name == s.Index && e.Value >= s.From && (s.To == "" || e.Value < s.To)
	})
}

func (u *unit) addRecord(r storage.Record) error {
	r.Organization = u.organization
	if err := u.verify(r.Row(u.installation), r.Seal); err != nil {
		return err
	}
	u.records[recordRef{r.Kind, r.ID}] = r
	return nil
}

// parsePayload reads what putPayload wrote. The row's seal was checked before.
func parsePayload[T any](r storage.Record) (p T, err error) {
	if json.Unmarshal(r.Payload, &p) != nil {
		return p, &integrityError{kind: r.Kind, id: r.ID}
	}
	return p, nil
}

func (u *unit) putPayload(e *entry, r storage.Record, payload any) (err error) {
	if r.Payload, err = json.Marshal(payload); err != nil {
		return err
	}
	return u.putRecord(e, r)
}

// Indexes that several kinds of records have.
const (
	indexStatus     = "status"     // of suggestions
	indexSuggestion = "suggestion" // of supporters: the suggestion, a slash, and the time of the last request
)

// sortable is a time as an index value: in bytewise order it sorts by time.
func sortable(micros int64) string { return fmt.Sprintf("%020d", micros) }
