package agentkey_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
)

// faultOperation is one way to call one method. prepare sets the scene and gives
// the call, which is made while storage fails.
type faultOperation struct {
	method  string
	variant string
	options []func(*agentkey.Config)
	prepare func(s *scene) func(ctx context.Context) (any, error)

	refused bool // without any fault it is refused
	still   bool // it never asks storage
	parts   bool // it is made of several transactions; some of them may stand
	loose   bool // it answers nil although parts failed; they follow later
	ends    bool // it ends the Manager
}

func (o faultOperation) name() string {
	if o.variant == "" {
		return o.method
	}
	return o.method + " " + o.variant
}

// answer makes an operation's answer of what a method answers.
func answer[T any](v T, err error) (any, error) { return v, err }

func onlyError(err error) (any, error) { return nil, err }

type call = func(ctx context.Context) (any, error)

func faultOperations() []faultOperation {
	var all []faultOperation
	for _, some := range [][]faultOperation{
		agentsFaults(), toolFaults(), catalogFaults(), guideFaults(), suggestionFaults(), accessFaults(), decisionFaults(), administratorFaults(), organizationFaults(), backgroundFaults(), readFaults(), retentionFaults(), rotationFaults(), incidentFaults(), notificationFaults(),
	} {
		all = append(all, some...)
	}
	return all
}

func agentsFaults() []faultOperation {
	rotate := func(grace time.Duration) func(*scene) call {
		return func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{Grace: grace}))
			}
		}
	}
	return []faultOperation{
		{method: "RegisterAgent", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.RegisterAgent(ctx, s.Owner, agentkey.RegisterAgentInput{Name: "another"}))
			}
		}},
		{method: "UpdateAgent", prepare: func(s *scene) call {
			name := "renamed"
			return func(ctx context.Context) (any, error) {
				return answer(s.UpdateAgent(ctx, s.Owner, s.bot.ID, agentkey.UpdateAgentInput{Name: &name}))
			}
		}},
		{method: "SuspendAgent", prepare: func(s *scene) call {
			s.ask(s.perAgent("GitHub"))
			return func(ctx context.Context) (any, error) { return answer(s.SuspendAgent(ctx, s.Owner, s.bot.ID)) }
		}},
		{method: "ReactivateAgent", prepare: func(s *scene) call {
			_, err := s.SuspendAgent(s.t.Context(), s.Owner, s.bot.ID)
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return answer(s.ReactivateAgent(ctx, s.Owner, s.bot.ID)) }
		}},
		{method: "RotateKey", prepare: rotate(0)},
		{method: "RotateKey", variant: "with grace", prepare: rotate(time.Hour)},
		{method: "RevokeKey", prepare: func(s *scene) call {
			keys, err := s.AgentKeys(s.t.Context(), s.Owner, agentkey.AgentKeysInput{Agent: s.bot.ID})
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				return onlyError(s.RevokeKey(ctx, s.Owner, s.bot.ID, keys[0].ID))
			}
		}},
	}
}

func toolFaults() []faultOperation {
	add := func(s *scene) call {
		return func(ctx context.Context) (any, error) {
			return answer(s.AddTool(ctx, s.Owner, agentkey.AddToolInput{
				Name: "Slack", AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("slk_api_test_1")),
			}))
		}
	}
	update := func(credential string) func(*scene) call {
		return func(s *scene) call {
			name := "renamed"
			return func(ctx context.Context) (any, error) {
				in := agentkey.UpdateToolInput{Name: &name}
				if credential != "" {
					in.Credential = agentkey.NewSecret([]byte(credential))
				}
				return answer(s.UpdateTool(ctx, s.Owner, s.linear.ID, in))
			}
		}
	}
	return []faultOperation{
		{method: "AddTool", prepare: add},
		{method: "AddTool", variant: "with a new data key", prepare: add, options: []func(*agentkey.Config){
			func(c *agentkey.Config) { c.SealsPerKey = 1 },
		}},
		{method: "UpdateTool", prepare: update("")},
		{method: "UpdateTool", variant: "with credential", prepare: update("lin_api_test_2")},
		{method: "RemoveCredential", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.RemoveCredential(ctx, s.Owner, s.linear.ID)) }
		}},
		{method: "DeleteTool", prepare: func(s *scene) call {
			s.Allow(s.canary, s.linear)
			_, err := s.Revoke(s.t.Context(), s.Owner, s.canary.ID, s.linear.ID)
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return answer(s.DeleteTool(ctx, s.Owner, s.linear.ID)) }
		}},
	}
}

