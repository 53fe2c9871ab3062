package agentkey_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// Two managers on one storage count against one window: 60 credential fetches at
// t = 59 s and more at t = 61 s are never more than 60 in any 60 s, and so it is
// with the hour of requests.
func TestSharedWindowsHoldAcrossManagers(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		store := memstore.New()
		sharedWindows(t, store, store)
	})
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		sharedWindows(t, dbtest.Clockless{Store: open(t)}, dbtest.Clockless{Store: open(t)})
	})
}

func sharedWindows(t *testing.T, here, there storage.Store) {
	is := is.New(t)
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.Storage, c.SharedLimits, c.Policies = here, true, ratelimit.DefaultPolicies()
	})
	config := k.Config
	config.Storage, config.Node = there, "other"
	other, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	managers := []*agentkey.Manager{k.Manager, other}
	agent, _ := k.Agent("bot")
	tool, asked := k.Tool("Linear", "lin_api_test_shared"), k.Tool("GitHub", "ghp_test_shared")
	k.Allow(agent, tool)
	caller := agentkey.TrustedAgent(k.Organization.ID, agent.ID)

	// admit makes many calls at once, on both, of which so many pass. A machine that
	// does much else makes storage too busy now and then: such a call may have been
	// charged, and is made again.
	admit := func(call func(m *agentkey.Manager) error, want int64) {
		var n, busy atomic.Int64
		atOnce(16, func(i int) error {
			for range 8 {
				var err error
				for range 10 {
					if err = call(managers[i%2]); !errors.Is(err, agentkey.ErrUnavailable) {
						break
					}
					busy.Add(1)
				}
				if err == nil {
					n.Add(1)
				} else if !errors.Is(err, agentkey.ErrLimited) {
					t.Errorf("unexpected: %v", err)
				}
			}
			return nil
		})
		is.True(n.Load() <= want)
		is.True(n.Load()+busy.Load() >= want)
	}
	vend := func(m *agentkey.Manager) error {
		v, err := m.Vend(context.Background(), caller, tool.ID)
		if err == nil {
			v.Credential.Destroy()
		}
		return err
	}
	request := func(m *agentkey.Manager) error {
		_, err := m.RequestAccess(context.Background(), caller, agentkey.RequestInput{Tool: asked.ID, Reason: "to file issues"})
		if errors.Is(err, agentkey.ErrAlreadyPending) {
			err = nil // it was admitted, and counts
		}
		return err
	}
	k.Clock.Advance(59 * time.Second)
	admit(vend, 60)
	k.Clock.Advance(2 * time.Second)
	admit(vend, 0)
	k.Clock.Advance(58 * time.Second)
	admit(vend, 60)

	k.Clock.Advance(57 * time.Minute)
	admit(request, 10)
	k.Clock.Advance(2 * time.Minute)
	admit(request, 0)
	k.Clock.Advance(58 * time.Minute)
	admit(request, 10)
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
