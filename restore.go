package agentkey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// AcceptRestoreInput is what AcceptRestore is told.
type AcceptRestoreInput struct {
	Reason string `validate:"utf16max=500,text" json:"reason"` // why, for people; may be empty

	// PublicKeys are keys as PublicKeys answers them, 16 at most: those that signed what
	// is kept and that the database does not know, since the signing key was rotated after
	// the backup. The operator vouches for them. Those that signed a lost head are kept as
	// former keys, so that every anchor can be followed.
	PublicKeys []string `validate:"max=16" json:"publicKeys"`
}

// RestoredLog is a log that went back and now goes on in a new epoch.
type RestoredLog struct {
	Organization string `json:"organization"` // storage.System for the reserved log
	Name         string `json:"name,omitempty"`
	Epoch        int64  `json:"epoch"` // the new one
	Size         int64  `json:"size"`  // what is left of the log
	LostEpoch    int64  `json:"lost_epoch"`
	LostSize     int64  `json:"lost_size"` // what it had

	// Review are the grants that are approved in what is left: each may have been
	// revoked, or narrowed, in what was lost. An owner looks at them before Unlock.
	// At most 10 000 are listed.
	Review []GrantToReview `json:"review,omitempty"`
}

// GrantToReview is a grant that may have been revoked in what was lost.
type GrantToReview struct {
	Grant string `json:"grant"`
	Agent string `json:"agent"`
	Tool  string `json:"tool"`
}

// kindReview is the kind of record that says that the organization is locked until
// an owner has reviewed its grants, because its log went back.
const kindReview = "restore_review"

var restoreReview = recordRef{kindReview, "open"}

type reviewPayload struct {
	Epoch int64 `json:"epoch"`
}

// AcceptRestore lets an installation go on whose database was put back: the Manager
// is made with Config.Restoring, and all servers are stopped. The actor is an Operator.
//
// Every log that does not continue what the Config.Anchors keep goes on in a new
// epoch, whose first event says which head was lost. Its organization is locked until an
// owner unlocks it, who has reviewed its grants by then: what was revoked after the
// backup is approved again. The reserved log says that it was done. The anchors follow
// the new epochs.
//
// Cut off, it goes on where it was when it is called again. With nothing to accept, it is
// ErrNothingLost. An anchor that can't be asked is an error: what it has would be lost
// unseen.
func (m *Manager) AcceptRestore(ctx context.Context, a Actor, in AcceptRestoreInput) ([]RestoredLog, error) {
	if err := m.authorize(ctx, a, OpAcceptRestore); err != nil {
		return nil, err
	}
	if err := m.validation.input(&in); err != nil {
		return nil, err
	}
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	if !m.config.Restoring || len(m.anchors.all) == 0 {
		return nil, invalid("anchors", "are required, and Config.Restoring")
	}
	if len(in.PublicKeys) > 0 {
		all, err := audit.NewVerifiers(append(m.PublicKeys(), in.PublicKeys...)...)
		if err != nil {
			return nil, invalid("publicKeys", "must be public keys of logs")
		}
		m.anchors.vouched.Store(all)
	}
	found, err := m.lostHeads(ctx)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNothingLost
	}
	// The reserved log comes first: it must be possible to write that it was done.
	out := make([]RestoredLog, 0, len(found))
	if err := m.reopenSystem(ctx, a, in, found, &out); err != nil {
		return out, err
	}
	for _, k := range found {
		if k.organization == storage.System {
			continue
		}
		r, err := m.reopen(ctx, a, in, k)
		if err != nil {
			return out, fmt.Errorf("log of %s: %w", k.organization, err)
		}
		out = append(out, r)
	}
	return out, m.anchorRestored(ctx, out)
}

// lostHead is what the anchors together have of a log that does not continue it.
type lostHead struct {
	organization string
	epoch, size  int64
	root, signed string
}

// add takes in what one anchor has: the longest is the one that is lost.
func (l *lostHead) add(k lost) {
	_, _, epoch, _ := audit.ParseOrigin(k.Origin)
	l.epoch = max(l.epoch, epoch)
	if k.Size <= l.size {
		return
	}
	l.size, l.root, l.signed = k.Size, "", string(k.signed)
	if k.signed != nil {
		l.root = k.Root.String()
	}
}

