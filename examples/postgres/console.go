package console

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Console is the host. It is safe for concurrent use.
type Console struct {
	// Keys is AgentKey, for whatever the console itself does not wrap. A server
	// calls Keys.Run beside its own work.
	Keys *agentkey.Manager

	db           *bun.DB
	store        *bunstore.Store
	organization string
}

// Open opens a console on a migrated database. The handle stays the caller's. A
// nil clock is time.Now.
func Open(ctx context.Context, db *bun.DB, keys vault.KeyProvider, clock func() time.Time) (*Console, error) {
	store, err := open(db)
	if err != nil {
		return nil, err
	}
	c := &Console{db: db, store: store}
	if err := c.begin(ctx, keys, clock); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

func (c *Console) begin(ctx context.Context, keys vault.KeyProvider, clock func() time.Time) (err error) {
	if err := c.store.Validate(ctx); err != nil {
		return err
	}
	c.Keys, err = agentkey.New(ctx, agentkey.Config{Storage: c.store, Keys: keys, Clock: clock, SharedLimits: true})
	if err != nil {
		return err
	}
	c.organization, err = c.firstOrganization(ctx)
	return err
}

// firstOrganization is the one organization of this host. Of several nodes that
// start together one makes it.
func (c *Console) firstOrganization(ctx context.Context) (string, error) {
	operator := agentkey.Operator("console")
	created, err := c.Keys.CreateOrganization(ctx, operator, agentkey.CreateOrganizationInput{Name: "Console", Owner: "console", First: true})
	switch {
	case err == nil:
		created.Token.Secret.Destroy() // nobody signs in at AgentKey: this host's people sign in here
		return created.Organization.ID, nil
	case !errors.Is(err, agentkey.ErrNotFirst):
		return "", err
	}
	all, err := c.Keys.Organizations(ctx, operator)
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", errors.New("console: another node is making the organization: start again")
	}
	return all[0].ID, nil
}

// Close ends AgentKey, and leaves the database's handle open.
func (c *Console) Close(ctx context.Context) error {
	var err error
	if c.Keys != nil {
		err = c.Keys.Close(ctx)
	}
	return errors.Join(err, c.store.Close())
}

// Deployment is something that an agent was let do for a person.
type Deployment struct {
	bun.BaseModel `bun:"table:console.deployments"`

	LogIndex int64  `bun:"log_index,pk"` // of the event in AgentKey's log
	Service  string `bun:"service"`
	Agent    string `bun:"agent"`
	Person   string `bun:"person"`
}

// Deploy notes that an agent deploys a service for a person: first in the log,
// which nobody rewrites, then in the host's own table. They are two transactions,
// on two connections; don't hold one while asking for the other, or the pool can
// run dry of connections that wait for each other. An event without a row tells
// of a deployment that was broken off. The person must be an administrator.
func (c *Console) Deploy(ctx context.Context, email, agent, service string) (Deployment, error) {
	actor, err := c.Actor(ctx, email, agentkey.RequestContext{})
	if err != nil {
		return Deployment{}, err
	}
	seq, err := c.Keys.Record(ctx, actor, agentkey.RecordInput{
		Action: "x.console.service.deployed", Agent: agent,
		Target: audit.Ref{Kind: "service", ID: service},
	})
	if err != nil {
		return Deployment{}, err
	}
	d := Deployment{LogIndex: seq, Service: service, Agent: agent, Person: email}
	_, err = c.db.NewInsert().Model(&d).Exec(ctx)
	return d, err
}

// Deployments are the newest, at most limit.
func (c *Console) Deployments(ctx context.Context, limit int) (found []Deployment, err error) {
	err = c.db.NewSelect().Model(&found).Order("log_index DESC").Limit(int64(limit)).Scan(ctx)
	return found, err
}
