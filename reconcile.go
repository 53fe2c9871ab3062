package agentkey

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// maxDiscrepancies bounds what a Reconciliation lists.
const maxDiscrepancies = 1000

// Reconcile replays the organization's log and compares what it says with the
// records. It finds what row seals can't: a whole old row put back, a row
// removed, a row that was never decided on. Findings are recorded.
func (m *Manager) Reconcile(ctx context.Context, a Actor) (Reconciliation, error) {
	if err := m.authorize(ctx, a, OpVerifyAudit); err != nil {
		return Reconciliation{}, err
	}
	return m.reconcile(ctx, a.Organization)
}

func (m *Manager) reconcile(ctx context.Context, organization string) (Reconciliation, error) {
	if err := m.enter(); err != nil {
		return Reconciliation{}, err
	}
	defer m.leave()
	r := &reconciler{m: m, organization: organization, replay: audit.NewReplay(), registered: make(map[string]bool)}
	if err := r.run(ctx); err != nil {
		return r.out, err
	}
	if r.out.OK() {
		return r.out, nil
	}
	first := r.out.Findings[0]
	m.log.LogAttrs(ctx, slog.LevelError, "records and log disagree", slog.String("organization", organization),
		slog.Int("findings", len(r.out.Findings)), slog.String("kind", first.Kind), slog.String("id", first.ID))
	return r.out, m.recordDisagreement(ctx, organization, len(r.out.Findings), first)
}

func (m *Manager) recordDisagreement(ctx context.Context, organization string, n int, first Discrepancy) error {
	return m.commit(ctx, operation{organization: organization, needs: needs{logOnly: true}, decide: func(u *unit) error {
		m.refuse(u, refusalKey{organization: organization, reason: "reconcile", subject: first.Kind + "/" + first.ID}, func() {
			e := u.event(system, audit.ActionLogReconcileFailed)
			e.Outcome, e.Reason, e.Count = audit.OutcomeFailed, "disagreement", int64(n)
			e.Target = audit.Ref{Kind: first.Kind, ID: first.ID}
		})
		return nil
	}})
}

// reconciler compares the rows page by page. Each page is read in one view with
// the head of that moment, up to which the log is replayed first, so that a log
// that goes on meanwhile is no disagreement.
type reconciler struct {
	m            *Manager
	organization string
	replay       *audit.Replay
	next         int64      // the number of the next event to replay
	tree         audit.Tree // over the leaves replayed
	removals     audit.Removals
	damaged      bool  // the log itself is not what was signed; said once
	began        int64 // the log's size when the rows began to be compared
	registered   map[string]bool
	out          Reconciliation
}

func (r *reconciler) find(kind, id, problem string) {
	if len(r.out.Findings) < maxDiscrepancies {
		r.out.Findings = append(r.out.Findings, Discrepancy{Kind: kind, ID: id, Problem: problem})
	}
}

func (r *reconciler) run(ctx context.Context) error {
	if err := r.replayLog(ctx); err != nil {
		return err
	}
	r.began = r.next
	if err := (rowWalk{organization: r.organization, page: r.page, check: r.check}).run(ctx); err != nil {
		return err
	}
	if len(r.removals.Findings()) > 0 {
		r.distrust()
	}
	listed, _ := r.replay.Discrepancies()
	for _, d := range listed {
		r.find(d.Record.Kind, d.Record.ID, d.Problem)
	}
	for d := range r.replay.Unseen() {
		if d.Seq < r.began {
			r.find(d.Record.Kind, d.Record.ID, d.Problem)
		}
	}
	return r.organizations(ctx)
}

// replayLog replays the log as far as it has come, without a view of the rows.
func (r *reconciler) replayLog(ctx context.Context) error {
	source, _, err := r.m.source(ctx, r.organization)
	if err != nil {
		return err
	}
	for {
		entry, err := source.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case entry.Line != nil:
			r.add(*entry.Line)
		}
	}
}

// add replays one line. The log is believed as far as it is what was signed: the
// content fits its leaf, and the leaves are compared with the head in page. What
// content is missing is compared, at the end, with what the log says was removed.
func (r *reconciler) add(l audit.Line) {
	if l.Seq != r.next || len(l.Content) > 0 && audit.LeafHash(l.Content) != l.Leaf {
		r.distrust()
	}
	r.next = l.Seq + 1
	r.tree.Append(l.Leaf)
	if len(l.Content) == 0 {
		r.removals.Missing(l.Seq)
		return
	}
	e, err := audit.Parse(l.Content)
	if err == nil && e.Seq == l.Seq {
		err = r.replay.Add(e)
	}
	if err != nil || e.Seq != l.Seq {
		r.distrust()
		return
	}
	r.out.Events++
	r.removals.Event(&e)
	if e.Action == audit.ActionOrganizationRegistered {
		r.registered[e.Target.ID] = true
	}
}

func (r *reconciler) distrust() {
	if !r.damaged {
		r.find(audit.KindLog, r.organization, "log is not what was signed; verify it")
	}
	r.damaged = true
}

// page gives fn a view whose head the replay has come to.
func (r *reconciler) page(ctx context.Context, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error {
	return r.m.read(ctx, r.organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		signed, err := r.m.checkStoredHead(u, head)
		if err != nil {
			return err
		}
		for r.next < head.Size {
			lines, err := tx.Lines(ctx, r.next, linesPage)
			if err != nil {
				return err
			}
			if len(lines) == 0 {
				break
			}
			for _, l := range lines {
				r.add(l)
			}
		}
		if r.next != head.Size || r.tree.Root() != signed.Root() {
			r.distrust()
		}
		return fn(ctx, tx, u)
	})
}

// check compares one row with what the log says, and with its own seal.
func (r *reconciler) check(u *unit, row vault.Row, seal []byte) {
	r.out.Records++
	if u.ring.rows.Verify(row, seal) != nil {
		r.find(row.Kind, row.Record, "row does not fit its seal")
	}
	d := r.replay.Check(row.Kind, row.Record, row.Revision, func(salt []byte) []byte {
		state := row.State(salt)
		return state[:]
	})
	if d != nil {
		r.find(row.Kind, row.Record, d.Problem)
	}
}

// recordKinds are the kinds of generic records that the Manager keeps.
var recordKinds = []string{
	kindInstallation, kindRegistration, kindAdministrator, kindToken, kindAccessRequest, kindSettings,
	kindGuide, kindInstructionVersion, kindInstructionSuggestion, kindInstructionSupporter, kindRemoval,
	kindToolIdentity, kindToolSuggestion, kindToolSupporter, kindRetention, kindRemoved, kindHold,
	kindRotation, kindLinger, kindSigningKey, kindOuterKey, kindDestruction, kindReview,
}

// organizations looks, for the reserved organization, whether every organization
// that was registered has its log.
func (r *reconciler) organizations(ctx context.Context) error {
	if len(r.registered) == 0 {
		return nil
	}
	err := r.m.eachOrganization(ctx, func(id string) error {
		delete(r.registered, id)
		return nil
	})
	for id := range r.registered {
		r.find(audit.KindOrganization, id, "was registered and has no log: its creation was cut off, or it was deleted")
	}
	return err
}
