package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// present opens the key that is given, or the default one, and makes none.
func (f encryptionFlags) present(ctx context.Context, s *session, at location) (vault.KeyProvider, string, error) {
	keys, where, err := f.given(ctx, s, at)
	if keys != nil || err != nil {
		return keys, where, err
	}
	path, err := s.defaultKeyFile()
	if err != nil {
		return nil, "", err
	}
	return local(path, func() (*localkey.Provider, error) { return localkey.FromFile(path) })
}

// existing opens a database that is there, and does not migrate it.
func (l location) existing() (*bunstore.Store, func() error, error) {
	if l.sqlite() {
		if _, err := os.Stat(l.path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("there is none at %s; `agentkey serve` makes it, or the settings are not those of the server", l.path)
		} else if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", l.path, cause(err))
		}
	}
	return l.handle()
}

// files looks at who else can read or replace what the server keeps in files. It
// must come before the database is opened, which makes its files private.
func (x *examination) files(s *session, at location, tlsKey string) {
	directories := map[string]bool{}
	if dir, err := s.configDirectory(); err == nil {
		directories[dir] = true
		tokens, _ := filepath.Glob(filepath.Join(dir, "administrator*.token"))
		for _, path := range tokens {
			x.warn("files", "the first administrator's token is still in %s; move it to where you keep secrets", path)
			x.private(path, "")
		}
	}
	if at.sqlite() {
		directories[filepath.Dir(at.path)] = true
		for _, suffix := range []string{"", "-wal", "-shm"} {
			x.private(at.path+suffix, at.path+suffix)
		}
	}
	if tlsKey != "" {
		x.private(tlsKey, "the certificate's key")
	}
	for dir := range directories {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			x.fail("files", "others can replace what is in %s (mode %04o); chmod 700", dir, info.Mode().Perm())
		}
	}
	x.clear("files", "others can neither read nor replace them")
}

// private wants a file that only its owner can read, if it is there.
func (x *examination) private(path, name string) {
	if name == "" {
		name = path
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		x.warn("files", "others could read %s (mode %04o); chmod 600", name, info.Mode().Perm())
	}
}