// lostHeads asks every anchor for every log.
func (m *Manager) lostHeads(ctx context.Context) ([]lostHead, error) {
	var found []lostHead
	err := m.eachOrganization(ctx, func(id string) error {
		l := lostHead{organization: id}
		for _, a := range m.anchors.all {
			k, _, err := a.look(ctx, id)
			if err != nil {
				return fmt.Errorf("anchor %s: log of %s: %w", a.Name(), id, err)
			}
			if errors.Is(k.behind, ErrRolledBack) {
				l.add(k)
			}
		}
		if l.size > 0 {
			found = append(found, l)
		}
		return nil
	})
	return found, err
}

// reopenSystem opens the reserved log's new epoch, if it went back too, and records
// what is being done.
func (m *Manager) reopenSystem(ctx context.Context, a Actor, in AcceptRestoreInput, found []lostHead, out *[]RestoredLog) error {
	at := slices.IndexFunc(found, func(l lostHead) bool { return l.organization == storage.System })
	var r RestoredLog
	lostKeys := m.lostKeys(in, found)
	n := needs{records: slices.Collect(maps.Keys(lostKeys))}
	err := m.commit(ctx, &operation{organization: storage.System, needs: n, restoring: true, decide: func(u *unit) error {
		if at >= 0 {
			r = u.openEpoch(a, in, found[at])
		}
		e := u.event(a.who(), audit.ActionRestoreAccepted)
		e.Target = audit.Ref{Kind: audit.KindInstallation, ID: m.installation}
		e.Details = map[string]string{"logs": strconv.Itoa(len(found))}
		e.personal.Text = in.Reason
		return u.keepLostKeys(e, lostKeys)
	}})
	if err == nil && at >= 0 {
		*out = append(*out, r)
	}
	if err != nil || len(lostKeys) == 0 {
		return err
	}
	keys, err := m.keys.acquire(ctx, storage.System, true) // with the former keys, which now are more
	if err == nil {
		keys.release()
	}
	return err
}

// lostKeys are the keys that signed a lost head and that the database does not know,
// by the record that is to keep each.
func (m *Manager) lostKeys(in AcceptRestoreInput, found []lostHead) map[recordRef]string {
	out := make(map[recordRef]string)
	known := m.PublicKeys()
	for _, key := range in.PublicKeys {
		v, err := audit.NewVerifiers(key)
		if err != nil || slices.Contains(known, key) {
			continue
		}
		for _, l := range found {
			if _, err := audit.OpenCheckpoint([]byte(l.signed), v); err == nil {
				id := sha256.Sum256([]byte(key))
				out[recordRef{kindSigningKey, hex.EncodeToString(id[:])}] = key
			}
		}
	}
	return out
}

// keepLostKeys keeps them as former keys.
func (u *unit) keepLostKeys(e *entry, keys map[recordRef]string) error {
	for _, ref := range slices.SortedFunc(maps.Keys(keys), func(a, b recordRef) int { return strings.Compare(a.id, b.id) }) {
		if _, there := u.records[ref]; there {
			continue
		}
		err := u.putPayload(e, storage.Record{Kind: ref.kind, ID: ref.id, Revision: 1}, signingKeyPayload{PublicKey: keys[ref], Until: u.now})
		if err != nil {
			return err
		}
	}
	return nil
}

// openEpoch records what was lost, as the first event of the next epoch.
func (u *unit) openEpoch(a Actor, in AcceptRestoreInput, l lostHead) RestoredLog {
	e := u.event(a.who(), audit.ActionLogEpochOpened)
	e.Target = audit.Ref{Kind: audit.KindLog, ID: u.organization}
	e.Details = map[string]string{audit.DetailLostEpoch: strconv.FormatInt(l.epoch, 10), audit.DetailLostSize: strconv.FormatInt(l.size, 10)}
	if l.root != "" {
		e.Details[audit.DetailLostRoot] = l.root
	}
	if l.signed != "" && len(l.signed) <= 1024 { // a detail's bound; notes of ours are far below it
		e.Details[audit.DetailLostHead] = l.signed
	}
	e.personal.Text = in.Reason
	u.lostEpoch = l.epoch
	r := RestoredLog{Organization: u.organization, Epoch: max(u.head.Epoch, l.epoch) + 1, Size: u.head.Size, LostEpoch: l.epoch, LostSize: l.size}
	return r
}

