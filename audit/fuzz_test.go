package audit_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func FuzzParse(f *testing.F) {
	for seq := range int64(4) {
		content, err := sampleEvent(organization, seq).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		e, err := audit.Parse(content)
		if err != nil {
			if !errors.Is(err, audit.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := e.Encode()
		if err != nil || !bytes.Equal(again, content) {
			t.Fatalf("%v\n%s\n%s", err, content, again)
		}
	})
}

func FuzzParsePersonal(f *testing.F) {
	encoded, err := samplePersonal(organization, 1).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		p, err := audit.ParsePersonal(encoded)
		if err != nil {
			if !errors.Is(err, audit.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil || !bytes.Equal(again, encoded) {
			t.Fatalf("%v\n%s\n%s", err, encoded, again)
		}
	})
}

// FuzzOpenCheckpoint signs any text with the right key, and opens any bytes.
func FuzzOpenCheckpoint(f *testing.F) {
	v := verifiersOf(f, newSigner(f, installation, "a"))
	f.Add("agentkey/inst-1/org-1/1\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Add("agentkey/inst-1/org-1/1\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nextension\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := audit.OpenCheckpoint([]byte(text), v); err == nil {
			t.Fatal("unsigned text was accepted")
		}
		c, err := audit.OpenCheckpoint(signText(t, "a", text+"\n"), v)
		if err != nil {
			if !errors.Is(err, audit.ErrFormat) && !errors.Is(err, audit.ErrSignature) {
				t.Fatal(err)
			}
			return
		}
		again, err := newSigner(t, installation, "a").Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		if body, _, _ := bytes.Cut(again, []byte("\n\n")); !bytes.HasPrefix([]byte(text+"\n"), append(body, '\n')) {
			t.Fatalf("two spellings: %q", text)
		}
	})
}

func FuzzExportReader(f *testing.F) {
	b := newLogbook(f, organization, 4, 2)
	file := b.export(f)
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Fuzz(func(t *testing.T, file []byte) {
		reader, err := audit.NewExportReader(bytes.NewReader(file))
		if err != nil {
			if !errors.Is(err, audit.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		err = audit.Export(t.Context(), &again, reader.Header(), reader)
		switch {
		case err == nil && !bytes.Equal(again.Bytes(), file):
			t.Fatalf("two spellings: %q", file)
		case err != nil && !errors.Is(err, audit.ErrFormat) && !errors.Is(err, audit.ErrInvalid) && err != io.EOF:
			t.Fatal(err)
		}
	})
}
