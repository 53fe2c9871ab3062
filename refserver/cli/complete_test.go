package cli_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// commandOf is a command for every operation; "" for what is of hosts alone.
var commandOf = map[agentkey.Operation]string{
	agentkey.OpReadOrganization: "org show", agentkey.OpUpdateOrganization: "org rename", agentkey.OpLockdown: "lockdown", agentkey.OpUnlock: "unlock",
	agentkey.OpReadSettings: "org onboarding", agentkey.OpDismissOnboarding: "org onboarding", agentkey.OpCreateOrganization: "orgs create",
	agentkey.OpReadNotificationSettings: "notifications show", agentkey.OpUpdateNotificationSettings: "notifications set",
	agentkey.OpAcceptRestore: "audit accept-restore", agentkey.OpDiagnose: "doctor crypto",

	agentkey.OpReadAgents: "agents show", agentkey.OpRegisterAgent: "agents create", agentkey.OpUpdateAgent: "agents update", agentkey.OpSuspendAgent: "agents suspend",
	agentkey.OpReactivateAgent: "agents reactivate", agentkey.OpRotateKey: "agents rotate-key", agentkey.OpRevokeKey: "agents revoke-key",
	agentkey.OpReportLeak: "incident leaked-key", agentkey.OpReportIncident: "incident report",

	agentkey.OpReadTools: "tools show", agentkey.OpAddTool: "tools create", agentkey.OpUpdateTool: "tools update", agentkey.OpDeleteTool: "tools delete",
	agentkey.OpReplaceCredential: "tools replace-credential", agentkey.OpRemoveCredential: "tools remove-credential",

	agentkey.OpExportCatalog: "config export", agentkey.OpPlanImport: "config plan", agentkey.OpImportCatalog: "config import",
	agentkey.OpReadToolSuggestions: "suggestions show", agentkey.OpDismissToolSuggestion: "suggestions dismiss",
	agentkey.OpReadInstructions: "guide show", agentkey.OpDismissInstructions: "guide dismiss",

	agentkey.OpReadInbox: "inbox", agentkey.OpReadGrants: "grants list", agentkey.OpApprove: "requests approve", agentkey.OpDeny: "requests deny",
	agentkey.OpAssign: "grants assign", agentkey.OpRevoke: "grants revoke", agentkey.OpNarrow: "grants narrow",

	agentkey.OpReadAdministrators: "admins list", agentkey.OpManageAdministrators: "admins update", agentkey.OpRemoveAdministrator: "admins remove",
	agentkey.OpManageOwnTokens: "tokens create", agentkey.OpManageTokens: "tokens create", agentkey.OpRevokeOwnToken: "tokens revoke", agentkey.OpRevokeToken: "tokens revoke",

	agentkey.OpReadAudit: "audit list", agentkey.OpExportAudit: "audit export", agentkey.OpVerifyAudit: "audit verify",
	agentkey.OpRecord:        "", // a host's own events
	agentkey.OpReadRetention: "audit retention show", agentkey.OpSetRetention: "audit retention set", agentkey.OpManageHolds: "audit hold place",
	agentkey.OpPlanErasure: "audit erase-person", agentkey.OpErasePerson: "audit erase-person", agentkey.OpTailAudit: "audit tail", agentkey.OpReadShipping: "audit shipping",

	agentkey.OpReadKeys: "keys status", agentkey.OpRotateKeys: "keys rotate-dek", agentkey.OpReseal: "keys reseal", agentkey.OpRewrapKeys: "keys rotate-kek",
	agentkey.OpRotateSigningKey: "keys rotate-signing-key", agentkey.OpPlanDestruction: "keys destroy-org", agentkey.OpDestroyOrganization: "keys destroy-org",
}

// TestEveryOperationHasACommand that is there.
func TestEveryOperationHasACommand(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(slices.Sorted(maps.Keys(commandOf)), slices.Sorted(maps.Keys(agentkey.Operations())))
	there := map[string]bool{"": true}
	for _, command := range leaves(program(t)) {
		there[strings.Join(strings.Fields(command.Path()), " ")] = true
	}
	for op, command := range commandOf {
		if !there[command] {
			t.Errorf("%s: there is no command %q", op, command)
		}
	}
}

// TestEveryCallHasACommand: whatever the Go client can ask for an administrator or
// an agent, some command asks. That the client has all routes is a test of its own.
func TestEveryCallHasACommand(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{"admin.PublicKey": true} // audit verify asks for all of them
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				switch of := s.X.(type) {
				case *ast.Ident:
					used[of.Name+"."+s.Sel.Name] = true
				case *ast.SelectorExpr:
					used[of.Sel.Name+"."+s.Sel.Name] = true
				}
			}
			return true
		})
	}
	for name, of := range map[string]reflect.Type{"admin": reflect.TypeFor[*client.Admin](), "agent": reflect.TypeFor[*client.Agent]()} {
		for i := range of.NumMethod() {
			if call := name + "." + of.Method(i).Name; !used[call] {
				t.Errorf("no command calls %s", call)
			}
		}
	}
}
