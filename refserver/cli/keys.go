package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// envEncryptionKey is the variable that holds the encryption key. There is no
// flag for it.
const envEncryptionKey = "AGENTKEY_ENCRYPTION_KEY"

type keysCommands struct {
	Generate keysGenerate `cmd:"" help:"Make a new encryption key."`
	Split    keysSplit    `cmd:"" help:"Write a key in parts, for people of whom none is to have it alone."`
	Status   keysStatus   `cmd:"" help:"Show the data keys, their state by NIST SP 800-57, and what is left of a rotation."`

	RotateDek        keysRotateDEK     `cmd:"" name:"rotate-dek" help:"Make the next data keys: what is sealed from now on is under them."`
	Reseal           keysReseal        `cmd:"" help:"Seal everything anew with the active data keys, and destroy those before."`
	RotateKek        keysRotateKEK     `cmd:"" name:"rotate-kek" help:"Have every data key wrapped by the key provider's current key, with the settings of serve."`
	RotateInstall    keysRotateInstall `cmd:"" name:"rotate-installation" help:"Make the next data keys of the installation's own records, seal those anew and destroy the keys before, with the settings of serve."`
	RotateSigningKey keysRotateSigning `cmd:"" help:"Make the next key that signs the logs, with the settings of serve."`
	CheckHandover    keysCheckHandover `cmd:"" help:"Check the proof that the log's key was handed over, without any server."`
	DestroyOrg       keysDestroy       `cmd:"" name:"destroy-org" help:"Destroy the keys of everything that the organization has sealed. It can't be undone."`

	Join keysJoin `cmd:"" help:"Make the key of all its parts again."`
}

type keysGenerate struct {
	Out string `placeholder:"FILE" help:"Write the key to this new file, readable by you only. Default: print it."`
}

// Run makes a key.
func (c *keysGenerate) Run(s *session) error {
	if c.Out == "" {
		key, err := localkey.Generate()
		if err != nil {
			return err
		}
		return s.say("%s", key)
	}
	if err := localkey.WriteFile(c.Out); errors.Is(err, fs.ErrExist) {
		return errThere
	} else if err != nil {
		return err
	}
	return s.say("key written to %s; back it up apart from the database", c.Out)
}

// encryptionFlags say where the encryption key comes from.
type encryptionFlags struct {
	KeyFile     string `env:"AGENTKEY_KEY_FILE" placeholder:"FILE" help:"File with the encryption key, unless AGENTKEY_ENCRYPTION_KEY holds it. Default: encryption.key in the configuration directory."`
	KeyProvider string `env:"AGENTKEY_KEY_PROVIDER" placeholder:"NAME[:ARGUMENT]" default:"local" help:"Who wraps the data keys: local is the encryption key, transit:MOUNT/KEY a key of Vault or OpenBao."`

	OldKeyProvider string `env:"AGENTKEY_OLD_KEY_PROVIDER" placeholder:"NAME[:ARGUMENT]" help:"Who wrapped data keys before, for a move to another key provider: it unwraps them until keys rotate-kek is done. local needs --old-key-file."`
	OldKeyFile     string `env:"AGENTKEY_OLD_KEY_FILE" placeholder:"FILE" help:"File with the encryption key before, for --old-key-provider local."`

	Transit transitFlags `embed:"" prefix:"transit-"`

	moving bool // it is the provider before that is opened
}

// given opens the key provider that is named and says where its key is, for
// people. When nothing names one, keys is nil and the default is meant, which
// only a SQLite database has.
func (f encryptionFlags) given(ctx context.Context, s *session, at location) (keys vault.KeyProvider, where string, err error) {
	keys, where, err = f.current(ctx, s, at)
	switch {
	case f.OldKeyProvider == "" && f.OldKeyFile != "":
		return nil, "", usagef("--old-key-file goes with --old-key-provider local")
	case f.OldKeyProvider == "" || err != nil:
		return keys, where, err
	case keys == nil:
		return nil, "", usagef("--old-key-provider needs the new key named: --key-provider, --key-file or %s", envEncryptionKey)
	}
	before, err := f.former(ctx, s)
	if err != nil {
		return nil, "", err
	}
	both, err := vault.NewProviders(keys, before)
	return both, where, err
}