func catalogFaults() []faultOperation {
	pruning := agentkey.ImportOptions{Prune: true}
	changed := func(s *scene) agentkey.CatalogDocument {
		doc := exported(s.t, s.Kit)
		doc.Tools[0].Description = "changed"
		doc.Tools = append(doc.Tools, entry("fresh", "Fresh"))
		s.Allow(s.bot, s.Tool("Gone", "gon_api_test_1"))
		return doc
	}
	return []faultOperation{
		{method: "ExportCatalog", parts: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.ExportCatalog(ctx, s.Owner)) }
		}},
		{method: "PlanImport", prepare: func(s *scene) call {
			doc := changed(s)
			return func(ctx context.Context) (any, error) { return answer(s.PlanImport(ctx, s.Owner, doc, pruning)) }
		}},
		{method: "ImportCatalog", prepare: func(s *scene) call {
			doc := changed(s)
			return func(ctx context.Context) (any, error) { return answer(s.ImportCatalog(ctx, s.Owner, doc, pruning)) }
		}},
	}
}

func suggestionFaults() []faultOperation {
	add := func(s *scene) call {
		s.wish(s.botKey)
		s.wish(s.canaryKey)
		return func(ctx context.Context) (any, error) {
			return answer(s.AddTool(ctx, s.Owner, agentkey.AddToolInput{Name: "Sentry", AuthType: "api_key", Mode: "per_agent"}))
		}
	}
	dismissed := func(wait time.Duration) func(*scene) call {
		return func(s *scene) call {
			_, err := s.DismissToolSuggestion(s.t.Context(), s.Owner, s.wish(s.canaryKey).ID)
			s.noErr(err)
			s.Clock.Advance(wait)
			return s.suggesting("Sentry")
		}
	}
	return []faultOperation{
		{method: "SuggestTool", prepare: func(s *scene) call { return s.suggesting("Sentry") }},
		{method: "SuggestTool", variant: "with another", prepare: func(s *scene) call {
			s.wish(s.canaryKey)
			return s.suggesting("Sentry")
		}},
		{method: "SuggestTool", variant: "again after a dismissal", prepare: dismissed(25 * time.Hour)},
		{method: "SuggestTool", variant: "dismissed", refused: true, prepare: dismissed(time.Hour)},
		{method: "SuggestTool", variant: "of a tool", refused: true, prepare: func(s *scene) call { return s.suggesting("Linear") }},
		{method: "AddTool", variant: "that was suggested", prepare: add},
		{method: "UpdateTool", variant: "to one that was suggested", prepare: func(s *scene) call {
			s.wish(s.canaryKey)
			name := "Sentry"
			return func(ctx context.Context) (any, error) {
				return answer(s.UpdateTool(ctx, s.Owner, s.linear.ID, agentkey.UpdateToolInput{Name: &name}))
			}
		}},
		{method: "DismissToolSuggestion", prepare: func(s *scene) call {
			id := s.wish(s.botKey).ID
			return func(ctx context.Context) (any, error) { return answer(s.DismissToolSuggestion(ctx, s.Owner, id)) }
		}},
		{method: "ToolSuggestion", prepare: func(s *scene) call {
			id := s.wish(s.botKey).ID
			return func(ctx context.Context) (any, error) {
				return answer(s.Kit.Manager.ToolSuggestion(ctx, s.Owner, id))
			}
		}},
		{method: "ToolSuggestions", prepare: func(s *scene) call {
			s.wish(s.botKey)
			return func(ctx context.Context) (any, error) {
				return answer(s.ToolSuggestions(ctx, s.Owner, agentkey.ToolSuggestionsInput{Status: agentkey.SuggestionPending}))
			}
		}},
		{method: "ToolSupporters", prepare: func(s *scene) call {
			id := s.wish(s.botKey).ID
			return func(ctx context.Context) (any, error) {
				return answer(s.ToolSupporters(ctx, s.Owner, agentkey.ToolSupportersInput{Suggestion: id}))
			}
		}},
	}
}

