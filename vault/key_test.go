package vault_test

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// dataKeyID derives an id as FORMAT.md says.
func dataKeyID(key []byte, p vault.Purpose) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("agentkey/data-key-id/v1|" + string(p)))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func keyContext() vault.Context {
	return vault.Context{Installation: "installation-1", Organization: "organization-1"}
}

func TestPurposes(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	seal, row, sign := newKey(t, vault.PurposeSeal), newKey(t, vault.PurposeRow), newKey(t, vault.PurposeSign)
	for _, k := range []*vault.DataKey{row, sign, nil, {}} {
		_, err := vault.NewSealer(k)
		is.True(isErr(err, vault.ErrPurpose))
		_, err = vault.NewOpener(seal, k)
		is.True(isErr(err, vault.ErrPurpose))
	}
	for _, k := range []*vault.DataKey{seal, sign, nil, {}} {
		_, err := vault.NewRowSealer(k)
		is.True(isErr(err, vault.ErrPurpose))
		_, err = vault.NewRowSealer(row, k)
		is.True(isErr(err, vault.ErrPurpose))
	}
	for _, k := range []*vault.DataKey{seal, row, nil, {}} {
		_, err := k.SigningSeed()
		is.True(isErr(err, vault.ErrPurpose))
	}
	for _, p := range []vault.Purpose{"", "Seal", "wrap"} {
		_, err := vault.NewDataKey(p)
		is.True(isErr(err, vault.ErrPurpose))
	}
}

func TestDataKeyID(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	seen := map[string]bool{}
	for _, p := range []vault.Purpose{vault.PurposeSeal, vault.PurposeRow, vault.PurposeSign} {
		for range 50 {
			k := newKey(t, p)
			is.Equal(k.Purpose(), p)
			is.Equal(len(k.ID()), 32)
			is.Equal(strings.Trim(k.ID(), "0123456789abcdef"), "")
			is.True(!seen[k.ID()]) // keys are random
			seen[k.ID()] = true
		}
	}
}

func TestSigningSeed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := newKey(t, vault.PurposeSign)
	seed, err := k.SigningSeed()
	is.NoErr(err)
	is.Equal(seed.Len(), ed25519.SeedSize)
	is.Equal(dataKeyID(seed.Bytes(), vault.PurposeSign), k.ID()) // the key itself
	seed.Destroy()
	again, err := k.SigningSeed() // the copy was the caller's
	is.NoErr(err)
	is.Equal(dataKeyID(again.Bytes(), vault.PurposeSign), k.ID())
	k.Destroy()
	_, err = k.SigningSeed()
	is.True(isErr(err, vault.ErrKeyDestroyed))
}

func TestDestroyedKeyIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	seal, row := newKey(t, vault.PurposeSeal), newKey(t, vault.PurposeRow)
	sealer, opener, rows := newSealer(t, seal), newOpener(t, seal), newRowSealer(t, row)
	sealed, err := sealer.Seal(place(), secret("lin_api_test_gone"))
	is.NoErr(err)
	rowSeal, err := rows.Seal(row1())
	is.NoErr(err)
	id := seal.ID()
	seal.Destroy()
	row.Destroy()
	row.Destroy()
	is.Equal(seal.ID(), id) // the id stays known
	_, err = sealer.Seal(place(), secret("x"))
	is.True(isErr(err, vault.ErrKeyDestroyed))
	got, err := opener.Open(place(), sealed)
	is.True(isErr(err, vault.ErrKeyDestroyed))
	is.Equal(got, nil)
	b, err := rows.Seal(row1())
	is.True(isErr(err, vault.ErrKeyDestroyed))
	is.Equal(b, nil)
	is.True(isErr(rows.Verify(row1(), rowSeal), vault.ErrKeyDestroyed))
	_, err = vault.Wrap(t.Context(), fixed(nil), seal, keyContext())
	is.True(isErr(err, vault.ErrKeyDestroyed))
}

// Keys leave a cache while others still use them: each use ends well or is refused.
func TestDestroyDuringUse(t *testing.T) {
	t.Parallel()
	for range 20 {
		k := newKey(t, vault.PurposeSeal)
		sealer, opener := newSealer(t, k), newOpener(t, k)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					sealed, err := sealer.Seal(place(), secret("lin_api_test_race"))
					if err == nil {
						_, err = opener.Open(place(), sealed)
					}
					if err == nil {
						continue
					}
					if !isErr(err, vault.ErrKeyDestroyed) {
						t.Errorf("a use during Destroy failed as %v", err)
					}
					return
				}
			})
		}
		k.Destroy()
		wg.Wait()
	}
}

// stubProvider answers as told.
type stubProvider struct {
	wrap   func(key []byte, c vault.Context) (vault.Wrapped, error)
	unwrap func(w vault.Wrapped, c vault.Context) ([]byte, error)
}

func (p stubProvider) CurrentKey(context.Context) (string, error) { return "stub", nil }

func (p stubProvider) WrapKey(_ context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	return p.wrap(key, c)
}

func (p stubProvider) UnwrapKey(_ context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	return p.unwrap(w, c)
}

