package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// shelf is an agent with access to a tool, and what is written about that.
type shelf struct {
	*agentkeytest.Kit
	t    *testing.T
	bot  agentkey.Agent
	key  agentkey.Caller
	tool agentkey.Tool
}

func newShelf(t *testing.T, options ...func(*agentkey.Config)) *shelf {
	t.Helper()
	s := &shelf{Kit: agentkeytest.New(t, options...), t: t}
	s.bot, s.key = s.Agent("bot")
	s.tool = s.Tool("Linear", "lin_api_test_guides")
	s.Allow(s.bot, s.tool)
	return s
}

// write makes text the instructions, and gives the version that is current then.
func (s *shelf) write(text string) string {
	s.t.Helper()
	v, err := s.UpdateTool(s.t.Context(), s.Owner, s.tool.ID, agentkey.UpdateToolInput{Instructions: &text})
	noErr(s.t, err)
	return v.InstructionVersion
}

func (s *shelf) versions() []agentkey.InstructionVersion {
	s.t.Helper()
	page, err := s.InstructionVersions(s.t.Context(), s.Owner, agentkey.InstructionVersionsInput{Tool: s.tool.ID})
	noErr(s.t, err)
	return page.Versions
}

func (s *shelf) suggest(c agentkey.Caller, learned string) (agentkey.InstructionsSuggested, error) {
	return s.SuggestInstructions(s.t.Context(), c, agentkey.SuggestInstructionsInput{Tool: s.tool.ID, Learned: learned, Why: "It cost me a day."})
}

func (s *shelf) learn(learned string) string {
	s.t.Helper()
	out, err := s.suggest(s.key, learned)
	noErr(s.t, err)
	return out.ID
}

func (s *shelf) accept(id, text string) error {
	return second(s.UpdateTool(s.t.Context(), s.Owner, s.tool.ID, agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: id}))
}

func (s *shelf) agrees() {
	s.t.Helper()
	r, err := s.Reconcile(s.t.Context(), s.Owner)
	noErr(s.t, err)
	if !r.OK() {
		s.t.Errorf("reconcile: %+v", r.Findings)
	}
}

// A version for every other text and none for the same; each follows the one
// before and stays as it was written.
func TestInstructionVersions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ctx := t.Context()
	began := s.versions()
	is.Equal(len(began), 1) // also for a tool without instructions
	is.Equal(began[0].Source, agentkey.SourceToolCreated)
	is.Equal(began[0].Number, int64(1))
	is.Equal(began[0].Instructions, "")
	is.True(began[0].Current)

	s.Clock.Advance(time.Minute)
	one := s.write("Ask for pages.")
	is.Equal(s.write("  Ask for pages.\n"), one) // trimmed, it is the same
	name := "Linear, renamed"
	v, err := s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{Name: &name})
	is.NoErr(err)
	is.Equal(v.InstructionVersion, one)
	two := s.write("")
	back, err := s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{RestoreVersion: one})
	is.NoErr(err)
	is.Equal(back.Instructions, "Ask for pages.")

	all := s.versions()
	is.Equal(len(all), 4)
	for i, v := range all {
		is.Equal(v.Number, int64(4-i))
		is.Equal(v.Current, i == 0)
		is.Equal(v.Tool, s.tool.ID)
		is.Equal(v.CreatedBy, s.Owner.ID)
		is.Equal(v.CreatedByLabel, "owner@example.com")
	}
	is.Equal(all[3], func() agentkey.InstructionVersion { v := began[0]; v.Current = false; return v }())
	is.Equal(all[0].Source, agentkey.SourceRestored)
	is.Equal(all[0].RestoredFrom, one)
	is.Equal(all[0].ID, back.InstructionVersion)
	is.Equal(all[1].ID, two)
	is.Equal(all[2].CreatedAt-all[3].CreatedAt, time.Minute.Microseconds())

	current, err := s.Manager.InstructionVersion(ctx, s.Owner, s.tool.ID, "")
	is.NoErr(err)
	is.Equal(current, all[0])
	old, err := s.Manager.InstructionVersion(ctx, s.Owner, s.tool.ID, one)
	is.NoErr(err)
	is.Equal(old, all[2])

	vended, err := s.Vend(ctx, s.key, s.tool.ID)
	is.NoErr(err)
	is.Equal(vended.Tool.Instructions, "Ask for pages.") // the current ones
	text := "Ask for small pages."
	both, err := s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{Instructions: &text, RestoreVersion: began[0].ID})
	is.NoErr(err)
	is.Equal(both.Instructions, text) // the text that was sent counts
	is.Equal(s.versions()[0].RestoredFrom, began[0].ID)
	s.agrees()
}

