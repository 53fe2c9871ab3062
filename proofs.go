package agentkey

import (
	"context"
	"errors"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// PublicKeys are the keys that verify heads of this installation's logs, the
// present one and those that signed before it, as audit.NewVerifiers takes them.
func (m *Manager) PublicKeys() []string { return m.verifiers().Keys() }

// SignedCheckpoint is a checkpoint with the note that signs it.
type SignedCheckpoint struct {
	audit.Checkpoint
	Signed []byte
}

// LatestCheckpoint answers the newest signed head of the organization's log,
// proven. Kept where nobody who can write to the database can, it holds the log
// to what it was: see ConsistencyProof.
func (m *Manager) LatestCheckpoint(ctx context.Context, a Actor) (SignedCheckpoint, error) {
	if err := m.authorize(ctx, a, OpReadAudit); err != nil {
		return SignedCheckpoint{}, err
	}
	return m.provenHead(ctx, a.Organization)
}

// provenHead reads the committed head, which is never given out if it goes back behind
// one that this process has given out, written or compared.
func (m *Manager) provenHead(ctx context.Context, organization string) (c SignedCheckpoint, err error) {
	known := m.heads.known(organization)
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		tree, err := m.checkStoredHead(u, head)
		if err != nil {
			return err
		}
		if !m.heads.saw(organization, known, head.Epoch, tree) {
			return m.wentBack(organization)
		}
		c.Checkpoint = audit.Checkpoint{Origin: audit.Origin(m.installation, organization, head.Epoch), Size: tree.Size(), Root: tree.Root()}
		c.Signed = head.Signed
		return nil
	})
	return c, err
}

// InclusionProof proves that the event with the number seq stands in the
// organization's log at a size: 0 is the latest. The receipt that it answers is
// checked before it is given out, and carries the checkpoint signed at that size
// if there is one: the latest is, and those that were kept. It reads two runs of
// at most 256 lines and a few records, whatever the log's length; what the log
// has grown by since the last proof or replay is read once before that.
//
// The errors: ErrInvalid for a number or size that the log does not have, and
// ErrIntegrity when the log is not what was signed.
func (m *Manager) InclusionProof(ctx context.Context, a Actor, seq, size int64) (out audit.Receipt, err error) {
	err = m.prove(ctx, a, func(p *prover) error {
		if size == 0 {
			size = p.head.Size
		}
		if size < 0 || size > p.head.Size {
			return invalid("size", "must not be more than the log has")
		}
		if seq < 0 || seq >= size {
			return invalid("seq", "must be the number of an event below the size")
		}
		out = audit.Receipt{Origin: p.head.Origin, Index: seq, Size: size}
		if out.Leaf, err = audit.ProveLeaf(seq, p.hashes); err != nil {
			return err
		}
		if out.Proof, err = audit.ProveInclusion(seq, size, p.hashes); err != nil {
			return err
		}
		if out.Checkpoint, err = p.signed(ctx, size); err != nil || out.Checkpoint == "" {
			return err
		}
		out.Origin, _, _ = strings.Cut(out.Checkpoint, "\n") // a kept one may be of an earlier epoch
		return nil
	})
	return out, err
}

// ConsistencyProof proves that the organization's log at the size to (0: the
// latest) begins with what it was at the size from. It costs what an
// InclusionProof does, and has its errors.
func (m *Manager) ConsistencyProof(ctx context.Context, a Actor, from, to int64) (out audit.Consistency, err error) {
	err = m.prove(ctx, a, func(p *prover) error {
		if to == 0 {
			to = p.head.Size
		}
		if to < 0 || to > p.head.Size {
			return invalid("to", "must not be more than the log has")
		}
		if from < 0 || from > to {
			return invalid("from", "must not be negative or above the other size")
		}
		out = audit.Consistency{Origin: p.head.Origin, From: from, To: to}
		if out.Proof, err = audit.ProveConsistency(from, to, p.hashes); err != nil {
			return err
		}
		if out.Earlier, err = p.signed(ctx, from); err != nil {
			return err
		}
		out.Later, err = p.signed(ctx, to)
		return err
	})
	return out, err
}

// prover makes proofs of the log that a proven head covers.
type prover struct {
	m            *Manager
	organization string
	head         SignedCheckpoint
	hashes       audit.HashReader
}

// prove gives fn a prover. If the tiles turn out not to be those of the signed
// tree, they are made anew once: if even then nothing fits, it is the log that
// was changed.
func (m *Manager) prove(ctx context.Context, a Actor, fn func(p *prover) error) error {
	if err := m.authorize(ctx, a, OpVerifyAudit); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	err := m.proveOnce(ctx, a.Organization, fn)
	if errors.Is(err, audit.ErrMismatch) {
		if err = m.forgetTiles(ctx, a.Organization); err == nil {
			err = m.proveOnce(ctx, a.Organization, fn)
		}
	}
	if errors.Is(err, audit.ErrMismatch) {
		err = &headError{organization: a.Organization}
		m.reportIntegrity(ctx, a.Organization, err)
	}
	return operationError(err)
}

func (m *Manager) proveOnce(ctx context.Context, organization string, fn func(p *prover) error) error {
	head, err := m.provenHead(ctx, organization)
	if err != nil {
		return err
	}
	if err := m.keepTiles(ctx, organization, head.Size); err != nil {
		return err
	}
	p := &prover{m: m, organization: organization, head: head}
	p.hashes = audit.ReadTiles(head.Checkpoint, func(t audit.Tile) ([]audit.Hash, error) { return p.tile(ctx, t) })
	return fn(p)
}

// tile reads a tile, which is yet to be proven: the leaves from the log, what is
// above them from the records.
func (p *prover) tile(ctx context.Context, t audit.Tile) (hashes []audit.Hash, err error) {
	err = p.m.store.View(ctx, p.organization, func(ctx context.Context, tx storage.ReadTx) error {
		if t.Level > 0 {
			r, _, err := tx.Record(ctx, kindTile, tileID(t.Level, t.Index))
			if err == nil {
				hashes, err = tileHashes(r)
			}
			return err
		}
		lines, err := tx.Lines(ctx, t.Index*audit.TileWidth, t.Width)
		hashes = make([]audit.Hash, len(lines))
		for i, l := range lines {
			hashes[i] = l.Leaf
		}
		return err
	})
	return hashes, err
}

// signed is the checkpoint that was signed at a size and kept, or empty.
func (p *prover) signed(ctx context.Context, size int64) (signed string, err error) {
	if size == p.head.Size {
		return string(p.head.Signed), nil
	}
	if size == 0 {
		return "", nil // nobody signs an empty log
	}
	err = p.m.store.View(ctx, p.organization, func(ctx context.Context, tx storage.ReadTx) error {
		signed = ""
		kept, err := tx.Checkpoints(ctx, size-1, 1)
		if err == nil && len(kept) == 1 && kept[0].Size == size {
			signed = string(kept[0].Signed)
		}
		return err
	})
	return signed, err
}
