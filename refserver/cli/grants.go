package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

type requestsCommands struct {
	List    requestsList    `cmd:"" help:"List requests that wait for a decision, newest first."`
	Approve requestsApprove `cmd:"" help:"Approve a request."`
	Deny    requestsDeny    `cmd:"" help:"Deny a request."`
}

type grantsCommands struct {
	List   grantsList   `cmd:"" help:"List grants, newest first."`
	Assign grantsAssign `cmd:"" help:"Give an agent a tool that it did not ask for."`
	Revoke grantsRevoke `cmd:"" help:"Take a tool from an agent at once."`
	Narrow grantsNarrow `cmd:"" help:"Make the limits of a grant narrower."`
}

// termFlags are the limits of a grant. Approvers may only narrow what was asked.
type termFlags struct {
	ExpiresIn span     `placeholder:"8h" help:"How long access lasts, counted from approval. Default: as asked."`
	MaxVends  int64    `placeholder:"N" help:"How often the credential may be fetched. Default: as asked."`
	Scope     []string `placeholder:"SCOPE" help:"Scope to allow; give several as a list. Default: as asked."`
}

func (f termFlags) decision(ticket string) client.Decision {
	return client.Decision{ExpiresIn: f.ExpiresIn.seconds(), MaxVends: f.MaxVends, Scopes: f.Scope, Ticket: ticket}
}

// check refuses what would mean "no limit" to the server.
func (f termFlags) check() error {
	if f.MaxVends < 0 {
		return usagef("--max-vends must not be negative")
	}
	return nil
}

type requestsList struct{ readFlags }

// Run lists requests.
func (c *requestsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	return show(s, c.JSON, admin.Requests(ctx), []string{"ID", "AGENT", "TOOL", "ASKED", "REASON"}, func(r client.Request) []string {
		return []string{r.ID, r.AgentName, r.ToolName, when(r.RequestedAt), r.Reason}
	})
}

// requestArg is a request as an argument: by id, or by agent and tool.
type requestArg struct {
	Request string `arg:"" help:"Id of the request; or name or id of its agent, followed by the tool."`
	Tool    string `arg:"" optional:"" help:"Name, key or id of the tool, when an agent comes first."`
}

// find gives the request's id and, where it is known, whose request it is.
func (r requestArg) find(ctx context.Context, admin *client.Admin) (client.Request, error) {
	match := func(q client.Request) bool { return q.ID == strings.ToLower(r.Request) }
	if r.Tool != "" {
		agent, tool, err := findPair(ctx, admin, r.Request, r.Tool)
		if err != nil {
			return client.Request{}, err
		}
		match = func(q client.Request) bool { return q.Agent == agent.id && q.Tool == tool.id }
	} else if !uuid.MatchString(r.Request) {
		return client.Request{}, usagef("give the request's id, or an agent and a tool; `agentkey requests list` shows them")
	}
	for request, err := range admin.Requests(ctx) {
		if err != nil {
			return client.Request{}, err
		}
		if match(request) {
			return request, nil
		}
	}
	if r.Tool != "" {
		return client.Request{}, fmt.Errorf("this agent has no pending request for this tool")
	}
	// The server says best why not: unknown, or decided already.
	return client.Request{ID: strings.ToLower(r.Request)}, nil
}

func findPair(ctx context.Context, admin *client.Admin, agentRef, toolRef string) (agent, tool named, err error) {
	if agent, err = findAgent(ctx, admin, agentRef); err != nil {
		return agent, tool, err
	}
	tool, err = findTool(ctx, admin, toolRef)
	return agent, tool, err
}

// credentialFor reads the credential that a decision brings, if it needs one.
func (f credentialFlags) credentialFor(s *session, perAgent bool) (*vault.Secret, error) {
	if !perAgent && !f.given() {
		return nil, nil
	}
	return f.read(s)
}

type requestsApprove struct {
	serverFlags
	termFlags
	credentialFlags
	requestArg
	Ticket string `help:"A reference elsewhere, such as an issue."`
}

// Run approves a request.
func (c *requestsApprove) Run(ctx context.Context, s *session) error {
	if err := c.termFlags.check(); err != nil {
		return err
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	request, err := c.requestArg.find(ctx, admin)
	if err != nil {
		return err
	}
	credential, err := c.credentialFor(s, request.Mode == "per_agent")
	if err != nil {
		return err
	}
	defer credential.Destroy()
	grant, err := admin.Approve(ctx, request.ID, c.decision(c.Ticket), credential)
	if err != nil {
		return err
	}
	return s.outcome(grant, request.AgentName, request.ToolName)
}

// outcome tells what became of a grant.
func (s *session) outcome(g client.Grant, agent, tool string) error {
	line := g.Status
	if agent != "" && tool != "" {
		line += ": " + agent + " → " + tool
	}
	switch {
	case g.Status == "pending" && g.Approvals != nil && g.Required != nil:
		line += fmt.Sprintf(", approvals: %d of %d", *g.Approvals, *g.Required)
	case g.Status == "approved" && g.ExpiresAt != nil:
		line += ", until " + when(*g.ExpiresAt)
	}
	return s.say("%s", clean(line))
}

type requestsDeny struct {
	serverFlags
	requestArg
	Reason string `help:"Why; the agent sees it."`
}

// Run denies a request.
func (c *requestsDeny) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	request, err := c.requestArg.find(ctx, admin)
	if err != nil {
		return err
	}
	grant, err := admin.Deny(ctx, request.ID, c.Reason)
	if err != nil {
		return err
	}
	return s.outcome(grant, request.AgentName, request.ToolName)
}

