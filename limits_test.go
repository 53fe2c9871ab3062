package agentkey_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

// only limits one tier to three calls a minute, and no other.
func only(tier ratelimit.Tier) func(*agentkey.Config) {
	return func(c *agentkey.Config) {
		c.Policies = agentkeytest.Unlimited()
		c.Policies[tier] = ratelimit.Policy{Limit: 3, Window: time.Minute}
	}
}

// Every tier holds through the Manager: never more than its limit in any window,
// a refused call does not extend it, and the first refusal of a minute is an
// event.
func TestTiers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tests := []struct {
		tier ratelimit.Tier
		call func(s *scene) error
	}{
		{ratelimit.TierRead, func(s *scene) error {
			_, err := s.Profile(ctx, s.botKey)
			return err
		}},
		{ratelimit.TierRead, func(s *scene) error {
			_, err := s.Catalog(ctx, s.botKey, agentkey.CatalogInput{})
			return err
		}},
		{ratelimit.TierCredential, (*scene).vend},
		{ratelimit.TierRequest, func(s *scene) error {
			_, err := s.RequestAccess(ctx, s.botKey, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to file issues"})
			if errors.Is(err, agentkey.ErrAlreadyApproved) {
				return nil // it was let in, which is what counts
			}
			return err
		}},
		{ratelimit.TierAdmin, func(s *scene) error {
			_, err := s.Record(ctx, asHostNamed(s.Owner, "carol"), agentkey.RecordInput{Action: "x.example.deployed"})
			return err
		}},
		{ratelimit.TierAdminRead, func(s *scene) error {
			_, err := s.Agents(ctx, asHostNamed(s.Owner, "carol"), agentkey.ListInput{})
			return err
		}},
	}
	for _, test := range tests {
		t.Run(string(test.tier), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s := newScene(t, only(test.tier), unlimitedFor(t))
			for range 3 {
				is.NoErr(test.call(s))
				s.Clock.Advance(10 * time.Second)
			}
			for range 4 { // at 30 s, and none of these counts
				err := test.call(s)
				var limited *agentkey.LimitError
				is.True(errors.As(err, &limited))
				is.True(errors.Is(err, agentkey.ErrLimited))
				is.Equal(limited.Tier, test.tier)
				is.Equal(limited.Decision.RetryAfter, 30*time.Second)
			}
			events := s.recorded(s.Organization.ID, audit.ActionRequestRateLimited)
			is.Equal(len(events), 1)
			is.Equal(events[0].Outcome, audit.OutcomeRefused)
			is.Equal(events[0].Details["tier"], string(test.tier))
			s.Clock.Advance(30*time.Second - time.Microsecond)
			is.True(errors.Is(test.call(s), agentkey.ErrLimited))
			s.Clock.Advance(time.Microsecond)
			is.NoErr(test.call(s))
			is.True(errors.Is(test.call(s), agentkey.ErrLimited)) // the second of the three is 50 s old
			s.Clock.Advance(time.Minute)
			is.NoErr(s.witness.Sweep(ctx))
			s.consistent(false)
		})
	}
}

func asHostNamed(a agentkey.Actor, id string) agentkey.Actor {
	a = asHost(a)
	a.ID = id
	return a
}

// unlimitedFor lets the scene be set although a tier of administrators is
// limited: the window of the scene's own owner is not that of the test.
func unlimitedFor(t *testing.T) func(*agentkey.Config) {
	t.Helper()
	return func(c *agentkey.Config) {
		limiter, err := ratelimit.NewMemory(c.Policies, 1000)
		if err != nil {
			t.Fatal(err)
		}
		c.Policies, c.Limiter = nil, exempting{limiter}
	}
}

// exempting limits nobody but agents and the administrator carol.
type exempting struct{ ratelimit.Limiter }

func (e exempting) Take(ctx context.Context, tier ratelimit.Tier, subject string, now int64) (ratelimit.Decision, error) {
	ofAdministrator := tier == ratelimit.TierAdmin || tier == ratelimit.TierAdminRead
	if ofAdministrator && !endsIn(subject, "/carol") {
		return ratelimit.Decision{Allowed: true}, nil
	}
	return e.Limiter.Take(ctx, tier, subject, now)
}

func endsIn(s, end string) bool { return len(s) >= len(end) && s[len(s)-len(end):] == end }

// Addresses are charged before anybody is authenticated, IPv6 by /64.
func TestAddressTier(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, only(ratelimit.TierPreauth))
	admit := func(a string) error {
		_, err := s.AdmitAddress(t.Context(), netip.MustParseAddr(a))
		return err
	}
	for _, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"} {
		is.NoErr(admit(a))
	}
	is.True(errors.Is(admit("2001:db8::4"), agentkey.ErrLimited))
	is.NoErr(admit("2001:db8:0:1::4"))
	is.NoErr(admit("192.0.2.1"))
	is.NoErr(admit("::ffff:192.0.2.1"))
	is.NoErr(admit("192.0.2.1"))
	is.True(errors.Is(admit("192.0.2.1"), agentkey.ErrLimited))
	_, err := s.AdmitAddress(t.Context(), netip.Addr{})
	is.NoErr(err)
}

