package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/term"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// maxCredential is the longest credential in bytes.
const maxCredential = 64 << 10

// credentialFlags say where a credential comes from. It is never an argument.
type credentialFlags struct {
	CredentialStdin bool   `xor:"credential" help:"Read the credential from standard input."`
	CredentialFile  string `xor:"credential" placeholder:"FILE" help:"Read the credential from a file."`
}

func (f credentialFlags) given() bool { return f.CredentialStdin || f.CredentialFile != "" }

// read gets the credential from where the flags say, or by a prompt on the
// terminal. One line end at the end of input or file is not part of it.
func (f credentialFlags) read(s *session) (*vault.Secret, error) {
	switch {
	case f.CredentialStdin:
		return readCredential(s.stdin)
	case f.CredentialFile != "":
		file, err := openNamed(f.CredentialFile, "credential file")
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		return readCredential(file)
	}
	fd, ok := terminal(s.stdin)
	if !ok {
		return nil, usagef("a credential is needed: give --credential-stdin or --credential-file, or run this on a terminal to be asked")
	}
	_, _ = fmt.Fprint(s.stderr, "Credential (not shown): ")
	typed, err := term.ReadPassword(fd)
	_, _ = fmt.Fprintln(s.stderr)
	if err != nil {
		return nil, fmt.Errorf("read the credential: %w", err)
	}
	return checkCredential(vault.NewSecret(typed))
}

func readCredential(r io.Reader) (*vault.Secret, error) {
	secret, err := vault.SecretFromReader(r, maxCredential+2)
	if errors.Is(err, vault.ErrTooLong) {
		return nil, errTooLong
	}
	if err != nil {
		return nil, fmt.Errorf("read the credential: %w", cause(err))
	}
	b := secret.Bytes()
	b = bytes.TrimSuffix(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	trimmed := vault.NewSecret(bytes.Clone(b))
	secret.Destroy()
	return checkCredential(trimmed)
}

var (
	errTooLong = errors.New("the credential is longer than 64 KiB")
	errBlank   = errors.New("the credential is empty")
)

func checkCredential(secret *vault.Secret) (*vault.Secret, error) {
	switch {
	case len(bytes.TrimSpace(secret.Bytes())) == 0:
		secret.Destroy()
		return nil, errBlank
	case secret.Len() > maxCredential:
		secret.Destroy()
		return nil, errTooLong
	}
	return secret, nil
}
