package audit_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func TestFilterMatch(t *testing.T) {
	t.Parallel()
	vend := sampleEvent(organization, 2) // of grant-0
	approval := sampleEvent(organization, 1)
	suspension := audit.Event{
		Time: vend.Time, Actor: audit.Actor{Kind: audit.ActorHuman, ID: "user-1"}, Action: audit.ActionAgentSuspended,
		Outcome: audit.OutcomeOK, Target: audit.Ref{Kind: audit.KindAgent, ID: vend.Agent},
	}
	suggestion := audit.Event{Actor: audit.Actor{Kind: audit.ActorAgent, ID: vend.Agent}, Action: audit.ActionToolSuggestionCreated, Outcome: audit.OutcomeOK}
	deletion := audit.Event{Actor: audit.Actor{Kind: audit.ActorHuman, ID: "user-1"}, Target: audit.Ref{Kind: audit.KindTool, ID: vend.Tool}}
	namesake := audit.Event{Actor: audit.Actor{Kind: audit.ActorHuman, ID: vend.Agent}, Target: audit.Ref{Kind: audit.KindToken, ID: vend.Tool}}
	tests := []struct {
		name   string
		filter audit.Filter
		event  audit.Event
		want   bool
	}{
		{"all", audit.Filter{}, vend, true},
		{"agent as subject", audit.Filter{Agent: vend.Agent}, approval, true},
		{"agent as target", audit.Filter{Agent: vend.Agent}, suspension, true},
		{"agent as actor", audit.Filter{Agent: vend.Agent}, suggestion, true},
		{"another agent", audit.Filter{Agent: "other"}, vend, false},
		{"agent by the name of a person", audit.Filter{Agent: vend.Agent}, namesake, false},
		{"tool as subject", audit.Filter{Tool: vend.Tool}, vend, true},
		{"tool as target", audit.Filter{Tool: vend.Tool}, deletion, true},
		{"tool by the name of a token", audit.Filter{Tool: vend.Tool}, namesake, false},
		{"grant as decided on", audit.Filter{Grant: "grant-0"}, vend, true},
		{"grant as target", audit.Filter{Grant: "grant-0"}, approval, true},
		{"another grant", audit.Filter{Grant: "grant-1"}, approval, false},
		{"actor", audit.Filter{Actor: "user-1"}, approval, true},
		{"another actor", audit.Filter{Actor: "user-1"}, vend, false},
		{"target", audit.Filter{Target: "grant-0"}, approval, true},
		{"another target", audit.Filter{Target: "grant-0"}, vend, false},
		{"action", audit.Filter{Action: audit.ActionCredentialVended}, vend, true},
		{"another action", audit.Filter{Action: audit.ActionCredentialVended}, approval, false},
		{"outcome", audit.Filter{Outcome: audit.OutcomeOK}, vend, true},
		{"another outcome", audit.Filter{Outcome: audit.OutcomeRefused}, vend, false},
		{"from this moment", audit.Filter{From: vend.Time}, vend, true},
		{"from the next", audit.Filter{From: vend.Time + 1}, vend, false},
		{"to this moment", audit.Filter{To: vend.Time}, vend, true},
		{"to the one before", audit.Filter{To: vend.Time - 1}, vend, false},
		{"all fields, one wrong", audit.Filter{Agent: vend.Agent, Tool: vend.Tool, Action: vend.Action, Actor: "x"}, vend, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			is.NoErr(tt.filter.Validate())
			is.Equal(tt.filter.Match(&tt.event), tt.want)
		})
	}
}

func TestFilterValidate(t *testing.T) {
	t.Parallel()
	for _, f := range []audit.Filter{
		{Agent: "a b"}, {Tool: "ä"}, {Actor: "\x00"}, {Target: strings.Repeat("x", 129)}, {Grant: " "}, {Action: "nothing"},
		{Outcome: "maybe"}, {From: -1}, {To: -1}, {From: 2, To: 1}, {From: audit.MaxInteger + 1}, {To: audit.MaxInteger + 1},
	} {
		if err := f.Validate(); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestEndOfMillisecond(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	at := time.Date(2026, 11, 23, 6, 40, 14, 128_000_000, time.UTC)
	for _, ns := range []time.Duration{0, 1, 999, 1000, 567_891, 999_999} {
		is.Equal(audit.EndOfMillisecond(at.Add(ns)), at.UnixMicro()+999)
	}
	is.Equal(audit.EndOfMillisecond(at.Add(time.Millisecond)), at.UnixMicro()+1999)
	is.Equal(audit.EndOfMillisecond(time.UnixMicro(-1)), int64(-1))
	is.Equal(audit.EndOfMillisecond(time.UnixMicro(-1000)), int64(-1))
}

func TestCursor(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for _, before := range []int64{1, 255, 256, 1 << 40, audit.MaxInteger} {
		c := audit.Cursor{Before: before}
		back, err := audit.ParseCursor(c.String())
		is.NoErr(err)
		is.Equal(back, c)
	}
	is.Equal(audit.Cursor{}.String(), "")
	zero, err := audit.ParseCursor("")
	is.NoErr(err)
	is.Equal(zero, audit.Cursor{})
	good := audit.Cursor{Before: 7}.String()
	for _, bad := range []string{
		"7", good + "A", good[1:], good + "=", good + "\n", good[:4] + "\r\n" + good[4:], "Ag" + good[2:], "AQAAAAAAAAAA", "AQAgAAAAAAAA", "AYAAAAAAAAAB",
	} {
		if _, err := audit.ParseCursor(bad); !errors.Is(err, audit.ErrFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
