package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// ocsfSchema is what testdata/ocsf.json holds of the published schema: of each
// class and object the attributes that are required, and those of which at least
// one is.
type ocsfSchema struct {
	Version string
	Classes map[string]struct {
		Name       string
		Category   int
		Activities []int
		Required   []string
		AtLeastOne []string `json:"at_least_one"`
		Attributes []string
	}
	Objects map[string]struct {
		Required   []string
		AtLeastOne []string `json:"at_least_one"`
	}
	Types map[string]string // the object that an attribute holds, by its path
}

func TestOCSFHasWhatTheSchemaRequires(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	text, err := os.ReadFile("testdata/ocsf.json")
	is.NoErr(err)
	var schema ocsfSchema
	is.NoErr(json.Unmarshal(text, &schema))
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

func (s ocsfSchema) check(class string, e map[string]any) error {
	c, ok := s.Classes[class]
	if !ok {
		return fmt.Errorf("class %s is not described", class)
	}
	activity := int(e["activity_id"].(float64))
	uid := int(e["class_uid"].(float64))
	switch {
	case int(e["category_uid"].(float64)) != c.Category:
		return errors.New("another category")
	case int(e["type_uid"].(float64)) != uid*100+activity:
		return errors.New("another type")
	}
	known := activity == 99
	for _, a := range c.Activities {
		known = known || a == activity
	}
	if !known {
		return fmt.Errorf("activity %d is not of class %s", activity, class)
	}
	for name := range e {
		if !strings.Contains(" "+strings.Join(c.Attributes, " ")+" ", " "+name+" ") {
			return fmt.Errorf("class %s has no attribute %s", class, name)
		}
	}
	if err := has(e, c.Required, c.AtLeastOne); err != nil {
		return err
	}
	return s.objects("", e)
}

// objects checks what lies within, as far as it is described.
func (s ocsfSchema) objects(path string, e map[string]any) error {
	for name, v := range e {
		at := strings.TrimPrefix(path+"."+name, ".")
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		inner, ok := v.(map[string]any)
		if !ok || name == "unmapped" {
			continue
		}
		o, ok := s.Objects[s.Types[at]]
		if !ok {
			return fmt.Errorf("%s is not described", at)
		}
		if err := has(inner, o.Required, o.AtLeastOne); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := s.objects(at, inner); err != nil {
			return err
		}
	}
	return nil
}

func has(e map[string]any, required, atLeastOne []string) error {
	for _, name := range required {
		if v, ok := e[name]; !ok || v == "" {
			return fmt.Errorf("%s is missing", name)
		}
	}
	for _, name := range atLeastOne {
		if v, ok := e[name]; ok && v != "" {
			return nil
		}
	}
	if len(atLeastOne) > 0 {
		return fmt.Errorf("none of %v", atLeastOne)
	}
	return nil
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
