package agentkey

import (
	"context"
	"encoding/json"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// RetentionPolicy says how long an organization keeps what its log holds. Leaf
// hashes are kept for ever, so that heads, proofs and receipts stay good.
type RetentionPolicy struct {
	// ContentDays is for how long events keep their content: 30 at least. 0: for ever.
	// Kept beyond it is what access rests on: see Manager.PlanRetention.
	ContentDays int64 `validate:"min=0,max=36500" json:"contentDays"`
	// PersonalDays is for how long events keep their personal part, which may go
	// earlier: 1 at least. 0: as long as the content.
	PersonalDays int64 `validate:"min=0,max=36500" json:"personalDays"`
}

// minContentDays is the shortest period for which content is kept.
const minContentDays = 30

func (p *RetentionPolicy) problems() []FieldError {
	if p.ContentDays > 0 && p.ContentDays < minContentDays {
		return []FieldError{{Field: "contentDays", Message: "must be 0 or at least 30"}}
	}
	if p.ContentDays > 0 && p.PersonalDays > p.ContentDays {
		return []FieldError{{Field: "personalDays", Message: "must not be more than contentDays: the personal part goes with the content"}}
	}
	return nil
}

// Retention is an organization's policy with what it has come to.
type Retention struct {
	RetentionPolicy
	UpdatedAt int64  // microseconds; 0: nobody has set one
	UpdatedBy string // the id of who did

	Removed         int64 // events whose content was removed so far
	PersonalRemoved int64 // personal parts that were removed by the policy alone so far
	RemovedBelow    int64 // no content at or above this number was removed
	RemovedAt       int64 // when content was last removed; 0: never
}

// RetentionPlan says what removing by a policy would do now.
type RetentionPlan struct {
	Content   int64 // events whose content would be removed
	Personal  int64 // personal parts that would be removed, of events whose content stays
	UpTo      int64 // number of the last event with something to remove; -1: there is none
	UpToTime  int64 // and its time
	Deciding  int64 // events that are old enough and stay because access, or what is known of it, rests on them
	Held      int64 // events that are old enough and stay under a legal hold
	Unshipped int64 // events that are old enough and stay until every sink of this process has them
}

// Kinds of the records of retention. Each is under the organization's own id, but
// for legal holds.
const (
	kindRetention = "retention_policy"
	kindRemoved   = "retention_removed"
	kindHold      = "legal_hold"
)

type retentionPayload struct {
	ContentDays  int64  `json:"content_days"`
	PersonalDays int64  `json:"personal_days"`
	UpdatedAt    int64  `json:"updated_at"`
	UpdatedBy    string `json:"updated_by"`
}

// removedPayload is what was removed so far. It is written with every removal.
type removedPayload struct {
	Bound    int64 `json:"bound"`
	Total    int64 `json:"total"`
	Personal int64 `json:"personal"`
	At       int64 `json:"at"`
}

// lookUp reads one record that passes its seal; the zero value when there is none.
func lookUp[T any](ctx context.Context, m *Manager, organization, kind, id string) (p T, err error) {
	var damaged error
	ref := recordRef{kind, id}
	err = m.view(ctx, organization, needs{records: []recordRef{ref}, ended: true}, func(u *unit) { p, _, damaged = payloadOf[T](u, ref) })
	if err == nil {
		err = damaged
	}
	return p, err
}

// payloadOf is what a record that was read holds; the zero value when there is none.
func payloadOf[T any](u *unit, ref recordRef) (p T, r storage.Record, err error) {
	r, ok := u.records[ref]
	if ok && json.Unmarshal(r.Payload, &p) != nil {
		err = &integrityError{kind: ref.kind, id: ref.id}
	}
	return p, r, err
}

func (m *Manager) removed(ctx context.Context, organization string) (removedPayload, error) {
	return lookUp[removedPayload](ctx, m, organization, kindRemoved, organization)
}

// Retention reads the organization's policy and what was removed so far.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) Retention(ctx context.Context, a Actor) (Retention, error) {
	if err := m.authorize(ctx, a, OpReadRetention); err != nil {
		return Retention{}, err
	}
	return m.retention(ctx, a.Organization)
}

