package catalogfile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/agentkey-dev/agentkey-go"
)

// fields is an entry as it is written, in this order.
type fields struct {
	Key                  string  `json:"key"`
	Name                 string  `json:"name"`
	Description          string  `json:"description"`
	URL                  *string `json:"url"`
	AuthType             string  `json:"authType"`
	CredentialMode       string  `json:"credentialMode"`
	RequiredApprovals    int64   `json:"requiredApprovals"`
	Instructions         string  `json:"instructions"`
	CredentialConfigured bool    `json:"credentialConfigured"`
}

func fieldsOf(e agentkey.CatalogEntry) fields {
	f := fields{
		Key: e.Key, Name: e.Name, Description: e.Description, AuthType: e.AuthType, CredentialMode: string(e.Mode),
		RequiredApprovals: e.RequiredApprovals, Instructions: e.Instructions, CredentialConfigured: e.CredentialConfigured,
	}
	if e.URL != "" {
		f.URL = &e.URL
	}
	return f
}

// WriteJSON writes a document as JSON, indented.
func WriteJSON(w io.Writer, doc agentkey.CatalogDocument) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "{\n  \"version\": %d,\n  \"tools\": [", doc.Version)
	e := json.NewEncoder(unended{out})
	e.SetEscapeHTML(false)
	e.SetIndent("    ", "  ")
	for i, tool := range doc.Tools {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n    ")
		if err := e.Encode(fieldsOf(tool)); err != nil {
			return err
		}
	}
	if len(doc.Tools) > 0 {
		out.WriteString("\n  ")
	}
	out.WriteString("]\n}\n")
	return out.Flush()
}

// unended leaves out the line end that a json.Encoder writes after each value.
type unended struct{ w *bufio.Writer }

// Write writes p in one go, as the Encoder gives it.
func (u unended) Write(p []byte) (int, error) {
	if n := len(p); n > 0 && p[n-1] == '\n' {
		_, err := u.w.Write(p[:n-1])
		return n, err
	}
	return u.w.Write(p)
}

// WriteYAML writes a document as YAML. Text stands in double quotes, with the
// escapes that JSON and YAML share, so that no reader takes it for anything else;
// text of several lines stands as it is, in a block, if that holds it exactly.
func WriteYAML(w io.Writer, doc agentkey.CatalogDocument) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "version: %d\n", doc.Version)
	if len(doc.Tools) == 0 {
		out.WriteString("tools: []\n")
	} else {
		out.WriteString("tools:\n")
	}
	for _, tool := range doc.Tools {
		f := fieldsOf(tool)
		address := "null"
		if f.URL != nil {
			address = quoted(*f.URL)
		}
		fmt.Fprintf(out, "  - key: %s\n    name: %s\n    description: %s\n    url: %s\n", quoted(f.Key), quoted(f.Name), lines(f.Description), address)
		fmt.Fprintf(out, "    authType: %s\n    credentialMode: %s\n    requiredApprovals: %d\n", quoted(f.AuthType), quoted(f.CredentialMode), f.RequiredApprovals)
		fmt.Fprintf(out, "    instructions: %s\n    credentialConfigured: %t\n", lines(f.Instructions), f.CredentialConfigured)
	}
	return out.Flush()
}

// lines is text as a block of lines if that holds it exactly, else quoted.
func lines(text string) string {
	if !strings.Contains(text, "\n") || strings.TrimSpace(text) != text || strings.IndexFunc(text, func(r rune) bool {
		return r != '\n' && r != '\t' && !unicode.IsPrint(r)
	}) >= 0 {
		return quoted(text)
	}
	var b strings.Builder
	b.WriteString("|-")
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteByte('\n')
		if line != "" {
			b.WriteString("      " + line)
		}
	}
	return b.String()
}

func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