// current opens the provider that wraps.
func (f encryptionFlags) current(ctx context.Context, s *session, at location) (keys vault.KeyProvider, where string, err error) {
	if f.KeyProvider != "local" {
		return f.other(ctx, s)
	}
	_, inEnv := s.getenv(envEncryptionKey)
	switch {
	case inEnv && f.KeyFile != "":
		return nil, "", usagef("%s and --key-file are both given; keep one", envEncryptionKey)
	case inEnv:
		return local("from "+envEncryptionKey, func() (*localkey.Provider, error) { return localkey.FromEnv(s.getenv, envEncryptionKey) })
	case f.KeyFile != "":
		return local(f.KeyFile, func() (*localkey.Provider, error) { return localkey.FromFile(f.KeyFile) })
	case !at.sqlite():
		return nil, "", usagef("Postgres needs the encryption key given: set %s or --key-file; `agentkey keys generate` makes one", envEncryptionKey)
	}
	return nil, "", s.apart(at)
}

// backUp is what people must know of a key that they keep themselves.
const backUp = " (back up apart from the database)"

func localFile(path string) func() (*localkey.Provider, error) {
	return func() (*localkey.Provider, error) { return localkey.FromFile(path) }
}

// local makes a typed nil impossible.
func local(where string, open func() (*localkey.Provider, error)) (vault.KeyProvider, string, error) {
	keys, err := open()
	if err != nil {
		return nil, "", err
	}
	return keys, where + backUp, nil
}

func (f encryptionFlags) other(ctx context.Context, s *session) (vault.KeyProvider, string, error) {
	name, argument, _ := strings.Cut(f.KeyProvider, ":")
	open := s.options.Providers[name]
	if open == nil && name == "transit" {
		open = func(context.Context, string, func(string) (string, bool)) (vault.KeyProvider, error) {
			return f.Transit.open(s, argument)
		}
	}
	if open == nil {
		return nil, "", usagef("this build of agentkey has no such key provider")
	}
	if _, ok := s.getenv(envEncryptionKey); !f.moving && (ok || f.KeyFile != "") {
		return nil, "", usagef("%s and --key-file are for --key-provider local only", envEncryptionKey)
	}
	keys, err := open(ctx, argument, s.getenv)
	var usage *usageError
	if errors.As(err, &usage) {
		return nil, "", err
	}
	if err != nil {
		return nil, "", fmt.Errorf("key provider %s: %w", name, err)
	}
	return keys, "held by key provider " + name, nil
}

// configDirectory holds the key and the first token, never the data.
func (s *session) configDirectory() (string, error) { return s.directory("XDG_CONFIG_HOME", ".config") }

func (s *session) defaultKeyFile() (string, error) {
	dir, err := s.configDirectory()
	return filepath.Join(dir, "encryption.key"), err
}

// apart refuses a database in the directory of the default key: one backup would
// hold both.
func (s *session) apart(at location) error {
	path, err := s.defaultKeyFile()
	if err == nil && filepath.Dir(at.path) == filepath.Dir(path) {
		err = usagef("the database is in the configuration directory, where the key is; " +
			"keep the two apart: name another file with --database, or the key's with --key-file")
	}
	return err
}

// defaultKey reads the key file in the configuration directory, or makes it for
// an empty database. For any other a new key would be of no use, and a key that
// is missing may just not be mounted.
func (s *session) defaultKey(ctx context.Context, store storage.Store) (vault.KeyProvider, string, error) {
	path, err := s.defaultKeyFile()
	if err != nil {
		return nil, "", err
	}
	open := func() (*localkey.Provider, error) { return localkey.FromFile(path) }
	keys, where, err := local(path, open)
	if !errors.Is(err, localkey.ErrNoKey) {
		return keys, where, err
	}
	needed, err := wrappers(ctx, store)
	if err != nil {
		return nil, "", err
	}
	if len(needed) == 0 {
		if err := makePrivate(filepath.Dir(path)); err != nil {
			return nil, "", err
		}
		if err := localkey.WriteFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, "", err
		}
	}
	// Another process that starts now may have made it, before it sealed anything.
	keys, where, err = local(path, open)
	if len(needed) > 0 && errors.Is(err, localkey.ErrNoKey) {
		err = fmt.Errorf("the database is sealed with %s, and there is no key at %s: put that key back, or give it by --key-file or %s",
			strings.Join(needed, ", "), path, envEncryptionKey)
	}
	return keys, where, err
}
