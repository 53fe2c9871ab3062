package agentkey_test

import (
	"context"
	"errors"
	"fmt"
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

// flood are the operations of revocations, suspensions and what undoes them, among
// vends, each with whether it takes access away.
func (c *crowd) flood() (operations []func() error, urgent []bool) {
	ctx := c.t.Context()
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
	for i := range 40 {
		operations = append(operations,
			vend(c.agent),
			func() error { return second(c.Revoke(ctx, c.Owner, other.ID, c.tool.ID)) },
			vend(other),
			func() error {
				return second(c.Assign(ctx, c.Owner, agentkey.AssignInput{Agent: other.ID, Tool: c.tool.ID}))
			},
			vend(other),
			func() error {
				if i%2 == 0 {
					return second(c.SuspendAgent(ctx, c.Owner, other.ID))
				}
				return second(c.ReactivateAgent(ctx, c.Owner, other.ID))
			},
			vend(other),
		)
		urgent = append(urgent, false, true, false, false, false, i%2 == 0, false)
	}
	return operations, urgent
}

// TestVendsAmongChanges: in a flood of changes every vend has its turn. What comes of
// all of them, and stands in the log, is what comes of them one after another: first
// of those that take access away, then of the others, each in the order they came.
func TestVendsAmongChanges(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		one := newCrowd(t)
		operations, urgent := one.flood()
		is.NoErr(one.vend(t.Context(), one.tool.ID)) // the one behind which the others queue up
		want := make([]string, len(operations))
		for _, turn := range []bool{true, false} {
			for i, operation := range operations {
				if urgent[i] == turn {
					want[i] = fmt.Sprint(operation())
				}
			}
		}
		operations, _ = c.flood()
		errs, _ := c.together(operations...)
		for i, err := range errs {
			is.Equal(fmt.Sprint(err), want[i])
		}
		logged := func(c *crowd) (all []string) {
			page, err := c.Events(t.Context(), c.Owner, agentkey.EventsInput{Limit: 500})
			is.NoErr(err)
			for _, e := range page.Events {
				all = append(all, fmt.Sprint(e.Seq, e.Action, e.Outcome, e.Reason))
			}
			return all
		}
		is.Equal(logged(c), logged(one))
		is.True(slices.Contains(want, "<nil>") && slices.Contains(want, agentkey.ErrSuspended.Error()) && slices.Contains(want, agentkey.ErrRevoked.Error()))
	})
}
