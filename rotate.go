package agentkey

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// turnLength is for how long a process takes its turn at a rotation. One that
// ends without a word is followed by another after that.
const turnLength = 6 * time.Second

// lease is a turn that is kept for as long as a piece of work goes on.
type lease struct {
	m     *Manager
	work  string
	until time.Time
}

func (l *lease) keep(ctx context.Context) error {
	now := l.m.config.Clock()
	if now.Before(l.until) {
		return nil
	}
	mine, err := l.m.turn(ctx, l.work, turnLength)
	if err == nil && !mine {
		err = errNotMine
	}
	l.until = now.Add(turnLength / 3)
	return err
}

// ContinueRotations carries out what Reseal and RewrapDataKeys asked for, for as
// long as it takes, and destroys row keys whose time has come. Run calls it; a host
// with a scheduler of its own may instead. Of several processes one does so at a
// time: done is false when another has its turn, when something failed, and when a
// rewrapping waits for a process whose key provider has the key asked for.
func (m *Manager) ContinueRotations(ctx context.Context) (done bool, err error) {
	if err := m.enter(); err != nil {
		return false, err
	}
	defer m.leave()
	rewrapped, err := m.continueRewrap(ctx)
	resealed, err2 := m.continueReseals(ctx)
	return rewrapped && resealed, errors.Join(err, err2)
}

// lingerInterval is how often it is looked for row keys whose time has come, and for
// keys of destroyed organizations that the provider could not destroy.
const lingerInterval = time.Hour

// rotateInTurns carries out rotations until ctx ends.
func (m *Manager) rotateInTurns(ctx context.Context) {
	var looked time.Time
	for {
		_, err := m.ContinueRotations(ctx)
		if now := m.config.Clock(); now.Sub(looked) >= lingerInterval {
			looked = now
			err = errors.Join(err, m.retireRowKeys(ctx), m.finishDestructions(ctx))
		}
		if err != nil && ctx.Err() == nil {
			m.log.LogAttrs(ctx, slog.LevelWarn, "rotation of keys", slog.Any("error", err))
		}
		if !pause(ctx, min(m.config.SweepInterval, time.Second)) { // somebody waits for it
			return
		}
	}
}

// continueReseals seals anew in every organization that asked for it. One in which
// it can't, as for a key provider that does not answer, keeps nobody else waiting.
func (m *Manager) continueReseals(ctx context.Context) (done bool, err error) {
	l := &lease{m: m, work: "reseal"}
	for {
		organizations, err := m.store.FindRecord(ctx, reseal.kind, reseal.id)
		if err != nil || len(organizations) == 0 {
			return err == nil, storageError(err)
		}
		if err := l.keep(ctx); err != nil {
			return false, notMine(err)
		}
		var failed error
		for _, id := range organizations {
			failed = errors.Join(failed, m.resealAll(ctx, id, l))
		}
		switch {
		case failed == nil:
			continue
		case errors.Is(failed, errNotMine):
			return false, nil
		case len(organizations) < 2 || ctx.Err() != nil || errors.Is(failed, ErrStorage):
			return false, failed
		}
		err = m.eachOrganization(ctx, func(id string) error {
			failed = errors.Join(failed, m.resealAll(ctx, id, l))
			return ctx.Err()
		})
		return false, errors.Join(failed, err)
	}
}

// notMine leaves out that it is another's turn, which is no failure.
func notMine(err error) error {
	if errors.Is(err, errNotMine) {
		return nil
	}
	return err
}

// finish ends a re-sealing after a pass in which nothing was left: it destroys the
// keys that were on their way out when that pass began. Nothing can have come to be
// sealed with them since: rows are sealed with the active key, and no new value is
// written that is not.
func (s *resealer) finish(ctx context.Context) error {
	n := needs{records: []recordRef{reseal}, recordKinds: []string{kindLinger}}
	err := s.m.commit(ctx, &operation{organization: s.organization, needs: n, decide: func(u *unit) error {
		if err := s.sameKeys(u); err != nil {
			return err
		}
		e := u.event(system, audit.ActionResealCompleted)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: s.organization}
		stuck := int64(0)
		for _, d := range u.dataKeys {
			stuck += s.stuck[d.ID]
			if !s.old[d.ID] || s.stuck[d.ID] > 0 || d.State != vault.KeyDecryptOnly {
				continue
			}
			end := u.destroyKey
			if d.Purpose == vault.PurposeRow {
				end = s.m.endRowKey(u, e)
			}
			if err := end(system, d); err != nil {
				return err
			}
		}
		if stuck > 0 {
			e.Outcome, e.Reason, e.Count = audit.OutcomeFailed, "unreadable", stuck
		}
		return u.finish(reseal, s.requested, e)
	}})
	if err != nil {
		return err
	}
	s.m.keys.forget(s.organization)
	s.progress.Done = s.progress.Total
	return s.m.report(ctx, s.organization, reseal, s.progress)
}

