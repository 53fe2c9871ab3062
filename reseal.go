package agentkey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// resealPart is how many rows or values one transaction of a rotation changes. The
// vends of a batch wait for it: five cost what some seven vends do.
const resealPart = 5

// maxPasses bounds how often a rotation goes through an organization because of
// what was changed while it did.
const maxPasses = 16

// errPass says that the keys were rotated while a pass went on.
var errPass = errors.New("agentkey: data keys were rotated meanwhile")

// resealer seals anew what is sealed with keys that are not active. It needs no
// cursor: what was done is what is sealed with an active key, so one that begins
// again passes over it.
type resealer struct {
	m            *Manager
	organization string
	requested    int64
	lease        *lease
	progress     progressPayload
	reported     time.Time

	active  map[vault.Purpose]string // of this pass
	old     map[string]bool          // keys that were on their way out when it began
	skipped int64                    // changed by others while it was done
	stuck   map[string]int64         // what can't be sealed anew, by the key that it needs

	values []sealedValue // under old keys, of the page that was read
	rows   []rowRef      // whose seals are of old keys
}

// resealAll carries out what Reseal asked for.
func (m *Manager) resealAll(ctx context.Context, organization string, l *lease) error {
	job, err := lookUp[rotationPayload](ctx, m, organization, reseal.kind, reseal.id)
	if err != nil || job.Requested == 0 {
		return err
	}
	s := &resealer{m: m, organization: organization, requested: job.Requested, lease: l}
	if err := s.begin(ctx); err != nil {
		return err
	}
	for range maxPasses {
		err := s.pass(ctx)
		if err == nil && s.skipped == 0 {
			err = s.finish(ctx)
		}
		if !errors.Is(err, errPass) && (err != nil || s.skipped == 0) {
			return err
		}
	}
	return fmt.Errorf("%w: what is sealed keeps changing", ErrStorage)
}

