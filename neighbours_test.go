package agentkey_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// garble gives a tool's credential a value that does not open, in a row whose seal
// is right: as the Manager would have sealed it.
func (c *crowd) garble(tool string) {
	is := is.New(c.t)
	is.NoErr(c.store.Store.Update(c.t.Context(), c.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
		keys, err := tx.DataKeys(ctx)
		is.NoErr(err)
		i := slices.IndexFunc(keys, func(k storage.DataKey) bool { return k.Purpose == vault.PurposeRow && k.State == vault.KeyActive })
		k := keys[i]
		key, err := vault.Unwrap(ctx, c.keys.KeyProvider, vault.Wrapped{Provider: k.Provider, Blob: k.Wrapped}, k.ID, k.Purpose,
			vault.Context{Installation: c.Installation(), Organization: c.Organization.ID, Purpose: string(k.Purpose), Key: k.ID})
		is.NoErr(err)
		defer key.Destroy()
		rows, err := vault.NewRowSealer(key)
		is.NoErr(err)
		found, err := tx.Credentials(ctx, []storage.CredentialRef{{Tool: tool}})
		is.NoErr(err)
		one := found[0]
		one.Organization = c.Organization.ID
		one.Revision++
		one.Sealed = slices.Clone(one.Sealed)
		one.Sealed[len(one.Sealed)-1] ^= 1
		one.Seal, err = rows.Seal(one.Row(c.Installation()))
		is.NoErr(err)
		ok, err := tx.PutCredential(ctx, one)
		is.True(ok)
		return err
	}))
}

// TestUnreadableNeighbour: a vend whose value does not open is refused in the
// transaction that vends to its neighbours.
func TestUnreadableNeighbour(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		bad := c.Kit.Tool("GitHub", "ghp_test_unreadable")
		c.Allow(c.agent, bad)
		c.garble(bad.ID)
		vend := func(tool string) func() error { return func() error { return c.vend(t.Context(), tool) } }
		errs, updates := c.together(vend(c.tool.ID), vend(bad.ID), vend(c.tool.ID))
		is.Equal(updates, int64(1))
		is.NoErr(errs[0])
		is.True(errors.Is(errs[1], agentkey.ErrIntegrity))
		is.NoErr(errs[2])
		is.Equal(c.vends(), 3)
		page, err := c.Events(t.Context(), c.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionCredentialRefused, Tool: bad.ID}, Limit: 5})
		is.NoErr(err)
		is.Equal(len(page.Events), 1)
	})
}

// TestKeysNotAtHand: a vend that finds no data keys in memory, and a provider that
// is down or slow, is in no batch: those that have theirs are decided and answered
// while it waits, also with keys that nobody else may use any more.
func TestKeysNotAtHand(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"down", "slow"} {
		t.Run(fault, func(t *testing.T) {
			inCrowd(t, func(t *testing.T, c *crowd) {
				is := is.New(t)
				began := time.Now()
				took := make([]time.Duration, 4)
				vend := func(i int) func() error {
					return func() error {
						defer func() { took[i] = time.Since(began) }()
						return c.vend(t.Context(), c.tool.ID)
					}
				}
				errs, updates := c.together(vend(0), vend(1), func() error {
					c.Clock.Advance(time.Hour) // the keys in memory are too old now
					c.keys.breaks(keyFaults[fault])
					return vend(2)()
				}, vend(3))
				is.Equal(updates, int64(1)) // of the two that have their keys
				for i, err := range errs {
					is.Equal(err == nil, i < 2)
					is.True(i < 2 || errors.Is(err, agentkey.ErrKeys))
				}
				is.Equal(took[:2], []time.Duration{0, 0}) // of the bubble's clock
				is.Equal(took[2] > 0, fault == "slow")
				c.keys.breaks(nil)
				is.NoErr(c.vend(t.Context(), c.tool.ID))
				is.Equal(c.vends(), 4)
			})
		})
	}
}

// TestVendsAmongChanges: in a flood of revocations, suspensions and what undoes
// them, every vend has its turn, is decided on what was queued before it, and stands
// in the log in that order.
func TestVendsAmongChanges(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		ctx := t.Context()
		other, _ := c.Kit.Agent("other")
		c.Allow(other, c.tool)
		vend := func(agent agentkey.Agent) func() error {
			return func() error {
				v, err := c.Vend(ctx, agentkey.TrustedAgent(c.Organization.ID, agent.ID), c.tool.ID)
				if err == nil {
					v.Credential.Destroy()
				}
				return err
			}
		}
		cycle := []struct {
			do     func() error
			want   error
			logged []audit.Action
		}{
			{vend(c.agent), nil, []audit.Action{audit.ActionCredentialVended}},
			{func() error { return second(c.Revoke(ctx, c.Owner, other.ID, c.tool.ID)) }, nil, []audit.Action{audit.ActionGrantRevoked}},
			{vend(other), agentkey.ErrRevoked, nil},
			{func() error {
				return second(c.Assign(ctx, c.Owner, agentkey.AssignInput{Agent: other.ID, Tool: c.tool.ID}))
			}, nil, []audit.Action{audit.ActionGrantAssigned}},
			{vend(other), nil, []audit.Action{audit.ActionCredentialVended}},
			{func() error { return second(c.SuspendAgent(ctx, c.Owner, other.ID)) }, nil, []audit.Action{audit.ActionAgentSuspended, audit.ActionGrantRevoked}},
			{vend(other), agentkey.ErrSuspended, nil},
			{vend(c.agent), nil, []audit.Action{audit.ActionCredentialVended}},
			{func() error { return second(c.ReactivateAgent(ctx, c.Owner, other.ID)) }, nil, []audit.Action{audit.ActionAgentReactivated}},
		}
		const cycles = 40
		want := []audit.Action{audit.ActionCredentialVended} // the one behind which all queue up
		var operations []func() error
		for range cycles {
			for _, one := range cycle {
				operations = append(operations, one.do)
				want = append(want, one.logged...)
			}
		}
		before, err := c.Events(ctx, c.Owner, agentkey.EventsInput{Limit: 1})
		is.NoErr(err)
		errs, _ := c.together(operations...)
		for i, err := range errs {
			is.True(errors.Is(err, cycle[i%len(cycle)].want))
		}
		page, err := c.Events(ctx, c.Owner, agentkey.EventsInput{Limit: 500})
		is.NoErr(err)
		var logged []audit.Action
		for _, e := range slices.Backward(page.Events) {
			if e.Seq > before.Events[0].Seq && e.Outcome == audit.OutcomeOK {
				logged = append(logged, e.Action)
			}
		}
		is.Equal(logged, want)
	})
}
