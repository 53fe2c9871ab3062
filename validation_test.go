package agentkey_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
)

// textField is one field of an input that takes text.
type textField struct {
	name     string
	min, max int // in UTF-16 units
	kind     string
	call     func(s *stage, v string) error
}

// What a text may hold: plain is one line, text has lines, id is printable ASCII.
const (
	plain = "plain"
	text  = "text"
	id    = "id"
)

var textFields = []textField{
	{"RegisterAgent.name", 2, 120, plain, func(s *stage, v string) error {
		return second(s.RegisterAgent(s.t.Context(), s.Owner, agentkey.RegisterAgentInput{Name: v}))
	}},
	{"RegisterAgent.description", 0, 500, text, func(s *stage, v string) error {
		return second(s.RegisterAgent(s.t.Context(), s.Owner, agentkey.RegisterAgentInput{Name: "bot", Description: v}))
	}},
	{"RegisterAgent.owner", 0, 128, id, func(s *stage, v string) error {
		return second(s.RegisterAgent(s.t.Context(), s.Owner, agentkey.RegisterAgentInput{Name: "bot", Owner: v}))
	}},
	{"UpdateAgent.name", 2, 120, plain, func(s *stage, v string) error {
		return second(s.UpdateAgent(s.t.Context(), s.Owner, s.bot.ID, agentkey.UpdateAgentInput{Name: &v}))
	}},
	{"UpdateAgent.description", 0, 500, text, func(s *stage, v string) error {
		return second(s.UpdateAgent(s.t.Context(), s.Owner, s.bot.ID, agentkey.UpdateAgentInput{Description: &v}))
	}},
	{"UpdateAgent.owner", 0, 128, id, func(s *stage, v string) error {
		return second(s.UpdateAgent(s.t.Context(), s.Owner, s.bot.ID, agentkey.UpdateAgentInput{Owner: &v}))
	}},
	{"AddTool.name", 2, 120, plain, func(s *stage, v string) error { return s.addTool(agentkey.AddToolInput{Name: v}) }},
	{"AddTool.description", 0, 500, text, func(s *stage, v string) error {
		return s.addTool(agentkey.AddToolInput{Name: "tool", Description: v})
	}},
	{"AddTool.instructions", 0, 4000, text, func(s *stage, v string) error {
		return s.addTool(agentkey.AddToolInput{Name: "tool", Instructions: v})
	}},
	{"UpdateTool.name", 2, 120, plain, func(s *stage, v string) error { return s.updateTool(agentkey.UpdateToolInput{Name: &v}) }},
	{"UpdateTool.description", 0, 500, text, func(s *stage, v string) error {
		return s.updateTool(agentkey.UpdateToolInput{Description: &v})
	}},
	{"UpdateTool.instructions", 0, 4000, text, func(s *stage, v string) error {
		return s.updateTool(agentkey.UpdateToolInput{Instructions: &v})
	}},
	{"RequestAccess.reason", 5, 500, text, func(s *stage, v string) error {
		return s.request(agentkey.RequestInput{Reason: v})
	}},
	{"RequestAccess.ticket", 0, 200, plain, func(s *stage, v string) error {
		return s.request(agentkey.RequestInput{Reason: "to test", Ticket: v})
	}},
	{"Approve.ticket", 0, 200, plain, func(s *stage, v string) error {
		return s.decided(second(s.Approve(s.t.Context(), s.boss(), s.pending.ID, agentkey.DecisionInput{Ticket: v})))
	}},
	{"Assign.ticket", 0, 200, plain, func(s *stage, v string) error {
		return s.decided(second(s.Assign(s.t.Context(), s.boss(), agentkey.AssignInput{
			Agent: s.bot.ID, Tool: s.pending.Tool, DecisionInput: agentkey.DecisionInput{Ticket: v},
		})))
	}},
	{"Deny.reason", 0, 500, text, func(s *stage, v string) error {
		return s.decided(second(s.Deny(s.t.Context(), s.Owner, s.pending.ID, v)))
	}},
	{"UpdateOrganization.name", 2, 120, plain, func(s *stage, v string) error {
		return second(s.UpdateOrganization(s.t.Context(), s.Owner, v))
	}},
	{"Lock.reason", 0, 500, text, func(s *stage, v string) error { return second(s.Lock(s.t.Context(), s.Owner, v)) }},
	{"Unlock.reason", 0, 500, text, func(s *stage, v string) error { return second(s.Unlock(s.t.Context(), s.Owner, v)) }},
	{"CreateOrganization.name", 2, 120, plain, func(s *stage, v string) error {
		return second(s.CreateOrganization(s.t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: v, Owner: "olga"}))
	}},
	{"CreateOrganization.owner", 1, 320, plain, func(s *stage, v string) error {
		return second(s.CreateOrganization(s.t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "more", Owner: v}))
	}},
	{"AddAdministrator.label", 1, 320, plain, func(s *stage, v string) error {
		return second(s.AddAdministrator(s.t.Context(), s.Owner, agentkey.AddAdministratorInput{Label: v, Role: agentkey.RoleAdmin}))
	}},
	{"UpdateAdministrator.label", 1, 320, plain, func(s *stage, v string) error {
		return second(s.UpdateAdministrator(s.t.Context(), s.Owner, s.administrator.ID, agentkey.UpdateAdministratorInput{Label: &v}))
	}},
	{"CreateToken.name", 0, 120, plain, func(s *stage, v string) error {
		return second(s.CreateToken(s.t.Context(), s.Owner, agentkey.CreateTokenInput{Name: v}))
	}},
	{"Record.text", 0, 2000, text, func(s *stage, v string) error {
		return second(s.Record(s.t.Context(), s.Owner, agentkey.RecordInput{Action: "x.acme.tested", Text: v}))
	}},
	{"Record.agent", 0, 128, id, func(s *stage, v string) error {
		return second(s.Record(s.t.Context(), s.Owner, agentkey.RecordInput{Action: "x.acme.tested", Agent: v}))
	}},
	{"Record.tool", 0, 128, id, func(s *stage, v string) error {
		return second(s.Record(s.t.Context(), s.Owner, agentkey.RecordInput{Action: "x.acme.tested", Tool: v}))
	}},
}

