package localkey_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// split makes a key and its parts, and gives the files' names.
func split(t *testing.T, n int) (key string, parts []string) {
	t.Helper()
	dir := t.TempDir()
	key = filepath.Join(dir, "encryption.key")
	if err := localkey.WriteFile(key); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		parts = append(parts, filepath.Join(dir, fmt.Sprintf("part-%d", i+1)))
	}
	if err := localkey.SplitFile(key, parts...); err != nil {
		t.Fatal(err)
	}
	return key, parts
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPartsMakeTheKey(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 9; n++ {
		is := is.New(t)
		key, parts := split(t, n)
		for i, path := range parts {
			info, err := os.Stat(path)
			is.NoErr(err)
			is.Equal(info.Mode().Perm(), fs.FileMode(0o600))
			is.True(!strings.Contains(content(t, path), strings.TrimSpace(content(t, key))))
			parts[i], parts[0] = parts[0], parts[i] // in any order
		}
		out := filepath.Join(t.TempDir(), "joined.key")
		is.NoErr(localkey.JoinFiles(out, parts...))
		is.Equal(content(t, out), content(t, key))
		err := localkey.JoinFiles(out, parts...)
		is.True(errors.Is(err, fs.ErrExist)) // it is never overwritten
	}
}

// TestPartsAreRefused: what does not make the key makes no file, and its error shows
// nothing of a part.
func TestPartsAreRefused(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	key, parts := split(t, 3)
	_, others := split(t, 3)
	again := []string{parts[0] + "b", parts[1] + "b", parts[2] + "b"}
	is.NoErr(localkey.SplitFile(key, again...)) // the same key, split once more
	changed := filepath.Join(t.TempDir(), "changed")
	fields := strings.Fields(content(t, parts[2]))
	swap := map[bool]string{true: "B", false: "A"}[fields[4][0] == 'A']
	is.NoErr(os.WriteFile(changed, []byte(strings.Join(fields[:4], " ")+" "+swap+fields[4][1:]), 0o600))
	short := filepath.Join(t.TempDir(), "short")
	is.NoErr(os.WriteFile(short, []byte(content(t, parts[2])[:60]), 0o600))
	open := filepath.Join(t.TempDir(), "open")
	is.NoErr(os.WriteFile(open, []byte(content(t, parts[2])), 0o600))
	is.NoErr(os.Chmod(open, 0o644))
	for says, given := range map[string][]string{
		"2 parts of 3":          {parts[0], parts[1]},
		"0 parts":               nil,
		"there twice":           {parts[0], parts[1], parts[1]},
		"a part of another key": {parts[0], parts[1], others[2]},
		"of another splitting":  {parts[0], parts[1], again[2]},
		"together they are not": {parts[0], parts[1], changed},
		"is no part of a key":   {parts[0], parts[1], short},
		"no part":               {parts[0], parts[1], key},
		"chmod 600":             {parts[0], parts[1], open},
		"no such file":          {parts[0], parts[1], parts[2] + "x"},
	} {
		out := filepath.Join(t.TempDir(), "joined.key")
		err := localkey.JoinFiles(out, given...)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", says, err)
			continue
		}
		is.True(!strings.Contains(err.Error(), fields[4][:20]))
		_, err = os.Stat(out)
		is.True(errors.Is(err, fs.ErrNotExist))
	}
}

// TestSplitRefuses: what is not one key, too few parts, and a file that is there;
// then no part is left.
func TestSplitRefuses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	key, parts := split(t, 2)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	is.True(errors.Is(localkey.SplitFile(key, a, parts[0]), fs.ErrExist))
	is.True(errors.Is(localkey.SplitFile(key, a), localkey.ErrBadKey))
	is.True(errors.Is(localkey.SplitFile(filepath.Join(dir, "none"), a, b), localkey.ErrNoKey))
	is.True(errors.Is(localkey.SplitFile(parts[0], a, b), localkey.ErrBadKey))
	two := filepath.Join(dir, "two")
	other, _ := split(t, 2)
	is.NoErr(os.WriteFile(two, []byte(content(t, key)+content(t, other)), 0o600))
	is.True(errors.Is(localkey.SplitFile(two, a, b), localkey.ErrBadKey))
	for _, path := range []string{a, b} {
		_, err := os.Stat(path)
		is.True(errors.Is(err, fs.ErrNotExist))
	}
}
