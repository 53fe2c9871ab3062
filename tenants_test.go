package agentkey_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// forge copies the rows of a table that fit, with other values in some columns.
func (c *burglary) forge(table, where string, other map[string]string) {
	c.t.Helper()
	var names, values []string
	for _, col := range c.columns(table) {
		names = append(names, col.name)
		value := other[col.name]
		if value == "" {
			value = col.name
		}
		values = append(values, value)
	}
	c.change(fmt.Sprintf("INSERT INTO agentkey_%s (%s) SELECT %s FROM agentkey_%s WHERE %s",
		table, strings.Join(names, ", "), strings.Join(values, ", "), table, where))
}

func quoted(s string) string { return "'" + s + "'" }

// A row of each kind that nobody ever wrote, copied from a real one with its seal:
// whatever would rely on it is refused, and Reconcile finds it.
func TestForgedRows(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		vend := func(agent string) func(c *burglary) error {
			return func(c *burglary) error { return c.vend(agent, s.shared) }
		}
		for _, test := range []struct {
			table, where, kind string
			other              map[string]string
			call               func(c *burglary) error
		}{
			{"agents", "id = " + quoted(s.bot), audit.KindAgent, map[string]string{"id": "'forged'"}, vend("forged")},
			{
				"keys", "agent_id = " + quoted(s.bot), audit.KindKey,
				map[string]string{"id": "'forged'", "digest": "x'" + digest(s.attackerKey) + "'"},
				func(c *burglary) error { return c.vendTo(agentkey.Key(c.attackerKey), c.shared) },
			},
			{
				"tools", "id = " + quoted(s.shared), audit.KindTool, map[string]string{"id": "'forged'", "config_key": "'forged'"},
				func(c *burglary) error { return c.vend(c.bot, "forged") },
			},
			{
				"credentials", "tool_id = " + quoted(s.shared), audit.KindCredential, map[string]string{"id": "'forged'", "tool_id": "'x'"},
				func(c *burglary) error {
					c.change("DELETE FROM agentkey_credentials WHERE tool_id = ?", c.shared)
					c.change("UPDATE agentkey_credentials SET tool_id = ? WHERE id = 'forged'", c.shared)
					return c.vend(c.bot, c.shared)
				},
			},
			{
				"grants", "id = " + quoted(s.grant), audit.KindGrant, map[string]string{"id": "'forged'", "agent_id": quoted(s.bystander)},
				vend(s.bystander),
			},
			{
				"approvals", "grant_id = " + quoted(s.pending), audit.KindApproval, map[string]string{"actor": "'bob'"},
				func(c *burglary) error {
					_, err := c.m.Approve(c.t.Context(), person(c.org, "carol", agentkey.RoleApprover), c.pending, agentkey.DecisionInput{})
					return err
				},
			},
			{
				"records", "kind = 'administrator' AND organization = " + quoted(s.org), audit.KindAdministrator, map[string]string{"id": "'forged'"},
				func(c *burglary) error {
					return c.m.RemoveAdministrator(c.t.Context(), c.owner, c.administrator)
				},
			},
			{
				"records", "kind = 'token' AND organization = " + quoted(s.org), audit.KindToken, map[string]string{"id": quoted(digest(s.attackerToken))},
				func(c *burglary) error { return c.authenticate(c.attackerToken) },
			},
			{
				"data_keys", "purpose = 'seal' AND organization = " + quoted(s.org), audit.KindDataKey,
				map[string]string{"id": "'00000000000000000000000000000000'", "state": "'decrypt_only'"}, vend(s.bot),
			},
		} {
			t.Run(test.table+"/"+test.kind, func(t *testing.T) {
				c.reset(t)
				c.warm()
				c.forge(test.table, test.where, test.other)
				c.refused(test.kind, map[string]func() error{"call": func() error { return test.call(c) }})
				if test.kind != audit.KindDataKey { // with forged data keys nothing is read at all
					c.disagrees(test.kind)
				}
			})
		}
	})
}

