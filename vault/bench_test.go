package vault_test

import (
	"fmt"
	"testing"

	"github.com/agentkey-dev/agentkey-go/vault"
)

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{64, 4096, vault.MaxPlaintext} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sealer := newSealer(b, newKey(b, vault.PurposeSeal))
			plain := vault.NewSecret(make([]byte, n))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sealer.Seal(place(), plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{64, 4096, vault.MaxPlaintext} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := newKey(b, vault.PurposeSeal)
			opener := newOpener(b, k)
			sealed, err := newSealer(b, k).Seal(place(), vault.NewSecret(make([]byte, n)))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				plain, err := opener.Open(place(), sealed)
				if err != nil {
					b.Fatal(err)
				}
				plain.Destroy()
			}
		})
	}
}

// The row is built anew each time, as it is for each row that a vend reads.
func BenchmarkRowVerify(b *testing.B) {
	s := newRowSealer(b, newKey(b, vault.PurposeRow))
	seal, err := s.Seal(row1())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Verify(row1(), seal); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRowState(b *testing.B) {
	salt := make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		_ = row1().State(salt)
	}
}
