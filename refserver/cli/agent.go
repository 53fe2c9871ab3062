package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type agentCommands struct {
	Me         agentMe         `cmd:"" help:"What the agent is, has and waits for."`
	Tools      agentTools      `cmd:"" help:"The catalog, with the agent's access to each tool."`
	Request    agentRequest    `cmd:"" help:"Ask for access to a tool; a person decides."`
	Credential agentCredential `cmd:"" help:"Fetch a tool's credential; it goes to standard output just as it is."`
	Suggest    agentSuggest    `cmd:"" help:"Suggest a tool that the catalog lacks."`
	Learned    agentLearned    `cmd:"" help:"Say what was learned about a tool, for its instructions."`
}

// envAPIKey is the variable that holds the agent's key. There is no flag for it.
const envAPIKey = "AGENTKEY_API_KEY"

// ownFlags say which server to talk to, as which agent.
type ownFlags struct {
	Server         string `env:"AGENTKEY_URL" placeholder:"URL" default:"http://127.0.0.1:8700" help:"URL of the server."`
	APIKeyFile     string `name:"api-key-file" env:"AGENTKEY_API_KEY_FILE" placeholder:"FILE" help:"File with the agent's key, unless AGENTKEY_API_KEY holds it."`
	AllowPlainHTTP bool   `name:"allow-plain-http" env:"AGENTKEY_ALLOW_PLAIN_HTTP" help:"Send the key over http to another machine, on a network that encrypts by other means."`
}