// begin counts what there is to do. A rotation that was cut off goes on counting
// from where it was.
func (s *resealer) begin(ctx context.Context) error {
	counts, err := s.m.countSeals(ctx, s.organization)
	if err != nil {
		return err
	}
	s.progress = progressPayload{Requested: s.requested, Total: counts.older}
	err = s.m.read(ctx, s.organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		r, ok, err := tx.Record(ctx, kindProgress, reseal.id)
		if err != nil || !ok {
			return err
		}
		if p, err := parsePayload[progressPayload](r); err == nil && p.Requested == s.requested {
			s.progress.Total = max(p.Total, counts.older)
			s.progress.Done = s.progress.Total - counts.older
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.m.report(ctx, s.organization, reseal, s.progress)
}

// pass goes through the organization once.
func (s *resealer) pass(ctx context.Context) error {
	s.active, s.skipped, s.stuck = nil, 0, make(map[string]int64)
	return s.walk(s.page).run(ctx)
}

func (s *resealer) walk(page func(context.Context, func(context.Context, storage.ReadTx, *unit) error) error) rowWalk {
	return rowWalk{
		organization: s.organization, page: page,
		check: func(u *unit, row vault.Row, seal []byte) {
			if !slices.Contains(besides, row.Kind) && older(u, seal) {
				s.rows = append(s.rows, rowRef{kind: row.Kind, id: row.Record})
			}
		},
		approval: func(a grants.Approval) {
			if id, err := vault.RowSealKeyID(a.Seal); err == nil && id != s.active[vault.PurposeRow] {
				s.rows = append(s.rows, rowRef{kind: audit.KindApproval, id: storage.ApprovalID(a), of: storage.CredentialRef{Grant: a.Grant}})
			}
		},
		sealed: func(u *unit, v sealedValue) {
			if id, err := vault.SealedKeyID(v.sealed); err == nil && id != s.active[vault.PurposeSeal] {
				s.values = append(s.values, v)
			} else if older(u, v.seal) {
				s.rows = append(s.rows, v.rowRef)
			}
		},
	}
}

// besides are the kinds of rows that a walk shows a second time, with more of them.
var besides = []string{audit.KindCredential, audit.KindApproval, kindWebhook}

// older says whether a row is sealed with another key than the active one. What
// has no seal of a known form is sealed with none.
func older(u *unit, seal []byte) bool {
	id, err := vault.RowSealKeyID(seal)
	return err == nil && id != u.ring.rows.KeyID()
}

// page reads a page, and then seals anew what is to be in it.
func (s *resealer) page(ctx context.Context, fn func(context.Context, storage.ReadTx, *unit) error) error {
	err := s.m.read(ctx, s.organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		s.values, s.rows = nil, nil
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		if err := s.sameKeys(u); err != nil {
			return err
		}
		return fn(ctx, tx, u)
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(s.values, resealPart) {
		if err := s.paced(ctx, func() error { return s.moveValues(ctx, part) }); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(s.rows, resealPart) {
		if err := s.paced(ctx, func() error { return s.moveRows(ctx, part) }); err != nil {
			return err
		}
	}
	return nil
}

// sameKeys notes the keys with which a pass begins, and answers errPass when they
// are others.
func (s *resealer) sameKeys(u *unit) error {
	active := activeKeys(u.dataKeys)
	if s.active == nil {
		s.active, s.old = active, make(map[string]bool)
		for _, d := range u.dataKeys {
			if d.State == vault.KeyDecryptOnly {
				s.old[d.ID] = true
			}
		}
	}
	if !maps.Equal(active, s.active) {
		return errPass
	}
	return nil
}

func activeKeys(keys []storage.DataKey) map[vault.Purpose]string {
	active := make(map[vault.Purpose]string)
	for _, d := range keys {
		if d.State == vault.KeyActive {
			active[d.Purpose] = d.ID
		}
	}
	return active
}

// paced does a part, and then leaves the head to others for as long as it took.
func (s *resealer) paced(ctx context.Context, part func() error) error {
	began := s.m.config.Clock()
	if err := s.lease.keep(ctx); err != nil {
		return err
	}
	if err := part(); err != nil {
		return err
	}
	now := s.m.config.Clock()
	if now.Sub(s.reported) >= time.Second {
		s.reported = now
		if err := s.m.report(ctx, s.organization, reseal, s.progress); err != nil {
			return err
		}
	}
	if took := now.Sub(began); took > 0 && !pause(ctx, min(took, time.Second)) {
		return ctx.Err()
	}
	return nil
}

// moveValues opens values and seals them with the active key, before the head is
// taken, and writes those that are still what was read.
func (s *resealer) moveValues(ctx context.Context, found []sealedValue) error {
	next := make(map[string]sealedValue, len(found))
	var rows []rowRef
	for _, v := range found {
		sealed, err := s.sealAnew(ctx, v)
		if errors.Is(err, vault.ErrIntegrity) || errors.Is(err, vault.ErrUnknownKey) {
			s.stick(v)
			s.m.reportIntegrity(ctx, s.organization, &integrityError{kind: v.kind, id: v.id})
			continue
		}
		if err != nil {
			return err
		}
		next[v.id] = sealed
		rows = append(rows, v.rowRef)
	}
	if len(next) == 0 {
		return nil
	}
	moved := 0
	err := s.m.commit(ctx, &operation{organization: s.organization, needs: rowNeeds(rows), decide: func(u *unit) error {
		moved = 0
		if err := s.sameKeys(u); err != nil {
			return err
		}
		var e *entry
		for _, old := range found {
			v, ok := next[old.id]
			now, present := u.value(old.rowRef)
			if !ok || !present || now.revision != old.revision || !bytes.Equal(now.sealed, old.sealed) {
				continue
			}
			if e == nil {
				e = u.event(system, audit.ActionCredentialResealed)
				e.Target = audit.Ref{Kind: audit.KindDataKey, ID: s.active[vault.PurposeSeal]}
			}
			if err := u.putValue(e, v); err != nil {
				return err
			}
			moved++
		}
		if e != nil {
			e.Count = int64(moved)
		}
		return nil
	}})
	if errors.Is(err, errRetired) {
		return errPass
	}
	if errors.Is(err, ErrIntegrity) {
		return s.oneByOne(ctx, found, err)
	}
	if err != nil {
		return err
	}
	s.skipped += int64(len(next) - moved)
	s.progress.Done += int64(moved)
	return nil
}

// oneByOne moves each value by itself: one that can't be moved, since it or what it
// belongs to was changed by hand, keeps its key alive and hides no other.
func (s *resealer) oneByOne(ctx context.Context, found []sealedValue, cause error) error {
	if len(found) == 1 {
		s.stick(found[0])
		return nil
	}
	if damaged := (*integrityError)(nil); !errors.As(cause, &damaged) || damaged.kind == audit.KindDataKey {
		return cause
	}
	for i := range found {
		if err := s.moveValues(ctx, found[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (s *resealer) stick(v sealedValue) {
	if id, err := vault.SealedKeyID(v.sealed); err == nil {
		s.stuck[id]++
	}
	if id, err := vault.RowSealKeyID(v.seal); err == nil {
		s.stuck[id]++
	}
}

// sealAnew is v sealed for the next revision of its row.
func (s *resealer) sealAnew(ctx context.Context, v sealedValue) (sealedValue, error) {
	r, err := s.m.keys.acquire(ctx, s.organization, false)
	if err != nil {
		return v, err
	}
	defer r.release()
	secret, err := r.opener.Open(v.place, v.sealed)
	if err != nil {
		return v, err
	}
	defer secret.Destroy()
	v.revision++
	v.place.Revision = v.revision
	v.sealed, err = s.m.sealWith(ctx, r, v.place, secret)
	if errors.Is(err, errStale) {
		s.m.keys.forget(s.organization)
		return v, errPass
	}
	return v, err
}
