package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

type toolsCommands struct {
	List              toolsList              `cmd:"" help:"List tools, newest first."`
	Show              toolsShow              `cmd:"" help:"Show a tool, and who may use it or waits for it."`
	Create            toolsCreate            `cmd:"" help:"Add a tool, with its credential if that is shared."`
	Update            toolsUpdate            `cmd:"" help:"Change a tool."`
	ReplaceCredential toolsReplaceCredential `cmd:"" help:"Replace a shared tool's credential."`
	RemoveCredential  toolsRemoveCredential  `cmd:"" help:"Remove a shared tool's credential; nobody can fetch it any more."`
	Activity          toolsActivity          `cmd:"" help:"List what happened to a tool, newest first."`
	Delete            toolsDelete            `cmd:"" help:"Delete a tool with its credentials and grants."`
}

// toolArg is a tool as an argument.
type toolArg struct {
	Tool string `arg:"" help:"Name, key or id of the tool."`
}

func (t toolArg) find(ctx context.Context, s *session, f serverFlags) (*client.Admin, named, error) {
	admin, err := f.connect(s)
	if err != nil {
		return nil, named{}, err
	}
	tool, err := findTool(ctx, admin, t.Tool)
	return admin, tool, err
}

type toolsList struct {
	readFlags
	Name string `help:"Only tools of exactly this name."`
}

// Run lists tools.
func (c *toolsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	titles := []string{"ID", "KEY", "NAME", "URL", "CREDENTIAL", "HEALTH", "EXPIRES", "AGENTS", "PENDING"}
	return show(s, c.JSON, admin.Tools(ctx, c.Name), titles, func(t client.ToolRecord) []string {
		return []string{
			t.ID, t.Key, t.Name, text(t.URL), t.Mode, t.Health, whenever(t.CredentialExpiresAt),
			strconv.FormatInt(t.Approved, 10), strconv.FormatInt(t.Pending, 10),
		}
	})
}

type toolsShow struct {
	readFlags
	toolArg
}

// Run shows a tool.
func (c *toolsShow) Run(ctx context.Context, s *session) error {
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	tool, err := admin.Tool(ctx, found.id)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(tool)
	}
	err = s.say("%s (%s): %s, %s, credential %s, expires %s", clean(tool.Name), tool.ID, clean(text(tool.URL)), tool.Mode, tool.Health, whenever(tool.CredentialExpiresAt))
	if err != nil {
		return err
	}
	t := table{titles: []string{"AGENT", "ID", "ACCESS"}}
	for _, agent := range tool.ApprovedAgents {
		t.add(agent.AgentName, agent.Agent, "approved")
	}
	for _, agent := range tool.PendingAgents {
		t.add(agent.AgentName, agent.Agent, "pending")
	}
	return t.print(s)
}

// instructionFlags give the guide that agents get with the credential.
type instructionFlags struct {
	Instructions     *string `xor:"instructions" help:"How to use the tool, for agents."`
	InstructionsFile string  `xor:"instructions" placeholder:"FILE" help:"Read the instructions from a file."`
}

func (f instructionFlags) read() (*string, error) {
	if f.InstructionsFile == "" {
		return f.Instructions, nil
	}
	b, err := os.ReadFile(f.InstructionsFile)
	if err != nil {
		return nil, fmt.Errorf("instructions file: %w", cause(err))
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("instructions file: it is not UTF-8 text")
	}
	guide := string(b)
	return &guide, nil
}

