package catalogfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/matryer/is"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/catalogfile"
	"github.com/agentkey-dev/agentkey-go/storage"
)

var linear = agentkey.CatalogEntry{
	Key: "linear", Name: "Linear", Description: "Issues", URL: "https://linear.app/", AuthType: "api_key", Mode: storage.Shared,
	RequiredApprovals: 2, Instructions: "Use the API.\n\n  - be \"kind\"\n\t# and short", CredentialConfigured: true,
}

var plain = agentkey.CatalogEntry{Key: "no", Name: "no", AuthType: "other", Mode: storage.PerAgent, RequiredApprovals: 1}

const asYAML = `version: 1
tools:
  - key: "linear"
    name: "Linear"
    description: "Issues"
    url: "https://linear.app/"
    authType: "api_key"
    credentialMode: "shared"
    requiredApprovals: 2
    instructions: |-
      Use the API.

        - be "kind"
      	# and short
    credentialConfigured: true
  - key: "no"
    name: "no"
    description: ""
    url: null
    authType: "other"
    credentialMode: "per_agent"
    requiredApprovals: 1
    instructions: ""
    credentialConfigured: false
`

const asJSON = `{
  "version": 1,
  "tools": [
    {
      "key": "linear",
      "name": "Linear",
      "description": "Issues",
      "url": "https://linear.app/",
      "authType": "api_key",
      "credentialMode": "shared",
      "requiredApprovals": 2,
      "instructions": "Use the API.\n\n  - be \"kind\"\n\t# and short",
      "credentialConfigured": true
    },
    {
      "key": "no",
      "name": "no",
      "description": "",
      "url": null,
      "authType": "other",
      "credentialMode": "per_agent",
      "requiredApprovals": 1,
      "instructions": "",
      "credentialConfigured": false
    }
  ]
}
`

func doc(tools ...agentkey.CatalogEntry) agentkey.CatalogDocument {
	return agentkey.CatalogDocument{Version: 1, Tools: tools}
}

func written(t testing.TB, f catalogfile.Format, d agentkey.CatalogDocument) string {
	t.Helper()
	var b bytes.Buffer
	write := catalogfile.WriteYAML
	if f == catalogfile.JSON {
		write = catalogfile.WriteJSON
	}
	if err := write(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestForms(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(written(t, catalogfile.YAML, doc(linear, plain)), asYAML)
	is.Equal(written(t, catalogfile.JSON, doc(linear, plain)), asJSON)
	is.Equal(written(t, catalogfile.YAML, doc()), "version: 1\ntools: []\n")
	is.Equal(written(t, catalogfile.JSON, doc()), "{\n  \"version\": 1,\n  \"tools\": []\n}\n")
	for _, text := range []string{asYAML, asJSON, "\ufeff" + asYAML, "\n " + asJSON} {
		got, err := catalogfile.Read([]byte(text), catalogfile.Sniffed)
		is.NoErr(err)
		is.Equal(got, doc(linear, plain))
	}
}

var traps = []string{
	"no", "yes", "on", "off", "y", "n", "null", "~", "true", "False", "1e3", "0x10", "0o7", "017", "2026-11-23", "12:30:00", "1_000", ".inf", ".nan",
	"<<", "=", "- a", "a: b", "a #b", "? a", "*a", "&a", "!a", "|", ">", "%a", "@a", "`a", "{a}", "[a]", "a\n---\nb", "a\n...\n b", "#a\n#b", "'", `"`, `\`,
	"a\n\nb", "a\n \nb", "a \n b", "a\n\t\nb", "a\r\nb", "a\u2028b\nc", "a\ufeffb\nc", "a\u0085\nb", "a\ufffe\nb", "\U0010ffff\nx", "\U000e0001",
}

func anyText() *rapid.Generator[string] {
	runes := rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("aZ09 -:#'\"\\{}[]&*!|>%@`~\n\n\r\t\u00a0\u2028\ufeff\u200b漢é🙂")))
	return rapid.OneOf(rapid.SampledFrom(traps), rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(runes, 0, 60).Draw(t, "runes"))
	}))
}

func anyEntry() *rapid.Generator[agentkey.CatalogEntry] {
	return rapid.Custom(func(t *rapid.T) agentkey.CatalogEntry {
		return agentkey.CatalogEntry{
			Key: anyText().Draw(t, "key"), Name: anyText().Draw(t, "name"), Description: anyText().Draw(t, "description"), URL: anyText().Draw(t, "url"),
			AuthType: anyText().Draw(t, "auth"), Mode: storage.CredentialMode(anyText().Draw(t, "mode")), RequiredApprovals: rapid.Int64Range(1, 100).Draw(t, "n"),
			Instructions: anyText().Draw(t, "instructions"), CredentialConfigured: rapid.Bool().Draw(t, "configured"),
		}
	})
}

