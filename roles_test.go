package agentkey_test

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// stage is an organization in which every operation can succeed once.
type stage struct {
	*agentkeytest.Kit
	t                    *testing.T
	bot, suspended       agentkey.Agent
	key                  string
	tool                 agentkey.Tool
	pending, granted     agentkey.Grant
	learned              string // a pending instruction suggestion for tool
	suggestion           agentkey.ToolSuggested
	administrator        agentkey.Administrator
	administratorsToken  string
	requester, suspender agentkey.Caller
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Kit: agentkeytest.New(t), t: t}
	ctx := t.Context()
	s.bot, s.requester = s.Agent("bot")
	s.suspended, s.suspender = s.Agent("suspended")
	_, err := s.SuspendAgent(ctx, s.Owner, s.suspended.ID)
	noErr(t, err)
	keys, err := s.AgentKeys(ctx, s.Owner, agentkey.AgentKeysInput{Agent: s.bot.ID})
	noErr(t, err)
	s.key = keys[0].ID
	s.tool = s.Tool("Linear", "lin_api_test_roles")
	asked := s.Tool("GitHub", "ghp_test_roles")
	s.granted = s.Allow(s.bot, s.tool)
	s.learned = s.learn("Pages end at 100 items.")
	s.pending, err = s.RequestAccess(ctx, s.requester, agentkey.RequestInput{Tool: asked.ID, Reason: "to test"})
	noErr(t, err)
	s.suggestion, err = s.SuggestTool(ctx, s.requester, agentkey.SuggestToolInput{Name: "Grafana", URL: "grafana.example.com", Reason: "to test"})
	noErr(t, err)
	s.administrator, err = s.AddAdministrator(ctx, s.Owner, agentkey.AddAdministratorInput{Label: "target", Role: agentkey.RoleAdmin})
	noErr(t, err)
	token, err := s.CreateToken(ctx, s.Owner, agentkey.CreateTokenInput{Administrator: s.administrator.ID})
	noErr(t, err)
	s.administratorsToken = token.Token.ID
	return s
}

// learn lets bot propose something for the tool's instructions.
func (s *stage) learn(text string) string {
	s.t.Helper()
	out, err := s.SuggestInstructions(s.t.Context(), s.requester, agentkey.SuggestInstructionsInput{Tool: s.tool.ID, Learned: text, Why: "It cost me a day."})
	noErr(s.t, err)
	return out.ID
}

