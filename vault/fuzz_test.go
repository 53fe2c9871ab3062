package vault_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// fuzzKey returns the same key in every process, as fuzzing workers need.
func fuzzKey(tb testing.TB, p vault.Purpose) *vault.DataKey {
	tb.Helper()
	key := sha256.Sum256([]byte("fuzz key, not a secret: " + string(p)))
	k, err := keyOf(key[:], dataKeyID(key[:], p), p)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func FuzzOpen(f *testing.F) {
	k := fuzzKey(f, vault.PurposeSeal)
	opener := newOpener(f, k)
	sealed, err := newSealer(f, k).Seal(place(), secret("lin_api_test_fuzz"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("organization-1", "record-1", int64(1), sealed)
	f.Add("organization-2", "record-1", int64(1), sealed)
	f.Add("", "", int64(-1), []byte{})
	f.Add("o", "r", int64(0), sealed[:46])
	f.Fuzz(func(t *testing.T, organization, record string, revision int64, b []byte) {
		p := place()
		p.Organization, p.Record, p.Revision = organization, record, revision
		plain, err := opener.Open(p, b)
		if err != nil {
			if plain != nil {
				t.Fatal("a plaintext with an error")
			}
			if !isErr(err, vault.ErrIntegrity) && !isErr(err, vault.ErrUnknownKey) && !isErr(err, vault.ErrPlace) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if p != place() || string(plain.Bytes()) != "lin_api_test_fuzz" {
			t.Fatal("opened what was never sealed so")
		}
	})
}

func FuzzSealedKeyID(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 47))
	f.Add(append([]byte{1, 1}, make([]byte, 45)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		id, err := vault.SealedKeyID(b)
		if !bytes.Equal(before, b) {
			t.Fatal("changed its input")
		}
		switch {
		case err != nil && (id != "" || !isErr(err, vault.ErrFormat)):
			t.Fatalf("id %q with error %v", id, err)
		case err == nil && (b[0] != 1 || b[1] != 1 || !bytes.Equal(unhex(t, id), b[2:18])):
			t.Fatalf("id %q is not that of the header", id)
		}
	})
}

func FuzzRowVerify(f *testing.F) {
	s := newRowSealer(f, fuzzKey(f, vault.PurposeRow))
	row := func(record, status string, expires int64) vault.Row {
		r := rowOf(func(c *vault.Columns) {
			c.String("status", status)
			c.Int("expires", expires)
		})
		r.Record = record
		return r
	}
	seal, err := s.Seal(row("record-1", "approved", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("record-1", "approved", int64(1), seal)
	f.Add("record-1", "approved", int64(2), seal)
	f.Add("", "", int64(0), []byte{})
	f.Fuzz(func(t *testing.T, record, status string, expires int64, b []byte) {
		r := row(record, status, expires)
		err := s.Verify(r, b)
		if err == nil {
			// Only a seal that this key makes of this row verifies.
			if want, err := s.Seal(r); err != nil || !bytes.Equal(want, b) {
				t.Fatal("verified a seal that was never made so")
			}
			return
		}
		if !isErr(err, vault.ErrIntegrity) && !isErr(err, vault.ErrPlace) {
			t.Fatalf("error of another kind: %v", err)
		}
		id, parseErr := vault.RowSealKeyID(b)
		if parseErr == nil && !bytes.Equal(unhex(t, id), b[1:17]) {
			t.Fatalf("id %q is not that of the header", id)
		}
	})
}
