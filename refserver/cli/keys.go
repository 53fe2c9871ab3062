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
		return fmt.Errorf("the file is there already; a key is never overwritten")
	} else if err != nil {
		return err
	}
	return s.say("key written to %s; back it up apart from the database", c.Out)
}

// encryptionFlags say where the encryption key comes from.
type encryptionFlags struct {
	KeyFile     string `env:"AGENTKEY_KEY_FILE" placeholder:"FILE" help:"File with the encryption key, unless AGENTKEY_ENCRYPTION_KEY holds it. Default: encryption.key in the configuration directory."`
	KeyProvider string `env:"AGENTKEY_KEY_PROVIDER" placeholder:"NAME[:ARGUMENT]" default:"local" help:"Who wraps the data keys; local is the encryption key."`
}

// open gives the key provider and says where its key is, for people. A key is
// made only for an empty SQLite database, and only where nothing else names one:
// any other database would never open again with a new key, and looks the same
// as one whose key is just not mounted.
func (f encryptionFlags) open(ctx context.Context, s *session, at location, store storage.Store) (vault.KeyProvider, string, error) {
	if f.KeyProvider != "local" {
		return f.other(ctx, s)
	}
	_, inEnv := s.getenv(envEncryptionKey)
	switch {
	case inEnv && f.KeyFile != "":
		return nil, "", usagef("%s and --key-file are both given; keep one", envEncryptionKey)
	case inEnv:
		keys, err := localkey.FromEnv(s.getenv, envEncryptionKey)
		return keys, envEncryptionKey, err
	case f.KeyFile != "":
		keys, err := localkey.FromFile(f.KeyFile)
		return keys, f.KeyFile, err
	case !at.sqlite():
		return nil, "", usagef("Postgres needs the encryption key given: set %s or --key-file; `agentkey keys generate` makes one", envEncryptionKey)
	}
	return s.defaultKey(ctx, at, store)
}

func (f encryptionFlags) other(ctx context.Context, s *session) (vault.KeyProvider, string, error) {
	name, argument, _ := strings.Cut(f.KeyProvider, ":")
	open := s.options.Providers[name]
	if open == nil {
		return nil, "", usagef("this build of agentkey has no such key provider")
	}
	if _, ok := s.getenv(envEncryptionKey); ok || f.KeyFile != "" {
		return nil, "", usagef("%s and --key-file are for --key-provider local only", envEncryptionKey)
	}
	keys, err := open(ctx, argument, s.getenv)
	if err != nil {
		return nil, "", fmt.Errorf("key provider %s: %w", name, err)
	}
	return keys, "held by key provider " + name, nil
}

// configDirectory holds the key and the first token, never the data.
func (s *session) configDirectory() (string, error) { return s.directory("XDG_CONFIG_HOME", ".config") }

// defaultKey reads the key file in the configuration directory, or makes it for
// an empty database.
func (s *session) defaultKey(ctx context.Context, at location, store storage.Store) (vault.KeyProvider, string, error) {
	dir, err := s.configDirectory()
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, "encryption.key")
	keys, err := localkey.FromFile(path)
	if !errors.Is(err, localkey.ErrNoKey) {
		return keys, path, err
	}
	needed, err := wrappers(ctx, store)
	if err != nil {
		return nil, "", err
	}
	if len(needed) > 0 {
		return nil, "", fmt.Errorf("the database is sealed with %s, and there is no key at %s: put that key back, or give it by --key-file or %s",
			strings.Join(needed, ", "), path, envEncryptionKey)
	}
	if filepath.Dir(at.path) == dir {
		return nil, "", usagef("the database is in the configuration directory, where the key would be made; " +
			"keep the two apart: name another file with --database, or the key's with --key-file")
	}
	if err := makePrivate(dir); err != nil {
		return nil, "", err
	}
	// Another process that starts now may be the one that makes it.
	if err := localkey.WriteFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, "", err
	}
	keys, err = localkey.FromFile(path)
	return keys, path, err
}
