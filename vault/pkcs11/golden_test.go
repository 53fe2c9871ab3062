//go:build cgo

package pkcs11_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/matryer/is"
	p11 "github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// TestGoldenWrapped: keys that another implementation wrapped from FORMAT.md unwrap
// in a token that was given the wrapping key; nothing here ever makes these vectors.
func TestGoldenWrapped(t *testing.T) {
	h := needed(t)
	b, err := os.ReadFile("testdata/wrapped_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		TokenKey                                 string `json:"token_key"`
		DataKey                                  string `json:"data_key"`
		ID, Provider, Blob                       string
		Installation, Organization, Purpose, Key string
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(v.Provider, func(t *testing.T) {
			is := is.New(t)
			raw, id, blob := unhex(t, v.TokenKey), unhex(t, v.ID), unhex(t, v.Blob)
			name := labelOf(t) + v.ID
			h.importKey(t, name, id, raw)
			c := vault.Context{Installation: v.Installation, Organization: v.Organization, Purpose: v.Purpose, Key: v.Key}
			key, err := open(t, h.config(name, id)).UnwrapKey(t.Context(), vault.Wrapped{Provider: v.Provider, Blob: blob}, c)
			is.NoErr(err)
			is.Equal(hex.EncodeToString(key), v.DataKey)
		})
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// importKey gives the token an AES key that is known.
func (h hsm) importKey(t *testing.T, label string, id, raw []byte) {
	t.Helper()
	s, err := h.ctx.OpenSession(h.slot[tokenLabel], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.ctx.CloseSession(s) }()
	if err := h.ctx.Login(s, p11.CKU_USER, userPIN); err != nil && err != p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN) {
		t.Fatal(err)
	}
	_, err = h.ctx.CreateObject(s, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_LABEL, label), p11.NewAttribute(p11.CKA_ID, id), p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, true), p11.NewAttribute(p11.CKA_DECRYPT, true), p11.NewAttribute(p11.CKA_VALUE, raw),
	})
	if err != nil {
		t.Fatal(err)
	}
}
