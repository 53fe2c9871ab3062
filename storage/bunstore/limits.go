package bunstore

import (
	"context"
	"database/sql"

	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	selectWindows statement = `SELECT w.tier, w.subject, w.times, w.updated_at FROM @list CROSS JOIN @windows AS w
		WHERE w.organization = ? AND w.tier = p.v ->> 0 AND w.subject = p.v ->> 1`
	putWindow statement = `INSERT INTO @windows (organization, tier, subject, times, updated_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (organization, tier, subject) DO UPDATE SET times = excluded.times, updated_at = excluded.updated_at`
	deleteWindow statement = `DELETE FROM @windows WHERE organization = ? AND tier = ? AND subject = ?`
)

func (r *reader) Windows(ctx context.Context, refs []storage.WindowRef) ([]storage.Window, error) {
	if err := r.enter(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	pairs := make([][2]string, len(refs))
	for i, ref := range refs {
		if err := storage.CheckText(ref.Tier, ref.Subject); err != nil {
			return nil, r.fail(ctx, err)
		}
		pairs[i] = [2]string{ref.Tier, ref.Subject}
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	wanted, err := list(unique(pairs))
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	var found []storage.Window
	err = r.each(ctx, selectWindows, []any{wanted, r.organization}, func(rows *sql.Rows) error {
		var w storage.Window
		err := scan(rows, &w.Tier, &w.Subject, &w.Times, &w.UpdatedAt)
		found = append(found, w)
		return err
	})
	return found, r.fail(ctx, err)
}

func (t *tx) PutWindows(ctx context.Context, ws []storage.Window) error {
	if err := t.enter(ctx, checkIDs(len(ws))); err != nil {
		return err
	}
	for _, w := range ws {
		err := storage.CheckText(w.Tier, w.Subject)
		switch {
		case err != nil:
			return t.fail(ctx, err)
		case len(w.Times) == 0:
			err = t.execute(ctx, deleteWindow, t.organization, w.Tier, w.Subject)
		default:
			err = t.execute(ctx, putWindow, t.organization, w.Tier, w.Subject, w.Times, w.UpdatedAt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
