package agentkey_test

import (
	"context"
	"fmt"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

// With grace the old key stays valid while the new one is rolled out. Without it
// the old one dies at once.
func ExampleManager_RotateKey() {
	s, ctx := openExample(), context.Background()
	issued := must(s.RotateKey(ctx, s.admin, s.bot.ID, agentkey.RotateKeyInput{Grace: time.Hour}))
	defer issued.Secret.Destroy()
	for _, key := range must(s.AgentKeys(ctx, s.admin, agentkey.AgentKeysInput{Agent: s.bot.ID})) {
		fmt.Println(key.ID == issued.Key.ID, key.Status, key.ExpiresAt > 0)
	}
	fmt.Println(must(s.Profile(ctx, s.agent)).Agent.Name) // with the old key
	// Output:
	// true active false
	// false active true
	// bot
}

// RevokeKey ends one key; the agent's others stay.
func ExampleManager_RevokeKey() {
	s, ctx := openExample(), context.Background()
	old := must(s.AgentKeys(ctx, s.admin, agentkey.AgentKeysInput{Agent: s.bot.ID}))[0]
	issued := must(s.RotateKey(ctx, s.admin, s.bot.ID, agentkey.RotateKeyInput{Grace: time.Hour}))
	defer issued.Secret.Destroy()
	fmt.Println(s.RevokeKey(ctx, s.admin, s.bot.ID, old.ID))
	_, err := s.Profile(ctx, s.agent)
	fmt.Println(err)
	_, err = s.Profile(ctx, agentkey.Key(string(issued.Secret.Bytes())))
	fmt.Println(err)
	// Output:
	// <nil>
	// unauthenticated: key was revoked
	// <nil>
}

// An agent is suspended and never deleted. Reactivated it has no grants: whoever
// wants it to have some again decides so again.
func ExampleManager_SuspendAgent() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	suspended := must(s.SuspendAgent(ctx, s.approver, s.bot.ID))
	fmt.Println(suspended.Agent.Status, suspended.Revoked)
	_, err := s.Profile(ctx, s.agent)
	fmt.Println(err)

	fmt.Println(must(s.ReactivateAgent(ctx, s.admin, s.bot.ID)).Status)
	fmt.Println(len(must(s.Profile(ctx, s.agent)).Approved))
	// Output:
	// suspended 1
	// refused: agent is suspended
	// active
	// 0
}

func ExampleManager_UpdateAgent() {
	s, ctx := openExample(), context.Background()
	name := "triage bot"
	must(s.UpdateAgent(ctx, s.admin, s.bot.ID, agentkey.UpdateAgentInput{Name: &name}))
	fmt.Println(must(s.Agent(ctx, s.admin, s.bot.ID)).Name)
	for _, a := range must(s.Agents(ctx, s.admin, agentkey.ListInput{})) {
		fmt.Println(a.Name, a.Status, a.Granted.Count)
	}
	// Output:
	// triage bot
	// triage bot active 0
}

// A grant that is in use can be made narrower at once, and never wider.
func ExampleManager_Narrow() {
	s, ctx := openExample(), context.Background()
	grant := must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.Narrow(ctx, s.approver, grant.ID, agentkey.Terms{MaxVends: 1}))
	must(s.Vend(ctx, s.agent, s.linear.ID)).Credential.Destroy()
	_, err := s.Vend(ctx, s.agent, s.linear.ID)
	fmt.Println(err)
	for _, g := range must(s.Grants(ctx, s.approver, agentkey.GrantsInput{Agent: s.bot.ID})) {
		fmt.Println(g.ToolName, g.Status, g.VendsUsed)
	}
	// Output:
	// refused: used up
	// Linear used_up 1
}

// Without its credential a tool stays in the catalog, and nobody is vended
// anything. A tool that is deleted takes its grants along.
func ExampleManager_RemoveCredential() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.RemoveCredential(ctx, s.admin, s.linear.ID))
	fmt.Println(must(s.Tool(ctx, s.admin, s.linear.ID)).Health)
	_, err := s.Vend(ctx, s.agent, s.linear.ID)
	fmt.Println(err)

	gone := must(s.DeleteTool(ctx, s.admin, s.linear.ID))
	fmt.Println(gone.ApprovedRevoked, gone.PendingRevoked)
	// Output:
	// action_needed
	// conflict: the tool has no credential
	// 1 0
}

// A host that speaks a protocol of its own admits a request by its address first,
// and the agent before it reads the rest.
func ExampleManager_Admit() {
	s, ctx := openExample(), context.Background()
	rc := agentkey.RequestContext{Address: exampleAddress}
	must(s.AdmitAddress(ctx, rc.Address))
	caller, left, err := s.Admit(ctx, s.agent.With(rc), ratelimit.TierRequest)
	fmt.Println(left.Remaining, left.Limit, err)
	must(s.RequestAccess(ctx, caller, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to triage issues"})) // not charged again
	_, left, err = s.Admit(ctx, s.agent.With(rc), ratelimit.TierRequest)
	fmt.Println(left.Remaining, left.Limit, err)
	// Output:
	// 9 10 <nil>
	// 8 10 <nil>
}
