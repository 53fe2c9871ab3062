package console_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	console "github.com/agentkey-dev/agentkey-go/examples/postgres"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// database is a new database, which goes away with the test.
func database(t *testing.T) *bun.DB {
	t.Helper()
	config, err := pgx.ParseConfig(pgtest.DSN(t))
	if err != nil {
		t.Fatal("the test server's URL is not valid")
	}
	server := stdlib.OpenDB(*config)
	config.Database = "console_" + strings.ToLower(rand.Text())
	if _, err := server.ExecContext(t.Context(), `CREATE DATABASE "`+config.Database+`" ENCODING 'UTF8' TEMPLATE template0`); err != nil {
		t.Fatal(err)
	}
	db := bun.NewDB(stdlib.OpenDB(*config), pgdialect.New())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = db.Close()
		if _, err := server.ExecContext(ctx, `DROP DATABASE "`+config.Database+`" WITH (FORCE)`); err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
	return db
}

// node is one more process of the host.
func node(t *testing.T, db *bun.DB, keys vault.KeyProvider) *console.Console {
	t.Helper()
	if err := console.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	c, err := console.Open(t.Context(), db, keys, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func actor(t *testing.T, c *console.Console, email string) agentkey.Actor {
	t.Helper()
	a, err := c.Actor(t.Context(), email, agentkey.RequestContext{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestConsole: the host's people run AgentKey in the host's own database.
func TestConsole(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	db, keys := database(t), agentkeytest.Keys(t)
	c := node(t, db, keys)
	is.NoErr(c.Hire(ctx, console.Person{Email: "alice@example.com", Role: agentkey.RoleAdmin}))
	is.NoErr(c.Hire(ctx, console.Person{Email: "bob@example.com", Role: agentkey.RoleApprover}))
	alice := actor(t, c, "alice@example.com")

	bot, err := c.Keys.RegisterAgent(ctx, alice, agentkey.RegisterAgentInput{Name: "deploy bot"})
	is.NoErr(err)
	registry, err := c.Keys.AddTool(ctx, alice, agentkey.AddToolInput{
		Name: "Registry", AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("reg_test_console")),
	})
	is.NoErr(err)
	agent := agentkey.Key(string(bot.Secret.Bytes()))
	request, err := c.Keys.RequestAccess(ctx, agent, agentkey.RequestInput{Tool: registry.ID, Reason: "to push images"})
	is.NoErr(err)
	_, err = c.Keys.Approve(ctx, alice, request.ID, agentkey.DecisionInput{})
	is.True(errors.Is(err, agentkey.ErrOwnerAlone)) // the agent is hers, and the host knows another approver
	_, err = c.Keys.Approve(ctx, actor(t, c, "bob@example.com"), request.ID, agentkey.DecisionInput{})
	is.NoErr(err)
	v, err := c.Keys.Vend(ctx, agent, registry.ID)
	is.NoErr(err)
	is.Equal(string(v.Credential.Bytes()), "reg_test_console")
	v.Credential.Destroy()

	d, err := c.Deploy(ctx, "alice@example.com", bot.Agent.ID, "billing")
	is.NoErr(err)
	is.True(d.LogIndex > v.Receipt.Index) // the log orders what AgentKey and the host did
	page, err := c.Keys.Events(ctx, alice, agentkey.EventsInput{Filter: audit.Filter{Action: "x.console.service.deployed"}})
	is.NoErr(err)
	is.Equal(len(page.Events), 1)
	is.Equal(page.Events[0].Seq, d.LogIndex)
	is.Equal(page.Events[0].Actor.ID, "alice@example.com")
	is.Equal(page.Events[0].Target.ID, "billing")

	again := node(t, db, keys) // another node, on the same database
	deployments, err := again.Deployments(ctx, 10)
	is.NoErr(err)
	is.Equal(len(deployments), 1)
	is.Equal(deployments[0].LogIndex, d.LogIndex)
	is.Equal(deployments[0].Person, "alice@example.com")
	report, err := again.Keys.Reconcile(ctx, actor(t, again, "alice@example.com"))
	is.NoErr(err)
	is.True(report.OK())
}

// TestPeopleLeave: who was removed from the host's own table acts no more.
func TestPeopleLeave(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	c := node(t, database(t), agentkeytest.Keys(t))
	is.NoErr(c.Hire(ctx, console.Person{Email: "carol@example.com", Role: agentkey.RoleAuditor}))
	_, err := c.Deploy(ctx, "carol@example.com", "", "billing")
	is.True(errors.Is(err, agentkey.ErrRole))
	is.NoErr(c.Hire(ctx, console.Person{Email: "carol@example.com", Role: agentkey.RoleAdmin}))
	_, err = c.Deploy(ctx, "carol@example.com", "", "billing")
	is.NoErr(err)
	is.NoErr(c.Leave(ctx, "carol@example.com"))
	_, err = c.Deploy(ctx, "carol@example.com", "", "billing")
	is.True(errors.Is(err, console.ErrNobody))
	deployments, err := c.Deployments(ctx, 10)
	is.NoErr(err)
	is.Equal(len(deployments), 1) // what was refused left no row
}

// TestTablesSideBySide: each has its tables in its own schema, and nothing of
// AgentKey's is elsewhere.
func TestTablesSideBySide(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	db := database(t)
	var nodes sync.WaitGroup
	for range 3 { // start together
		nodes.Go(func() {
			if err := console.Migrate(ctx, db); err != nil {
				t.Error(err)
			}
		})
	}
	nodes.Wait()
	var tables []string
	is.NoErr(db.NewSelect().Table("pg_catalog.pg_tables").ColumnExpr("schemaname || '.' || tablename").
		Where("schemaname NOT IN ('pg_catalog', 'information_schema')").Scan(ctx, &tables))
	own, theirs := 0, 0
	for _, table := range tables {
		switch {
		case strings.HasPrefix(table, "console.") || table == "public.console_migrations":
			own++
		case strings.HasPrefix(table, "agentkey.agentkey_"):
			theirs++
		default:
			t.Errorf("%s is nobody's", table)
		}
	}
	is.Equal(own, 3)
	is.True(theirs > 10)
}
