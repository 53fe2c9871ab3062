package agentkey

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// kindTile is the kind of record that holds a tile of an organization's log: on
// level 1 the roots of 256 leaves each, on level 2 those of 256 such roots, and so
// on. Tiles spare proofs to read the log. They have neither seal nor event,
// because they decide nothing: whatever is read from one is proven against the
// signed root. Vends don't write them: proofs do, and the replay at the intervals.
const kindTile = "log_tile"

func tileID(level int, index int64) string { return fmt.Sprintf("%d/%016d", level, index) }

// errTile says that a tile was changed. It is an audit.ErrMismatch.
var errTile = fmt.Errorf("%w: tile", audit.ErrMismatch)

func tileHashes(r storage.Record) ([]audit.Hash, error) {
	const size = len(audit.Hash{})
	if len(r.Payload)%size != 0 || len(r.Payload) > audit.TileWidth*size {
		return nil, errTile
	}
	hashes := make([]audit.Hash, len(r.Payload)/size)
	for i := range hashes {
		copy(hashes[i][:], r.Payload[i*size:])
	}
	return hashes, nil
}

// keepTiles makes the tiles of the log up to a size. It reads the lines that are
// not in a tile yet, page by page, and writes a tile at a time: whoever does so at
// the same time, in any process, goes on from there.
func (m *Manager) keepTiles(ctx context.Context, organization string, size int64) error {
	for {
		have, err := m.tiled(ctx, organization)
		if err != nil || have >= size/audit.TileWidth {
			return err
		}
		to := min(size/audit.TileWidth, have-have%audit.TileWidth+audit.TileWidth)
		roots, err := m.subtrees(ctx, organization, have, to)
		if err != nil {
			return err
		}
		if err := m.putTiles(ctx, organization, have, roots); err != nil {
			return err
		}
	}
}

// tiled is how many roots the tiles of level 1 hold.
func (m *Manager) tiled(ctx context.Context, organization string) (n int64, err error) {
	err = m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		n = 0
		last, err := tx.ScanRecords(ctx, storage.Scan{Kind: kindTile, From: "1/", To: "1/~", Descending: true, Limit: 1})
		if err != nil || len(last) == 0 {
			return err
		}
		hashes, err := tileHashes(last[0])
		if err != nil {
			return err
		}
		var index int64
		if _, err := fmt.Sscanf(last[0].ID, "1/%d", &index); err != nil || last[0].ID != tileID(1, index) || index >= audit.MaxSize/audit.TileWidth {
			return errTile
		}
		n = index*audit.TileWidth + int64(len(hashes))
		return nil
	})
	return n, err
}

// subtrees reads leaf hashes and answers the roots over 256 each, from the one
// with the number from up to to.
func (m *Manager) subtrees(ctx context.Context, organization string, from, to int64) ([]audit.Hash, error) {
	roots := make([]audit.Hash, 0, to-from)
	var tree audit.Tree
	for next, end := from*audit.TileWidth, to*audit.TileWidth; next < end; {
		var lines []audit.Line
		err := m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			lines, err = tx.Lines(ctx, next, int(min(linesPage, end-next)))
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(lines) == 0 {
			return nil, errTile // a line that the signed head covers is missing
		}
		for _, l := range lines {
			if l.Seq != next {
				return nil, errTile
			}
			next++
			if tree.Append(l.Leaf); tree.Size() == audit.TileWidth {
				roots, tree = append(roots, tree.Root()), audit.Tree{}
			}
		}
	}
	return roots, nil
}

// putTiles adds hashes at the end of level 1, and for each tile that becomes
// complete its root to the level above. It leaves everything as it is when
// somebody was faster.
func (m *Manager) putTiles(ctx context.Context, organization string, from int64, hashes []audit.Hash) error {
	err := m.store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		at, add := from, hashes
		for level := 1; ; level++ {
			id := tileID(level, at/audit.TileWidth)
			r, _, err := tx.Record(ctx, kindTile, id)
			if err != nil {
				return err
			}
			old, err := tileHashes(r)
			switch {
			case err != nil:
				return err
			case int64(len(old)) > at%audit.TileWidth && level == 1:
				return nil
			case int64(len(old)) != at%audit.TileWidth:
				return errTile
			}
			var tree audit.Tree
			for _, h := range append(old, add...) {
				tree.Append(h)
			}
			for _, h := range add {
				r.Payload = append(r.Payload, h[:]...)
			}
			ok, err := tx.PutRecord(ctx, storage.Record{
				Organization: organization, Kind: kindTile, ID: id, Payload: r.Payload, UpdatedAt: micros(m.config.Clock()), Revision: r.Revision + 1,
			})
			if err != nil || !ok {
				return errors.Join(err, errConflict)
			}
			if tree.Size() < audit.TileWidth {
				return nil
			}
			at, add = at/audit.TileWidth, []audit.Hash{tree.Root()}
		}
	})
	if errors.Is(err, errConflict) {
		return nil // what stands there now is read again
	}
	return err
}

// renewTiles makes the tiles up to the present head, so that proofs find them.
func (m *Manager) renewTiles(ctx context.Context, organization string) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	head, err := m.provenHead(ctx, organization)
	if err != nil {
		return err
	}
	err = m.keepTiles(ctx, organization, head.Size)
	if errors.Is(err, audit.ErrMismatch) {
		if err = m.forgetTiles(ctx, organization); err == nil {
			err = m.keepTiles(ctx, organization, head.Size)
		}
	}
	return operationError(err)
}

// forgetTiles removes every tile, for them to be made anew.
func (m *Manager) forgetTiles(ctx context.Context, organization string) error {
	for {
		n := 0
		err := m.store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
			found, err := tx.ScanRecords(ctx, storage.Scan{Kind: kindTile, Limit: audit.TileWidth})
			if err != nil {
				return err
			}
			n = len(found)
			for _, r := range found {
				if _, err := tx.DeleteRecord(ctx, kindTile, r.ID, r.Revision); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n < audit.TileWidth {
			return err
		}
	}
}
