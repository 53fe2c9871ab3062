package cli

import (
	"context"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type agentsCommands struct {
	List       agentsList       `cmd:"" help:"List agents, newest first."`
	Show       agentsShow       `cmd:"" help:"Show an agent, and what it may use or waits for."`
	Create     agentsCreate     `cmd:"" help:"Register an agent; prints its key, once."`
	Update     agentsUpdate     `cmd:"" help:"Change an agent's name, description or owner."`
	Suspend    agentsSuspend    `cmd:"" help:"Stop an agent at once and revoke its grants."`
	Reactivate agentsReactivate `cmd:"" help:"Let a suspended agent act again, without its old grants."`
	RotateKey  agentsRotateKey  `cmd:"" help:"Give an agent a new key; prints it, once."`
	Keys       agentsKeys       `cmd:"" help:"List an agent's keys."`
	Activity   agentsActivity   `cmd:"" help:"List what happened to an agent, newest first."`
	RevokeKey  agentsRevokeKey  `cmd:"" help:"End one of an agent's keys at once."`
}

// agentArg is an agent as an argument.
type agentArg struct {
	Agent string `arg:"" help:"Name or id of the agent."`
}

type agentsList struct {
	readFlags
	Name string `help:"Only agents of exactly this name."`
}

// Run lists agents.
func (c *agentsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	return show(s, c.JSON, admin.Agents(ctx, c.Name), []string{"ID", "NAME", "STATUS", "GRANTED", "PENDING", "LAST ACTIVE"},
		func(a client.AgentRecord) []string {
			return []string{a.ID, a.Name, a.Status, toolNames(a.Granted), toolNames(a.Pending), whenever(a.LastActiveAt)}
		})
}

func toolNames(tools []client.LinkedTool) string {
	names := make([]string, len(tools))
	for i, t := range tools {
		names[i] = t.ToolName
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

type agentsShow struct {
	readFlags
	agentArg
}

// Run shows an agent.
func (c *agentsShow) Run(ctx context.Context, s *session) error {
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	agent, err := admin.Agent(ctx, found.id)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(agent)
	}
	if err := s.say("%s (%s): %s, last active %s", clean(agent.Name), agent.ID, agent.Status, whenever(agent.LastActiveAt)); err != nil {
		return err
	}
	t := table{titles: []string{"TOOL", "ID", "ACCESS"}}
	for _, tool := range agent.Granted {
		t.add(tool.ToolName, tool.Tool, "approved")
	}
	for _, tool := range agent.Pending {
		t.add(tool.ToolName, tool.Tool, "pending")
	}
	return t.print(s)
}

// keyFlags describe a new key of an agent.
type keyFlags struct {
	Address []string `placeholder:"CIDR" help:"Address range that the key may be used from; give several as a list. Default: anywhere."`
}

type agentsCreate struct {
	serverFlags
	keyFlags
	Name         string `arg:"" help:"Name of the agent."`
	Description  string `help:"What the agent is for."`
	Owner        string `placeholder:"ADMIN" help:"Name or id of the administrator who answers for it. Default: you."`
	KeyExpiresIn span   `placeholder:"8h" help:"When its key ends. Default: never."`
	JSON         bool   `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run registers an agent.
func (c *agentsCreate) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	in := client.NewAgentRecord{Name: c.Name, Description: c.Description, KeyExpiresIn: c.KeyExpiresIn.seconds(), Addresses: c.Address}
	if c.Owner != "" {
		owner, err := findAdministrator(ctx, admin, c.Owner)
		if err != nil {
			return err
		}
		in.Owner = owner.id
	}
	key, err := admin.RegisterAgent(ctx, in)
	if err != nil {
		return err
	}
	return s.issued("agent", key.Agent, "api_key", key.Secret, c.JSON)
}

type agentsUpdate struct {
	serverFlags
	agentArg
	Name        *string `help:"New name."`
	Description *string `help:"New description."`
	Owner       *string `placeholder:"ADMIN" help:"Name or id of the administrator who answers for it from now on."`
}

// Run changes an agent.
func (c *agentsUpdate) Run(ctx context.Context, s *session) error {
	if c.Name == nil && c.Description == nil && c.Owner == nil {
		return usagef("nothing to change: give --name, --description or --owner")
	}
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if c.Owner != nil {
		owner, err := findAdministrator(ctx, admin, *c.Owner)
		if err != nil {
			return err
		}
		c.Owner = &owner.id
	}
	updated, err := admin.UpdateAgent(ctx, agent.id, client.AgentChange{Name: c.Name, Description: c.Description, Owner: c.Owner})
	if err != nil {
		return err
	}
	return s.say("agent %s (%s) updated", clean(updated.Name), updated.ID)
}

// find connects and finds the agent.
func (a agentArg) find(ctx context.Context, s *session, f serverFlags) (*client.Admin, named, error) {
	admin, err := f.connect(s)
	if err != nil {
		return nil, named{}, err
	}
	agent, err := findAgent(ctx, admin, a.Agent)
	return admin, agent, err
}

type agentsSuspend struct {
	serverFlags
	agentArg
}

// Run suspends an agent.
func (c *agentsSuspend) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if err := admin.SuspendAgent(ctx, agent.id); err != nil {
		return err
	}
	return s.say("agent %s suspended; its grants are revoked", clean(agent.name))
}

type agentsReactivate struct {
	serverFlags
	agentArg
}

// Run reactivates an agent.
func (c *agentsReactivate) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if err := admin.ReactivateAgent(ctx, agent.id); err != nil {
		return err
	}
	return s.say("agent %s reactivated, without grants", clean(agent.name))
}

type agentsRotateKey struct {
	serverFlags
	keyFlags
	agentArg
	Grace     span `placeholder:"10m" help:"How long the old keys stay valid. Default: they end at once."`
	ExpiresIn span `placeholder:"8h" help:"When the new key ends. Default: never."`
	JSON      bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run rotates an agent's key.
func (c *agentsRotateKey) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	key, err := admin.RotateKey(ctx, agent.id, client.NewKey{Grace: c.Grace.seconds(), ExpiresIn: c.ExpiresIn.seconds(), Addresses: c.Address})
	if err != nil {
		return err
	}
	return s.issued("agent", key.Agent, "api_key", key.Secret, c.JSON)
}

type agentsKeys struct {
	readFlags
	agentArg
}

// Run lists an agent's keys.
func (c *agentsKeys) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	return show(s, c.JSON, admin.AgentKeys(ctx, agent.id), []string{"ID", "STATUS", "CREATED", "EXPIRES", "ADDRESSES"}, func(k client.KeyRecord) []string {
		addresses := strings.Join(k.Addresses, ", ")
		if addresses == "" {
			addresses = "any"
		}
		return []string{k.ID, k.Status, when(k.CreatedAt), whenever(k.ExpiresAt), addresses}
	})
}

type agentsRevokeKey struct {
	serverFlags
	agentArg
	Key string `arg:"" help:"Id of the key, from agentkey agents keys."`
}

// Run revokes an agent's key.
func (c *agentsRevokeKey) Run(ctx context.Context, s *session) error {
	admin, agent, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if err := admin.RevokeKey(ctx, agent.id, c.Key); err != nil {
		return err
	}
	return s.say("key revoked")
}
