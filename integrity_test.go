package agentkey_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/matryer/is"
	_ "modernc.org/sqlite"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
)

func (s *site) targets() []target {
	vend := func(tool string) func(c *burglary) map[string]func() error {
		return func(c *burglary) map[string]func() error {
			return map[string]func() error{"vend": func() error { return c.vendTo(agentkey.Key(c.key), tool) }}
		}
	}
	both := map[string]class{"organization": identity, "id": identity, "updated_at": free}
	in := func(format string, args ...any) string { return fmt.Sprintf(format, args...) }
	return []target{
		{
			table: "organizations", where: in("id = '%s'", s.org), kind: audit.KindOrganization,
			class: map[string]class{"id": identity, "updated_at": free}, calls: organizationCalls,
		},
		{
			table: "agents", where: in("id = '%s'", s.bot), kind: audit.KindAgent, class: both,
			value: map[string]string{"status": "'suspended'", "owner": "'ann'"}, calls: agentCalls,
		},
		{
			table: "keys", where: in("agent_id = '%s'", s.bot), kind: audit.KindKey,
			class: map[string]class{"organization": identity, "updated_at": free},
			value: map[string]string{
				"addresses": `'["0.0.0.0/0"]'`, "status": "'revoked'", "agent_id": "'" + s.bystander + "'",
				"digest": in("x'%s'", digest(s.attackerKey)), "expires_at": "1",
			},
			calls: func(c *burglary) map[string]func() error {
				return map[string]func() error{"vend": func() error {
					err := c.vendTo(agentkey.Key(c.key), c.shared)
					if errors.Is(err, agentkey.ErrUnknownKey) { // the digest is the attacker's now
						return c.vendTo(agentkey.Key(c.attackerKey), c.shared)
					}
					return err
				}}
			},
		},
		{
			table: "tools", where: in("id = '%s'", s.shared), kind: audit.KindTool, class: both,
			value: map[string]string{"mode": "'per_agent'", "required_approvals": "0"}, calls: toolCalls,
		},
		{
			table: "credentials", where: in("tool_id = '%s'", s.shared), kind: audit.KindCredential,
			class: map[string]class{"organization": identity, "tool_id": identity, "grant_id": identity, "updated_at": free},
			value: map[string]string{"grant_id": "'" + s.grant + "'", "tool_id": "'" + s.personal + "'", "expires_at": "1"},
			calls: vend(s.shared),
		},
		{
			table: "credentials", where: in("grant_id = '%s'", s.personalGrant), kind: audit.KindCredential,
			class: map[string]class{"organization": identity, "tool_id": identity, "grant_id": identity, "updated_at": free},
			value: map[string]string{"grant_id": "NULL", "tool_id": "'" + s.shared + "x'"},
			calls: vend(s.personal),
		},
		{
			table: "grants", where: in("id = '%s'", s.grant), kind: audit.KindGrant,
			class: map[string]class{"organization": identity, "agent_id": identity, "tool_id": identity},
			value: map[string]string{
				"asked_scopes": `'["admin"]'`, "granted_scopes": `'["read","write","admin"]'`, "vends_used": "-1000", "status": "'revoked'",
				"updated_at": "updated_at + 3600000000",
			},
			calls: vend(s.shared),
		},
		{
			table: "grants", where: in("id = '%s'", s.pending), kind: audit.KindGrant,
			class: map[string]class{"organization": identity, "id": identity, "agent_id": identity, "tool_id": identity},
			value: map[string]string{
				"updated_at":   "updated_at + 3600000000",
				"asked_scopes": `'["admin"]'`, "granted_scopes": `'["admin"]'`, "status": "'approved'", "required_approvals": "1",
			},
			calls: requestCalls,
		},
		{
			table: "approvals", where: in("grant_id = '%s'", s.pending), kind: audit.KindApproval,
			class: map[string]class{"organization": identity, "grant_id": identity},
			value: map[string]string{"granted_scopes": `'["admin"]'`, "verdict": "'deny'"},
			calls: requestCalls,
		},
		{
			table: "records", where: in("kind = 'administrator' AND id = '%s'", s.administrator), kind: audit.KindAdministrator,
			class: map[string]class{"organization": identity, "kind": identity, "id": identity, "updated_at": free},
			value: map[string]string{"entries": `'[["id","x"]]'`, "payload": "replace(payload, 'owner', 'admin')"},
			calls: administratorCalls,
		},
		{
			table: "records", where: in("kind = 'token' AND id = '%s'", digest(s.token)), kind: audit.KindToken,
			class: map[string]class{"organization": identity, "kind": identity, "id": identity, "updated_at": free},
			value: map[string]string{"entries": `'[["id","x"]]'`, "payload": "replace(payload, 'first', 'other')"},
			calls: tokenCalls,
		},
	}
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func organizationCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"vend": func() error { return c.vend(c.bot, c.shared) },
		"read": func() error { _, err := c.m.Organization(c.t.Context(), c.owner); return err },
		"lock": func() error { _, err := c.m.Lock(c.t.Context(), c.owner, "test"); return err },
		"request": func() error {
			_, err := c.m.RequestAccess(c.t.Context(), agentkey.TrustedAgent(c.org, c.bystander), agentkey.RequestInput{Tool: c.shared, Reason: "to see"})
			return err
		},
	}
}

func agentCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"vend":    func() error { return c.vend(c.bot, c.shared) },
		"read":    func() error { _, err := c.m.Agent(c.t.Context(), c.owner, c.bot); return err },
		"list":    func() error { _, err := c.m.Agents(c.t.Context(), c.owner, agentkey.ListInput{}); return err },
		"profile": func() error { _, err := c.m.Profile(c.t.Context(), agentkey.Key(c.key)); return err },
		"suspend": func() error { _, err := c.m.SuspendAgent(c.t.Context(), c.owner, c.bot); return err },
		"approve": func() error {
			_, err := c.m.Approve(c.t.Context(), person(c.org, "bob", agentkey.RoleApprover), c.pending, agentkey.DecisionInput{})
			return err
		},
	}
}

func toolCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"vend": func() error { return c.vend(c.bot, c.shared) },
		"read": func() error { _, err := c.m.Tool(c.t.Context(), c.owner, c.shared); return err },
		"catalog": func() error {
			_, err := c.m.Catalog(c.t.Context(), agentkey.Key(c.key), agentkey.CatalogInput{})
			return err
		},
		"assign": func() error {
			_, err := c.m.Assign(c.t.Context(), c.owner, agentkey.AssignInput{Agent: c.bystander, Tool: c.shared})
			return err
		},
	}
}

func requestCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"approve": func() error {
			_, err := c.m.Approve(c.t.Context(), person(c.org, "bob", agentkey.RoleApprover), c.pending, agentkey.DecisionInput{})
			return err
		},
		"deny": func() error { _, err := c.m.Deny(c.t.Context(), c.owner, c.pending, "no"); return err },
	}
}

func administratorCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"authenticate": func() error { return c.authenticate(c.token) },
		"list":         func() error { _, err := c.m.Administrators(c.t.Context(), c.owner, agentkey.ListInput{}); return err },
		"remove":       func() error { return c.m.RemoveAdministrator(c.t.Context(), c.owner, c.administrator) },
	}
}

func tokenCalls(c *burglary) map[string]func() error {
	return map[string]func() error{
		"authenticate": func() error { return c.authenticate(c.token) },
		"list":         func() error { _, err := c.m.Tokens(c.t.Context(), c.owner, agentkey.ListInput{}); return err },
	}
}

func (c *burglary) authenticate(token string) error {
	_, err := c.m.Authenticate(c.t.Context(), agentkey.NewSecret([]byte(token)), agentkey.RequestContext{})
	return err
}

