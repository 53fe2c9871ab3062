package bunstore

import (
	"context"
	"database/sql/driver"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// entries are a record's index entries, in their order.
type entries struct{ list *[]storage.IndexEntry }

func (e entries) Value() (driver.Value, error) {
	pairs := make([][2]string, len(*e.list))
	for i, entry := range *e.list {
		pairs[i] = [2]string{entry.Name, entry.Value}
	}
	return list(pairs)
}

func (e entries) Scan(column any) error {
	var pairs [][2]string
	if err := decode(column, &pairs); err != nil {
		return err
	}
	*e.list = nil
	for _, p := range pairs {
		*e.list = append(*e.list, storage.IndexEntry{Name: p[0], Value: p[1]})
	}
	return nil
}

var recordRelation = newRelation("records",
	`organization kind id revision entries payload updated_at seal`,
	3, 3, func(r *storage.Record) []any {
		return []any{
			&r.Organization, &r.Kind, &r.ID, &r.Revision, entries{&r.Index}, &r.Payload, &r.UpdatedAt, &r.Seal,
		}
	})

var selectRecord = "SELECT " + recordRelation.list("r") + " FROM @records AS r WHERE r.organization = ? AND r.kind = ? AND r.id = ?"

const (
	deleteRecord statement = `DELETE FROM @records WHERE organization = ? AND kind = ? AND id = ? AND revision = ?`
	insertEntry  statement = `INSERT INTO @record_index (organization, kind, name, value, id) VALUES (?, ?, ?, ?, ?)`
	deleteEntry  statement = `DELETE FROM @record_index WHERE organization = ? AND kind = ? AND id = ?`
)

func (r *reader) Record(ctx context.Context, kind, id string) (rec storage.Record, ok bool, err error) {
	if err := r.enter(ctx, storage.CheckText(kind, id)); err != nil {
		return rec, false, err
	}
	found, err := selected(ctx, r, recordRelation, selectRecord, r.organization, kind, id)
	if err != nil || len(found) == 0 {
		return rec, false, r.fail(ctx, err)
	}
	return found[0], true, nil
}

func (r *reader) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	if err := r.enter(ctx, s.Check()); err != nil {
		return nil, err
	}
	q := r.bun.NewSelect().ColumnExpr(string(recordRelation.list("r"))).Limit(int64(s.Limit))
	by, cursor := "r.id", "(?1)"
	if s.Index == "" {
		q = q.TableExpr(r.store.table("records")+" AS r").Where("r.organization = ? AND r.kind = ?", r.organization, s.Kind)
	} else {
		by, cursor = "i.value", "(?0, ?1)"
		q = q.TableExpr(r.store.table("record_index")+" AS i").
			Join("JOIN "+r.store.table("records")+" AS r ON r.organization = i.organization AND r.kind = i.kind AND r.id = i.id").
			Where("i.organization = ? AND i.kind = ? AND i.name = ?", r.organization, s.Kind, s.Index)
	}
	if s.From != "" {
		q = q.Where(by+" >= ?", s.From)
	}
	if s.To != "" {
		q = q.Where(by+" < ?", s.To)
	}
	order, beyond := []string{by}, " > "
	if s.Index != "" {
		order = append(order, "i.id")
	}
	if s.Descending {
		beyond = " < "
	}
	columns := strings.Join(order, ", ")
	if s.AfterID != "" {
		q = q.Where("("+columns+")"+beyond+cursor, s.AfterValue, s.AfterID)
	}
	if s.Descending {
		columns = strings.Join(order, " DESC, ") + " DESC"
	}
	found, err := listed(ctx, r, recordRelation, q.OrderExpr(columns))
	return found, r.fail(ctx, err)
}

func (t *tx) PutRecord(ctx context.Context, rec storage.Record) (bool, error) {
	if err := t.enter(ctx, rec.Check(t.organization)); err != nil {
		return false, err
	}
	ok, err := put(ctx, t, recordRelation, rec, rec.Revision)
	if !ok || err != nil {
		return false, err
	}
	if rec.Revision > 1 {
		if err := t.execute(ctx, deleteEntry, t.organization, rec.Kind, rec.ID); err != nil {
			return false, err
		}
	}
	for _, e := range rec.Index {
		if err := t.execute(ctx, insertEntry, t.organization, rec.Kind, e.Name, e.Value, rec.ID); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (t *tx) DeleteRecord(ctx context.Context, kind, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(kind, id)); err != nil {
		return false, err
	}
	stands, err := t.find(ctx, recordRelation.stands, t.organization, kind, id, revision)
	if !stands || err != nil {
		return false, t.fail(ctx, err)
	}
	if err := t.execute(ctx, deleteEntry, t.organization, kind, id); err != nil {
		return false, err
	}
	n, err := t.exec(ctx, deleteRecord, t.organization, kind, id, revision)
	return t.changed(ctx, n, err)
}
