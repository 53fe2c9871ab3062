//go:build cgo

package pkcs11_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
	p11 "github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/pkcs11"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

// TestConformance runs on SoftHSM.
func TestConformance(t *testing.T) {
	h := needed(t)
	h.makeKey(t, tokenLabel, label, []byte{1})
	h.makeKey(t, otherToken, label, []byte{2})
	h.makeKey(t, otherToken, "agentkey-same-id", []byte{1})
	for name, other := range map[string]pkcs11.Config{
		"another id":      {Module: h.path, Token: otherToken, Label: label, PIN: fixed(userPIN)},
		"the same id too": {Module: h.path, Token: otherToken, Label: "agentkey-same-id", PIN: fixed(userPIN)},
	} {
		t.Run(name, func(t *testing.T) {
			vaulttest.TestProvider(t,
				func(t *testing.T) vault.KeyProvider { return open(t, h.config(label, []byte{1})) },
				vaulttest.WithOther(func(t *testing.T) vault.KeyProvider { return open(t, other) }),
				vaulttest.WithOutage(func(t *testing.T) (vault.KeyProvider, func()) {
					m := &faulty{Module: h.ctx}
					p, err := pkcs11.Over(h.config(label, []byte{1}), m)
					if err != nil {
						t.Fatal(err)
					}
					return p, func() { m.answer(p11.CKR_DEVICE_REMOVED) }
				}),
				vaulttest.WithSecrets([]byte(userPIN)))
		})
	}
}

func TestNewKeyOfTheLabel(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	name := labelOf(t)
	h.makeKey(t, tokenLabel, name, []byte{1})
	only := open(t, h.config(name, nil))
	before, err := only.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	h.makeKey(t, tokenLabel, name, []byte{2})
	_, err = only.WrapKey(t.Context(), dataKey(), sample())
	is.True(errors.Is(err, vault.ErrProvider)) // which one wraps can't be told
	p := open(t, h.config(name, []byte{2}))
	after, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	is.True(strings.HasPrefix(before.Provider, "pkcs11:01"))
	is.True(strings.HasPrefix(after.Provider, "pkcs11:02"))
	for _, w := range []vault.Wrapped{before, after} {
		key, err := p.UnwrapKey(t.Context(), w, sample())
		is.NoErr(err)
		is.Equal(key, dataKey())
	}
	h.removeKeys(t, tokenLabel, name, []byte{1})
	_, err = p.UnwrapKey(t.Context(), before, sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	is.True(strings.Contains(err.Error(), "need "+before.Provider+", hold ["+after.Provider+"]"))
}

func TestUnfitKeys(t *testing.T) {
	h := needed(t)
	for name, change := range map[string]*p11.Attribute{
		"extractable":   p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		"not sensitive": p11.NewAttribute(p11.CKA_SENSITIVE, false),
		"128 bits":      p11.NewAttribute(p11.CKA_VALUE_LEN, 16),
		"no id":         p11.NewAttribute(p11.CKA_ID, []byte{}),
		"long id":       p11.NewAttribute(p11.CKA_ID, make([]byte, 49)),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			h.makeKey(t, tokenLabel, labelOf(t), []byte{1}, change)
			p := open(t, h.config(labelOf(t), nil))
			_, err := p.CurrentKey(t.Context())
			is.True(errors.Is(err, vault.ErrProvider))
			_, err = p.WrapKey(t.Context(), dataKey(), sample())
			is.True(errors.Is(err, vault.ErrProvider))
		})
	}
}

// TestWrongKeyAtStart: a Manager whose token has another key says which it needs.
func TestWrongKeyAtStart(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	name := labelOf(t)
	h.makeKey(t, tokenLabel, name, []byte{1})
	p := open(t, h.config(name, nil))
	need, err := p.CurrentKey(t.Context())
	is.NoErr(err)
	settings := agentkey.Config{Storage: memstore.New(), Keys: p}
	m, err := agentkey.New(t.Context(), settings)
	is.NoErr(err)
	is.NoErr(m.Close(t.Context()))
	h.removeKeys(t, tokenLabel, name, []byte{1})
	h.makeKey(t, tokenLabel, name, []byte{1})
	held, err := p.CurrentKey(t.Context())
	is.NoErr(err)
	_, err = agentkey.New(t.Context(), settings)
	is.True(errors.Is(err, agentkey.ErrKeys))
	is.True(strings.Contains(err.Error(), "need "+need+", hold ["+held+"]"))
}

