package agentkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Anchor keeps heads of logs where whoever can write to the database can't reach
// them: a file on another volume, a service of somebody else, a witness. It is safe
// for concurrent use; for one log it is called by one goroutine of a process at a time.
//
// The Manager calls it after commits, never while a head is held and never in the
// course of a vend.
type Anchor interface {
	// Name says to people which anchor this is. It holds no secret.
	Name() string

	// Keep makes h what is kept of its log, after h has proven that it follows what
	// is kept of it now: by h.Follows, to which the Anchor hands the kept note, or
	// nil when there is none, or by h.FollowsSize when it checks proofs by itself. It
	// must return the error of these as it is, and then leave what is kept. Any other
	// error says that the anchor can't be reached; the head is offered again later.
	//
	// Several processes may share what is kept: it is compared and replaced in one
	// step, or at least never replaced by a head that does not follow it.
	Keep(ctx context.Context, h *AnchorHead) error
}

// The errors of heads that are kept elsewhere.
var (
	// ErrRolledBack: a log is shorter than a head of it that is kept elsewhere, or
	// another one. The database was put back, or there are two that went apart.
	ErrRolledBack = &Error{"rolled_back", ErrUnavailable, "the database does not continue what heads kept elsewhere say", "An operator has to look at this: the database is an older copy, or another one."}
	// ErrAnchorMissing: an anchor has no head of a log that has begun. See
	// Config.InitAnchors.
	ErrAnchorMissing = &Error{"anchor_missing", ErrUnavailable, "no head is kept of a log that has begun", "An operator has to look at this: what was kept is lost, or the setting names another place."}
	// ErrAnchorDamaged: what is kept is no head of this log signed by this installation.
	ErrAnchorDamaged = &Error{"anchor_damaged", ErrUnavailable, "what is kept elsewhere is no signed head of this log", "An operator has to look at this: it was damaged, or is of another installation."}
)

// AnchorHead is the proven, committed head of a log on its way to an Anchor.
type AnchorHead struct {
	audit.Checkpoint
	Signed []byte // the checkpoint as a signed note (C2SP)

	m            *Manager
	organization string
	epoch        int64
	edge         []byte       // of the tree
	at           int64        // time of the last event
	memory       *keptHead    // what this process kept last
	fresh        bool         // nothing need be kept of it yet
	covered      int64        // logs that began well before this must be kept
	survey       func(k lost) // only looks: reports what is kept, and keeps nothing
	missing      bool         // nothing was kept
}

// lost is what an anchor has of a log.
type lost struct {
	audit.Checkpoint
	signed []byte // nil where the anchor told a size alone
	behind error  // ErrRolledBack when the log does not continue it
}

// errSurveyed ends a Keep that was only to look.
var errSurveyed = errors.New("agentkey: nothing was to be kept")

// Log names the head's log, whatever its epoch: "agentkey/<installation>/<organization>".
func (h *AnchorHead) Log() string { return audit.SignerName(h.m.installation) + "/" + h.organization }

// Installation and Organization name the two parts of Log.
func (h *AnchorHead) Installation() string { return h.m.installation }

// Organization is the organization whose log it is.
func (h *AnchorHead) Organization() string { return h.organization }

// Follows proves that the head follows a kept one: that its log begins with all that
// the kept head covers, or that AcceptRestore has said what became of the rest. kept
// is a signed note, and is believed only when a key of this installation signed it for
// this log; empty says that nothing is kept. The errors are ErrRolledBack,
// ErrAnchorMissing, ErrAnchorDamaged, or that of storage.
func (h *AnchorHead) Follows(ctx context.Context, kept []byte) error {
	if len(kept) == 0 {
		return h.begins(ctx)
	}
	if string(kept) == string(h.Signed) {
		return h.surveyed(lost{h.Checkpoint, h.Signed, nil})
	}
	c, err := audit.OpenCheckpoint(kept, h.m.anchors.verifiers())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnchorDamaged, h.m.unknownKey(kept, err))
	}
	if _, o, _, err := audit.ParseOrigin(c.Origin); err != nil || o != h.organization {
		return fmt.Errorf("%w: it is of another log", ErrAnchorDamaged)
	}
	err = h.follows(ctx, c)
	if err == nil || errors.Is(err, ErrRolledBack) {
		if err := h.surveyed(lost{c, kept, err}); err != nil {
			return err
		}
	}
	return err
}