// What is not there is not found, and what does not go together is refused.
func TestInstructionVersionsThatAreNot(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ctx := t.Context()
	other := s.Tool("GitHub", "ghp_test_guides")
	foreign, err := s.Manager.InstructionVersion(ctx, s.Owner, other.ID, "")
	is.NoErr(err)
	for _, version := range []string{foreign.ID, "unknown", s.tool.ID} {
		is.Equal(second(s.Manager.InstructionVersion(ctx, s.Owner, s.tool.ID, version)), agentkey.ErrNoVersion)
		is.Equal(second(s.DiffInstructions(ctx, s.Owner, s.tool.ID, version, "")), agentkey.ErrNoVersion)
		is.Equal(second(s.DiffInstructions(ctx, s.Owner, s.tool.ID, "", version)), agentkey.ErrNoVersion)
		is.Equal(second(s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{RestoreVersion: version})), agentkey.ErrNoVersion)
		is.True(errors.Is(second(s.InstructionVersions(ctx, s.Owner, agentkey.InstructionVersionsInput{Tool: s.tool.ID, After: version})), agentkey.ErrInvalid))
	}
	for _, tool := range []string{"unknown", ""} {
		is.Equal(second(s.InstructionVersions(ctx, s.Owner, agentkey.InstructionVersionsInput{Tool: tool})), agentkey.ErrNoTool)
		is.Equal(second(s.Manager.InstructionVersion(ctx, s.Owner, tool, "")), agentkey.ErrNoTool)
		is.Equal(second(s.DiffInstructions(ctx, s.Owner, tool, "", "")), agentkey.ErrNoTool)
	}
	for _, text := range []string{"\x00", "\xff"} {
		is.True(errors.Is(second(s.Manager.InstructionVersion(ctx, s.Owner, s.tool.ID, text)), agentkey.ErrInvalid))
		is.True(errors.Is(second(s.Manager.InstructionSuggestion(ctx, s.Owner, text)), agentkey.ErrInvalid))
		is.True(errors.Is(second(s.InstructionSuggestions(ctx, s.Owner, agentkey.InstructionSuggestionsInput{Tool: text})), agentkey.ErrInvalid))
	}
	id := s.learn("Pages end at 100 items.")
	both := agentkey.UpdateToolInput{AcceptSuggestion: id, RestoreVersion: foreign.ID}
	is.True(errors.Is(second(s.UpdateTool(ctx, s.Owner, s.tool.ID, both)), agentkey.ErrInvalid))
	is.Equal(s.accept("unknown", "x"), agentkey.ErrNoSuggestion)
	is.Equal(second(s.UpdateTool(ctx, s.Owner, other.ID, agentkey.UpdateToolInput{AcceptSuggestion: id})), agentkey.ErrNoSuggestion)
	is.Equal(second(s.DismissInstructionSuggestion(ctx, s.Owner, "unknown", "not true")), agentkey.ErrNoSuggestion)
	is.Equal(len(s.versions()), 1) // nothing of all this stands
	is.True(errors.Is(second(s.DismissInstructionSuggestion(ctx, s.Owner, id, "no")), agentkey.ErrInvalid))
	for _, in := range []agentkey.SuggestInstructionsInput{
		{Tool: s.tool.ID, Learned: "abcd", Why: "because"},
		{Tool: s.tool.ID, Learned: "because", Why: " abcd "},
		{Tool: s.tool.ID, Learned: strings.Repeat("𝒜", 1001), Why: "because"}, // two UTF-16 units each
		{Tool: s.tool.ID, Learned: "because", Why: strings.Repeat("x", 2001)},
		{Tool: s.tool.ID, Learned: "a\x00bcde", Why: "because"},
		{Tool: s.tool.ID, Learned: "-> != <- ...", Why: "because"}, // no word in it
		{Learned: "because", Why: "because"},
	} {
		is.True(errors.Is(second(s.SuggestInstructions(ctx, s.key, in)), agentkey.ErrInvalid))
	}
}