// TestHoldsKey: a key is held until the token has it no more.
func TestHoldsKey(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	name := labelOf(t)
	h.makeKey(t, tokenLabel, name, []byte{1})
	p := open(t, h.config(name, []byte{1}))
	id, err := p.CurrentKey(t.Context())
	is.NoErr(err)
	held, err := p.HoldsKey(t.Context(), id)
	is.NoErr(err)
	is.True(held)
	h.removeKeys(t, tokenLabel, name, []byte{1})
	held, err = p.HoldsKey(t.Context(), id)
	is.NoErr(err)
	is.True(!held)
	_, err = p.HoldsKey(t.Context(), "local:00000000000000000000000000000000")
	is.True(errors.Is(err, vault.ErrUnavailable))
}

// TestWrongPINIsTriedOnce: the token would be locked.
func TestWrongPINIsTriedOnce(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, otherToken, labelOf(t), []byte{1})
	pin := "wrong-" + userPIN
	m := &faulty{Module: h.ctx}
	c := h.config(labelOf(t), nil)
	c.Token, c.PIN = otherToken, func() (*vault.Secret, error) { return vault.NewSecret([]byte(pin)), nil }
	is.NoErr(h.ctx.CloseAllSessions(h.slot[otherToken])) // and with them the login
	p, err := pkcs11.Over(c, m)
	is.NoErr(err)
	for range 3 {
		_, err = p.CurrentKey(t.Context())
		is.True(errors.Is(err, vault.ErrUnavailable))
		is.True(!strings.Contains(err.Error(), userPIN))
	}
	is.Equal(m.logins, 1)
	pin = userPIN
	_, err = p.CurrentKey(t.Context())
	is.NoErr(err)
	is.Equal(m.logins, 2)
}

// TestSessionsThatEnd: everything is logged out and closed, as by a token that was
// pulled and put back; the next call logs in again.
func TestSessionsThatEnd(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{1})
	m := &faulty{Module: h.ctx}
	p, err := pkcs11.Over(h.config(labelOf(t), nil), m)
	is.NoErr(err)
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	for range 3 {
		is.NoErr(h.ctx.CloseAllSessions(h.slot[tokenLabel]))
		key, err := p.UnwrapKey(t.Context(), w, sample())
		is.NoErr(err)
		is.Equal(key, dataKey())
	}
	is.Equal(m.logins, 4)
	is.NoErr(h.ctx.CloseAllSessions(h.slot[tokenLabel]))
	_, err = p.WrapKey(t.Context(), dataKey(), sample()) // what it wraps is not zeroed before the second try
	is.NoErr(err)

	m.answer(p11.CKR_TOKEN_NOT_PRESENT)
	_, err = p.UnwrapKey(t.Context(), w, sample())
	is.True(errors.Is(err, vault.ErrUnavailable))
	m.answer(0)
	key, err := p.UnwrapKey(t.Context(), w, sample())
	is.NoErr(err)
	is.Equal(key, dataKey())
}

func TestTokenIsNotThere(t *testing.T) {
	h := needed(t)
	for name, change := range map[string]func(*pkcs11.Config){
		"label":  func(c *pkcs11.Config) { c.Token = "no such token" },
		"serial": func(c *pkcs11.Config) { c.Serial = "0123456789abcdef" },
		"PIN":    func(c *pkcs11.Config) { c.PIN = func() (*vault.Secret, error) { return nil, os.ErrNotExist } },
		"no PIN": func(c *pkcs11.Config) { c.PIN = fixed("") },
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			c := h.config(label, nil)
			change(&c)
			_, err := open(t, c).CurrentKey(t.Context())
			is.True(errors.Is(err, vault.ErrUnavailable))
		})
	}
	is := is.New(t)
	_, err := open(t, h.config("no-such-label", nil)).CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnknownKey))
}

// TestHangingToken: calls end in time, no more threads hang than there may be
// sessions, and it goes on when the token does.
func TestHangingToken(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{1})
	m := &faulty{Module: h.ctx}
	c := h.config(labelOf(t), nil)
	c.Timeout, c.Sessions = time.Minute, 2
	p, err := pkcs11.Over(c, m)
	is.NoErr(err)
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	c.Timeout = 20 * time.Millisecond
	p, err = pkcs11.Over(c, m)
	is.NoErr(err)
	m.hang()
	for range 6 {
		key, err := p.UnwrapKey(t.Context(), w, sample())
		is.True(errors.Is(err, vault.ErrUnavailable))
		is.Equal(key, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	_, err = p.UnwrapKey(ctx, w, sample())
	is.True(err != nil)
	is.True(m.hanging() <= 2)
	m.release()
	for err != nil { // whatever the machine's load
		_, err = p.UnwrapKey(t.Context(), w, sample())
	}
}

// TestWrongBytes: a token that answers something else gives no key.
func TestWrongBytes(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{1})
	m := &faulty{Module: h.ctx}
	p, err := pkcs11.Over(h.config(labelOf(t), nil), m)
	is.NoErr(err)
	w, err := p.WrapKey(t.Context(), dataKey(), sample())
	is.NoErr(err)
	for _, plain := range [][]byte{nil, dataKey(), make([]byte, 64), make([]byte, 100)} {
		m.decrypts(plain)
		key, err := p.UnwrapKey(t.Context(), w, sample())
		is.True(errors.Is(err, vault.ErrUnwrap))
		is.Equal(key, nil)
	}
}

