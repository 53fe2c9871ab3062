package bunstore

import (
	"context"
	"database/sql"
	"encoding/base64"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	selectWindows statement = `SELECT w.tier, w.subject, w.times, w.updated_at FROM @list CROSS JOIN @windows AS w
		WHERE w.organization = ? AND w.tier = p.v ->> 0 AND w.subject = p.v ->> 1`
	putWindow statement = `INSERT INTO @windows (organization, tier, subject, times, updated_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (organization, tier, subject) DO UPDATE SET times = excluded.times, updated_at = excluded.updated_at`
	// On Postgres windows travel together, with the lines where some follow.
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
	if r.flush != nil {
		if err := r.flush(ctx); err != nil {
			return nil, r.fail(ctx, err)
		}
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
		case t.store.postgres && len(w.Times) > 0:
			t.defers(w)
			continue
		case t.store.postgres:
			delete(t.deferred, w.WindowRef)
		}
		switch {
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

// defers keeps a window until the lines are written, with which it needs no round
// trip of its own, or until the windows are read again or the transaction ends.
func (t *tx) defers(w storage.Window) {
	if t.deferred == nil {
		t.deferred = make(map[storage.WindowRef]storage.Window)
		t.flush = t.writeDeferred
	}
	t.wrote = true
	w.Times = cloned(w.Times)
	t.deferred[w.WindowRef] = w
}

// takeDeferred is what was deferred, as the argument of putWindows.
func (t *tx) takeDeferred() (string, error) {
	items := make([][4]string, 0, len(t.deferred))
	for ref, w := range t.deferred {
		items = append(items, [4]string{ref.Tier, ref.Subject, base64.StdEncoding.EncodeToString(w.Times), strconv.FormatInt(w.UpdatedAt, 10)})
	}
	clear(t.deferred)
	return list(items)
}

func (t *tx) writeDeferred(ctx context.Context) error {
	if len(t.deferred) == 0 {
		return nil
	}
	windows, err := t.takeDeferred()
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, putWindows, t.organization, windows)
	return err
}
