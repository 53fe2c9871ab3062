package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// everyAction is a log that has an event of each action, with and without an
// actor, a target and a personal part.
func everyAction(t *testing.T) *logbook {
	t.Helper()
	b := newLogbook(t, organization, 0)
	seq := int64(0)
	for _, action := range append(audit.Actions(), "x.acme.deployed") {
		for _, kind := range []string{audit.ActorAgent, audit.ActorHuman, audit.ActorSystem, audit.ActorUnknown} {
			e := sampleEvent(organization, seq)
			e.Action, e.Actor = action, audit.Actor{Kind: kind}
			if kind == audit.ActorAgent || kind == audit.ActorHuman {
				e.Actor.ID = "somebody"
			}
			if seq%5 == 0 {
				e.Target, e.Tool = audit.Ref{}, ""
			}
			if seq%10 == 0 {
				e.Agent = ""
			}
			b.append(t, e)
			seq++
		}
	}
	return b
}

// ocsfSchema is what testdata/ocsf.json holds of the published schema.
type ocsfSchema struct {
	Version string
	Classes map[string]ocsfObject
	Objects map[string]ocsfObject
}

// ocsfObject is a class or an object: its attributes, and of which at least one is there.
type ocsfObject struct {
	Category    int
	Constraints struct {
		AtLeastOne []string `json:"at_least_one"`
	}
	Attributes map[string]struct {
		Type     string // a base type of the schema, or an object's name
		Array    bool
		Required bool
		Enum     []float64
	}
}

