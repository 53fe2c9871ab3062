package agentkey_test

import (
	"errors"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
)

// TestRetentionOfTheReservedLog: the log of what belongs to no organization holds
// the addresses of failed authentication and the labels of operators. An Operator sets
// for how long, and nobody else; what the installation rests on stays.
func TestRetentionOfTheReservedLog(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		ctx, operator := t.Context(), agentkey.Operator("Otto")
		clock, n, store := agentkeytest.NewClock(time.Now()), newNotebook(), open(t)
		anchored := func(c *agentkey.Config) { c.Storage, c.Clock, c.Anchors = store, clock.Now, []agentkey.Anchor{n} }
		kit := agentkeytest.New(t, anchored)
		failing := func() {
			_, err := kit.Vend(ctx, agentkey.Key("sk_agent_test_unknown").With(from("192.0.2.7")), "x")
			is.True(errors.Is(err, agentkey.ErrUnauthenticated))
			clock.Advance(2 * time.Minute)
			is.NoErr(kit.Sweep(ctx))
		}
		for range 3 {
			failing()
		}
		policy := agentkey.RetentionPolicy{ContentDays: 30, PersonalDays: 10}
		_, err := kit.SetRetention(ctx, kit.Owner, policy) // which is of the organization's own log
		is.NoErr(err)
		clock.Advance(20 * days)
		failing()
		is.NoErr(kit.Retain(ctx))
		with := func() (content, personal int) {
			page, err := kit.Events(ctx, operator, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionAuthFailed}})
			is.NoErr(err)
			for _, e := range page.Events {
				if e.Personal.Address != "" {
					personal++
				}
			}
			return len(page.Events), personal
		}
		content, personal := with()
		is.Equal([]int{content, personal}, []int{4, 4})

		hold, err := kit.PlaceHold(ctx, operator, agentkey.HoldInput{Scope: agentkey.HoldOrganization, Reason: "a dispute"})
		is.NoErr(err)
		_, err = kit.SetRetention(ctx, operator, policy)
		is.NoErr(err)
		is.NoErr(kit.Retain(ctx))
		content, personal = with()
		is.Equal([]int{content, personal}, []int{4, 4})
		is.NoErr(kit.LiftHold(ctx, operator, hold.Key, "it is over"))
		is.NoErr(kit.Retain(ctx))
		content, personal = with()
		is.Equal([]int{content, personal}, []int{4, 1})
		erased, err := kit.ErasePerson(ctx, operator, operator.ID)
		is.NoErr(err)
		is.True(erased.Events > 0)
		clock.Advance(15 * days)
		plan, err := kit.PlanRetention(ctx, operator, policy)
		is.NoErr(err)
		is.True(plan.Content >= 3 && plan.Deciding > 0)
		is.NoErr(kit.Retain(ctx))
		content, personal = with()
		is.Equal([]int{content, personal}, []int{1, 0})

		report, err := kit.Verify(ctx, operator)
		is.NoErr(err)
		is.True(report.OK() && report.HashVerified >= 3)
		found, err := kit.Reconcile(ctx, operator)
		is.NoErr(err)
		is.True(found.OK())
		_, err = kit.CreateOrganization(ctx, operator, agentkey.CreateOrganizationInput{Name: "second", Owner: "tim"})
		is.NoErr(err)
		is.NoErr(kit.Close(ctx))

		// Installation, keys and anchors go on without what is gone.
		config := kit.Config
		again, err := agentkey.New(ctx, config)
		is.NoErr(err)
		organizations, err := again.Organizations(ctx, operator)
		is.NoErr(err)
		is.Equal(len(organizations), 2)
		is.NoErr(again.Close(ctx))
	})
}
