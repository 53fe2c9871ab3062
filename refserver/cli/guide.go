package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type guideCommands struct {
	Show        guideShow        `cmd:"" help:"Print a tool's instructions, those of now or of an older version."`
	History     guideHistory     `cmd:"" help:"List the versions of a tool's instructions, newest first."`
	Diff        guideDiff        `cmd:"" help:"Compare two versions; by default what the last change was."`
	Restore     guideRestore     `cmd:"" help:"Go back to the text of an older version."`
	Suggestions guideSuggestions `cmd:"" help:"List what agents learned about tools, newest first."`
	Supporters  guideSupporters  `cmd:"" help:"Show who stands behind a suggestion, and why."`
	Accept      guideAccept      `cmd:"" help:"Accept a suggestion: what was learned is added to the instructions, or they are replaced."`
	Dismiss     guideDismiss     `cmd:"" help:"Dismiss a suggestion; agents that propose the same are shown the reason."`
}

// version finds a version by its id or its number, empty for empty.
func version(ctx context.Context, admin *client.Admin, tool, ref string) (string, error) {
	number, err := strconv.ParseInt(ref, 10, 64)
	if err != nil { // an id, or none
		return ref, nil
	}
	for v, err := range admin.InstructionVersions(ctx, tool) {
		if err != nil {
			return "", err
		}
		if v.Number == number {
			return v.ID, nil
		}
	}
	return "", fmt.Errorf("the instructions have no version %d; `agentkey guide history` shows all", number)
}

type guideShow struct {
	readFlags
	toolArg
	Version string `placeholder:"N" help:"Number or id of a version. Default: the current one."`
}

// Run prints instructions.
func (c *guideShow) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	id, err := version(ctx, admin, tool.id, c.Version)
	if err != nil {
		return err
	}
	var v client.InstructionVersion
	if id == "" {
		var last client.InstructionsDiff
		last, err = admin.DiffInstructions(ctx, tool.id, "", "")
		v = last.To
	} else {
		v, err = admin.InstructionVersion(ctx, tool.id, id)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(v)
	}
	return s.lines(v.Instructions)
}

// lines prints a text as it is, but for what a terminal could be told by it.
func (s *session) lines(text string) error {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if err := s.say("%s", clean(strings.TrimSuffix(line, "\r"))); err != nil {
			return err
		}
	}
	return nil
}

type guideHistory struct {
	readFlags
	toolArg
}

// Run lists versions.
func (c *guideHistory) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	titles := []string{"VERSION", "ID", "MADE", "BY", "SOURCE", "BEGINS"}
	return show(s, c.JSON, admin.InstructionVersions(ctx, tool.id), titles, func(v client.InstructionVersion) []string {
		begins, _, _ := strings.Cut(v.Instructions, "\n")
		return []string{strconv.FormatInt(v.Number, 10), v.ID, when(v.CreatedAt), text(v.CreatedBy), v.Source, text(&begins)}
	})
}

type guideDiff struct {
	readFlags
	toolArg
	From string `placeholder:"N" help:"Number or id of a version. Default: the one before."`
	To   string `placeholder:"N" help:"Number or id of a version. Default: the current one."`
}

// Run compares two versions.
func (c *guideDiff) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	from, err := version(ctx, admin, tool.id, c.From)
	if err != nil {
		return err
	}
	to, err := version(ctx, admin, tool.id, c.To)
	if err != nil {
		return err
	}
	d, err := admin.DiffInstructions(ctx, tool.id, from, to)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(d)
	}
	if d.Unified == "" {
		return s.say("no difference")
	}
	return s.lines(d.Unified)
}

type guideRestore struct {
	serverFlags
	toolArg
	Version string `arg:"" help:"Number or id of a version."`
}

// Run goes back to a version.
func (c *guideRestore) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	id, err := version(ctx, admin, tool.id, c.Version)
	if err != nil {
		return err
	}
	updated, err := admin.UpdateTool(ctx, tool.id, client.ToolChange{RestoreVersion: id}, nil)
	if err != nil {
		return err
	}
	return s.say("instructions of %s are those of version %s again", clean(updated.Name), clean(c.Version))
}

type guideSuggestions struct {
	readFlags
	Tool   string `placeholder:"TOOL" help:"Only for this tool: name, key or id."`
	Status string `enum:"pending,dismissed,accepted,all" default:"pending" help:"Only of this status: ${enum}."`
}

// Run lists suggestions.
func (c *guideSuggestions) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	tool := named{}
	if c.Tool != "" {
		if tool, err = findTool(ctx, admin, c.Tool); err != nil {
			return err
		}
	}
	status := c.Status
	if status == "all" {
		status = ""
	}
	titles := []string{"ID", "TOOL", "STATUS", "AGENTS", "LAST ASKED", "LEARNED"}
	return show(s, c.JSON, admin.InstructionSuggestions(ctx, tool.id, status), titles, func(x client.InstructionSuggestion) []string {
		state := x.Status
		if x.Stale {
			state += " (for an older version)"
		}
		return []string{x.ID, x.ToolName, state, strconv.FormatInt(x.SupporterCount, 10), when(x.LastRequestedAt), x.Learned}
	})
}

// learnedArg is an instruction suggestion as an argument.
type learnedArg struct {
	Suggestion string `arg:"" help:"Id of the suggestion."`
}

type guideSupporters struct {
	readFlags
	learnedArg
}

// Run lists everybody behind a suggestion.
func (c *guideSupporters) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	all, err := collect(admin.InstructionSupporters(ctx, c.Suggestion))
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(all)
	}
	t := table{titles: []string{"AGENT", "LAST ASKED", "WHY"}, wrap: true}
	for _, p := range all {
		t.add(p.AgentName, when(p.LastRequestedAt), p.Why)
	}
	return t.print(s)
}

type guideAccept struct {
	serverFlags
	instructionFlags
	learnedArg
}

// Run accepts a suggestion. Without a text of its own it adds what was learned
// below the instructions, after an empty line.
func (c *guideAccept) Run(ctx context.Context, s *session) error {
	guide, err := c.instructionFlags.read()
	if err != nil {
		return err
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	suggestion, err := admin.InstructionSuggestion(ctx, c.Suggestion)
	if err != nil {
		return err
	}
	if guide == nil {
		// The text that it is for: if there is another one by now, nothing is accepted.
		base, err := admin.InstructionVersion(ctx, suggestion.Tool, suggestion.Base)
		if err != nil {
			return err
		}
		joined := strings.TrimSpace(base.Instructions + "\n\n" + suggestion.Learned)
		guide = &joined
	}
	_, err = admin.UpdateTool(ctx, suggestion.Tool, client.ToolChange{Instructions: guide, AcceptSuggestion: suggestion.ID}, nil)
	if err != nil {
		return err
	}
	return s.say("suggestion accepted into the instructions of %s", clean(suggestion.ToolName))
}

type guideDismiss struct {
	serverFlags
	learnedArg
	Reason string `required:"" help:"Why, for agents that propose the same again."`
}

// Run dismisses a suggestion.
func (c *guideDismiss) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	dismissed, err := admin.DismissInstructionSuggestion(ctx, c.Suggestion, c.Reason)
	if err != nil {
		return err
	}
	return s.say("suggestion for %s dismissed", clean(dismissed.ToolName))
}