// wish lets an agent suggest a tool.
func (s *scene) wish(c agentkey.Caller) agentkey.ToolSuggested {
	s.t.Helper()
	made, err := s.SuggestTool(s.t.Context(), c, agentkey.SuggestToolInput{Name: "Sentry", Reason: "to read errors"})
	s.noErr(err)
	return made
}

func (s *scene) suggesting(name string) call {
	return func(ctx context.Context) (any, error) {
		return answer(s.SuggestTool(ctx, s.botKey, agentkey.SuggestToolInput{Name: name, Reason: "to read errors"}))
	}
}

func accessFaults() []faultOperation {
	vend := func(ctx context.Context, s *scene, c agentkey.Caller) (any, error) {
		return answer(s.Vend(ctx, c, s.linear.ID))
	}
	return []faultOperation{
		{method: "Vend", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "Vend", variant: "trusted", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return vend(ctx, s, agentkey.TrustedAgent(s.Organization.ID, s.bot.ID))
			}
		}},
		{method: "Vend", variant: "shared limits", options: []func(*agentkey.Config){
			func(c *agentkey.Config) { c.SharedLimits, c.Policies = true, ratelimit.DefaultPolicies() },
		}, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "Vend", variant: "keys never held", options: []func(*agentkey.Config){
			func(c *agentkey.Config) { c.KeyLifetime = -1 },
		}, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "Vend", variant: "the last one of a grant", prepare: func(s *scene) call {
			_, err := s.Narrow(s.t.Context(), s.Owner, s.grant.ID, agentkey.Terms{MaxVends: 1})
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "Vend", variant: "after the end", refused: true, prepare: func(s *scene) call {
			_, err := s.Narrow(s.t.Context(), s.Owner, s.grant.ID, agentkey.Terms{Duration: time.Minute.Microseconds()})
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "Vend", variant: "refused", refused: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.Vend(ctx, s.botKey, s.canarysTool.ID))
			}
		}},
		{method: "Vend", variant: "with a dead key", refused: true, prepare: func(s *scene) call {
			_, err := s.RotateKey(s.t.Context(), s.Owner, s.bot.ID, agentkey.RotateKeyInput{})
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return vend(ctx, s, s.botKey) }
		}},
		{method: "RequestAccess", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.RequestAccess(ctx, s.botKey, agentkey.RequestInput{Tool: s.canarysTool.ID, Reason: "to file issues"}))
			}
		}},
		{method: "RequestAccess", variant: "again", prepare: func(s *scene) call {
			_, err := s.Revoke(s.t.Context(), s.Owner, s.bot.ID, s.linear.ID)
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				return answer(s.RequestAccess(ctx, s.botKey, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to file issues"}))
			}
		}},
		{method: "RequestAccess", variant: "refused", refused: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.RequestAccess(ctx, s.botKey, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to file issues"}))
			}
		}},
	}
}

func decisionFaults() []faultOperation {
	credential := func() agentkey.DecisionInput {
		return agentkey.DecisionInput{Credential: agentkey.NewSecret([]byte("ghp_api_test_1"))}
	}
	return []faultOperation{
		{method: "Approve", prepare: func(s *scene) call {
			g := s.ask(s.canarysTool)
			return func(ctx context.Context) (any, error) {
				return answer(s.Approve(ctx, s.Owner, g.ID, agentkey.DecisionInput{}))
			}
		}},
		{method: "Approve", variant: "with credential", prepare: func(s *scene) call {
			g := s.ask(s.perAgent("GitHub"))
			return func(ctx context.Context) (any, error) { return answer(s.Approve(ctx, s.Owner, g.ID, credential())) }
		}},
		{method: "Assign", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.Assign(ctx, s.Owner, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.canarysTool.ID}))
			}
		}},
		{method: "Assign", variant: "with credential", prepare: func(s *scene) call {
			tool := s.perAgent("GitHub")
			return func(ctx context.Context) (any, error) {
				return answer(s.Assign(ctx, s.Owner, agentkey.AssignInput{Agent: s.bot.ID, Tool: tool.ID, DecisionInput: credential()}))
			}
		}},
		{method: "Deny", prepare: func(s *scene) call {
			g := s.ask(s.canarysTool)
			return func(ctx context.Context) (any, error) { return answer(s.Deny(ctx, s.Owner, g.ID, "not now")) }
		}},
		{method: "Narrow", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.Narrow(ctx, s.Owner, s.grant.ID, agentkey.Terms{MaxVends: 3}))
			}
		}},
		{method: "Revoke", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Revoke(ctx, s.Owner, s.bot.ID, s.linear.ID)) }
		}},
	}
}