// FollowsSize gives the proof that the head's tree begins with the first size leaves
// (RFC 6962, section 2.1.2), for an Anchor that checks it against the root that it
// keeps for this origin; 0 says that it keeps none. If it then finds that the proof does
// not hold, its Keep returns ErrRolledBack. The errors are those of Follows.
func (h *AnchorHead) FollowsSize(ctx context.Context, size int64) ([]audit.Hash, error) {
	if size == 0 {
		return nil, h.begins(ctx)
	}
	var err error
	if size < 0 || size > h.Size {
		err = ErrRolledBack
	}
	if err := h.surveyed(lost{audit.Checkpoint{Origin: h.Origin, Size: size}, nil, err}); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	var proof []audit.Hash
	err = h.proving(ctx, func(p *prover) error {
		proof, err = audit.ProveConsistency(size, h.Size, p.hashes)
		return err
	})
	return proof, err
}

// unknownKey puts it in words when a kept head has a signature in this installation's
// name by a key that the database does not know.
func (m *Manager) unknownKey(kept []byte, err error) error {
	if m.anchors.verifiers().Lacks(kept, m.installation) {
		return errUnknownKey
	}
	return err
}

var errUnknownKey = errors.New("it is signed by a key that the database does not know: an older copy, from before the signing key was rotated?")

func (h *AnchorHead) surveyed(k lost) error {
	if h.survey == nil {
		return nil
	}
	h.survey(k)
	return errSurveyed
}

// newLogs is how much older than what an anchor covers a log may be that it has no
// head of: it may have been registered long before it began, and clocks differ.
const newLogs = 120_000_000 // microseconds

// begins says whether nothing need be kept of the log yet: it began after the
// reserved log's last event that the same anchor covers, about.
func (h *AnchorHead) begins(ctx context.Context) error {
	h.missing = true
	if h.survey != nil {
		return errSurveyed
	}
	if h.fresh {
		return nil
	}
	if h.organization == storage.System {
		return ErrAnchorMissing
	}
	began, err := h.m.eventTime(ctx, h.organization, 0)
	if err == nil && (began == 0 || began < h.covered-newLogs) {
		err = ErrAnchorMissing
	}
	return err
}

// timeBack is how many events before one are looked at for its time.
const timeBack = 256

// eventTime is the time of an event or, where retention took its content away, of the
// last one before it that has some; 0 when none of those near has.
func (m *Manager) eventTime(ctx context.Context, organization string, seq int64) (at int64, err error) {
	err = m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		at = 0
		from := max(seq-timeBack+1, 0)
		lines, err := tx.Lines(ctx, from, int(seq-from)+1)
		for _, l := range slices.Backward(lines) {
			if err == nil && len(l.Content) > 0 {
				e, err := audit.Parse(l.Content)
				at = e.Time
				return err
			}
		}
		return err
	})
	return at, operationError(err)
}

// follows is Follows for a kept head that is believed.
func (h *AnchorHead) follows(ctx context.Context, kept audit.Checkpoint) error {
	_, _, epoch, err := audit.ParseOrigin(kept.Origin)
	if err != nil || epoch > h.epoch {
		return ErrRolledBack
	}
	begins, err := h.beginsWith(ctx, kept)
	if err != nil || begins {
		return err
	}
	if epoch < h.epoch {
		accepted, err := h.accepted(ctx, epoch, kept)
		if err != nil || accepted {
			return err
		}
	}
	return ErrRolledBack
}

// nearby is how many lines are read to see that a log has grown from what this
// process kept last. More are bridged by a proof.
const nearby = 512

// beginsWith says whether the log begins with what a checkpoint covers.
func (h *AnchorHead) beginsWith(ctx context.Context, kept audit.Checkpoint) (bool, error) {
	switch {
	case kept.Size > h.Size:
		return false, nil
	case kept.Size == h.Size:
		return kept.Root == h.Root, nil
	case h.memory != nil && h.memory.Size == kept.Size && h.memory.Root == kept.Root && h.Size-kept.Size <= nearby:
		return h.grown(ctx)
	}
	holds := false
	err := h.proving(ctx, func(p *prover) error {
		proof, err := audit.ProveConsistency(kept.Size, h.Size, p.hashes)
		holds = err == nil && audit.CheckConsistency(proof, kept, h.Checkpoint) == nil
		return err
	})
	return holds, err
}

// grown reads what came after the head that this process kept last.
func (h *AnchorHead) grown(ctx context.Context) (bool, error) {
	from, err := audit.ParseTree(h.memory.Size, h.memory.edge)
	if err != nil {
		return false, err
	}
	tree := from
	err = h.m.store.View(ctx, h.organization, func(ctx context.Context, tx storage.ReadTx) error {
		tree = from
		lines, err := tx.Lines(ctx, tree.Size(), int(h.Size-tree.Size()))
		for _, l := range lines {
			tree.Append(l.Leaf)
		}
		return err
	})
	if err != nil {
		return false, operationError(err)
	}
	return tree.Size() == h.Size && tree.Root() == h.Root, nil
}

