package agentkey_test

import (
	"errors"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// wishes is an organization whose agents suggest tools.
type wishes struct {
	*agentkeytest.Kit
	t           *testing.T
	bot, other  agentkey.Agent
	botKey, key agentkey.Caller
	notes       *notes
}

func newWishes(t *testing.T, options ...func(*agentkey.Config)) *wishes {
	t.Helper()
	w := &wishes{t: t, notes: &notes{}}
	w.Kit = agentkeytest.New(t, append(options, func(c *agentkey.Config) { c.Notifier = w.notes })...)
	w.bot, w.botKey = w.Agent("bot")
	w.other, w.key = w.Agent("other")
	return w
}

func (w *wishes) try(c agentkey.Caller, name, url, reason string) (agentkey.ToolSuggested, error) {
	return w.SuggestTool(w.t.Context(), c, agentkey.SuggestToolInput{Name: name, URL: url, Reason: reason})
}

func (w *wishes) suggest(c agentkey.Caller, name, url string) agentkey.ToolSuggested {
	w.t.Helper()
	s, err := w.try(c, name, url, "to do my work")
	noErr(w.t, err)
	return s
}

func (w *wishes) read(id string) agentkey.ToolSuggestion {
	w.t.Helper()
	s, err := w.ToolSuggestion(w.t.Context(), w.Owner, id)
	noErr(w.t, err)
	return s
}

func (w *wishes) add(name, url string) agentkey.Tool {
	w.t.Helper()
	v, err := w.AddTool(w.t.Context(), w.Owner, agentkey.AddToolInput{Name: name, URL: url, AuthType: "api_key", Mode: "per_agent"})
	noErr(w.t, err)
	return v.Tool
}

// grants are the grants to a tool by agent.
func (w *wishes) grants(tool string) map[string]agentkey.Request {
	w.t.Helper()
	found, err := w.Grants(w.t.Context(), w.Owner, agentkey.GrantsInput{Tool: tool, Limit: 500})
	noErr(w.t, err)
	out := make(map[string]agentkey.Request)
	for _, g := range found {
		out[g.Agent] = g
	}
	return out
}

func (w *wishes) agrees() {
	w.t.Helper()
	r, err := w.Reconcile(w.t.Context(), w.Owner)
	noErr(w.t, err)
	if !r.OK() {
		w.t.Errorf("reconcile: %+v", r.Findings)
	}
}

// What is the same suggestion, and what is another one.
func TestSameSuggestion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		first, second [2]string // name and URL
		same          bool
	}{
		{[2]string{"Linear", ""}, [2]string{"LINEAR", ""}, true},
		{[2]string{"Linear App", ""}, [2]string{"  linear — app!", ""}, true},
		{[2]string{"Linear", ""}, [2]string{"Ｌｉｎｅａｒ", ""}, true},
		{[2]string{"Straße", ""}, [2]string{"STRASSE", ""}, true},
		{[2]string{"飛書", ""}, [2]string{"飛書", ""}, true},
		{[2]string{"飛書", ""}, [2]string{"微信", ""}, false}, // which have no Latin letter
		{[2]string{"Яндекс", ""}, [2]string{"Трекер", ""}, false},
		{[2]string{"Linear", ""}, [2]string{"Linear 2", ""}, false},
		{[2]string{"Linear", "linear.app"}, [2]string{"Issue tracker", "https://www.linear.app/login"}, true},
		{[2]string{"Linear", "linear.app"}, [2]string{"Linear", "linear.example.com"}, false},
		{[2]string{"Linear", "linear.app"}, [2]string{"Linear", ""}, true},
		{[2]string{"Linear", ""}, [2]string{"linear", "linear.app"}, true},
		{[2]string{"Linear", "http://linear.app:8080/x"}, [2]string{"Other", "LINEAR.app"}, true},
		{[2]string{"Bank", "münchen.example"}, [2]string{"Other", "https://xn--mnchen-3ya.example/"}, true},
	} {
		is := is.New(t)
		w := newWishes(t)
		a := w.suggest(w.botKey, tt.first[0], tt.first[1])
		b := w.suggest(w.key, tt.second[0], tt.second[1])
		is.True(!a.Existing)
		if (a.ID == b.ID) != tt.same || b.Existing != tt.same {
			t.Errorf("%q and %q: %+v %+v", tt.first, tt.second, a, b)
		}
	}
}