func administratorFaults() []faultOperation {
	return []faultOperation{
		{method: "AddAdministrator", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.AddAdministrator(ctx, s.Owner, agentkey.AddAdministratorInput{Label: "bob@example.com", Role: agentkey.RoleAdmin}))
			}
		}},
		{method: "UpdateAdministrator", prepare: func(s *scene) call {
			a := s.Actor(agentkey.RoleAdmin)
			role := agentkey.RoleAuditor
			return func(ctx context.Context) (any, error) {
				return answer(s.UpdateAdministrator(ctx, s.Owner, a.ID, agentkey.UpdateAdministratorInput{Role: &role}))
			}
		}},
		{method: "RemoveAdministrator", prepare: func(s *scene) call {
			a := s.Actor(agentkey.RoleAdmin)
			return func(ctx context.Context) (any, error) { return onlyError(s.RemoveAdministrator(ctx, s.Owner, a.ID)) }
		}},
		{method: "CreateToken", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.CreateToken(ctx, s.Owner, agentkey.CreateTokenInput{Name: "laptop"}))
			}
		}},
		{method: "RevokeToken", prepare: func(s *scene) call {
			token, err := s.CreateToken(s.t.Context(), s.Owner, agentkey.CreateTokenInput{Name: "laptop"})
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return onlyError(s.RevokeToken(ctx, s.Owner, token.Token.ID)) }
		}},
		{method: "Authenticate", prepare: func(s *scene) call {
			token, err := s.CreateToken(s.t.Context(), s.Owner, agentkey.CreateTokenInput{Name: "laptop"})
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				return answer(s.Authenticate(ctx, token.Secret, agentkey.RequestContext{}))
			}
		}},
		{method: "Record", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.Record(ctx, s.Owner, agentkey.RecordInput{Action: "x.example.deployed"}))
			}
		}},
	}
}

func organizationFaults() []faultOperation {
	return []faultOperation{
		{method: "CreateOrganization", parts: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Other", Owner: "eve@example.com"}))
			}
		}},
		{method: "Diagnose", parts: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.Diagnose(ctx, agentkey.Operator("test"), agentkey.DiagnoseInput{}))
			}
		}},
		{method: "AcceptRestore", parts: true, loose: true, ends: true, prepare: func(s *scene) call {
			m := s.wentBack()
			return func(ctx context.Context) (any, error) {
				return answer(m.AcceptRestore(ctx, agentkey.Operator("test"), agentkey.AcceptRestoreInput{Reason: "disk failed"}))
			}
		}},
		{method: "Anchored", prepare: func(s *scene) call {
			m := s.wentBack()
			return func(ctx context.Context) (any, error) { return answer(m.Anchored(ctx)) }
		}},
		{method: "UpdateOrganization", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.UpdateOrganization(ctx, s.Owner, "renamed")) }
		}},
		{method: "DismissOnboarding", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.DismissOnboarding(ctx, s.Owner)) }
		}},
		{method: "Lock", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Lock(ctx, s.Owner, "an incident")) }
		}},
		{method: "Unlock", prepare: func(s *scene) call {
			_, err := s.Lock(s.t.Context(), s.Owner, "an incident")
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return answer(s.Unlock(ctx, s.Owner, "it is over")) }
		}},
	}
}

