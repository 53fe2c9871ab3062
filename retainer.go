package agentkey

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// erasePage is how many lines one transaction of a removal changes at most.
const erasePage = 256

// A retainer goes through an organization's log twice: once to learn which event
// is the last that speaks of each record, and once, from the oldest on, to remove
// what the policy lets go. What it learned can only become more careful than it
// had to be: what happens meanwhile is in later events.
type retainer struct {
	m            *Manager
	organization string
	policy       RetentionPolicy
	rules        map[recordRef]int64 // revisions of the policy and of each hold that was read
	holds        holds
	removed      int64 // the revision of the record of what was removed
	total        removedPayload
	shipped      shipped
	now          int64

	seeds [2]maphash.Seed
	last  map[fingerprint]lastChange // of each record
	vends map[fingerprint]int64      // the last vend of each vendOf
	plan  RetentionPlan
}

// fingerprint stands for a record, or a vendOf, in memory: of all that a log speaks
// of, up to 80 bytes each are held. Nobody who does not know the seeds can make two
// alike, and by chance there are none.
type fingerprint [2]uint64

func fingerprintOf[T comparable](r *retainer, what T) fingerprint {
	return fingerprint{maphash.Comparable(r.seeds[0], what), maphash.Comparable(r.seeds[1], what)}
}

type lastChange struct {
	seq     int64 // of the last event that speaks of the record
	removed bool
	kept    bool // what stays of the log so far says that the record is there
}

type vendOf struct{ grant, credential string }

// page is what one transaction of a removal changes.
type page struct {
	erasures []storage.Erasure
	from     int64 // of the first line
	below    int64 // the number after the last line whose content goes
	removed  int64
	personal int64
}

func (m *Manager) newRetainer(ctx context.Context, organization string) (*retainer, error) {
	r := &retainer{
		m: m, organization: organization, plan: RetentionPlan{UpTo: -1},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		last:  make(map[fingerprint]lastChange), vends: make(map[fingerprint]int64),
	}
	var damaged error
	err := m.view(ctx, organization, retentionNeeds(organization), func(u *unit) { damaged = r.read(u) })
	if err = errors.Join(err, damaged); err != nil {
		return nil, err
	}
	if r.shipped, err = m.shippedTo(ctx, organization); err != nil {
		return nil, err
	}
	return r, r.learn(ctx)
}

func retentionNeeds(organization string) needs {
	return needs{
		ended:       true,
		records:     []recordRef{{kindRetention, organization}, {kindRemoved, organization}},
		recordKinds: []string{kindHold},
	}
}

// read takes the policy, the holds and what was removed as they are now.
func (r *retainer) read(u *unit) error {
	p, _, err := payloadOf[retentionPayload](u, recordRef{kindRetention, r.organization})
	if err != nil {
		return err
	}
	r.policy = RetentionPolicy{p.ContentDays, p.PersonalDays}
	removed, record, err := payloadOf[removedPayload](u, recordRef{kindRemoved, r.organization})
	if err != nil {
		return err
	}
	r.removed, r.total, r.now = record.Revision, removed, u.now
	r.rules = rulesOf(u)
	r.holds, err = holdsOf(u)
	return err
}

// rulesOf are the revisions of the records that say what may be removed.
func rulesOf(u *unit) map[recordRef]int64 {
	rules := make(map[recordRef]int64)
	for ref, r := range u.records {
		if ref.kind == kindRetention || ref.kind == kindHold {
			rules[ref] = r.Revision
		}
	}
	return rules
}

// learn reads the whole log, and proves it: who can write to the database must
// not be able to have something removed by a line that nobody signed.
func (r *retainer) learn(ctx context.Context) error {
	source, _, err := r.m.source(ctx, r.organization)
	if err != nil {
		return err
	}
	verifiers, err := r.m.trusted(ctx)
	if err != nil {
		return err
	}
	var tree audit.Tree
	damaged := &headError{organization: r.organization}
	for {
		entry, err := source.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return damaged // the head comes before the end
		case err != nil:
			return err
		case entry.Line != nil:
			if entry.Line.Seq != tree.Size() || !r.note(entry.Line) {
				return damaged
			}
			tree.Append(entry.Line.Leaf)
		case entry.Head != nil:
			c, err := audit.OpenCheckpoint(entry.Head, verifiers)
			if err != nil || c.Size != tree.Size() || c.Root != tree.Root() {
				return damaged
			}
			return nil
		}
	}
}