// destroyKey ends a data key: from the commit on nothing opens or verifies with it,
// in any process, and the wrapped key is gone from the row.
func (u *unit) destroyKey(w who, d storage.DataKey) error {
	e := u.event(w, audit.ActionDataKeyDestroyed)
	e.Target = audit.Ref{Kind: audit.KindDataKey, ID: d.ID}
	e.From, e.To = string(d.State), string(vault.KeyDestroyed)
	e.Details = map[string]string{"purpose": string(d.Purpose), "provider": d.Provider}
	d.State, d.Wrapped, d.Revision = vault.KeyDestroyed, []byte{}, d.Revision+1
	return u.putDataKey(e, d)
}

// kindLinger is the kind of the records that say since when a row key is not the
// active one, and whether no record is sealed with it any more. What is left then
// are rate limit windows and notifications, which nobody can list and which don't
// live long.
const kindLinger = "row_key_retired"

type lingerPayload struct {
	At    int64 `json:"at"`
	Clean bool  `json:"clean"`
}

func (u *unit) linger(e *entry, key string) error {
	return u.putPayload(e, storage.Record{Kind: kindLinger, ID: key, Revision: 1}, lingerPayload{At: u.now})
}

// lingerTime is how long anything lives that is sealed with a row key and is no
// record.
func (m *Manager) lingerTime() int64 {
	return duration(max(ratelimit.MaxWindow, time.Duration(m.config.MaxAttempts)*maxDelay*6/5))
}

// endRowKey destroys a row key that no record is sealed with any more, if it was
// not the active one for long enough, and else notes that it is clean.
func (m *Manager) endRowKey(u *unit, e *entry) func(w who, d storage.DataKey) error {
	return func(w who, d storage.DataKey) error {
		ref := recordRef{kindLinger, d.ID}
		p, r, err := payloadOf[lingerPayload](u, ref)
		if err != nil {
			return err
		}
		if r.Revision == 0 {
			p.At = u.now
		}
		if p.Clean && u.now < p.At+m.lingerTime() {
			return nil
		}
		if u.now >= p.At+m.lingerTime() {
			if r.Revision > 0 {
				u.deleteRecord(e, r)
			}
			return u.destroyKey(w, d)
		}
		r.Kind, r.ID, p.Clean = ref.kind, ref.id, true
		r.Revision++
		return u.putPayload(e, r, p)
	}
}

// retireRowKeys destroys the row keys whose time has come.
func (m *Manager) retireRowKeys(ctx context.Context) error {
	var failed error
	n := needs{recordKinds: []string{kindLinger}, ended: true}
	err := m.eachOrganization(ctx, func(id string) error {
		due := false
		err := m.view(ctx, id, n, func(u *unit) { due = len(m.dueRowKeys(u)) > 0 })
		if err == nil && due {
			err = m.commit(ctx, &operation{organization: id, needs: n, decide: func(u *unit) error {
				for _, d := range m.dueRowKeys(u) {
					if err := u.destroyKey(system, d); err != nil {
						return err
					}
					u.deleteRecord(u.events[len(u.events)-1], u.records[recordRef{kindLinger, d.ID}])
				}
				return nil
			}})
			m.keys.forget(id)
		}
		failed = errors.Join(failed, err)
		return ctx.Err()
	})
	return errors.Join(failed, err)
}

func (m *Manager) dueRowKeys(u *unit) (due []storage.DataKey) {
	for _, d := range u.dataKeys {
		p, r, err := payloadOf[lingerPayload](u, recordRef{kindLinger, d.ID})
		if err == nil && r.Revision > 0 && p.Clean && d.State == vault.KeyDecryptOnly && u.now >= p.At+m.lingerTime() {
			due = append(due, d)
		}
	}
	return due
}
