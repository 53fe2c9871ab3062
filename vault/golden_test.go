package vault_test

import (
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

func TestGoldenDataKeyID(t *testing.T) {
	t.Parallel()
	type vector struct{ Purpose, Key, ID string }
	for _, v := range readVectors[vector](t, "testdata/data_key_id_v1.json") {
		t.Run(v.Purpose, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			k, err := keyOf(unhex(t, v.Key), v.ID, vault.Purpose(v.Purpose))
			is.NoErr(err)
			is.Equal(k.ID(), v.ID)
		})
	}
}

func TestGoldenSealed(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, Key                                       string
		KeyID                                           string `json:"key_id"`
		Installation, Organization, Kind, Record, Field string
		Revision                                        int64
		Plaintext, Sealed, Digest                       string
	}
	for _, v := range readVectors[vector](t, "testdata/sealed_v1.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			k, err := keyOf(unhex(t, v.Key), v.KeyID, vault.PurposeSeal)
			is.NoErr(err)
			sealed := unhex(t, v.Sealed)
			id, err := vault.SealedKeyID(sealed)
			is.NoErr(err)
			is.Equal(id, v.KeyID)
			plain, err := newOpener(t, k).Open(vault.Place{
				Installation: v.Installation, Organization: v.Organization,
				Kind: v.Kind, Record: v.Record, Field: v.Field, Revision: v.Revision,
			}, sealed)
			is.NoErr(err)
			is.Equal(hex.EncodeToString(plain.Bytes()), v.Plaintext)
			digest := vault.SealedDigest(sealed)
			is.Equal(hex.EncodeToString(digest[:]), v.Digest)
		})
	}
}

type goldenColumn struct {
	Name, Type string
	Value      json.RawMessage
}

// add adds the column to c as its type says.
func (g goldenColumn) add(tb testing.TB, c *vault.Columns) {
	tb.Helper()
	var err error
	switch g.Type {
	case "string":
		var v string
		err = json.Unmarshal(g.Value, &v)
		c.String(g.Name, v)
	case "int":
		var v int64
		err = json.Unmarshal(g.Value, &v)
		c.Int(g.Name, v)
	case "bytes":
		var v string
		err = json.Unmarshal(g.Value, &v)
		c.Bytes(g.Name, unhex(tb, v))
	case "bool":
		var v bool
		err = json.Unmarshal(g.Value, &v)
		c.Bool(g.Name, v)
	case "strings":
		var v []string
		err = json.Unmarshal(g.Value, &v)
		c.Strings(g.Name, v)
	default:
		tb.Fatalf("vector: unknown type %q", g.Type)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func TestGoldenRow(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name, Key                                string
		KeyID                                    string `json:"key_id"`
		Installation, Organization, Kind, Record string
		Revision                                 int64
		Columns                                  []goldenColumn
		Seal, Salt, State                        string
	}
	for _, v := range readVectors[vector](t, "testdata/row_v1.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			k, err := keyOf(unhex(t, v.Key), v.KeyID, vault.PurposeRow)
			is.NoErr(err)
			r := vault.Row{
				Installation: v.Installation, Organization: v.Organization,
				Kind: v.Kind, Record: v.Record, Revision: v.Revision,
			}
			for _, c := range v.Columns {
				c.add(t, &r.Columns)
			}
			is.NoErr(newRowSealer(t, k).Verify(r, unhex(t, v.Seal)))
			state := r.State(unhex(t, v.Salt))
			is.Equal(hex.EncodeToString(state[:]), v.State)
		})
	}
}
