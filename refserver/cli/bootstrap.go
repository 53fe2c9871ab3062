package cli

import (
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
// is one, and says for people where the owner's token is.
func (s *session) firstAdministrator(ctx context.Context, m *agentkey.Manager) (string, error) {
	organizations, err := m.Organizations(ctx, operator())
	if err != nil {
		return "", fmt.Errorf("look for organizations: %w", err)
	}
	if len(organizations) > 0 {
		return "has been there since the first start", nil
	}
	if value, ok := s.getenv(envBootstrapToken); ok {
		token := agentkey.NewSecret([]byte(value))
		defer token.Destroy()
		_, err := createOrganization(ctx, m, "Default", "owner", token)
		return "token is that of " + envBootstrapToken, err
	}
	token := newToken()
	defer token.Destroy()
	if _, ok := terminal(s.stdout); ok {
		_, err := createOrganization(ctx, m, "Default", "owner", token)
		return "token, shown this once: " + string(token.Bytes()), err
	}
	// On the disk first: a token that counts and that nobody has would lock
	// everybody out.
	path, err := s.writeToken(m.Installation(), token)
	if err != nil {
		return "", err
	}
	if _, err := createOrganization(ctx, m, "Default", "owner", token); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return "token in " + path, nil
}

func createOrganization(ctx context.Context, m *agentkey.Manager, name, owner string, token *agentkey.Secret) (agentkey.CreatedOrganization, error) {
	created, err := m.CreateOrganization(ctx, operator(), agentkey.CreateOrganizationInput{Name: name, Owner: owner, Token: token})
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
// file that another installation has left there is kept.
func (s *session) writeToken(installation string, token *agentkey.Secret) (string, error) {
	dir, err := s.configDirectory()
	if err != nil {
		return "", err
	}
	if err := makePrivate(dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "administrator.token")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		// No organization is there yet, so a file with this installation's id is
		// from a start that did not come as far as making one.
		path = filepath.Join(dir, "administrator-"+installation+".token")
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if _, err = f.Write(token.Bytes()); err == nil {
		_, err = f.WriteString("\n")
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("token file: %w", errors.Join(err, os.Remove(path)))
	}
	return path, nil
}