func TestOCSFHasWhatTheSchemaRequires(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	schema := readOCSF(t)
	is.Equal(schema.Version, audit.OCSFVersion)
	b := everyAction(t)
	b.lines[3].Content, b.lines[3].Personal = nil, nil // removed by retention: left out
	var out bytes.Buffer
	is.NoErr(audit.ExportOCSF(t.Context(), &out, audit.Origin(installation, organization, 1), b.source()))
	seen := make(map[string]int)
	n := 0
	for line := range strings.Lines(out.String()) {
		var e map[string]any
		is.NoErr(json.Unmarshal([]byte(line), &e))
		class := fmt.Sprint(e["class_uid"])
		seen[class]++
		if err := schema.check(class, e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if n == 3 {
			n++
		}
		l := b.lines[n]
		sound, err := audit.Parse(l.Content)
		is.NoErr(err)
		is.Equal(e["time"], float64(sound.Time/1000))
		is.Equal(e["metadata"].(map[string]any)["sequence"], float64(l.Seq))
		is.Equal(e["status_id"].(float64) == 1, sound.Outcome == audit.OutcomeOK)
		is.True(strings.Contains(line, `"event":`+string(l.Content)+`}`)) // the very bytes
		leaf, err := base64.StdEncoding.DecodeString(e["unmapped"].(map[string]any)["leaf"].(string))
		is.NoErr(err)
		is.Equal(audit.Hash(leaf), l.Leaf)
		n++
	}
	is.Equal(n, len(b.lines))
	is.Equal(len(seen), len(schema.Classes)) // each class occurs
}

// check holds an event against its class.
func (s ocsfSchema) check(class string, e map[string]any) error {
	c, ok := s.Classes[class]
	if !ok {
		return fmt.Errorf("class %s is not described", class)
	}
	if e["type_uid"] != e["class_uid"].(float64)*100+e["activity_id"].(float64) {
		return errors.New("another type")
	}
	if other := e["activity_id"] == 99.0; other != (e["activity_name"] != nil) {
		return errors.New("a name is for other activities, which need one")
	}
	return s.object(class, c, e)
}

// object holds a class or an object against its description, and what lies within.
func (s ocsfSchema) object(path string, o ocsfObject, v map[string]any) error {
	for name, a := range o.Attributes {
		if _, there := v[name]; a.Required && !there {
			return fmt.Errorf("%s.%s is missing", path, name)
		}
	}
	if one := o.Constraints.AtLeastOne; len(one) > 0 && !slices.ContainsFunc(one, func(name string) bool { return v[name] != nil }) {
		return fmt.Errorf("%s has none of %v", path, one)
	}
	for name, value := range v {
		at := path + "." + name
		a, known := o.Attributes[name]
		if !known {
			return fmt.Errorf("%s is no attribute", at)
		}
		all, list := value.([]any)
		if list != a.Array {
			return fmt.Errorf("%s is an array, or should be", at)
		}
		if !list {
			all = []any{value}
		}
		for _, one := range all {
			if err := s.value(at, a.Type, a.Enum, one); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s ocsfSchema) value(at, kind string, enum []float64, v any) error {
	switch kind {
	case "string_t":
		if text, ok := v.(string); !ok || text == "" {
			return fmt.Errorf("%s is no text", at)
		}
	case "integer_t", "long_t":
		n, ok := v.(float64)
		if !ok || n != math.Trunc(n) || len(enum) > 0 && !slices.Contains(enum, n) {
			return fmt.Errorf("%s is no such number", at)
		}
	case "object": // of any attributes
	default:
		o, known := s.Objects[kind]
		inner, ok := v.(map[string]any)
		if !known || !ok {
			return fmt.Errorf("%s is no %s that is described", at, kind)
		}
		return s.object(at, o, inner)
	}
	return nil
}

// TestOCSFSchemaRefuses shows that the description finds what is not so.
func TestOCSFSchemaRefuses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	schema := readOCSF(t)
	var out bytes.Buffer
	b := newLogbook(t, organization, 3)
	is.NoErr(audit.ExportOCSF(t.Context(), &out, "origin", b.source()))
	last := slices.Collect(strings.Lines(out.String()))[2]
	sound := func() (e map[string]any) { is.NoErr(json.Unmarshal([]byte(last), &e)); return e }
	is.NoErr(schema.check("6003", sound()))
	for name, change := range map[string]func(e map[string]any){
		"missing":         func(e map[string]any) { delete(e, "actor") },
		"missing within":  func(e map[string]any) { delete(e["metadata"].(map[string]any), "version") },
		"unknown":         func(e map[string]any) { e["flavour"] = "x" },
		"unknown within":  func(e map[string]any) { e["api"].(map[string]any)["flavour"] = "x" },
		"none of several": func(e map[string]any) { e["src_endpoint"] = map[string]any{} },
		"not in the enum": func(e map[string]any) { e["severity_id"] = 7.0 },
		"another class's": func(e map[string]any) { e["class_uid"], e["type_uid"] = 3001.0, 300102.0 },
		"type":            func(e map[string]any) { e["type_uid"] = 1.0 },
		"not a list":      func(e map[string]any) { e["resources"] = map[string]any{"uid": "x"} },
		"not a text":      func(e map[string]any) { e["message"] = 1.0 },
	} {
		e := sound()
		if change(e); schema.check("6003", e) == nil {
			t.Errorf("%s is let pass", name)
		}
	}
}

func readOCSF(t *testing.T) (s ocsfSchema) {
	t.Helper()
	text, err := os.ReadFile("testdata/ocsf.json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCSV(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	b := everyAction(t)
	hostile := []string{"=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "\n=1", "＝1", "plain, \"quoted\"\nline", "=cmd|' /C calc'!A0"}
	for _, text := range hostile {
		p := audit.Personal{Salt: seeded("salt", 16), ActorLabel: text, ToolLabel: text, AgentLabel: text, Text: text, UserAgent: text}
		personal, err := p.Encode()
		is.NoErr(err)
		e := sampleEvent(organization, b.head.Size)
		e.Personal, e.Ticket, e.Details = audit.HashPersonal(personal), text, map[string]string{"x": text}
		e.Actor.ID, e.Request = "=1+1", "@x" // ids of a host, and of a client
		x, err := audit.Extend(b.head, b.tree, []audit.Event{e}, b.signer)
		is.NoErr(err)
		b.head, b.tree = x.Head, x.Tree
		b.lines = append(b.lines, audit.Line{Seq: e.Seq, Content: x.Contents[0], Personal: personal, Leaf: x.Leaves[0]})
	}
	b.lines[3].Content, b.lines[3].Personal = nil, nil
	var out bytes.Buffer
	is.NoErr(audit.ExportCSV(t.Context(), &out, b.source()))
	rows, err := csv.NewReader(&out).ReadAll()
	is.NoErr(err)
	is.Equal(len(rows), 1+len(b.lines))
	for i, row := range rows[1:] {
		is.Equal(row[0], fmt.Sprint(i))
		is.Equal(row[len(row)-1], b.lines[i].Leaf.String())
		for j, cell := range row[:len(row)-1] {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r\n") || strings.HasPrefix(cell, "＝") {
				t.Errorf("row %d, %s: %q would be a formula", i, rows[0][j], cell)
			}
		}
	}
	is.Equal(strings.Join(rows[4][1:len(rows[4])-1], ""), "") // removed: number and leaf alone
	last := rows[len(rows)-1]
	is.Equal(last[7], "'=cmd|' /C calc'!A0")
	is.Equal(rows[1][1], "2026-11-23T06:40:00.000000Z")
}

// TestViewsOfDamagedLogs say which line it is, and go no further.
func TestViewsOfDamagedLogs(t *testing.T) {
	t.Parallel()
	b := newLogbook(t, organization, 9).clone()
	b.lines[5].Content[3] ^= 1
	personal := newLogbook(t, organization, 9).clone()
	personal.lines[3].Personal = []byte("{}")
	for _, book := range []*logbook{b, personal} {
		var out bytes.Buffer
		for _, err := range []error{
			audit.ExportCSV(t.Context(), &out, book.source()), audit.ExportOCSF(t.Context(), &out, "x", book.source()),
		} {
			if !errors.Is(err, audit.ErrFormat) || !strings.Contains(err.Error(), "of line") {
				t.Error(err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := audit.ExportCSV(ctx, new(bytes.Buffer), b.source()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
