package agentkey

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// KeyInfo is what is known of a data key. It holds no key material.
type KeyInfo struct {
	ID      string
	Purpose vault.Purpose
	State   vault.KeyState
	// Lifecycle is the state by the name that NIST SP 800-57 Part 1 Rev. 5, section
	// 7, gives it: active, deactivated or destroyed.
	Lifecycle string
	CreatedAt time.Time
	// Provider is the id of the provider's key that wraps it or, of a destroyed one,
	// that wrapped it last.
	Provider string
	Rewrap   bool  // it is wrapped by another key than the provider's current one
	Seals    int64 // reserved, of a key that seals values
	MaxSeals int64 // after which the next key takes over
	Values   int64 // sealed with it, if that was counted
	Rows     int64 // sealed with it, if that was counted
}

// KeysStatus is what is known of the data keys of an organization.
type KeysStatus struct {
	Organization string
	Provider     string // the id of the provider's current key, the common one where organizations have their own
	Keys         []KeyInfo
	// Rewrap is how many data keys are wrapped by another key than the current one.
	Rewrap int
	// Counted says whether values and rows were counted; Reseal is how many of them
	// are sealed with a key that is not active.
	Counted bool
	Reseal  int64
	// Resealing is the work that Reseal asked for, while it is not done. Rewrapping,
	// of the reserved organization only, is that of RewrapDataKeys.
	Resealing, Rewrapping *RotationProgress
	// Destruction is what became of DestroyOrganization. Nil: it was not destroyed.
	Destruction *Destruction
}

// KeysStatusInput says what KeysStatus looks at.
type KeysStatusInput struct {
	// Count has all rows and values counted by their key, which reads all of them.
	Count bool `json:"count"`
}

// lifecycles names the states as NIST SP 800-57 Part 1 Rev. 5 does.
var lifecycles = map[vault.KeyState]string{
	vault.KeyActive: "active", vault.KeyDecryptOnly: "deactivated", vault.KeyDestroyed: "destroyed",
}

// KeysStatus reads the state of an organization's data keys, and what is left of a
// rotation under way. An Operator reads that of the installation's own.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) KeysStatus(ctx context.Context, a Actor, in KeysStatusInput) (KeysStatus, error) {
	if err := m.authorize(ctx, a, OpReadKeys); err != nil {
		return KeysStatus{}, err
	}
	return m.keysStatus(ctx, a.Organization, in.Count)
}

func (m *Manager) keysStatus(ctx context.Context, organization string, count bool) (KeysStatus, error) {
	out := KeysStatus{Organization: organization, Counted: count}
	var err error
	if out.Provider, err = m.keys.current(ctx); err != nil {
		return out, err
	}
	n := needs{records: []recordRef{reseal, rewrap, destroyed}, ended: true}
	var rows []storage.DataKey
	var failed error
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		rows = u.dataKeys
		if out.Resealing, failed = u.progress(ctx, tx, reseal); failed != nil {
			return failed
		}
		out.Rewrapping, failed = u.progress(ctx, tx, rewrap)
		return failed
	})
	if err != nil {
		return out, err
	}
	wrappers, err := m.keys.wrappers(ctx, organization, out.Provider)
	if err != nil {
		return out, err
	}
	counts := sealCounts{}
	if count {
		if counts, err = m.countSeals(ctx, organization); err != nil {
			return out, err
		}
	}
	for _, d := range rows {
		k := m.keyInfo(d, wrappers[d.Purpose])
		k.Values, k.Rows = counts.values[d.ID], counts.rows[d.ID]
		if k.Rewrap {
			out.Rewrap++
		}
		if d.State == vault.KeyDecryptOnly {
			out.Reseal += k.Values + k.Rows
		}
		out.Keys = append(out.Keys, k)
	}
	slices.SortFunc(out.Keys, func(a, b KeyInfo) int {
		return strings.Compare(string(a.Purpose)+b.CreatedAt.Format(time.RFC3339Nano)+a.ID, string(b.Purpose)+a.CreatedAt.Format(time.RFC3339Nano)+b.ID)
	})
	out.Destruction, err = m.destruction(ctx, organization)
	return out, err
}

