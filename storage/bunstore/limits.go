package bunstore

import (
	"context"
	"encoding/base64"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	selectWindows statement = `SELECT w.tier, w.subject, w.times, w.updated_at FROM @list CROSS JOIN @windows AS w
		WHERE w.organization = ? AND w.tier = p.v ->> 0 AND w.subject = p.v ->> 1`
	putWindow statement = `INSERT INTO @windows (organization, tier, subject, times, updated_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (organization, tier, subject) DO UPDATE SET times = excluded.times, updated_at = excluded.updated_at`
	// On Postgres windows travel together.
	putWindows statement = `INSERT INTO @windows (organization, tier, subject, times, updated_at)
		SELECT ?, p.v ->> 0, p.v ->> 1, decode(p.v ->> 2, 'base64'), (p.v ->> 3)::bigint FROM @list
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
	err = r.each(ctx, selectWindows, []any{wanted, r.organization}, func(rows Row) error {
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
	standing := make(map[storage.WindowRef]storage.Window, len(ws)) // of several, the last
	for _, w := range ws {
		if err := storage.CheckText(w.Tier, w.Subject); err != nil {
			return t.fail(ctx, err)
		}
		standing[w.WindowRef] = w
	}
	t.wrote = t.wrote || len(ws) > 0
	return t.fail(ctx, t.putWindows(ctx, standing))
}

func (t *tx) putWindows(ctx context.Context, standing map[storage.WindowRef]storage.Window) error {
	items := make([][4]string, 0, len(standing))
	for ref, w := range standing {
		var err error
		switch {
		case len(w.Times) == 0:
			err = t.later(ctx, deleteWindow, t.organization, w.Tier, w.Subject)
		case t.store.postgres:
			items = append(items, [4]string{ref.Tier, ref.Subject, base64.StdEncoding.EncodeToString(w.Times), strconv.FormatInt(w.UpdatedAt, 10)})
		default:
			_, err = t.exec(ctx, putWindow, t.organization, w.Tier, w.Subject, w.Times, w.UpdatedAt)
		}
		if err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return nil
	}
	windows, err := list(items)
	if err != nil {
		return err
	}
	return t.later(ctx, putWindows, t.organization, windows)
}
