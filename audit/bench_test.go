package audit_test

import (
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func BenchmarkEncode(b *testing.B) {
	e := sampleEvent(organization, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	content, err := sampleEvent(organization, 1).Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.Parse(content); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSign signs a head: what BenchmarkExtend does to encode and to hash is
// not in it.
func BenchmarkSign(b *testing.B) {
	s := newSigner(b, installation, "a")
	c := audit.Checkpoint{Origin: audit.Origin(installation, organization, 1), Size: 1000}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExtend(b *testing.B) {
	book := newLogbook(b, organization, 1000)
	events := []audit.Event{sampleEvent(organization, 1000)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.Extend(book.head, book.tree, events, book.signer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckHead(b *testing.B) {
	book := newLogbook(b, organization, 1023)
	v := verifiersOf(b, book.signer)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := audit.CheckHead(book.head, installation, organization, v); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify verifies a log of 10 000 events with checkpoints every 256; an operation is one event.
func BenchmarkVerify(b *testing.B) {
	var kept []int64
	for n := int64(256); n < 10_000; n += 256 {
		kept = append(kept, n)
	}
	book := newLogbook(b, organization, 10_000, kept...)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(book.lines) {
		if r := book.verify(b); !r.OK() {
			b.Fatal(r.Findings)
		}
	}
}
