package localkey

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/vault"
)

var (
	// ErrNoKey says that there is no key where one was looked for. The error names
	// the command that makes one.
	ErrNoKey = errors.New("localkey: no encryption key; run `agentkey keys generate`")

	// ErrBadKey says that what was found is not a usable key. The error says why and
	// never what was found.
	ErrBadKey = errors.New("localkey: bad encryption key")

	// ErrBadFile says that a key file is not kept safely. The error says how to mend
	// it.
	ErrBadFile = errors.New("localkey: key file is not safe to use")
)

// encoding is strict and padded: each key has exactly one spelling.
var encoding = base64.StdEncoding.Strict()

// Generate returns a new random key: 32 bytes in standard base64 with padding, 44
// characters. A string can't be zeroed: print it and let it go, or use [WriteFile].
func Generate() (string, error) {
	text, err := generate()
	defer clear(text)
	return string(text), err
}

// generate returns the text of a new key, which the caller zeroes.
func generate() ([]byte, error) {
	key := make([]byte, vault.KeySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("localkey: generate key: %w", err)
	}
	return encoding.AppendEncode(nil, key), nil
}

// parse returns the 32 bytes of a key in base64, which the caller zeroes. Errors
// tell what is wrong without any part of text.
func parse(text []byte) ([]byte, error) {
	const want = "want 32 random bytes in standard base64 with padding, 44 characters"
	if len(text) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrNoKey)
	}
	if bytes.ContainsAny(text, " \t\r\n\v\f") {
		return nil, fmt.Errorf("%w: whitespace inside; %s", ErrBadKey, want)
	}
	if len(text) == vault.KeySize {
		return nil, fmt.Errorf("%w: 32 characters are a passphrase, not a key; %s", ErrBadKey, want)
	}
	key := make([]byte, encoding.DecodedLen(len(text)))
	n, err := encoding.Decode(key, text)
	if err != nil {
		clear(key)
		return nil, fmt.Errorf("%w: not base64; %s", ErrBadKey, want)
	}
	if err := checkKey(key[:n]); err != nil {
		clear(key)
		return nil, err
	}
	return key[:n], nil
}

// checkKey refuses keys of the wrong length and those that nobody drew at random:
// repeated or counted bytes, and printable text. A random key fails this test less
// often than once in 10^13.
func checkKey(key []byte) error {
	if len(key) != vault.KeySize {
		return fmt.Errorf("%w: it does not have 32 bytes", ErrBadKey)
	}
	if repeats(key) || counts(key) {
		return fmt.Errorf("%w: its bytes follow a pattern", ErrBadKey)
	}
	if printable(key) {
		return fmt.Errorf("%w: it is text, not random bytes", ErrBadKey)
	}
	return nil
}

// repeats reports whether key is a shorter sequence, repeated.
func repeats(key []byte) bool {
	for period := 1; period <= len(key)/2; period++ {
		i := period
		for i < len(key) && key[i] == key[i-period] {
			i++
		}
		if i == len(key) {
			return true
		}
	}
	return false
}

// counts reports whether key goes up or down by the same step throughout.
func counts(key []byte) bool {
	for i := 2; i < len(key); i++ {
		if key[i]-key[i-1] != key[1]-key[0] {
			return false
		}
	}
	return true
}

func printable(key []byte) bool {
	for _, b := range key {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}
