package audit_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const fipsChild = "AUDIT_TEST_FIPS_CHILD"

// TestFIPS runs the tests of formats, signatures and verification in a process where
// the runtime allows nothing that FIPS 140-3 doesn't.
func TestFIPS(t *testing.T) {
	t.Parallel()
	if os.Getenv(fipsChild) != "" {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run=^(TestFIPS|TestGolden.*|TestVerifySoundLog|TestVerifyRotatedKeyAndEpoch|TestCheckpointRoundTrip)$")
	cmd.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("with GODEBUG=fips140=only: %v\n%s", err, out)
	}
	for _, name := range []string{"TestFIPS", "TestGoldenCheckpoint", "TestVerifySoundLog", "TestCheckpointRoundTrip"} {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not run in the child:\n%s", name, out)
		}
	}
}
