package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// exampleScene is what the examples begin with: a Manager in memory, an organization
// with an administrator and an approver, an agent, and a tool.
type exampleScene struct {
	*agentkey.Manager
	admin, approver agentkey.Actor
	bot             agentkey.Agent
	agent           agentkey.Caller
	linear          agentkey.Tool
}

var exampleNoon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func openExample() exampleScene {
	ctx := context.Background()
	text := must(localkey.Generate())
	keys := must(localkey.FromEnv(func(string) (string, bool) { return text, true }, "AGENTKEY_ENCRYPTION_KEY"))
	m := must(agentkey.New(ctx, agentkey.Config{Storage: memstore.New(), Keys: keys, Clock: func() time.Time { return exampleNoon }}))
	org := must(m.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Acme", Owner: "olga"})).Organization
	s := exampleScene{
		Manager:  m,
		admin:    agentkey.Actor{Organization: org.ID, Kind: "human", ID: "alice", Role: agentkey.RoleAdmin},
		approver: agentkey.Actor{Organization: org.ID, Kind: "human", ID: "bob", Role: agentkey.RoleApprover},
	}
	issued := must(m.RegisterAgent(ctx, s.admin, agentkey.RegisterAgentInput{Name: "bot"}))
	s.bot, s.agent = issued.Agent, agentkey.Key(string(issued.Secret.Bytes()))
	s.linear = must(m.AddTool(ctx, s.admin, agentkey.AddToolInput{
		Name: "Linear", URL: "linear.app", AuthType: "api_key", Mode: "shared",
		Credential: agentkey.NewSecret([]byte("lin_api_test_example")),
	})).Tool
	return s
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// A program keeps its key in a file that its owner alone may read, apart from
// the database.
func ExampleNew() {
	dir := must(os.MkdirTemp("", "agentkey-example-"))
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "encryption.key")
	if err := localkey.WriteFile(path); err != nil { // once, as agentkey keys generate does
		log.Fatal(err)
	}
	keys := must(localkey.FromFile(path))
	m := must(agentkey.New(context.Background(), agentkey.Config{Storage: memstore.New(), Keys: keys}))
	defer func() { _ = m.Close(context.Background()) }()
	fmt.Println(m.Ready(context.Background()))
	// Output: <nil>
}

// An agent asks, and may ask for less than everything. Whoever approves may only
// narrow that.
func ExampleManager_Approve() {
	s, ctx := openExample(), context.Background()
	request := must(s.RequestAccess(ctx, s.agent, agentkey.RequestInput{
		Tool: s.linear.ID, Reason: "to triage issues", Duration: 24 * time.Hour, MaxVends: 10,
	}))
	fmt.Println(request.Status)

	_, err := s.Approve(ctx, s.approver, request.ID, agentkey.DecisionInput{Duration: 48 * time.Hour})
	fmt.Println(err)

	grant := must(s.Approve(ctx, s.approver, request.ID, agentkey.DecisionInput{Duration: 8 * time.Hour}))
	fmt.Println(grant.Status, time.UnixMicro(grant.ExpiresAt).UTC(), grant.Granted.MaxVends)
	// Output:
	// pending
	// invalid: duration can only be narrower than what was asked
	// approved 2026-01-01 20:00:00 +0000 UTC 10
}

// The reason is shown to the agent.
func ExampleManager_Deny() {
	s, ctx := openExample(), context.Background()
	request := must(s.RequestAccess(ctx, s.agent, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to triage issues"}))
	must(s.Deny(ctx, s.approver, request.ID, "use the staging workspace"))
	catalog := must(s.Catalog(ctx, s.agent, agentkey.CatalogInput{}))
	fmt.Println(catalog.Items[0].Name, catalog.Items[0].Access, catalog.Items[0].DenialReason)
	// Output: Linear denied use the staging workspace
}

// A credential prints as [redacted], whatever prints it. Only Bytes gives it out.
func ExampleManager_Vend() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	vended := must(s.Vend(ctx, s.agent, s.linear.ID))
	defer vended.Credential.Destroy()
	fmt.Println(vended.Credential)
	fmt.Printf("%s\n", vended.Credential.Bytes())
	// Output:
	// [redacted]
	// lin_api_test_example
}

// A refusal says in one word why, and in a sentence what the agent can do.
func ExampleManager_Vend_refused() {
	s, ctx := openExample(), context.Background()
	_, err := s.Vend(ctx, s.agent, s.linear.ID)
	var why *agentkey.Error
	fmt.Println(errors.Is(err, agentkey.ErrRefused), errors.As(err, &why))
	fmt.Println(why.Code)
	fmt.Println(why.Hint)
	// Output:
	// true true
	// no_grant
	// You have not asked for this tool yet: request access with a reason, and a person will decide.
}

// A host that takes input from its own users checks it before it asks anybody to
// confirm, and tells everything that is wrong at once.
func ExampleManager_CheckInput() {
	s := openExample()
	err := s.CheckInput(&agentkey.AddToolInput{Name: "Linear", Mode: "shared", AuthType: "api_key", URL: "ftp://linear.app"})
	fmt.Println(err)
	// Output: invalid: credential is required for a shared tool; url must be an http or https URL or a host name
}

// A host that authenticated the agent itself, by mutual TLS for instance, needs no
// key. Status, grant, limits and log are the same.
func ExampleTrustedAgent() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	vended := must(s.Vend(ctx, agentkey.TrustedAgent(s.bot.Organization, s.bot.ID), s.linear.ID))
	defer vended.Credential.Destroy()
	fmt.Println(vended.Tool.Name)
	// Output: Linear
}

// Revoking does not recall what was vended: RotateUpstream says that somebody
// should replace the credential at the service itself.
func ExampleManager_Revoke() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.Vend(ctx, s.agent, s.linear.ID)).Credential.Destroy()
	revoked := must(s.Revoke(ctx, s.approver, s.bot.ID, s.linear.ID))
	fmt.Println(revoked.Grant.Status, revoked.Vends, revoked.RotateUpstream)
	_, err := s.Vend(ctx, s.agent, s.linear.ID)
	fmt.Println(err)
	// Output:
	// revoked 1 true
	// refused: revoked
}

