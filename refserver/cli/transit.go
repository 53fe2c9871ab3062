package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
)

// What must not be an argument, since others see those.
const (
	envTransitToken    = "AGENTKEY_TRANSIT_TOKEN"
	envTransitSecretID = "AGENTKEY_TRANSIT_SECRET_ID"
)

// transitFlags are the settings of --key-provider transit, apart from the key.
type transitFlags struct {
	Address      string `env:"AGENTKEY_TRANSIT_ADDRESS" placeholder:"URL" help:"Vault's or OpenBao's address, for --key-provider transit."`
	Namespace    string `env:"AGENTKEY_TRANSIT_NAMESPACE" placeholder:"PATH" help:"Namespace of key and login. Default: the root."`
	TokenFile    string `env:"AGENTKEY_TRANSIT_TOKEN_FILE" placeholder:"FILE" help:"File with the token, unless AGENTKEY_TRANSIT_TOKEN holds it."`
	Role         string `env:"AGENTKEY_TRANSIT_ROLE_ID" placeholder:"ID" help:"Role to log in as by AppRole, in place of a token."`
	SecretIDFile string `env:"AGENTKEY_TRANSIT_SECRET_ID_FILE" placeholder:"FILE" help:"File with the role's secret id, unless AGENTKEY_TRANSIT_SECRET_ID holds it."`
	AuthMount    string `env:"AGENTKEY_TRANSIT_AUTH_MOUNT" default:"approle" placeholder:"PATH" help:"Where AppRole is mounted."`
	CA           string `name:"ca" env:"AGENTKEY_TRANSIT_CA" placeholder:"FILE" help:"Authorities that may sign its certificate, PEM. Default: the system's."`
	OwnKeys      bool   `name:"organization-keys" env:"AGENTKEY_TRANSIT_ORGANIZATION_KEYS" help:"Wrap what seals an organization's values by a key of its own, named KEY-ORGANIZATION, which is made when it is needed and destroyed by keys destroy-org."`
	ServerName   string `env:"AGENTKEY_TRANSIT_SERVER_NAME" placeholder:"NAME" help:"Name that its certificate must be for. Default: the address's."`
}

// open makes the provider. argument is MOUNT/KEY.
func (f transitFlags) open(s *session, argument string) (vault.KeyProvider, error) {
	mount, key := "", argument
	if i := strings.LastIndexByte(argument, '/'); i >= 0 {
		mount, key = argument[:i], argument[i+1:]
	}
	if key == "" {
		return nil, usagef("name the key: --key-provider transit:MOUNT/KEY")
	}
	auth, err := f.auth(s)
	if err != nil {
		return nil, err
	}
	c := transit.Config{
		Address: f.Address, Namespace: f.Namespace, Mount: mount, Key: key, Auth: auth, ServerName: f.ServerName, Clock: s.options.Clock,
		OrganizationKeys: f.OwnKeys,
	}
	if f.CA != "" {
		if c.CA, err = readCertificates(f.CA); err != nil {
			return nil, err
		}
	}
	p, err := transit.New(c)
	if errors.Is(err, transit.ErrConfig) {
		return nil, &usageError{"key provider transit: " + err.Error()}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (f transitFlags) auth(s *session) (transit.Auth, error) {
	token, err := source(s, envTransitToken, f.TokenFile, "--transit-token-file")
	if err != nil {
		return transit.Auth{}, err
	}
	secret, err := source(s, envTransitSecretID, f.SecretIDFile, "--transit-secret-id-file")
	switch {
	case err != nil:
		return transit.Auth{}, err
	case token != nil && f.Role == "" && secret == nil:
		return transit.Token(token), nil
	case token == nil && f.Role != "":
		return transit.AppRole(f.AuthMount, f.Role, secret), nil
	}
	return transit.Auth{}, usagef("--key-provider transit needs a token (%s or --transit-token-file), or a role (--transit-role) with its secret id (%s or --transit-secret-id-file), not both",
		envTransitToken, envTransitSecretID)
}

// source reads a variable or a file, nil if neither is given.
func source(s *session, variable, file, flag string) (transit.Source, error) {
	value, ok := s.getenv(variable)
	switch {
	case ok && file != "":
		return nil, usagef("%s and %s are both given; keep one", variable, flag)
	case ok:
		return func() (*vault.Secret, error) { return vault.NewSecret([]byte(value)), nil }, nil
	case file != "":
		return transit.FromFile(file), nil
	}
	return nil, nil
}

func readCertificates(path string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--transit-ca: %w", cause(err))
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("--transit-ca: %w", cause(err))
	}
	return b, nil
}

// attend lets a provider do what time brings about, as renewing a token, until
// stop is called.
func attend(ctx context.Context, keys vault.KeyProvider) (stop func()) {
	runner, ok := keys.(interface{ Run(context.Context) error })
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = runner.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
