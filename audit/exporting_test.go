package audit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func (b *logbook) header() audit.ExportHeader {
	return audit.ExportHeader{Origin: audit.Origin(installation, organization, b.head.Epoch), PublicKeys: []string{b.signer.PublicKey()}}
}

func (b *logbook) export(tb testing.TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	if err := audit.Export(context.Background(), &out, b.header(), b.source()); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func verifyExport(t *testing.T, b *logbook, file []byte) audit.Report {
	t.Helper()
	reader, err := audit.NewExportReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	log := b.log(t)
	log.Entries, log.ContentFrom = reader, reader.Header().ContentFrom
	report, err := audit.Verify(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestExportVerifies(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, size, keptSizes...)
	file := b.export(t)
	is.Equal(verifyExport(t, b, file), b.verify(t))
	is.True(bytes.Contains(file, b.lines[1].Content))
	is.True(bytes.Contains(file, []byte("Zoë <zoe@example.org>"))) // nothing is escaped that the bytes don't escape
	is.Equal(bytes.Count(file, []byte("\n")), 1+size+len(keptSizes)+1)
	is.True(bytes.HasPrefix(file[bytes.LastIndexByte(file[:len(file)-1], '\n')+1:], []byte(`{"head":"`)))

	reader, err := audit.NewExportReader(iotest.OneByteReader(bytes.NewReader(file)))
	is.NoErr(err)
	is.Equal(reader.Header(), b.header())
	var again bytes.Buffer
	is.NoErr(audit.Export(t.Context(), &again, reader.Header(), reader)) // an export of an export is the same file
	is.Equal(again.Bytes(), file)
}

func TestExportAfterRetentionAndErasure(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, size, keptSizes...)
	for i := range 10 {
		b.lines[i].Content, b.lines[i].Personal = nil, nil
	}
	b.lines[12].Personal = nil
	header := b.header()
	header.ContentFrom = 10
	var out bytes.Buffer
	is.NoErr(audit.Export(t.Context(), &out, header, b.source()))
	r := verifyExport(t, b, out.Bytes())
	is.True(r.OK())
	is.Equal(r.HashVerified, int64(10))
	is.Equal(r.PersonalErased, int64(1))
}

// TestExportOfDamage exports logs that are damaged in ways that JSON can't hold: the file must tell the same story.
func TestExportOfDamage(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 20, 19)
	for bit := 0; bit < 8*len(b.lines[17].Content); bit += 5 {
		b.lines[17].Content[bit/8] ^= 1 << (bit % 8)
		exactly(t, verifyExport(t, b, b.export(t)), 17)
		b.lines[17].Content[bit/8] ^= 1 << (bit % 8)
	}
	for _, personal := range []string{"{", "x", "{}\n", "{\"a\":\"\xff\"}", " {}", "null"} {
		b.lines[18].Personal = []byte(personal)
		exactly(t, verifyExport(t, b, b.export(t)), 18)
	}
	b = newLogbook(t, organization, 30, 20)
	b.kept[0].Signed = []byte("\xff\xfe")
	exactly(t, verifyExport(t, b, b.export(t)), 19)
}

// TestExportEveryBit flips every bit of two lines of a file, the one an event and the other a checkpoint.
func TestExportEveryBit(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 4, 3)
	file := b.export(t)
	start := 0
	for line := 0; start < len(file); line++ {
		end := start + bytes.IndexByte(file[start:], '\n') + 1
		if line == 3 || line == 4 {
			for bit := 8 * start; bit < 8*end; bit++ {
				file[bit/8] ^= 1 << (bit % 8)
				r := verifyExport(t, b, file)
				if r.OK() || line == 3 && (r.Findings[0].From > 2 || r.Findings[0].To < 2) {
					t.Fatalf("line %d, byte %d, bit %d: %+v", line, bit/8-start, bit%8, r.Findings)
				}
				file[bit/8] ^= 1 << (bit % 8)
			}
		}
		start = end
	}
}

