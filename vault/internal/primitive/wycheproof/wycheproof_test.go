package wycheproof_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault/internal/primitive"
)

type text []byte

func (b *text) UnmarshalText(digits []byte) (err error) {
	*b, err = hex.DecodeString(string(digits))
	return err
}

type vector struct {
	ID                          int `json:"tcId"`
	Comment, Result             string
	Key, IV, AAD, Msg, CT, Tag  text
	keySize, nonceSize, tagSize int
}

// read gives all vectors of a file, and fails unless there are as many as it says.
func read(t *testing.T, name string) (vectors []vector) {
	t.Helper()
	b, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Number int `json:"numberOfTests"`
		Groups []struct {
			KeySize, IVSize, TagSize int
			Tests                    []vector
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, v := range g.Tests {
			v.keySize, v.nonceSize, v.tagSize = g.KeySize, g.IVSize, g.TagSize
			vectors = append(vectors, v)
		}
	}
	if len(vectors) != file.Number || len(vectors) == 0 {
		t.Fatalf("%d vectors of %d", len(vectors), file.Number)
	}
	return vectors
}

// TestAESGCM: every vector of AES-GCM. Those with a key of 256 bits, a nonce of 96 and
// a tag of 128 open if they are valid and are refused if they are not; those with
// another nonce are refused, since a sealed value has no other, and so are keys of
// 128 and 192 bits, see vault.DataKey.
func TestAESGCM(t *testing.T) {
	t.Parallel()
	opened, refused, keys := 0, 0, 0
	for _, v := range read(t, "aes_gcm_test.json") {
		if v.keySize != 256 {
			keys++
			if aead, err := primitive.NewAEAD(v.Key); err == nil || aead != nil {
				t.Errorf("%d: a key of %d bits is taken", v.ID, v.keySize)
			}
			continue
		}
		want := v.Result == "valid" && v.nonceSize == 96 && v.tagSize == 128
		if want {
			opened++
		} else {
			refused++
		}
		t.Run(fmt.Sprint(v.ID), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			if v.Result != "valid" && v.Result != "invalid" {
				t.Fatalf("the result %q (%s) has to be decided on", v.Result, v.Comment)
			}
			aead, err := primitive.NewAEAD(v.Key)
			is.NoErr(err)
			plain, err := primitive.Open(aead, slices.Concat(v.IV, v.CT, v.Tag), v.AAD)
			is.Equal(err == nil, want)
			if want {
				is.Equal(hex.EncodeToString(plain), hex.EncodeToString(v.Msg))
			} else {
				is.Equal(plain, nil)
			}
		})
	}
	t.Logf("AES-256-GCM: %d vectors open, %d are refused; %d more are refused for their key", opened, refused, keys)
	if opened < 30 || refused < 60 || keys < 100 {
		t.Errorf("only %d vectors open and %d are refused", opened, refused)
	}
}

// TestHMACSHA256: every vector. A code of 256 bits is right or wrong as the vector says;
// a shorter one is refused, since a row's seal has no other.
func TestHMACSHA256(t *testing.T) {
	t.Parallel()
	right, wrong := 0, 0
	for _, v := range read(t, "hmac_sha256_test.json") {
		want := v.Result == "valid" && v.tagSize == 256
		if want {
			right++
		} else {
			wrong++
		}
		t.Run(fmt.Sprint(v.ID), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			is.Equal(primitive.Equal(primitive.MAC(v.Key, v.Msg), v.Tag), want)
			var kept primitive.MACs
			for range 3 { // again with what was kept
				is.Equal(primitive.Equal(kept.MAC(v.Key, v.Msg), v.Tag), want)
			}
		})
	}
	t.Logf("%d vectors are right, %d are refused", right, wrong)
	if right < 30 || wrong < 60 {
		t.Errorf("only %d vectors are right and %d are refused", right, wrong)
	}
}
