package agentkey

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// authorize checks that the actor may do op, and charges it. A known actor's
// refusal is recorded.
func (m *Manager) authorize(ctx context.Context, a Actor, op Operation) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	r, known := rules[op]
	if !known || m.validation.check(a) != nil {
		return ErrNoActor
	}
	misplaced := (a.Organization == storage.System) != r.installation && !systemToo(op)
	if misplaced || !slices.Contains(r.roles, a.Role) {
		if err := m.chargeActor(ctx, a, op, ratelimit.TierAdminRead); err != nil {
			return err
		}
		return m.recordUnauthorized(ctx, a, op)
	}
	if r.free {
		return nil
	}
	tier := ratelimit.TierAdminRead
	if r.change {
		tier = ratelimit.TierAdmin
	}
	return m.chargeActor(ctx, a, op, tier)
}

// systemToo says whether op makes sense in the reserved organization.
func systemToo(op Operation) bool {
	return op == OpReadAudit || op == OpVerifyAudit || op == OpExportAudit || op == OpReadOrganization ||
		op == OpReadKeys || op == OpRotateKeys || op == OpReseal ||
		op == OpReadRetention || op == OpSetRetention || op == OpManageHolds || op == OpPlanErasure || op == OpErasePerson
}

func (m *Manager) chargeActor(ctx context.Context, a Actor, op Operation, tier ratelimit.Tier) error {
	d, err := m.charge(ctx, a.Organization, tier, a.Kind+"/"+a.ID)
	if err != nil || d.Allowed {
		return err
	}
	limited := &LimitError{Tier: tier, Decision: d}
	return m.recordRefusal(ctx, refusal{
		organization: a.Organization, who: a.who(), subject: a.ID, action: audit.ActionRequestRateLimited,
		reason: "rate_limited", details: map[string]string{"tier": string(tier), "operation": string(op)}, err: limited,
	})
}

func (m *Manager) recordUnauthorized(ctx context.Context, a Actor, op Operation) error {
	return m.recordRefusal(ctx, refusal{
		organization: a.Organization, who: a.who(), subject: a.ID, action: audit.ActionAuthorizationRefused,
		reason: ErrRole.Code, details: map[string]string{"operation": string(op), "role": string(a.Role)}, err: ErrRole,
	})
}

// refusal is a refusal that needs no decision under the head but belongs in the log.
type refusal struct {
	organization string
	who          who
	subject      string // who is refused
	action       audit.Action
	reason       string
	agent, tool  string
	details      map[string]string
	err          error // what the caller is told
}

// recordRefusal records r, the first time in a minute, and answers r.err, or why
// it could not be recorded.
func (m *Manager) recordRefusal(ctx context.Context, r refusal) error {
	ctx = context.WithValue(ctx, awaited{}, nil) // AwaitAnchors is for changes
	key := refusalKey{organization: r.organization, subject: r.subject, tool: r.tool, reason: r.reason + "/" + r.details["operation"] + r.details["tier"]}
	err := m.commit(ctx, &operation{organization: r.organization, needs: needs{ended: true}, decide: func(u *unit) error {
		m.refuse(u, key, func() {
			e := u.event(r.who, r.action)
			e.Outcome, e.Reason, e.Agent, e.Tool, e.Details = audit.OutcomeRefused, r.reason, r.agent, r.tool, r.details
		})
		return nil
	}})
	if err != nil {
		return err
	}
	return r.err
}

// AdmitAddress charges a request to the address it came from, before anybody is
// authenticated. With an invalid address all such requests share one window.
func (m *Manager) AdmitAddress(ctx context.Context, a netip.Addr) (ratelimit.Decision, error) {
	if err := m.enter(); err != nil {
		return ratelimit.Decision{}, err
	}
	defer m.leave()
	subject := "unknown"
	if a.IsValid() {
		a = a.Unmap().WithZone("")
		subject = a.String()
		if a.Is6() {
			subject = netip.PrefixFrom(a, 64).Masked().String()
		}
	}
	d, err := m.charge(ctx, "", ratelimit.TierPreauth, subject)
	if err == nil && !d.Allowed {
		err = &LimitError{Tier: ratelimit.TierPreauth, Decision: d}
	}
	return d, err
}

