package audit

import "fmt"

// Head is the state of an organization's log as it is stored beside it: what the next commit extends. The head of a log that
// does not exist yet is Head{Epoch: 1}, which is not signed.
type Head struct {
	Epoch  int64
	Size   int64
	Edge   []byte // the tree's edge
	Signed []byte // the signed checkpoint of this size
	Time   int64  // time of the last event, microseconds; it is not signed, but stands in that event
}

// CheckHead returns the tree of a stored head after it has proven that the head is what was signed: one of the keys signed
// the checkpoint; its origin is that of the installation, organization and h.Epoch; its size is h.Size; and the edge
// folds to its root. The errors are those of OpenCheckpoint and ErrMismatch; after any of them the log must not be extended.
func CheckHead(h Head, installation, organization string, v *Verifiers) (Tree, error) {
	checkpoint, err := OpenCheckpoint(h.Signed, v)
	if err != nil {
		return Tree{}, err
	}
	tree, err := ParseTree(h.Size, h.Edge)
	switch {
	case err != nil:
		return Tree{}, fmt.Errorf("%w: edge", ErrMismatch)
	case checkpoint.Origin != Origin(installation, organization, h.Epoch):
		return Tree{}, fmt.Errorf("%w: origin", ErrMismatch)
	case checkpoint.Size != h.Size:
		return Tree{}, fmt.Errorf("%w: size", ErrMismatch)
	case checkpoint.Root != tree.Root():
		return Tree{}, fmt.Errorf("%w: root", ErrMismatch)
	}
	return tree, nil
}

// Extension is what a commit adds to a log. Contents and Leaves are parallel to the events. It is not changed once it was made.
type Extension struct {
	Contents [][]byte
	Leaves   []Hash
	Tree     Tree
	Root     Hash // of Tree
	Head     Head

	origin string
	before Tree
	made   []Hash // the subtrees that were completed, in tlog's order
}

// Extend appends events to the log whose head is h and whose tree is t, and signs the new head, in h.Epoch. The events must
// number on from t's size, be of one organization, and never be earlier than what stands before them; otherwise, and when one
// does not encode, the error is ErrInvalid and nothing was made. Extend changes neither h nor t and is safe for
// concurrent use.
func Extend(h Head, t Tree, events []Event, s *Signer) (Extension, error) {
	if h.Size != t.Size() {
		return Extension{}, fmt.Errorf("%w: head and tree differ in size", ErrInvalid)
	}
	if len(events) == 0 || int64(len(events)) > MaxSize-t.Size() {
		return Extension{}, fmt.Errorf("%w: no events, or more than fit", ErrInvalid)
	}
	x := Extension{
		Tree: t, Contents: make([][]byte, len(events)), Leaves: make([]Hash, len(events)),
		before: t, made: make([]Hash, 0, 2*len(events)),
	}
	x.Tree.part()
	last := h.Time
	for i := range events {
		e := &events[i]
		if err := follows(e, events[0].Organization, x.Tree.Size(), last); err != nil {
			return Extension{}, err
		}
		content, err := e.encode()
		if err != nil {
			return Extension{}, err
		}
		x.Contents[i], x.Leaves[i] = content, LeafHash(content)
		x.made = x.Tree.add(x.Leaves[i], x.made)
		last = e.Time
	}
	installation := s.name[len(originPrefix):]
	x.origin = Origin(installation, events[0].Organization, h.Epoch)
	x.Root = x.Tree.Root()
	signed, err := s.Sign(Checkpoint{x.origin, x.Tree.Size(), x.Root})
	if err != nil {
		return Extension{}, err
	}
	x.Head = Head{Epoch: h.Epoch, Size: x.Tree.Size(), Edge: x.Tree.Edge(), Signed: signed, Time: last}
	return x, nil
}

// follows says why e can't be the event of that number in that organization's log.
func follows(e *Event, organization string, seq, last int64) error {
	switch {
	case e.Seq != seq:
		return fmt.Errorf("%w: event's number does not follow", ErrInvalid)
	case e.Organization != organization:
		return fmt.Errorf("%w: events of more than one organization", ErrInvalid)
	case e.Time < last:
		return fmt.Errorf("%w: event is earlier than the one before", ErrInvalid)
	}
	return nil
}
