package agentkey_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

// Two managers on one storage count against one window: 60 credential fetches at
// t = 59 s and more at t = 61 s are never more than 60 in any 60 s.
func TestSharedWindowsHoldAcrossManagers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.SharedLimits, c.Policies = true, ratelimit.DefaultPolicies()
	})
	config := k.Config
	config.Node = "other"
	other, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	agent, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_shared")
	k.Allow(agent, tool)
	caller := agentkey.TrustedAgent(k.Organization.ID, agent.ID)

	vend := func() (admitted int64) {
		var wg sync.WaitGroup
		var n atomic.Int64
		for i := range 16 {
			wg.Go(func() {
				m := k.Manager
				if i%2 == 1 {
					m = other
				}
				for range 8 {
					v, err := m.Vend(t.Context(), caller, tool.ID)
					if err == nil {
						n.Add(1)
						v.Credential.Destroy()
					} else if !errors.Is(err, agentkey.ErrLimited) {
						t.Errorf("vend: %v", err)
					}
				}
			})
		}
		wg.Wait()
		return n.Load()
	}
	k.Clock.Advance(59 * time.Second)
	is.Equal(vend(), int64(60))
	k.Clock.Advance(2 * time.Second)
	is.Equal(vend(), int64(0))
	k.Clock.Advance(58 * time.Second)
	is.Equal(vend(), int64(60))
}

// The other tiers are shared too, and the answer carries what a client is told.
func TestSharedWindowsOfOtherTiers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	policies := agentkeytest.Unlimited()
	policies[ratelimit.TierRead] = ratelimit.Policy{Limit: 3, Window: time.Minute}
	policies[ratelimit.TierAdmin] = ratelimit.Policy{Limit: 6, Window: time.Minute}
	policies[ratelimit.TierCredential] = ratelimit.Policy{Limit: 2, Window: time.Minute}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.SharedLimits, c.Policies = true, policies })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_shared")
	k.Allow(agent, tool)
	for range 3 {
		_, err := k.Profile(t.Context(), caller)
		is.NoErr(err)
	}
	_, err := k.Profile(t.Context(), caller)
	is.True(errors.Is(err, agentkey.ErrLimited))

	v, err := k.Vend(t.Context(), caller, tool.ID)
	is.NoErr(err)
	is.Equal(v.Limit.Remaining, 1)
	admitted, limit, err := k.Admit(t.Context(), caller, ratelimit.TierCredential)
	is.NoErr(err)
	is.Equal(limit, ratelimit.Decision{}) // charged in the vend's own transaction
	_, err = k.Vend(t.Context(), admitted, tool.ID)
	is.NoErr(err)
	_, err = k.Vend(t.Context(), admitted, tool.ID)
	var over *agentkey.LimitError
	is.True(errors.As(err, &over))
	is.Equal(over.Tier, ratelimit.TierCredential)

	for range 3 {
		_, err = k.RegisterAgent(t.Context(), k.Owner, agentkey.RegisterAgentInput{Name: "more"})
		is.NoErr(err)
	}
	_, err = k.RegisterAgent(t.Context(), k.Owner, agentkey.RegisterAgentInput{Name: "too many"})
	is.True(errors.Is(err, agentkey.ErrLimited))
	_, err = k.Revoke(t.Context(), k.Owner, agent.ID, tool.ID) // never limited
	is.NoErr(err)
	report, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.True(report.OK())
}
