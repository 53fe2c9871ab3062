package audit

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// TileWidth is how many hashes a complete tile holds.
const TileWidth = 1 << tileHeight

const tileHeight = 8

// Tile names a run of hashes of the tree, as C2SP's tlog-tiles has it: on level 0 the leaves from Index*TileWidth on, on level l
// the roots of subtrees of TileWidth^l leaves. Width is how many are asked for, from 1 to TileWidth.
type Tile struct {
	Level int
	Index int64
	Width int
}

// ReadTiles returns a reader of the tree's hashes over tiles that read gives. Every tile is proven against the checkpoint's root,
// which the caller must have proven itself, before a hash of it is returned: it does not matter where tiles come from. Where they
// are not the tree's, reading returns ErrMismatch; an error of read is returned as it is. Of a tree of n leaves it reads about
// log(n)/8 tiles for each hash, and each tile once. It must not be used by more than one goroutine at a time.
func ReadTiles(c Checkpoint, read func(Tile) ([]Hash, error)) HashReader {
	r := &tiles{read: read, known: make(map[tlog.Tile][]byte)}
	r.proven = tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, r)
	return r
}

// tiles is both sides of tlog's reader: what it reads from, and what it is seen as.
type tiles struct {
	read   func(Tile) ([]Hash, error)
	known  map[tlog.Tile][]byte
	failed error
	proven HashReader
}

// ReadHashes returns proven hashes.
func (r *tiles) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes, err := r.proven.ReadHashes(indexes)
	switch {
	case r.failed != nil:
		return nil, r.failed
	case err != nil:
		return nil, fmt.Errorf("%w: tiles", ErrMismatch)
	}
	return hashes, nil
}

// Height is the tiles' height.
func (r *tiles) Height() int { return tileHeight }

// ReadTiles reads tiles that are yet to be proven.
func (r *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, t := range want {
		if data, ok := r.known[t]; ok {
			out[i] = data
			continue
		}
		hashes, err := r.read(Tile{Level: t.L, Index: t.N, Width: t.W})
		if err != nil {
			r.failed = err
			return nil, err
		}
		if len(hashes) < t.W {
			r.failed = fmt.Errorf("%w: tile is too short", ErrMismatch)
			return nil, r.failed
		}
		for _, h := range hashes[:t.W] {
			out[i] = append(out[i], h[:]...)
		}
	}
	return out, nil
}

// SaveTiles remembers tiles that were proven.
func (r *tiles) SaveTiles(found []tlog.Tile, data [][]byte) {
	for i, t := range found {
		r.known[t] = data[i]
	}
}

// ProveLeaf returns the leaf hash of a number that is below the size of the tree that r reads.
func ProveLeaf(seq int64, r HashReader) (Hash, error) {
	hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(0, seq)})
	if err != nil {
		return Hash{}, err
	}
	return hashes[0], nil
}