func (m *Manager) keyInfo(d storage.DataKey, current string) KeyInfo {
	k := KeyInfo{
		ID: d.ID, Purpose: d.Purpose, State: d.State, Lifecycle: lifecycles[d.State], CreatedAt: fromMicros(d.CreatedAt),
		Provider: d.Provider, Rewrap: d.State != vault.KeyDestroyed && d.Provider != current,
	}
	if d.Purpose == vault.PurposeSeal {
		k.Seals, k.MaxSeals = d.Reserved, m.config.SealsPerKey
	}
	return k
}

// RotateDataKeysInput says which keys are rotated.
type RotateDataKeysInput struct {
	// Purposes are seal and row, or one of them. None: both.
	Purposes []vault.Purpose `validate:"max=2,unique,dive,oneof=seal row" json:"purposes"`
}

// RotateDataKeys makes the next data keys of an organization: from now on values
// and rows are sealed with them. Those before them open and verify what they
// sealed; Reseal ends that. Each is an event. An Operator rotates those of the
// installation's own records.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrOrganizationDestroyed,
// ErrUnavailable.
func (m *Manager) RotateDataKeys(ctx context.Context, a Actor, in RotateDataKeysInput) (KeysStatus, error) {
	if err := m.authorize(ctx, a, OpRotateKeys); err != nil {
		return KeysStatus{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return KeysStatus{}, err
	}
	if err := m.enter(); err != nil {
		return KeysStatus{}, err
	}
	defer m.leave()
	purposes := in.Purposes
	if len(purposes) == 0 {
		purposes = []vault.Purpose{vault.PurposeSeal, vault.PurposeRow}
	}
	made := make([]storage.DataKey, len(purposes))
	wrapping := AnswerBy(ctx, within(ctx, m.config.KeyTimeout)) // for all of them
	for i, p := range purposes {
		key, next, err := m.keys.wrap(wrapping, a.Organization, p, micros(m.config.Clock()))
		if err != nil {
			return KeysStatus{}, err
		}
		key.Destroy() // it is unwrapped again by whoever uses it
		made[i] = next
	}
	err := m.act(ctx, a, OpRotateKeys, needs{}, func(u *unit) error {
		for _, next := range made {
			if err := u.follow(a.who(), next); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return KeysStatus{}, err
	}
	return afterCommit(m.keysStatus(ctx, a.Organization, false))
}

// follow puts a data key in the place of the active one of its purpose.
func (u *unit) follow(w who, next storage.DataKey) error {
	e := u.event(w, audit.ActionDataKeyRolled)
	e.Target = audit.Ref{Kind: audit.KindDataKey, ID: next.ID}
	e.Details = map[string]string{"purpose": string(next.Purpose), "provider": next.Provider}
	for _, d := range u.dataKeys {
		if d.Purpose != next.Purpose || d.State != vault.KeyActive {
			continue
		}
		e.Details["previous"] = d.ID
		d.State, d.Revision = vault.KeyDecryptOnly, d.Revision+1
		if err := u.putDataKey(e, d); err != nil {
			return err
		}
		if d.Purpose == vault.PurposeRow {
			if err := u.linger(e, d.ID); err != nil {
				return err
			}
		}
	}
	next.CreatedAt = u.now
	return u.putDataKey(e, next)
}

// Reseal has everything of an organization sealed anew that is sealed with a data
// key which is not active any more, and then those keys destroyed. It answers once
// that is noted: Run does it, in small transactions beside everything else, and
// begins again where it was if it is cut off. KeysStatus says how far it is.
//
// A row key is destroyed only when nothing lives any more that is sealed with it
// and can't be sealed anew: rate limit windows and notifications on their way.
//
// The errors: ErrForbidden, ErrLimited, ErrOrganizationDestroyed, ErrUnavailable.
func (m *Manager) Reseal(ctx context.Context, a Actor) (KeysStatus, error) {
	if err := m.authorize(ctx, a, OpReseal); err != nil {
		return KeysStatus{}, err
	}
	err := m.act(ctx, a, OpReseal, needs{records: []recordRef{reseal}}, func(u *unit) error {
		return u.request(a, reseal, audit.ActionResealRequested, rotationPayload{})
	})
	if err != nil {
		return KeysStatus{}, err
	}
	return afterCommit(m.keysStatus(ctx, a.Organization, false))
}

// RewrapDataKeys has every data key of every organization wrapped by the
// provider's current key, or that of its organization where the provider has the power
// vault.OrganizationKeys: one call of WrapKey for each, and one of UnwrapKey that
// proves it, however many values are sealed with it. It is for an Operator, and
// answers once it is noted and the first round of ContinueRotations is done.
//
// Only a process whose provider has the same current key goes on with it, and the
// provider must still unwrap what the key before wrapped.
//
// The errors: ErrForbidden, ErrKeys, ErrUnavailable.
func (m *Manager) RewrapDataKeys(ctx context.Context, a Actor) (KeysStatus, error) {
	if err := m.authorize(ctx, a, OpRewrapKeys); err != nil {
		return KeysStatus{}, err
	}
	target, err := m.keys.current(ctx)
	if err != nil {
		return KeysStatus{}, err
	}
	job := rotationPayload{Provider: target, Own: m.keys.ownKeys()}
	err = m.act(ctx, a, OpRewrapKeys, needs{records: []recordRef{rewrap}}, func(u *unit) error {
		return u.request(a, rewrap, audit.ActionRewrapRequested, job)
	})
	if err != nil {
		return KeysStatus{}, err
	}
	return afterCommit(m.keysStatus(ctx, a.Organization, false))
}

// kindRotation is the kind of the records that ask for a rotation to be carried
// out. There are as many as there is work left.
const kindRotation = "key_rotation"

var (
	reseal = recordRef{kindRotation, "reseal"}
	rewrap = recordRef{kindRotation, "rewrap"} // of the reserved organization only
)

type rotationPayload struct {
	Requested int64  `json:"requested"`
	Provider  string `json:"provider,omitempty"` // the key that is to wrap
	Own       bool   `json:"own,omitempty"`      // organizations' own keys are to wrap what seals values
}

// request notes that a rotation is to be carried out. One that was asked for
// already begins anew, with what is asked for now.
func (u *unit) request(a Actor, ref recordRef, action audit.Action, p rotationPayload) error {
	e := u.event(a.who(), action)
	e.Target = audit.Ref{Kind: audit.KindOrganization, ID: u.organization}
	if p.Provider != "" {
		e.Details = map[string]string{"provider": p.Provider}
	}
	p.Requested = u.now
	r := u.records[ref]
	r.Kind, r.ID = ref.kind, ref.id
	r.Revision++
	return u.putPayload(e, r, p)
}

// RotationProgress is how far a rotation is. The numbers are of the last that was
// heard of it.
type RotationProgress struct {
	RequestedAt time.Time
	Done, Total int64     // rows and values, or data keys
	UpdatedAt   time.Time // zero: it has not begun
}

// kindProgress is the kind of the records that say how far a rotation is. It
// decides nothing, and is no part of the log.
const kindProgress = "key_rotation_progress"

type progressPayload struct {
	Requested int64 `json:"requested"`
	Done      int64 `json:"done"`
	Total     int64 `json:"total"`
}

// progress reads how far a rotation is; nil when none was asked for.
func (u *unit) progress(ctx context.Context, tx storage.ReadTx, ref recordRef) (*RotationProgress, error) {
	job, record, err := payloadOf[rotationPayload](u, ref)
	if err != nil || record.Revision == 0 {
		return nil, err
	}
	out := &RotationProgress{RequestedAt: fromMicros(job.Requested)}
	r, ok, err := tx.Record(ctx, kindProgress, ref.id)
	if err != nil || !ok {
		return out, err
	}
	r.Organization = u.organization
	if p, err := parsePayload[progressPayload](r); err == nil && p.Requested == job.Requested {
		out.Done, out.Total, out.UpdatedAt = p.Done, p.Total, fromMicros(r.UpdatedAt)
	}
	return out, nil
}

// report writes how far a rotation is.
func (m *Manager) report(ctx context.Context, organization string, ref recordRef, p progressPayload) error {
	payload, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return storageError(m.update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		r, _, err := tx.Record(ctx, kindProgress, ref.id)
		if err != nil {
			return err
		}
		_, err = tx.PutRecord(ctx, storage.Record{
			Organization: organization, Kind: kindProgress, ID: ref.id, Payload: payload,
			UpdatedAt: micros(m.config.Clock()), Revision: r.Revision + 1,
		})
		return err
	}))
}

// finish removes the request of a rotation with the event that says so, unless it
// was asked for again meanwhile.
func (u *unit) finish(ref recordRef, requested int64, e *entry) error {
	job, record, err := payloadOf[rotationPayload](u, ref)
	if err != nil || record.Revision == 0 || job.Requested != requested {
		return err
	}
	u.deleteRecord(e, record)
	return nil
}
