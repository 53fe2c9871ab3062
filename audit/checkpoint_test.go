package audit_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/note"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// signText signs any text with the signer's seed by the note package alone.
func signText(t testing.TB, label, text string) []byte {
	t.Helper()
	s := newSigner(t, installation, label)
	parts := strings.SplitN(s.PublicKey(), "+", 3)
	seed := append([]byte{1}, seeded("test-seed/"+label, 32)...)
	signer, err := note.NewSigner("PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + base64.StdEncoding.EncodeToString(seed))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestCheckpointRoundTrip(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newSigner(t, installation, "a")
	c := audit.Checkpoint{Origin: audit.Origin(installation, organization, 1), Size: 7, Root: audit.Hash{1, 2, 3}}
	signed, err := s.Sign(c)
	is.NoErr(err)
	is.Equal(signed, signText(t, "a", c.Origin+"\n7\n"+c.Root.String()+"\n")) // the note package makes the same bytes
	got, err := audit.OpenCheckpoint(signed, verifiersOf(t, s, newSigner(t, installation, "b")))
	is.NoErr(err)
	is.Equal(got, c)
}

func TestCheckpointEveryBit(t *testing.T) {
	t.Parallel()
	s := newSigner(t, installation, "a")
	v := verifiersOf(t, s)
	signed, err := s.Sign(audit.Checkpoint{Origin: audit.Origin(installation, organization, 1), Size: 7})
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(signed) {
		signed[bit/8] ^= 1 << (bit % 8)
		if _, err := audit.OpenCheckpoint(signed, v); !errors.Is(err, audit.ErrSignature) && !errors.Is(err, audit.ErrFormat) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		signed[bit/8] ^= 1 << (bit % 8)
	}
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := &signed[len(signed)-3] // before the padding: its two lowest bits are unused
	*last = alphabet[strings.IndexByte(alphabet, *last)+1]
	if _, err := audit.OpenCheckpoint(signed, v); !errors.Is(err, audit.ErrFormat) {
		t.Fatalf("padding bits: %v", err)
	}
	for n := range signed {
		if _, err := audit.OpenCheckpoint(signed[:n], v); err == nil {
			t.Fatalf("cut to %d bytes", n)
		}
	}
}

func TestOpenCheckpointStrict(t *testing.T) {
	t.Parallel()
	v := verifiersOf(t, newSigner(t, installation, "a"))
	origin := audit.Origin(installation, organization, 1)
	root := audit.Hash{1}.String()
	tests := []struct {
		name, text string
		want       error
	}{
		{"plain", origin + "\n7\n" + root + "\n", nil},
		{"extension lines", origin + "\n7\n" + root + "\nextra\nmore\n", nil},
		{"empty", origin + "\n0\n" + root + "\n", nil},
		{"empty extension line", origin + "\n7\n" + root + "\n\nmore\n", audit.ErrFormat},
		{"two lines", origin + "\n7\n", audit.ErrFormat},
		{"leading zero", origin + "\n07\n" + root + "\n", audit.ErrFormat},
		{"sign", origin + "\n+7\n" + root + "\n", audit.ErrFormat},
		{"negative", origin + "\n-7\n" + root + "\n", audit.ErrFormat},
		{"too large", origin + "\n9007199254740992\n" + root + "\n", audit.ErrFormat},
		{"short root", origin + "\n7\nAAAA\n", audit.ErrFormat},
		{"long root", origin + "\n7\n" + base64.StdEncoding.EncodeToString(make([]byte, 33)) + "\n", audit.ErrFormat},
		{"padding bits", origin + "\n7\n" + strings.Replace(root, "A=", "B=", 1) + "\n", audit.ErrFormat},
		{"another installation", audit.Origin("inst-2", organization, 1) + "\n7\n" + root + "\n", audit.ErrSignature},
		{"origin without epoch", "agentkey/inst-1/org-1\n7\n" + root + "\n", audit.ErrFormat},
		{"epoch 0", "agentkey/inst-1/org-1/0\n7\n" + root + "\n", audit.ErrFormat},
		{"epoch 01", "agentkey/inst-1/org-1/01\n7\n" + root + "\n", audit.ErrFormat},
		{"foreign origin", "example.org/log\n7\n" + root + "\n", audit.ErrFormat},
		{"too long", origin + "\n7\n" + root + "\n" + strings.Repeat("x", audit.MaxCheckpoint) + "\n", audit.ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := audit.OpenCheckpoint(signText(t, "a", tt.text), v)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("want %v, got %v", tt.want, err)
			}
		})
	}
}