// A sealed value in the place of another, with its revisions and its row's seal:
// within an organization, between two, and with the whole row.
func TestMovedCredentials(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		places := []string{
			"tool_id = '" + s.shared + "'", "tool_id = '" + s.double + "'", "grant_id = '" + s.personalGrant + "'", "tool_id = '" + s.otherTool + "'",
		}
		c := s.copy(t).keep()
		columns := "revision, auth_type, status, expires_at, rotated_at, sealed, sealed_revision, created_at, updated_at, seal"
		for i, from := range places {
			for j, to := range places {
				if i == j {
					continue
				}
				for _, moved := range []string{"sealed, sealed_revision", columns, "id, " + columns} {
					if c.spared() {
						continue
					}
					t.Run(fmt.Sprintf("%d_to_%d/%.6s", i, j, moved), func(t *testing.T) {
						is := is.New(t)
						c.reset(t)
						c.warm()
						c.exec("DROP TABLE IF EXISTS moved")
						c.exec("CREATE TABLE moved AS SELECT * FROM agentkey_credentials WHERE " + from)
						if strings.HasPrefix(moved, "id") {
							c.exec("DELETE FROM agentkey_credentials WHERE " + from)
						}
						c.change(fmt.Sprintf("UPDATE agentkey_credentials SET (%s) = (SELECT %s FROM moved) WHERE %s", moved, moved, to))
						is.True(errors.Is(c.vendAt(j), agentkey.ErrIntegrity))
						is.Equal(len(append(c.failures(), c.logged(c.other, audit.ActionIntegrityFailed)...)), 1)
					})
				}
			}
		}
	})
}

// vendAt vends what stands at a place of TestMovedCredentials.
func (c *burglary) vendAt(place int) error {
	c.t.Helper()
	if place == 1 {
		_, err := c.m.Approve(c.t.Context(), person(c.org, "bob", agentkey.RoleApprover), c.pending, agentkey.DecisionInput{})
		if err != nil { // it reads the credential too
			return err
		}
	}
	return []func() error{
		func() error { return c.vend(c.bot, c.shared) },
		func() error { return c.vend(c.bot, c.double) },
		func() error { return c.vend(c.bot, c.personal) },
		func() error { return c.vendFor(c.other, c.otherBot, c.otherTool) },
	}[place]()
}

// oldRows is what TestOldRowsPutBack puts back: 25 of each of 8 kinds.
const oldRows = 25

// 200 whole old rows, put back with the seals that they had: every one is found
// by Reconcile, and nothing else is.
func TestOldRowsPutBack(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		is := is.New(t)
		c := s.empty(t).copy(t)
		noErr(t, c.start())
		change := c.fillForReplay(oldRows)
		report, err := c.m.Reconcile(t.Context(), c.owner)
		is.NoErr(err)
		is.True(report.OK())

		tables := map[string]string{
			"agents": audit.KindAgent, "keys": audit.KindKey, "tools": audit.KindTool, "credentials": audit.KindCredential,
			"grants": audit.KindGrant, "approvals": audit.KindApproval, "records": "",
		}
		for table := range tables {
			c.exec(fmt.Sprintf("CREATE TABLE old_%s AS SELECT * FROM agentkey_%s WHERE organization = ?", table, table), c.org)
		}
		change()
		report, err = c.m.Reconcile(t.Context(), c.owner)
		is.NoErr(err)
		is.True(report.OK())
		for table := range tables {
			c.putBack("agentkey_"+table, "old_"+table)
		}
		report, err = c.m.Reconcile(t.Context(), c.owner)
		is.NoErr(err)
		found := map[string]int{}
		const waiting = "access_request" // of a request that was denied since: it is no longer there
		for _, f := range report.Findings {
			if f.Kind == waiting {
				is.Equal(f.Problem, "log says that it was removed")
			} else {
				is.Equal(f.Problem, "record is older than the log says")
			}
			found[f.Kind]++
		}
		is.Equal(len(report.Findings), 9*oldRows)
		for _, kind := range append(slices.Collect(valuesOf(tables)), audit.KindAdministrator, audit.KindToken, waiting) {
			if kind != "" {
				is.Equal(found[kind], oldRows)
			}
		}
		is.Equal(len(c.logged(c.org, audit.ActionLogReconcileFailed)), 1)

		// In many passes, of a part of the records each, the same is found.
		agentkey.HoldAtMost(c.m, 3*oldRows)
		parts, err := c.m.Reconcile(t.Context(), c.owner)
		is.NoErr(err)
		byRecord := func(a, b agentkey.Discrepancy) int { return strings.Compare(a.Kind+a.ID, b.Kind+b.ID) }
		slices.SortFunc(report.Findings, byRecord)
		slices.SortFunc(parts.Findings, byRecord)
		is.Equal(parts.Findings, report.Findings)
		is.Equal(parts.Records, report.Records)
	})
}