// A suggestion's life: supported in other words' clothes, accepted once, and not
// again once the instructions have changed.
func TestInstructionSuggestions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ctx := t.Context()
	other, otherKey := s.Agent("other")
	s.Allow(other, s.tool)
	first := s.learn("Pages end at 100 items.")
	s.Clock.Advance(time.Minute)
	for _, same := range []string{"pages END at 100 items", "Pages — end at: １００ items!"} {
		out, err := s.suggest(otherKey, same)
		is.NoErr(err)
		is.Equal(out, agentkey.InstructionsSuggested{ID: first, Status: agentkey.SuggestionPending, Existing: true})
	}
	got, err := s.Manager.InstructionSuggestion(ctx, s.Owner, first)
	is.NoErr(err)
	is.Equal(got.SupporterCount, int64(2))
	is.Equal(got.Supporters[0].AgentName, "other") // asked last
	is.Equal(got.Supporters[1].Agent, s.bot.ID)
	is.Equal(got.Learned, "Pages end at 100 items.") // in its first words
	is.Equal(got.LastRequestedAt-got.FirstRequestedAt, time.Minute.Microseconds())
	is.Equal(got.ToolName, "Linear")
	is.True(!got.Stale)

	stale := s.learn("Keys end after a year.")
	is.NoErr(s.accept(first, "Pages end at 100 items."))
	is.Equal(s.accept(first, "once more"), agentkey.ErrSuggestionDecided)
	is.Equal(s.accept(stale, "Keys end after a year."), agentkey.ErrInstructionsChanged)
	got, err = s.Manager.InstructionSuggestion(ctx, s.Owner, first)
	is.NoErr(err)
	is.Equal(got.Status, agentkey.SuggestionAccepted)
	version := s.versions()[0]
	is.Equal(got.AcceptedVersion, version.ID)
	is.Equal(version.Suggestion, first)
	is.Equal(version.Source, agentkey.SourceSuggestion)
	old, err := s.Manager.InstructionSuggestion(ctx, s.Owner, stale)
	is.NoErr(err)
	is.True(old.Stale && old.Status == agentkey.SuggestionPending) // still to be read

	anew, err := s.suggest(s.key, "Keys end after a year.") // for the version of now
	is.NoErr(err)
	is.True(anew.ID != stale && !anew.Existing)
	again, err := s.suggest(s.key, "Pages end at 100 items.")
	is.NoErr(err)
	is.True(!again.Existing) // accepted for the version before
	is.NoErr(second(s.DismissInstructionSuggestion(ctx, s.Owner, stale, "out of date")))
	out, err := s.suggest(s.key, "keys end after a year")
	is.NoErr(err)
	is.Equal(out.ID, anew.ID) // what was dismissed was for another version
	s.agrees()
}

// A dismissed suggestion answers with why, as long as the instructions are those
// that it is for. So does one that was accepted without another text.
func TestSettledInstructionSuggestions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ctx := t.Context()
	id := s.learn("Pages end at 100 items.")
	dismissed, err := s.DismissInstructionSuggestion(ctx, s.Owner, id, " They end at 250. ")
	is.NoErr(err)
	is.Equal(dismissed.Status, agentkey.SuggestionDismissed)
	is.Equal(dismissed.DismissalReason, "They end at 250.")
	is.Equal(dismissed.DecidedBy, s.Owner.ID)
	is.Equal(second(s.DismissInstructionSuggestion(ctx, s.Owner, id, "They end at 250.")), agentkey.ErrSuggestionDecided)
	is.Equal(s.accept(id, "x"), agentkey.ErrSuggestionDecided)
	_, err = s.suggest(s.key, "pages end at 100 items")
	var settled *agentkey.SettledInstructionsError
	is.True(errors.As(err, &settled) && errors.Is(err, agentkey.ErrInstructionsDismissed) && errors.Is(err, agentkey.ErrConflict))
	is.Equal(settled.Suggestion, id)
	is.Equal(settled.Reason, "They end at 250.")
	got, err := s.Manager.InstructionSuggestion(ctx, s.Owner, id)
	is.NoErr(err)
	is.Equal(got.SupporterCount, int64(1))

	current := s.write("Keys end after a year.")
	known := s.learn("Keys end after a year.")
	v, err := s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{AcceptSuggestion: known})
	is.NoErr(err)
	is.Equal(v.InstructionVersion, current) // the text says it already
	got, err = s.Manager.InstructionSuggestion(ctx, s.Owner, known)
	is.NoErr(err)
	is.Equal(got.AcceptedVersion, current)
	_, err = s.suggest(s.key, "keys end after a year")
	is.True(errors.As(err, &settled) && errors.Is(err, agentkey.ErrInstructionsAccepted))
	is.Equal(*settled, func() agentkey.SettledInstructionsError { e := *settled; e.Suggestion, e.Reason = known, ""; return e }())

	is.NoErr(second(s.UpdateTool(ctx, s.Owner, s.tool.ID, agentkey.UpdateToolInput{RestoreVersion: s.versions()[1].ID})))
	again, err := s.suggest(s.key, "Pages end at 100 items.") // the same text as then, and another version
	is.NoErr(err)
	is.True(!again.Existing)
	s.agrees()
}