// Admit authenticates an agent and charges it to a tier, for hosts that read the
// rest of a request only then. The caller it answers is not charged again by one
// call that the tier is for. All other methods authenticate by themselves, and
// all of them decide again under the head.
//
// For the tier of credentials it finds the agent and charges it, no more: whether the
// key and the agent stand is decided by Vend, in the transaction that records it.
// Whoever does anything else for the agent admits it to another tier.
//
// With Config.SharedLimits a vend is charged in its own transaction: the decision
// is then that of Vended.Limit, and the one answered here is the zero value.
func (m *Manager) Admit(ctx context.Context, c Caller, tier ratelimit.Tier) (Caller, ratelimit.Decision, error) {
	// A vend decides on key and agent in its own transaction.
	vends := tier == ratelimit.TierCredential
	c, err := m.identify(ctx, c, vends)
	if err != nil {
		return c, ratelimit.Decision{}, err
	}
	if !vends {
		if err := m.checkAgent(ctx, c); err != nil {
			return c, ratelimit.Decision{}, err
		}
	}
	c, d, err := m.chargeAgent(ctx, c, tier)
	if vends && err != nil {
		m.forgetRoute(c) // that the limit is used up is not all that a dead key is told
	}
	return c, d, err
}

// admit is Admit for a call that may have been admitted already.
func (m *Manager) admit(ctx context.Context, c Caller, tier ratelimit.Tier) (Caller, error) {
	if a := c.admitted; a != nil && a.tier == tier && !a.used.Swap(true) {
		return c, nil
	}
	c, _, err := m.Admit(ctx, c, tier)
	return c, err
}

func (m *Manager) chargeAgent(ctx context.Context, c Caller, tier ratelimit.Tier) (Caller, ratelimit.Decision, error) {
	if m.config.SharedLimits && tier == ratelimit.TierCredential {
		return c, ratelimit.Decision{}, nil // charged in the vend's own transaction
	}
	d, err := m.charge(ctx, c.org, tier, c.id)
	if err != nil {
		return c, d, err
	}
	if d.Allowed {
		c.admitted = &admission{tier: tier, decision: d}
		return c, d, nil
	}
	return c, d, m.recordRefusal(ctx, refusal{
		organization: c.org, who: c.who(""), subject: c.id, agent: c.id, action: audit.ActionRequestRateLimited,
		reason: "rate_limited", details: map[string]string{"tier": string(tier)}, err: &LimitError{Tier: tier, Decision: d},
	})
}

// identify finds whose key was presented, among those remembered too if the caller
// says so. What it finds only routes: it is read again under the head.
func (m *Manager) identify(ctx context.Context, c Caller, remembered bool) (Caller, error) {
	if err := m.enter(); err != nil {
		return c, err
	}
	defer m.leave()
	if c.trusted || c.org != "" {
		if c.org == "" || c.id == "" || len(c.org) > 128 || len(c.id) > 128 || !isID(c.org+c.id) || c.org == storage.System {
			return c, ErrNoKey
		}
		return c, nil
	}
	now := micros(m.config.Clock())
	if c.secret.Len() == 0 {
		m.failures.add(c.context.Address, ErrNoKey.Code, now)
		return c, ErrNoKey
	}
	digest := c.digest()
	if digest == nil {
		m.failures.add(c.context.Address, ErrUnknownKey.Code, now)
		return c, ErrUnknownKey
	}
	k, ok := storage.Key{}, false
	if remembered {
		k, ok = m.routes.find([sha256.Size]byte(digest))
	}
	if !ok || keyRefusal(k, c, now) != nil {
		var err error
		if k, ok, err = m.findKey(ctx, digest); err != nil {
			return c, err
		}
		if ok && keyRefusal(k, c, now) == nil {
			m.routes.remember([sha256.Size]byte(digest), k)
		}
	}
	if !ok {
		m.failures.add(c.context.Address, ErrUnknownKey.Code, now)
		return c, ErrUnknownKey
	}
	c.org, c.id, c.key = k.Organization, k.Agent, k.ID
	if refused := keyRefusal(k, c, now); refused != nil {
		// Not charged: whoever holds a dead key must not use up the agent's limit.
		return c, m.refuseKey(ctx, c)
	}
	return c, nil
}

// findKey looks a key up by its digest.
func (m *Manager) findKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	ctx, cancel := reading(ctx)
	defer cancel()
	k, ok, err := m.store.FindKey(ctx, digest)
	if err != nil {
		return storage.Key{}, false, storageError(err)
	}
	return k, ok, nil
}

// keyRefusal says why a key does not authenticate, or nil.
func keyRefusal(k storage.Key, c Caller, now int64) *Error {
	switch {
	case k.Status == storage.KeyRevoked:
		return ErrKeyRevoked
	case k.Status == storage.KeyExpired, k.ExpiresAt != 0 && now >= k.ExpiresAt:
		return ErrKeyExpired
	case k.Status != storage.KeyActive:
		return ErrUnknownKey
	case !addressAllowed(k.Addresses, c.context.Address):
		return ErrKeyAddress
	}
	return nil
}