// drivers call the methods that check an operation, each in a way that succeeds
// for who may.
var drivers = map[agentkey.Operation][]func(s *stage, a agentkey.Actor) error{
	agentkey.OpReadOrganization: {
		func(s *stage, a agentkey.Actor) error { return second(s.Manager.Organization(s.t.Context(), a)) },
	},
	agentkey.OpUpdateOrganization: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.UpdateOrganization(s.t.Context(), a, "renamed"))
		},
	},
	agentkey.OpLockdown: {
		func(s *stage, a agentkey.Actor) error { return second(s.Lock(s.t.Context(), a, "why")) },
	},
	agentkey.OpUnlock: {
		func(s *stage, a agentkey.Actor) error { return second(s.Unlock(s.t.Context(), a, "why")) },
	},
	agentkey.OpCreateOrganization: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.CreateOrganization(s.t.Context(), a, agentkey.CreateOrganizationInput{Name: "another", Owner: "olga"}))
		},
		func(s *stage, a agentkey.Actor) error { return second(s.Organizations(s.t.Context(), a)) },
	},
	agentkey.OpAcceptRestore: {
		func(s *stage, a agentkey.Actor) error {
			err := second(s.AcceptRestore(s.t.Context(), a, agentkey.AcceptRestoreInput{}))
			if errors.Is(err, agentkey.ErrInvalid) {
				return nil // it was let in: what it misses are anchors
			}
			return err
		},
	},
	agentkey.OpDiagnose: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Diagnose(s.t.Context(), a, agentkey.DiagnoseInput{}))
		},
	},
	agentkey.OpReadAgents: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Agents(s.t.Context(), a, agentkey.ListInput{}))
		},
		func(s *stage, a agentkey.Actor) error { return second(s.Manager.Agent(s.t.Context(), a, s.bot.ID)) },
		func(s *stage, a agentkey.Actor) error {
			return second(s.AgentKeys(s.t.Context(), a, agentkey.AgentKeysInput{Agent: s.bot.ID}))
		},
	},
	agentkey.OpRegisterAgent: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.RegisterAgent(s.t.Context(), a, agentkey.RegisterAgentInput{Name: "more"}))
		},
	},
	agentkey.OpUpdateAgent: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.UpdateAgent(s.t.Context(), a, s.bot.ID, agentkey.UpdateAgentInput{}))
		},
	},
	agentkey.OpSuspendAgent: {
		func(s *stage, a agentkey.Actor) error { return second(s.SuspendAgent(s.t.Context(), a, s.bot.ID)) },
	},
	agentkey.OpReactivateAgent: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.ReactivateAgent(s.t.Context(), a, s.suspended.ID))
		},
	},
	agentkey.OpRotateKey: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.RotateKey(s.t.Context(), a, s.bot.ID, agentkey.RotateKeyInput{}))
		},
	},
	agentkey.OpRevokeKey: {
		func(s *stage, a agentkey.Actor) error { return s.RevokeKey(s.t.Context(), a, s.bot.ID, s.key) },
	},
	agentkey.OpReportLeak: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.ReportOwnLeak(s.t.Context(), a, agentkey.LeakReport{Secret: agentkey.NewSecret([]byte("sk_agent_unknown"))}))
		},
	},
	agentkey.OpReportIncident: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.IncidentReport(s.t.Context(), a, agentkey.IncidentInput{Agent: s.bot.ID, Since: agentkeytest.Epoch}))
		},
	},
	agentkey.OpReadTools: {
		func(s *stage, a agentkey.Actor) error { return second(s.Tools(s.t.Context(), a, agentkey.ListInput{})) },
		func(s *stage, a agentkey.Actor) error { return second(s.Manager.Tool(s.t.Context(), a, s.tool.ID)) },
	},
	agentkey.OpAddTool: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.AddTool(s.t.Context(), a, agentkey.AddToolInput{Name: "more", AuthType: "other", Mode: "per_agent"}))
		},
	},
	agentkey.OpUpdateTool: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.UpdateTool(s.t.Context(), a, s.tool.ID, agentkey.UpdateToolInput{}))
		},
		func(s *stage, a agentkey.Actor) error {
			text := "Ask for pages."
			return second(s.UpdateTool(s.t.Context(), a, s.tool.ID, agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: s.learned}))
		},
	},
	agentkey.OpDeleteTool: {
		func(s *stage, a agentkey.Actor) error { return second(s.DeleteTool(s.t.Context(), a, s.tool.ID)) },
	},
	agentkey.OpReplaceCredential: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.UpdateTool(s.t.Context(), a, s.tool.ID, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("lin_api_test_next"))}))
		},
	},
	agentkey.OpRemoveCredential: {
		func(s *stage, a agentkey.Actor) error { return second(s.RemoveCredential(s.t.Context(), a, s.tool.ID)) },
	},
	agentkey.OpExportCatalog: {
		func(s *stage, a agentkey.Actor) error { return second(s.ExportCatalog(s.t.Context(), a)) },
	},
	agentkey.OpPlanImport: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.PlanImport(s.t.Context(), a, document(entry("more", "more")), agentkey.ImportOptions{Prune: true}))
		},
	},
	agentkey.OpImportCatalog: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.ImportCatalog(s.t.Context(), a, document(entry("more", "more")), agentkey.ImportOptions{}))
		},
	},
	agentkey.OpReadInstructions: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.InstructionVersions(s.t.Context(), a, agentkey.InstructionVersionsInput{Tool: s.tool.ID}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.Manager.InstructionVersion(s.t.Context(), a, s.tool.ID, ""))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.DiffInstructions(s.t.Context(), a, s.tool.ID, "", ""))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.InstructionSuggestions(s.t.Context(), a, agentkey.InstructionSuggestionsInput{}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.Manager.InstructionSuggestion(s.t.Context(), a, s.learned))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.InstructionSupporters(s.t.Context(), a, agentkey.InstructionSupportersInput{Suggestion: s.learned}))
		},
	},
	agentkey.OpDismissInstructions: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.DismissInstructionSuggestion(s.t.Context(), a, s.learned, "not true"))
		},
	},
	agentkey.OpReadToolSuggestions: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.ToolSuggestions(s.t.Context(), a, agentkey.ToolSuggestionsInput{}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.ToolSuggestion(s.t.Context(), a, s.suggestion.ID))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.ToolSupporters(s.t.Context(), a, agentkey.ToolSupportersInput{Suggestion: s.suggestion.ID}))
		},
	},
	agentkey.OpDismissToolSuggestion: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.DismissToolSuggestion(s.t.Context(), a, s.suggestion.ID))
		},
	},
	agentkey.OpReadGrants: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Grants(s.t.Context(), a, agentkey.GrantsInput{}))
		},
	},
	agentkey.OpReadInbox: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Inbox(s.t.Context(), a, agentkey.InboxInput{}))
		},
	},
	agentkey.OpReadSettings: {
		func(s *stage, a agentkey.Actor) error { return second(s.Settings(s.t.Context(), a)) },
	},
	agentkey.OpReadNotificationSettings: {
		func(s *stage, a agentkey.Actor) error { return second(s.NotificationSettings(s.t.Context(), a)) },
	},
	agentkey.OpUpdateNotificationSettings: {
		func(s *stage, a agentkey.Actor) error { return s.setSlack(a) },
	},
	agentkey.OpDismissOnboarding: {
		func(s *stage, a agentkey.Actor) error { return second(s.DismissOnboarding(s.t.Context(), a)) },
	},
	agentkey.OpApprove: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Approve(s.t.Context(), a, s.pending.ID, agentkey.DecisionInput{}))
		},
	},
	agentkey.OpDeny: {
		func(s *stage, a agentkey.Actor) error { return second(s.Deny(s.t.Context(), a, s.pending.ID, "why")) },
	},
	agentkey.OpAssign: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Assign(s.t.Context(), a, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.pending.Tool}))
		},
	},
	agentkey.OpRevoke: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Revoke(s.t.Context(), a, s.bot.ID, s.tool.ID))
		},
	},
	agentkey.OpNarrow: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Narrow(s.t.Context(), a, s.granted.ID, agentkey.Terms{MaxVends: 3}))
		},
	},
	agentkey.OpReadAdministrators: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Administrators(s.t.Context(), a, agentkey.ListInput{}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.Tokens(s.t.Context(), a, agentkey.ListInput{}))
		},
	},
	agentkey.OpManageAdministrators: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.AddAdministrator(s.t.Context(), a, agentkey.AddAdministratorInput{Label: "more", Role: agentkey.RoleOwner}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.UpdateAdministrator(s.t.Context(), a, s.administrator.ID, agentkey.UpdateAdministratorInput{}))
		},
	},
	agentkey.OpRemoveAdministrator: {
		func(s *stage, a agentkey.Actor) error {
			return s.RemoveAdministrator(s.t.Context(), a, s.administrator.ID)
		},
	},
	agentkey.OpRevokeOwnToken: {
		func(s *stage, a agentkey.Actor) error {
			issued, err := s.CreateToken(s.t.Context(), a, agentkey.CreateTokenInput{})
			if err != nil {
				return err
			}
			return s.RevokeToken(s.t.Context(), a, issued.Token.ID)
		},
	},
	agentkey.OpManageOwnTokens: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.CreateToken(s.t.Context(), a, agentkey.CreateTokenInput{}))
		},
	},
	agentkey.OpManageTokens: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.CreateToken(s.t.Context(), a, agentkey.CreateTokenInput{Administrator: s.administrator.ID}))
		},
	},
	agentkey.OpRevokeToken: {
		func(s *stage, a agentkey.Actor) error { return s.RevokeToken(s.t.Context(), a, s.administratorsToken) },
	},
	agentkey.OpReadAudit: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Events(s.t.Context(), a, agentkey.EventsInput{}))
		},
		func(s *stage, a agentkey.Actor) error { return second(s.LatestCheckpoint(s.t.Context(), a)) },
		func(s *stage, a agentkey.Actor) error {
			return second(s.AgentActivity(s.t.Context(), a, s.bot.ID, agentkey.ActivityInput{}))
		},
		func(s *stage, a agentkey.Actor) error {
			return second(s.ToolActivity(s.t.Context(), a, s.tool.ID, agentkey.ActivityInput{}))
		},
	},
	agentkey.OpExportAudit: {
		func(s *stage, a agentkey.Actor) error { return s.Export(s.t.Context(), a, io.Discard) },
	},
	agentkey.OpVerifyAudit: {
		func(s *stage, a agentkey.Actor) error { return second(s.Verify(s.t.Context(), a)) },
		func(s *stage, a agentkey.Actor) error { return second(s.Reconcile(s.t.Context(), a)) },
		func(s *stage, a agentkey.Actor) error { return second(s.InclusionProof(s.t.Context(), a, 0, 0)) },
		func(s *stage, a agentkey.Actor) error { return second(s.ConsistencyProof(s.t.Context(), a, 1, 0)) },
	},
	agentkey.OpReadRetention: {
		func(s *stage, a agentkey.Actor) error { return second(s.Manager.Retention(s.t.Context(), a)) },
		func(s *stage, a agentkey.Actor) error { return second(s.Holds(s.t.Context(), a)) },
		func(s *stage, a agentkey.Actor) error {
			return second(s.PlanRetention(s.t.Context(), a, agentkey.RetentionPolicy{ContentDays: 30}))
		},
	},
	agentkey.OpSetRetention: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.SetRetention(s.t.Context(), a, agentkey.RetentionPolicy{ContentDays: 30}))
		},
	},
	agentkey.OpManageHolds: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.PlaceHold(s.t.Context(), a, agentkey.HoldInput{Scope: agentkey.HoldAgent, ID: s.bot.ID, Reason: "a dispute"}))
		},
		func(s *stage, a agentkey.Actor) error {
			placed, err := s.PlaceHold(s.t.Context(), s.Owner, agentkey.HoldInput{Scope: agentkey.HoldOrganization, Reason: "a dispute"})
			noErr(s.t, err)
			return s.LiftHold(s.t.Context(), a, placed.Key, "it is over")
		},
	},
	agentkey.OpPlanErasure: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.PlanErasure(s.t.Context(), a, s.administrator.ID))
		},
	},
	agentkey.OpErasePerson: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.ErasePerson(s.t.Context(), a, s.administrator.ID))
		},
	},
	agentkey.OpTailAudit: {
		func(s *stage, a agentkey.Actor) error { return second(s.Tail(s.t.Context(), a, agentkey.TailInput{})) },
	},
	agentkey.OpReadShipping: {
		func(s *stage, a agentkey.Actor) error { return second(s.Shipping(s.t.Context(), a)) },
	},
	agentkey.OpReadKeys: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.KeysStatus(s.t.Context(), a, agentkey.KeysStatusInput{Count: true}))
		},
	},
	agentkey.OpRotateKeys: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.RotateDataKeys(s.t.Context(), a, agentkey.RotateDataKeysInput{}))
		},
	},
	agentkey.OpReseal: {
		func(s *stage, a agentkey.Actor) error { return second(s.Reseal(s.t.Context(), a)) },
	},
	agentkey.OpRewrapKeys: {
		func(s *stage, a agentkey.Actor) error { return second(s.RewrapDataKeys(s.t.Context(), a)) },
	},
	agentkey.OpRotateSigningKey: {
		func(s *stage, a agentkey.Actor) error { return second(s.RotateSigningKey(s.t.Context(), a)) },
	},
	agentkey.OpPlanDestruction: {
		func(s *stage, a agentkey.Actor) error { return second(s.PlanDestruction(s.t.Context(), a)) },
	},
	agentkey.OpDestroyOrganization: {
		func(s *stage, a agentkey.Actor) error {
			plan, err := s.PlanDestruction(s.t.Context(), s.Owner)
			noErr(s.t, err)
			return second(s.DestroyOrganization(s.t.Context(), a, agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation}))
		},
	},
	agentkey.OpRecord: {
		func(s *stage, a agentkey.Actor) error {
			return second(s.Record(s.t.Context(), a, agentkey.RecordInput{Action: "x.acme.tested"}))
		},
	},
}

