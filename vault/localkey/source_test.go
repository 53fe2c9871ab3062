//go:build unix

package localkey_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// keyFile writes content with mode, whatever the umask, and returns the path.
func keyFile(tb testing.TB, content string, mode fs.FileMode) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
	return path
}

func TestFromFile(t *testing.T) {
	t.Parallel()
	a, b := text(testKey("a")), text(testKey("b"))
	for name, content := range map[string]string{
		"two lines":       a + "\n" + b + "\n",
		"no last newline": a + "\n" + b,
		"comments":        "# newest first\n\n" + a + "\n  # old\n" + b + "\n",
		"windows":         a + "\r\n" + b + "\r\n",
		"space around":    "  " + a + "\t\n " + b + " \n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := localkey.FromFile(keyFile(t, content, 0o600))
			is.NoErr(err)
			got, err := p.CurrentKey(t.Context())
			is.NoErr(err)
			want, err := ring(t, "a").CurrentKey(t.Context())
			is.NoErr(err)
			is.Equal(got, want) // the first line wraps
			w, err := ring(t, "b").WrapKey(t.Context(), testKey("data"), sample())
			is.NoErr(err)
			_, err = p.UnwrapKey(t.Context(), w, sample())
			is.NoErr(err) // and the second unwraps
		})
	}
}

func TestFromFileModes(t *testing.T) {
	t.Parallel()
	content := text(testKey("a")) + "\n"
	for mode := range fs.FileMode(0o1000) {
		if mode&0o400 == 0 {
			continue // not readable by its owner, unless that is root
		}
		path := keyFile(t, content, mode)
		_, err := localkey.FromFile(path)
		switch private := mode&0o077 == 0; {
		case private && err != nil:
			t.Errorf("mode %o: %v", mode, err)
		case !private && !errors.Is(err, localkey.ErrBadFile):
			t.Errorf("mode %o was accepted, or failed as %v", mode, err)
		case !private && !strings.Contains(err.Error(), "chmod 600"):
			t.Errorf("the error does not say what to do: %v", err)
		}
	}
}

func TestFromFileRefusesContent(t *testing.T) {
	t.Parallel()
	good := text(testKey("a"))
	for name, tc := range map[string]struct {
		content string
		want    error
		says    string
	}{
		"empty":         {"", localkey.ErrNoKey, "keys generate"},
		"only comments": {"# nothing\n\n", localkey.ErrNoKey, "keys generate"},
		"second bad":    {good + "\n" + good[:20] + " " + good[20:] + "\n", localkey.ErrBadKey, "line 2"},
		"zero key":      {good + "\n#\n" + text(make([]byte, 32)), localkey.ErrBadKey, "line 3"},
		"duplicate":     {good + "\n" + good, localkey.ErrBadKey, "twice"},
		"binary":        {string(testKey("a")), localkey.ErrBadKey, "line 1"},
		"with a name":   {"AGENTKEY_ENCRYPTION_KEY=" + good, localkey.ErrBadKey, "line 1"},
		"too large":     {strings.Repeat("# comment\n", 7000), localkey.ErrBadFile, "64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := localkey.FromFile(keyFile(t, tc.content, 0o600))
			is.Equal(p, nil)
			is.True(errors.Is(err, tc.want))
			is.True(strings.Contains(err.Error(), tc.says))
			notPrinted(t, err, good)
		})
	}
}

func TestFromFileKinds(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	content := text(testKey("a")) + "\n"

	_, err := localkey.FromFile(t.TempDir())
	is.True(errors.Is(err, localkey.ErrBadFile)) // a directory

	pipe := filepath.Join(t.TempDir(), "pipe")
	is.NoErr(syscall.Mkfifo(pipe, 0o600))
	_, err = localkey.FromFile(pipe)
	is.True(errors.Is(err, localkey.ErrBadFile)) // a pipe that nobody writes to does not block

	link := filepath.Join(t.TempDir(), "link")
	is.NoErr(os.Symlink(keyFile(t, content, 0o600), link))
	_, err = localkey.FromFile(link)
	is.NoErr(err) // as secrets are mounted in containers

	open := filepath.Join(t.TempDir(), "link")
	is.NoErr(os.Symlink(keyFile(t, content, 0o644), open))
	_, err = localkey.FromFile(open)
	is.True(errors.Is(err, localkey.ErrBadFile)) // what counts is the target

	dangling := filepath.Join(t.TempDir(), "link")
	is.NoErr(os.Symlink("absent", dangling))
	_, err = localkey.FromFile(dangling)
	is.True(errors.Is(err, localkey.ErrNoKey))

	if os.Geteuid() == 0 {
		foreign := keyFile(t, content, 0o600)
		is.NoErr(os.Chown(foreign, 12345, -1))
		_, err = localkey.FromFile(foreign)
		is.True(errors.Is(err, localkey.ErrBadFile)) // another user's
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	path := filepath.Join(t.TempDir(), "key")
	is.NoErr(localkey.WriteFile(path))
	info, err := os.Stat(path)
	is.NoErr(err)
	is.Equal(info.Mode(), fs.FileMode(0o600))
	_, err = localkey.FromFile(path)
	is.NoErr(err)

	before, err := os.ReadFile(path)
	is.NoErr(err)
	err = localkey.WriteFile(path) // never over a key
	is.True(errors.Is(err, fs.ErrExist))
	after, err := os.ReadFile(path)
	is.NoErr(err)
	is.True(bytes.Equal(before, after))
	notPrinted(t, localkey.WriteFile(path), string(before))

	err = localkey.WriteFile(filepath.Join(t.TempDir(), "absent", "key"))
	is.True(errors.Is(err, fs.ErrNotExist))
	target := filepath.Join(t.TempDir(), "target")
	link := filepath.Join(t.TempDir(), "link")
	is.NoErr(os.Symlink(target, link))
	is.True(localkey.WriteFile(link) != nil) // nor through a link that another laid
	_, err = os.Lstat(target)
	is.True(errors.Is(err, fs.ErrNotExist))
}

// TestWriteFileIsWhole has processes that start together find a key or none, never
// a file that has none yet.
func TestWriteFileIsWhole(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprint(i))
		wrote := make(chan error, 4)
		for range cap(wrote) {
			go func() { wrote <- localkey.WriteFile(path) }()
		}
		for len(wrote) < cap(wrote) {
			_, err := os.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			is.NoErr(err)
			_, err = localkey.FromFile(path) // it is there
			is.NoErr(err)
		}
		made := 0
		for range cap(wrote) {
			if err := <-wrote; err == nil {
				made++
			} else {
				is.True(errors.Is(err, fs.ErrExist))
			}
		}
		is.Equal(made, 1)
	}
	left, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(left), 200) // and nothing beside the keys
}

func FuzzFromFile(f *testing.F) {
	f.Add([]byte(text(testKey("a")) + "\n# old\n" + text(testKey("b"))))
	f.Add([]byte("# nothing\n"))
	f.Add([]byte("\x00\xff"))
	path := keyFile(f, "", 0o600)
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := localkey.FromFile(path)
		if (p == nil) == (err == nil) {
			t.Fatal("neither or both of provider and error")
		}
		if err != nil && !errors.Is(err, localkey.ErrBadKey) && !errors.Is(err, localkey.ErrNoKey) && !errors.Is(err, localkey.ErrBadFile) {
			t.Fatalf("error of another kind: %v", err)
		}
	})
}
