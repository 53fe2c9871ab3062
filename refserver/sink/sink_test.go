package sink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/sink"
)

const origin = "agentkey/0198f3c2/acme/1"

// event is a line of a log, with a text of a length in its personal part.
func event(t testing.TB, seq int64, text int) audit.Line {
	t.Helper()
	personal, err := audit.Personal{Text: strings.Repeat("x", text), Salt: audit.NewSalt()}.Encode()
	noErr(t, err)
	outcome, reason := audit.OutcomeOK, ""
	if seq%2 == 1 {
		outcome, reason = audit.OutcomeRefused, "no_grant"
	}
	content, err := audit.Event{
		Seq: seq, Time: agentkeytest.Epoch.UnixMicro() + seq, Organization: "acme", Actor: audit.Actor{Kind: "agent", ID: "a1"}, Action: "credential.vended",
		Outcome: outcome, Reason: reason, Details: map[string]string{"note": "<&>"}, Salt: audit.NewSalt(), Personal: audit.HashPersonal(personal),
	}.Encode()
	noErr(t, err)
	return audit.Line{Seq: seq, Content: content, Personal: personal, Leaf: audit.LeafHash(content)}
}

func batch(t testing.TB, from, to int64) audit.Batch {
	t.Helper()
	b := audit.Batch{Origin: origin}
	for seq := from; seq < to; seq++ {
		b.Lines = append(b.Lines, event(t, seq, 10))
	}
	return b
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// numbers reads shipped lines, whose content must be what their leaf says.
func numbers(t testing.TB, text []byte) (seqs []int64) {
	t.Helper()
	for line := range bytes.Lines(text) {
		whole, ok := bytes.CutSuffix(line, []byte("\n"))
		if !ok {
			t.Fatal("a line has no end")
		}
		from, l, err := audit.ParseShipped(whole)
		noErr(t, err)
		if from != origin || len(l.Content) > 0 && audit.LeafHash(l.Content) != l.Leaf {
			t.Fatalf("line %d is not what was shipped", l.Seq)
		}
		seqs = append(seqs, l.Seq)
	}
	return seqs
}

func sequence(from, to int64) (seqs []int64) {
	for ; from < to; from++ {
		seqs = append(seqs, from)
	}
	return seqs
}

func TestWriter(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var out bytes.Buffer
	w, err := sink.NewWriter(&out, sink.JSONL)
	is.NoErr(err)
	is.NoErr(w.Ship(t.Context(), batch(t, 0, 3)))
	is.Equal(numbers(t, out.Bytes()), sequence(0, 3))
	out.Reset()
	w, err = sink.NewWriter(&out, sink.OCSF)
	is.NoErr(err)
	b := batch(t, 0, 2)
	b.Lines = append(b.Lines, audit.Line{Seq: 2, Leaf: b.Lines[0].Leaf}, audit.Line{Seq: 3, Content: []byte("damaged")})
	is.NoErr(w.Ship(t.Context(), b))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	is.Equal(len(lines), 4)
	for i, line := range lines {
		var v map[string]any
		is.NoErr(json.Unmarshal([]byte(line), &v))
		is.Equal(v["class_uid"] != nil, i < 2)
	}
	_, err = sink.NewWriter(&out, "xml")
	is.True(errors.Is(err, sink.ErrConfig))
	broken, err := sink.NewWriter(failing{}, sink.JSONL)
	is.NoErr(err)
	is.True(errors.Is(broken.Ship(t.Context(), b), syscall.EPIPE))
}

type failing struct{}

func (failing) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "secret", Err: syscall.EPIPE}
}