func (s *stage) addTool(in agentkey.AddToolInput) error {
	if in.AuthType == "" {
		in.AuthType = "other"
	}
	if in.Mode == "" {
		in.Mode = "per_agent"
	}
	return second(s.AddTool(s.t.Context(), s.Owner, in))
}

func (s *stage) suggest(name, url string) error {
	return second(s.SuggestTool(s.t.Context(), s.trusted(), agentkey.SuggestToolInput{Name: name, URL: url, Reason: "to test"}))
}

func (s *stage) updateTool(in agentkey.UpdateToolInput) error {
	return second(s.UpdateTool(s.t.Context(), s.Owner, s.tool.ID, in))
}

// boss may approve and owns no agent.
func (s *stage) boss() agentkey.Actor {
	return person(s.Kit.Organization.ID, "boss", agentkey.RoleOwner)
}

// request asks for the pending tool, and makes room for the next to ask.
func (s *stage) request(in agentkey.RequestInput) error {
	s.t.Helper()
	if in.Tool == "" {
		in.Tool = s.pending.Tool
	}
	found, err := s.Grants(s.t.Context(), s.Owner, agentkey.GrantsInput{Agent: s.bot.ID, Tool: s.pending.Tool})
	noErr(s.t, err)
	if found[0].Status.Open() {
		if _, err := s.Revoke(s.t.Context(), s.Owner, s.bot.ID, s.pending.Tool); err != nil {
			return err
		}
	}
	return second(s.RequestAccess(s.t.Context(), s.requester, in))
}

// decided makes the request that was decided on pending again.
func (s *stage) decided(err error) error {
	if err == nil {
		return s.request(agentkey.RequestInput{Reason: "to test"})
	}
	return err
}

func (s *stage) newest() int64 {
	s.t.Helper()
	page, err := s.Events(s.t.Context(), s.Owner, agentkey.EventsInput{Limit: 1})
	noErr(s.t, err)
	return page.Events[0].Seq
}