// column is a column of a table as the schema has it.
type column struct{ name, kind string }

func (c *burglary) columns(table string) (found []column) {
	c.t.Helper()
	query := "SELECT name, type FROM pragma_table_info(?)"
	if c.dump != nil {
		query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ? ORDER BY ordinal_position"
	}
	rows, err := c.raw.QueryContext(c.t.Context(), c.dialect(query), "agentkey_"+table)
	noErr(c.t, err)
	defer rows.Close()
	for rows.Next() {
		var col column
		noErr(c.t, rows.Scan(&col.name, &col.kind))
		found = append(found, col)
	}
	noErr(c.t, rows.Err())
	return found
}

// lastByte is SQL for a blob whose last byte is another one.
func lastByte(column string) string {
	return fmt.Sprintf("substr(%[1]s, 1, length(%[1]s) - 1) || CASE substr(%[1]s, length(%[1]s), 1) WHEN x'5a' THEN x'5b' ELSE x'5a' END", column)
}

// edit is SQL for another value of a column.
func (a target) edit(col column) string {
	switch {
	case a.value[col.name] != "":
		return a.value[col.name]
	case col.kind == "INTEGER" && (col.name == "locked" || col.name == "owner_alone"):
		return "1 - " + col.name
	case col.kind == "boolean":
		return "NOT " + col.name
	case col.kind == "INTEGER" || col.kind == "bigint":
		return col.name + " + 1"
	case col.kind == "BLOB" || col.kind == "bytea":
		return lastByte(col.name)
	}
	return col.name + " || 'x'"
}

// Every column of every kind of row that decides, edited one at a time: whatever
// relies on the row is refused, and the failure is in the log.
func TestEditedColumns(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		for i, a := range s.targets() {
			c.reset(t)
			for _, col := range c.columns(a.table) {
				if c.spared() {
					continue
				}
				t.Run(fmt.Sprintf("%s_%d/%s", a.table, i, col.name), func(t *testing.T) {
					c.reset(t)
					c.attack(a, col)
				})
			}
		}
	})
}

func (c *burglary) attack(a target, col column) {
	c.t.Helper()
	c.warm()
	c.change(fmt.Sprintf("UPDATE agentkey_%s SET %s = CAST(%s AS %s) WHERE %s", a.table, col.name, a.edit(col), col.kind, a.where))
	switch a.class[col.name] {
	case free:
		for name, call := range a.calls(c) {
			if err := call(); errors.Is(err, agentkey.ErrIntegrity) {
				c.t.Errorf("%s: the column is listed as free: %v", name, err)
			}
		}
		return
	case identity:
		for name, call := range a.calls(c) {
			if err := call(); err == nil && name != "list" && name != "catalog" && name != "deny" {
				c.t.Errorf("%s: succeeded on a row that is not there", name)
			}
		}
	default:
		c.refused(a.kind, a.calls(c))
	}
	c.disagrees(a.kind)
}

// disagrees wants Reconcile to find something wrong with a record of that kind.
func (c *burglary) disagrees(kind string) {
	c.t.Helper()
	report, err := c.m.Reconcile(c.t.Context(), person(c.org, "reader", agentkey.RoleAuditor))
	noErr(c.t, err)
	for _, f := range report.Findings {
		if f.Kind == kind {
			return
		}
	}
	c.t.Errorf("reconcile: no finding about a %s among %d", kind, len(report.Findings))
}

// An untouched copy is accepted by every call above: the attacks fail for what
// they changed.
func TestUntouchedSite(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		for _, a := range s.targets() {
			is := is.New(t)
			c.reset(t)
			c.warm()
			for _, call := range a.calls(c) {
				is.True(!errors.Is(call(), agentkey.ErrIntegrity))
			}
			is.Equal(len(c.failures()), 0)
			report, err := c.m.Reconcile(t.Context(), c.owner)
			is.NoErr(err)
			is.True(report.OK())
		}
	})
}
