package localkey

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// maxFile bounds a key file in bytes: some hundreds of keys with comments.
const maxFile = 64 << 10

// FromEnv returns a Provider over the one key in the environment variable name,
// which lookup (in a program os.LookupEnv) finds. A variable that is not set, or
// empty, is an [ErrNoKey]; a value that is not exactly one key an [ErrBadKey].
//
// An environment can't be zeroed and is seen by whoever may look into the process:
// prefer a key file, which also holds old keys while the key is being changed.
func FromEnv(lookup func(string) (string, bool), name string) (*Provider, error) {
	value, ok := lookup(name)
	if !ok {
		return nil, fmt.Errorf("%s is not set: %w", name, ErrNoKey)
	}
	text := []byte(value)
	defer clear(text)
	key, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer clear(key)
	return NewRing(key)
}

// FromFile returns a Provider over the keys in a file: one a line, the newest
// first. Blank lines, lines that begin with # and space around a key are skipped.
//
// The file must be regular (the target, if path is a symbolic link), readable by
// its owner only, and owned by the user of the process or root; otherwise FromFile
// fails with [ErrBadFile]. A file that does not exist, or holds no key, is an
// [ErrNoKey]; a line that is not a key an [ErrBadKey] that tells the line's number.
// Where the platform has no such owners and modes, key files are refused.
func FromFile(path string) (*Provider, error) {
	keys, err := readKeys(path)
	defer clearAll(keys)
	if err != nil {
		return nil, err
	}
	p, err := NewRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return p, nil
}

// readKeys reads the keys of a key file, which the caller zeroes whatever the error.
func readKeys(path string) (keys [][]byte, err error) {
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s does not exist: %w", path, ErrNoKey)
	}
	if err != nil {
		return nil, err
	}
	defer text.Destroy()
	number := 0
	for line := range bytes.Lines(text.Bytes()) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := parse(line)
		if err != nil {
			return keys, fmt.Errorf("key file %s, line %d: %w", path, number, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readPrivate reads a file whose access it checked on the open file, so that no
// other can be put in its place between the check and the reading.
func readPrivate(path string) (*vault.Secret, error) {
	f, err := openNoWait(path)
	if err != nil {
		return nil, fmt.Errorf("localkey: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("localkey: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrBadFile, path)
	}
	if err := checkAccess(info); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadFile, path, err)
	}
	text, err := vault.SecretFromReader(f, maxFile)
	if errors.Is(err, vault.ErrTooLong) {
		return nil, fmt.Errorf("%w: %s has more than 64 KiB", ErrBadFile, path)
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return text, nil
}

// WriteFile makes a new key and writes it to a new file at path, which only its
// owner may read. It never overwrites: an existing file gives an error that is
// fs.ErrExist. When WriteFile returns nil, the key is on the disk; when it fails,
// it leaves no file behind. Nobody finds half a key at path: the file is written
// under another name in the same directory, whose file system must have hard links.
// Only a process that is killed meanwhile leaves that behind, with a key that was
// never used.
func WriteFile(path string) error {
	text, err := generate()
	if err != nil {
		return err
	}
	defer clear(text)
	return writeNew(path, text)
}

// writeNew writes a line to a new file, or leaves none behind. The file takes its
// name when it is complete, by a link, because that never replaces a file.
func writeNew(path string, text []byte) error {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(filepath.Clean(dir), "."+name+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("localkey: %w", err)
	}
	err = writeKey(f, text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	linked := err == nil
	if rerr := os.Remove(f.Name()); err == nil {
		err = rerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil && linked {
		_ = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("localkey: write key file: %w", err)
	}
	return nil
}

// writeKey writes and syncs text, if the file turned out to be as private as
// FromFile will want it.
func writeKey(f *os.File, text []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkAccess(info); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if _, err := f.WriteString("\n"); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes the file's name as durable as its content.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