// Lock is the switch for everything at once.
func ExampleManager_Lock() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.Lock(ctx, s.approver, "a key has leaked"))
	_, err := s.Vend(ctx, s.agent, s.linear.ID)
	fmt.Println(err)
	_, err = s.Unlock(ctx, s.approver, "all clear")
	fmt.Println(err) // for owners only
	// Output:
	// refused: organization is locked
	// forbidden: the role does not allow this
}

// Administrators that the Manager keeps act with tokens.
func ExampleManager_Authenticate() {
	s, ctx := openExample(), context.Background()
	org := must(s.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Beta", Owner: "olga"}))
	owner := must(s.Authenticate(ctx, org.Token.Secret, agentkey.RequestContext{}))
	carol := must(s.AddAdministrator(ctx, owner, agentkey.AddAdministratorInput{Label: "carol", Role: agentkey.RoleAuditor}))
	token := must(s.CreateToken(ctx, owner, agentkey.CreateTokenInput{Administrator: carol.ID, ExpiresIn: 24 * time.Hour}))
	auditor := must(s.Authenticate(ctx, token.Secret, agentkey.RequestContext{}))
	fmt.Println(auditor.Label, auditor.Role, token.Secret)
	// Output: carol auditor [redacted]
}

// The catalog goes into a document that people review, and comes back by a plan.
func ExampleManager_ImportCatalog() {
	s, ctx := openExample(), context.Background()
	doc := must(s.ExportCatalog(ctx, s.admin))
	doc.Tools[0].Description = "Issues of the whole company"
	doc.Tools = append(doc.Tools, agentkey.CatalogEntry{Key: "github", Name: "GitHub", AuthType: "bot_token", Mode: "per_agent"})

	plan := must(s.PlanImport(ctx, s.admin, doc, agentkey.ImportOptions{}))
	for _, item := range plan.Items {
		fmt.Println(item.Action, item.Key, item.Changes)
	}
	done := must(s.ImportCatalog(ctx, s.admin, doc, agentkey.ImportOptions{Plan: plan.Digest}))
	fmt.Println(done.Count.Create, done.Count.Update)

	_, err := s.ImportCatalog(ctx, s.admin, doc, agentkey.ImportOptions{Plan: plan.Digest})
	fmt.Println(err) // the catalog is another one now
	// Output:
	// update linear [description]
	// create github []
	// 1 1
	// conflict: the record changed meanwhile
}

// Only with Prune are tools deleted that the document lacks, and their grants end.
func ExampleManager_PlanImport() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	nothing := agentkey.CatalogDocument{Version: agentkey.CatalogVersion}
	for _, prune := range []bool{false, true} {
		plan := must(s.PlanImport(ctx, s.admin, nothing, agentkey.ImportOptions{Prune: prune}))
		item := plan.Items[0]
		fmt.Println(item.Action, item.Key, "kept:", item.Kept, "grants that end:", item.Grants.ApprovedEnd)
	}
	// Output:
	// remove linear kept: true grants that end: 0
	// remove linear kept: false grants that end: 1
}

// An export has everything but the credentials.
func ExampleManager_ExportCatalog() {
	s, ctx := openExample(), context.Background()
	for _, e := range must(s.ExportCatalog(ctx, s.admin)).Tools {
		fmt.Println(e.Key, e.URL, e.CredentialConfigured)
	}
	// Output: linear https://linear.app/ true
}

func ExampleManager_Events() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.Vend(ctx, s.agent, s.linear.ID)).Credential.Destroy()
	page := must(s.Events(ctx, s.admin, agentkey.EventsInput{Filter: audit.Filter{Agent: s.bot.ID, Tool: s.linear.ID}}))
	for _, e := range page.Events {
		fmt.Println(e.Action, e.Outcome, e.Actor.Kind, e.Personal.ToolLabel)
	}
	// Output:
	// credential.vended ok agent Linear
	// grant.assigned ok human Linear
}

