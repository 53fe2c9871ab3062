package agentkey

import (
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// charge charges one call to a tier. Windows are kept in this process or, with
// Config.SharedLimits, beside the organization's records; those of addresses
// protect this process only, and never cost a transaction.
func (m *Manager) charge(ctx context.Context, organization string, tier ratelimit.Tier, subject string) (ratelimit.Decision, error) {
	if m.config.SharedLimits && tier != ratelimit.TierPreauth {
		return m.chargeShared(ctx, organization, tier, subject)
	}
	d, err := m.limiter.Take(ctx, tier, organization+"/"+subject, micros(m.config.Clock()))
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrLimiter, err)
	}
	return d, nil
}

func (m *Manager) chargeShared(ctx context.Context, organization string, tier ratelimit.Tier, subject string) (d ratelimit.Decision, err error) {
	ref := storage.WindowRef{Tier: string(tier), Subject: subject}
	err = m.commit(ctx, &operation{organization: organization, needs: needs{windows: []storage.WindowRef{ref}, ended: true}, decide: func(u *unit) (err error) {
		d, err = u.admit(ref, m.config.Policies[tier])
		return err
	}})
	return d, err
}

// admit charges one call to a shared window, in the transaction that decides it.
func (u *unit) admit(ref storage.WindowRef, p ratelimit.Policy) (ratelimit.Decision, error) {
	next, d := ratelimit.Admit(u.windows[ref], p, u.now)
	if !d.Allowed || p.Off() {
		return d, nil
	}
	u.windows[ref] = next
	if u.charged == nil {
		u.charged = make(map[storage.WindowRef]bool)
	}
	u.charged[ref] = true
	return d, nil
}

// writeWindows writes the windows that operations were charged to, each once and
// all together, however many shared them.
func (s *state) writeWindows(ctx context.Context, tx storage.Tx) error {
	if len(s.charged) == 0 {
		return nil
	}
	u := &unit{state: s}
	var windows []storage.Window
	for ref := range s.charged {
		times := ratelimit.AppendTimes(nil, s.windows[ref])
		seal, err := s.ring.rows.Seal(u.windowRow(ref, times))
		if err != nil {
			return fmt.Errorf("agentkey: seal window: %w", err)
		}
		windows = append(windows, storage.Window{WindowRef: ref, Times: append(seal, times...), UpdatedAt: s.now})
	}
	clear(s.charged)
	return tx.PutWindows(ctx, windows)
}

// windowRow is what the seal of a window covers. The seal stands before the
// times, in the same column.
func (u *unit) windowRow(ref storage.WindowRef, times []byte) vault.Row {
	var c vault.Columns
	c.Bytes("times", times)
	return vault.Row{
		Installation: u.installation, Organization: u.organization,
		Kind: kindWindow, Record: ref.Tier + "/" + ref.Subject, Revision: 1, Columns: c,
	}
}

const kindWindow = "window"

func (u *unit) loadWindows(ctx context.Context, tx storage.ReadTx, n *needs) error {
	if len(n.windows) == 0 {
		return nil
	}
	found, err := tx.Windows(ctx, n.windows)
	if err != nil {
		return err
	}
	return u.addWindows(found)
}

func (u *unit) addWindows(found []storage.Window) (err error) {
	u.windows = make(map[storage.WindowRef][]int64, len(found))
	for _, w := range found {
		damaged := &integrityError{kind: kindWindow, id: w.Tier + "/" + w.Subject}
		if len(w.Times) < vault.RowSealSize {
			return damaged
		}
		seal, times := w.Times[:vault.RowSealSize], w.Times[vault.RowSealSize:]
		if id, err := vault.RowSealKeyID(seal); err == nil && u.states[id] == vault.KeyDestroyed {
			continue // all its times are older than any window: see lingerTime
		}
		if err := u.verify(u.windowRow(w.WindowRef, times), seal); err != nil {
			return err
		}
		if u.windows[w.WindowRef], err = ratelimit.ParseTimes(times); err != nil {
			return damaged
		}
	}
	return nil
}

// limited records that a call was over its limit and answers the error.
func (m *Manager) limited(u *unit, w who, agent string, tier ratelimit.Tier, d ratelimit.Decision) error {
	m.refuse(u, refusalKey{organization: u.organization, subject: w.actor.ID, reason: "rate_limited/" + string(tier)}, func() {
		e := u.event(w, audit.ActionRequestRateLimited)
		e.Outcome, e.Reason, e.Agent = audit.OutcomeRefused, "rate_limited", agent
		e.Details = map[string]string{"tier": string(tier)}
	})
	return &LimitError{Tier: tier, Decision: d}
}
