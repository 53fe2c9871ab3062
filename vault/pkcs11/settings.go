//go:build cgo

package pkcs11

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const maxPIN = 4 << 10

// Open makes the Provider that a program's settings describe; it has the form that
// the command line of the reference server takes. argument is the keys' label, or
// label and id as LABEL/ID, the id in hexadecimal. The variables PKCS11_MODULE, and
// PKCS11_TOKEN or PKCS11_SERIAL, say where the keys are; PKCS11_PIN_FILE or PKCS11_PIN
// has the PIN. The file is read at each login, without the space around the PIN.
func Open(_ context.Context, argument string, getenv func(string) (string, bool)) (vault.KeyProvider, error) {
	value := func(name string) string {
		v, _ := getenv(name)
		return v
	}
	label, id, _ := strings.Cut(argument, "/")
	c := Config{
		Module: value("PKCS11_MODULE"), Token: value("PKCS11_TOKEN"), Serial: value("PKCS11_SERIAL"), Label: label,
	}
	var err error
	if c.ID, err = hex.DecodeString(id); err != nil {
		return nil, fmt.Errorf("%w: want LABEL or LABEL/ID, the id in hexadecimal", ErrConfig)
	}
	pin, file := value("PKCS11_PIN"), value("PKCS11_PIN_FILE")
	switch {
	case pin != "" && file != "":
		return nil, fmt.Errorf("%w: PKCS11_PIN and PKCS11_PIN_FILE are both given; keep one", ErrConfig)
	case pin != "":
		c.PIN = func() (*vault.Secret, error) { return vault.NewSecret([]byte(pin)), nil }
	case file != "":
		c.PIN = func() (*vault.Secret, error) { return readPIN(file) }
	}
	p, err := New(c)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// readPIN reads a file. Its errors don't name it: the PIN itself may have been given
// in its place.
func readPIN(file string) (*vault.Secret, error) {
	f, err := os.Open(file)
	var at *fs.PathError
	if errors.As(err, &at) {
		return nil, fmt.Errorf("the file can't be read: %w", at.Err)
	}
	if err != nil {
		return nil, errors.New("the file can't be read")
	}
	defer func() { _ = f.Close() }()
	text, err := vault.SecretFromReader(f, maxPIN)
	if err != nil {
		return nil, err
	}
	defer text.Destroy()
	return vault.NewSecret([]byte(strings.TrimSpace(string(text.Bytes())))), nil
}
