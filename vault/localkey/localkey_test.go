package localkey_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

// testKey returns a key that looks random; the same name gives the same key.
func testKey(name string) []byte {
	key := sha256.Sum256([]byte("test key, not a secret: " + name))
	return key[:]
}

func text(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

func ring(tb testing.TB, names ...string) *localkey.Provider {
	tb.Helper()
	var keys [][]byte
	for _, name := range names {
		keys = append(keys, testKey(name))
	}
	p, err := localkey.NewRing(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func sample() vault.Context {
	return vault.Context{Installation: "installation-1", Organization: "organization-1", Purpose: "seal", Key: "00ff"}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"one"}, {"new", "old"}} {
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			t.Parallel()
			vaulttest.TestProvider(t, func(t *testing.T) vault.KeyProvider { return ring(t, names...) },
				vaulttest.WithOther(func(t *testing.T) vault.KeyProvider { return ring(t, "other") }),
				vaulttest.WithSecrets(testKey(names[0])))
		})
	}
}

func TestGoldenWrapped(t *testing.T) {
	t.Parallel()
	var vectors []struct {
		LocalKey                                      string `json:"local_key"`
		DataKey                                       string `json:"data_key"`
		Provider, Installation, Organization, Purpose string
		Key, Blob                                     string
	}
	b, err := os.ReadFile("testdata/wrapped_v1.json")
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
			p, err := localkey.FromEnv(func(string) (string, bool) { return v.LocalKey, true }, "KEY")
			is.NoErr(err)
			current, err := p.CurrentKey(t.Context())
			is.NoErr(err)
			is.Equal(current, v.Provider)
			blob, err := hex.DecodeString(v.Blob)
			is.NoErr(err)
			w := vault.Wrapped{Provider: v.Provider, Blob: blob}
			k, err := vault.Unwrap(t.Context(), p, w, v.Key, vault.Purpose(v.Purpose),
				vault.Context{Installation: v.Installation, Organization: v.Organization})
			is.NoErr(err)
			is.Equal(k.ID(), v.Key)
			key, err := p.UnwrapKey(t.Context(), w, vault.Context{
				Installation: v.Installation, Organization: v.Organization, Purpose: v.Purpose, Key: v.Key,
			})
			is.NoErr(err)
			is.Equal(hex.EncodeToString(key), v.DataKey)
		})
	}
}

func TestRingNewestWrapsAllUnwrap(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	old, both, fresh := ring(t, "old"), ring(t, "new", "old"), ring(t, "new")
	before, err := old.WrapKey(ctx, testKey("data"), sample())
	is.NoErr(err)
	after, err := both.WrapKey(ctx, testKey("data"), sample())
	is.NoErr(err)
	is.True(before.Provider != after.Provider)
	for _, w := range []vault.Wrapped{before, after} {
		key, err := both.UnwrapKey(ctx, w, sample())
		is.NoErr(err)
		is.Equal(key, testKey("data"))
	}
	key, err := fresh.UnwrapKey(ctx, after, sample()) // the newest had wrapped
	is.NoErr(err)
	is.Equal(key, testKey("data"))
	_, err = fresh.UnwrapKey(ctx, before, sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
	is.True(strings.Contains(err.Error(), before.Provider)) // the id needed
	is.True(strings.Contains(err.Error(), after.Provider))  // and the one held
}

func TestUnwrapUnknownForm(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ring(t, "one")
	w, err := p.WrapKey(t.Context(), testKey("data"), sample())
	is.NoErr(err)
	is.Equal(len(w.Blob), 78)
	for _, header := range [][2]byte{{0, 1}, {2, 1}, {1, 0}, {1, 2}} {
		w.Blob[0], w.Blob[1] = header[0], header[1]
		_, err = p.UnwrapKey(t.Context(), w, sample())
		is.True(errors.Is(err, vault.ErrFormat))
		is.True(errors.Is(err, vault.ErrUnwrap))
	}
}

func TestUnwrapForeignName(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ring(t, "one", "two")
	w, err := p.WrapKey(t.Context(), testKey("data"), sample())
	is.NoErr(err)
	w.Provider, err = ring(t, "two").CurrentKey(t.Context())
	is.NoErr(err)
	_, err = p.UnwrapKey(t.Context(), w, sample()) // held, but not the one that wrapped
	is.True(errors.Is(err, vault.ErrUnwrap))
	for _, name := range []string{"", "line\nbreak", "\x1b[2J", strings.Repeat("x", 129)} {
		w.Provider = name
		_, err = p.UnwrapKey(t.Context(), w, sample())
		is.True(errors.Is(err, vault.ErrUnknownKey))
		is.True(strings.Contains(err.Error(), "without a proper id"))
	}
}

func TestZeroProvider(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := &localkey.Provider{}
	_, err := p.CurrentKey(t.Context())
	is.True(errors.Is(err, localkey.ErrNoKey))
	_, err = p.WrapKey(t.Context(), testKey("data"), sample())
	is.True(errors.Is(err, localkey.ErrNoKey))
	_, err = p.UnwrapKey(t.Context(), vault.Wrapped{Provider: "x", Blob: []byte("x")}, sample())
	is.True(errors.Is(err, vault.ErrUnknownKey))
}

func TestProviderIsRedacted(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ring(t, "one")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		is.Equal(fmt.Sprintf(verb, p), "[redacted]")
		is.Equal(fmt.Sprintf(verb, *p), "[redacted]")
	}
	b, err := json.Marshal(struct{ Keys vault.KeyProvider }{p})
	is.NoErr(err)
	is.Equal(string(b), `{"Keys":"[redacted]"}`)
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("started", "keys", p)
	is.True(strings.Contains(out.String(), `"keys":"[redacted]"`))
}

func TestNewRingCopies(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	key := testKey("one")
	p, err := localkey.NewRing(key)
	is.NoErr(err)
	is.Equal(key, testKey("one")) // the caller's, unchanged
	clear(key)
	w, err := p.WrapKey(t.Context(), testKey("data"), sample())
	is.NoErr(err)
	_, err = ring(t, "one").UnwrapKey(t.Context(), w, sample())
	is.NoErr(err)
}