// note learns from a line, and says whether it is what its leaf says.
func (r *retainer) note(l *audit.Line) bool {
	if len(l.Content) == 0 {
		return true
	}
	e, err := audit.Parse(l.Content)
	if err != nil || e.Seq != l.Seq || audit.LeafHash(l.Content) != l.Leaf {
		return false
	}
	for _, c := range e.Changes {
		r.last[fingerprintOf(r, audit.Ref{Kind: c.Kind, ID: c.ID})] = lastChange{seq: e.Seq, removed: c.Removed}
	}
	if e.Action == audit.ActionCredentialVended {
		r.vends[fingerprintOf(r, vendOf{e.Grant.ID, e.Credential.ID})] = e.Seq
	}
	return true
}

// walk goes through the log from the oldest line on and gives apply what is to be
// removed, page by page. It counts in p what goes and what stays.
func (r *retainer) walk(ctx context.Context, apply func(context.Context, page) error, p *RetentionPlan) error {
	content, personal := r.before(r.policy.ContentDays), r.before(r.policy.PersonalDays)
	var next page
	for seq, done := int64(0), false; !done; {
		var lines []audit.Line
		err := r.m.store.View(ctx, r.organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			lines, err = tx.Lines(ctx, seq, linesPage)
			return err
		})
		if err != nil {
			return storageError(err)
		}
		for i := range lines {
			l := &lines[i]
			seq = l.Seq + 1
			if len(l.Content) == 0 {
				continue
			}
			e, err := audit.Parse(l.Content)
			if err != nil || audit.LeafHash(l.Content) != l.Leaf {
				return &headError{organization: r.organization}
			}
			if done = e.Time >= content && e.Time >= personal; done {
				break
			}
			next.add(e.Seq, r.judge(&e, len(l.Personal) > 0, e.Time < content, e.Time < personal, p))
			if len(next.erasures) == erasePage {
				if err := apply(ctx, next); err != nil {
					return err
				}
				next = page{}
			}
		}
		done = done || len(lines) == 0
	}
	if len(next.erasures) == 0 {
		return nil
	}
	return apply(ctx, next)
}

// before is the time before which a number of days has passed; 0 for none.
func (r *retainer) before(days int64) int64 {
	if days == 0 {
		return 0
	}
	return r.now - days*duration(24*time.Hour)
}

func (p *page) add(seq int64, e storage.Erasure) {
	if !e.Content && !e.Personal {
		return
	}
	if len(p.erasures) == 0 {
		p.from = seq
	}
	if e.Content {
		p.removed++
	} else {
		p.personal++
	}
	p.below = seq + 1
	p.erasures = append(p.erasures, e)
}

// judge says what of an event goes. The oldest event comes first.
func (r *retainer) judge(e *audit.Event, hasPersonal, content, personal bool, p *RetentionPlan) storage.Erasure {
	out := storage.Erasure{Seq: e.Seq}
	held := r.holds.cover(e)
	switch {
	case held:
		p.Held++
	case content && e.Seq >= r.shipped.content, !content && hasPersonal && e.Seq >= r.shipped.personal:
		p.Unshipped++
	case content && r.deciding(e):
		p.Deciding++
		out.Personal = personal && hasPersonal && e.Seq < r.shipped.personal
	default:
		out.Content = content
		out.Personal = hasPersonal && (content || personal)
	}
	if !out.Content { // it stays, and with it what it says of records
		for _, c := range e.Changes {
			of := fingerprintOf(r, audit.Ref{Kind: c.Kind, ID: c.ID})
			last := r.last[of]
			last.kept = !c.Removed
			r.last[of] = last
		}
	}
	switch {
	case out.Content:
		p.Content++
	case out.Personal:
		p.Personal++
	default:
		return storage.Erasure{}
	}
	p.UpTo, p.UpToTime = e.Seq, e.Time
	return out
}

