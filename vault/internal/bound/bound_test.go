package bound_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/internal/bound"
)

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestGoldenBound(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		DataKey                                  string `json:"data_key"`
		Installation, Organization, Purpose, Key string
		Bound                                    string
	}
	b, err := os.ReadFile("testdata/bound_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for i, v := range vectors {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			c := vault.Context{Installation: v.Installation, Organization: v.Organization, Purpose: v.Purpose, Key: v.Key}
			got, err := bound.Append(nil, unhex(t, v.DataKey), c)
			is.NoErr(err)
			is.Equal(hex.EncodeToString(got), v.Bound)
			key, err := bound.Open(unhex(t, v.Bound), c)
			is.NoErr(err)
			is.Equal(hex.EncodeToString(key), v.DataKey)
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := vault.Context{Installation: "i", Organization: "o", Purpose: "seal", Key: "k"}
	good, err := bound.Append(nil, make([]byte, 32), c)
	is.NoErr(err)
	for bit := range 8 * len(good) {
		b := slices.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		key, err := bound.Open(b, c)
		is.True(errors.Is(err, vault.ErrUnwrap))
		is.Equal(key, nil)
		is.Equal(b, make([]byte, len(b))) // zeroed whatever it was
	}
	for _, b := range [][]byte{nil, good[:32], good[:63], append(slices.Clone(good), 0)} {
		_, err := bound.Open(slices.Clone(b), c)
		is.True(errors.Is(err, vault.ErrUnwrap))
	}
	for _, other := range []vault.Context{
		{Installation: "x", Organization: "o", Purpose: "seal", Key: "k"}, {Installation: "i", Organization: "x", Purpose: "seal", Key: "k"},
		{Installation: "i", Organization: "o", Purpose: "row", Key: "k"}, {Installation: "i", Organization: "o", Purpose: "seal", Key: "x"},
		{Installation: "io", Organization: "", Purpose: "seal", Key: "k"},
	} {
		_, err := bound.Open(slices.Clone(good), other)
		is.True(errors.Is(err, vault.ErrUnwrap))
	}
	_, err = bound.Append(nil, make([]byte, 31), c)
	is.True(errors.Is(err, vault.ErrKeyLength))
}
