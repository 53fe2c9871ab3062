package vault_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// fixed is a provider that gives a key known to the test, so that vectors and
// fuzz targets reach a DataKey through the public API alone.
type fixed []byte

func (f fixed) CurrentKey(context.Context) (string, error) { return "fixed", nil }

func (f fixed) WrapKey(context.Context, []byte, vault.Context) (vault.Wrapped, error) {
	return vault.Wrapped{Provider: "fixed", Blob: []byte("blob")}, nil
}

func (f fixed) UnwrapKey(context.Context, vault.Wrapped, vault.Context) ([]byte, error) {
	return bytes.Clone(f), nil
}

// keyOf returns the data key with the given bytes and id.
func keyOf(key []byte, id string, p vault.Purpose) (*vault.DataKey, error) {
	return vault.Unwrap(context.Background(), fixed(key), vault.Wrapped{Provider: "fixed", Blob: []byte("blob")}, id, p,
		vault.Context{Installation: "installation", Organization: "organization"})
}

func newKey(tb testing.TB, p vault.Purpose) *vault.DataKey {
	tb.Helper()
	k, err := vault.NewDataKey(p)
	if err != nil {
		tb.Fatalf("NewDataKey: %v", err)
	}
	return k
}

func newSealer(tb testing.TB, k *vault.DataKey) *vault.Sealer {
	tb.Helper()
	s, err := vault.NewSealer(k)
	if err != nil {
		tb.Fatalf("NewSealer: %v", err)
	}
	return s
}

func newOpener(tb testing.TB, keys ...*vault.DataKey) *vault.Opener {
	tb.Helper()
	o, err := vault.NewOpener(keys...)
	if err != nil {
		tb.Fatalf("NewOpener: %v", err)
	}
	return o
}

func newRowSealer(tb testing.TB, active *vault.DataKey, older ...*vault.DataKey) *vault.RowSealer {
	tb.Helper()
	s, err := vault.NewRowSealer(active, older...)
	if err != nil {
		tb.Fatalf("NewRowSealer: %v", err)
	}
	return s
}

func place() vault.Place {
	return vault.Place{
		Installation: "installation-1", Organization: "organization-1",
		Kind: "credential", Record: "record-1", Field: "value", Revision: 1,
	}
}

func secret(text string) *vault.Secret { return vault.NewSecret([]byte(text)) }

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatalf("vector: %v", err)
	}
	return b
}

