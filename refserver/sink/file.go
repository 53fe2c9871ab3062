package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/files"
)

// FileConfig describes a rotated file.
type FileConfig struct {
	Path   string // required
	Format Format // required

	// MaxSize is the length in bytes at which the file is set aside and a new one
	// begun; a batch stays together. Zero: never.
	MaxSize int64
	// MaxAge sets the file aside with the first event of each such period, counted
	// in UTC: 24 hours begin a file each day. Zero: never.
	MaxAge time.Duration
	// Keep is how many files that were set aside are kept; the oldest goes. Zero: all.
	Keep int

	// Clock tells the time. Required.
	Clock func() time.Time
}

// File is a sink that appends lines to a file that its owner alone can read. What
// Ship answered nil for is on the disk. Files are set aside under their name with
// the time added, so that they sort in the order in which they were written. A file
// that somebody else moved away is begun anew.
type File struct {
	FileConfig
	f     handle
	size  int64     // up to here everything is whole
	wrote time.Time // when the last line was written
	aside time.Time // what the last file that was set aside is called by
}

// handle is what a File needs of an open file.
type handle interface {
	io.Writer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	Close() error
}

// NewFile opens the file, or makes it. What a crash left of a line that was never
// acknowledged is cut off: it comes again.
func NewFile(c FileConfig) (*File, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &File{FileConfig: c}
	return s, s.open()
}

func (c FileConfig) check() error {
	if c.Path == "" || c.Clock == nil || c.MaxSize < 0 || c.MaxAge < 0 || c.Keep < 0 {
		return fmt.Errorf("%w: file", ErrConfig)
	}
	return c.Format.check()
}

// Reach says what would keep NewFile from opening the file. It makes and changes
// nothing.
func (c FileConfig) Reach() error {
	if err := c.check(); err != nil {
		return err
	}
	info, err := os.Stat(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if info, err = os.Stat(filepath.Dir(c.Path)); err == nil && !info.IsDir() {
			err = errors.New("it would be in no directory")
		}
	case err == nil && !info.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case err == nil:
		var f *os.File
		if f, err = os.OpenFile(c.Path, os.O_RDWR|os.O_APPEND, 0); err == nil {
			err = f.Close()
		}
	}
	if err == nil { // for the files that are set aside too
		err = files.Writable(filepath.Dir(c.Path))
	}
	if err != nil {
		return fmt.Errorf("sink: file: %w", files.Cause(err))
	}
	return nil
}

func (s *File) open() error {
	f, err := os.OpenFile(s.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("sink: open the file: %w", files.Cause(err))
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = f.Chmod(0o600)
	}
	var whole int64
	if err == nil {
		whole, err = lastLine(f, info.Size())
	}
	if err == nil && whole < info.Size() {
		err = f.Truncate(whole)
	}
	if err == nil {
		err = files.SyncDirectory(filepath.Dir(s.Path))
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("sink: open the file: %w", files.Cause(err))
	}
	s.f, s.size, s.wrote = f, whole, info.ModTime()
	return nil
}

// lastLine is where the last whole line of a file ends.
func lastLine(f *os.File, size int64) (int64, error) {
	buffer := make([]byte, 64<<10)
	for end := size; end > 0; {
		from := max(end-int64(len(buffer)), 0)
		part := buffer[:end-from]
		if _, err := f.ReadAt(part, from); err != nil && err != io.EOF {
			return 0, err
		}
		if at := bytes.LastIndexByte(part, '\n'); at >= 0 {
			return from + int64(at) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// Ship appends the lines of b and returns when they are on the disk.
func (s *File) Ship(ctx context.Context, b audit.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := s.Format.lines(b)
	if err != nil {
		return err
	}
	if err := s.ready(int64(len(text))); err != nil {
		return err
	}
	if err := s.write(text); err != nil {
		return err
	}
	s.size += int64(len(text))
	s.wrote = s.Clock()
	return nil
}

// write appends text and syncs it. What is not whole is taken back; if not even
// that works, the next open does.
func (s *File) write(text []byte) error {
	_, err := s.f.Write(text)
	if err == nil {
		err = s.f.Sync()
	}
	if err == nil {
		return nil
	}
	if s.f.Truncate(s.size) != nil {
		_ = s.f.Close()
		s.f = nil
	}
	return fmt.Errorf("sink: write the file: %w", files.Cause(err))
}

// ready sees to a file that n bytes may be added to.
func (s *File) ready(n int64) error {
	if s.f != nil && !s.stands() {
		_ = s.f.Close()
		s.f = nil
	}
	if s.f == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	full := s.MaxSize > 0 && s.size+n > s.MaxSize
	old := s.MaxAge > 0 && s.wrote.UnixNano()/int64(s.MaxAge) < s.Clock().UnixNano()/int64(s.MaxAge)
	if s.size == 0 || !full && !old {
		return nil
	}
	return s.rotate()
}

// stands says whether the name still leads to the file that is open, and nobody
// else, as another server whose turn it was, has written to it.
func (s *File) stands() bool {
	here, err := s.f.Stat()
	there, named := os.Stat(s.Path)
	return err == nil && named == nil && os.SameFile(here, there) && here.Size() == s.size
}

// rotate sets the file aside and begins a new one.
func (s *File) rotate() error {
	err := s.f.Close()
	s.f = nil
	at := s.Clock()
	if !at.After(s.aside) {
		at = s.aside.Add(time.Microsecond)
	}
	for exists(s.asideAt(at)) {
		at = at.Add(time.Microsecond)
	}
	s.aside = at
	if err == nil {
		err = os.Rename(s.Path, s.asideAt(at))
	}
	if err != nil {
		return fmt.Errorf("sink: set the file aside: %w", files.Cause(err))
	}
	if err := s.open(); err != nil { // which syncs the directory
		return err
	}
	return s.forget()
}

// asideLayout is a time in the name of a file that was set aside.
const asideLayout = "20060102T150405.000000Z"

func (s *File) asideAt(t time.Time) string { return s.Path + "." + t.UTC().Format(asideLayout) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// forget removes the oldest files that were set aside, beyond those to be kept.
func (s *File) forget() error {
	if s.Keep == 0 {
		return nil
	}
	entries, err := os.ReadDir(filepath.Dir(s.Path))
	if err != nil {
		return fmt.Errorf("sink: list files: %w", files.Cause(err))
	}
	var aside []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(s.Path)+".")
		if ok && len(rest) == len(asideLayout) && strings.Trim(rest, "0123456789T.Z") == "" {
			aside = append(aside, e.Name())
		}
	}
	slices.Sort(aside)
	for _, name := range aside[:max(len(aside)-s.Keep, 0)] {
		if err := os.Remove(filepath.Join(filepath.Dir(s.Path), name)); err != nil {
			return fmt.Errorf("sink: remove an old file: %w", files.Cause(err))
		}
	}
	return nil
}

// Close closes the file. Nothing may be shipped after it.
func (s *File) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