// unfinished leaves something of every kind for the background to do: a grant,
// a key and a credential that will have ended, refusals to flush and a
// notification to deliver.
func (s *scene) unfinished() {
	ctx := s.t.Context()
	minute := agentkey.Terms{Duration: time.Minute.Microseconds()}
	_, err := s.Narrow(ctx, s.Owner, s.grant.ID, minute)
	s.noErr(err)
	other, otherKey := s.Agent("other")
	_, err = s.RotateKey(ctx, s.Owner, other.ID, agentkey.RotateKeyInput{Grace: time.Minute})
	s.noErr(err)
	end := s.Clock.Now().Add(time.Minute)
	_, err = s.UpdateTool(ctx, s.Owner, s.linear.ID, agentkey.UpdateToolInput{CredentialExpiresAt: &end})
	s.noErr(err)
	s.ask(s.canarysTool)
	for range 3 {
		_, err = s.Vend(ctx, otherKey, s.linear.ID)
		if !errors.Is(err, agentkey.ErrNoGrant) {
			s.t.Fatal(err)
		}
	}
	s.fail(netip.MustParseAddr("192.0.2.1"))
}

// fail presents a key that nobody has.
func (s *scene) fail(from netip.Addr) {
	c := agentkey.Key("sk_agent_unknown").With(agentkey.RequestContext{Address: from})
	if _, err := s.Vend(s.t.Context(), c, s.linear.ID); !errors.Is(err, agentkey.ErrUnknownKey) {
		s.t.Fatal(err)
	}
}

func backgroundFaults() []faultOperation {
	return []faultOperation{
		{method: "Sweep", parts: true, loose: true, prepare: func(s *scene) call {
			s.unfinished()
			return func(ctx context.Context) (any, error) { return onlyError(s.Sweep(ctx)) }
		}},
		{method: "Run", parts: true, loose: true, prepare: func(s *scene) call {
			s.unfinished()
			return func(ctx context.Context) (any, error) {
				ctx, cancel := context.WithTimeout(ctx, 9*time.Second)
				defer cancel()
				return onlyError(s.Run(ctx))
			}
		}},
		{method: "Close", parts: true, loose: true, ends: true, prepare: func(s *scene) call {
			s.unfinished()
			return func(ctx context.Context) (any, error) { return onlyError(s.Close(ctx)) }
		}},
	}
}