// What was written is read back exactly, whatever the texts are.
func TestWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		is := is.New(rt)
		d := doc(rapid.SliceOfN(anyEntry(), 0, 4).Draw(rt, "tools")...)
		if d.Tools == nil {
			d.Tools = []agentkey.CatalogEntry{}
		}
		for _, f := range []catalogfile.Format{catalogfile.JSON, catalogfile.YAML} {
			text := written(t, f, d)
			for _, as := range []catalogfile.Format{f, catalogfile.Sniffed} {
				got, err := catalogfile.Read([]byte(text), as)
				is.NoErr(err)
				is.Equal(got, d)
			}
		}
	})
}

// Nothing that is written depends on the schema of who reads: a reader that
// resolves as YAML 1.1 finds the same texts.
func TestWrittenYAMLHasNoTraps(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for _, trap := range traps {
		e := linear
		e.Name, e.Description, e.Instructions = trap, trap, trap
		var got struct {
			Tools []map[string]any
		}
		is.NoErr(yaml.Unmarshal([]byte(written(t, catalogfile.YAML, doc(e))), &got))
		for _, field := range []string{"name", "description", "instructions"} {
			is.Equal(got.Tools[0][field], trap)
		}
	}
}

// minimal is YAML of one tool, with more of it.
func minimal(more string) string {
	return "version: 1\ntools:\n  - key: a\n    authType: other\n    credentialMode: per_agent\n" + more
}

func TestCoreSchema(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"no": "no", "yes": "yes", "on": "on", "2026-11-23": "2026-11-23", "12:30": "12:30", "1_000": "1_000", "0b1": "0b1", "'1e3'": "1e3", `"~"`: "~",
		"!!str 12": "12", "|\n      a\n      b\n": "a\nb\n", ">-\n      a\n      b\n": "a b", "a\n     b": "a b", "<<": "<<", "y": "y", `"\x41\u00e9"`: "Aé",
	} {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			got, err := catalogfile.Read([]byte(minimal("    name: "+text+"\n")), catalogfile.YAML)
			is.NoErr(err)
			is.Equal(got.Tools[0].Problems, nil)
			is.Equal(got.Tools[0].Name, want)
		})
	}
	for _, text := range []string{"", "~", "null", "true", "False", "12", "-1", "0x1F", "0o7", "1e3", ".5", "1.", ".inf", "-.INF", ".nan", "[a]", "{a: b}"} {
		t.Run("not text: "+text, func(t *testing.T) {
			is := is.New(t)
			got, err := catalogfile.Read([]byte(minimal("    name: "+text+"\n")), catalogfile.YAML)
			is.NoErr(err)
			is.Equal(got.Tools[0].Problems, []agentkey.FieldError{{Field: "name", Message: "must be text; in YAML, put it in quotes"}})
		})
	}
	for text, want := range map[string]int64{"2": 2, "+7": 7, "007": 7} {
		t.Run("number: "+text, func(t *testing.T) {
			is := is.New(t)
			got, err := catalogfile.Read([]byte(minimal("    requiredApprovals: "+text+"\n")), catalogfile.YAML)
			is.NoErr(err)
			is.Equal(got.Tools[0].RequiredApprovals, want)
		})
	}
}

const canary = "sk_canary_0001"

func TestNotADocument(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 5000)
	for name, text := range map[string]string{
		"empty": "", "comment only": "# " + canary, "two documents": "version: 1\n---\ntools: []\n", "not YAML": "version: [" + canary, "tag": "version: !!int 1\ntools: []",
		"unknown tag": "version: 1\ntools: !" + canary + " []", "unknown alias": "version: 1\ntools: *" + canary, "key twice": "version: 1\ntools: []\nversion: 1",
		"key twice in an entry": minimal("    key: b\n"), "complex key": "? [a]\n: 1\n", "deep": "version: 1\ntools: " + deep, "deep and closed": "tools: " + deep + strings.Repeat("]", 5000),
		"not JSON": `{"version": 1, "tools": [` + canary, "JSON and more": `{"version": 1, "tools": []} ` + canary, "JSON key twice": `{"version": 1, "version": 1, "tools": []}`,
		"NUL": "version: 1\ntools: []\n\x00", "control character": "version: 1\x07", "half a rune": "version: 1\ntools: \"\xc3\"", "UTF-16": "\xff\xfev\x00",
		"contains itself": "&a [*a]", "mapping contains itself": "&a\nversion: 1\ntools: *a", "merge of itself": "&a\n<<: *a\n",
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			_, err := catalogfile.Read([]byte(text), catalogfile.Sniffed)
			var syntax *catalogfile.SyntaxError
			is.True(errors.As(err, &syntax))
			is.True(!strings.Contains(err.Error(), canary)) // nothing of the text is repeated
		})
	}
	for name, text := range map[string]string{
		"list": "[]", "text": "a", "null": "~", "no tools": "version: 1", "tools null": "version: 1\ntools: ~", "version text": "version: '1'\ntools: []",
		"version 1.5": "version: 1.5\ntools: []", "unknown property": "version: 1\ntools: []\n" + canary + ": 1",
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			_, err := catalogfile.Read([]byte(text), catalogfile.Sniffed)
			is.True(errors.Is(err, agentkey.ErrInvalid))
			is.True(!strings.Contains(err.Error(), canary))
		})
	}
}

