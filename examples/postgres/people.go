package console

import (
	"context"
	"database/sql"
	"errors"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go"
)

// ErrNobody says that no such person works here, or no longer does.
var ErrNobody = errors.New("console: nobody of that name")

// Person is one of the host's people.
type Person struct {
	bun.BaseModel `bun:"table:console.people"`

	Email string        `bun:"email,pk"`
	Role  agentkey.Role `bun:"role"` // what they may do in AgentKey
}

// Hire adds a person, or changes the role of one.
func (c *Console) Hire(ctx context.Context, p Person) error {
	_, err := c.db.NewInsert().Model(&p).On("CONFLICT (email) DO UPDATE").Set("role = EXCLUDED.role").Exec(ctx)
	return err
}

// Leave removes a person. What they approved stays; they approve nothing more.
func (c *Console) Leave(ctx context.Context, email string) error {
	_, err := c.db.NewDelete().Model((*Person)(nil)).Where("email = ?", email).Exec(ctx)
	return err
}

// Actor is a person who has signed in, as AgentKey knows them. It is made anew
// for each call and never kept. It answers ErrNobody for who does not work here.
func (c *Console) Actor(ctx context.Context, email string, rc agentkey.RequestContext) (agentkey.Actor, error) {
	var p Person
	err := c.db.NewSelect().Model(&p).Where("email = ?", email).Scan(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return agentkey.Actor{}, ErrNobody
	case err != nil:
		return agentkey.Actor{}, err
	}
	return agentkey.Actor{
		Organization: c.organization, Kind: "human", ID: p.Email, Label: p.Email, Role: p.Role, Auth: "console_session", Context: rc,
	}, nil
}