func TestExportCut(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 5, 2)
	file := b.export(t)
	first := bytes.IndexByte(file, '\n') + 1
	for n := range file {
		reader, err := audit.NewExportReader(bytes.NewReader(file[:n]))
		if n < first {
			if !errors.Is(err, audit.ErrFormat) {
				t.Fatalf("header of %d bytes: %v", n, err)
			}
			continue
		}
		log := b.log(t)
		log.Entries = reader
		if r, err := audit.Verify(t.Context(), log); err != nil || r.OK() {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestExportReaderStrict(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 3)
	lines := strings.SplitAfter(string(b.export(t)), "\n")
	header, entry := lines[0], strings.TrimSuffix(lines[1], "\n")
	leaf := entry[strings.Index(entry, `"leaf"`) : strings.Index(entry, `"leaf"`)+len(`"leaf":"`)+45]
	tests := []struct{ name, line string }{
		{"empty line", ""},
		{"not JSON", "x"},
		{"array", "[]"},
		{"no member", "{}"},
		{"null", "null"},
		{"space", " " + entry},
		{"carriage return", entry + "\r"},
		{"unknown member", strings.Replace(entry, `"leaf"`, `"leafy":1,"leaf"`, 1)},
		{"member in another case", strings.Replace(entry, `"leaf"`, `"Leaf"`, 1)},
		{"repeated member", strings.Replace(entry, leaf, leaf+","+leaf, 1)},
		{"no leaf", strings.Replace(entry, leaf+",", "", 1)},
		{"no number", strings.Replace(entry, `,"seq":0}`, `}`, 1)},
		{"negative number", strings.Replace(entry, `,"seq":0}`, `,"seq":-1}`, 1)},
		{"short leaf", strings.Replace(entry, leaf, `"leaf":"AAAA"`, 1)},
		{"needless base64", `{"event_bytes":"e30=",` + leaf + `,"seq":0}`},
		{"event twice", `{"event":{},"event_bytes":"AA==",` + leaf + `,"seq":0}`},
		{"empty checkpoint", `{"checkpoint":""}`},
		{"checkpoint and head", `{"checkpoint":"a","head":"b"}`},
		{"escaped needlessly", `{"checkpoint":"\u0061"}`},
		{"too long", `{"checkpoint":"` + strings.Repeat("a", 300<<10) + `"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			reader, err := audit.NewExportReader(strings.NewReader(header + tt.line + "\n" + lines[1]))
			is.NoErr(err)
			_, err = reader.Next(t.Context())
			is.True(errors.Is(err, audit.ErrFormat))
			good, err := reader.Next(t.Context()) // it goes on after it
			is.NoErr(err)
			is.Equal(good.Line.Content, b.lines[0].Content)
			_, err = reader.Next(t.Context())
			is.Equal(err, io.EOF)
		})
	}
	key := b.signer.PublicKey()
	for _, bad := range []string{
		"", "{}\n", entry + "\n", `{"format":"agentkey-audit/2","origin":"agentkey/a/b/1","public_keys":["` + key + `"]}` + "\n",
		strings.Replace(header, `"origin"`, ` "origin"`, 1), strings.Replace(header, "org-1/1", "org-1/01", 1), strings.Replace(header, key, "x", 1),
		`{"content_from":0,` + header[1:], `{"content_from":-1,` + header[1:],
	} {
		if _, err := audit.NewExportReader(strings.NewReader(bad)); !errors.Is(err, audit.ErrFormat) {
			t.Errorf("header %q: %v", bad, err)
		}
	}
}

// endless is a line without an end, which ends a context once it has been read for long.
type endless struct {
	reads int
	end   func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.reads++; e.reads == 100 {
		e.end()
	}
	for i := range p {
		p[i] = '{'
	}
	return len(p), nil
}

// A line without an end is given up with the context, and as the first line at once.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	header, _, _ := strings.Cut(string(newLogbook(t, organization, 1).export(t)), "\n")
	reader, err := audit.NewExportReader(io.MultiReader(strings.NewReader(header+"\n"), &endless{end: cancel}))
	is.NoErr(err)
	_, err = reader.Next(ctx)
	is.Equal(err, context.Canceled)
	_, err = audit.NewExportReader(&endless{end: func() { t.Fatal("the whole line is read") }})
	is.True(errors.Is(err, audit.ErrFormat))
}

func TestExportRefuses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := newLogbook(t, organization, 3)
	headless := b.clone()
	headless.signedHead = nil
	long := b.clone()
	long.lines[1].Content = make([]byte, audit.MaxContent+1)
	for _, damaged := range []*logbook{headless, long} {
		is.True(errors.Is(audit.Export(t.Context(), io.Discard, b.header(), damaged.source()), audit.ErrInvalid))
	}
	for _, h := range []audit.ExportHeader{{}, {Origin: b.header().Origin}, {Origin: "x", PublicKeys: b.header().PublicKeys}} {
		is.True(errors.Is(audit.Export(t.Context(), io.Discard, h, b.source()), audit.ErrInvalid))
	}
	boom := errors.New("boom")
	is.True(errors.Is(audit.Export(t.Context(), io.Discard, b.header(), failingReader{boom}), boom))
	is.True(errors.Is(audit.Export(t.Context(), failingWriter{boom}, b.header(), b.source()), boom))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is.True(errors.Is(audit.Export(ctx, io.Discard, b.header(), b.source()), context.Canceled))
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }
