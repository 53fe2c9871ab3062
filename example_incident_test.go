package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

var exampleAddress = netip.MustParseAddr("192.0.2.7")

// A report of what an agent held says which credentials have to be replaced at the
// services themselves, where nobody has replaced them since.
func ExampleManager_IncidentReport() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	must(s.Vend(ctx, s.agent.With(agentkey.RequestContext{Address: exampleAddress}), s.linear.ID)).Credential.Destroy()
	report := must(s.IncidentReport(ctx, s.approver, agentkey.IncidentInput{Agent: s.bot.ID, Since: exampleNoon.Add(-time.Hour)}))
	fmt.Println(report.Name, report.Vends, report.Refusals)
	for _, c := range report.Credentials {
		fmt.Println(c.ToolName, c.Vends, c.State, c.RotateUpstream())
	}
	for e, err := range report.Events(ctx) {
		if err == nil && e.Kind == agentkey.IncidentVend {
			fmt.Println(e.Action, e.Personal.Address)
		}
	}
	for g, err := range report.OpenGrants(ctx) {
		fmt.Println(g.ToolName, g.Status, err)
	}
	// Output:
	// bot 1 0
	// Linear 1 current true
	// credential.vended 192.0.2.7
	// Linear approved <nil>
}

// Whoever holds an agent's key can stop it, and learns no more than that it is one.
func ExampleManager_ReportLeak() {
	s, ctx := openExample(), context.Background()
	issued := must(s.RegisterAgent(ctx, s.admin, agentkey.RegisterAgentInput{Name: "reporter"}))
	defer issued.Secret.Destroy()
	rc := agentkey.RequestContext{Address: exampleAddress}
	must(s.AdmitAddress(ctx, rc.Address))
	leaked := must(s.ReportLeak(ctx, rc, agentkey.LeakReport{Secret: issued.Secret, Source: "commit", URL: "https://code.example.com/x/y"}))
	fmt.Println(leaked, must(s.Agent(ctx, s.admin, issued.Agent.ID)).Status)
	// Output: agent_key suspended
}

// An administrator reports what was found of the own organization. A key of
// another one is nothing that is known here.
func ExampleManager_ReportOwnLeak() {
	s, ctx := openExample(), context.Background()
	other := must(s.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Beta", Owner: "olga"}))
	report := agentkey.LeakReport{Secret: other.Token.Secret, Source: "person"}
	fmt.Printf("%q\n", must(s.ReportOwnLeak(ctx, s.approver, report)))

	owner := must(s.Authenticate(ctx, other.Token.Secret, agentkey.RequestContext{}))
	fmt.Printf("%q\n", must(s.ReportOwnLeak(ctx, owner, report)))
	_, err := s.Authenticate(ctx, other.Token.Secret, agentkey.RequestContext{})
	fmt.Println(err)
	// Output:
	// ""
	// "admin_token"
	// unauthenticated: unknown token
}

// exampleHeads keeps heads in memory; a real anchor keeps them where whoever can
// write to the database can't.
type exampleHeads map[string][]byte

func (exampleHeads) Name() string { return "notebook" }

func (kept exampleHeads) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	if err := h.Follows(ctx, kept[h.Log()]); err != nil {
		return err
	}
	kept[h.Log()] = h.Signed
	return nil
}

// A backup brings back grants that were revoked after it. The anchors notice, and
// the installation goes on only when somebody has said so: locked, until an owner
// has reviewed what is approved.
func ExampleManager_AcceptRestore() {
	ctx := context.Background()
	dir := must(os.MkdirTemp("", "agentkey-example-"))
	defer func() { _ = os.RemoveAll(dir) }()
	path, heads := filepath.Join(dir, "agentkey.db"), exampleHeads{}
	text := must(localkey.Generate())
	start := func(restoring bool) (*agentkey.Manager, func(), error) {
		store := must(bunstore.OpenSQLite(path))
		m, err := agentkey.New(ctx, agentkey.Config{
			Storage:   store,
			Keys:      must(localkey.FromEnv(func(string) (string, bool) { return text, true }, "AGENTKEY_ENCRYPTION_KEY")),
			Clock:     func() time.Time { return exampleNoon },
			Anchors:   []agentkey.Anchor{heads},
			Restoring: restoring,
		})
		return m, func() {
			if m != nil {
				_ = m.Close(ctx)
			}
			_ = store.Close()
		}, err
	}
	first := must(bunstore.OpenSQLite(path))
	fmt.Println(first.Migrate(ctx), first.Close())
	m, stop, err := start(false)
	fmt.Println(err)
	org := must(m.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Acme", Owner: "olga"}))
	owner := must(m.Authenticate(ctx, org.Token.Secret, agentkey.RequestContext{}))
	bot := must(m.RegisterAgent(ctx, owner, agentkey.RegisterAgentInput{Name: "bot"})).Agent
	tool := must(m.AddTool(ctx, owner, agentkey.AddToolInput{
		Name: "Linear", AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("lin_api_test_example")),
	}))
	must(m.Assign(ctx, owner, agentkey.AssignInput{Agent: bot.ID, Tool: tool.ID}))
	stop()
	backup := must(os.ReadFile(path))

	m, stop, _ = start(false)
	waiting := agentkey.AwaitAnchors(ctx, time.Minute, func(anchored bool) { fmt.Println("anchored:", anchored) })
	must(m.Revoke(waiting, owner, bot.ID, tool.ID))
	fmt.Println(must(m.Anchored(ctx))[0].Events)
	stop()

	_ = os.WriteFile(path, backup, 0o600)
	_, stop, err = start(false)
	stop()
	fmt.Println(errors.Is(err, agentkey.ErrRolledBack))

	m, stop, _ = start(true)
	for _, log := range must(m.AcceptRestore(ctx, agentkey.Operator("on call"), agentkey.AcceptRestoreInput{Reason: "the disk failed"})) {
		for _, g := range log.Review {
			fmt.Println("review:", g.Agent, g.Tool)
		}
	}
	stop()
	m, stop, _ = start(false)
	defer stop()
	fmt.Println("locked:", must(m.Organization(ctx, owner)).Locked)
	// Output:
	// <nil> <nil>
	// <nil>
	// anchored: true
	// 0
	// true
	// review: bot Linear
	// locked: true
}
