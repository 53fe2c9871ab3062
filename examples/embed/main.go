// Command embed plays the whole loop in one process: an agent is refused, asks,
// is approved, receives its credential, and is cut off.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

func main() {
	ctx := context.Background()
	key := make([]byte, 32) // a program that keeps its data uses localkey.FromFile
	rand.Read(key)
	keys := must(localkey.NewRing(key))
	m := must(agentkey.New(ctx, agentkey.Config{Storage: memstore.New(), Keys: keys}))

	org := must(m.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Acme", Owner: "olga"}))
	alice := agentkey.Actor{Organization: org.Organization.ID, Kind: "human", ID: "alice", Role: agentkey.RoleAdmin}
	bob := agentkey.Actor{Organization: org.Organization.ID, Kind: "human", ID: "bob", Role: agentkey.RoleApprover}

	bot := must(m.RegisterAgent(ctx, alice, agentkey.RegisterAgentInput{Name: "bot"}))
	linear := must(m.AddTool(ctx, alice, agentkey.AddToolInput{
		Name: "Linear", URL: "linear.app", AuthType: "api_key", Mode: "shared",
		Credential: agentkey.NewSecret([]byte("lin_api_test_embed")),
	}))
	agent := agentkey.Key(string(bot.Secret.Bytes())) // what the agent presents

	_, err := m.Vend(ctx, agent, linear.ID)
	fmt.Println(err) // refused: no grant
	request := must(m.RequestAccess(ctx, agent, agentkey.RequestInput{Tool: linear.ID, Reason: "to triage issues"}))
	fmt.Println(request.Status) // pending
	grant := must(m.Approve(ctx, bob, request.ID, agentkey.DecisionInput{Duration: 8 * time.Hour}))
	fmt.Println("approved until", time.UnixMicro(grant.ExpiresAt).UTC().Format(time.RFC3339))
	vended := must(m.Vend(ctx, agent, linear.ID))
	fmt.Println("vended", vended.Credential) // [redacted]; vended.Credential.Bytes() has it
	vended.Credential.Destroy()

	must(m.Revoke(ctx, bob, bot.Agent.ID, linear.ID))
	_, err = m.Vend(ctx, agent, linear.ID)
	fmt.Println(err) // refused: revoked
	report := must(m.Verify(ctx, alice))
	if !report.OK() {
		log.Fatal(report.Findings)
	}
	fmt.Println("log verified:", report.Events, "events")
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