// reopen opens the new epoch of an organization's log, and locks it.
func (m *Manager) reopen(ctx context.Context, a Actor, in AcceptRestoreInput, l lostHead) (r RestoredLog, err error) {
	n := needs{records: []recordRef{restoreReview}}
	err = m.commit(ctx, &operation{organization: l.organization, needs: n, restoring: true, decide: func(u *unit) error {
		if u.org == nil {
			return ErrNoOrganization
		}
		r = u.openEpoch(a, in, l)
		r.Name = u.org.Name
		payload, err := json.Marshal(reviewPayload{Epoch: r.Epoch})
		if err != nil {
			return err
		}
		e := u.event(a.who(), audit.ActionOrganizationLocked)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: l.organization}
		e.Details = map[string]string{"review_epoch": strconv.FormatInt(r.Epoch, 10)}
		o := *u.org
		o.Locked = true
		o.Revision++
		if err := u.putOrganization(e, o); err != nil {
			return err
		}
		return u.putRecord(e, storage.Record{
			Kind: restoreReview.kind, ID: restoreReview.id, Payload: payload, Revision: u.records[restoreReview].Revision + 1,
		})
	}})
	if err != nil {
		return r, err
	}
	r.Review, err = m.toReview(ctx, l.organization)
	return r, err
}

// toReview lists the approved grants.
func (m *Manager) toReview(ctx context.Context, organization string) (out []GrantToReview, err error) {
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		page, err := tx.Grants(ctx, storage.GrantQuery{Statuses: []grants.Status{grants.StatusApproved}, Limit: storage.MaxPage})
		if err != nil {
			return err
		}
		out = make([]GrantToReview, 0, len(page.Grants))
		agents, tools := make([]string, 0, len(page.Grants)), make([]string, 0, len(page.Grants))
		for _, g := range page.Grants {
			agents, tools = append(agents, g.Agent), append(tools, g.Tool)
		}
		u.agents, u.tools = make(map[string]storage.Agent), make(map[string]storage.Tool)
		if err := u.loadDataKeys(ctx, tx, nil); err != nil {
			return err
		}
		if err := errors.Join(u.addAgents(ctx, tx, both(nil, agents)), u.addTools(ctx, tx, both(nil, tools))); err != nil {
			return err
		}
		for _, g := range page.Grants {
			out = append(out, GrantToReview{Grant: g.ID, Agent: u.agents[g.Agent].Name, Tool: u.tools[g.Tool].Name})
		}
		return nil
	})
	return out, err
}

// anchorRestored brings the heads of the new epochs to the anchors, which have
// nothing of them yet.
func (m *Manager) anchorRestored(ctx context.Context, logs []RestoredLog) error {
	ids := make([]string, len(logs))
	for i, l := range logs {
		ids[i] = l.Organization
	}
	if !slices.Contains(ids, storage.System) {
		ids = append(ids, storage.System)
	}
	var failed error
	for _, a := range m.anchors.all {
		for id, err := range a.everyOne(ctx, ids, true) {
			failed = errors.Join(failed, fmt.Errorf("anchor %s: log of %s: %w", a.Name(), id, err))
		}
	}
	return failed
}

// endReview ends the review that a restore asked for, when an owner unlocks.
func (u *unit) endReview(e *entry) error {
	r, ok := u.records[restoreReview]
	if !ok {
		return nil
	}
	var p reviewPayload
	if err := json.Unmarshal(r.Payload, &p); err != nil {
		return &integrityError{kind: r.Kind, id: r.ID}
	}
	e.Details = map[string]string{"reviewed_epoch": strconv.FormatInt(p.Epoch, 10)}
	u.deleteRecord(e, r)
	return nil
}
