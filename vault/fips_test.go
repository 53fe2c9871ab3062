package vault_test

import (
	"crypto/ed25519"
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

const fipsChild = "VAULT_TEST_FIPS_CHILD"

// TestFIPS runs itself in a process where the runtime allows nothing that FIPS
// 140-3 doesn't, and uses each primitive of the package there.
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
		if err != nil {
			t.Fatalf("with GODEBUG=fips140=only: %v\n%s", err, out)
		}
		if !strings.Contains(string(out), "--- PASS: TestFIPS") {
			t.Fatalf("the test did not run in the child:\n%s", out)
		}
		return
	}
	is := is.New(t)
	is.True(fips140.Enabled())
	is.True(fips140.Enforced())

	text, err := localkey.Generate()
	is.NoErr(err)
	provider, err := localkey.FromEnv(func(string) (string, bool) { return text, true }, "KEY")
	is.NoErr(err)
	unwrapped := map[vault.Purpose]*vault.DataKey{}
	for _, p := range []vault.Purpose{vault.PurposeSeal, vault.PurposeRow, vault.PurposeSign} {
		k := newKey(t, p)
		w, err := vault.Wrap(t.Context(), provider, k, keyContext())
		is.NoErr(err)
		unwrapped[p], err = vault.Unwrap(t.Context(), provider, w, k.ID(), p, keyContext())
		is.NoErr(err)
	}

	sealed, err := newSealer(t, unwrapped[vault.PurposeSeal]).Seal(place(), secret("lin_api_test_fips"))
	is.NoErr(err)
	plain, err := newOpener(t, unwrapped[vault.PurposeSeal]).Open(place(), sealed)
	is.NoErr(err)
	is.Equal(string(plain.Bytes()), "lin_api_test_fips")

	rows := newRowSealer(t, unwrapped[vault.PurposeRow])
	seal, err := rows.Seal(row1())
	is.NoErr(err)
	is.NoErr(rows.Verify(row1(), seal))
	is.True(row1().State([]byte("salt")) != [32]byte{})

	seed, err := unwrapped[vault.PurposeSign].SigningSeed()
	is.NoErr(err)
	private := ed25519.NewKeyFromSeed(seed.Bytes())
	is.True(ed25519.Verify(private.Public().(ed25519.PublicKey), []byte("head"), ed25519.Sign(private, []byte("head"))))
}