func TestOpenCheckpointKeys(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a, b := newSigner(t, installation, "a"), newSigner(t, installation, "b")
	c := audit.Checkpoint{Origin: audit.Origin(installation, organization, 1)}
	byA, err := a.Sign(c)
	is.NoErr(err)
	byB, err := b.Sign(c)
	is.NoErr(err)
	_, sigB, _ := bytes.Cut(byB, []byte("\n\n"))
	both := append(bytes.Clone(byA), sigB...)

	_, err = audit.OpenCheckpoint(byA, verifiersOf(t, b))
	is.True(errors.Is(err, audit.ErrSignature))
	_, err = audit.OpenCheckpoint(byA, nil)
	is.True(errors.Is(err, audit.ErrSignature))
	_, err = audit.OpenCheckpoint(both, verifiersOf(t, a)) // an unknown signature does no harm
	is.NoErr(err)
	_, err = audit.OpenCheckpoint(both, verifiersOf(t, a, b))
	is.True(errors.Is(err, audit.ErrSignature))
}

func TestSignerRefuses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for _, name := range []string{"", "agentkey/", "agentkey", "other/x", "agentkey/a b", "agentkey/a+b", "agentkey/a/b", "agentkey/ä"} {
		_, err := audit.NewSigner(name, make([]byte, 32))
		is.True(errors.Is(err, audit.ErrInvalid))
	}
	for _, n := range []int{0, 31, 33, 64} {
		_, err := audit.NewSigner(audit.SignerName("a"), make([]byte, n))
		is.True(errors.Is(err, audit.ErrInvalid))
	}
	s := newSigner(t, installation, "a")
	for _, c := range []audit.Checkpoint{
		{Origin: "x"}, {Origin: audit.Origin("inst-2", organization, 1)}, {Origin: audit.Origin(installation, "a\nb", 1)},
		{Origin: audit.Origin(installation, "", 1)}, {Origin: audit.Origin(installation, organization, 0)},
		{Origin: audit.Origin(installation, organization, 1), Size: -1},
		{Origin: audit.Origin(installation, organization, 1), Size: audit.MaxSize + 1},
	} {
		_, err := s.Sign(c)
		is.True(errors.Is(err, audit.ErrInvalid))
	}
}

func TestSignerIsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := newSigner(t, installation, "a")
	seed := seeded("test-seed/a", 32)
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%+v %#v %x %d %q", s, s, s, s, s), fmt.Sprintf("%#v", *s), fmt.Sprintf("%v", struct{ S *audit.Signer }{s}),
	} {
		for _, leak := range []string{string(seed), fmt.Sprintf("%x", seed), fmt.Sprint(seed)[1:20], base64.StdEncoding.EncodeToString(seed), fmt.Sprintf("%#v", seed)[8:24]} {
			if strings.Contains(text, leak) {
				t.Fatalf("printed the seed")
			}
		}
	}
}

func TestVerifiers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a, b := newSigner(t, installation, "a"), newSigner(t, installation, "b")
	v, err := audit.NewVerifiers(a.PublicKey(), b.PublicKey(), a.PublicKey())
	is.NoErr(err)
	is.Equal(len(v.Keys()), 2)
	is.Equal(len((*audit.Verifiers)(nil).Keys()), 0)
	for _, keys := range [][]string{nil, {""}, {"x"}, {a.PublicKey() + "\n"}, {strings.Replace(a.PublicKey(), "inst-1", "inst-2", 1)}} {
		_, err := audit.NewVerifiers(keys...)
		is.True(errors.Is(err, audit.ErrFormat))
	}
}