// newFile is a file sink in a directory of its own.
func newFile(t *testing.T, edit func(*sink.FileConfig)) (*sink.File, sink.FileConfig, *agentkeytest.Clock) {
	t.Helper()
	clock := agentkeytest.NewClock(agentkeytest.Epoch)
	c := sink.FileConfig{Path: filepath.Join(t.TempDir(), "audit.jsonl"), Format: sink.JSONL, Clock: clock.Now}
	if edit != nil {
		edit(&c)
	}
	f, err := sink.NewFile(c)
	noErr(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f, c, clock
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	noErr(t, err)
	return text
}

// all is everything that a file sink wrote, in its order, and in how many files.
func all(t *testing.T, path string) (text []byte, files int) {
	t.Helper()
	aside, err := filepath.Glob(path + ".*")
	noErr(t, err)
	slices.Sort(aside)
	for _, name := range append(aside, path) {
		info, err := os.Stat(name)
		noErr(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		text = append(text, read(t, name)...)
	}
	return text, len(aside) + 1
}

func TestFile(t *testing.T) {
	t.Parallel()
	t.Run("by size", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		f, c, _ := newFile(t, func(c *sink.FileConfig) { c.MaxSize = 4000 })
		for n := range int64(20) {
			is.NoErr(f.Ship(t.Context(), batch(t, 2*n, 2*n+2)))
		}
		text, files := all(t, c.Path)
		is.Equal(numbers(t, text), sequence(0, 40))
		is.True(files > 4)
	})
	t.Run("by age, also after a restart", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		f, c, clock := newFile(t, func(c *sink.FileConfig) { c.MaxAge = 24 * time.Hour })
		is.NoErr(f.Ship(t.Context(), batch(t, 0, 2)))
		is.NoErr(f.Ship(t.Context(), batch(t, 2, 3)))
		clock.Advance(24 * time.Hour)
		is.NoErr(f.Ship(t.Context(), batch(t, 3, 5)))
		noErr(t, os.Chtimes(c.Path, clock.Now(), clock.Now()))
		clock.Advance(24 * time.Hour)
		again, err := sink.NewFile(c)
		is.NoErr(err)
		is.NoErr(again.Ship(t.Context(), batch(t, 5, 6)))
		text, files := all(t, c.Path)
		is.Equal(numbers(t, text), sequence(0, 6))
		is.Equal(files, 3)
	})
	t.Run("keeps some", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		f, c, _ := newFile(t, func(c *sink.FileConfig) { c.MaxSize, c.Keep = 1, 2 })
		noErr(t, os.WriteFile(c.Path+".note", []byte("mine"), 0o600))
		for n := range int64(6) {
			is.NoErr(f.Ship(t.Context(), batch(t, n, n+1)))
		}
		noErr(t, os.Remove(c.Path+".note")) // it was no file of ours
		text, files := all(t, c.Path)
		is.Equal(files, 3)
		is.Equal(numbers(t, text), sequence(3, 6))
	})
	t.Run("half a line is cut off", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		_, c, _ := newFile(t, nil)
		whole, err := event(t, 0, 10).Shipped(origin)
		is.NoErr(err)
		for _, half := range [][]byte{whole[:len(whole)/2], append(append(slices.Clone(whole), '\n'), whole[:5]...), bytes.Repeat([]byte("x"), 200_000)} {
			noErr(t, os.WriteFile(c.Path, half, 0o644))
			f, err := sink.NewFile(c)
			is.NoErr(err)
			want := sequence(0, int64(bytes.Count(half, []byte("\n"))))
			is.NoErr(f.Ship(t.Context(), batch(t, 7, 9)))
			text, _ := all(t, c.Path)
			is.Equal(numbers(t, text), append(want, 7, 8))
		}
	})
	t.Run("moved away by somebody else", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		f, c, _ := newFile(t, nil)
		is.NoErr(f.Ship(t.Context(), batch(t, 0, 2)))
		is.NoErr(os.Rename(c.Path, c.Path+".moved"))
		is.NoErr(f.Ship(t.Context(), batch(t, 2, 4)))
		is.Equal(numbers(t, read(t, c.Path)), sequence(2, 4))
	})
	t.Run("looked at only", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		c := sink.FileConfig{Path: filepath.Join(t.TempDir(), "audit.jsonl"), Format: sink.JSONL, Clock: time.Now}
		is.NoErr(c.Reach())
		_, err := os.Stat(c.Path)
		is.True(errors.Is(err, os.ErrNotExist))
		is.NoErr(os.WriteFile(c.Path, []byte("half a line"), 0o644))
		is.NoErr(c.Reach())
		is.Equal(string(read(t, c.Path)), "half a line")
		for _, path := range []string{t.TempDir(), filepath.Join(c.Path, "x"), filepath.Join(t.TempDir(), "none", "x")} {
			c.Path = path
			err := c.Reach()
			is.True(err != nil && !strings.Contains(err.Error(), "TestFile"))
		}
		is.True(errors.Is(sink.FileConfig{}.Reach(), sink.ErrConfig))
	})
	t.Run("bad configuration", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		clock := time.Now
		for _, c := range []sink.FileConfig{
			{}, {Path: "x", Clock: clock}, {Path: "x", Format: sink.JSONL}, {Path: "x", Format: sink.JSONL, Clock: clock, Keep: -1},
			{Path: "x", Format: sink.JSONL, Clock: clock, MaxSize: -1},
		} {
			_, err := sink.NewFile(c)
			is.True(errors.Is(err, sink.ErrConfig))
		}
		_, err := sink.NewFile(sink.FileConfig{Path: t.TempDir(), Format: sink.JSONL, Clock: clock})
		is.True(err != nil && !strings.Contains(err.Error(), "TestFile")) // a directory; its name is not repeated
	})
}

// fullDisk takes only so many bytes.
type fullDisk struct {
	sink.Handle
	left     *int
	stubborn bool // not even what is too much can be taken back
}

func (d fullDisk) Write(p []byte) (int, error) {
	if len(p) <= *d.left {
		*d.left -= len(p)
		return d.Handle.Write(p)
	}
	n, _ := d.Handle.Write(p[:*d.left])
	*d.left = 0
	return n, syscall.ENOSPC
}

func (d fullDisk) Truncate(size int64) error {
	if d.stubborn {
		return syscall.EIO
	}
	return d.Handle.Truncate(size)
}

// A full disk leaves no half line, and once there is space all comes, in order.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, stubborn := range []bool{false, true} {
		is := is.New(t)
		f, c, _ := newFile(t, nil)
		left := 1500
		f.Wrap(func(h sink.Handle) sink.Handle { return fullDisk{h, &left, stubborn} })
		is.NoErr(f.Ship(t.Context(), batch(t, 0, 1)))
		err := f.Ship(t.Context(), batch(t, 1, 5))
		is.True(errors.Is(err, syscall.ENOSPC))
		left = 1 << 20
		is.NoErr(f.Ship(t.Context(), batch(t, 1, 5)))
		text, _ := all(t, c.Path)
		got := numbers(t, text)
		is.Equal(slices.Compact(slices.Sorted(slices.Values(got))), sequence(0, 5))
		if !stubborn {
			is.Equal(got, sequence(0, 5))
		}
	}
}

// A batch that comes after its context's end is not written.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	w, err := sink.NewWriter(&out, sink.JSONL)
	noErr(t, err)
	f, _, _ := newFile(t, nil)
	for _, s := range []audit.Sink{w, f} {
		if err := s.Ship(ctx, batch(t, 0, 1)); !errors.Is(err, context.Canceled) {
			t.Error(fmt.Sprint(err))
		}
	}
}