func TestEntriesNameAllTheirProblems(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	got, err := catalogfile.Read([]byte(`version: 1
tools:
  - 7
  - {key: 1, name: [], description: null, url: 2, authType: ~, credentialMode: true, requiredApprovals: 1.5, instructions: 3, credentialConfigured: 4}
  - {key: a, `+canary+`: b}
  - {key: a, requiredApprovals: 0}
  - {key: a, url: null, credentialConfigured: yes}
`), catalogfile.YAML)
	is.NoErr(err)
	fields := func(i int) (names []string) {
		for _, p := range got.Tools[i].Problems {
			names = append(names, p.Field)
			is.True(!strings.Contains(p.Message, canary))
		}
		return names
	}
	is.Equal(fields(0), []string{""})
	is.Equal(len(fields(1)), 9)
	is.Equal(got.Tools[2].Problems[0].Message, "has a property that is not known here, its 2nd; known are "+
		"key, name, description, url, authType, credentialMode, requiredApprovals, instructions, credentialConfigured")
	is.Equal(fields(3), []string{"requiredApprovals"})
	is.Equal(fields(4), []string{"credentialConfigured"}) // yes is text in YAML 1.2
}

// Aliases serve a document that says one thing several times, and no bomb.
func TestAliases(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	got, err := catalogfile.Read([]byte("version: 1\ntools:\n  - {key: a, instructions: &guide be kind}\n  - {key: b, instructions: *guide}\n"), catalogfile.YAML)
	is.NoErr(err)
	is.Equal(got.Tools[1].Instructions, "be kind")

	bomb := "a0: &a0 [" + strings.Repeat("x,", 20) + "]\n"
	for i := range 12 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 20), ","))
	}
	_, err = catalogfile.Read([]byte("version: 1\ntools: []\n"+bomb), catalogfile.YAML)
	var syntax *catalogfile.SyntaxError
	is.True(errors.As(err, &syntax))
	is.True(strings.Contains(err.Error(), "aliases make it longer"))
}

// No text of the size that the server takes keeps the parser busy.
func TestReadingIsBounded(t *testing.T) {
	t.Parallel()
	const size = 262144
	for _, unit := range []string{
		"[", "{", "- ", "? ", "&a ", "*a ", "! ", "#\n", "# a\n\n", "- #\n", "a: #b\n", "|\n", "'", "\"", "a: ", "a:\n", ": ", "- - - a\n", "[a]: ", "{a: ", "[[],", "\n", " ", "a\n", "-\n", "%a\n", "---\n",
		"'a': 1, ", "k: &a\n", "<<: ", "&a [*a,", "!!str ", "> \n a\n", "\\", "\t", "a:b\n", "{[", "}{", "]",
	} {
		t.Run(unit, func(t *testing.T) {
			t.Parallel()
			text := []byte(strings.Repeat(unit, size/len(unit)))
			_, _ = catalogfile.Read(text, catalogfile.YAML)
			_, _ = catalogfile.Read(append([]byte("version: 1\ntools:\n- key: a\n  name: "), text...), catalogfile.YAML)
			_, _ = catalogfile.Read(text, catalogfile.JSON)
		})
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range append(traps, asYAML, asJSON, minimal("    name: &a x\n    url: *a\n"), "&a [*a]", "!!binary aGk=", "%YAML 1.1\n--- 1") {
		f.Add([]byte(s), 0)
	}
	f.Fuzz(func(t *testing.T, text []byte, format int) {
		if format < 0 || format > 2 {
			return
		}
		d, err := catalogfile.Read(text, catalogfile.Format(format))
		if err != nil {
			return
		}
		for _, e := range d.Tools {
			if len(e.Problems) > 0 || e.RequiredApprovals == 0 {
				return
			}
		}
		for _, as := range []catalogfile.Format{catalogfile.JSON, catalogfile.YAML} {
			again, err := catalogfile.Read([]byte(written(t, as, d)), as)
			if err != nil || !reflect.DeepEqual(again, d) {
				t.Errorf("what was read can't be written and read again: %v", err)
			}
		}
	})
}