// proving gives fn proven hashes of the head's tree. Tiles that do not fit are made
// anew once.
func (h *AnchorHead) proving(ctx context.Context, fn func(p *prover) error) error {
	once := func() error {
		if err := h.m.keepTiles(ctx, h.organization, h.Size); err != nil {
			return err
		}
		p := &prover{m: h.m, organization: h.organization, head: SignedCheckpoint{h.Checkpoint, h.Signed}}
		p.hashes = audit.ReadTiles(h.Checkpoint, func(t audit.Tile) ([]audit.Hash, error) { return p.tile(ctx, t) })
		return fn(p)
	}
	err := once()
	if errors.Is(err, audit.ErrMismatch) {
		if err = h.m.forgetTiles(ctx, h.organization); err == nil {
			err = once()
		}
	}
	if errors.Is(err, audit.ErrMismatch) {
		return &headError{organization: h.organization}
	}
	return operationError(err)
}

// accepted says whether a later epoch of the log began with the word that a head
// like this one was lost. The event is believed when the head's tree has it.
func (h *AnchorHead) accepted(ctx context.Context, epoch int64, kept audit.Checkpoint) (accepted bool, err error) {
	q := storage.EventQuery{Filter: audit.Filter{Action: audit.ActionLogEpochOpened}, Limit: 100}
	page, err := h.m.store.Events(ctx, h.organization, q)
	if err != nil {
		return false, operationError(err)
	}
	err = h.proving(ctx, func(p *prover) error {
		for _, l := range page.Lines {
			if l.Seq >= h.Size {
				continue
			}
			leaf, err := audit.ProveLeaf(l.Seq, p.hashes)
			if err != nil {
				return err
			}
			e, err := audit.Parse(l.Content)
			if err != nil || leaf != audit.LeafHash(l.Content) {
				return &headError{organization: h.organization}
			}
			accepted = accepted || covers(e.Details, epoch, kept)
		}
		return nil
	})
	return accepted, err
}

// covers says whether the details of an epoch's first event speak of a lost head that
// is this one or, as far as can be told once it is lost, one after it.
func covers(details map[string]string, epoch int64, kept audit.Checkpoint) bool {
	lostEpoch, err := strconv.ParseInt(details[audit.DetailLostEpoch], 10, 64)
	size, sizeErr := strconv.ParseInt(details[audit.DetailLostSize], 10, 64)
	if err != nil || sizeErr != nil || epoch > lostEpoch || kept.Size > size {
		return false
	}
	root := details[audit.DetailLostRoot]
	return epoch < lostEpoch || kept.Size < size || root == "" || root == kept.Root.String()
}

// anchorHead reads the organization's committed head, and proves it by its
// signature, unless that is the one which was kept last; its seal takes keys that nobody
// need unwrap for this. It is ErrRolledBack, with the head, when the log is not as long
// as this process knows it to have been.
func (m *Manager) anchorHead(ctx context.Context, organization string, kept *keptHead) (*AnchorHead, error) {
	var head storage.Head
	known := m.heads.known(organization)
	reading, cancel := reading(ctx)
	defer cancel()
	err := m.store.View(reading, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		head, err = tx.Head(ctx)
		return err
	})
	if err != nil {
		return nil, operationError(err)
	}
	h := &AnchorHead{m: m, organization: organization, epoch: head.Epoch, Signed: head.Signed, at: head.Time, memory: kept}
	if kept != nil && string(head.Signed) == string(kept.signed) {
		h.Checkpoint, h.edge = kept.Checkpoint, kept.edge
		return h, nil
	}
	tree, err := audit.CheckHead(head.Head, m.installation, organization, m.verifiers())
	if err != nil {
		return nil, &headError{organization: organization}
	}
	h.edge = tree.Edge()
	h.Checkpoint = audit.Checkpoint{Origin: audit.Origin(m.installation, organization, head.Epoch), Size: tree.Size(), Root: tree.Root()}
	if !m.heads.saw(organization, known, head.Epoch, tree) {
		return h, ErrRolledBack
	}
	return h, nil
}

// FollowsUnseen is for an Anchor that can't be asked what it keeps: people compare it.
// Nothing is proven, and an error says that this call was only to look.
func (h *AnchorHead) FollowsUnseen() error { return h.surveyed(lost{}) }
