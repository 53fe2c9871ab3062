package agentkey

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"maps"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// maxDiscrepancies bounds what a Reconciliation lists.
const maxDiscrepancies = 1000

// heldRecords is how many records one pass over a log holds in memory, some 20 MiB.
// Of a log that speaks of more there are several passes, each for a part of them.
const heldRecords = 100_000

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
	r := &reconciler{m: m, organization: organization, seed: maphash.MakeSeed()}
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
	return m.commit(ctx, &operation{organization: organization, needs: needs{logOnly: true}, decide: func(u *unit) error {
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
	seed         maphash.Seed // nobody chooses ids that fall into one part
	damaged      bool         // the log itself is not what was signed; said once
	out          Reconciliation

	pass // the present one
}

// pass is one pass over the log and the rows, for a part of the records. It proves
// the whole log again: between two passes it may have been changed.
type pass struct {
	part       part
	replay     *audit.Replay
	next       int64      // the number of the next event to replay
	tree       audit.Tree // over the leaves replayed
	removals   audit.Removals
	events     int64
	began      int64 // the log's size when the rows began to be compared
	registered map[string]bool
}

// part is the records whose hash, divided by of, leaves rest.
type part struct{ rest, of uint64 }

// holds says whether a record belongs to the part of this pass.
func (r *reconciler) holds(ref audit.Ref) bool {
	return r.part.of == 1 || maphash.Comparable(r.seed, ref)%r.part.of == r.part.rest
}

func (r *reconciler) find(kind, id, problem string) {
	if len(r.out.Findings) < maxDiscrepancies {
		r.out.Findings = append(r.out.Findings, Discrepancy{Kind: kind, ID: id, Problem: problem})
	}
}

// run makes a pass for all records, which leaves half of its part to another
// pass as often as it is too large.
func (r *reconciler) run(ctx context.Context) error {
	for parts := []part{{0, 1}}; len(parts) > 0; {
		next := parts[len(parts)-1]
		left, err := r.compare(ctx, next)
		if err != nil {
			return err
		}
		parts = append(parts[:len(parts)-1], left...)
	}
	return nil
}

// compare compares the records of a part, or of less of it: then it answers what it left.
func (r *reconciler) compare(ctx context.Context, p part) (left []part, err error) {
	r.pass = pass{part: p, replay: audit.NewReplay(), registered: make(map[string]bool)}
	r.replay.Only(r.holds)
	if left, err = r.replayLog(ctx); err != nil {
		return nil, err
	}
	r.began = r.next
	if err := (rowWalk{organization: r.organization, page: r.page, check: r.check}).run(ctx); err != nil {
		return nil, err
	}
	r.out.Events = r.events
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
	return left, r.organizations(ctx)
}

// replayLog replays the log as far as it has come, without a view of the rows. If
// it speaks of too many records, it goes on with half of them, and answers the
// halves that it left.
func (r *reconciler) replayLog(ctx context.Context) (left []part, err error) {
	source, _, err := r.m.source(ctx, r.organization)
	if err != nil {
		return nil, err
	}
	for {
		entry, err := source.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return left, nil
		case err != nil:
			return nil, err
		case entry.Line != nil:
			r.add(*entry.Line)
		}
		if r.replay.Held() > r.m.held {
			left = append(left, part{r.part.rest + r.part.of, 2 * r.part.of})
			r.part.of *= 2
			r.replay.Only(r.holds)
			maps.DeleteFunc(r.registered, func(id string, _ bool) bool { return !r.holds(organizationRef(id)) })
		}
	}
}

func organizationRef(id string) audit.Ref { return audit.Ref{Kind: audit.KindOrganization, ID: id} }

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
	r.events++
	r.removals.Event(&e)
	if e.Action == audit.ActionOrganizationRegistered && r.holds(organizationRef(e.Target.ID)) {
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

// check compares one row of the part with what the log says, and with its own seal.
func (r *reconciler) check(u *unit, row vault.Row, seal []byte) {
	if !r.holds(audit.Ref{Kind: row.Kind, ID: row.Record}) {
		return
	}
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
	kindWebhook,
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
