package audit_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// The oracle is RFC 6962, section 2.1, word for word, over the contents themselves. It shares nothing with what it judges.

func oracleRoot(contents [][]byte) audit.Hash {
	switch len(contents) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, contents[0]...))
	}
	k := half(len(contents))
	left, right := oracleRoot(contents[:k]), oracleRoot(contents[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// half is the largest power of two below n.
func half(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func oraclePath(m int, contents [][]byte) []audit.Hash {
	n := len(contents)
	if n == 1 {
		return nil
	}
	if k := half(n); m < k {
		return append(oraclePath(m, contents[:k]), oracleRoot(contents[k:]))
	} else {
		return append(oraclePath(m-k, contents[k:]), oracleRoot(contents[:k]))
	}
}

func oracleProof(m int, contents [][]byte, whole bool) []audit.Hash {
	n := len(contents)
	if m == n {
		if whole {
			return nil
		}
		return []audit.Hash{oracleRoot(contents)}
	}
	if k := half(n); m <= k {
		return append(oracleProof(m, contents[:k], whole), oracleRoot(contents[k:]))
	} else {
		return append(oracleProof(m-k, contents[k:], false), oracleRoot(contents[:k]))
	}
}

// grove is a tree of some leaves with everything that a test needs to know of it.
type grove struct {
	contents [][]byte
	stored   storedHashes
	roots    []audit.Hash // by size
}

func newGrove(t *testing.T, n int) *grove {
	t.Helper()
	g := &grove{roots: []audit.Hash{oracleRoot(nil)}}
	for i := range n {
		content := fmt.Appendf(nil, "content %d", i)
		more, err := tlog.StoredHashes(int64(i), content, g.stored)
		if err != nil {
			t.Fatal(err)
		}
		g.contents, g.stored = append(g.contents, content), append(g.stored, more...)
		g.roots = append(g.roots, oracleRoot(g.contents))
	}
	return g
}

func (g *grove) at(size int) audit.Checkpoint {
	return audit.Checkpoint{Origin: audit.Origin(installation, organization, 1), Size: int64(size), Root: g.roots[size]}
}

func same(a, b []audit.Hash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

const groveSize = 67 // beyond 2^6, so that every shape of a tree up to there occurs

func TestInclusionProofs(t *testing.T) {
	t.Parallel()
	g := newGrove(t, groveSize)
	for size := 1; size <= groveSize; size++ {
		for seq := range size {
			proof, err := audit.ProveInclusion(int64(seq), int64(size), g.stored)
			if err != nil || !same(proof, oraclePath(seq, g.contents[:size])) {
				t.Fatalf("proof of %d in %d: %v", seq, size, err)
			}
			leaf := audit.LeafHash(g.contents[seq])
			if err := audit.CheckInclusion(proof, int64(seq), leaf, g.at(size)); err != nil {
				t.Fatalf("%d in %d: %v", seq, size, err)
			}
			for other := range size {
				if other != seq && audit.CheckInclusion(proof, int64(other), leaf, g.at(size)) == nil {
					t.Fatalf("proof of %d in %d passes for %d", seq, size, other)
				}
			}
			// The root commits to the leaves only: a proof may by its shape pass for another size of the
			// same root, which no checkpoint has. With that size's own root it must not.
			for other := 1; other <= groveSize; other++ {
				if other != size && audit.CheckInclusion(proof, int64(seq), leaf, g.at(other)) == nil {
					t.Fatalf("proof of %d in %d passes in %d", seq, size, other)
				}
			}
		}
	}
}

func TestConsistencyProofs(t *testing.T) {
	t.Parallel()
	g := newGrove(t, groveSize)
	for to := 0; to <= groveSize; to++ {
		for from := 0; from <= to; from++ {
			proof, err := audit.ProveConsistency(int64(from), int64(to), g.stored)
			var want []audit.Hash
			if from > 0 {
				want = oracleProof(from, g.contents[:to], true)
			}
			if err != nil || !same(proof, want) {
				t.Fatalf("proof from %d to %d: %v", from, to, err)
			}
			if err := audit.CheckConsistency(proof, g.at(from), g.at(to)); err != nil {
				t.Fatalf("from %d to %d: %v", from, to, err)
			}
			for other := 0; other <= groveSize; other++ {
				if other != from && audit.CheckConsistency(proof, g.at(other), g.at(to)) == nil && !trivial(other, to, proof) {
					t.Fatalf("proof from %d to %d passes from %d", from, to, other)
				}
				if other != to && audit.CheckConsistency(proof, g.at(from), g.at(other)) == nil && !trivial(from, other, proof) {
					t.Fatalf("proof from %d to %d passes to %d", from, to, other)
				}
			}
		}
	}
}

// trivial says whether no hash at all proves that one tree extends another: it is empty, or the same.
func trivial(from, to int, proof []audit.Hash) bool {
	return len(proof) == 0 && (from == 0 || from == to)
}

// TestProofsFailByEveryBit flips each bit of each hash that a check takes.
func TestProofsFailByEveryBit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := newGrove(t, groveSize)
	for _, size := range []int{1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 65, groveSize} {
		seq := int64(size * 2 / 3)
		proof, err := audit.ProveInclusion(seq, int64(size), g.stored)
		is.NoErr(err)
		leaf, c := audit.LeafHash(g.contents[seq]), g.at(size)
		everyBit(t, fmt.Sprintf("inclusion in %d", size), append([]*audit.Hash{&leaf, &c.Root}, each(proof)...), func() error {
			return audit.CheckInclusion(proof, seq, leaf, c)
		})
		shapes(t, proof, func(p []audit.Hash) error { return audit.CheckInclusion(p, seq, leaf, c) })

		from := size/2 + size%2
		proof, err = audit.ProveConsistency(int64(from), int64(size), g.stored)
		is.NoErr(err)
		earlier, later := g.at(from), g.at(size)
		everyBit(t, fmt.Sprintf("consistency of %d", size), append([]*audit.Hash{&earlier.Root, &later.Root}, each(proof)...), func() error {
			return audit.CheckConsistency(proof, earlier, later)
		})
		shapes(t, proof, func(p []audit.Hash) error { return audit.CheckConsistency(p, earlier, later) })
	}
	empty, later := g.at(0), g.at(9)
	everyBit(t, "from nothing", []*audit.Hash{&empty.Root}, func() error { return audit.CheckConsistency(nil, empty, later) })
	nothing := g.at(0)
	everyBit(t, "nothing", []*audit.Hash{&empty.Root, &nothing.Root}, func() error { return audit.CheckConsistency(nil, empty, nothing) })
}

func each(hashes []audit.Hash) (out []*audit.Hash) {
	for i := range hashes {
		out = append(out, &hashes[i])
	}
	return out
}

func everyBit(t *testing.T, what string, hashes []*audit.Hash, check func() error) {
	t.Helper()
	for i, h := range hashes {
		for bit := range 256 {
			h[bit/8] ^= 1 << (bit % 8)
			if err := check(); !errors.Is(err, audit.ErrProof) {
				t.Errorf("%s, bit %d of hash %d: %v", what, bit, i, err)
			}
			h[bit/8] ^= 1 << (bit % 8)
		}
	}
	if err := check(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// shapes tries proofs with a hash less, a hash more, and two swapped.
func shapes(t *testing.T, proof []audit.Hash, check func([]audit.Hash) error) {
	t.Helper()
	wrong := [][]audit.Hash{append(append([]audit.Hash{}, proof...), audit.Hash{1}), append([]audit.Hash{{1}}, proof...)}
	if n := len(proof); n > 0 {
		wrong = append(wrong, proof[1:], proof[:n-1], nil)
		if n > 1 {
			swapped := append([]audit.Hash{}, proof...)
			swapped[0], swapped[n-1] = swapped[n-1], swapped[0]
			wrong = append(wrong, swapped)
		}
	}
	for i, p := range wrong {
		if err := check(p); !errors.Is(err, audit.ErrProof) {
			t.Errorf("shape %d of %d hashes: %v", i, len(proof), err)
		}
	}
}

func TestProofsOutOfRange(t *testing.T) {
	t.Parallel()
	g := newGrove(t, 9)
	for _, at := range [][2]int64{{-1, 3}, {3, 3}, {0, 0}, {0, -1}, {4, 3}, {0, audit.MaxSize + 1}, {1 << 62, 1<<62 + 1}} {
		if _, err := audit.ProveInclusion(at[0], at[1], g.stored); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("inclusion of %d in %d: %v", at[0], at[1], err)
		}
		if err := audit.CheckInclusion(nil, at[0], audit.Hash{}, audit.Checkpoint{Size: at[1]}); !errors.Is(err, audit.ErrProof) {
			t.Errorf("inclusion of %d in %d: %v", at[0], at[1], err)
		}
	}
	origin := g.at(0).Origin
	for _, at := range [][2]int64{{-1, 3}, {4, 3}, {1, 0}, {-2, -1}, {1, audit.MaxSize + 1}} {
		if _, err := audit.ProveConsistency(at[0], at[1], g.stored); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("from %d to %d: %v", at[0], at[1], err)
		}
		err := audit.CheckConsistency(nil, audit.Checkpoint{Origin: origin, Size: at[0]}, audit.Checkpoint{Origin: origin, Size: at[1]})
		if !errors.Is(err, audit.ErrProof) {
			t.Errorf("from %d to %d: %v", at[0], at[1], err)
		}
	}
}

func TestConsistencyIsOfOneLog(t *testing.T) {
	t.Parallel()
	g := newGrove(t, 5)
	for _, test := range []struct {
		earlier, later string
		holds          bool
	}{
		{"agentkey/i/o/1", "agentkey/i/o/1", true},
		{"agentkey/i/o/1", "agentkey/i/o/2", true}, // a log that was continued
		{"agentkey/i/o/2", "agentkey/i/o/1", false},
		{"agentkey/i/o/1", "agentkey/i/p/1", false},
		{"agentkey/i/o/1", "agentkey/j/o/1", false},
		{"", "agentkey/i/o/1", false},
		{"agentkey/i/o/1", "", false},
	} {
		earlier, later := g.at(5), g.at(5)
		earlier.Origin, later.Origin = test.earlier, test.later
		err := audit.CheckConsistency(nil, earlier, later)
		if test.holds != (err == nil) || err != nil && !errors.Is(err, audit.ErrProof) {
			t.Errorf("%q and %q: %v", test.earlier, test.later, err)
		}
	}
}

// TestReceiptsOfEveryExtension makes logs of commits of many sizes. Every event's receipt must hold, be what the whole tree
// would prove, and be of the head that was signed with it.
func TestReceiptsOfEveryExtension(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	random := rand.New(rand.NewPCG(7, 11))
	signer := newSigner(t, installation, "a")
	v := verifiersOf(t, signer)
	for range 40 {
		head, tree := audit.Head{Epoch: 1}, audit.Tree{}
		var stored storedHashes
		for head.Size < 150 {
			var events []audit.Event
			for range 1 + random.IntN(1+random.IntN(70)) {
				events = append(events, sampleEvent(organization, head.Size+int64(len(events))))
			}
			x, err := audit.Extend(head, tree, events, signer)
			is.NoErr(err)
			for i, leaf := range x.Leaves {
				more, err := tlog.StoredHashesForRecordHash(head.Size+int64(i), leaf, stored)
				is.NoErr(err)
				stored = append(stored, more...)
			}
			for i := range events {
				r := x.Receipt(i)
				want, err := audit.ProveInclusion(head.Size+int64(i), x.Head.Size, stored)
				is.NoErr(err)
				if !same(r.Proof, want) || r.Index != head.Size+int64(i) || r.Leaf != x.Leaves[i] || r.Checkpoint != string(x.Head.Signed) {
					t.Fatalf("receipt %d of %d to %d: %+v", i, head.Size, x.Head.Size, r)
				}
				c, err := r.Verify(v)
				is.NoErr(err)
				is.Equal(c.Size, x.Head.Size)
			}
			head, tree = x.Head, x.Tree
		}
	}
}

func TestReceiptsRefused(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	signer := newSigner(t, installation, "a")
	v := verifiersOf(t, signer)
	var events []audit.Event
	for i := range int64(9) {
		events = append(events, sampleEvent(organization, i))
	}
	x, err := audit.Extend(audit.Head{Epoch: 1}, audit.Tree{}, events, signer)
	is.NoErr(err)
	text, err := json.Marshal(x.Receipt(4))
	is.NoErr(err)
	sound, err := audit.ParseReceipt(text)
	is.NoErr(err)
	is.Equal(sound, x.Receipt(4)) // through JSON and back
	_, err = sound.Verify(v)
	is.NoErr(err)

	y, err := audit.Extend(x.Head, x.Tree, []audit.Event{sampleEvent(organization, 9)}, signer)
	is.NoErr(err)
	for name, test := range map[string]struct {
		change func(*audit.Receipt)
		want   error
	}{
		"another number":   {func(r *audit.Receipt) { r.Index = 5 }, audit.ErrProof},
		"another leaf":     {func(r *audit.Receipt) { r.Leaf[31] ^= 1 }, audit.ErrProof},
		"another size":     {func(r *audit.Receipt) { r.Size = 10 }, audit.ErrProof},
		"no proof":         {func(r *audit.Receipt) { r.Proof = nil }, audit.ErrProof},
		"another log":      {func(r *audit.Receipt) { r.Origin = audit.Origin(installation, "org-2", 1) }, audit.ErrProof},
		"a later head":     {func(r *audit.Receipt) { r.Checkpoint = string(y.Head.Signed) }, audit.ErrProof},
		"no checkpoint":    {func(r *audit.Receipt) { r.Checkpoint = "" }, audit.ErrFormat},
		"an edited head":   {func(r *audit.Receipt) { r.Checkpoint = strings.Replace(r.Checkpoint, "\n9\n", "\n8\n", 1) }, audit.ErrSignature},
		"another's signed": {func(r *audit.Receipt) { r.Checkpoint = string(signedBy(t, "b", x.Head)) }, audit.ErrSignature},
	} {
		r := sound
		r.Proof = append([]audit.Hash{}, sound.Proof...)
		test.change(&r)
		if _, err := r.Verify(v); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "{}", "[]", "null", `{"origin":1}`, `{"origin":"x","leaf_hash":"AAAA"}`, `{"origin":"x","inclusion_proof":[""]}`,
		`{"origin":"` + strings.Repeat("x", audit.MaxProof) + `"}`} {
		if _, err := audit.ParseReceipt([]byte(text)); !errors.Is(err, audit.ErrFormat) {
			t.Errorf("receipt %.40q: %v", text, err)
		}
		if _, err := audit.ParseConsistency([]byte(strings.Replace(text, "inclusion", "consistency", 1))); !errors.Is(err, audit.ErrFormat) && !strings.Contains(text, "leaf") {
			t.Errorf("consistency %.40q: %v", text, err)
		}
	}
}

// signedBy signs a head with another key of the same name.
func signedBy(t *testing.T, label string, h audit.Head) []byte {
	t.Helper()
	tree, err := audit.ParseTree(h.Size, h.Edge)
	is.New(t).NoErr(err)
	signed, err := newSigner(t, installation, label).Sign(audit.Checkpoint{
		Origin: audit.Origin(installation, organization, h.Epoch), Size: h.Size, Root: tree.Root(),
	})
	is.New(t).NoErr(err)
	return signed
}