// Every text of every input at its bounds: lengths count in UTF-16 units after
// trimming, what is refused names its field and never the value, and nothing is
// stored.
func TestTexts(t *testing.T) {
	t.Parallel()
	for _, f := range textFields {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			for _, good := range f.good() {
				if err := f.call(s, good); err != nil {
					t.Errorf("%d bytes refused: %v", len(good), err)
				}
			}
			for what, bad := range f.bad() {
				s.invalid(what, f.name[strings.Index(f.name, ".")+1:], bad, func() error { return f.call(s, bad) })
			}
		})
	}
}

func (f textField) good() []string {
	long := strings.Repeat("a", f.max)
	all := []string{long, strings.Repeat("a", max(f.min, 1)), "  \t" + long + "\n "}
	if f.kind != id {
		all = append(all, strings.Repeat("é", f.max), strings.Repeat("語", f.max), strings.Repeat("𝒜", f.max/2))
	}
	if f.kind == text {
		all = append(all, "one line\nand\tanother\r\n.")
	}
	return all
}

const canaryText = "CANARYTEXT"

func (f textField) bad() map[string]string {
	long := canaryText + strings.Repeat("a", f.max-len(canaryText))
	bad := map[string]string{
		"too long": long + "b", "NUL": canaryText + "\x00a", "control": canaryText + "\x07a", "escape": canaryText + "\x1b[0m",
		"not UTF-8": canaryText + "\xffa", "C1 control": canaryText + "\u0085a",
	}
	if f.min > 0 {
		bad["blank"] = " \t\n "
	}
	if f.min > 1 {
		bad["too short"] = "  " + strings.Repeat("a", f.min-1) + "  "
	}
	switch f.kind {
	case plain:
		bad["newline"] = canaryText + "\nx"
		bad["bidirectional override"] = canaryText + "\u202ex"
		bad["bidirectional isolate"] = canaryText + "\u2066x"
		bad["line separator"] = canaryText + "\u2028x"
	case id:
		bad["space"], bad["not ASCII"] = canaryText+" a", canaryText+"é"
	}
	if f.kind != id {
		bad["one pair too long"] = strings.Repeat("𝒜", f.max/2) + "ab"
	}
	return bad
}

// invalid wants the call refused for that field, and nothing of it stored or told.
func (s *stage) invalid(what, field, value string, call func() error) {
	s.t.Helper()
	_ = call() // some make room for themselves first
	before := s.newest()
	err := call()
	var told *agentkey.ValidationError
	switch {
	case !errors.As(err, &told) || !errors.Is(err, agentkey.ErrInvalid):
		s.t.Errorf("%s: got %v, want it invalid", what, err)
		return
	case len(told.Fields) != 1 || !strings.HasPrefix(told.Fields[0].Field, field):
		s.t.Errorf("%s: names %+v, want %s", what, told.Fields, field)
	case strings.Contains(err.Error(), canaryText) || value != "" && strings.TrimSpace(value) != "" && strings.Contains(err.Error(), value):
		s.t.Errorf("%s: the message holds the value", what)
	}
	if s.newest() != before {
		s.t.Errorf("%s: something was written", what)
	}
}

