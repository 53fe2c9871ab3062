package audit

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxProof is the greatest length of a receipt or a proof in JSON that is read, in bytes.
const MaxProof = 64 << 10

// HashReader reads hashes of complete subtrees by their storage index, as tlog numbers them.
type HashReader = tlog.HashReader

// ProveInclusion returns the hashes that prove, to whoever knows the root of the tree of that size, that the leaf with the
// number seq is in it (RFC 6962, section 2.1.1): at most one hash for each doubling of the size. r must know the subtrees of a
// tree of at least that size. It returns ErrInvalid when seq is not in the tree, and what r returned.
func ProveInclusion(seq, size int64, r HashReader) ([]Hash, error) {
	if seq < 0 || size > MaxSize || seq >= size {
		return nil, fmt.Errorf("%w: number is not in a tree of this size", ErrInvalid)
	}
	return tlog.ProveRecord(size, seq, r)
}

// ProveConsistency returns the hashes that prove, to whoever knows both roots, that the tree of the size to begins with all
// leaves of the tree of the size from, in their order (RFC 6962, section 2.1.2). r must know the subtrees of the larger tree. A
// tree extends the empty one, and itself, without any hash. It returns ErrInvalid unless 0 <= from <= to, and what r returned.
func ProveConsistency(from, to int64, r HashReader) ([]Hash, error) {
	if from < 0 || to > MaxSize || from > to {
		return nil, fmt.Errorf("%w: sizes are not in order", ErrInvalid)
	}
	if from == 0 {
		return []Hash{}, nil
	}
	return tlog.ProveTree(to, from, r)
}

// CheckInclusion says whether the proof shows that a leaf has the number seq in the tree of c. It returns ErrProof when it does not.
func CheckInclusion(proof []Hash, seq int64, leaf Hash, c Checkpoint) error {
	if seq < 0 || c.Size > MaxSize || seq >= c.Size || tlog.CheckRecord(proof, c.Size, c.Root, seq, leaf) != nil {
		return fmt.Errorf("%w: inclusion", ErrProof)
	}
	return nil
}

// CheckConsistency says whether the proof shows that the log of the later checkpoint extends that of the earlier one: both are of
// one organization, the epoch does not go back, and the later tree begins with all leaves of the earlier. It returns ErrProof when
// it does not.
func CheckConsistency(proof []Hash, earlier, later Checkpoint) error {
	installation, organization, epoch, err := ParseOrigin(earlier.Origin)
	i, o, e, lerr := ParseOrigin(later.Origin)
	if err != nil || lerr != nil || installation != i || organization != o || epoch > e {
		return fmt.Errorf("%w: the checkpoints are of different logs", ErrProof)
	}
	failed := fmt.Errorf("%w: consistency", ErrProof)
	switch {
	case earlier.Size < 0 || later.Size > MaxSize || earlier.Size > later.Size:
		return failed
	case earlier.Size == 0:
		var empty Tree
		if len(proof) > 0 || earlier.Root != empty.Root() || later.Size == 0 && later.Root != empty.Root() {
			return failed
		}
	case tlog.CheckTree(proof, later.Size, later.Root, earlier.Size, earlier.Root) != nil:
		return failed
	}
	return nil
}

// Receipt proves that an event stands in a log: its place, its leaf hash, and what leads from that to a signed root. It is made
// for a vend in the commit that recorded it, and can be made for any line later. A receipt whose Checkpoint is empty is for
// whoever holds a checkpoint of the size Size already. As JSON it is of the format "audit_receipt" in FORMAT.md.
type Receipt struct {
	Origin     string `json:"origin"`
	Index      int64  `json:"log_index"`
	Leaf       Hash   `json:"leaf_hash"`
	Size       int64  `json:"tree_size"`
	Proof      []Hash `json:"inclusion_proof"`
	Checkpoint string `json:"checkpoint,omitempty"` // signed
}

// AppendJSON appends the receipt as JSON, with the members and in the order of encoding/json.
func (r Receipt) AppendJSON(b []byte) []byte {
	b = slices.Grow(b, 256+48*len(r.Proof)+len(r.Origin)+2*len(r.Checkpoint))
	b = append(b, `{"origin":`...)
	b = appendString(b, r.Origin)
	b = append(b, `,"log_index":`...)
	b = strconv.AppendInt(b, r.Index, 10)
	b = append(b, `,"leaf_hash":`...)
	b = appendHash(b, r.Leaf)
	b = append(b, `,"tree_size":`...)
	b = strconv.AppendInt(b, r.Size, 10)
	b = append(b, `,"inclusion_proof":`...)
	if r.Proof == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, '[')
		for i, h := range r.Proof {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendHash(b, h)
		}
		b = append(b, ']')
	}
	if r.Checkpoint != "" {
		b = append(b, `,"checkpoint":`...)
		b = appendString(b, r.Checkpoint)
	}
	return append(b, '}')
}