type toolsCreate struct {
	serverFlags
	credentialFlags
	instructionFlags
	Name              string `arg:"" help:"Name of the tool."`
	URL               string `name:"url" help:"The tool's own address: a host name or an http(s) URL."`
	Description       string `help:"What the tool is for."`
	AuthType          string `enum:"api_key,oauth_token,bot_token,other" default:"api_key" help:"Kind of credential: ${enum}."`
	PerAgent          bool   `help:"Every agent gets a credential of its own, given at approval."`
	RequiredApprovals int64  `placeholder:"1" help:"How many administrators have to approve a request."`
	CredentialExpires moment `placeholder:"WHEN" help:"When the credential ends: 90d, 2027-01-31. Default: never."`
	Suggestion        string `help:"The suggestion that this tool answers, by id or name. Those that it fits are answered in any case."`
	JSON              bool   `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run adds a tool.
func (c *toolsCreate) Run(ctx context.Context, s *session) error {
	if c.PerAgent && (c.given() || c.CredentialExpires.set) {
		return usagef("a tool with a credential per agent is added without one; it is given when a request is approved")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	in := client.NewTool{
		Name: c.Name, Description: c.Description, URL: c.URL, AuthType: c.AuthType, Mode: "shared",
		RequiredApprovals: c.RequiredApprovals, CredentialExpiresAt: c.CredentialExpires.resolve(s.options.Clock()),
	}
	if c.Suggestion != "" {
		source, err := findSuggestion(ctx, admin, c.Suggestion)
		if err != nil {
			return err
		}
		in.Suggestion = source.id
	}
	if guide, err := c.instructionFlags.read(); err != nil {
		return err
	} else if guide != nil {
		in.Instructions = *guide
	}
	var credential *vault.Secret
	if c.PerAgent {
		in.Mode = "per_agent"
	} else if credential, err = c.credentialFlags.read(s); err != nil {
		return err
	}
	defer credential.Destroy()
	tool, err := admin.AddTool(ctx, in, credential)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(tool)
	}
	return s.say("tool %s (%s) added with key %s", clean(tool.Name), tool.ID, tool.Key)
}

type toolsUpdate struct {
	serverFlags
	instructionFlags
	toolArg
	Name              *string `help:"New name."`
	URL               *string `name:"url" help:"New address."`
	Description       *string `help:"New description."`
	RequiredApprovals *int64  `placeholder:"N" help:"How many administrators have to approve a request."`
	CredentialExpires moment  `placeholder:"WHEN" help:"When the credential ends: 90d, 2027-01-31, never."`
}

// Run changes a tool.
func (c *toolsUpdate) Run(ctx context.Context, s *session) error {
	guide, err := c.instructionFlags.read()
	if err != nil {
		return err
	}
	in := client.ToolChange{
		Name: c.Name, URL: c.URL, Description: c.Description, RequiredApprovals: c.RequiredApprovals, Instructions: guide,
		CredentialExpiresAt: c.CredentialExpires.change(s.options.Clock()),
	}
	if in == (client.ToolChange{}) {
		return usagef("nothing to change: give a flag that says what")
	}
	admin, tool, err := c.toolArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	updated, err := admin.UpdateTool(ctx, tool.id, in, nil)
	if err != nil {
		return err
	}
	return s.say("tool %s (%s) updated", clean(updated.Name), updated.ID)
}

// change is what a tool's change holds for m: nil if nothing was asked for.
func (m moment) change(now time.Time) **time.Time {
	if !m.set {
		return nil
	}
	t := m.resolve(now)
	return &t
}

type toolsReplaceCredential struct {
	serverFlags
	credentialFlags
	toolArg
	CredentialExpires moment `placeholder:"WHEN" help:"When the new credential ends: 90d, 2027-01-31, never. Default: as before."`
}

// Run replaces a credential.
func (c *toolsReplaceCredential) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.toolArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	credential, err := c.credentialFlags.read(s)
	if err != nil {
		return err
	}
	defer credential.Destroy()
	in := client.ToolChange{CredentialExpiresAt: c.CredentialExpires.change(s.options.Clock())}
	updated, err := admin.UpdateTool(ctx, tool.id, in, credential)
	if err != nil {
		return err
	}
	return s.say("credential of %s replaced", clean(updated.Name))
}

type toolsRemoveCredential struct {
	serverFlags
	toolArg
}

// Run removes a credential.
func (c *toolsRemoveCredential) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.toolArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if err := admin.RemoveCredential(ctx, tool.id); err != nil {
		return err
	}
	return s.say("credential of %s removed", clean(tool.name))
}

type toolsDelete struct {
	serverFlags
	toolArg
}

// Run deletes a tool.
func (c *toolsDelete) Run(ctx context.Context, s *session) error {
	admin, tool, err := c.toolArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	deleted, err := admin.DeleteTool(ctx, tool.id)
	if err != nil {
		return err
	}
	return s.say("tool %s deleted; %s revoked, %s dropped", clean(tool.name),
		plural(deleted.ApprovedRevoked, "grant"), plural(deleted.PendingRevoked, "request"))
}
