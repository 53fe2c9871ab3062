package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type suggestionsCommands struct {
	List    suggestionsList    `cmd:"" help:"List tools that agents suggest, newest first."`
	Show    suggestionsShow    `cmd:"" help:"Show who stands behind a suggestion, and why."`
	Dismiss suggestionsDismiss `cmd:"" help:"Decide against a suggested tool; it can be suggested again after a day."`
}

// toolSuggestionArg is a suggestion as an argument.
type toolSuggestionArg struct {
	Suggestion string `arg:"" help:"Id of the suggestion, or its name while it is pending."`
}

func (f toolSuggestionArg) find(ctx context.Context, s *session, flags serverFlags) (*client.Admin, named, error) {
	admin, err := flags.connect(s)
	if err != nil {
		return nil, named{}, err
	}
	suggestion, err := findSuggestion(ctx, admin, f.Suggestion)
	return admin, suggestion, err
}

// findSuggestion takes an id or the exact name of a pending suggestion.
func findSuggestion(ctx context.Context, admin *client.Admin, ref string) (named, error) {
	return find(ref, "suggestion", "suggestions list", admin.ToolSuggestions(ctx, "pending"), func(t client.ToolSuggestion) (named, bool) {
		return named{t.ID, t.Name}, t.Name == ref
	})
}

type suggestionsList struct {
	readFlags
	Status string `enum:"pending,dismissed,accepted,all" default:"pending" help:"Only of this status: ${enum}."`
}

// Run lists suggestions.
func (c *suggestionsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	status := c.Status
	if status == "all" {
		status = ""
	}
	titles := []string{"ID", "NAME", "URL", "STATUS", "AGENTS", "LAST ASKED", "UNTIL"}
	return show(s, c.JSON, admin.ToolSuggestions(ctx, status), titles, func(t client.ToolSuggestion) []string {
		return []string{
			t.ID, t.Name, text(t.URL), t.Status, strconv.FormatInt(t.SupporterCount, 10), when(t.LastRequestedAt), whenever(t.DismissedUntil),
		}
	})
}

type suggestionsShow struct {
	readFlags
	toolSuggestionArg
}

// Run shows a suggestion with everybody behind it.
func (c *suggestionsShow) Run(ctx context.Context, s *session) error {
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	suggestion, err := admin.ToolSuggestion(ctx, found.id)
	if err != nil {
		return err
	}
	if suggestion.Supporters, err = collect(admin.ToolSupporters(ctx, found.id)); err != nil {
		return err
	}
	if c.JSON {
		return s.emit(suggestion)
	}
	if err := s.say("%s", clean(fmt.Sprintf("%s (%s): %s, %s", suggestion.Name, text(suggestion.URL), suggestion.Status, plural(suggestion.SupporterCount, "agent")))); err != nil {
		return err
	}
	t := table{titles: []string{"AGENT", "LAST ASKED", "REASON"}, wrap: true}
	for _, p := range suggestion.Supporters {
		t.add(p.AgentName, when(p.LastRequestedAt), p.Reason)
	}
	return t.print(s)
}

type suggestionsDismiss struct {
	serverFlags
	toolSuggestionArg
}

// Run dismisses a suggestion.
func (c *suggestionsDismiss) Run(ctx context.Context, s *session) error {
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	dismissed, err := admin.DismissToolSuggestion(ctx, found.id)
	if err != nil {
		return err
	}
	return s.say("%s dismissed until %s", clean(dismissed.Name), whenever(dismissed.DismissedUntil))
}
