package agentkey_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
)

const fipsChild = "AGENTKEY_TEST_FIPS_CHILD"

// TestFIPS runs itself in a process where the runtime allows nothing that FIPS 140-3
// doesn't, and there seals, vends, replaces, verifies and replays.
func TestFIPS(t *testing.T) {
	t.Parallel()
	if os.Getenv(fipsChild) == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestFIPS$", "-test.v")
		cmd.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestFIPS") {
			t.Fatalf("with GODEBUG=fips140=only: %v\n%s", err, out)
		}
		return
	}
	is := is.New(t)
	is.True(fips140.Enforced())
	k := agentkeytest.New(t)
	k.Tool("Other", "oth_api_test_fips")
	_, err := k.RotateDataKeys(t.Context(), k.Owner, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_fips")
	k.Allow(agent, tool)
	vended, err := k.Vend(t.Context(), caller, tool.ID)
	is.NoErr(err)
	is.Equal(string(vended.Credential.Bytes()), "lin_api_test_fips")
	vended.Credential.Destroy()
	auditor := k.Actor(agentkey.RoleAuditor)
	report, err := k.Verify(t.Context(), auditor)
	is.NoErr(err)
	is.True(report.OK())
	reconciled, err := k.Reconcile(t.Context(), auditor)
	is.NoErr(err)
	is.Equal(len(reconciled.Findings), 0)
	_, err = k.InclusionProof(t.Context(), auditor, vended.Receipt.Index, 0)
	is.NoErr(err)
	examined, err := k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(examined.Findings, nil)
	is.Equal(examined.Opened, int64(2))
	is.Equal(examined.Older, int64(1))
	_, err = k.RotateSigningKey(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	_, err = k.RewrapDataKeys(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	_, err = k.Reseal(t.Context(), k.Owner)
	is.NoErr(err)
	done, err := k.ContinueRotations(t.Context())
	is.NoErr(err)
	is.True(done)
	examined, err = k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(examined.Findings, nil)
	is.Equal(examined.Older, int64(0))
}
