package transit_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestFIPS runs the suite, the vectors and the logins where only what FIPS 140-3
// allows is allowed.
func TestFIPS(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^(TestConformance|TestGoldenWrapped|TestAppRole)$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	for _, name := range []string{"TestConformance", "TestGoldenWrapped"} {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
	if err != nil {
		t.Fatalf("with GODEBUG=fips140=only: %v\n%s", err, out)
	}
}
