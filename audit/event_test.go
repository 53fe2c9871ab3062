package audit_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
)

func TestEventRoundTrip(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for seq := range int64(8) {
		e := sampleEvent(organization, seq)
		content, err := e.Encode()
		is.NoErr(err)
		is.True(!bytes.ContainsAny(content, "\n"))
		back, err := audit.Parse(content)
		is.NoErr(err)
		is.Equal(back, e)
	}
}

func TestEncodeRules(t *testing.T) {
	t.Parallel()
	state := make([]byte, 32)
	change := func(c audit.Change) func(*audit.Event) {
		return func(e *audit.Event) { e.Changes = []audit.Change{c} }
	}
	detail := func(k, v string) func(*audit.Event) {
		return func(e *audit.Event) { e.Details = map[string]string{k: v} }
	}
	tests := []struct {
		name   string
		change func(*audit.Event)
		field  string // what the error names; empty when the event is fine
	}{
		{"unchanged", func(*audit.Event) {}, ""},
		{"no action", func(e *audit.Event) { e.Action = "" }, "action"},
		{"one-part action", func(e *audit.Event) { e.Action = "vended" }, "action"},
		{"upper-case action", func(e *audit.Event) { e.Action = "credential.Vended" }, "action"},
		{"empty part of action", func(e *audit.Event) { e.Action = "credential..vended" }, "action"},
		{"long action", func(e *audit.Event) { e.Action = audit.Action("a." + strings.Repeat("b", 127)) }, "action"},
		{"action of a later release", func(e *audit.Event) { e.Action = "moon.landed" }, ""},
		{"short host action", func(e *audit.Event) { e.Action = "x.acme" }, "action"},
		{"host action", func(e *audit.Event) { e.Action = "x.acme.deployed" }, ""},
		{"no actor", func(e *audit.Event) { e.Actor = audit.Actor{} }, "kind"},
		{"no actor id", func(e *audit.Event) { e.Actor.ID = "" }, "actor's id"},
		{"system", func(e *audit.Event) { e.Actor = audit.Actor{Kind: audit.ActorSystem} }, ""},
		{"unknown", func(e *audit.Event) { e.Actor = audit.Actor{Kind: audit.ActorUnknown} }, ""},
		{"kind with a dash", func(e *audit.Event) { e.Actor.Kind = "a-b" }, "kind"},
		{"id with a space", func(e *audit.Event) { e.Actor.ID = "a b" }, "id"},
		{"id with a letter beyond ASCII", func(e *audit.Event) { e.Agent = "ä" }, "agent"},
		{"id of 128", func(e *audit.Event) { e.Tool = strings.Repeat("~", 128) }, ""},
		{"id of 129", func(e *audit.Event) { e.Tool = strings.Repeat("~", 129) }, "tool"},
		{"code of 64", func(e *audit.Event) { e.From = strings.Repeat("a", 64) }, ""},
		{"code of 65", func(e *audit.Event) { e.To = strings.Repeat("a", 65) }, "to"},
		{"no organization", func(e *audit.Event) { e.Organization = "" }, "organization"},
		{"organization with a slash", func(e *audit.Event) { e.Organization = "a/b" }, "organization"},
		{"organization with a plus", func(e *audit.Event) { e.Organization = "a+b" }, "organization"},
		{"no outcome", func(e *audit.Event) { e.Outcome = "" }, "outcome"},
		{"other outcome", func(e *audit.Event) { e.Outcome = "maybe" }, "outcome"},
		{"refused without reason", func(e *audit.Event) { e.Outcome = audit.OutcomeRefused }, "reason"},
		{"failed without reason", func(e *audit.Event) { e.Outcome = audit.OutcomeFailed }, "reason"},
		{"refused with reason", func(e *audit.Event) { e.Outcome, e.Reason = audit.OutcomeRefused, "no_grant" }, ""},
		{"reason in prose", func(e *audit.Event) { e.Reason = "No grant" }, "reason"},
		{"negative number", func(e *audit.Event) { e.Seq = -1 }, "seq"},
		{"largest number", func(e *audit.Event) { e.Seq = audit.MaxInteger }, ""},
		{"number too large", func(e *audit.Event) { e.Seq = audit.MaxInteger + 1 }, "seq"},
		{"time before 1970", func(e *audit.Event) { e.Time = -1 }, "time"},
		{"span without count", func(e *audit.Event) { e.Count, e.Span = 0, 1 }, "span"},
		{"negative count", func(e *audit.Event) { e.Count = -1 }, "count"},
		{"no salt", func(e *audit.Event) { e.Salt = nil }, "salt"},
		{"long salt", func(e *audit.Event) { e.Salt = make([]byte, 17) }, "salt"},
		{"short personal hash", func(e *audit.Event) { e.Personal = make([]byte, 31) }, "personal"},
		{"target without id", func(e *audit.Event) { e.Target = audit.Ref{Kind: "tool"} }, "id"},
		{"target without kind", func(e *audit.Event) { e.Target = audit.Ref{ID: "t"} }, "kind"},
		{"grant without id", func(e *audit.Event) { e.Grant = audit.GrantRef{Revision: 1} }, "id"},
		{"credential without id", func(e *audit.Event) { e.Credential = audit.CredentialRef{Revision: 1} }, "id"},
		{"change without state", change(audit.Change{Kind: "grant", ID: "g", Revision: 1}), "changes"},
		{"change with both", change(audit.Change{Kind: "grant", ID: "g", Revision: 1, State: state, Removed: true}), "changes"},
		{"change at 0", change(audit.Change{Kind: "grant", ID: "g", State: state}), "revision"},
		{"change of nothing", change(audit.Change{Revision: 1, State: state}), "id"},
		{"short state", change(audit.Change{Kind: "grant", ID: "g", Revision: 1, State: state[1:]}), "state"},
		{"removal", change(audit.Change{Kind: "grant", ID: "g", Revision: 1, Removed: true}), ""},
		{"sealed without digest", func(e *audit.Event) { e.Sealed = []audit.SealedRef{{Kind: "credential", ID: "c"}} }, "digest"},
		{"approval without verdict", func(e *audit.Event) { e.Approvals = []audit.Approval{{Actor: audit.Ref{Kind: "human", ID: "u"}}} }, "verdict"},
		{"ticket of 200 units", func(e *audit.Event) { e.Ticket = strings.Repeat("😀", 100) }, ""},
		{"ticket of 201 units", func(e *audit.Event) { e.Ticket = strings.Repeat("😀", 100) + "x" }, "ticket"},
		{"ticket not UTF-8", func(e *audit.Event) { e.Ticket = "\xff" }, "ticket"},
		{"ticket with NUL", func(e *audit.Event) { e.Ticket = "a\x00" }, "ticket"},
		{"detail's key", detail("Key", "v"), "details"},
		{"detail's key begins with a digit", detail("1a", "v"), "details"},
		{"detail without key", detail("", "v"), "details"},
		{"empty detail", detail("k", ""), ""},
		{"detail of 1024", detail("k", strings.Repeat("x", 1024)), ""},
		{"detail of 1025", detail("k", strings.Repeat("x", 1025)), "details"},
		{"detail not UTF-8", detail("k", "\xc3\x28"), "details"},
		{"detail with NUL", detail("k", "\x00"), "details"},
		{"32 details", func(e *audit.Event) { e.Details = manyDetails(32) }, ""},
		{"33 details", func(e *audit.Event) { e.Details = manyDetails(33) }, "details"},
		{"too long", func(e *audit.Event) {
			e.Changes = slices.Repeat([]audit.Change{{Kind: "grant", ID: "g", Revision: 1, State: state}}, 600)
		}, "content"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			e := sampleEvent(organization, 2)
			tt.change(&e)
			content, err := e.Encode()
			if tt.field == "" {
				is.NoErr(err)
				back, err := audit.Parse(content)
				is.NoErr(err)
				is.Equal(back, e)
				return
			}
			is.True(errors.Is(err, audit.ErrInvalid))
			is.True(strings.Contains(err.Error(), ": "+tt.field+" "))
			is.Equal(content, nil)
		})
	}
}