func appendHash(b []byte, h Hash) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, h[:])
	return append(b, '"')
}

// ParseReceipt reads a receipt from JSON. It returns ErrFormat when it is none.
func ParseReceipt(text []byte) (Receipt, error) {
	var r Receipt
	if len(text) > MaxProof || json.Unmarshal(text, &r) != nil || r.Origin == "" {
		return Receipt{}, fmt.Errorf("%w: receipt", ErrFormat)
	}
	return r, nil
}

// Verify checks the receipt against its own checkpoint, and returns that. It returns ErrFormat and ErrSignature as
// OpenCheckpoint does, and ErrProof when the checkpoint is of another log, or does not cover the event.
func (r Receipt) Verify(v *Verifiers) (Checkpoint, error) {
	c, err := OpenCheckpoint([]byte(r.Checkpoint), v)
	if err != nil {
		return Checkpoint{}, err
	}
	return c, r.VerifyIn(c)
}

// VerifyIn checks the receipt against a checkpoint that was opened and is trusted. It returns ErrProof when that is of another
// log or of another size than the proof is for, or when the event is not in it.
func (r Receipt) VerifyIn(c Checkpoint) error {
	switch {
	case r.Origin != c.Origin:
		return fmt.Errorf("%w: the checkpoint is of another log", ErrProof)
	case r.Size != c.Size:
		return fmt.Errorf("%w: the proof is for another size than the checkpoint's", ErrProof)
	}
	return CheckInclusion(r.Proof, r.Index, r.Leaf, c)
}

// Consistency proves that a log at the size To extends the same log at the size From. The checkpoints are those that were signed
// at the two sizes, as far as they are kept; whoever holds their own uses those. Its format is in FORMAT.md.
type Consistency struct {
	Origin  string `json:"origin"` // in the log's latest epoch
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	Proof   []Hash `json:"consistency_proof"`
	Earlier string `json:"from_checkpoint,omitempty"` // signed
	Later   string `json:"to_checkpoint,omitempty"`   // signed
}

// ParseConsistency reads a consistency proof from JSON. It returns ErrFormat when it is none.
func ParseConsistency(text []byte) (Consistency, error) {
	var c Consistency
	if len(text) > MaxProof || json.Unmarshal(text, &c) != nil || c.Origin == "" {
		return Consistency{}, fmt.Errorf("%w: consistency proof", ErrFormat)
	}
	return c, nil
}

// Verify checks the proof between two checkpoints that were opened and are trusted. It returns ErrProof when the sizes are not
// theirs, or when the later one does not extend the earlier.
func (c Consistency) Verify(earlier, later Checkpoint) error {
	if c.From != earlier.Size || c.To != later.Size {
		return fmt.Errorf("%w: the proof is for other sizes than the checkpoints'", ErrProof)
	}
	return CheckConsistency(c.Proof, earlier, later)
}

// Receipt returns the receipt of the event with that place in the extension, from the hashes that extending has made and the edge
// that it began from: nothing is read. It panics when there is no such event, as an index does.
func (x *Extension) Receipt(i int) Receipt {
	if i < 0 || i >= len(x.Leaves) {
		panic("audit: no such event in the extension")
	}
	seq := x.before.Size() + int64(i)
	return Receipt{
		Origin: x.origin, Index: seq, Leaf: x.Leaves[i], Size: x.Tree.Size(), Proof: x.inclusion(seq), Checkpoint: string(x.Head.Signed),
	}
}

// inclusion is what ProveInclusion returns for a leaf of the extension: the siblings on the way up the subtree of the edge that the leaf is in,
// what is right of that as one hash, and the subtrees left of it.
func (x *Extension) inclusion(seq int64) []Hash {
	edge := x.Tree.edge
	k, height, begins := 0, 0, int64(0)
	for rest := uint64(x.Tree.size); ; k++ {
		height = bits.Len64(rest) - 1
		if seq < begins+1<<height {
			break
		}
		begins += 1 << height
		rest -= 1 << height
	}
	proof := make([]Hash, 0, height+k+1)
	for level := range height {
		proof = append(proof, x.subtree(level, seq>>level^1))
	}
	if right := edge[k+1:]; len(right) > 0 {
		proof = append(proof, fold(right))
	}
	for k--; k >= 0; k-- {
		proof = append(proof, edge[k])
	}
	return proof
}

// subtree is the root of the n-th complete subtree of that level, which the extension has completed or the edge before it had.
func (x *Extension) subtree(level int, n int64) Hash {
	if (n+1)<<level <= x.before.size {
		return x.before.edge[bits.OnesCount64(uint64(x.before.size)>>level>>1)]
	}
	return x.made[tlog.StoredHashIndex(level, n)-tlog.StoredHashCount(x.before.size)]
}