// Everything else that an input may get wrong.
func TestOtherFields(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	ctx := t.Context()
	secret := func(n int) *agentkey.Secret { return agentkey.NewSecret([]byte(strings.Repeat("s", n))) }
	shared := func(in agentkey.AddToolInput) error {
		in.Name, in.Mode = "tool", "shared"
		return s.addTool(in)
	}
	longAgo, farOff, never := time.Unix(0, 0), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<60, 0)
	zero, hundredAndOne := int64(0), int64(101)
	for name, call := range map[string]func() error{
		"keyExpiresIn": func() error {
			return second(s.RegisterAgent(ctx, s.Owner, agentkey.RegisterAgentInput{Name: "bot", KeyExpiresIn: -1}))
		},
		"addresses": func() error {
			return second(s.RegisterAgent(ctx, s.Owner, agentkey.RegisterAgentInput{Name: "bot", Addresses: []string{canaryText}}))
		},
		"addresses many": func() error {
			return second(s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{Addresses: make([]string, 65)}))
		},
		"grace": func() error {
			return second(s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{Grace: -1}))
		},
		"grace long": func() error {
			return second(s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{Grace: 721 * time.Hour}))
		},
		"authType":              func() error { return s.addTool(agentkey.AddToolInput{Name: "tool", AuthType: canaryText}) },
		"credentialMode":        func() error { return s.addTool(agentkey.AddToolInput{Name: "tool", Mode: canaryText}) },
		"requiredApprovals":     func() error { return s.addTool(agentkey.AddToolInput{Name: "tool", RequiredApprovals: 101}) },
		"requiredApprovals 0":   func() error { return s.updateTool(agentkey.UpdateToolInput{RequiredApprovals: &zero}) },
		"requiredApprovals 101": func() error { return s.updateTool(agentkey.UpdateToolInput{RequiredApprovals: &hundredAndOne}) },
		"credential missing":    func() error { return shared(agentkey.AddToolInput{}) },
		"credential blank":      func() error { return shared(agentkey.AddToolInput{Credential: agentkey.NewSecret([]byte(" \n"))}) },
		"credential too long":   func() error { return shared(agentkey.AddToolInput{Credential: secret(64<<10 + 1)}) },
		"credential not wanted": func() error { return s.addTool(agentkey.AddToolInput{Name: "tool", Credential: secret(8)}) },
		"credentialExpiresAt": func() error {
			return s.addTool(agentkey.AddToolInput{Name: "tool", CredentialExpiresAt: farOff})
		},
		"credentialExpiresAt 1970": func() error {
			return shared(agentkey.AddToolInput{Credential: secret(8), CredentialExpiresAt: longAgo})
		},
		"credentialExpiresAt 10000":    func() error { return s.updateTool(agentkey.UpdateToolInput{CredentialExpiresAt: &farOff}) },
		"credentialExpiresAt overflow": func() error { return s.updateTool(agentkey.UpdateToolInput{CredentialExpiresAt: &never}) },
		"credentialExpiresAt new": func() error {
			return s.updateTool(agentkey.UpdateToolInput{Credential: secret(8), CredentialExpiresAt: &longAgo})
		},
		"tool": func() error {
			return s.request(agentkey.RequestInput{Tool: strings.Repeat("a", 129), Reason: "to test"})
		},
		"duration": func() error { return s.request(agentkey.RequestInput{Reason: "to test", Duration: -1}) },
		"duration long": func() error {
			return s.request(agentkey.RequestInput{Reason: "to test", Duration: 11 * 8784 * time.Hour})
		},
		"max_vends":       func() error { return s.request(agentkey.RequestInput{Reason: "to test", MaxVends: -1}) },
		"max_vends large": func() error { return s.request(agentkey.RequestInput{Reason: "to test", MaxVends: 1e9 + 1}) },
		"scopes": func() error {
			return s.request(agentkey.RequestInput{Reason: "to test", Scopes: []string{canaryText + " a"}})
		},
		"scopes empty": func() error { return s.request(agentkey.RequestInput{Reason: "to test", Scopes: []string{}}) },
		"scopes twice": func() error { return s.request(agentkey.RequestInput{Reason: "to test", Scopes: []string{"a", "a"}}) },
		"scopes many":  func() error { return s.request(agentkey.RequestInput{Reason: "to test", Scopes: make([]string, 65)}) },
		"scopes narrowed": func() error {
			return second(s.Narrow(ctx, s.Owner, s.granted.ID, agentkey.Terms{Scopes: []string{"\xff"}}))
		},
		"role": func() error {
			return second(s.AddAdministrator(ctx, s.Owner, agentkey.AddAdministratorInput{Label: "x", Role: canaryText}))
		},
		"kind": func() error {
			return second(s.AddAdministrator(ctx, s.Owner, agentkey.AddAdministratorInput{Label: "x", Role: "admin", Kind: "agent"}))
		},
		"expiresIn": func() error {
			return second(s.CreateToken(ctx, s.Owner, agentkey.CreateTokenInput{ExpiresIn: -1}))
		},
		"token short": func() error {
			return second(s.CreateOrganization(ctx, agentkey.Operator("t"), agentkey.CreateOrganizationInput{Name: "more", Owner: "o", Token: secret(31)}))
		},
		"token long": func() error {
			return second(s.CreateOrganization(ctx, agentkey.Operator("t"), agentkey.CreateOrganizationInput{Name: "more", Owner: "o", Token: secret(513)}))
		},
		"action":        func() error { return s.record(agentkey.RecordInput{Action: "credential.vended"}) },
		"action syntax": func() error { return s.record(agentkey.RecordInput{Action: "x.Acme.done"}) },
		"target":        func() error { return s.record(agentkey.RecordInput{Target: audit.Ref{Kind: "Kind", ID: "x"}}) },
		"target details": func() error {
			return s.record(agentkey.RecordInput{Details: map[string]string{"key": canaryText + "\x00"}})
		},
		"details": func() error { return s.record(agentkey.RecordInput{Details: manyDetails()}) },
		"limit":   func() error { return second(s.Agents(ctx, s.Owner, agentkey.ListInput{Limit: 501})) },
		"limit -": func() error { return second(s.Tools(ctx, s.Owner, agentkey.ListInput{Limit: -1})) },
		"limit of events": func() error {
			return second(s.Events(ctx, s.Owner, agentkey.EventsInput{Limit: 501}))
		},
		"cursor": func() error { return second(s.Events(ctx, s.Owner, agentkey.EventsInput{Cursor: canaryText})) },
		"filter": func() error {
			return second(s.Events(ctx, s.Owner, agentkey.EventsInput{Filter: audit.Filter{Agent: "a b"}}))
		},
		"status": func() error { return second(s.Grants(ctx, s.Owner, agentkey.GrantsInput{Status: canaryText})) },
	} {
		field, _, _ := strings.Cut(name, " ")
		if strings.HasPrefix(fmt.Sprint(call()), "not found") {
			t.Errorf("%s: the call does not come to it", name)
		}
		s.invalid(name, field, "", call)
	}
}