// What a suggestion meets in the catalog.
func TestSuggestionOfATool(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	plain, sited := w.add("Sentry", ""), w.add("Linear", "linear.app")
	newer := w.add("Linear", "www.linear.app")
	for _, tt := range []struct{ name, url, tool string }{
		{"sentry", "", plain.ID},
		{"SENTRY!", "", plain.ID},
		{"Sentry", "sentry.io", ""}, // a tool without a URL is no tool of that domain
		{"linear", "", newer.ID},    // the newest of those that fit
		{"Issues", "https://linear.app/x", newer.ID},
		{"Linear", "linear.example.com", ""},
	} {
		s, err := w.try(w.botKey, tt.name, tt.url, "to do my work")
		var known *agentkey.ExistingToolError
		if tt.tool == "" {
			is.NoErr(err)
			is.Equal(s.Status, agentkey.SuggestionPending)
			continue
		}
		is.True(errors.As(err, &known) && errors.Is(err, agentkey.ErrConflict))
		is.Equal(known.Tool, tt.tool)
	}
	_, err := w.DeleteTool(t.Context(), w.Owner, newer.ID)
	is.NoErr(err)
	_, err = w.try(w.botKey, "Issues", "linear.app", "to do my work")
	var known *agentkey.ExistingToolError
	is.True(errors.As(err, &known))
	is.Equal(*known, agentkey.ExistingToolError{Tool: sited.ID, Name: "Linear"}) // the next one
	name, url := "Bugs", "bugs.example.com"
	_, err = w.UpdateTool(t.Context(), w.Owner, sited.ID, agentkey.UpdateToolInput{Name: &name, URL: &url})
	is.NoErr(err)
	is.True(!w.suggest(w.botKey, "Tickets", "linear.app").Existing) // it has left that domain
	is.True(errors.Is(second(w.try(w.botKey, "Other", "bugs.example.com", "to do my work")), agentkey.ErrToolExists))
	w.agrees()
}