// Whoever may not have the credential can't say how to use it, whatever ended it.
func TestOnlyApprovedAgentsLearn(t *testing.T) {
	t.Parallel()
	assign := func(in agentkey.DecisionInput) func(s *shelf) error {
		return func(s *shelf) error {
			if err := second(s.Revoke(s.t.Context(), s.Owner, s.bot.ID, s.tool.ID)); err != nil {
				return err
			}
			return second(s.Assign(s.t.Context(), s.Owner, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.tool.ID, DecisionInput: in}))
		}
	}
	ask := func(s *shelf) error {
		if err := second(s.Revoke(s.t.Context(), s.Owner, s.bot.ID, s.tool.ID)); err != nil {
			return err
		}
		return second(s.RequestAccess(s.t.Context(), s.key, agentkey.RequestInput{Tool: s.tool.ID, Reason: "to test"}))
	}
	for name, test := range map[string]struct {
		end  func(s *shelf) error
		want *agentkey.Error
	}{
		"none":         {func(s *shelf) error { s.tool = s.Tool("GitHub", "ghp_test_guides"); return nil }, agentkey.ErrNoGrant},
		"unknown tool": {func(s *shelf) error { s.tool.ID = "unknown"; return nil }, agentkey.ErrNoTool},
		"deleted tool": {func(s *shelf) error { return second(s.DeleteTool(s.t.Context(), s.Owner, s.tool.ID)) }, agentkey.ErrNoTool},
		"pending":      {ask, agentkey.ErrPending},
		"denied": {func(s *shelf) error {
			if err := ask(s); err != nil {
				return err
			}
			requests, err := s.Grants(s.t.Context(), s.Owner, agentkey.GrantsInput{Status: "pending"})
			if err != nil {
				return err
			}
			return second(s.Deny(s.t.Context(), s.Owner, requests[0].ID, "no"))
		}, agentkey.ErrDenied},
		"revoked": {func(s *shelf) error { return second(s.Revoke(s.t.Context(), s.Owner, s.bot.ID, s.tool.ID)) }, agentkey.ErrRevoked},
		"expired": {func(s *shelf) error {
			err := assign(agentkey.DecisionInput{Duration: time.Minute})(s)
			s.Clock.Advance(time.Minute)
			return err
		}, agentkey.ErrExpired},
		"used up": {func(s *shelf) error {
			if err := assign(agentkey.DecisionInput{MaxVends: 1})(s); err != nil {
				return err
			}
			return second(s.Vend(s.t.Context(), s.key, s.tool.ID))
		}, agentkey.ErrUsedUp},
		"locked":    {func(s *shelf) error { return second(s.Lock(s.t.Context(), s.Owner, "")) }, agentkey.ErrOrganizationLocked},
		"suspended": {func(s *shelf) error { return second(s.SuspendAgent(s.t.Context(), s.Owner, s.bot.ID)) }, agentkey.ErrSuspended},
		"dead key": {func(s *shelf) error {
			return second(s.RotateKey(s.t.Context(), s.Owner, s.bot.ID, agentkey.RotateKeyInput{}))
		}, agentkey.ErrKeyRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			s := newShelf(t)
			is.NoErr(test.end(s))
			for range 2 {
				is.True(errors.Is(second(s.suggest(s.key, "Pages end at 100 items.")), test.want))
			}
			page, err := s.InstructionSuggestions(t.Context(), s.Owner, agentkey.InstructionSuggestionsInput{})
			is.NoErr(err)
			is.Equal(len(page.Suggestions), 0)
			events, err := s.Events(t.Context(), s.Owner, agentkey.EventsInput{Filter: audit.Filter{Actor: s.bot.ID, Outcome: audit.OutcomeRefused}})
			is.NoErr(err)
			is.Equal(len(events.Events), 1) // the first time in a minute
			s.agrees()
		})
	}
}