func (s *stage) record(in agentkey.RecordInput) error {
	if in.Action == "" {
		in.Action = "x.acme.tested"
	}
	return second(s.Record(s.t.Context(), s.Owner, in))
}

func manyDetails() map[string]string {
	m := map[string]string{}
	for i := range 33 {
		m[fmt.Sprintf("k%d", i)] = "v"
	}
	return m
}

// Ids that no record can have are not found or invalid, and never storage that
// does not answer.
func TestIdsThatCanNotBe(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	ctx := t.Context()
	for _, bad := range []string{"", "\x00", "\xff", "a b", strings.Repeat("a", 1000), "é"} {
		for name, err := range map[string]error{
			"Agent":        second(s.Manager.Agent(ctx, s.Owner, bad)),
			"AgentKeys":    second(s.AgentKeys(ctx, s.Owner, agentkey.AgentKeysInput{Agent: bad})),
			"SuspendAgent": second(s.SuspendAgent(ctx, s.Owner, bad)),
			"RotateKey":    second(s.RotateKey(ctx, s.Owner, bad, agentkey.RotateKeyInput{})),
			"RevokeKey":    s.RevokeKey(ctx, s.Owner, s.bot.ID, bad),
			"Tool":         second(s.Manager.Tool(ctx, s.Owner, bad)),
			"UpdateTool":   second(s.UpdateTool(ctx, s.Owner, bad, agentkey.UpdateToolInput{})),
			"DeleteTool":   second(s.DeleteTool(ctx, s.Owner, bad)),
			"Approve":      second(s.Approve(ctx, s.Owner, bad, agentkey.DecisionInput{})),
			"Deny":         second(s.Deny(ctx, s.Owner, bad, "")),
			"Narrow":       second(s.Narrow(ctx, s.Owner, bad, agentkey.Terms{MaxVends: 1})),
			"Revoke":       second(s.Revoke(ctx, s.Owner, s.bot.ID, bad)),
			"Revoke agent": second(s.Revoke(ctx, s.Owner, bad, s.tool.ID)),
			"Assign":       second(s.Assign(ctx, s.Owner, agentkey.AssignInput{Agent: bad, Tool: s.tool.ID})),
			"Remove":       s.RemoveAdministrator(ctx, s.Owner, bad),
			"RevokeToken":  s.RevokeToken(ctx, s.Owner, bad),
			"Vend":         second(s.Vend(ctx, s.requester, bad)),
			"Request":      second(s.RequestAccess(ctx, s.requester, agentkey.RequestInput{Tool: bad, Reason: "to test"})),
			"Caller":       second(s.Vend(ctx, agentkey.TrustedAgent(s.Kit.Organization.ID, bad), s.tool.ID)),
			"Caller of":    second(s.Vend(ctx, agentkey.TrustedAgent(bad, s.bot.ID), s.tool.ID)),
			"Key":          second(s.Vend(ctx, agentkey.Key(bad), s.tool.ID)),
		} {
			if !errors.Is(err, agentkey.ErrNotFound) && !errors.Is(err, agentkey.ErrInvalid) && !errors.Is(err, agentkey.ErrUnauthenticated) {
				t.Errorf("%s of %q: got %v", name, bad[:min(len(bad), 5)], err)
			}
		}
		for name, err := range map[string]error{
			"Agents":  second(s.Agents(ctx, s.Owner, agentkey.ListInput{Name: bad, After: bad})),
			"Tools":   second(s.Tools(ctx, s.Owner, agentkey.ListInput{Name: bad, After: bad})),
			"Grants":  second(s.Grants(ctx, s.Owner, agentkey.GrantsInput{Agent: bad, Tool: bad, After: bad})),
			"Catalog": second(s.Catalog(ctx, s.requester, agentkey.CatalogInput{After: bad})),
		} {
			if err != nil && !errors.Is(err, agentkey.ErrInvalid) {
				t.Errorf("%s of %q: got %v", name, bad[:min(len(bad), 5)], err)
			}
		}
	}
}