func TestSuggestionInput(t *testing.T) {
	t.Parallel()
	w := newWishes(t)
	for _, bad := range []agentkey.SuggestToolInput{
		{Name: "x", Reason: "to do my work"}, {Name: "👍👍", Reason: "to do my work"}, {Name: "-- --", Reason: "to do my work"},
		{Name: "Linear", Reason: "why"}, {Name: "Linear", URL: "ftp://linear.app", Reason: "to do my work"},
		{Name: "Lin\u202eear", Reason: "to do my work"}, {Name: "Linear\x00", Reason: "to do my work"},
		{Name: "Linear", URL: "javascript:alert(1)", Reason: "to do my work"},
	} {
		_, err := w.SuggestTool(t.Context(), w.botKey, bad)
		if !errors.Is(err, agentkey.ErrInvalid) {
			t.Errorf("%+q: got %v", bad.Name, err)
		}
	}
	list, err := w.ToolSuggestions(t.Context(), w.Owner, agentkey.ToolSuggestionsInput{})
	if err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

// Support counts agents, keeps what each said last, and only ever adds a URL.
func TestSupport(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	begin := w.Clock.Now().UnixMicro()
	id := w.suggest(w.botKey, "Linear", "").ID
	w.Clock.Advance(time.Minute)
	w.suggest(w.key, "linear", "linear.app")
	w.Clock.Advance(time.Minute)
	is.Equal(second(w.try(w.botKey, "LINEAR", "linear.app", "and once more")), nil)
	s := w.read(id)
	is.Equal([]any{s.Name, s.URL, s.SupporterCount, s.CreatedBy}, []any{"Linear", "https://linear.app/", int64(2), w.bot.ID})
	is.Equal([]int64{s.FirstRequestedAt, s.LastRequestedAt}, []int64{begin, begin + 120_000_000})
	is.Equal(s.Supporters, []agentkey.Supporter{
		{Agent: w.bot.ID, AgentName: "bot", Reason: "and once more", FirstRequestedAt: begin, LastRequestedAt: begin + 120_000_000},
		{Agent: w.other.ID, AgentName: "other", Reason: "to do my work", FirstRequestedAt: begin + 60_000_000, LastRequestedAt: begin + 60_000_000},
	})
	page, err := w.ToolSupporters(t.Context(), w.Owner, agentkey.ToolSupportersInput{Suggestion: id, Limit: 1})
	is.NoErr(err)
	is.Equal(page.Supporters, s.Supporters[:1])
	page, err = w.ToolSupporters(t.Context(), w.Owner, agentkey.ToolSupportersInput{Suggestion: id, Cursor: page.Next, Limit: 2})
	is.NoErr(err)
	is.Equal(page.Supporters, s.Supporters[1:])
	is.Equal(page.Next, "")
	noErr(t, w.Sweep(t.Context()))
	is.Equal(len(w.notes.ids), 1) // the suggestion, and not the support
	w.agrees()
}

// A URL is not added when another suggestion stands for its domain: two would then
// be the same.
func TestDomainStaysUnique(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	w.suggest(w.botKey, "Issues", "linear.app")
	w.Clock.Advance(time.Second)
	named := w.suggest(w.botKey, "Linear", "").ID
	w.Clock.Advance(time.Second)
	is.Equal(w.suggest(w.key, "Linear", "linear.app").ID, named) // the one that changed last
	is.Equal(w.read(named).URL, "")
}

func TestDismissal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	id := w.suggest(w.botKey, "Linear", "linear.app").ID
	s, err := w.DismissToolSuggestion(t.Context(), w.Owner, id)
	is.NoErr(err)
	is.Equal(s.Status, agentkey.SuggestionDismissed)
	is.True(errors.Is(second(w.DismissToolSuggestion(t.Context(), w.Owner, id)), agentkey.ErrSuggestionDecided))
	is.True(errors.Is(second(w.DismissToolSuggestion(t.Context(), w.Owner, "unknown")), agentkey.ErrNoSuggestion))
	w.Clock.Advance(24*time.Hour - time.Microsecond)
	_, err = w.try(w.key, "Linear", "", "to do my work")
	var cooling *agentkey.CooldownError
	is.True(errors.As(err, &cooling) && errors.Is(err, agentkey.ErrConflict))
	is.Equal(cooling.Suggestion, id)
	is.Equal(cooling.RetryAfter.UnixMicro(), s.DismissedUntil)
	is.Equal(w.read(id).SupporterCount, int64(1)) // who came too early is no supporter
	w.Clock.Advance(time.Microsecond)
	again := w.suggest(w.key, "Linear", "")
	is.Equal(again, agentkey.ToolSuggested{ID: id, Status: agentkey.SuggestionPending})
	s = w.read(id)
	is.Equal(s.SupporterCount, int64(2)) // with those that it had
	is.Equal(s.DismissedUntil, int64(0))
	noErr(t, w.Sweep(t.Context()))
	is.Equal(len(w.notes.ids), 2) // and it is told like a new one
	w.agrees()
}

