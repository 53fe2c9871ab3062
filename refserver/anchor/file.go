package anchor

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/files"
)

// File keeps the head of each log in a file of its own, ORGANIZATION.head, in one
// directory. Each machine has its own directory, on another volume than the
// database's. Processes of one machine may share it where the system has flock.
//
// A file is replaced as a whole, and is on the disk with its name when Keep returns.
// When a log goes on in a new epoch, the last head of the one before stays in
// ORGANIZATION.epoch-N.head.
type File struct{ dir string }

// NewFile names the directory. It is made when the first head is kept.
func NewFile(dir string) (*File, error) {
	if dir == "" {
		return nil, fmt.Errorf("%w: file: name a directory", ErrConfig)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: file: %w", ErrConfig, err)
	}
	return &File{dir: abs}, nil
}

// Name is "file:" and the directory.
func (f *File) Name() string { return "file:" + f.dir }

// Dir is the directory.
func (f *File) Dir() string { return f.dir }

// Keep replaces the file of the head's log.
func (f *File) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	path := filepath.Join(f.dir, h.Organization()+".head")
	if _, err := os.Stat(f.dir); errors.Is(err, fs.ErrNotExist) {
		if err := h.Follows(ctx, nil); err != nil { // it is not there, and may not be the place that is meant
			return err
		}
		if err := makeDirectory(f.dir); err != nil {
			return fmt.Errorf("anchor: %w", files.Cause(err))
		}
	}
	unlock, err := f.lock(ctx, h.Organization())
	if err != nil {
		return fmt.Errorf("anchor: %w", files.Cause(err))
	}
	defer unlock()
	kept, err := readNote(path)
	if err != nil {
		return err
	}
	if err := h.Follows(ctx, kept); err != nil {
		return err
	}
	if string(kept) == string(h.Signed) {
		return nil
	}
	if err := f.leave(h, kept); err != nil {
		return fmt.Errorf("anchor: %w", files.Cause(err))
	}
	if err := replace(path, h.Signed); err != nil {
		return fmt.Errorf("anchor: %w", files.Cause(err))
	}
	return nil
}

// leave keeps the last head of an epoch beside that of the next.
func (f *File) leave(h *agentkey.AnchorHead, kept []byte) error {
	origin, _, _ := strings.Cut(string(kept), "\n")
	_, _, epoch, err := audit.ParseOrigin(origin)
	if err != nil || origin == h.Origin {
		return nil // there was none, or it is followed
	}
	return replace(filepath.Join(f.dir, h.Organization()+".epoch-"+strconv.FormatInt(epoch, 10)+".head"), kept)
}

// readNote reads a file that may not be there. What can't be read is damage: a
// server must not start as if there were nothing.
func readNote(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", agentkey.ErrAnchorDamaged, files.Cause(err))
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, audit.MaxCheckpoint+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", agentkey.ErrAnchorDamaged, files.Cause(err))
	case len(text) == 0:
		return nil, fmt.Errorf("%w: the file is empty", agentkey.ErrAnchorDamaged)
	}
	return text, nil
}

// replace puts text in the place of a file, durably.
func replace(path string, text []byte) (err error) {
	dir, name := filepath.Split(path)
	temporary := filepath.Join(dir, "."+name)
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return files.SyncDirectory(dir)
}

func makeDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return files.SyncDirectory(filepath.Dir(dir))
}

// lockFiles is how many logs of one directory can be written at the same time.
const lockFiles = 16

// lock keeps other processes off the log's file.
func (f *File) lock(ctx context.Context, organization string) (unlock func(), err error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(organization))
	file, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprintf(".lock-%02d", h.Sum32()%lockFiles)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(ctx, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil // which ends the lock
}