func (m *Manager) retention(ctx context.Context, organization string) (out Retention, err error) {
	var damaged error
	policy, removed := recordRef{kindRetention, organization}, recordRef{kindRemoved, organization}
	err = m.view(ctx, organization, needs{records: []recordRef{policy, removed}, ended: true}, func(u *unit) {
		p, _, err := payloadOf[retentionPayload](u, policy)
		var r removedPayload
		if err == nil {
			r, _, err = payloadOf[removedPayload](u, removed)
		}
		damaged = err
		out = Retention{
			RetentionPolicy: RetentionPolicy{p.ContentDays, p.PersonalDays}, UpdatedAt: p.UpdatedAt, UpdatedBy: p.UpdatedBy,
			Removed: r.Total, PersonalRemoved: r.Personal, RemovedBelow: r.Bound, RemovedAt: r.At,
		}
	})
	if err == nil {
		err = damaged
	}
	return out, err
}

// SetRetention sets the organization's policy; that of the reserved log is an
// Operator's, as its holds and erasures are. Run removes by it, from its next
// turn on; what was removed does not come back. Look at PlanRetention first.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) SetRetention(ctx context.Context, a Actor, in RetentionPolicy) (Retention, error) {
	if err := m.authorize(ctx, a, OpSetRetention); err != nil {
		return Retention{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Retention{}, err
	}
	ref := recordRef{kindRetention, a.Organization}
	err := m.act(ctx, a, OpSetRetention, needs{records: []recordRef{ref}}, func(u *unit) error {
		old, r, err := payloadOf[retentionPayload](u, ref)
		if err != nil || old.ContentDays == in.ContentDays && old.PersonalDays == in.PersonalDays {
			return err
		}
		e := u.event(a.who(), audit.ActionLogRetentionUpdated)
		e.Target = audit.Ref{Kind: audit.KindLog, ID: u.organization}
		e.Details = audit.Removal{ContentDays: in.ContentDays, PersonalDays: in.PersonalDays}.Details()
		for name := range e.Details {
			if name != "content_days" && name != "personal_days" {
				delete(e.Details, name)
			}
		}
		return u.putPayload(e, storage.Record{Kind: ref.kind, ID: ref.id, Revision: r.Revision + 1}, retentionPayload{
			ContentDays: in.ContentDays, PersonalDays: in.PersonalDays, UpdatedAt: u.now, UpdatedBy: a.ID,
		})
	})
	if err != nil {
		return Retention{}, err
	}
	return afterCommit(m.retention(ctx, a.Organization))
}

// PlanRetention says what removing by a policy would do now, and changes nothing. It
// reads the whole log.
//
// Beyond the policy's period stays what is deciding: the last change of every
// record that exists, so that a replay of the log still finds an old row put back;
// the removal of a record as long as an earlier event of it stays; the last vend of
// every credential that is still in use, for each grant; and the events about the log
// itself.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable, and
// ErrIntegrity when the log is not what was signed.
func (m *Manager) PlanRetention(ctx context.Context, a Actor, in RetentionPolicy) (RetentionPlan, error) {
	if err := m.authorize(ctx, a, OpReadRetention); err != nil {
		return RetentionPlan{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return RetentionPlan{}, err
	}
	if err := m.enter(); err != nil {
		return RetentionPlan{}, err
	}
	defer m.leave()
	r, err := m.newRetainer(ctx, a.Organization)
	if err != nil {
		return RetentionPlan{}, err
	}
	r.policy = in
	err = r.walk(ctx, func(context.Context, page) error { return nil }, &r.plan)
	return r.plan, err
}
