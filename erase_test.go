package agentkey_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// departed is an organization that somebody has left: what they did has their
// name in events and in records of every kind that holds one.
func departed(t *testing.T, store storage.Store) (kit *agentkeytest.Kit, who agentkey.Actor, bot agentkey.Agent) {
	t.Helper()
	ctx := t.Context()
	kit = agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	who = kit.Actor(agentkey.RoleAdmin)
	issued, err := kit.RegisterAgent(ctx, who, agentkey.RegisterAgentInput{Name: "bot"})
	noErr(t, err)
	bot = issued.Agent
	tool := kit.Tool("Linear", "lin_api_test_1")
	g, err := kit.RequestAccess(ctx, agentkey.Key(string(issued.Secret.Bytes())), agentkey.RequestInput{Tool: tool.ID, Reason: "to test"})
	noErr(t, err)
	_, err = kit.Approve(ctx, kit.Owner, g.ID, agentkey.DecisionInput{})
	noErr(t, err)
	_, err = kit.Revoke(ctx, who, bot.ID, tool.ID)
	noErr(t, err)
	_, err = kit.Assign(ctx, who, agentkey.AssignInput{Agent: anotherAgent(t, kit, who), Tool: tool.ID})
	noErr(t, err)
	text := "Send the key as a header."
	_, err = kit.UpdateTool(ctx, who, tool.ID, agentkey.UpdateToolInput{Instructions: &text})
	noErr(t, err)
	return kit, who, bot
}

// named is how often a text stands in what an organization keeps.
func namedIn(t *testing.T, store storage.Store, organization, text string) (n int) {
	t.Helper()
	count := func(parts ...[]byte) {
		for _, p := range parts {
			n += bytes.Count(p, []byte(text))
		}
	}
	noErr(t, store.View(t.Context(), organization, func(ctx context.Context, tx storage.ReadTx) error {
		lines, err := tx.Lines(ctx, 0, storage.MaxPage)
		noErr(t, err)
		for _, l := range lines {
			count(l.Content, l.Personal)
		}
		agents, err := tx.Agents(ctx, storage.AgentQuery{Limit: 100})
		noErr(t, err)
		for _, a := range agents.Agents {
			count([]byte(a.CreatedByLabel))
		}
		page, err := tx.Grants(ctx, storage.GrantQuery{Limit: 100})
		noErr(t, err)
		for _, g := range page.Grants {
			count([]byte(g.DecidedByLabel))
			approvals, err := tx.Approvals(ctx, []string{g.ID})
			noErr(t, err)
			for _, a := range approvals {
				count([]byte(a.ActorLabel))
			}
		}
		for _, kind := range []string{"administrator", "token", "tool_instruction_version", "tool_instruction_suggestion", "tool_suggestion"} {
			records, err := tx.ScanRecords(ctx, storage.Scan{Kind: kind, Limit: 1000})
			noErr(t, err)
			for _, r := range records {
				count(r.Payload)
			}
		}
		return nil
	}))
	return n
}

// What is known of a person goes, and nothing else does.
func TestErasePerson(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		ctx := t.Context()
		store := open(t)
		kit, who, bot := departed(t, store)
		name := who.Label
		plan, err := kit.PlanErasure(ctx, kit.Owner, who.ID)
		is.NoErr(err)
		is.True(plan.Administrator) // a name that is still in use stays
		is.NoErr(kit.RemoveAdministrator(ctx, kit.Owner, who.ID))
		plan, err = kit.PlanErasure(ctx, kit.Owner, who.ID)
		is.NoErr(err)
		is.True(!plan.Administrator)
		is.True(plan.Events >= 5 && plan.Agents == 2 && plan.Grants >= 1 && plan.Approvals >= 1 && plan.Records == 2)
		before := namedIn(t, store, kit.Organization.ID, name)
		is.True(before > 5)
		owners := namedIn(t, store, kit.Organization.ID, kit.Owner.Label)

		hold, err := kit.PlaceHold(ctx, kit.Owner, agentkey.HoldInput{Scope: agentkey.HoldPerson, ID: who.ID, Reason: "a dispute"})
		is.NoErr(err)
		_, err = kit.ErasePerson(ctx, kit.Owner, who.ID)
		is.Equal(err, agentkey.ErrUnderHold)
		is.NoErr(kit.LiftHold(ctx, kit.Owner, hold.Key, "it is over"))
		hold, err = kit.PlaceHold(ctx, kit.Owner, agentkey.HoldInput{Scope: agentkey.HoldAgent, ID: bot.ID, Reason: "a dispute"})
		is.NoErr(err)
		got, err := kit.ErasePerson(ctx, kit.Owner, who.ID)
		is.NoErr(err)
		is.True(got.Held > 0 && got.Events > 0)
		is.True(namedIn(t, store, kit.Organization.ID, name) > 0) // what concerns the agent
		is.NoErr(kit.LiftHold(ctx, kit.Owner, hold.Key, "it is over"))
		rest, err := kit.ErasePerson(ctx, kit.Owner, who.ID)
		is.NoErr(err)
		is.Equal(got.Events+rest.Events, plan.Events)
		is.Equal(namedIn(t, store, kit.Organization.ID, name), 0)
		is.True(namedIn(t, store, kit.Organization.ID, kit.Owner.Label) >= owners/2) // others keep theirs
		again, err := kit.ErasePerson(ctx, kit.Owner, who.ID)
		is.NoErr(err)
		is.Equal(again, agentkey.Erasure{Person: who.ID})

		report, err := kit.Verify(ctx, kit.Owner)
		is.NoErr(err)
		is.True(report.OK())
		is.Equal(report.PersonalErased, plan.Events)
		r, err := kit.Reconcile(ctx, kit.Owner)
		is.NoErr(err)
		is.True(r.OK())
		page, err := kit.Events(ctx, kit.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionLogPersonalErased}})
		is.NoErr(err)
		is.True(len(page.Events) >= 2)
	})
}

// anotherAgent is one more that the person registers.
func anotherAgent(t *testing.T, kit *agentkeytest.Kit, who agentkey.Actor) string {
	t.Helper()
	issued, err := kit.RegisterAgent(t.Context(), who, agentkey.RegisterAgentInput{Name: "second", Owner: kit.Owner.ID})
	noErr(t, err)
	return issued.Agent.ID
}