// ownRead is ownFlags for what may print JSON.
type ownRead struct {
	ownFlags
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

func (f ownFlags) connect(s *session) (*client.Agent, error) {
	key, err := s.secretFrom(envAPIKey, f.APIKeyFile, "--api-key-file", "agent's key")
	if err != nil {
		return nil, err
	}
	agent, err := client.NewAgent(f.Server, key, client.Options{PlainHTTP: f.AllowPlainHTTP, UserAgent: "agentkey-cli"})
	return agent, connecting(err, "agent's key")
}

// wantedTool is a tool as an argument of an agent's.
type wantedTool struct {
	Tool string `arg:"" help:"Name or id of the tool."`
}

func (w wantedTool) find(ctx context.Context, s *session, f ownFlags) (*client.Agent, named, error) {
	agent, err := f.connect(s)
	if err != nil {
		return nil, named{}, err
	}
	catalog := func(yield func(client.CatalogTool, error) bool) {
		tools, err := agent.Tools(ctx)
		if err != nil {
			yield(client.CatalogTool{}, err)
			return
		}
		for _, t := range tools {
			if !yield(t, nil) {
				return
			}
		}
	}
	tool, err := find(w.Tool, "tool", "agent tools", catalog, func(t client.CatalogTool) (named, bool) {
		return named{t.ID, t.Name}, t.Name == w.Tool
	})
	return agent, tool, err
}

type agentMe struct{ ownRead }

// Run tells an agent about itself.
func (c *agentMe) Run(ctx context.Context, s *session) error {
	agent, err := c.connect(s)
	if err != nil {
		return err
	}
	me, err := agent.Me(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(me)
	}
	if err := s.say("%s (%s), of %s", clean(me.Name), me.ID, plural(me.Available, "tool")); err != nil {
		return err
	}
	t := table{titles: []string{"TOOL", "ACCESS", "REASON"}}
	for _, name := range me.Approved {
		t.add(name, "approved", "")
	}
	for _, name := range me.Pending {
		t.add(name, "pending", "")
	}
	for _, d := range me.Denied {
		t.add(d.Name, "denied", text(d.Reason))
	}
	if err := t.print(s); err != nil || me.Hint == "" {
		return err
	}
	return s.say("%s", clean(me.Hint))
}

type agentTools struct{ ownRead }

// Run lists the catalog.
func (c *agentTools) Run(ctx context.Context, s *session) error {
	agent, err := c.connect(s)
	if err != nil {
		return err
	}
	tools, err := agent.Tools(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(tools)
	}
	t := table{titles: []string{"ID", "NAME", "ACCESS", "EXPIRES", "LEFT", "REASON"}}
	for _, tool := range tools {
		left := "-"
		if tool.VendsLeft != nil {
			left = strconv.FormatInt(*tool.VendsLeft, 10)
		}
		t.add(tool.ID, tool.Name, tool.Access, whenever(tool.ExpiresAt), left, text(&tool.DenialReason))
	}
	return t.print(s)
}

type agentRequest struct {
	ownFlags
	wantedTool
	Reason   string   `required:"" help:"What for, for the person who decides."`
	Duration span     `placeholder:"8h" help:"For how long, from approval. Default: no end."`
	MaxVends int64    `placeholder:"N" help:"How often the credential will be fetched at most. Default: no limit."`
	Scope    []string `help:"What of the tool is needed, in its own terms; give several as a list."`
	Ticket   string   `help:"A reference elsewhere, such as an issue."`
}

// Run asks for access.
func (c *agentRequest) Run(ctx context.Context, s *session) error {
	agent, tool, err := c.find(ctx, s, c.ownFlags)
	if err != nil {
		return err
	}
	asked, err := agent.RequestAccess(ctx, tool.id, client.AccessRequest{
		Reason: c.Reason, Duration: c.Duration.seconds(), MaxVends: c.MaxVends, Scopes: c.Scope, Ticket: c.Ticket,
	})
	if err != nil {
		return err
	}
	return s.say("request %s for %s is %s", asked.ID, clean(tool.name), asked.Status)
}

type agentCredential struct {
	ownRead
	wantedTool
}

// Run fetches a credential: a vend, which counts and is recorded.
func (c *agentCredential) Run(ctx context.Context, s *session) error {
	agent, tool, err := c.find(ctx, s, c.ownFlags)
	if err != nil {
		return err
	}
	vended, err := agent.Credential(ctx, tool.id)
	if err != nil {
		return err
	}
	defer vended.Secret.Destroy()
	if !c.JSON {
		if _, err = s.stdout.Write(vended.Secret.Bytes()); err == nil {
			if _, shown := terminal(s.stdout); shown {
				err = s.say("")
			}
		}
		if err != nil {
			return errors.New("the credential was fetched, and could not be written")
		}
		return nil
	}
	quoted, err := json.Marshal(string(vended.Secret.Bytes()))
	if err != nil {
		return err
	}
	defer clear(quoted)
	return s.emit(map[string]any{
		"tool_id": vended.Tool, "tool_name": vended.ToolName, "auth_type": vended.AuthType, "credential": json.RawMessage(quoted),
		"instructions": vended.Instructions, "audit_receipt": vended.Receipt,
	})
}

type agentSuggest struct {
	ownFlags
	Name   string `arg:"" help:"Name of the tool."`
	URL    string `name:"url" help:"Its address."`
	Reason string `required:"" help:"What for, for the person who decides."`
}

// Run suggests a tool.
func (c *agentSuggest) Run(ctx context.Context, s *session) error {
	agent, err := c.connect(s)
	if err != nil {
		return err
	}
	made, err := agent.SuggestTool(ctx, client.ToolWish{Name: c.Name, URL: c.URL, Reason: c.Reason})
	if err != nil {
		return err
	}
	return s.suggested(made.ID, made.Status, made.Existing)
}

type agentLearned struct {
	ownFlags
	wantedTool
	Learned string `arg:"" help:"What the next agent should know, in words that stand alone. No secrets."`
	Why     string `required:"" help:"How that is known, for the person who decides."`
}

// Run proposes what was learned.
func (c *agentLearned) Run(ctx context.Context, s *session) error {
	agent, tool, err := c.find(ctx, s, c.ownFlags)
	if err != nil {
		return err
	}
	made, err := agent.SuggestInstructions(ctx, tool.id, c.Learned, c.Why)
	if err != nil {
		return err
	}
	return s.suggested(made.ID, made.Status, made.Existing)
}

func (s *session) suggested(id, status string, existing bool) error {
	return s.say("suggestion %s is %s%s", id, status, map[bool]string{true: ", as it was: yours was added", false: ""}[existing])
}
