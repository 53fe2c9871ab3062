package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxCheckpoint is the greatest length of a signed checkpoint that is read, in bytes.
const MaxCheckpoint = 16 << 10

const originPrefix = "agentkey/"

// Origin returns the origin of an organization's log, "agentkey/<installation>/<organization>/<epoch>". The epoch begins with
// 1 and goes up when the log is continued from an older state, so that two histories never share an origin. The names are 1 to
// 128 letters, digits, '.', '_' or '-'; Sign refuses an origin made from others.
func Origin(installation, organization string, epoch int64) string {
	return SignerName(installation) + "/" + organization + "/" + strconv.FormatInt(epoch, 10)
}

// ParseOrigin takes an origin apart, or returns ErrFormat.
func ParseOrigin(origin string) (installation, organization string, epoch int64, err error) {
	rest, ok := strings.CutPrefix(origin, originPrefix)
	parts := strings.Split(rest, "/")
	if ok && len(parts) == 3 && name(parts[0]) == "" && name(parts[1]) == "" {
		if epoch, ok = decimal(parts[2]); ok && epoch > 0 {
			return parts[0], parts[1], epoch, nil
		}
	}
	return "", "", 0, fmt.Errorf("%w: origin is not agentkey/<installation>/<organization>/<epoch>", ErrFormat)
}

// SignerName returns the name of an installation's signing key, "agentkey/<installation>". Each of its logs is signed by it.
func SignerName(installation string) string { return originPrefix + installation }

// decimal reads a number of 0 to MaxInteger in its only spelling.
func decimal(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= MaxInteger && strconv.FormatInt(n, 10) == s
}

// Checkpoint says that the log of that origin has that root at that size (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
}

// Signer signs checkpoints with an Ed25519 key. It is safe for concurrent use and prints as its public key.
type Signer struct {
	name   string
	hash   uint32
	public string
	key    ed25519.PrivateKey
}

// NewSigner returns the signer of that name, which SignerName gave, for a seed of 32 random bytes. The seed is copied. It
// returns ErrInvalid for another name or length.
func NewSigner(keyName string, seed []byte) (*Signer, error) {
	installation, ok := strings.CutPrefix(keyName, originPrefix)
	if !ok || name(installation) != "" {
		return nil, fmt.Errorf("%w: signer's name is not agentkey/<installation>", ErrInvalid)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: signing seed is not 32 bytes", ErrInvalid)
	}
	key := ed25519.NewKeyFromSeed(seed)
	public, err := note.NewEd25519VerifierKey(keyName, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("%w: signing key", ErrInvalid)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("%w: signing key", ErrInvalid)
	}
	return &Signer{name: keyName, hash: verifier.KeyHash(), public: public, key: key}, nil
}

// PublicKey returns the public key as a note verifier key, "<name>+<hash>+<key>". It is what NewVerifiers takes.
func (s *Signer) PublicKey() string { return s.public }

// Format prints the public key for every verb, so that the private one can't be printed by accident.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.public) }

// Sign returns the checkpoint as a signed note. It returns ErrInvalid when the size is out of range or the origin is not
// one of the signer's installation.
func (s *Signer) Sign(c Checkpoint) ([]byte, error) {
	if !speaksFor(s.name, c.Origin) {
		return nil, fmt.Errorf("%w: checkpoint's origin is not of the signer's installation", ErrInvalid)
	}
	if c.Size < 0 || c.Size > MaxSize {
		return nil, fmt.Errorf("%w: checkpoint's size is out of range", ErrInvalid)
	}
	text := c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
	signed, err := note.Sign(&note.Note{Text: text}, noteSigner{s})
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint can't be signed", ErrInvalid)
	}
	return signed, nil
}

// speaksFor reports whether the key of that name may sign for the origin.
func speaksFor(keyName, origin string) bool {
	installation, _, _, err := ParseOrigin(origin)
	return err == nil && keyName == SignerName(installation)
}

// noteSigner is a Signer as the note package sees it, kept apart so that Signer offers no signature over other texts.
type noteSigner struct{ s *Signer }

func (n noteSigner) Name() string                    { return n.s.name }
func (n noteSigner) KeyHash() uint32                 { return n.s.hash }
func (n noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(n.s.key, msg), nil }

// Verifiers is the set of public keys whose signatures count. It is immutable. A nil *Verifiers knows no key.
type Verifiers struct {
	known note.Verifiers
	keys  []string
}

// NewVerifiers returns the set of the given public keys, as PublicKey returns them: an installation's present key and, for
// what they signed, its former ones. It returns ErrFormat when there is none or one is malformed.
func NewVerifiers(keys ...string) (*Verifiers, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no public key", ErrFormat)
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(keys)))
	list := make([]note.Verifier, 0, len(distinct))
	for _, key := range distinct {
		verifier, err := note.NewVerifier(key)
		if err != nil || strings.ContainsAny(key, "\r\n") {
			return nil, fmt.Errorf("%w: public key", ErrFormat)
		}
		list = append(list, verifier)
	}
	return &Verifiers{known: note.VerifierList(list...), keys: distinct}, nil
}

// Keys returns the public keys in ascending order, in a fresh slice.
func (v *Verifiers) Keys() []string {
	if v == nil {
		return nil
	}
	return slices.Clone(v.keys)
}

// Lacks reports whether signed, a note that does not open, has a signature in the installation's name by a key that is not one of v:
// a former or later key, or somebody's who took the name.
func (v *Verifiers) Lacks(signed []byte, installation string) bool {
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(signed, note.VerifierList()); !errors.As(err, &unverified) {
		return false
	}
	for _, s := range unverified.Note.UnverifiedSigs {
		has := func(key string) bool { return strings.HasPrefix(key, fmt.Sprintf("%s+%08x+", s.Name, s.Hash)) }
		if s.Name == SignerName(installation) && !slices.ContainsFunc(v.Keys(), has) {
			return true
		}
	}
	return false
}

// OpenCheckpoint returns what signed says. The note must carry a valid signature by exactly one key of v, and that key's
// name must be of the origin's installation, or the error is ErrSignature. Signatures of unknown keys are ignored, as are
// extension lines after the root. Anything that is not a checkpoint in its canonical spelling is ErrFormat.
func OpenCheckpoint(signed []byte, v *Verifiers) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is too long", ErrFormat)
	}
	var known note.Verifiers
	if v != nil {
		known = v.known
	}
	n, err := note.Open(signed, known)
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified), errors.As(err, &invalid):
		return Checkpoint{}, fmt.Errorf("%w: checkpoint", ErrSignature)
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is not a signed note", ErrFormat)
	case len(n.Sigs) != 1:
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is signed by more than one known key", ErrSignature)
	}
	// The note package accepts any padding bits; we want one spelling.
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint's signature is not canonical", ErrFormat)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if !speaksFor(n.Sigs[0].Name, c.Origin) {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint's key does not speak for its origin", ErrSignature)
	}
	return c, nil
}

// parseCheckpoint reads a checkpoint's text.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint has fewer than three lines", ErrFormat)
	}
	if _, _, _, err := ParseOrigin(lines[0]); err != nil {
		return Checkpoint{}, err
	}
	size, ok := decimal(lines[1])
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint's size is not a canonical number", ErrFormat)
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || copy(c.Root[:], root) != hashSize || len(root) != hashSize {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint's root is not a hash", ErrFormat)
	}
	if slices.Contains(lines[3:], "") {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint has an empty extension line", ErrFormat)
	}
	return c, nil
}