// may is the table as it is meant, written once more: o owner, a admin,
// p approver, u auditor.
var may = map[agentkey.Operation]string{
	agentkey.OpReadOrganization: "oapu", agentkey.OpUpdateOrganization: "o", agentkey.OpLockdown: "oap", agentkey.OpUnlock: "o",
	agentkey.OpCreateOrganization: "o", agentkey.OpDiagnose: "o", agentkey.OpAcceptRestore: "o", agentkey.OpReadNotificationSettings: "oapu", agentkey.OpUpdateNotificationSettings: "oa", agentkey.OpReadSettings: "oapu", agentkey.OpDismissOnboarding: "oa", agentkey.OpReadInbox: "oapu",
	agentkey.OpReadAgents: "oapu", agentkey.OpRegisterAgent: "oa", agentkey.OpUpdateAgent: "oa", agentkey.OpSuspendAgent: "oap",
	agentkey.OpReactivateAgent: "oa", agentkey.OpRotateKey: "oa", agentkey.OpRevokeKey: "oap",
	agentkey.OpReadTools: "oapu", agentkey.OpAddTool: "oa", agentkey.OpUpdateTool: "oa", agentkey.OpDeleteTool: "oa",
	agentkey.OpReplaceCredential: "oa", agentkey.OpRemoveCredential: "oa",
	agentkey.OpExportCatalog: "oapu", agentkey.OpPlanImport: "oa", agentkey.OpImportCatalog: "oa",
	agentkey.OpReadInstructions: "oapu", agentkey.OpDismissInstructions: "oap",
	agentkey.OpReadToolSuggestions: "oapu", agentkey.OpDismissToolSuggestion: "oap",
	agentkey.OpReadGrants: "oapu", agentkey.OpApprove: "oap", agentkey.OpDeny: "oap", agentkey.OpAssign: "oap", agentkey.OpRevoke: "oap",
	agentkey.OpNarrow:             "oap",
	agentkey.OpReadAdministrators: "oapu", agentkey.OpManageAdministrators: "o", agentkey.OpManageOwnTokens: "oapu", agentkey.OpManageTokens: "o",
	agentkey.OpRemoveAdministrator: "o", agentkey.OpRevokeOwnToken: "oapu", agentkey.OpRevokeToken: "o",
	agentkey.OpReadAudit: "oapu", agentkey.OpExportAudit: "oau", agentkey.OpVerifyAudit: "oau", agentkey.OpRecord: "oa",
	agentkey.OpReportLeak: "oap", agentkey.OpReportIncident: "oapu",
	agentkey.OpReadRetention: "oau", agentkey.OpSetRetention: "o", agentkey.OpManageHolds: "o", agentkey.OpPlanErasure: "o",
	agentkey.OpErasePerson: "o", agentkey.OpTailAudit: "oau", agentkey.OpReadShipping: "oau",
	agentkey.OpReadKeys: "oau", agentkey.OpRotateKeys: "o", agentkey.OpReseal: "o", agentkey.OpRewrapKeys: "o", agentkey.OpRotateSigningKey: "o",
	agentkey.OpPlanDestruction: "o", agentkey.OpDestroyOrganization: "o",
}

