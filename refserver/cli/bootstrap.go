package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

// envBootstrapToken is the variable that may bring the first administrator's
// token. There is no flag for it.
const envBootstrapToken = "AGENTKEY_BOOTSTRAP_TOKEN"

// minBootstrapToken is its least length in characters.
const minBootstrapToken = 32

// operator is who acts where no administrator can have been asked: whoever may
// run the program on the database itself.
func operator() agentkey.Actor { return agentkey.Operator("agentkey command line") }

// checkBootstrapToken refuses a token that could be guessed or could not be sent,
// also where it would not count any more.
func (s *session) checkBootstrapToken() error {
	value, ok := s.getenv(envBootstrapToken)
	if ok && (len(value) < minBootstrapToken || len(value) > 512 || strings.ContainsFunc(value, invisible)) {
		return usagef("%s must have at least %d characters, and only letters, digits and signs of ASCII; `agentkey keys generate` prints one",
			envBootstrapToken, minBootstrapToken)
	}
	return nil
}

// invisible tells what can't stand in a header after "Bearer ".
func invisible(r rune) bool { return r <= ' ' || r > '~' }

// firstAdministrator makes the first organization with its owner, unless there
// is one, and says for people where the owner's token is. Of several processes
// that start together one makes it.
func (s *session) firstAdministrator(ctx context.Context, m *agentkey.Manager) (string, error) {
	organizations, err := m.Organizations(ctx, operator())
	if err != nil {
		return "", fmt.Errorf("look for organizations: %w", err)
	}
	if len(organizations) > 0 {
		return "has been there since the first start", nil
	}
	where, err := s.giveToken(func(token *agentkey.Secret) error {
		_, err := createOrganization(ctx, m, agentkey.CreateOrganizationInput{Name: "Default", Owner: "owner", Token: token, First: true})
		return err
	})
	if errors.Is(err, agentkey.ErrNotFirst) {
		return "was made by another process that started just now", nil
	}
	return where, err
}

// giveToken makes the first token and says where it is. use makes it count.
func (s *session) giveToken(use func(*agentkey.Secret) error) (string, error) {
	if value, ok := s.getenv(envBootstrapToken); ok {
		token := agentkey.NewSecret([]byte(value))
		defer token.Destroy()
		return "token is that of " + envBootstrapToken, use(token)
	}
	token := newToken()
	defer token.Destroy()
	if _, ok := terminal(s.stdout); ok {
		return "token, shown this once: " + string(token.Bytes()), use(token)
	}
	// On the disk first: a token that counts and that nobody has would lock
	// everybody out.
	path, err := s.writeToken(token)
	if err != nil {
		return "", err
	}
	if err := use(token); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return "token in " + path, nil
}

func createOrganization(ctx context.Context, m *agentkey.Manager, in agentkey.CreateOrganizationInput) (agentkey.CreatedOrganization, error) {
	created, err := m.CreateOrganization(ctx, operator(), in)
	if err != nil {
		return created, fmt.Errorf("create the organization: %w", err)
	}
	return created, nil
}

// newToken makes an administrator's token of 256 random bits.
func newToken() *agentkey.Secret {
	var random [32]byte
	rand.Read(random[:]) // never fails; it ends the program rather than return weak bytes
	defer clear(random[:])
	return agentkey.NewSecret(base64.RawURLEncoding.AppendEncode([]byte("sk_admin_"), random[:]))
}

// writeToken writes the token to a new file in the configuration directory. A
// file that is there, of another installation or of another process that starts
// just now, is kept.
func (s *session) writeToken(token *agentkey.Secret) (string, error) {
	dir, err := s.configDirectory()
	if err != nil {
		return "", err
	}
	if err := makePrivate(dir); err != nil {
		return "", err
	}
	f, err := os.OpenFile(filepath.Join(dir, "administrator.token"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = os.CreateTemp(dir, "administrator-*.token") // mode 0600
	}
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	text := append(bytes.Clone(token.Bytes()), '\n')
	defer clear(text)
	if err := fill(f, text); err != nil {
		return "", fmt.Errorf("token file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return f.Name(), nil
}
