package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

type tokensCommands struct {
	List   tokensList   `cmd:"" help:"List tokens."`
	Create tokensCreate `cmd:"" help:"Make a token; prints it, once."`
	Revoke tokensRevoke `cmd:"" help:"End a token at once."`
}

type adminsCommands struct {
	List   adminsList   `cmd:"" help:"List administrators."`
	Add    adminsAdd    `cmd:"" help:"Add an administrator. Give them a token with agentkey tokens create."`
	Update adminsUpdate `cmd:"" help:"Change an administrator's name or role."`
	Remove adminsRemove `cmd:"" help:"Remove an administrator; their tokens end at once."`
}

type orgCommands struct {
	Show   orgShow   `cmd:"" help:"Show the organization."`
	Rename orgRename `cmd:"" help:"Give the organization another name."`

	Onboarding orgOnboarding `cmd:"" help:"Show or dismiss the introduction of the organization."`
}

// issued shows a new secret, this once.
func (s *session) issued(kind, id, what string, secret *vault.Secret, asJSON bool) error {
	defer secret.Destroy()
	if asJSON {
		quoted, err := json.Marshal(string(secret.Bytes()))
		if err != nil {
			return err
		}
		return s.emit(map[string]any{kind + "_id": id, what: json.RawMessage(quoted)})
	}
	if err := s.say("%-8s %s", kind, id); err != nil {
		return err
	}
	return s.say("%-8s %s\nKeep it now: it is not shown again.", map[string]string{"api_key": "api key", "token": "secret"}[what], secret.Bytes())
}

type tokensList struct{ readFlags }

// Run lists tokens.
func (c *tokensList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	return show(s, c.JSON, admin.Tokens(ctx), []string{"ID", "NAME", "ADMINISTRATOR", "STATUS", "CREATED", "EXPIRES"},
		func(t client.TokenRecord) []string {
			status := "active"
			switch {
			case t.Revoked:
				status = "revoked"
			case t.ExpiresAt != nil && !t.ExpiresAt.After(s.options.Clock()):
				status = "expired"
			}
			return []string{t.ID, t.Name, t.Administrator, status, when(t.CreatedAt), whenever(t.ExpiresAt)}
		})
}