// ofInstallation are the operations of nobody's organization.
var ofInstallation = []agentkey.Operation{agentkey.OpCreateOrganization, agentkey.OpDiagnose, agentkey.OpAcceptRestore, agentkey.OpRewrapKeys, agentkey.OpRotateSigningKey}

var letters = map[agentkey.Role]rune{
	agentkey.RoleOwner: 'o', agentkey.RoleAdmin: 'a', agentkey.RoleApprover: 'p', agentkey.RoleAuditor: 'u',
}

// onBothSides are the operations of organizations that make sense for the reserved
// one too.
var onBothSides = []agentkey.Operation{
	agentkey.OpReadAudit, agentkey.OpVerifyAudit, agentkey.OpExportAudit, agentkey.OpReadKeys, agentkey.OpRotateKeys, agentkey.OpReseal,
	agentkey.OpReadRetention, agentkey.OpSetRetention, agentkey.OpManageHolds, agentkey.OpPlanErasure, agentkey.OpErasePerson,
}

// Every operation × role, by the methods that check it: who may succeeds, who may
// not is refused, recorded and changes nothing.
func TestRoles(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(slices.Sorted(maps.Keys(agentkey.Operations())), slices.Sorted(maps.Keys(drivers)))
	is.Equal(slices.Sorted(maps.Keys(agentkey.Operations())), slices.Sorted(maps.Keys(may)))
	for op, calls := range drivers {
		for role, letter := range letters {
			allowed := slices.Contains([]rune(may[op]), letter)
			is.Equal(slices.Contains(agentkey.Operations()[op], role), allowed)
			for _, call := range calls {
				t.Run(string(op)+"/"+string(role), func(t *testing.T) {
					t.Parallel()
					s := newStage(t)
					a := s.Actor(role)
					if slices.Contains(ofInstallation, op) {
						a = agentkey.Operator("test")
						a.Role = role
					}
					if err := call(s, a); allowed && err != nil {
						t.Errorf("got %v", err)
					} else if !allowed {
						s.refused(op, a, err)
					}
				})
			}
		}
	}
}