func valuesOf(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// emptyFile is a database that has its tables and nothing in them.
func emptyFile(t testing.TB) []byte {
	t.Helper()
	s := &site{}
	c := s.copy(t)
	store, err := bunstore.OpenSQLite(c.path)
	noErr(t, err)
	noErr(t, store.Migrate(t.Context()))
	noErr(t, store.Close())
	c.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	return readFile(t, c.path)
}

// fillForReplay makes n rows of each kind, and answers a function that changes
// every one of them.
func (c *burglary) fillForReplay(n int) (change func()) {
	c.t.Helper()
	ctx := c.t.Context()
	made, err := c.m.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "acme", Owner: "alice"})
	noErr(c.t, err)
	c.org = made.Organization.ID
	c.owner = person(c.org, "ann", agentkey.RoleOwner)
	var steps []func() error
	for i := range n {
		name := fmt.Sprintf("name %d", i)
		bot, err := c.m.RegisterAgent(ctx, c.owner, agentkey.RegisterAgentInput{Name: name, Owner: "carl"})
		noErr(c.t, err)
		tool := addTool(c.t, c.m, c.owner, name, "old_test_credential")
		two, later := int64(2), agentkeytest.Epoch.Add(time.Hour)
		_, err = c.m.UpdateTool(ctx, c.owner, tool, agentkey.UpdateToolInput{RequiredApprovals: &two})
		noErr(c.t, err)
		g, err := c.m.RequestAccess(ctx, agentkey.TrustedAgent(c.org, bot.Agent.ID), agentkey.RequestInput{Tool: tool, Reason: "to test"})
		noErr(c.t, err)
		_, err = c.m.Approve(ctx, c.owner, g.ID, agentkey.DecisionInput{})
		noErr(c.t, err)
		admin, err := c.m.AddAdministrator(ctx, c.owner, agentkey.AddAdministratorInput{Label: name, Role: agentkey.RoleAdmin})
		noErr(c.t, err)
		token, err := c.m.CreateToken(ctx, c.owner, agentkey.CreateTokenInput{Administrator: admin.ID})
		noErr(c.t, err)
		role := agentkey.RoleAuditor
		steps = append(steps,
			func() error {
				_, err := c.m.RotateKey(ctx, c.owner, bot.Agent.ID, agentkey.RotateKeyInput{Grace: time.Hour})
				return err
			},
			func() error { _, err := c.m.Deny(ctx, c.owner, g.ID, "no"); return err },
			func() error { _, err := c.m.SuspendAgent(ctx, c.owner, bot.Agent.ID); return err },
			func() error {
				_, err := c.m.UpdateTool(ctx, c.owner, tool, agentkey.UpdateToolInput{CredentialExpiresAt: &later})
				return err
			},
			func() error {
				_, err := c.m.UpdateAdministrator(ctx, c.owner, admin.ID, agentkey.UpdateAdministratorInput{Role: &role})
				return err
			},
			func() error { return c.m.RevokeToken(ctx, c.owner, token.Token.ID) },
		)
	}
	return func() {
		for _, step := range steps {
			noErr(c.t, step())
		}
	}
}