func addressAllowed(ranges []string, a netip.Addr) bool {
	if len(ranges) == 0 {
		return true
	}
	a = a.Unmap().WithZone("")
	for _, r := range ranges {
		if p, err := netip.ParsePrefix(r); err == nil && a.IsValid() && p.Contains(a) {
			return true
		}
	}
	return false
}

func (c Caller) who(label string) who {
	w := who{actor: audit.Actor{Kind: audit.ActorAgent, ID: c.id, Auth: "key", Credential: c.key}, label: label, context: c.context}
	if c.trusted {
		w.actor.Auth = "trusted"
	}
	return w
}

// needs are the rows that authenticate the caller.
func (c Caller) needs() needs {
	n := needs{agents: []string{c.id}}
	if !c.trusted {
		n.keys = []string{c.key}
	}
	return n
}

// authenticate decides under the head, or in a view, whether the caller is who it
// was routed to and may act. The error is one of the sentinels; it has recorded
// nothing.
func (c Caller) authenticate(u *unit) (storage.Agent, *Error) {
	if !c.trusted {
		k, ok := u.keys[c.key]
		if !ok || k.Agent != c.id || !equalDigest(k.Digest, c.digest()) {
			return storage.Agent{}, ErrUnknownKey
		}
		if refused := keyRefusal(k, c, u.now); refused != nil {
			return storage.Agent{}, refused
		}
	}
	a, ok := u.agents[c.id]
	switch {
	case !ok:
		return storage.Agent{}, ErrUnknownKey
	case a.Status != storage.AgentActive:
		return a, ErrSuspended
	}
	return a, nil
}

// refuseAuthentication records that a known key or agent was turned away.
func (m *Manager) refuseAuthentication(u *unit, c Caller, a storage.Agent, cause *Error) {
	action := audit.ActionAuthRejected
	if cause == ErrSuspended {
		action = audit.ActionAuthRejectedSuspended
	}
	m.refuse(u, refusalKey{organization: c.org, subject: c.id, reason: cause.Code}, func() {
		e := u.event(c.who(a.Name), action)
		e.Outcome, e.Reason = audit.OutcomeRefused, cause.Code
		e.Agent, e.Target = c.id, audit.Ref{Kind: audit.KindAgent, ID: c.id}
	})
}

// refuseKey decides under the head on a key or an agent that looked dead outside
// it. The error is nil if it has come to life meanwhile.
func (m *Manager) refuseKey(ctx context.Context, c Caller) error {
	var refused *Error
	err := m.commit(ctx, &operation{organization: c.org, needs: c.needs(), decide: func(u *unit) error {
		var a storage.Agent
		a, refused = c.authenticate(u)
		if refused != nil && refused != ErrUnknownKey {
			m.refuseAuthentication(u, c, a, refused)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	if refused == nil {
		return nil
	}
	return refused
}

// checkAgent reads whether the caller may act at all, and records it if not.
func (m *Manager) checkAgent(ctx context.Context, c Caller) error {
	var refused *Error
	err := m.view(ctx, c.org, c.needs(), func(u *unit) { _, refused = c.authenticate(u) })
	if err != nil || refused == nil {
		return err
	}
	return m.refuseKey(ctx, c)
}

// view reads what n asks for in one consistent state, checked like under the
// head. Nothing that opens access is decided on it.
func (m *Manager) view(ctx context.Context, organization string, n needs, fn func(u *unit)) error {
	return m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &n); err != nil {
			return err
		}
		fn(u)
		return nil
	})
}

// read gives fn a consistent read with the organization's keys at hand.
func (m *Manager) read(ctx context.Context, organization string, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	err := errStale
	for run := 0; run < maxRuns && errors.Is(err, errStale); run++ {
		err = m.readOnce(ctx, organization, run > 0, fn)
	}
	if errors.Is(err, ErrIntegrity) {
		m.reportIntegrity(ctx, organization, err)
	}
	return err
}

func (m *Manager) readOnce(ctx context.Context, organization string, fresh bool, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error {
	if fresh && organization != storage.System { // the key that signs heads may be another now
		signing, err := m.keys.acquire(ctx, storage.System, true)
		if err != nil {
			return err
		}
		signing.release()
	}
	r, err := m.keys.acquire(ctx, organization, fresh)
	if err != nil {
		return err
	}
	defer r.release()
	ctx, cancel := reading(ctx)
	defer cancel()
	err = m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		u := &unit{state: &state{organization: organization, installation: m.installation, ring: r, fresh: fresh, now: max(micros(m.config.Clock()), head.Time)}}
		return fn(ctx, tx, u)
	})
	if err != nil {
		return operationError(err)
	}
	return nil
}
