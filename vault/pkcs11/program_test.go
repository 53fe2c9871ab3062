//go:build cgo

package pkcs11_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/agentkey-dev/agentkey-go/internal/programtest"
)

// TestProgram vends with the program that ships the provider, and changes keys.
func TestProgram(t *testing.T) {
	h := needed(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{7})
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte(userPIN), 0o600); err != nil {
		t.Fatal(err)
	}
	h.makeKey(t, tokenLabel, labelOf(t), []byte{8})
	second := []string{"AGENTKEY_KEY_PROVIDER=pkcs11:" + labelOf(t) + "/08"}
	programtest.Vend(t, "./cmd/agentkey-pkcs11", "pkcs11", []string{
		"AGENTKEY_KEY_PROVIDER=pkcs11:" + labelOf(t) + "/07", "PKCS11_MODULE=" + h.path, "PKCS11_TOKEN=" + tokenLabel, "PKCS11_PIN_FILE=" + file,
	}, programtest.Rotation{
		Both: second, Only: second, Retire: func() { h.removeKeys(t, tokenLabel, labelOf(t), []byte{7}) },
	}, userPIN)
}