func readVectors[T any](tb testing.TB, path string) []T {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	var vectors []T
	if err := d.Decode(&vectors); err != nil {
		tb.Fatal(err)
	}
	if len(vectors) == 0 {
		tb.Fatal("no vectors")
	}
	return vectors
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	old, active := newKey(t, vault.PurposeSeal), newKey(t, vault.PurposeSeal)
	sealer, opener := newSealer(t, active), newOpener(t, old, active)
	for _, n := range []int{1, 2, 255, 4096, vault.MaxPlaintext} {
		want := bytes.Repeat([]byte{0xc3}, n)
		plain := vault.NewSecret(bytes.Clone(want))
		sealed, err := sealer.Seal(place(), plain)
		is.NoErr(err)
		is.Equal(len(sealed), n+46)               // the format's overhead
		is.True(bytes.Equal(plain.Bytes(), want)) // the plaintext stays the caller's
		id, err := vault.SealedKeyID(sealed)      // the header names the key
		is.NoErr(err)                             //
		is.Equal(id, active.ID())                 //
		is.Equal(sealer.KeyID(), active.ID())     //
		got, err := opener.Open(place(), sealed)  // any key that is held opens
		is.NoErr(err)                             //
		is.True(bytes.Equal(got.Bytes(), want))   //
		again, err := sealer.Seal(place(), plain) // nonces are random
		is.NoErr(err)                             //
		is.True(!bytes.Equal(sealed, again))      //
		is.True(vault.SealedDigest(sealed) != vault.SealedDigest(again))
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	sealer := newSealer(t, newKey(t, vault.PurposeSeal))
	destroyed := secret("lin_api_test_destroyed")
	destroyed.Destroy()
	for name, tc := range map[string]struct {
		place vault.Place
		plain *vault.Secret
		want  error
	}{
		"empty":           {place(), vault.NewSecret(nil), vault.ErrPlaintext},
		"nil":             {place(), nil, vault.ErrPlaintext},
		"destroyed":       {place(), destroyed, vault.ErrPlaintext},
		"too long":        {place(), vault.NewSecret(make([]byte, vault.MaxPlaintext+1)), vault.ErrPlaintext},
		"zero place":      {vault.Place{}, secret("x"), vault.ErrPlace},
		"no installation": {edit(func(p *vault.Place) { p.Installation = "" }), secret("x"), vault.ErrPlace},
		"no organization": {edit(func(p *vault.Place) { p.Organization = "" }), secret("x"), vault.ErrPlace},
		"no kind":         {edit(func(p *vault.Place) { p.Kind = "" }), secret("x"), vault.ErrPlace},
		"no record":       {edit(func(p *vault.Place) { p.Record = "" }), secret("x"), vault.ErrPlace},
		"no field":        {edit(func(p *vault.Place) { p.Field = "" }), secret("x"), vault.ErrPlace},
		"long record":     {edit(func(p *vault.Place) { p.Record = string(make([]byte, 1025)) }), secret("x"), vault.ErrPlace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			sealed, err := sealer.Seal(tc.place, tc.plain)
			is.True(isErr(err, tc.want))
			is.Equal(sealed, nil)
		})
	}
}

// edit returns the usual place, changed.
func edit(change func(*vault.Place)) vault.Place {
	p := place()
	change(&p)
	return p
}

func TestOpenRefusesIncompletePlace(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := newKey(t, vault.PurposeSeal)
	sealed, err := newSealer(t, k).Seal(place(), secret("lin_api_test_place"))
	is.NoErr(err)
	got, err := newOpener(t, k).Open(edit(func(p *vault.Place) { p.Organization = "" }), sealed)
	is.True(isErr(err, vault.ErrPlace))
	is.Equal(got, nil)
}

func TestOpenUnknownKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k, other := newKey(t, vault.PurposeSeal), newKey(t, vault.PurposeSeal)
	sealed, err := newSealer(t, k).Seal(place(), secret("lin_api_test_unknown"))
	is.NoErr(err)
	got, err := newOpener(t, other).Open(place(), sealed)
	is.True(isErr(err, vault.ErrUnknownKey))
	is.True(bytes.Contains([]byte(err.Error()), []byte(k.ID())))     // names the key needed
	is.True(bytes.Contains([]byte(err.Error()), []byte(other.ID()))) // and the one held
	is.Equal(got, nil)

	// The other key's id put into the header does not help.
	copy(sealed[2:], unhex(t, other.ID()))
	_, err = newOpener(t, other).Open(place(), sealed)
	is.True(isErr(err, vault.ErrOpen))
}

// Every ordered pair of 256 values over 4 organizations, kinds, fields and records:
// a value put in the place of another never opens (law 4).
func TestMovedValueNeverOpens(t *testing.T) {
	t.Parallel()
	k := newKey(t, vault.PurposeSeal) // one key for all: only the place tells them apart
	sealer, opener := newSealer(t, k), newOpener(t, k)
	names := []string{"a", "ab", "b", "ba"} // joined without lengths, some would collide
	var places []vault.Place
	var sealed [][]byte
	for i := range 256 {
		p := vault.Place{
			Installation: "installation", Revision: 1,
			Organization: names[i&3], Kind: names[i>>2&3], Field: names[i>>4&3], Record: names[i>>6],
		}
		b, err := sealer.Seal(p, secret("lin_api_test_moved"))
		if err != nil {
			t.Fatal(err)
		}
		places, sealed = append(places, p), append(sealed, b)
	}
	moved := 0
	for i, p := range places {
		for j, b := range sealed {
			plain, err := opener.Open(p, b)
			if i == j {
				if err != nil {
					t.Fatalf("value %d does not open in its own place: %v", i, err)
				}
				continue
			}
			moved++
			if plain != nil || !isErr(err, vault.ErrOpen) || !isErr(err, vault.ErrIntegrity) {
				t.Fatalf("value of %+v opened at %+v: %v", places[j], p, err)
			}
		}
	}
	if moved != 65280 {
		t.Fatalf("tried %d pairs", moved)
	}
}