// refused wants the refusal of the last call, and it alone, in the log.
func (s *stage) refused(op agentkey.Operation, a agentkey.Actor, err error) {
	s.t.Helper()
	is := is.New(s.t)
	is.Equal(err, agentkey.ErrRole)
	reader := person(a.Organization, "reader", agentkey.RoleAuditor)
	page, err := s.Events(s.t.Context(), reader, agentkey.EventsInput{Limit: 2})
	is.NoErr(err)
	e := page.Events[0]
	is.Equal(e.Action, audit.ActionAuthorizationRefused)
	is.Equal(e.Outcome, audit.OutcomeRefused)
	is.Equal(e.Reason, "role")
	is.Equal(e.Actor.ID, a.ID)
	is.Equal(e.Details, map[string]string{"operation": string(op), "role": string(a.Role)})
	is.Equal(len(e.Changes)+len(e.Sealed), 0)
	is.True(page.Events[1].Action != audit.ActionAuthorizationRefused) // nothing else was written
}

// Nobody, somebody without a known role, an actor who lacks something, and one of
// the wrong side of the wall between tenants and the installation.
func TestActorsWithoutARole(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	good := person(s.Kit.Organization.ID, "ann", agentkey.RoleOwner)
	for name, edit := range map[string]func(a *agentkey.Actor){
		"zero":            func(a *agentkey.Actor) { *a = agentkey.Actor{} },
		"no role":         func(a *agentkey.Actor) { a.Role = "" },
		"unknown role":    func(a *agentkey.Actor) { a.Role = "root" },
		"role in capital": func(a *agentkey.Actor) { a.Role = "Owner" },
		"no kind":         func(a *agentkey.Actor) { a.Kind = "" },
		"kind of agents":  func(a *agentkey.Actor) { a.Kind = "agent" },
		"kind of system":  func(a *agentkey.Actor) { a.Kind = "system" },
		"no id":           func(a *agentkey.Actor) { a.ID = "" },
		"no organization": func(a *agentkey.Actor) { a.Organization = "" },
		"id with newline": func(a *agentkey.Actor) { a.ID = "ann\n" },
		"label with NUL":  func(a *agentkey.Actor) { a.Label = "ann\x00" },
	} {
		a := good
		edit(&a)
		for op, calls := range drivers {
			for _, call := range calls {
				if err := call(s, a); err != agentkey.ErrNoActor {
					t.Errorf("%s, %s: got %v, want ErrNoActor", name, op, err)
				}
			}
		}
	}
	for op, calls := range drivers {
		for _, call := range calls {
			a := agentkey.Operator("test")
			if slices.Contains(ofInstallation, op) {
				a = good
			}
			err := call(s, a)
			if slices.Contains(onBothSides, op) {
				if !errors.Is(err, agentkey.ErrNotFound) {
					noErr(t, err)
				}
			} else if !errors.Is(err, agentkey.ErrForbidden) && !errors.Is(err, agentkey.ErrNotFound) {
				t.Errorf("%s on the wrong side: got %v", op, err)
			}
		}
	}
	for op, calls := range drivers {
		stranger := person("nowhere", "ann", agentkey.RoleOwner)
		if op == agentkey.OpReadAudit || op == agentkey.OpReportLeak {
			continue // an organization that is not there has no events, and nothing that could leak
		}
		for _, call := range calls {
			if err := call(s, stranger); err == nil {
				t.Errorf("%s in an organization that is not there succeeded", op)
			}
		}
	}
}

