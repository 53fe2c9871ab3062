package audit_test

import (
	"errors"
	"fmt"
	"math/bits"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// storedHashes is a tlog over leaf hashes, independent of Tree.
type storedHashes []tlog.Hash

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = s[index]
	}
	return out, nil
}

func TestTreeAgainstTlog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var tree audit.Tree
	var stored storedHashes
	var leaves []audit.Hash
	for n := range int64(1001) {
		root, err := tlog.TreeHash(n, stored)
		is.NoErr(err)
		is.Equal(tree.Root(), root)
		is.Equal(tree.Size(), n)
		for _, at := range []int64{0, n / 3, n - 1} {
			if at < 0 || at >= n {
				continue
			}
			proof, err := tlog.ProveRecord(n, at, stored)
			is.NoErr(err)
			is.NoErr(tlog.CheckRecord(proof, n, tree.Root(), at, leaves[at]))
		}
		again, err := audit.ParseTree(n, tree.Edge())
		is.NoErr(err)
		is.Equal(again, tree)

		leaf := audit.LeafHash(fmt.Appendf(nil, "content %d", n))
		more, err := tlog.StoredHashesForRecordHash(n, leaf, stored)
		is.NoErr(err)
		stored = append(stored, more...)
		leaves = append(leaves, leaf)
		copied := tree
		tree.Append(leaf)
		is.Equal(copied.Root(), root) // a copy stays what it was
		copied.Append(audit.Hash{})   // and does not change what it was made of
	}
}

func TestParseTreeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size int64
		edge int
	}{{-1, 0}, {0, 32}, {1, 0}, {1, 31}, {3, 32}, {4, 64}, {audit.MaxSize + 1, 32}, {1 << 62, 32}} {
		_, err := audit.ParseTree(tt.size, make([]byte, tt.edge))
		if !errors.Is(err, audit.ErrFormat) {
			t.Errorf("size %d, edge of %d bytes: %v", tt.size, tt.edge, err)
		}
	}
	largest, err := audit.ParseTree(audit.MaxSize, make([]byte, 32*bits.OnesCount64(audit.MaxSize)))
	is.New(t).NoErr(err)
	defer func() { is.New(t).True(recover() != nil) }()
	largest.Append(audit.Hash{})
}
