package cli

import (
	"context"
	"iter"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type inboxCommand struct {
	readFlags
	Kind  string `enum:",access_request,tool_suggestion,instruction_suggestion" default:"" help:"Only this kind: access_request, tool_suggestion or instruction_suggestion."`
	Limit int    `default:"100" help:"How many at most; 0 for all."`
}

// Run lists what waits for a person.
func (c *inboxCommand) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	titles := []string{"KIND", "ID", "TOOL", "ASKED BY", "ASKED", "REASON"}
	return show(s, c.JSON, first(c.Limit, admin.Inbox(ctx, c.Kind)), titles, func(i client.InboxItem) []string {
		return []string{i.Kind, i.ID, i.ToolName + i.Name, askedBy(i), when(i.RequestedAt), i.Reason + i.Learned}
	})
}

// askedBy is the agent that asked, or how many did.
func askedBy(i client.InboxItem) string {
	if i.Supporters > 0 {
		return plural(i.Supporters, "agent")
	}
	return i.AgentName
}

// activityFlags are those of the lists of what happened to an agent or a tool.
type activityFlags struct {
	readFlags
	Limit int `default:"20" help:"How many at most; 0 for all."`
}

func (f activityFlags) show(s *session, found iter.Seq2[client.Activity, error], title string, what func(client.Activity) string) error {
	if f.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	return show(s, f.JSON, first(f.Limit, found), []string{"TIME", "ACTION", title}, func(a client.Activity) []string {
		return []string{a.CreatedAt.UTC().Format("2006-01-02 15:04:05.000Z"), a.Action, what(a)}
	})
}

type agentsActivity struct {
	activityFlags
	agentArg
}

// Run lists what happened to an agent.
func (c *agentsActivity) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	return c.show(s, admin.AgentActivity(ctx, agent.id), "TOOL", func(a client.Activity) string { return a.ToolName })
}

type toolsActivity struct {
	activityFlags
	toolArg
}

// Run lists what happened to a tool.
func (c *toolsActivity) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	return c.show(s, admin.ToolActivity(ctx, tool.id), "BY", func(a client.Activity) string { return a.ActorLabel })
}

type orgOnboarding struct {
	readFlags
	Dismiss bool `help:"Note that the organization needs no introduction any more."`
}

// Run shows when the introduction was dismissed, or dismisses it.
func (c *orgOnboarding) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	var o client.Onboarding
	if c.Dismiss {
		o, err = admin.DismissOnboarding(ctx)
	} else {
		o, err = admin.Onboarding(ctx)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(o)
	}
	if o.DismissedAt == nil {
		return s.say("introduction not dismissed")
	}
	return s.say("introduction dismissed %s", when(*o.DismissedAt))
}
