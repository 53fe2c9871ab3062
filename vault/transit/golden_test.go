package transit_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/transittest"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// TestGoldenWrapped: keys that another implementation wrapped from FORMAT.md, as the
// service would have, unwrap; nothing here ever makes these vectors.
func TestGoldenWrapped(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/wrapped_v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		ServiceKey                               string `json:"service_key"`
		DataKey                                  string `json:"data_key"`
		Provider, Blob                           string
		Installation, Organization, Purpose, Key string
		Version                                  int
		Made                                     int64
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(v.Provider, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			now := newClock().Now
			s := transittest.New(now)
			raw, made := make([][]byte, v.Version), make([]int64, v.Version)
			for i := range raw {
				raw[i], made[i] = make([]byte, 32), 1
			}
			raw[v.Version-1], err = hex.DecodeString(v.ServiceKey)
			is.NoErr(err)
			made[v.Version-1] = v.Made
			s.ImportKey(ourKey, raw, made)
			s.AddToken(token, 0, 0, false)
			p := open(t, config(s, now))
			key, err := vault.Unwrap(t.Context(), p, vault.Wrapped{Provider: v.Provider, Blob: []byte(v.Blob)}, v.Key, vault.Purpose(v.Purpose),
				vault.Context{Installation: v.Installation, Organization: v.Organization})
			is.NoErr(err)
			is.Equal(key.ID(), v.Key)
			plain, err := p.UnwrapKey(t.Context(), vault.Wrapped{Provider: v.Provider, Blob: []byte(v.Blob)},
				vault.Context{Installation: v.Installation, Organization: v.Organization, Purpose: v.Purpose, Key: v.Key})
			is.NoErr(err)
			is.Equal(hex.EncodeToString(plain), v.DataKey)
		})
	}
}
