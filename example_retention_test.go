package agentkey_test

import (
	"context"
	"fmt"
	"os"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/sink"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// owner is somebody who may decide for how long the log is kept.
func (s exampleScene) owner() agentkey.Actor {
	a := s.admin
	a.Role = agentkey.RoleOwner
	return a
}

// A policy is looked at before it is set: what it removes does not come back.
func ExampleManager_SetRetention() {
	s, ctx := openExample(), context.Background()
	policy := agentkey.RetentionPolicy{ContentDays: 365, PersonalDays: 90}
	plan := must(s.PlanRetention(ctx, s.owner(), policy))
	fmt.Println(plan.Content, plan.Personal)
	r := must(s.SetRetention(ctx, s.owner(), policy))
	fmt.Println(r.ContentDays, r.PersonalDays, r.UpdatedBy)
	// Output:
	// 0 0
	// 365 90 alice
}

// What falls under a hold is neither removed nor erased, until it is lifted.
func ExampleManager_PlaceHold() {
	s, ctx := openExample(), context.Background()
	hold := must(s.PlaceHold(ctx, s.owner(), agentkey.HoldInput{Scope: agentkey.HoldPerson, ID: s.admin.ID, Reason: "Case 17"}))
	_, err := s.ErasePerson(ctx, s.owner(), s.admin.ID)
	fmt.Println(err)
	fmt.Println(len(must(s.Holds(ctx, s.owner()))), s.LiftHold(ctx, s.owner(), hold.Key, "it was closed"))
	// Output:
	// conflict: a legal hold keeps this
	// 1 <nil>
}

// What the log and the records say about a person beyond their id goes; what
// happened stays, and so do the proofs of it.
func ExampleManager_ErasePerson() {
	s, ctx := openExample(), context.Background()
	ann := s.admin
	ann.ID, ann.Label = "ann", "ann@example.com"
	must(s.RegisterAgent(ctx, ann, agentkey.RegisterAgentInput{Name: "anns bot"})).Secret.Destroy()
	plan := must(s.PlanErasure(ctx, s.owner(), "ann"))
	done := must(s.ErasePerson(ctx, s.owner(), "ann"))
	fmt.Println(plan.Events, plan.Agents, done == plan)
	fmt.Println(must(s.Verify(ctx, s.owner())).OK(), must(s.Reconcile(ctx, s.owner())).OK())
	// Output:
	// 1 1 true
	// true true
}

// Every event goes to a sink, in order and at least once. Run ships by itself.
func ExampleManager_Ship() {
	ctx := context.Background()
	text := must(localkey.Generate())
	keys := must(localkey.FromEnv(func(string) (string, bool) { return text, true }, "AGENTKEY_ENCRYPTION_KEY"))
	siem := must(os.CreateTemp("", "agentkey-example-"))
	defer func() { _ = os.Remove(siem.Name()) }()
	m := must(agentkey.New(ctx, agentkey.Config{
		Storage: memstore.New(), Keys: keys,
		Sinks: []agentkey.SinkConfig{{Name: "siem", Sink: must(sink.NewWriter(siem, sink.OCSF))}},
	}))
	org := must(m.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Acme", Owner: "olga"})).Organization
	if err := m.Ship(ctx); err != nil {
		fmt.Println(err)
	}
	auditor := agentkey.Actor{Organization: org.ID, Kind: "human", ID: "otto", Role: agentkey.RoleAuditor}
	for _, s := range must(m.Shipping(ctx, auditor)) {
		fmt.Println(s.Name, s.Shipped, s.Behind)
	}
	fmt.Println(must(m.Lags(ctx)).Sinks[0].Events) // of all logs
	// Output:
	// siem 3 0
	// 0
}

// Who follows the log asks for what comes next.
func ExampleManager_Tail() {
	s, ctx := openExample(), context.Background()
	page := must(s.Tail(ctx, s.owner(), agentkey.TailInput{From: 1}))
	fmt.Println(page.Lines[0].Seq, len(page.Lines) == int(page.Size)-1, len(page.Lines[0].Personal))
	// Output: 1 true 0
}