// A limit is never so small that it becomes none.
func TestShortestDuration(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	is.NoErr(s.request(agentkey.RequestInput{Reason: "to test", Duration: time.Nanosecond}))
	g, err := s.Approve(t.Context(), s.boss(), s.pending.ID, agentkey.DecisionInput{})
	is.NoErr(err)
	is.True(g.ExpiresAt > 0)
	s.Clock.Advance(time.Microsecond)
	_, err = s.Vend(t.Context(), s.requester, s.pending.Tool)
	is.Equal(err, agentkey.ErrExpired)
}

// Addresses of tools are stored in one form, or refused.
func TestToolURLs(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	for in, want := range map[string]string{
		"": "", "linear.app": "https://linear.app/", " Linear.APP ": "https://linear.app/", "HTTPS://Linear.app/Path?q=A#f": "https://linear.app/Path?q=A#f",
		"http://127.0.0.1:8080": "http://127.0.0.1:8080/", "linear.app:8443/x": "https://linear.app:8443/x", "localhost": "https://localhost/",
		"https://[2001:db8::1]/x": "https://[2001:db8::1]/x", "linear.app/a/b": "https://linear.app/a/b",
		// As the URL standard (WHATWG) writes them.
		"HTTP://linear.app:80": "http://linear.app/", "linear.app:443/x": "https://linear.app/x", "https://linear.app:0443": "https://linear.app/",
		"http://linear.app:443": "http://linear.app:443/", "https://linear.app:08443/": "https://linear.app:8443/", "https://linear.app:/": "https://linear.app/",
		"https://linear.app/a/./b/../c": "https://linear.app/a/c", "https://linear.app/..": "https://linear.app/", "https://linear.app/a/..": "https://linear.app/",
		"https://linear.app/ü?x=ä&y='#ö": "https://linear.app/%C3%BC?x=%C3%A4&y=%27#%C3%B6", "https://linear.app/%7Eme?q=%zz&r=\"<>": "https://linear.app/%7Eme?q=%zz&r=%22%3C%3E",
		"https://linear.app?q": "https://linear.app/?q",
	} {
		v, err := s.AddTool(t.Context(), s.Owner, agentkey.AddToolInput{Name: "tool", URL: in, AuthType: "other", Mode: "per_agent"})
		is.NoErr(err)
		is.Equal(v.Tool.URL, want)
		v, err = s.AddTool(t.Context(), s.Owner, agentkey.AddToolInput{Name: "tool", URL: want, AuthType: "other", Mode: "per_agent"})
		is.NoErr(err)
		is.Equal(v.Tool.URL, want) // it stays
	}
	for _, bad := range []string{
		"ftp://x/y", "javascript:alert(1)", "mailto:a@b.c", "https://", "https:///x", "http://user:pass@host/", "user@host", "data:text/html,x",
		"//host/x", "https://exa mple.com", "https://host:port/", "https://%zz/", "\\\\host\\x", "https://host\u202e/", "https://host:65536/", "file:///etc/passwd", "https://ho<st/",
	} {
		err := s.addTool(agentkey.AddToolInput{Name: "tool", URL: bad})
		if !errors.Is(err, agentkey.ErrInvalid) || strings.Contains(err.Error(), bad) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// What a client sends along never stops a call: what can't stand in an event is
// left out or mended.
func TestRequestContext(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	a := s.Owner
	a.Context = agentkey.RequestContext{
		Request: "req-1", ClientRequest: strings.Repeat("x", 300), Trace: "tr ace", UserAgent: "agent\xff\x00" + strings.Repeat("語", 1000),
	}
	is.NoErr(second(s.Revoke(t.Context(), a, s.bot.ID, s.tool.ID)))
	page, err := s.Events(t.Context(), s.Owner, agentkey.EventsInput{Limit: 1})
	is.NoErr(err)
	e := page.Events[0]
	is.Equal([]string{e.Request, e.ClientRequest, e.Trace}, []string{"req-1", "", ""})
	is.True(strings.HasPrefix(e.Personal.UserAgent, "agent\uFFFD"))
	is.True(len(e.Personal.UserAgent) <= 1024)
}

// TestAllMistakesAtOnce: what tags say and what they can't say come in one list.
func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	k := newStage(t)
	early := time.Unix(-1, 0)
	bad := "ftp://x/y"
	tests := map[string]struct {
		in   any
		want string
	}{
		"tool": {&agentkey.AddToolInput{Name: "x", Mode: "shared", AuthType: "other", URL: bad, CredentialExpiresAt: early}, "name credential credentialExpiresAt url"},
		"tool of agents": {&agentkey.AddToolInput{
			Name: "ok", Mode: "per_agent", AuthType: "other", Credential: agentkey.NewSecret([]byte("lin_api_test_x")), CredentialExpiresAt: time.Unix(1, 0),
		}, "credential credentialExpiresAt"},
		"change":   {&agentkey.UpdateToolInput{Name: new("x"), URL: &bad, CredentialExpiresAt: &early}, "name url credentialExpiresAt"},
		"request":  {&agentkey.RequestInput{Tool: "t", Reason: "four", Duration: -1, MaxVends: 1 << 62, Scopes: []string{}}, "reason duration max_vends scopes"},
		"decision": {&agentkey.DecisionInput{Duration: 1 << 62, MaxVends: -1, Scopes: []string{"a", "a"}}, "maxVends expiresIn scopes"},
		"right":    {&agentkey.RequestInput{Tool: "t", Reason: "  needed "}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			err := k.CheckInput(tt.in)
			var invalid *agentkey.ValidationError
			is.Equal(errors.As(err, &invalid), tt.want != "")
			var fields []string
			if invalid != nil {
				for _, f := range invalid.Fields {
					fields = append(fields, f.Field)
				}
			}
			is.Equal(strings.Join(fields, " "), tt.want)
		})
	}
}
