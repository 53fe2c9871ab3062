package localkey

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	partLabel = "agentkey-key-part/v1"
	maxParts  = 9
)

// SplitFile writes the one key of the key file at path in parts, each to a new file
// that only its owner may read. All parts together make the key, by exclusive or;
// any fewer of them are random bytes that say nothing about it. There are 2 to 9.
//
// It never overwrites: a file that exists gives an error that is fs.ErrExist, and
// then no part is left behind. The key file stays as it is.
func SplitFile(path string, parts ...string) error {
	if len(parts) < 2 || len(parts) > maxParts {
		return fmt.Errorf("%w: it is split into 2 to %d parts", ErrBadKey, maxParts)
	}
	keys, err := readKeys(path)
	defer clearAll(keys)
	if err != nil {
		return err
	}
	if len(keys) != 1 {
		return fmt.Errorf("%w: key file %s has %d keys; one at a time is split", ErrBadKey, path, len(keys))
	}
	k, err := newWrappingKey(keys[0])
	if err != nil {
		return err
	}
	last := bytes.Clone(keys[0])
	defer clear(last)
	for i, out := range parts {
		part := make([]byte, vault.KeySize)
		if i < len(parts)-1 {
			rand.Read(part) // never fails; it ends the program rather than return weak bytes
			subtle.XORBytes(last, last, part)
		} else {
			copy(part, last)
		}
		text := fmt.Appendf(nil, "%s %d %d %s ", partLabel, i+1, len(parts), k.name())
		text = encoding.AppendEncode(text, part)
		err := writeNew(out, text)
		clear(part)
		clear(text)
		if err != nil {
			for _, made := range parts[:i] {
				_ = os.Remove(made)
			}
			return err
		}
	}
	return nil
}

// JoinFiles makes the key of which the files hold all parts, in any order, and
// writes it to a new file at out, as [WriteFile] does. It fails with an [ErrBadKey]
// that says what is missing or does not belong together, and unless the parts make
// the key that they say they are of.
func JoinFiles(out string, parts ...string) error {
	key := make([]byte, vault.KeySize)
	defer clear(key)
	var seen []int
	of, id := 0, ""
	for _, path := range parts {
		p, err := readPart(path)
		if err != nil {
			return err
		}
		subtle.XORBytes(key, key, p.bytes)
		clear(p.bytes)
		switch {
		case id != "" && (p.id != id || p.of != of):
			return fmt.Errorf("%w: %s is a part of another key, or of another splitting", ErrBadKey, path)
		case slices.Contains(seen, p.number):
			return fmt.Errorf("%w: part %d of %d is there twice", ErrBadKey, p.number, p.of)
		}
		id, of, seen = p.id, p.of, append(seen, p.number)
	}
	if len(seen) == 0 || len(seen) < of {
		return fmt.Errorf("%w: %d parts of %d; all are needed", ErrBadKey, len(seen), of)
	}
	k, err := newWrappingKey(key)
	if err != nil {
		return err
	}
	if k.name() != id {
		return fmt.Errorf("%w: together they are not the key %s: a part was changed, or is of another splitting", ErrBadKey, id)
	}
	text := encoding.AppendEncode(nil, key)
	defer clear(text)
	return writeNew(out, text)
}

// part is what a file of one holds.
type part struct {
	number, of int
	id         string // of the key
	bytes      []byte // the caller zeroes them
}

func readPart(path string) (part, error) {
	text, err := readPrivate(path)
	if err != nil {
		return part{}, err
	}
	defer text.Destroy()
	bad := fmt.Errorf("%w: %s is no part of a key", ErrBadKey, path)
	fields := bytes.Fields(text.Bytes())
	if len(fields) != 5 || string(fields[0]) != partLabel {
		return part{}, bad
	}
	number, err := strconv.Atoi(string(fields[1]))
	of, err2 := strconv.Atoi(string(fields[2]))
	if err != nil || err2 != nil || of < 2 || of > maxParts || number < 1 || number > of || !isName(fields[3]) {
		return part{}, bad
	}
	b := make([]byte, encoding.DecodedLen(len(fields[4])))
	if n, err := encoding.Decode(b, fields[4]); err != nil || n != vault.KeySize {
		clear(b)
		return part{}, bad
	}
	return part{number: number, of: of, id: string(fields[3]), bytes: b[:vault.KeySize]}, nil
}

// isName reports whether text is the id of a local key.
func isName(text []byte) bool {
	digits, ok := bytes.CutPrefix(text, []byte(idPrefix))
	raw, err := hex.DecodeString(string(digits))
	return ok && err == nil && len(raw) == idSize && string(digits) == hex.EncodeToString(raw)
}

func clearAll(keys [][]byte) {
	for _, key := range keys {
		clear(key)
	}
}