// A row of each kind, deleted: Reconcile misses it.
func TestDeletedRows(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		for i, a := range s.targets() {
			t.Run(fmt.Sprintf("%s_%d", a.table, i), func(t *testing.T) {
				c.reset(t)
				c.warm()
				c.change(fmt.Sprintf("DELETE FROM agentkey_%s WHERE %s", a.table, a.where))
				for name, call := range a.calls(c) {
					if err := call(); err == nil && !slices.Contains([]string{"list", "catalog", "deny", "lock"}, name) {
						t.Errorf("%s succeeded without the row", name)
					}
				}
				c.disagrees(a.kind)
			})
		}
	})
}

// A whole organization, deleted with its log: the reserved one's replay names it.
func TestDeletedOrganization(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		is := is.New(t)
		c := s.copy(t)
		c.warm()
		for _, table := range c.tables() {
			if table == "agentkey_organizations" {
				continue
			}
			c.exec("DELETE FROM "+table+" WHERE organization = ?", c.org)
		}
		c.exec("DELETE FROM agentkey_organizations WHERE id = ?", c.org)
		is.True(c.vend(c.bot, c.shared) != nil)
		report, err := c.m.Reconcile(t.Context(), agentkey.Operator("test"))
		is.NoErr(err)
		is.Equal(len(report.Findings), 1)
		is.Equal(report.Findings[0].Kind, audit.KindOrganization)
		is.Equal(report.Findings[0].ID, c.org)
	})
}

// A whole organization, copied under another name with its keys and its log,
// opens nothing.
func TestClonedOrganization(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		is := is.New(t)
		c := s.copy(t)
		c.warm()
		for _, table := range []string{"agents", "tools", "grants", "credentials", "approvals", "data_keys", "logs", "events", "leaves"} {
			c.forge(table, "organization = "+quoted(c.org), map[string]string{"organization": "'clone'"})
		}
		c.forge("organizations", "id = "+quoted(c.org), map[string]string{"id": "'clone'"})
		is.True(errors.Is(c.vendFor("clone", c.bot, c.shared), agentkey.ErrIntegrity))
	})
}

