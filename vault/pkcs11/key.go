//go:build cgo

package pkcs11

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	namePrefix = "pkcs11:"
	maxID      = 48 // bytes; in hexadecimal they fit an id
	maxKeys    = 100
)

// key is an AES key in the token.
type key struct {
	handle pkcs11.ObjectHandle
	id     []byte
	check  []byte // the check value, empty where the token has none
	unfit  string // why it is not used, if so
}

func (k key) name() string {
	name := namePrefix + hex.EncodeToString(k.id)
	if len(k.check) > 0 {
		name += ":" + hex.EncodeToString(k.check)
	}
	return name
}

// keys are those of the label.
func (s session) keys() ([]key, error) {
	err := s.module.FindObjectsInit(s.handle, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, s.config.Label),
	})
	if err != nil {
		return nil, err
	}
	handles, _, err := s.module.FindObjects(s.handle, maxKeys)
	if final := s.module.FindObjectsFinal(s.handle); err == nil {
		err = final
	}
	if err != nil {
		return nil, err
	}
	keys := make([]key, 0, len(handles))
	for _, handle := range handles {
		k, err := s.describe(handle)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (s session) describe(handle pkcs11.ObjectHandle) (key, error) {
	k := key{handle: handle}
	got, err := s.module.GetAttributeValue(s.handle, handle, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	})
	if err != nil {
		return key{}, err
	}
	for _, a := range got {
		switch yes := len(a.Value) > 0 && a.Value[0] != 0; {
		case a.Type == pkcs11.CKA_ID && (len(a.Value) == 0 || len(a.Value) > maxID):
			k.unfit = fmt.Sprintf("its CKA_ID does not have 1 to %d bytes", maxID)
		case a.Type == pkcs11.CKA_ID:
			k.id = a.Value
		case a.Type == pkcs11.CKA_VALUE_LEN && !isNumber(a.Value, vault.KeySize):
			k.unfit = "it does not have 256 bits"
		case a.Type == pkcs11.CKA_SENSITIVE && !yes:
			k.unfit = "it is not sensitive"
		case a.Type == pkcs11.CKA_EXTRACTABLE && yes:
			k.unfit = "it is extractable"
		}
	}
	// Not every token has it, or tells it.
	if got, err := s.module.GetAttributeValue(s.handle, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CHECK_VALUE, nil)}); err == nil &&
		len(got) == 1 && len(got[0].Value) == 3 {
		k.check = got[0].Value
	}
	return k, nil
}

// isNumber reports whether an attribute of the machine's word order is n.
func isNumber(value []byte, n uint) bool {
	return bytes.Equal(value, pkcs11.NewAttribute(0, n).Value)
}

// current is the key that wraps.
func (s session) current() (key, error) {
	keys, err := s.keys()
	if err != nil {
		return key{}, err
	}
	var found []key
	for _, k := range keys {
		if len(s.config.ID) == 0 || bytes.Equal(k.id, s.config.ID) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 0:
		return key{}, unknown("the key that is to wrap", keys)
	case len(found) > 1 && len(s.config.ID) == 0:
		return key{}, fmt.Errorf("%w: pkcs11: the token has several keys of this label; name one by its id", vault.ErrProvider)
	case len(found) > 1:
		return key{}, fmt.Errorf("%w: pkcs11: the token has several keys of this label and id", vault.ErrProvider)
	}
	return found[0], found[0].fit()
}

// named is the key of that name.
func (s session) named(name string) (key, error) {
	keys, err := s.keys()
	if err != nil {
		return key{}, err
	}
	for _, k := range keys {
		if k.name() == name && len(k.id) > 0 {
			return k, k.fit()
		}
	}
	return key{}, unknown(printable(name), keys)
}

func (k key) fit() error {
	if k.unfit != "" {
		return fmt.Errorf("%w: pkcs11: the key is not to be used: %s", vault.ErrProvider, k.unfit)
	}
	return nil
}

// unknown names the key needed and those held.
func unknown(need string, keys []key) error {
	held := make([]string, len(keys))
	for i, k := range keys {
		held[i] = k.name()
	}
	return fmt.Errorf("%w: need %s, hold [%s]", vault.ErrUnknownKey, need, strings.Join(held, " "))
}

// printable keeps what a database says is a key id from writing anything else into
// an error.
func printable(id string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if id == "" || len(id) > vault.MaxProviderKeyID || strings.ContainsFunc(id, odd) {
		return "a key without a proper id"
	}
	return id
}