func readFaults() []faultOperation {
	as := func(method string, read func(ctx context.Context, s *scene) (any, error)) faultOperation {
		return faultOperation{method: method, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return read(ctx, s) }
		}}
	}
	// A proof that finds no tiles yet writes them.
	growing := func(o faultOperation) faultOperation {
		prepare := o.prepare
		o.prepare = func(s *scene) call {
			recordMany(s.t, s.witness, s.Owner, audit.TileWidth)
			return prepare(s)
		}
		return o
	}
	still := func(o faultOperation) faultOperation {
		o.still = true
		return o
	}
	return []faultOperation{
		as("Administrators", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Administrators(ctx, s.Owner, agentkey.ListInput{}))
		}),
		as("Admit", func(ctx context.Context, s *scene) (any, error) {
			_, d, err := s.Admit(ctx, s.botKey, ratelimit.TierRequest)
			return d, err
		}),
		still(as("AdmitAddress", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.AdmitAddress(ctx, netip.MustParseAddr("192.0.2.1")))
		})),
		as("Agent", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Kit.Manager.Agent(ctx, s.Owner, s.bot.ID))
		}),
		as("AgentKeys", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.AgentKeys(ctx, s.Owner, agentkey.AgentKeysInput{Agent: s.bot.ID}))
		}),
		as("AgentActivity", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.AgentActivity(ctx, s.Owner, s.bot.ID, agentkey.ActivityInput{}))
		}),
		as("Agents", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Agents(ctx, s.Owner, agentkey.ListInput{}))
		}),
		as("Catalog", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Catalog(ctx, s.botKey, agentkey.CatalogInput{}))
		}),
		as("DiffInstructions", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.DiffInstructions(ctx, s.Owner, s.linear.ID, "", ""))
		}),
		as("Events", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Events(ctx, s.Owner, agentkey.EventsInput{}))
		}),
		as("LatestCheckpoint", func(ctx context.Context, s *scene) (any, error) { return answer(s.LatestCheckpoint(ctx, s.Owner)) }),
		growing(as("InclusionProof", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.InclusionProof(ctx, s.Owner, 3, 0))
		})),
		as("ConsistencyProof", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.ConsistencyProof(ctx, s.Owner, 3, 0))
		}),
		as("Export", func(ctx context.Context, s *scene) (any, error) { return onlyError(s.Export(ctx, s.Owner, io.Discard)) }).inParts(),
		as("Grants", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Grants(ctx, s.Owner, agentkey.GrantsInput{}))
		}),
		{method: "Inbox", prepare: func(s *scene) call {
			s.ask(s.canarysTool)
			return func(ctx context.Context) (any, error) {
				return answer(s.Inbox(ctx, s.Owner, agentkey.InboxInput{}))
			}
		}},
		{method: "InstructionSuggestion", prepare: func(s *scene) call {
			learned := s.learn("Pages end at 100 items.")
			return func(ctx context.Context) (any, error) {
				return answer(s.Kit.Manager.InstructionSuggestion(ctx, s.Owner, learned))
			}
		}},
		as("InstructionSuggestions", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.InstructionSuggestions(ctx, s.Owner, agentkey.InstructionSuggestionsInput{Tool: s.linear.ID}))
		}),
		{method: "InstructionSupporters", prepare: func(s *scene) call {
			learned := s.learn("Pages end at 100 items.")
			return func(ctx context.Context) (any, error) {
				return answer(s.InstructionSupporters(ctx, s.Owner, agentkey.InstructionSupportersInput{Suggestion: learned}))
			}
		}},
		as("InstructionVersion", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Kit.Manager.InstructionVersion(ctx, s.Owner, s.linear.ID, ""))
		}),
		as("InstructionVersions", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.InstructionVersions(ctx, s.Owner, agentkey.InstructionVersionsInput{Tool: s.linear.ID}))
		}),
		still(as("Installation", func(_ context.Context, s *scene) (any, error) { return s.Installation(), nil })),
		as("Organization", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Kit.Manager.Organization(ctx, s.Owner))
		}),
		as("Organizations", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Organizations(ctx, agentkey.Operator("test")))
		}),
		as("Profile", func(ctx context.Context, s *scene) (any, error) { return answer(s.Profile(ctx, s.botKey)) }),
		still(as("PublicKey", func(_ context.Context, s *scene) (any, error) { return s.PublicKey(), nil })),
		still(as("CheckInput", func(_ context.Context, s *scene) (any, error) {
			return onlyError(s.CheckInput(&agentkey.RequestInput{Tool: s.linear.ID, Reason: "to file issues"}))
		})),
		still(as("PublicKeys", func(_ context.Context, s *scene) (any, error) { return s.PublicKeys(), nil })),
		as("Ready", func(ctx context.Context, s *scene) (any, error) { return onlyError(s.Ready(ctx)) }),
		as("Reconcile", func(ctx context.Context, s *scene) (any, error) { return answer(s.Reconcile(ctx, s.Owner)) }),
		as("Settings", func(ctx context.Context, s *scene) (any, error) { return answer(s.Settings(ctx, s.Owner)) }),
		as("Tokens", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Tokens(ctx, s.Owner, agentkey.ListInput{}))
		}),
		as("Tool", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Kit.Manager.Tool(ctx, s.Owner, s.linear.ID))
		}),
		as("ToolActivity", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.ToolActivity(ctx, s.Owner, s.linear.ID, agentkey.ActivityInput{}))
		}),
		as("Tools", func(ctx context.Context, s *scene) (any, error) {
			return answer(s.Tools(ctx, s.Owner, agentkey.ListInput{}))
		}),
		as("Verify", func(ctx context.Context, s *scene) (any, error) { return answer(s.Verify(ctx, s.Owner)) }),
	}
}

// inParts says that some of what an operation does may stand when it fails: the
// event of an export that was cut off.
func (o faultOperation) inParts() faultOperation {
	o.parts = true
	return o
}
