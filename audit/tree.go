package audit

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a hash of the tree, of a leaf or of an inner node (RFC 6962, section 2.1).
type Hash = tlog.Hash

// MaxSize is the greatest number of leaves in a tree.
const MaxSize = MaxInteger

// LeafHash returns the hash of an event's content as a leaf of the tree.
func LeafHash(content []byte) Hash { return tlog.RecordHash(content) }

// Tree is an RFC 6962 Merkle tree as far as one needs it to append: its size and the roots of the complete subtrees
// that it consists of, its right edge. The zero value is the empty tree. A Tree is a value: what is appended to a
// copy does not show in another.
type Tree struct {
	size int64
	edge []Hash // bits.OnesCount64(size) of them, the largest subtree first; copies share it, so that it never changes
}

// ParseTree returns the tree of that size with that edge, as Edge returned it. It returns ErrFormat when the edge can't
// belong to the size. It can't tell whether the hashes are the right ones: that is what CheckHead is for.
func ParseTree(size int64, edge []byte) (Tree, error) {
	if size < 0 || size > MaxSize {
		return Tree{}, fmt.Errorf("%w: tree size is out of range", ErrFormat)
	}
	if len(edge) != bits.OnesCount64(uint64(size))*hashSize {
		return Tree{}, fmt.Errorf("%w: tree edge has the wrong length for its size", ErrFormat)
	}
	t := Tree{size: size, edge: slices.Grow([]Hash(nil), len(edge)/hashSize)}
	for hash := range slices.Chunk(edge, hashSize) {
		t.edge = append(t.edge, Hash(hash))
	}
	return t, nil
}

// Size returns the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Append adds a leaf. It panics when the tree already has MaxSize leaves, which Extend and Verify rule out.
func (t *Tree) Append(leaf Hash) {
	t.part()
	t.add(leaf, nil)
}

// part gives t an edge of its own, to which add may be applied until t is copied.
func (t *Tree) part() { t.edge = append(make([]Hash, 0, len(t.edge)+1), t.edge...) }

// add adds a leaf and appends it to made, unless that is nil, and the roots of the subtrees that it completes, the smallest first.
func (t *Tree) add(leaf Hash, made []Hash) []Hash {
	if t.size >= MaxSize {
		panic("audit: tree is full")
	}
	keep := made != nil
	if keep {
		made = append(made, leaf)
	}
	n := len(t.edge)
	for rest := t.size; rest&1 == 1; rest >>= 1 {
		n--
		leaf = tlog.NodeHash(t.edge[n], leaf)
		if keep {
			made = append(made, leaf)
		}
	}
	t.edge = append(t.edge[:n], leaf)
	t.size++
	return made
}

// Root returns the root hash; that of the empty tree is the SHA-256 of nothing.
func (t *Tree) Root() Hash {
	if len(t.edge) == 0 {
		return sha256.Sum256(nil)
	}
	return fold(t.edge)
}

// fold is the root above neighbouring subtrees, the largest of them first.
func fold(edge []Hash) Hash {
	root := edge[len(edge)-1]
	for i := len(edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(edge[i], root)
	}
	return root
}

// Edge returns the roots of the complete subtrees, the largest first, 32 bytes each, in a fresh slice.
func (t *Tree) Edge() []byte {
	edge := make([]byte, 0, len(t.edge)*hashSize)
	for i := range t.edge {
		edge = append(edge, t.edge[i][:]...)
	}
	return edge
}