// A notification goes out for what is new, and not for support.
func TestInstructionSuggestionsAreNotified(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	told := &told{}
	s := newShelf(t, func(c *agentkey.Config) { c.Notifier = told })
	id := s.learn("Pages end at 100 items.")
	is.Equal(s.learn("pages end at 100 items"), id)
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(told.all), 1)
	n := told.all[0]
	is.Equal(n.Topic, agentkey.TopicInstructionsSuggested)
	is.Equal([]string{n.Suggestion, n.Tool, n.ToolName, n.AgentName, n.Learned, n.Reason},
		[]string{id, s.tool.ID, "Linear", "bot", "Pages end at 100 items.", "It cost me a day."})
}

type told struct{ all []agentkey.Notification }

func (n *told) Notify(_ context.Context, x agentkey.Notification) error {
	n.all = append(n.all, x)
	return nil
}

// Lists come whole, page by page, with their filters.
func TestInstructionListsByCursor(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ctx := t.Context()
	other := s.Tool("GitHub", "ghp_test_guides")
	s.Allow(s.bot, other)
	var ids []string
	for i := range 7 {
		s.write(fmt.Sprintf("version %d", i+2))
		id := s.learn(fmt.Sprintf("fact %d", i))
		ids = append([]string{id}, ids...)
	}
	for _, id := range ids[:3] {
		is.NoErr(second(s.DismissInstructionSuggestion(ctx, s.Owner, id, "not true")))
	}
	own := s.tool
	s.tool = other
	elsewhere := s.learn("fact 1")
	s.tool = own
	for _, test := range []struct {
		in   agentkey.InstructionSuggestionsInput
		want []string
	}{
		{agentkey.InstructionSuggestionsInput{}, append([]string{elsewhere}, ids...)},
		{agentkey.InstructionSuggestionsInput{Tool: own.ID}, ids},
		{agentkey.InstructionSuggestionsInput{Status: agentkey.SuggestionDismissed}, ids[:3]},
		{agentkey.InstructionSuggestionsInput{Tool: own.ID, Status: agentkey.SuggestionPending}, ids[3:]},
		{agentkey.InstructionSuggestionsInput{Tool: other.ID, Status: agentkey.SuggestionDismissed}, nil},
	} {
		var got []string
		for test.in.Limit = 2; ; {
			page, err := s.InstructionSuggestions(ctx, s.Owner, test.in)
			is.NoErr(err)
			for _, x := range page.Suggestions {
				got = append(got, x.ID)
			}
			if test.in.After = page.Next; page.Next == "" {
				break
			}
		}
		is.Equal(got, test.want)
	}
	is.True(errors.Is(second(s.InstructionSuggestions(ctx, s.Owner, agentkey.InstructionSuggestionsInput{Status: "new"})), agentkey.ErrInvalid))

	var numbers []int64
	for in := (agentkey.InstructionVersionsInput{Tool: own.ID, Limit: 3}); ; {
		page, err := s.InstructionVersions(ctx, s.Owner, in)
		is.NoErr(err)
		for _, v := range page.Versions {
			numbers = append(numbers, v.Number)
		}
		if in.After = page.Next; page.Next == "" {
			break
		}
	}
	is.Equal(numbers, []int64{8, 7, 6, 5, 4, 3, 2, 1})

	var names []string
	for i := range 25 {
		agent, key := s.Agent(fmt.Sprintf("bot %02d", i))
		s.Allow(agent, own)
		s.Clock.Advance(time.Second)
		is.NoErr(second(s.suggest(key, "fact 6, once more"))) // of the last version
		names = append([]string{agent.Name}, names...)
	}
	many, err := s.InstructionSuggestions(ctx, s.Owner, agentkey.InstructionSuggestionsInput{Tool: own.ID, Limit: 1})
	is.NoErr(err)
	is.Equal(many.Suggestions[0].SupporterCount, int64(25))
	is.Equal(len(many.Suggestions[0].Supporters), 20)
	var got []string
	for in := (agentkey.InstructionSupportersInput{Suggestion: many.Suggestions[0].ID, Limit: 10}); ; {
		page, err := s.InstructionSupporters(ctx, s.Owner, in)
		is.NoErr(err)
		for _, x := range page.Supporters {
			got = append(got, x.AgentName)
		}
		if in.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	is.Equal(got, names)
	s.agrees()
}

// A tool with more than one transaction should remove is gone at once, and what
// went with it in parts of bounded size.
func TestDeletedToolTakesItsGuideAlong(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := memstore.New()
	s := newShelf(t, func(c *agentkey.Config) { c.Storage = store })
	ctx := t.Context()
	var id string
	for i := range 450 {
		s.write(fmt.Sprintf("version %d", i))
		if i%3 == 0 {
			id = s.learn(fmt.Sprintf("fact %d", i))
		}
	}
	kept := s.Tool("GitHub", "ghp_test_guides")
	is.NoErr(second(s.DeleteTool(ctx, s.Owner, s.tool.ID)))
	page, err := s.InstructionSuggestions(ctx, s.Owner, agentkey.InstructionSuggestionsInput{})
	is.NoErr(err)
	is.Equal(len(page.Suggestions), 0) // at once
	is.Equal(second(s.Manager.InstructionSuggestion(ctx, s.Owner, id)), agentkey.ErrNoSuggestion)
	is.Equal(second(s.DismissInstructionSuggestion(ctx, s.Owner, id, "not true")), agentkey.ErrNoSuggestion)
	is.Equal(second(s.InstructionVersions(ctx, s.Owner, agentkey.InstructionVersionsInput{Tool: s.tool.ID})), agentkey.ErrNoTool)
	s.agrees()
	is.NoErr(second(s.DeleteTool(ctx, s.Owner, s.Tool("GitLab", "glp_test_guides").ID))) // another one that waits
	is.NoErr(s.Sweep(ctx))
	s.agrees()

	left := map[string]int{}
	err = store.View(ctx, s.Organization.ID, func(ctx context.Context, tx storage.ReadTx) error {
		for _, kind := range []string{"tool_guide", "tool_instruction_version", "tool_instruction_suggestion", "tool_instruction_supporter", "tool_removal"} {
			found, err := tx.ScanRecords(ctx, storage.Scan{Kind: kind, Limit: 1000})
			if err != nil {
				return err
			}
			left[kind] = len(found)
		}
		return nil
	})
	is.NoErr(err)
	is.Equal(left, map[string]int{
		"tool_guide": 1, "tool_instruction_version": 1, // of the tool that was kept
		"tool_instruction_suggestion": 0, "tool_instruction_supporter": 0, "tool_removal": 0,
	})
	events, err := s.Events(ctx, s.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionToolInstructionsRemoved}})
	is.NoErr(err)
	is.True(len(events.Events) >= 5)
	for _, e := range events.Events {
		is.True(len(e.Changes) <= 201) // with the record of what is left
	}
	is.NoErr(s.Sweep(ctx))
	is.Equal(second(s.Manager.InstructionVersion(ctx, s.Owner, kept.ID, "")), nil)
}

