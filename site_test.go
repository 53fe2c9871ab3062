package agentkey_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// site is a whole installation in a SQLite file or on Postgres, with everything that
// a database writer could want to change. It is made once; every attack gets a copy.
type site struct {
	file  []byte // the database on SQLite
	dump  *dump  // and on Postgres
	keys  vault.KeyProvider
	clock *agentkeytest.Clock

	org, other             string
	owner                  agentkey.Actor // acts for the host, so that no token is read
	token, attackerToken   string
	administrator, tokenID string

	bot, bystander, otherBot string // agents
	key, attackerKey         string
	shared, personal, double string // tools: shared, per agent, needs two approvals
	otherTool, otherPersonal string
	grant, personalGrant     string
	pending                  string // a request for double that one of two has approved
}

const (
	sharedCredential   = "lin_api_test_shared_0001"
	personalCredential = "ghp_test_personal_000001"
	otherCredential    = "lin_api_test_other_00001"
)

// person is an administrator whom the host vouches for.
func person(organization, id string, role agentkey.Role) agentkey.Actor {
	return agentkey.Actor{Organization: organization, Kind: "human", ID: id, Label: id + "@example.com", Role: role, Auth: "host"}
}

var siteOnce struct {
	sync.Once
	site *site
}

// newSite answers the installation, which is built by the first test that asks.
func newSite(t testing.TB) *site {
	t.Helper()
	siteOnce.Do(func() { siteOnce.site = buildSite(t) })
	if siteOnce.site == nil {
		t.Fatal("the installation could not be built")
	}
	return siteOnce.site
}

func buildSite(t testing.TB) *site {
	t.Helper()
	s := blankSite(t)
	path := filepath.Join(t.TempDir(), "agentkey.db")
	store, err := bunstore.OpenSQLite(path)
	noErr(t, err)
	noErr(t, store.Migrate(t.Context()))
	m, err := agentkey.New(t.Context(), s.config(store))
	noErr(t, err)
	s.fill(t, m)
	noErr(t, m.Close(t.Context()))
	noErr(t, store.Close())
	raw := openRaw(t, path)
	execRaw(t, raw, "PRAGMA wal_checkpoint(TRUNCATE)")
	noErr(t, raw.Close())
	s.file = readFile(t, path)
	return s
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	noErr(t, err)
	return content
}

func (s *site) config(store storage.Store) agentkey.Config {
	return agentkey.Config{Storage: store, Keys: s.keys, Clock: s.clock.Now, Node: "test", Policies: agentkeytest.Unlimited()}
}

func (s *site) fill(t testing.TB, m *agentkey.Manager) {
	t.Helper()
	ctx := t.Context()
	made, err := m.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "acme", Owner: "alice"})
	noErr(t, err)
	s.org, s.administrator = made.Organization.ID, made.Administrator.ID
	s.token, s.tokenID = string(made.Token.Secret.Bytes()), made.Token.Token.ID
	s.owner = person(s.org, "ann", agentkey.RoleOwner)
	bot, err := m.RegisterAgent(ctx, s.owner, agentkey.RegisterAgentInput{Name: "bot", Owner: "carl"})
	noErr(t, err)
	s.bot, s.key = bot.Agent.ID, string(bot.Secret.Bytes())
	bystander, err := m.RegisterAgent(ctx, s.owner, agentkey.RegisterAgentInput{Name: "bystander", Owner: "carl"})
	noErr(t, err)
	s.bystander = bystander.Agent.ID
	s.shared = addTool(t, m, s.owner, "Linear", sharedCredential)
	s.double = addTool(t, m, s.owner, "Payroll", "pay_api_test_000000001")
	s.personal = addTool(t, m, s.owner, "GitHub", "")
	two := int64(2)
	_, err = m.UpdateTool(ctx, s.owner, s.double, agentkey.UpdateToolInput{RequiredApprovals: &two})
	noErr(t, err)
	caller := agentkey.Key(s.key)
	asked, err := m.RequestAccess(ctx, caller, agentkey.RequestInput{
		Tool: s.shared, Reason: "to file issues", MaxVends: 100, Scopes: []string{"read", "write"}, Ticket: "T-1",
	})
	noErr(t, err)
	_, err = m.Approve(ctx, s.owner, asked.ID, agentkey.DecisionInput{})
	noErr(t, err)
	s.grant = asked.ID
	given, err := m.Assign(ctx, s.owner, agentkey.AssignInput{Agent: s.bot, Tool: s.personal, DecisionInput: agentkey.DecisionInput{
		Credential: agentkey.NewSecret([]byte(personalCredential)),
	}})
	noErr(t, err)
	s.personalGrant = given.ID
	waits, err := m.RequestAccess(ctx, caller, agentkey.RequestInput{Tool: s.double, Reason: "to pay people"})
	noErr(t, err)
	_, err = m.Approve(ctx, s.owner, waits.ID, agentkey.DecisionInput{})
	noErr(t, err)
	s.pending = waits.ID
	s.fillOther(t, m)
}