func manyDetails(n int) map[string]string {
	m := make(map[string]string)
	for i := range n {
		m[fmt.Sprintf("k%d", i)] = "v"
	}
	return m
}

// TestParseStrict edits a sound event as text: each edit says something that the format has another spelling for, or none.
func TestParseStrict(t *testing.T) {
	t.Parallel()
	e := sampleEvent(organization, 1)
	e.Details = map[string]string{"a": "é\n\x01/", "b": ""}
	e.Changes = append(e.Changes, audit.Change{Kind: "grant", ID: "g", Revision: 3, Removed: true})
	content, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, new string }{
		{"space", `"seq":1`, `"seq": 1`},
		{"newline at the end", `"version":1}`, "\"version\":1}\n"},
		{"another version", `"version":1}`, `"version":2}`},
		{"no version", `,"version":1}`, `}`},
		{"version twice", `"version":1}`, `"version":1,"version":1}`},
		{"something after the end", `"version":1}`, `"version":1}{"version":1}`},
		{"repeated key", `"seq":1,`, `"seq":1,"seq":1,`},
		{"unknown key", `"seq":1,`, `"seq":1,"sequel":1,`},
		{"unknown key inside", `"auth":`, `"about":"x","auth":`},
		{"keys out of order", `"node":"node-1","organization":"org-1"`, `"organization":"org-1","node":"node-1"`},
		{"key in another case", `"seq"`, `"Seq"`},
		{"escaped key", `"seq"`, `"s\u0065q"`},
		{"missing number", `"seq":1,`, ``},
		{"missing actor", `"actor":{"auth":"token","credential":"token-1","id":"user-1","kind":"human"},`, ``},
		{"empty member", `"node":"node-1"`, `"node":""`},
		{"empty object", `"target":{"id":"grant-0","kind":"grant"}`, `"target":{}`},
		{"empty list", `"outcome":"ok"`, `"outcome":"ok","sealed":[]`},
		{"zero that is left out", `"details":`, `"count":0,"details":`},
		{"null", `"node":"node-1"`, `"node":null`},
		{"leading zero", `"seq":1`, `"seq":01`},
		{"negative", `"seq":1`, `"seq":-1`},
		{"fraction", `"seq":1`, `"seq":1.0`},
		{"exponent", `"seq":1`, `"seq":1e0`},
		{"number as text", `"seq":1`, `"seq":"1"`},
		{"text as number", `"node":"node-1"`, `"node":1`},
		{"huge number", `"seq":1`, `"seq":9007199254740992`},
		{"overflow", `"seq":1`, `"seq":18446744073709551617`},
		{"flag of 2", `"removed":1`, `"removed":2`},
		{"flag of 0", `"removed":1`, `"removed":0`},
		{"boolean", `"removed":1`, `"removed":true`},
		{"upper-case hexadecimal", hex.EncodeToString(e.Salt), strings.ToUpper(hex.EncodeToString(e.Salt))},
		{"empty text", `"ticket":"OPS-17 – Größe"`, `"ticket":""`},
		{"needless escape", `é`, `\u00e9`},
		{"escaped solidus", `/`, `\/`},
		{"long form of a short escape", `\n`, `\u000a`},
		{"upper-case escape", `\u0001`, `\u001F`},
		{"unfinished escape", `\u0001`, `\u000`},
		{"bare control character", `\n`, "\n"},
		{"NUL", `\u0001`, `\u0000`},
		{"surrogate", `\u0001`, `\ud800`},
		{"not UTF-8", `é`, "\xff"},
		{"details out of order", `"a":"é\n\u0001/","b":""`, `"b":"","a":"é\n\u0001/"`},
		{"repeated detail", `"b":""`, `"a":"","b":""`},
		{"comma at the end", `"b":""}`, `"b":"",}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			edited := bytes.Replace(content, []byte(tt.old), []byte(tt.new), 1)
			if bytes.Equal(edited, content) {
				t.Fatalf("edit does nothing: %s", content)
			}
			got, err := audit.Parse(edited)
			if !errors.Is(err, audit.ErrFormat) || got.Actor.Kind != "" {
				t.Fatalf("accepted %s", edited)
			}
			if strings.Contains(err.Error(), "node-1") {
				t.Fatalf("error quotes the input: %v", err)
			}
		})
	}
	for n := range content {
		if _, err := audit.Parse(content[:n]); !errors.Is(err, audit.ErrFormat) {
			t.Fatalf("accepted the first %d bytes", n)
		}
	}
}

func TestParseSharesNoMemory(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	e := sampleEvent(organization, 1)
	content, err := e.Encode()
	is.NoErr(err)
	back, err := audit.Parse(content)
	is.NoErr(err)
	clear(content)
	is.Equal(back, e)
}

func TestNewSalt(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(len(audit.NewSalt()), 16)
	is.True(!bytes.Equal(audit.NewSalt(), audit.NewSalt()))
}

func TestPersonal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := samplePersonal(organization, 1)
	p.AgentLabel, p.ToolLabel, p.UserAgent, p.Extra = "Bot", "Linear", "curl/8", map[string]string{"learned": "a\tb", "why": ""}
	encoded, err := p.Encode()
	is.NoErr(err)
	back, err := audit.ParsePersonal(encoded)
	is.NoErr(err)
	is.Equal(back, p)
	is.True(!p.IsZero())
	is.True(audit.Personal{Salt: p.Salt}.IsZero())
	is.True(!audit.Personal{Extra: p.Extra}.IsZero())

	for _, bad := range []audit.Personal{
		{Text: "x"}, {Salt: make([]byte, 15)}, {Salt: p.Salt, Address: strings.Repeat("x", 129)}, {Salt: p.Salt, ActorLabel: "\xff"},
		{Salt: p.Salt, Text: strings.Repeat("x", 16<<10+1)}, {Salt: p.Salt, Extra: map[string]string{"-": ""}},
		{Salt: p.Salt, Text: strings.Repeat("\x01", 12<<10)}, // 72 KiB once escaped
	} {
		_, err := bad.Encode()
		is.True(errors.Is(err, audit.ErrInvalid))
	}
	for _, bad := range [][]byte{nil, []byte("{}"), encoded[:len(encoded)-1], append(bytes.Clone(encoded), ' '), bytes.Replace(encoded, []byte(`"version":1`), []byte(`"version":2`), 1)} {
		_, err := audit.ParsePersonal(bad)
		is.True(errors.Is(err, audit.ErrFormat))
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	all := audit.Actions()
	is.True(slices.IsSorted(all))
	is.Equal(len(slices.Compact(slices.Clone(all))), len(all))
	e := sampleEvent(organization, 2)
	for _, a := range all {
		is.True(a.Known())
		is.True(!a.IsHost())
		e.Action = a
		_, err := e.Encode()
		is.NoErr(err)
	}
	all[0] = "changed"
	is.True(audit.Actions()[0] != "changed")
	is.True(!audit.Action("moon.landed").Known())

	a, err := audit.HostAction("x.acme.backup_taken")
	is.NoErr(err)
	is.True(a.IsHost() && !a.Known())
	for _, bad := range []string{"", "x.", "x.acme", "x.acme.", "x..a", "x.Acme.b", "credential.vended", "y.acme.b", "x.acme.b ", "x.acme." + strings.Repeat("b", 128)} {
		_, err := audit.HostAction(bad)
		is.True(errors.Is(err, audit.ErrInvalid))
	}
}

// TestActionsOfContract holds the names that clients of the HTTP API know.
func TestActionsOfContract(t *testing.T) {
	t.Parallel()
	for name := range strings.FieldsSeq(`agent.created agent.updated agent.suspended agent.key_rotated auth.rejected_suspended
		tool.created tool.updated tool.deleted tool.instructions.version_created tool.instructions.restored grant.requested
		grant.requested_from_suggestion grant.assigned grant.approved grant.denied grant.revoked credential.vended
		tool_suggestion.created tool_suggestion.supported tool_suggestion.redirected_to_existing_tool
		tool_suggestion.cooldown_rejected tool_suggestion.dismissed tool_suggestion.accepted tool_suggestion.auto_resolved
		tool_instruction_suggestion.created tool_instruction_suggestion.supported tool_instruction_suggestion.dismissed
		tool_instruction_suggestion.accepted notification.settings.updated notification.sent notification.failed
		config.import_applied`) {
		if !audit.Action(name).Known() {
			t.Errorf("%s is not known", name)
		}
	}
}
