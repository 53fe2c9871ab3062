//go:build cgo

package pkcs11_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/pkcs11"
)

const (
	tokenLabel = "agentkey tests"
	otherToken = "another token"
	userPIN    = "pin-of-the-tests"
	label      = "agentkey"
)

// hsm is SoftHSM with two tokens, for all tests: a module has one state in a process.
type hsm struct {
	path string // of the library
	ctx  *p11.Ctx
	slot map[string]uint // by the token's label
	why  string          // why there is none
}

var soft hsm

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "agentkey-softhsm-*")
	if err != nil {
		panic(err)
	}
	soft = start(dir)
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// library is where distributions put SoftHSM.
func library() string {
	for _, pattern := range []string{
		os.Getenv("AGENTKEY_TEST_SOFTHSM"), "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func start(dir string) hsm {
	path := library()
	if path == "" {
		return hsm{why: "SoftHSM is not installed (Debian: softhsm2)"}
	}
	config := filepath.Join(dir, "softhsm2.conf")
	text := "directories.tokendir = " + dir + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return hsm{why: err.Error()}
	}
	_ = os.Setenv("SOFTHSM2_CONF", config)
	h := hsm{path: path, ctx: p11.New(path), slot: map[string]uint{}}
	if h.ctx == nil {
		return hsm{why: "SoftHSM can't be loaded"}
	}
	if err := h.ctx.Initialize(); err != nil {
		return hsm{why: err.Error()}
	}
	for _, name := range []string{tokenLabel, otherToken} {
		if err := h.addToken(name); err != nil {
			return hsm{why: err.Error()}
		}
	}
	return h
}

// addToken initializes the slot that has no token yet.
func (h hsm) addToken(name string) error {
	slots, err := h.ctx.GetSlotList(true)
	if err != nil {
		return err
	}
	const officer = "officer-of-the-tests"
	if err := h.ctx.InitToken(slots[len(slots)-1], officer, name); err != nil {
		return err
	}
	slots, err = h.ctx.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if info, err := h.ctx.GetTokenInfo(slot); err == nil && strings.TrimSpace(info.Label) == name {
			h.slot[name] = slot
		}
	}
	s, err := h.ctx.OpenSession(h.slot[name], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := h.ctx.Login(s, p11.CKU_SO, officer); err != nil {
		return err
	}
	if err := h.ctx.InitPIN(s, userPIN); err != nil {
		return err
	}
	if err := h.ctx.Logout(s); err != nil {
		return err
	}
	return h.ctx.CloseSession(s)
}

// needed skips without SoftHSM, and fails where everything has to be there.
func needed(t *testing.T) hsm {
	t.Helper()
	if soft.why != "" {
		if os.Getenv("CI") != "" {
			t.Fatal(soft.why)
		}
		t.Skip(soft.why)
	}
	return soft
}

// makeKey makes an AES key as it should be, but for what change says.
func (h hsm) makeKey(t *testing.T, token, label string, id []byte, change ...*p11.Attribute) {
	t.Helper()
	s, err := h.ctx.OpenSession(h.slot[token], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.ctx.CloseSession(s) }()
	if err := h.ctx.Login(s, p11.CKU_USER, userPIN); err != nil && err != p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN) {
		t.Fatal(err)
	}
	attributes := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, id), p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, true), p11.NewAttribute(p11.CKA_DECRYPT, true), p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
	}
	for _, c := range change {
		for i, a := range attributes {
			if a.Type == c.Type {
				attributes[i] = c
			}
		}
	}
	if _, err := h.ctx.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, attributes); err != nil {
		t.Fatal(err)
	}
}

// removeKeys deletes the keys of a label and id.
func (h hsm) removeKeys(t *testing.T, token, label string, id []byte) {
	t.Helper()
	s, err := h.ctx.OpenSession(h.slot[token], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.ctx.CloseSession(s) }()
	if err := h.ctx.Login(s, p11.CKU_USER, userPIN); err != nil && err != p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN) {
		t.Fatal(err)
	}
	find := []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, id)}
	if err := h.ctx.FindObjectsInit(s, find); err != nil {
		t.Fatal(err)
	}
	found, _, err := h.ctx.FindObjects(s, 10)
	if err != nil || len(found) == 0 {
		t.Fatal("no such key", err)
	}
	if err := h.ctx.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		if err := h.ctx.DestroyObject(s, o); err != nil {
			t.Fatal(err)
		}
	}
}

func fixed(pin string) func() (*vault.Secret, error) {
	return func() (*vault.Secret, error) { return vault.NewSecret([]byte(pin)), nil }
}

func (h hsm) config(label string, id []byte) pkcs11.Config {
	return pkcs11.Config{Module: h.path, Token: tokenLabel, Label: label, ID: id, PIN: fixed(userPIN)}
}

func open(t *testing.T, c pkcs11.Config) *pkcs11.Provider {
	t.Helper()
	p, err := pkcs11.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func sample() vault.Context {
	return vault.Context{Installation: "installation-1", Organization: "organization-1", Purpose: "seal", Key: "00ff"}
}

func dataKey() []byte { return []byte("32 bytes for tests, not a secret") }

// labelOf is a label of a test's own, so that tests share a token.
func labelOf(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%s-%s", label, hex.EncodeToString([]byte(t.Name()))[:min(60, 2*len(t.Name()))])
}