type grantsList struct {
	readFlags
	Agent  string `help:"Only this agent's: name or id."`
	Tool   string `help:"Only this tool's: name, key or id."`
	Status string `enum:",pending,approved,denied,revoked,expired,used_up" default:"" help:"Only of this status: pending, approved, denied, revoked, expired or used_up."`
}

// Run lists grants.
func (c *grantsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	q := client.GrantQuery{Status: c.Status}
	if c.Agent != "" {
		agent, err := findAgent(ctx, admin, c.Agent)
		if err != nil {
			return err
		}
		q.Agent = agent.id
	}
	if c.Tool != "" {
		tool, err := findTool(ctx, admin, c.Tool)
		if err != nil {
			return err
		}
		q.Tool = tool.id
	}
	titles := []string{"ID", "AGENT", "TOOL", "STATUS", "EXPIRES", "VENDS LEFT", "DECIDED", "BY"}
	return show(s, c.JSON, admin.Grants(ctx, q), titles, func(g client.Grant) []string {
		left := "-"
		if g.VendsLeft != nil {
			left = strconv.FormatInt(*g.VendsLeft, 10)
		}
		return []string{g.ID, g.AgentName, g.ToolName, g.Status, whenever(g.ExpiresAt), left, whenever(g.DecidedAt), text(g.DecidedBy)}
	})
}

// pairArg is a grant as its agent and tool.
type pairArg struct {
	agentArg
	toolArg
}

func (p pairArg) find(ctx context.Context, s *session, f serverFlags) (admin *client.Admin, agent, tool named, err error) {
	if admin, err = f.connect(s); err != nil {
		return nil, agent, tool, err
	}
	agent, tool, err = findPair(ctx, admin, p.Agent, p.Tool)
	return admin, agent, tool, err
}

type grantsAssign struct {
	serverFlags
	termFlags
	credentialFlags
	pairArg
	Ticket string `help:"A reference elsewhere, such as an issue."`
}

// Run assigns a tool to an agent.
func (c *grantsAssign) Run(ctx context.Context, s *session) error {
	if err := c.termFlags.check(); err != nil {
		return err
	}
	admin, agent, tool, err := c.pairArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	perAgent, err := isPerAgent(ctx, admin, tool.id)
	if err != nil {
		return err
	}
	credential, err := c.credentialFor(s, perAgent)
	if err != nil {
		return err
	}
	defer credential.Destroy()
	grant, err := admin.Assign(ctx, agent.id, tool.id, c.decision(c.Ticket), credential)
	if err != nil {
		return err
	}
	return s.outcome(grant, agent.name, tool.name)
}

func isPerAgent(ctx context.Context, admin *client.Admin, id string) (bool, error) {
	for tool, err := range admin.Tools(ctx, "") {
		if err != nil {
			return false, err
		}
		if tool.ID == id {
			return tool.Mode == "per_agent", nil
		}
	}
	return false, nil // the server says that there is no such tool
}

type grantsRevoke struct {
	serverFlags
	pairArg
}

// Run revokes a grant.
func (c *grantsRevoke) Run(ctx context.Context, s *session) error {
	admin, agent, tool, err := c.pairArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	revoked, err := admin.Revoke(ctx, agent.id, tool.id)
	if err != nil {
		return err
	}
	if err := s.say("revoked: %s → %s", clean(agent.name), clean(tool.name)); err != nil {
		return err
	}
	if revoked.Vends > 0 {
		err = s.say("  fetched %s since approval, last %s", plural(revoked.Vends, "time"), whenever(revoked.LastVendAt))
	}
	if err == nil && revoked.RotateUpstream {
		err = s.say("  The agent may still hold the credential: replace it at the service itself,\n  then run `agentkey tools replace-credential`.")
	}
	return err
}

type grantsNarrow struct {
	serverFlags
	termFlags
	pairArg
}

// Run narrows a grant.
func (c *grantsNarrow) Run(ctx context.Context, s *session) error {
	if err := c.termFlags.check(); err != nil {
		return err
	}
	if c.ExpiresIn == 0 && c.MaxVends == 0 && len(c.Scope) == 0 {
		return usagef("nothing to narrow: give --expires-in, --max-vends or --scope")
	}
	admin, agent, tool, err := c.pairArg.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	for grant, err := range admin.Grants(ctx, client.GrantQuery{Agent: agent.id, Tool: tool.id}) {
		if err != nil {
			return err
		}
		narrowed, err := admin.Narrow(ctx, grant.ID, c.decision(""))
		if err != nil {
			return err
		}
		return s.outcome(narrowed, agent.name, tool.name)
	}
	return fmt.Errorf("this agent has no grant for this tool")
}