// Adding a tool accepts what it fits and what is named, opens requests for those
// who never had a grant, and for nobody else.
func TestResolution(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	ctx := t.Context()
	suspended, suspendedKey := w.Agent("suspended")
	byDomain := w.suggest(w.botKey, "Issues", "linear.app").ID
	w.Clock.Advance(time.Second)
	byName := w.suggest(w.key, "Linear", "").ID
	w.Clock.Advance(time.Second)
	is.Equal(second(w.try(w.botKey, "Linear", "", "the latest reason")), nil)
	w.suggest(suspendedKey, "Linear", "")
	named := w.suggest(w.key, "Tickets", "tickets.example.com").ID
	dismissed := w.suggest(w.key, "Sentry", "").ID
	is.Equal(second(w.DismissToolSuggestion(ctx, w.Owner, dismissed)), nil)
	is.Equal(second(w.SuspendAgent(ctx, w.Owner, suspended.ID)), nil)
	noErr(t, w.Sweep(ctx))
	before := len(w.notes.ids)
	v, err := w.AddTool(ctx, w.Owner, agentkey.AddToolInput{
		Name: "linear", URL: "https://www.linear.app", AuthType: "api_key", Mode: "per_agent", RequiredApprovals: 2, Suggestion: named,
	})
	is.NoErr(err)
	for id, want := range map[string]agentkey.SuggestionStatus{
		byDomain: agentkey.SuggestionAccepted, byName: agentkey.SuggestionAccepted, named: agentkey.SuggestionAccepted,
		dismissed: agentkey.SuggestionDismissed,
	} {
		is.Equal(w.read(id).Status, want)
	}
	is.Equal(w.read(byName).Tool, v.ID)
	got := w.grants(v.ID)
	is.Equal(len(got), 2)
	is.Equal([]any{got[w.bot.ID].Status, got[w.bot.ID].Reason, got[w.bot.ID].RequiredApprovals}, []any{grants.StatusPending, "the latest reason", int64(2)})
	is.Equal(got[w.other.ID].Status, grants.StatusPending)
	noErr(t, w.Sweep(ctx))
	is.Equal(len(w.notes.ids), before) // nobody is told

	elsewhere := w.suggest(w.botKey, "Linear", "linear.example.com").ID
	w.add("Linear", "")
	is.Equal(w.read(elsewhere).Status, agentkey.SuggestionPending) // a tool without a URL is no tool of that domain
	w.agrees()
}

// What suggestions rest on is sealed and in the log: an edited row, an index that
// leads elsewhere, a row that is gone.
func TestTamperedSuggestions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	suggest := func(c *burglary, name, url string) error {
		return second(c.m.SuggestTool(t.Context(), agentkey.TrustedAgent(c.org, c.bot), agentkey.SuggestToolInput{Name: name, URL: url, Reason: "to do my work"}))
	}
	for name, tt := range map[string]struct {
		kind   string
		attack func(c *burglary)
		call   func(c *burglary) error // nil: only Reconcile finds it
	}{
		"status of a suggestion": {
			"tool_suggestion",
			func(c *burglary) {
				c.change(`UPDATE agentkey_records SET payload = CAST(replace(CAST(payload AS TEXT), '"pending"', '"accepted"') AS BLOB) WHERE kind = 'tool_suggestion'`)
			},
			func(c *burglary) error { return suggest(c, "Sentry", "sentry.io") },
		},
		"reason of a supporter": {
			"tool_supporter",
			func(c *burglary) {
				c.change(`UPDATE agentkey_records SET payload = CAST(replace(CAST(payload AS TEXT), 'my work', 'mischief') AS BLOB) WHERE kind = 'tool_supporter'`)
			},
			func(c *burglary) error {
				return second(c.m.AddTool(t.Context(), c.owner, agentkey.AddToolInput{Name: "Sentry", URL: "sentry.io", AuthType: "api_key", Mode: "per_agent"}))
			},
		},
		"index of a tool": {
			"tool_identity",
			func(c *burglary) {
				c.change(`UPDATE agentkey_record_index SET value = 'grafana' WHERE kind = 'tool_identity' AND name = 'name' AND id = ?`, c.shared)
			},
			func(c *burglary) error { return suggest(c, "Grafana", "") },
		},
		"a tool's identity is gone": {
			"tool_identity",
			func(c *burglary) {
				c.change(`DELETE FROM agentkey_record_index WHERE kind = 'tool_identity' AND id = ?`, c.shared)
				c.change(`DELETE FROM agentkey_records WHERE kind = 'tool_identity' AND id = ?`, c.shared)
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := s.copy(t)
			c.warm()
			noErr(t, suggest(c, "Sentry", "sentry.io"))
			tt.attack(c)
			if tt.call != nil {
				c.refused(tt.kind, map[string]func() error{"call": func() error { return tt.call(c) }})
			}
			if name != "index of a tool" { // which is no part of a row: it is checked when it is followed
				c.disagrees(tt.kind)
			}
		})
	}
}