// TestRefusingToken: what the module answers is told by its name, and whether the
// ciphertext or the token is at fault is told apart.
func TestRefusingToken(t *testing.T) {
	h := needed(t)
	own := labelOf(t)
	h.makeKey(t, tokenLabel, own, []byte{1})
	for name, c := range map[string]struct {
		code uint
		want error
	}{
		"not permitted":      {p11.CKR_KEY_FUNCTION_NOT_PERMITTED, vault.ErrUnavailable},
		"mechanism":          {p11.CKR_MECHANISM_INVALID, vault.ErrUnavailable},
		"memory":             {p11.CKR_DEVICE_MEMORY, vault.ErrUnavailable},
		"general":            {p11.CKR_GENERAL_ERROR, vault.ErrUnavailable}, // also for a probe
		"encrypted data":     {p11.CKR_ENCRYPTED_DATA_INVALID, vault.ErrUnwrap},
		"AEAD of version 3":  {0x35, vault.ErrUnwrap},
		"nothing that it is": {0x80001234, vault.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			m := &faulty{Module: h.ctx}
			p, err := pkcs11.Over(h.config(own, nil), m)
			is.NoErr(err)
			w, err := p.WrapKey(t.Context(), dataKey(), sample())
			is.NoErr(err)
			m.refuseDecryption(c.code)
			key, err := p.UnwrapKey(t.Context(), w, sample())
			is.True(errors.Is(err, c.want))
			is.Equal(key, nil)
		})
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	good := pkcs11.Config{Module: "/nonexistent.so", Token: "t", Label: "l", PIN: fixed(userPIN)}
	for name, change := range map[string]func(*pkcs11.Config){
		"module":          func(c *pkcs11.Config) { c.Module = "" },
		"not a module":    func(*pkcs11.Config) {},
		"token":           func(c *pkcs11.Config) { c.Token = "" },
		"label":           func(c *pkcs11.Config) { c.Label = "" },
		"id":              func(c *pkcs11.Config) { c.ID = make([]byte, 49) },
		"PIN":             func(c *pkcs11.Config) { c.PIN = nil },
		"sessions":        func(c *pkcs11.Config) { c.Sessions = 65 },
		"timeout":         func(c *pkcs11.Config) { c.Timeout = time.Hour },
		"negative":        func(c *pkcs11.Config) { c.Timeout = -1 },
		"fewer than none": func(c *pkcs11.Config) { c.Sessions = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			c := good
			change(&c)
			_, err := pkcs11.New(c)
			is.True(errors.Is(err, pkcs11.ErrConfig))
		})
	}
}

func TestOpen(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{0xab})
	file := filepath.Join(t.TempDir(), "pin")
	is.NoErr(os.WriteFile(file, []byte(userPIN+"\n"), 0o600))
	env := map[string]string{"PKCS11_MODULE": h.path, "PKCS11_TOKEN": tokenLabel, "PKCS11_PIN_FILE": file}
	get := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, argument := range []string{labelOf(t), labelOf(t) + "/ab"} {
		p, err := pkcs11.Open(t.Context(), argument, get)
		is.NoErr(err)
		name, err := p.CurrentKey(t.Context())
		is.NoErr(err)
		is.True(strings.HasPrefix(name, "pkcs11:ab"))
	}
	for _, argument := range []string{"", "label/not-hexadecimal"} {
		_, err := pkcs11.Open(t.Context(), argument, get)
		is.True(errors.Is(err, pkcs11.ErrConfig))
	}
	env["PKCS11_PIN"] = userPIN
	_, err := pkcs11.Open(t.Context(), label, get)
	is.True(errors.Is(err, pkcs11.ErrConfig))
	delete(env, "PKCS11_PIN")
	env["PKCS11_PIN_FILE"] = userPIN // in the place of a file's name
	is.NoErr(h.ctx.CloseAllSessions(h.slot[tokenLabel]))
	p, err := pkcs11.Open(t.Context(), label, get)
	is.NoErr(err)
	_, err = p.CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(!strings.Contains(err.Error(), userPIN))
}