// Deleted tools of many organizations are all found, also past one whose records
// were damaged.
func TestRemovalsOfManyOrganizations(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := memstore.New()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	ctx := t.Context()
	owners := []agentkey.Actor{k.Owner}
	for i := range 4 {
		_, owner := k.NewOrganization(fmt.Sprintf("Other %d", i))
		owners = append(owners, owner)
	}
	var id string
	for _, owner := range slices.Backward(owners) {
		id = addTool(t, k.Manager, owner, "Linear", "lin_api_test_guides")
		is.NoErr(second(k.DeleteTool(ctx, owner, id)))
	}
	damaged := owners[0].Organization
	is.NoErr(store.Update(ctx, damaged, func(ctx context.Context, tx storage.Tx) error {
		r, _, err := tx.Record(ctx, "tool_removal", "waiting")
		if err != nil {
			return err
		}
		r.Revision, r.Payload = r.Revision+1, []byte(`{"forged":true}`)
		_, err = tx.PutRecord(ctx, r)
		return err
	}))
	is.True(errors.Is(k.Sweep(ctx), agentkey.ErrIntegrity))
	waiting, err := store.FindRecord(ctx, "tool_removal", "waiting")
	is.NoErr(err)
	is.Equal(waiting, []string{damaged})
	is.NoErr(store.Update(ctx, damaged, func(ctx context.Context, tx storage.Tx) error {
		r, _, err := tx.Record(ctx, "tool_removal", "waiting")
		if err != nil {
			return err
		}
		r.Revision, r.Payload = r.Revision+1, []byte("{}")
		if _, err := tx.PutRecord(ctx, r); err != nil {
			return err
		}
		_, err = tx.DeleteRecord(ctx, "tool_removal", id, 1)
		return err
	}))
	is.True(errors.Is(k.Sweep(ctx), agentkey.ErrIntegrity)) // and it ends
}