// deciding says whether an event must stay for the log to be replayed, and for
// the questions that are asked about access that still stands.
func (r *retainer) deciding(e *audit.Event) bool {
	if strings.HasPrefix(string(e.Action), "log.") || e.Action == audit.ActionRestoreAccepted {
		return true
	}
	for _, c := range e.Changes {
		last := r.last[fingerprintOf(r, audit.Ref{Kind: c.Kind, ID: c.ID})]
		switch {
		case c.Removed && last.kept:
			return true // or the log would say that the record is still there
		case !c.Removed && last.seq == e.Seq:
			return true
		}
	}
	if e.Action != audit.ActionCredentialVended || r.vends[fingerprintOf(r, vendOf{e.Grant.ID, e.Credential.ID})] != e.Seq {
		return false
	}
	return r.stands(audit.KindGrant, e.Grant.ID) && r.stands(audit.KindCredential, e.Credential.ID)
}

// stands says whether a record exists, as far as the log knows.
func (r *retainer) stands(kind, id string) bool {
	last, known := r.last[fingerprintOf(r, audit.Ref{Kind: kind, ID: id})]
	return known && !last.removed
}

// errRulesChanged says that a policy, a hold or another process's removal came in
// between: what was planned is not to be done any more.
var errRulesChanged = errors.New("agentkey: retention changed meanwhile")

// remove removes one page, in a transaction with the event that says so.
func (r *retainer) remove(ctx context.Context, p page) error {
	var total removedPayload
	var revision int64
	err := r.m.commit(ctx, &operation{organization: r.organization, needs: retentionNeeds(r.organization), decide: func(u *unit) error {
		ref := recordRef{kindRemoved, r.organization}
		if !maps.Equal(rulesOf(u), r.rules) || u.records[ref].Revision != r.removed {
			return errRulesChanged
		}
		total = r.total
		total.Total += p.removed
		total.Personal += p.personal
		total.At = u.now
		if p.removed > 0 {
			total.Bound = max(total.Bound, p.below)
		}
		revision = r.removed + 1
		e := u.event(system, audit.ActionLogContentRemoved)
		e.Target = audit.Ref{Kind: audit.KindLog, ID: r.organization}
		e.Details = audit.Removal{
			From: p.from, Below: p.below, Removed: p.removed, Personal: p.personal, Bound: total.Bound, Total: total.Total,
			ContentDays: r.policy.ContentDays, PersonalDays: r.policy.PersonalDays,
		}.Details()
		u.erase(p.erasures)
		return u.putPayload(e, storage.Record{Kind: ref.kind, ID: ref.id, Revision: revision}, total)
	}})
	if err == nil {
		r.total, r.removed = total, revision
	}
	return err
}

func (u *unit) erase(erasures []storage.Erasure) {
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return true, tx.Erase(ctx, erasures) })
}

// retain removes what the policy of one organization lets go.
func (m *Manager) retain(ctx context.Context, organization string) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	policy, err := m.retention(ctx, organization)
	if err != nil || policy.ContentDays == 0 && policy.PersonalDays == 0 {
		return err
	}
	r, err := m.newRetainer(ctx, organization)
	if err != nil {
		return err
	}
	err = r.walk(ctx, r.remove, &r.plan)
	if errors.Is(err, errRulesChanged) {
		return nil // the next turn goes by what is so then
	}
	if err == nil && r.plan.Content+r.plan.Personal > 0 {
		m.log.LogAttrs(ctx, slog.LevelInfo, "content of the log removed", slog.String("organization", organization),
			slog.Int64("content", r.plan.Content), slog.Int64("personal", r.plan.Personal))
	}
	return err
}

// Retain removes, in every organization that has a policy, and in the reserved log if that
// has one, what is older than the policy keeps, in transactions of at most 256 events, so
// that nobody waits for it. Each transaction is an event. It may be ended at any time: what is left goes the
// next time. Run calls it in turns; a host with a scheduler of its own may instead.
//
// The error is that of the organizations in which it failed.
func (m *Manager) Retain(ctx context.Context) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	var failed error
	err := m.eachOrganization(ctx, func(id string) error {
		err := m.retain(ctx, id)
		if errors.Is(err, ErrIntegrity) {
			m.reportIntegrity(ctx, id, err)
		}
		failed = errors.Join(failed, err)
		return ctx.Err()
	})
	return errors.Join(failed, err)
}