// What Admit charged is not charged again by one call, and is by the next.
func TestAdmitChargesOnce(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, only(ratelimit.TierCredential))
	c, d, err := s.Admit(t.Context(), s.botKey, ratelimit.TierCredential)
	is.NoErr(err)
	is.Equal(d.Remaining, 2)
	for range 3 {
		v, err := s.Vend(t.Context(), c, s.linear.ID)
		is.NoErr(err)
		v.Credential.Destroy()
	}
	_, err = s.Vend(t.Context(), c, s.linear.ID)
	is.True(errors.Is(err, agentkey.ErrLimited))
	_, _, err = s.Admit(t.Context(), s.botKey, ratelimit.TierCredential)
	is.True(errors.Is(err, agentkey.ErrLimited))
	_, err = s.Profile(t.Context(), c) // of another tier
	is.NoErr(err)
}

// Taking access away is never limited.
func TestTakingAwayIsNeverLimited(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	policies := agentkeytest.Unlimited()
	policies[ratelimit.TierAdmin] = ratelimit.Policy{Limit: 1, Window: time.Hour}
	policies[ratelimit.TierAdminRead] = ratelimit.Policy{Limit: 1, Window: time.Hour}
	s := newScene(t, func(c *agentkey.Config) { c.Policies = policies }, unlimitedFor(t))
	carol := asHostNamed(s.Owner, "carol")
	asked := s.ask(s.canarysTool)
	keys, err := s.AgentKeys(t.Context(), s.Owner, agentkey.AgentKeysInput{Agent: s.canary.ID})
	is.NoErr(err)
	_, err = s.Record(t.Context(), carol, agentkey.RecordInput{Action: "x.example.deployed"})
	is.NoErr(err)
	_, err = s.Record(t.Context(), carol, agentkey.RecordInput{Action: "x.example.deployed"})
	is.True(errors.Is(err, agentkey.ErrLimited))
	for range 3 {
		_, err = s.Narrow(t.Context(), carol, s.grant.ID, agentkey.Terms{MaxVends: 3})
		is.NoErr(err)
		_, err = s.Revoke(t.Context(), carol, s.bot.ID, s.linear.ID)
		is.NoErr(err)
		s.Allow(s.bot, s.linear)
		is.NoErr(s.RevokeKey(t.Context(), carol, s.canary.ID, keys[0].ID))
		_, err = s.Lock(t.Context(), carol, "")
		is.NoErr(err)
	}
	_, err = s.Deny(t.Context(), carol, asked.ID, "not now")
	is.NoErr(err)
	_, err = s.SuspendAgent(t.Context(), carol, s.bot.ID)
	is.NoErr(err)
	_, err = s.RemoveCredential(t.Context(), carol, s.linear.ID)
	is.NoErr(err)
}

// Whoever holds a dead key of an agent, or guesses, can't use up its window.
func TestRejectedKeysDontUseUpTheWindow(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, only(ratelimit.TierCredential))
	dead := s.botKey
	issued, err := s.RotateKey(t.Context(), s.Owner, s.bot.ID, agentkey.RotateKeyInput{})
	is.NoErr(err)
	for range 5 {
		_, err = s.Vend(t.Context(), dead, s.linear.ID)
		is.True(errors.Is(err, agentkey.ErrKeyRevoked))
		s.fail(netip.MustParseAddr("192.0.2.1"))
	}
	s.botKey = agentkey.Key(string(issued.Secret.Bytes()))
	for range 3 {
		is.NoErr(s.vend())
	}
	is.True(errors.Is(s.vend(), agentkey.ErrLimited))
}

// brokenLimiter can't answer.
type brokenLimiter struct{}

func (brokenLimiter) Take(context.Context, ratelimit.Tier, string, int64) (ratelimit.Decision, error) {
	return ratelimit.Decision{Allowed: true}, errors.New("limiter is away")
}

// A limiter that does not answer admits nobody, and keeps nobody from taking
// access away.
func TestLimiterFails(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	config := s.Config
	config.Policies, config.Limiter = nil, brokenLimiter{}
	m, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	v, err := m.Vend(t.Context(), s.botKey, s.linear.ID)
	is.True(errors.Is(err, agentkey.ErrLimiter))
	is.True(errors.Is(err, agentkey.ErrUnavailable))
	is.Equal(v, nil)
	_, err = m.Agents(t.Context(), s.Owner, agentkey.ListInput{})
	is.True(errors.Is(err, agentkey.ErrLimiter))
	_, err = m.AdmitAddress(t.Context(), netip.Addr{})
	is.True(errors.Is(err, agentkey.ErrLimiter))
	_, err = m.Revoke(t.Context(), s.Owner, s.bot.ID, s.linear.ID)
	is.NoErr(err)
}
