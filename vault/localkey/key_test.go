package localkey_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

func env(value string) (*localkey.Provider, error) {
	return localkey.FromEnv(func(name string) (string, bool) { return value, name == "AGENTKEY_ENCRYPTION_KEY" }, "AGENTKEY_ENCRYPTION_KEY")
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	seen := map[string]bool{}
	for range 100 {
		key, err := localkey.Generate()
		is.NoErr(err)
		is.Equal(len(key), 44)
		is.True(!seen[key])
		seen[key] = true
		_, err = env(key)
		is.NoErr(err)
	}
}

func TestMissingKeyNamesTheCommand(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	_, unset := localkey.FromEnv(func(string) (string, bool) { return "", false }, "AGENTKEY_ENCRYPTION_KEY")
	_, empty := env("")
	_, ring := localkey.NewRing()
	_, file := localkey.FromFile(t.TempDir() + "/absent")
	for _, err := range []error{unset, empty, ring, file} {
		is.True(errors.Is(err, localkey.ErrNoKey))
		is.True(strings.Contains(err.Error(), "run `agentkey keys generate`"))
	}
	is.True(strings.Contains(unset.Error(), "AGENTKEY_ENCRYPTION_KEY"))
}

// badKeys are texts that must not be taken for a key.
func badKeys() map[string]string {
	good := text(testKey("good"))
	ascending := make([]byte, 32)
	for i := range ascending {
		ascending[i] = byte(i)
	}
	descending := slices.Clone(ascending)
	slices.Reverse(descending)
	return map[string]string{
		"short":                  text(testKey("good")[:31]),
		"16 bytes":               text(testKey("good")[:16]),
		"long":                   text(append(testKey("good"), 1)),
		"64 bytes":               text(append(testKey("good"), testKey("b")...)),
		"passphrase of 32":       "correct horse battery staple abc",
		"raw 32 characters":      "kM3xq9TbV7wZ2sLcR8nJ4fYpD6hG1aQe",
		"passphrase of 44":       "correct-horse-battery-staple-correct-horse-b",
		"hexadecimal":            hex.EncodeToString(testKey("good")),
		"unpadded":               strings.TrimRight(good, "="),
		"twice padded":           good + "=",
		"URL alphabet":           base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xef, 0xbf, 0x11}, 8)),
		"trailing bits":          good[:42] + flipLast(good[42]) + "=",
		"leading space":          " " + good,
		"trailing newline":       good + "\n",
		"newline inside":         good[:20] + "\n" + good[20:],
		"carriage return inside": good[:20] + "\r\n" + good[20:],
		"tab inside":             good[:20] + "\t" + good[20:],
		"quoted":                 `"` + good + `"`,
		"NUL":                    good + "\x00",
		"two keys":               good + "," + text(testKey("b")),
		"all zero":               text(make([]byte, 32)),
		"all one":                text(bytes.Repeat([]byte{0xff}, 32)),
		"period 2":               text(bytes.Repeat([]byte{0xde, 0xad}, 16)),
		"period 5":               text(append(bytes.Repeat([]byte{9, 200, 3, 77, 1}, 6), 9, 200)),
		"period 16":              text(append(testKey("a")[:16:16], testKey("a")[:16]...)),
		"ascending":              text(ascending),
		"descending":             text(descending),
		"text in base64":         text([]byte("kM3xq9TbV7wZ2sLcR8nJ4fYpD6hG1aQe")),
		"not base64 of 44":       strings.Repeat("!", 43) + "=",
	}
}

// flipLast sets a bit that a strict decoder wants to be zero: the last character
// of 32 bytes carries four bits of data and two that are unused.
func flipLast(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return string(alphabet[strings.IndexByte(alphabet, c)|1])
}

func TestBadKeysAreRefusedAndNotPrinted(t *testing.T) {
	t.Parallel()
	for name, value := range badKeys() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := env(value)
			is.Equal(p, nil)
			is.True(errors.Is(err, localkey.ErrBadKey))
			is.True(strings.Contains(err.Error(), "AGENTKEY_ENCRYPTION_KEY")) // says where
			notPrinted(t, err, value)
		})
	}
}

// notPrinted wants no six characters in a row of value in the error.
func notPrinted(t *testing.T, err error, value string) {
	t.Helper()
	for i := 0; i+6 <= len(value); i++ {
		if strings.Contains(err.Error(), value[i:i+6]) {
			t.Fatalf("the error shows a part of the key")
		}
	}
}

func TestPassphraseIsCalledOne(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	_, err := env("kM3xq9TbV7wZ2sLcR8nJ4fYpD6hG1aQe")
	is.True(strings.Contains(err.Error(), "passphrase"))
}

func TestNewRingRefuses(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][]byte{
		"nil":        {nil},
		"short":      {testKey("a")[:31]},
		"long":       {append(testKey("a"), 0)},
		"zero":       {make([]byte, 32)},
		"second bad": {testKey("a"), make([]byte, 32)},
		"duplicate":  {testKey("a"), testKey("b"), testKey("a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := localkey.NewRing(keys...)
			is.Equal(p, nil)
			is.True(errors.Is(err, localkey.ErrBadKey))
		})
	}
}

func FuzzFromEnv(f *testing.F) {
	for _, value := range badKeys() {
		f.Add(value)
	}
	f.Add(text(testKey("good")))
	f.Fuzz(func(t *testing.T, value string) {
		p, err := env(value)
		if (p == nil) == (err == nil) {
			t.Fatal("neither or both of provider and error")
		}
		if err != nil {
			if !errors.Is(err, localkey.ErrBadKey) && !errors.Is(err, localkey.ErrNoKey) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		// What is accepted has one spelling only.
		key, err := base64.StdEncoding.DecodeString(value)
		if err != nil || len(key) != 32 || text(key) != value {
			t.Fatal("accepted what is not 32 bytes in canonical base64")
		}
	})
}