// An actor's authentication is recorded as a code: what is none is refused before
// anything is decided, not when the event is written.
func TestActorFieldsFitTheLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	a := person(s.Kit.Organization.ID, "ann", agentkey.RoleOwner)
	a.Auth = "mTLS"
	is.Equal(second(s.Lock(t.Context(), a, "")), agentkey.ErrNoActor)
	a.Auth = "mtls"
	a.Label = strings.Repeat("𝒜", 161) // two UTF-16 units each
	is.Equal(second(s.Lock(t.Context(), a, "")), agentkey.ErrNoActor)
	a.Label = strings.Repeat("𝒜", 160)
	is.NoErr(second(s.Lock(t.Context(), a, "")))
}

// The reserved organization is nobody's tenant.
func TestReservedOrganization(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	_, err := s.Vend(t.Context(), agentkey.TrustedAgent(storage.System, s.bot.ID), s.tool.ID)
	is.True(errors.Is(err, agentkey.ErrUnauthenticated))
	a := person(storage.System, "ann", agentkey.RoleAdmin)
	is.Equal(second(s.CreateOrganization(t.Context(), a, agentkey.CreateOrganizationInput{Name: "mine", Owner: "ann"})), agentkey.ErrRole)
	s.refused(agentkey.OpCreateOrganization, a, agentkey.ErrRole)
}