type tokensCreate struct {
	serverFlags
	Administrator string `placeholder:"ADMIN" help:"Name or id of whom it is for. Default: you."`
	Name          string `help:"What it is for."`
	ExpiresIn     span   `placeholder:"90d" help:"When it ends. Default: never."`
	JSON          bool   `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run makes a token.
func (c *tokensCreate) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	in := client.NewToken{Name: c.Name, ExpiresIn: c.ExpiresIn.seconds()}
	if c.Administrator != "" {
		administrator, err := findAdministrator(ctx, admin, c.Administrator)
		if err != nil {
			return err
		}
		in.Administrator = administrator.id
	}
	token, err := admin.CreateToken(ctx, in)
	if err != nil {
		return err
	}
	return s.issued("token", token.Token.ID, "token", token.Secret, c.JSON)
}

type tokensRevoke struct {
	serverFlags
	Token string `arg:"" help:"Id of the token, from agentkey tokens list. Never the token itself."`
}

// Run revokes a token.
func (c *tokensRevoke) Run(ctx context.Context, s *session) error {
	if !uuid.MatchString(c.Token) {
		return usagef("give the token's id, from `agentkey tokens list`; never the token itself")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := admin.RevokeToken(ctx, c.Token); err != nil {
		return err
	}
	return s.say("token revoked")
}

type adminsList struct{ readFlags }

// Run lists administrators.
func (c *adminsList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	return show(s, c.JSON, admin.Administrators(ctx), []string{"ID", "NAME", "KIND", "ROLE", "STATUS", "CREATED"},
		func(a client.Administrator) []string {
			status := "active"
			if a.Removed {
				status = "removed"
			}
			return []string{a.ID, a.Label, a.Kind, a.Role, status, when(a.CreatedAt)}
		})
}

type adminsAdd struct {
	serverFlags
	Label string `arg:"" name:"name" help:"Name or e-mail address, as people know them."`
	Role  string `enum:"owner,admin,approver,auditor" required:"" help:"One of ${enum}."`
	Kind  string `enum:"human,service" default:"human" help:"One of ${enum}."`
}

// Run adds an administrator.
func (c *adminsAdd) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	added, err := admin.AddAdministrator(ctx, client.NewAdministrator{Label: c.Label, Kind: c.Kind, Role: c.Role})
	if err != nil {
		return err
	}
	return s.say("%s %s (%s) added", added.Role, clean(added.Label), added.ID)
}

// administratorArg is an administrator as an argument.
type administratorArg struct {
	Administrator string `arg:"" help:"Name or id of the administrator."`
}

func (a administratorArg) find(ctx context.Context, s *session, f serverFlags) (*client.Admin, named, error) {
	admin, err := f.connect(s)
	if err != nil {
		return nil, named{}, err
	}
	found, err := findAdministrator(ctx, admin, a.Administrator)
	return admin, found, err
}

type adminsUpdate struct {
	serverFlags
	administratorArg
	Name *string `help:"New name."`
	Role string  `enum:",owner,admin,approver,auditor" default:"" help:"New role: owner, admin, approver or auditor."`
}

// Run changes an administrator.
func (c *adminsUpdate) Run(ctx context.Context, s *session) error {
	if c.Name == nil && c.Role == "" {
		return usagef("nothing to change: give --name or --role")
	}
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	in := client.AdministratorChange{Label: c.Name}
	if c.Role != "" {
		in.Role = &c.Role
	}
	updated, err := admin.UpdateAdministrator(ctx, found.id, in)
	if err != nil {
		return err
	}
	return s.say("%s %s (%s) updated", updated.Role, clean(updated.Label), updated.ID)
}

type adminsRemove struct {
	serverFlags
	administratorArg
}

// Run removes an administrator.
func (c *adminsRemove) Run(ctx context.Context, s *session) error {
	admin, found, err := c.find(ctx, s, c.serverFlags)
	if err != nil {
		return err
	}
	if err := admin.RemoveAdministrator(ctx, found.id); err != nil {
		return err
	}
	return s.say("administrator %s removed", clean(found.name))
}

type orgShow struct{ readFlags }

// Run shows the organization.
func (c *orgShow) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	o, err := admin.Organization(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(o)
	}
	return s.state(o)
}

// state shows an organization on one line.
func (s *session) state(o client.Organization) error {
	state := "open"
	if o.Locked {
		state = "locked: every agent is refused everything"
	}
	return s.say("%s (%s): %s", clean(o.Name), o.ID, state)
}

type orgRename struct {
	serverFlags
	Name string `arg:"" help:"New name."`
}

// Run renames the organization.
func (c *orgRename) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	o, err := admin.RenameOrganization(ctx, c.Name)
	if err != nil {
		return err
	}
	return s.state(o)
}

// reasonFlag is why something is done, for the log.
type reasonFlag struct {
	Reason string `help:"Why; it is recorded."`
}

// meantFlag guards against a token of another organization than the one that is meant.
type meantFlag struct {
	Org string `placeholder:"NAME" help:"The organization that is meant, name or id: nothing is done when the token is of another one."`
}

func (f meantFlag) check(ctx context.Context, admin *client.Admin) error {
	if f.Org == "" {
		return nil
	}
	o, err := admin.Organization(ctx)
	if err != nil {
		return err
	}
	if f.Org != o.Name && strings.ToLower(f.Org) != o.ID {
		return fmt.Errorf("the token is of the organization %s (%s), not of the one that --org names; nothing was done", o.Name, o.ID)
	}
	return nil
}

type orgLock struct {
	serverFlags
	meantFlag
	reasonFlag
}

// Run locks the organization.
func (c *orgLock) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := c.check(ctx, admin); err != nil {
		return err
	}
	o, err := admin.Lock(ctx, c.Reason)
	if err != nil {
		return err
	}
	return s.state(o)
}

type orgUnlock struct {
	serverFlags
	meantFlag
	reasonFlag
}

// Run unlocks the organization.
func (c *orgUnlock) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := c.check(ctx, admin); err != nil {
		return err
	}
	o, err := admin.Unlock(ctx, c.Reason)
	if err != nil {
		return err
	}
	return s.state(o)
}