func (s *site) fillOther(t testing.TB, m *agentkey.Manager) {
	t.Helper()
	made, err := m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "other", Owner: "olga"})
	noErr(t, err)
	s.other = made.Organization.ID
	owner := person(s.other, "olga", agentkey.RoleOwner)
	bot, err := m.RegisterAgent(t.Context(), owner, agentkey.RegisterAgentInput{Name: "bot"})
	noErr(t, err)
	s.otherBot = bot.Agent.ID
	s.otherTool = addTool(t, m, owner, "Linear", otherCredential)
	s.otherPersonal = addTool(t, m, owner, "GitHub", "")
	_, err = m.Assign(t.Context(), person(s.other, "otto", agentkey.RoleOwner), agentkey.AssignInput{Agent: s.otherBot, Tool: s.otherTool})
	noErr(t, err)
}

// addTool adds a shared tool, or without a credential one that has one per agent.
func addTool(t testing.TB, m *agentkey.Manager, a agentkey.Actor, name, credential string) string {
	t.Helper()
	in := agentkey.AddToolInput{Name: name, URL: "example.com", AuthType: "api_key", Mode: "per_agent"}
	if credential != "" {
		in.Mode, in.Credential = "shared", agentkey.NewSecret([]byte(credential))
	}
	v, err := m.AddTool(t.Context(), a, in)
	noErr(t, err)
	return v.Tool.ID
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// burglary is one copy of a site: the handle of an attacker who may write whatever
// the database takes, and a Manager over it once start was called.
type burglary struct {
	site
	t     testing.TB
	path  string
	raw   *sql.DB
	store storage.Store
	m     *agentkey.Manager
	turn  int // how many attacks there were
}

func (s *site) copy(t testing.TB) *burglary {
	t.Helper()
	c := &burglary{site: *s, t: t}
	c.clock = agentkeytest.NewClock(agentkeytest.Epoch)
	if s.dump != nil {
		s.dump.copyTo(t, c)
		return c
	}
	c.path = filepath.Join(t.TempDir(), "agentkey.db")
	noErr(t, os.WriteFile(c.path, s.file, 0o600))
	c.raw = openRaw(t, c.path)
	c.exec("PRAGMA foreign_keys = OFF")
	c.exec("PRAGMA ignore_check_constraints = ON")
	for _, trigger := range c.texts("SELECT name FROM sqlite_master WHERE type = 'trigger'") {
		c.exec("DROP TRIGGER " + trigger)
	}
	return c
}

// keep makes a copy fit for many attacks, one after the other: reset undoes the
// last one.
func (c *burglary) keep() *burglary {
	c.t.Helper()
	c.open()
	for _, table := range c.tables() {
		c.exec("CREATE TABLE kept_" + table + " AS SELECT * FROM " + table)
	}
	return c
}

// tables are those with rows of organizations.
func (c *burglary) tables() []string {
	c.t.Helper()
	if c.dump != nil {
		return c.texts(`SELECT DISTINCT table_name::text FROM information_schema.columns WHERE table_schema = current_schema()
			AND table_name LIKE 'agentkey^_%' ESCAPE '^' AND (column_name = 'organization' OR table_name = 'agentkey_organizations')`)
	}
	return c.texts("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'agentkey^_%' ESCAPE '^' AND sql LIKE '%organizations (%' OR type = 'table' AND name IN (SELECT m.name FROM sqlite_master AS m, pragma_table_info(m.name) AS p WHERE m.name LIKE 'agentkey^_%' ESCAPE '^' AND p.name = 'organization')")
}

// reset puts everything back as it was, for the next test and a new Manager.
func (c *burglary) reset(t testing.TB) {
	t.Helper()
	c.t, c.m = t, nil
	var all strings.Builder
	for _, table := range c.tables() {
		fmt.Fprintf(&all, "DELETE FROM %s; INSERT INTO %s SELECT * FROM kept_%s;", table, table, table)
	}
	c.exec("BEGIN; " + all.String() + " COMMIT")
}

func (c *burglary) open() {
	c.t.Helper()
	if c.store == nil {
		store, err := bunstore.OpenSQLite(c.path)
		noErr(c.t, err)
		c.t.Cleanup(func() { _ = store.Close() })
		c.store = store
	}
}

func openRaw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_busy_timeout=1900")
	noErr(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execRaw(t testing.TB, db *sql.DB, query string, args ...any) int64 {
	t.Helper()
	r, err := db.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	n, err := r.RowsAffected()
	noErr(t, err)
	return n
}

func (c *burglary) exec(query string, args ...any) int64 {
	c.t.Helper()
	return execRaw(c.t, c.raw, c.dialect(query), args...)
}

// change is exec of what must have changed at least one row.
func (c *burglary) change(query string, args ...any) {
	c.t.Helper()
	if c.exec(query, args...) == 0 {
		c.t.Fatalf("%s changed nothing", query)
	}
}

func (c *burglary) texts(query string, args ...any) (found []string) {
	c.t.Helper()
	rows, err := c.raw.QueryContext(c.t.Context(), c.dialect(query), args...)
	noErr(c.t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		noErr(c.t, rows.Scan(&text))
		found = append(found, text)
	}
	noErr(c.t, rows.Err())
	return found
}

func (c *burglary) start() error {
	c.t.Helper()
	c.open()
	var err error
	c.m, err = agentkey.New(c.t.Context(), c.config(c.store))
	return err
}

// warm starts the Manager and lets it hold keys and heads of both organizations.
func (c *burglary) warm() {
	c.t.Helper()
	noErr(c.t, c.start())
	for _, vend := range []error{c.vend(c.bot, c.shared), c.vendFor(c.other, c.otherBot, c.otherTool)} {
		noErr(c.t, vend)
	}
}

func (c *burglary) vend(agent, tool string) error { return c.vendFor(c.org, agent, tool) }

func (c *burglary) vendFor(organization, agent, tool string) error {
	return c.vendTo(agentkey.TrustedAgent(organization, agent), tool)
}

// vendTo notes a test's failure if a credential comes with an error.
func (c *burglary) vendTo(caller agentkey.Caller, tool string) error {
	c.t.Helper()
	v, err := c.m.Vend(c.t.Context(), caller, tool)
	if err != nil && v != nil {
		c.t.Error("a refused vend answered something")
	}
	if v != nil {
		v.Credential.Destroy()
	}
	return err
}

// logged counts the events of an action in the log of an organization.
func (c *burglary) logged(organization string, action audit.Action) (found []agentkey.LoggedEvent) {
	c.t.Helper()
	reader := person(organization, "reader", agentkey.RoleAuditor)
	page, err := c.m.Events(c.t.Context(), reader, agentkey.EventsInput{Filter: audit.Filter{Action: action}})
	noErr(c.t, err)
	return page.Events
}

const systemLog = "system"

// failures are the integrity failures that stand in either log.
func (c *burglary) failures() []agentkey.LoggedEvent {
	c.t.Helper()
	return append(c.logged(c.org, audit.ActionIntegrityFailed), c.logged(systemLog, audit.ActionIntegrityFailed)...)
}

// refused wants ErrIntegrity from each call, an event of the failure with that
// kind of target, and no vend.
func (c *burglary) refused(kind string, calls map[string]func() error) {
	c.t.Helper()
	before := len(c.logged(c.org, audit.ActionCredentialVended))
	for name, call := range calls {
		if err := call(); !errors.Is(err, agentkey.ErrIntegrity) {
			c.t.Errorf("%s: got %v, want an integrity failure", name, err)
		}
	}
	found := c.failures()
	if len(found) == 0 {
		c.t.Error("no integrity.failed in the log")
	}
	for _, e := range found {
		if e.Target.Kind != kind || e.Outcome != audit.OutcomeRefused {
			c.t.Errorf("integrity.failed names a %s, want a %s", e.Target.Kind, kind)
		}
	}
	if after := len(c.logged(c.org, audit.ActionCredentialVended)); after != before {
		c.t.Error("a credential was vended")
	}
}

// How a column counts.
type class int

const (
	deciding class = iota // an edit is an integrity failure for whatever relies on the row
	identity              // an edit makes it another row: the old one is missing
	free                  // decides nothing
)

// target is one row that is attacked column by column, and what relies on it.
type target struct {
	table string
	where string
	kind  string
	class map[string]class  // of columns that are not deciding
	value map[string]string // SQL of values that an attacker would want; else any other value
	calls func(c *burglary) map[string]func() error
}