// A vend's receipt is checked with the public key alone, and by a checkpoint that
// was kept elsewhere the log is held to what it was.
func ExampleManager_ConsistencyProof() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	vended := must(s.Vend(ctx, s.agent, s.linear.ID))
	vended.Credential.Destroy()
	keys := must(audit.NewVerifiers(s.PublicKeys()...))
	early := must(vended.Receipt.Verify(keys))

	must(s.Record(ctx, s.admin, agentkey.RecordInput{Action: "x.example.deployed"}))
	late := must(s.LatestCheckpoint(ctx, s.admin))
	proof := must(s.ConsistencyProof(ctx, s.admin, early.Size, late.Size))
	fmt.Println(proof.Verify(early, late.Checkpoint))
	still := must(s.InclusionProof(ctx, s.admin, vended.Receipt.Index, late.Size))
	fmt.Println(still.Leaf == vended.Receipt.Leaf, still.VerifyIn(late.Checkpoint))
	// Output:
	// <nil>
	// true <nil>
}

// Verify reads the log against its signed heads, Reconcile the records against
// the log.
func ExampleManager_Verify() {
	s, ctx := openExample(), context.Background()
	report := must(s.Verify(ctx, s.admin))
	fmt.Println(report.OK(), report.Events == report.ContentVerified)
	agreement := must(s.Reconcile(ctx, s.admin))
	fmt.Println(agreement.OK(), agreement.Events == report.Events)
	// Output:
	// true true
	// true true
}

// Diagnose looks at keys and seals, and opens a few values for a moment. It is for
// whoever runs the installation, and recorded in every log that it looks at.
func ExampleManager_Diagnose() {
	s, ctx := openExample(), context.Background()
	d := must(s.Manager.Diagnose(ctx, agentkey.Operator("on call"), agentkey.DiagnoseInput{Organization: s.admin.Organization}))
	fmt.Println(d.OK(), d.Values > 0, d.Opened == d.Values)
	looked := must(s.Events(ctx, s.admin, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionCryptoExamined}}))
	fmt.Println(len(looked.Events), looked.Events[0].Personal.ActorLabel)
	// Output:
	// true true true
	// 1 on call
}

// Agents say what the catalog lacks. When it is added, whoever asked for it has a
// request that waits for a decision.
func ExampleManager_SuggestTool() {
	s, ctx := openExample(), context.Background()
	other := must(s.RegisterAgent(ctx, s.admin, agentkey.RegisterAgentInput{Name: "reporter"})).Agent
	first := must(s.SuggestTool(ctx, s.agent, agentkey.SuggestToolInput{Name: "Sentry", URL: "sentry.io", Reason: "to read errors"}))
	second := must(s.SuggestTool(ctx, agentkey.TrustedAgent(other.Organization, other.ID), agentkey.SuggestToolInput{
		Name: "SENTRY", Reason: "to write the weekly report",
	}))
	fmt.Println(first.Existing, second.Existing, first.ID == second.ID)

	for _, wish := range must(s.ToolSuggestions(ctx, s.approver, agentkey.ToolSuggestionsInput{Status: agentkey.SuggestionPending})) {
		fmt.Println(wish.Name, wish.URL, wish.SupporterCount)
	}
	page := must(s.ToolSupporters(ctx, s.approver, agentkey.ToolSupportersInput{Suggestion: first.ID}))
	fmt.Println(len(page.Supporters), page.Next == "")

	must(s.AddTool(ctx, s.admin, agentkey.AddToolInput{Name: "Sentry EU", URL: "https://sentry.io", AuthType: "api_key", Mode: "per_agent"}))
	fmt.Println(must(s.ToolSuggestion(ctx, s.approver, first.ID)).Status)
	for _, item := range must(s.Inbox(ctx, s.approver, agentkey.InboxInput{})).Items {
		fmt.Println(item.Kind, item.Request.ToolName, item.Request.Reason)
	}
	// Unordered output:
	// false true true
	// Sentry https://sentry.io/ 2
	// 2 true
	// accepted
	// access_request Sentry EU to read errors
	// access_request Sentry EU to write the weekly report
}

// What was dismissed can't be suggested again for a day.
func ExampleManager_DismissToolSuggestion() {
	s, ctx := openExample(), context.Background()
	wish := must(s.SuggestTool(ctx, s.agent, agentkey.SuggestToolInput{Name: "Sentry", Reason: "to read errors"}))
	must(s.DismissToolSuggestion(ctx, s.approver, wish.ID))
	_, err := s.SuggestTool(ctx, s.agent, agentkey.SuggestToolInput{Name: "sentry", Reason: "to read errors"})
	var cooling *agentkey.CooldownError
	fmt.Println(errors.As(err, &cooling), cooling.RetryAfter.Sub(exampleNoon))

	_, err = s.SuggestTool(ctx, s.agent, agentkey.SuggestToolInput{Name: "linear!", Reason: "to triage issues"})
	var there *agentkey.ExistingToolError
	fmt.Println(errors.As(err, &there), there.Name)
	// Output:
	// true 24h0m0s
	// true Linear
}
