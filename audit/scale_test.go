package audit_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// writeLong writes an export of n events as they come, so that neither the log nor
// the file is held. Heads are kept every 256 events.
func writeLong(tb testing.TB, w io.Writer, n int64) error {
	signer := newSigner(tb, installation, "a")
	var tree audit.Tree
	var kept []audit.Kept
	var head []byte
	next := int64(0)
	sign := func() ([]byte, error) {
		return signer.Sign(audit.Checkpoint{Origin: audit.Origin(installation, organization, 1), Size: tree.Size(), Root: tree.Root()})
	}
	source := &audit.Source{
		Lines: func(context.Context) (audit.Line, error) {
			if next == n {
				return audit.Line{}, io.EOF
			}
			e := sampleEvent(organization, next)
			var personal []byte
			if next%3 == 0 {
				personal, _ = samplePersonal(organization, next).Encode()
				e.Personal = audit.HashPersonal(personal)
			}
			content, err := e.Encode()
			if err != nil {
				return audit.Line{}, err
			}
			l := audit.Line{Seq: next, Content: content, Personal: personal, Leaf: audit.LeafHash(content)}
			tree.Append(l.Leaf)
			next++
			if next%256 == 0 && next < n {
				signed, err := sign()
				if err != nil {
					return audit.Line{}, err
				}
				kept = append(kept, audit.Kept{Size: next, Signed: signed})
			}
			if next == n {
				if head, err = sign(); err != nil {
					return audit.Line{}, err
				}
			}
			return l, nil
		},
	}
	return audit.Export(context.Background(), w, audit.ExportHeader{
		Origin: audit.Origin(installation, organization, 1), PublicKeys: []string{signer.PublicKey()},
	}, readerFunc(func(ctx context.Context) (audit.Entry, error) {
		if len(kept) > 0 {
			c := kept[0].Signed
			kept = kept[1:]
			return audit.Entry{Checkpoint: c}, nil
		}
		entry, err := source.Next(ctx)
		if err == io.EOF && head != nil {
			signed := head
			head = nil
			return audit.Entry{Head: signed}, nil
		}
		return entry, err
	}))
}

type readerFunc func(ctx context.Context) (audit.Entry, error)

func (f readerFunc) Next(ctx context.Context) (audit.Entry, error) { return f(ctx) }

// watched notes, every so many entries, how much memory the process holds.
func watched(in audit.Reader, peak *uint64) audit.Reader {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	n := 0
	return readerFunc(func(ctx context.Context) (audit.Entry, error) {
		if n++; n%1000 == 0 {
			metrics.Read(samples)
			*peak = max(*peak, samples[0].Value.Uint64()-samples[1].Value.Uint64())
		}
		return in.Next(ctx)
	})
}

// BenchmarkVerifyExport verifies a log from the file it was exported to, of
// 20 000 events or, in the long form, of a million; an operation is one event.
func BenchmarkVerifyExport(b *testing.B) {
	n := int64(20_000)
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n = 1_000_000
	}
	path := filepath.Join(b.TempDir(), "log.jsonl")
	size := exportTo(b, path, n)
	v := verifiersOf(b, newSigner(b, installation, "a"))
	debug.FreeOSMemory()
	var peak uint64
	b.SetBytes(size / n)
	b.ReportAllocs()
	b.ResetTimer()
	done := int64(0)
	for ; done < int64(b.N); done += n {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		in, err := audit.NewExportReader(f)
		if err != nil {
			b.Fatal(err)
		}
		r, err := audit.Verify(context.Background(), audit.Log{
			Installation: installation, Organization: organization, Entries: watched(in, &peak), Verifiers: v,
		})
		if err != nil || !r.OK() || r.ContentVerified != n || r.Proven != n {
			b.Fatal(r, err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	if peak > 64<<20 {
		b.Fatalf("verifying held %d bytes", peak)
	}
}

func exportTo(b *testing.B, path string, n int64) (size int64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := writeLong(b, f, n); err != nil {
		b.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return info.Size()
}