func TestWrapUnwrap(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := newKey(t, vault.PurposeRow)
	var given, returned []byte
	var seen []vault.Context
	p := stubProvider{
		wrap: func(key []byte, c vault.Context) (vault.Wrapped, error) {
			given, seen = key, append(seen, c)
			return vault.Wrapped{Provider: "stub", Blob: append([]byte("blob"), key...)}, nil
		},
		unwrap: func(w vault.Wrapped, c vault.Context) ([]byte, error) {
			returned, seen = append([]byte{}, w.Blob[4:]...), append(seen, c)
			return returned, nil
		},
	}
	w, err := vault.Wrap(t.Context(), p, k, keyContext())
	is.NoErr(err)
	is.Equal(given, make([]byte, 32))    // the copy that the provider saw is zeroed
	is.Equal(returned, make([]byte, 32)) // and that of the check too
	got, err := vault.Unwrap(t.Context(), p, w, k.ID(), vault.PurposeRow, keyContext())
	is.NoErr(err)
	is.Equal(got.ID(), k.ID())
	is.Equal(got.Purpose(), vault.PurposeRow)
	want := keyContext()
	want.Purpose, want.Key = "row", k.ID()
	is.Equal(seen, []vault.Context{want, want, want}) // completed from the key

	seal, err := newRowSealer(t, k).Seal(row1())
	is.NoErr(err)
	is.NoErr(newRowSealer(t, got).Verify(row1(), seal)) // it is the same key

	// The same bytes under another id or purpose are another key.
	for _, tc := range []struct {
		id      string
		purpose vault.Purpose
	}{
		{newKey(t, vault.PurposeRow).ID(), vault.PurposeRow},
		{k.ID(), vault.PurposeSeal},
	} {
		_, err = vault.Unwrap(t.Context(), p, w, tc.id, tc.purpose, keyContext())
		is.True(isErr(err, vault.ErrWrongKey))
		is.True(isErr(err, vault.ErrIntegrity))
		is.Equal(returned, make([]byte, 32)) // zeroed when refused
	}
}

func TestWrapChecksTheProvider(t *testing.T) {
	t.Parallel()
	echo := func(w vault.Wrapped, _ vault.Context) ([]byte, error) { return append([]byte{}, w.Blob...), nil }
	good := func(key []byte, _ vault.Context) (vault.Wrapped, error) {
		return vault.Wrapped{Provider: "stub", Blob: append([]byte{}, key...)}, nil
	}
	named := func(id string, n int) func([]byte, vault.Context) (vault.Wrapped, error) {
		return func([]byte, vault.Context) (vault.Wrapped, error) {
			return vault.Wrapped{Provider: id, Blob: make([]byte, n)}, nil
		}
	}
	for name, tc := range map[string]struct {
		p    stubProvider
		want error
	}{
		"good":          {stubProvider{good, echo}, nil},
		"no blob":       {stubProvider{named("stub", 0), echo}, vault.ErrProvider},
		"large blob":    {stubProvider{named("stub", 4097), echo}, vault.ErrProvider},
		"no id":         {stubProvider{named("", 9), echo}, vault.ErrProvider},
		"long id":       {stubProvider{named(strings.Repeat("x", 129), 9), echo}, vault.ErrProvider},
		"space in id":   {stubProvider{named("a b", 9), echo}, vault.ErrProvider},
		"non-ASCII id":  {stubProvider{named("schlüssel", 9), echo}, vault.ErrProvider},
		"short key":     {stubProvider{named("stub", 31), echo}, vault.ErrWrongKey},
		"other key":     {stubProvider{named("stub", 32), echo}, vault.ErrWrongKey},
		"wrap fails":    {stubProvider{func([]byte, vault.Context) (vault.Wrapped, error) { return vault.Wrapped{}, vault.ErrUnavailable }, echo}, vault.ErrUnavailable},
		"can't unwrap":  {stubProvider{good, func(vault.Wrapped, vault.Context) ([]byte, error) { return nil, vault.ErrUnwrap }}, vault.ErrUnwrap},
		"context ended": {stubProvider{good, func(vault.Wrapped, vault.Context) ([]byte, error) { return nil, context.Canceled }}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			w, err := vault.Wrap(t.Context(), tc.p, newKey(t, vault.PurposeSeal), keyContext())
			is.True(isErr(err, tc.want))
			is.Equal(len(w.Blob) == 0, tc.want != nil)
		})
	}
}

func TestWrapAndUnwrapRefuse(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := newKey(t, vault.PurposeSeal)
	for _, c := range []vault.Context{
		{},
		{Installation: "i"},
		{Organization: "o"},
		{Installation: strings.Repeat("i", 1025), Organization: "o"},
		{Installation: "i", Organization: "o", Purpose: "row"},
		{Installation: "i", Organization: "o", Key: "other"},
	} {
		_, err := vault.Wrap(t.Context(), fixed(nil), k, c)
		is.True(isErr(err, vault.ErrPlace))
		_, err = vault.Unwrap(t.Context(), fixed(nil), vault.Wrapped{Provider: "p", Blob: []byte("b")}, k.ID(), vault.PurposeSeal, c)
		is.True(isErr(err, vault.ErrPlace))
	}
	for _, w := range []vault.Wrapped{{}, {Provider: "p"}, {Blob: []byte("b")}, {Provider: "p", Blob: make([]byte, 4097)}} {
		_, err := vault.Unwrap(t.Context(), fixed(nil), w, k.ID(), vault.PurposeSeal, keyContext())
		is.True(isErr(err, vault.ErrFormat))
	}
	_, err := vault.Unwrap(t.Context(), fixed(nil), vault.Wrapped{Provider: "p", Blob: []byte("b")}, k.ID(), "wrap", keyContext())
	is.True(isErr(err, vault.ErrPurpose))
	for _, k := range []*vault.DataKey{nil, {}} {
		_, err = vault.Wrap(t.Context(), fixed(nil), k, keyContext())
		is.True(isErr(err, vault.ErrPurpose))
	}
}