// Revision and installation are not among the 256, so they are moved here.
func TestMovedRevisionAndInstallation(t *testing.T) {
	t.Parallel()
	k := newKey(t, vault.PurposeSeal)
	sealed, err := newSealer(t, k).Seal(place(), secret("lin_api_test_revision"))
	if err != nil {
		t.Fatal(err)
	}
	opener := newOpener(t, k)
	for name, p := range map[string]vault.Place{
		"earlier revision":   edit(func(p *vault.Place) { p.Revision = 0 }),
		"later revision":     edit(func(p *vault.Place) { p.Revision = 2 }),
		"negative":           edit(func(p *vault.Place) { p.Revision = -1 }),
		"other installation": edit(func(p *vault.Place) { p.Installation = "installation-2" }),
		"shifted":            edit(func(p *vault.Place) { p.Kind, p.Record = p.Kind+"r", p.Record[1:] }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, err := opener.Open(p, sealed)
			is.True(isErr(err, vault.ErrOpen))
		})
	}
}

func TestDamagedSealedValue(t *testing.T) {
	t.Parallel()
	k := newKey(t, vault.PurposeSeal)
	opener := newOpener(t, k)
	sealed, err := newSealer(t, k).Seal(place(), secret("lin_api_test_damaged"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, n int, b []byte) {
		t.Helper()
		plain, err := opener.Open(place(), b)
		if plain != nil || !isErr(err, vault.ErrIntegrity) && !isErr(err, vault.ErrUnknownKey) {
			t.Errorf("%s %d: opened, or failed as %v", what, n, err)
		}
	}
	for bit := range 8 * len(sealed) {
		b := bytes.Clone(sealed)
		b[bit/8] ^= 1 << (bit % 8)
		refused("flip of bit", bit, b)
	}
	for n := range sealed {
		refused("truncation to", n, sealed[:n:n])
		refused("cut from the front", n+1, sealed[n+1:])
	}
	refused("extension", 1, append(bytes.Clone(sealed), 0))
	refused("oversize", 2, make([]byte, vault.MaxPlaintext+47))
	for _, n := range []int{0, 1, 18, 46, vault.MaxPlaintext + 47} {
		b := make([]byte, n)
		copy(b, sealed)
		if _, err := opener.Open(place(), b); !isErr(err, vault.ErrFormat) {
			t.Errorf("length %d: %v", n, err)
		}
	}
	for version := range 256 {
		for _, algorithm := range []byte{0, 1, 2, 255} {
			if version == 1 && algorithm == 1 {
				continue
			}
			b := bytes.Clone(sealed)
			b[0], b[1] = byte(version), algorithm
			if _, err := opener.Open(place(), b); !isErr(err, vault.ErrFormat) {
				t.Errorf("version %d, algorithm %d: %v", version, algorithm, err)
			}
		}
	}
}

func TestOpenPrimitiveKnownAnswer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	// NIST's AES-256-GCM example with an all-zero key, nonce and block.
	got, err := vault.OpenGCM(make([]byte, 32), make([]byte, 12),
		unhex(t, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"), nil)
	is.NoErr(err)
	is.Equal(got, make([]byte, 16))
	_, err = vault.OpenGCM(make([]byte, 32), make([]byte, 12), make([]byte, 32), nil)
	is.True(isErr(err, vault.ErrOpen))
}