// An owner of one organization who knows every id of another: none is found, and
// nothing there changes.
func TestIdsOfAnotherOrganization(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newSite(t).copy(t)
	c.warm()
	ctx := t.Context()
	stranger := person(c.other, "olga", agentkey.RoleOwner)
	wish, err := c.m.SuggestTool(ctx, agentkey.TrustedAgent(c.org, c.bot), agentkey.SuggestToolInput{Name: "Sentry", Reason: "to read errors"})
	is.NoErr(err)
	keys, err := c.m.AgentKeys(ctx, c.owner, agentkey.AgentKeysInput{Agent: c.bot})
	is.NoErr(err)
	proposal, err := c.m.SuggestInstructions(ctx, agentkey.TrustedAgent(c.org, c.bot), agentkey.SuggestInstructionsInput{Tool: c.shared, Learned: "It is slow.", Why: "It timed out."})
	is.NoErr(err)
	version, err := c.m.InstructionVersion(ctx, c.owner, c.shared, "")
	is.NoErr(err)
	heads := c.texts("SELECT hex(signed) FROM agentkey_logs WHERE organization = ?", c.org)
	text := "Pages end at 100 items."
	name, admin, secret := "renamed", agentkey.RoleAdmin, agentkey.NewSecret([]byte("new_test_credential"))
	for call, err := range map[string]error{
		"Agent":                    second(c.m.Agent(ctx, stranger, c.bot)),
		"AgentKeys":                second(c.m.AgentKeys(ctx, stranger, agentkey.AgentKeysInput{Agent: c.bot})),
		"UpdateAgent":              second(c.m.UpdateAgent(ctx, stranger, c.bot, agentkey.UpdateAgentInput{Name: &name})),
		"SuspendAgent":             second(c.m.SuspendAgent(ctx, stranger, c.bot)),
		"ReactivateAgent":          second(c.m.ReactivateAgent(ctx, stranger, c.bot)),
		"RotateKey":                second(c.m.RotateKey(ctx, stranger, c.bot, agentkey.RotateKeyInput{})),
		"RevokeKey":                c.m.RevokeKey(ctx, stranger, c.bot, keys[0].ID),
		"RevokeKey of own agent":   c.m.RevokeKey(ctx, stranger, c.otherBot, keys[0].ID),
		"Tool":                     second(c.m.Tool(ctx, stranger, c.shared)),
		"UpdateTool":               second(c.m.UpdateTool(ctx, stranger, c.shared, agentkey.UpdateToolInput{Name: &name})),
		"UpdateTool with secret":   second(c.m.UpdateTool(ctx, stranger, c.shared, agentkey.UpdateToolInput{Credential: secret})),
		"RemoveCredential":         second(c.m.RemoveCredential(ctx, stranger, c.shared)),
		"DeleteTool":               second(c.m.DeleteTool(ctx, stranger, c.shared)),
		"InstructionVersions":      second(c.m.InstructionVersions(ctx, stranger, agentkey.InstructionVersionsInput{Tool: c.shared})),
		"InstructionVersion":       second(c.m.InstructionVersion(ctx, stranger, c.shared, version.ID)),
		"InstructionVersion here":  second(c.m.InstructionVersion(ctx, stranger, c.otherTool, version.ID)),
		"DiffInstructions":         second(c.m.DiffInstructions(ctx, stranger, c.shared, "", "")),
		"DiffInstructions here":    second(c.m.DiffInstructions(ctx, stranger, c.otherTool, version.ID, "")),
		"InstructionSuggestion":    second(c.m.InstructionSuggestion(ctx, stranger, proposal.ID)),
		"InstructionSupporters":    second(c.m.InstructionSupporters(ctx, stranger, agentkey.InstructionSupportersInput{Suggestion: proposal.ID})),
		"Dismiss":                  second(c.m.DismissInstructionSuggestion(ctx, stranger, proposal.ID, "not true")),
		"Accept":                   second(c.m.UpdateTool(ctx, stranger, c.otherTool, agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: proposal.ID})),
		"Restore":                  second(c.m.UpdateTool(ctx, stranger, c.otherTool, agentkey.UpdateToolInput{RestoreVersion: version.ID})),
		"Learn by another's bot":   second(c.m.SuggestInstructions(ctx, agentkey.TrustedAgent(c.other, c.otherBot), agentkey.SuggestInstructionsInput{Tool: c.shared, Learned: text, Why: text})),
		"ToolSuggestion":           second(c.m.ToolSuggestion(ctx, stranger, wish.ID)),
		"ToolSupporters":           second(c.m.ToolSupporters(ctx, stranger, agentkey.ToolSupportersInput{Suggestion: wish.ID})),
		"DismissToolSuggestion":    second(c.m.DismissToolSuggestion(ctx, stranger, wish.ID)),
		"Approve":                  second(c.m.Approve(ctx, stranger, c.pending, agentkey.DecisionInput{})),
		"Deny":                     second(c.m.Deny(ctx, stranger, c.pending, "no")),
		"Narrow":                   second(c.m.Narrow(ctx, stranger, c.grant, agentkey.Terms{MaxVends: 1})),
		"Revoke":                   second(c.m.Revoke(ctx, stranger, c.bot, c.shared)),
		"Revoke with own agent":    second(c.m.Revoke(ctx, stranger, c.otherBot, c.shared)),
		"Assign of agent":          second(c.m.Assign(ctx, stranger, agentkey.AssignInput{Agent: c.bot, Tool: c.otherTool})),
		"Assign of tool":           second(c.m.Assign(ctx, stranger, agentkey.AssignInput{Agent: c.otherBot, Tool: c.shared})),
		"UpdateAdministrator":      second(c.m.UpdateAdministrator(ctx, stranger, c.administrator, agentkey.UpdateAdministratorInput{Role: &admin})),
		"RemoveAdministrator":      c.m.RemoveAdministrator(ctx, stranger, c.administrator),
		"CreateToken":              second(c.m.CreateToken(ctx, stranger, agentkey.CreateTokenInput{Administrator: c.administrator})),
		"RevokeToken":              c.m.RevokeToken(ctx, stranger, c.tokenID),
		"Vend by another's agent":  c.vendFor(c.other, c.otherBot, c.shared),
		"Request by another's bot": second(c.m.RequestAccess(ctx, agentkey.TrustedAgent(c.other, c.otherBot), agentkey.RequestInput{Tool: c.shared, Reason: "to steal"})),
	} {
		if !errors.Is(err, agentkey.ErrNotFound) {
			t.Errorf("%s: got %v, want not found", call, err)
		}
	}
	for _, in := range []agentkey.GrantsInput{{Agent: c.bot}, {Tool: c.shared}, {Status: grants.StatusApproved, Agent: c.bot}} {
		found, err := c.m.Grants(ctx, stranger, in)
		is.NoErr(err)
		is.Equal(len(found), 0)
	}
	for _, in := range []agentkey.InstructionSuggestionsInput{{}, {Tool: c.shared}, {Tool: c.shared, Status: agentkey.SuggestionPending}, {Status: agentkey.SuggestionPending}} {
		page, err := c.m.InstructionSuggestions(ctx, stranger, in)
		is.NoErr(err)
		is.Equal(len(page.Suggestions), 0)
	}
	for _, filter := range []audit.Filter{{Agent: c.bot}, {Tool: c.shared}, {Grant: c.grant}, {Actor: "ann"}} {
		page, err := c.m.Events(ctx, stranger, agentkey.EventsInput{Filter: filter})
		is.NoErr(err)
		for _, e := range page.Events {
			t.Errorf("found by %+v: %s", filter, e.Action)
		}
	}
	added, err := c.m.AddTool(ctx, stranger, agentkey.AddToolInput{Name: "Sentry", AuthType: "api_key", Mode: "per_agent", Suggestion: wish.ID})
	is.NoErr(err) // a source that is not there is passed over
	is.Equal(added.Pending.Count, int64(0))
	own, err := c.m.SuggestTool(ctx, agentkey.TrustedAgent(c.other, c.otherBot), agentkey.SuggestToolInput{Name: "Grafana", Reason: "to read errors"})
	is.NoErr(err)
	list, err := c.m.ToolSuggestions(ctx, stranger, agentkey.ToolSuggestionsInput{})
	is.NoErr(err)
	is.True(len(list) == 1 && list[0].ID == own.ID)
	for _, agent := range []string{c.bot, "unknown"} { // in another organization than its own
		is.True(errors.Is(c.vendFor(c.other, agent, c.otherTool), agentkey.ErrUnauthenticated))
	}
	is.Equal(c.texts("SELECT hex(signed) FROM agentkey_logs WHERE organization = ?", c.org), heads)
}

func second[T any](_ T, err error) error { return err }

// insistently calls again where storage refuses because it is late, as a database
// may be on a busy machine: nothing was done.
func insistently(call func() error) (err error) {
	for range 10 {
		if err = call(); !errors.Is(err, agentkey.ErrStorage) || errors.Is(err, agentkey.ErrUnknown) {
			break
		}
	}
	return err
}
