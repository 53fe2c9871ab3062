package bunstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// named puts the place's prefix before the names of tables, and writes bytes as
// the database does.
func (p *place) named(statement string) string {
	if p.prefix != "" {
		statement = regexp.MustCompile(`x'([0-9a-f]*)'`).ReplaceAllString(statement, `'\x$1'`)
		statement = strings.ReplaceAll(statement, "zeroblob(31)", `decode(repeat('00', 31), 'hex')`)
	}
	return strings.ReplaceAll(statement, "@", p.prefix+"agentkey_")
}

// TestRefused: what goes around the store still meets the rules.
func TestRefused(t *testing.T) {
	leaf := "x'" + strings.Repeat("00", 32) + "'"
	agent := `INSERT INTO @agents (organization, id, revision, name, description, owner, created_by, created_by_label, status, created_at, updated_at, seal) `
	key := `INSERT INTO @keys (organization, id, agent_id, digest, revision, status, expires_at, addresses, created_at, updated_at, seal) `
	grant := `UPDATE @grants SET `
	credential := `INSERT INTO @credentials (organization, id, tool_id, grant_id, revision, auth_type, status, expires_at, rotated_at,
		sealed, sealed_revision, created_at, updated_at, seal) `
	dataKey := `INSERT INTO @data_keys (organization, id, purpose, revision, state, provider, wrapped, reserved, created_at, updated_at, seal) `
	record := `INSERT INTO @records (organization, kind, id, revision, entries, payload, updated_at, seal) `
	refused := map[string]string{
		"empty id":                          agent + `VALUES ('acme', '', 1, '', '', '', '', '', 'active', 0, 0, x'')`,
		"revision 0":                        agent + `VALUES ('acme', 'b', 0, '', '', '', '', '', 'active', 0, 0, x'')`,
		"id taken":                          agent + `VALUES ('acme', 'agent-000', 1, '', '', '', '', '', 'active', 0, 0, x'')`,
		"no seal":                           agent + `VALUES ('acme', 'b', 1, '', '', '', '', '', 'active', 0, 0, NULL)`,
		"text for a time":                   agent + `VALUES ('acme', 'b', 1, '', '', '', '', '', 'active', 'noon', 0, x'')`,
		"key of no agent":                   key + `VALUES ('acme', 'k', 'nobody', ` + leaf + `, 1, 'active', 0, '[]', 0, 0, x'')`,
		"key of another tenant":             key + `VALUES ('globex', 'k', 'agent-000', ` + leaf + `, 1, 'active', 0, '[]', 0, 0, x'')`,
		"short digest":                      key + `VALUES ('acme', 'k', 'agent-000', x'00', 1, 'active', 0, '[]', 0, 0, x'')`,
		"digest taken":                      key + `SELECT organization, 'k', agent_id, digest, 1, 'active', 0, '[]', 0, 0, seal FROM @keys`,
		"grant moved to no tool":            grant + `tool_id = 'none'`,
		"grant moved to no agent":           grant + `agent_id = 'none'`,
		"grant moved to another tenant":     grant + `organization = 'globex'`,
		"second credential of a tool":       credential + `VALUES ('acme', 'c', 'tool', NULL, 1, '', 'active', 0, 0, x'', 1, 0, 0, x'')`,
		"credential of an empty grant":      credential + `VALUES ('acme', 'c', 'tool', '', 1, '', 'active', 0, 0, x'', 1, 0, 0, x'')`,
		"credential of no grant":            credential + `VALUES ('acme', 'c', 'tool', 'none', 1, '', 'active', 0, 0, x'', 1, 0, 0, x'')`,
		"second active data key":            dataKey + `VALUES ('acme', 'd', 'seal', 1, 'active', '', x'', 0, 0, 0, x'')`,
		"record of no kind":                 record + `VALUES ('acme', '', 'r', 1, '[]', x'', 0, x'')`,
		"record of a strange kind":          record + `VALUES ('acme', 'Kind', 'r', 1, '[]', x'', 0, x'')`,
		"index entry of no record":          `INSERT INTO @record_index (organization, kind, name, value, id) VALUES ('acme', 'k', 'n', 'v', 'none')`,
		"agent deleted":                     `DELETE FROM @agents`,
		"tool deleted under its grants":     `DELETE FROM @tools`,
		"log shrinks":                       `UPDATE @logs SET size = size - 1, kept_size = 0`,
		"log's epoch goes back":             `UPDATE @logs SET epoch = epoch - 1`,
		"log's time goes back":              `UPDATE @logs SET time = time - 1`,
		"log deleted":                       `DELETE FROM @logs`,
		"log of no edge":                    `UPDATE @logs SET edge = x''`,
		"log of half an edge":               `UPDATE @logs SET edge = x'00'`,
		"log unsigned":                      `UPDATE @logs SET signed = x''`,
		"event changed":                     `UPDATE @events SET content = x'00'`,
		"event moved":                       `UPDATE @events SET seq = seq + 1`,
		"personal part changed":             `UPDATE @events SET personal = x'00'`,
		"event deleted":                     `DELETE FROM @events`,
		"event inserted twice":              `INSERT INTO @events (organization, seq, content) VALUES ('acme', 0, x'00')`,
		"event before the first":            `INSERT INTO @events (organization, seq, content) VALUES ('acme', -1, x'00')`,
		"leaf changed":                      `UPDATE @leaves SET hash = ` + leaf,
		"leaf deleted":                      `DELETE FROM @leaves`,
		"short leaf":                        `INSERT INTO @leaves (organization, seq, hash) VALUES ('acme', 7, zeroblob(31))`,
		"checkpoint changed":                `UPDATE @checkpoints SET signed = x'00'`,
		"checkpoint deleted":                `DELETE FROM @checkpoints`,
		"checkpoint of nothing":             `INSERT INTO @checkpoints (organization, size, signed) VALUES ('acme', 0, x'00')`,
		"window without times":              `INSERT INTO @windows (organization, tier, subject, times, updated_at) VALUES ('acme', 't', 's', x'', 0)`,
		"approval of no grant":              `INSERT INTO @approvals (organization, grant_id, cycle, actor_kind, actor, revision, actor_label, verdict, reason, time, granted_duration, granted_max_vends, granted_scopes, owner_alone, seal) VALUES ('acme', 'none', 1, 'human', 'ann', 1, '', 'approve', '', 0, 0, 0, '[]', '0', x'')`,
		"cursor before the first":           `INSERT INTO @event_cursors (organization, next_seq) VALUES ('acme', -1)`,
		"delivery without an organization":  `INSERT INTO @outbox (organization, id, topic, payload, state, attempts, created_at, next_at, lease_until, lease_node, last_error) VALUES ('', 'd', '', x'', 'pending', 0, 0, 0, 0, '', '')`,
		"organization without an id":        `INSERT INTO @organizations (id, revision, name, locked, created_at, updated_at, seal) VALUES ('', 1, '', '0', 0, 0, x'')`,
		"erased content can't be put again": `UPDATE @events SET content = x'01' WHERE organization = 'erased'`,
	}
	allowed := map[string]string{
		"an agent":          agent + `VALUES ('acme', 'b', 1, '', '', '', '', '', 'active', 0, 0, x'')`,
		"a key":             key + `VALUES ('acme', 'k', 'agent-000', ` + leaf + `, 1, 'active', 0, '[]', 0, 0, x'')`,
		"a grant's own one": credential + `VALUES ('acme', 'c', 'tool', 'grant-agent-000', 1, '', 'active', 0, 0, x'', 1, 0, 0, x'')`,
		"a spare data key":  dataKey + `VALUES ('acme', 'd', 'seal', 1, 'decrypt_only', '', x'', 0, 0, 0, x'')`,
		"a record":          record + `VALUES ('acme', 'kind', 'r', 1, '[]', x'', 0, x'')`,
		"erasure":           `UPDATE @events SET content = NULL, personal = NULL WHERE organization = 'acme'`,
		"a longer log":      `UPDATE @logs SET epoch = epoch + 1, time = time + 1`,
	}
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 1)
		update(t, s, "erased", func(ctx context.Context, tx storage.Tx) error {
			if err := appendEvents(ctx, tx, "erased", event("a", "t", "g")); err != nil {
				return err
			}
			return tx.Erase(ctx, []storage.Erasure{{Seq: 0, Content: true}})
		})
		try := func(statement string) error {
			tx, err := p.raw.Begin()
			is.NoErr(err)
			defer func() { _ = tx.Rollback() }()
			_, err = tx.Exec(p.named(statement))
			return err
		}
		for name, statement := range refused {
			if err := try(statement); err == nil {
				t.Errorf("%s: allowed", name)
			} else if strings.Contains(err.Error(), "syntax error") || strings.Contains(err.Error(), "no such") || strings.Contains(err.Error(), "does not exist") {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, statement := range allowed {
			if err := try(statement); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if p.prefix != "" {
			for _, table := range []string{"logs", "events", "leaves", "checkpoints"} {
				is.True(try(`TRUNCATE @`+table) != nil) // a log can't be emptied at once either
			}
		}
	})
}

// TestPlans: no statement reads a table from one end to the other, and no list
// sorts what it could not hold.
func TestPlans(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 3)
		statements := s.Statements()
		s.Watch(func(q string) { statements = append(statements, q) })
		ctx := context.Background()
		for _, f := range []audit.Filter{
			{Agent: "a"}, {Tool: "t"}, {Grant: "g"}, {Actor: "a"}, {Target: "t"}, {Action: audit.ActionCredentialVended},
			{Agent: "a", Action: audit.ActionCredentialVended}, {Tool: "t", Action: audit.ActionCredentialVended}, {Agent: "a", Tool: "t"},
			{Actor: "a", Action: audit.ActionCredentialVended}, {Actor: "a", Agent: "a"}, {Actor: "a", Tool: "t"}, {Actor: "a", From: 1},
			{Outcome: audit.OutcomeOK}, {From: 1}, {To: noon}, {Agent: "a", Tool: "t", Outcome: audit.OutcomeRefused, From: 1, To: noon},
		} {
			for _, count := range []bool{false, true} {
				_, err := s.Events(ctx, "acme", storage.EventQuery{Filter: f, Limit: 10, Before: 5, Count: count})
				is.NoErr(err)
			}
		}
		is.NoErr(s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) error {
			for _, q := range []storage.GrantQuery{
				{Limit: 5, After: "z"}, {Agent: "a", Limit: 5}, {Tool: "t", Limit: 5}, {Agent: "a", Tool: "t", Limit: 5},
				{Agent: "a", Limit: 5, After: "z", Statuses: []grants.Status{grants.StatusPending}},
				{Tool: "t", Limit: 5, Total: true, Statuses: []grants.Status{grants.StatusPending}}, {Limit: 5, Statuses: []grants.Status{grants.StatusPending}},
			} {
				_, err := tx.Grants(ctx, q)
				is.NoErr(err)
			}
			for _, q := range []storage.Scan{
				{Kind: "k", Limit: 5}, {Kind: "k", From: "a", To: "b", AfterID: "c", Descending: true, Limit: 5},
				{Kind: "k", Index: "i", From: "a", To: "b", AfterValue: "c", AfterID: "d", Limit: 5},
				{Kind: "k", Index: "i", AfterValue: "c", AfterID: "d", Descending: true, Limit: 5}, {Kind: "k", Index: "i", To: "b", Descending: true, Limit: 5},
			} {
				_, err := tx.ScanRecords(ctx, q)
				is.NoErr(err)
			}
			for _, q := range []storage.AgentQuery{{Limit: 5, After: "z", Total: true}, {Limit: 5, Name: "n", After: "z"}} {
				_, err := tx.Agents(ctx, q)
				is.NoErr(err)
			}
			_, err := tx.(storage.KeyLister).AgentKeys(ctx, "a", "z", 5)
			is.NoErr(err)
			_, err = tx.Tools(ctx, storage.ToolQuery{Limit: 5, Name: "n", After: "z"})
			is.NoErr(err)
			_, err = tx.Tools(ctx, storage.ToolQuery{Limit: 5, ConfigKey: "k"})
			is.NoErr(err)
			return nil
		}))
		is.True(len(statements) > 80)
		conn, err := p.raw.Conn(ctx)
		is.NoErr(err)
		defer conn.Close()
		for i, q := range statements {
			if p.prefix == "" {
				checkSQLitePlan(t, conn, q)
			} else {
				checkPostgresPlan(t, conn, fmt.Sprintf("plan_%d", i), q)
			}
		}
	})
}

// isList reports whether a statement lists the first of many rows in an order.
func isList(q string) bool {
	return strings.Contains(q, "LIMIT 5") || strings.Contains(q, "LIMIT 11")
}

func checkSQLitePlan(t *testing.T, conn *sql.Conn, q string) {
	t.Helper()
	is := is.New(t)
	args := make([]any, strings.Count(q, "?"))
	for i := range args {
		args[i] = "[]"
	}
	rows, err := conn.QueryContext(context.Background(), "EXPLAIN QUERY PLAN "+q, args...)
	is.NoErr(err)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int64
		var step string
		is.NoErr(rows.Scan(&id, &parent, &unused, &step))
		// A partial index in its own order may be read from its beginning: its
		// condition is the query's, and LIMIT ends it.
		partial := strings.Contains(step, "_due")
		derived := slices.Contains([]string{"SCAN ended_grants", "SCAN ended_keys", "SCAN ended_credentials", "SCAN json_each VIRTUAL TABLE INDEX 1:", "SCAN p", "SCAN ends", "SCAN few", "SCAN 8-ROW VALUES CLAUSE"}, step)
		if strings.HasPrefix(step, "SCAN") && !partial && !derived {
			t.Errorf("%s\nin: %s", step, q)
		}
		// Of one kind there may be as many records as an inbox has requests.
		if strings.HasSuffix(step, "(organization=? AND kind=?)") && !isList(q) {
			t.Errorf("%s\nin: %s", step, q)
		}
		if strings.Contains(step, "TEMP B-TREE") && isList(q) {
			t.Errorf("%s\nin: %s", step, q)
		}
		// What a row's number is for.
		if strings.Contains(q, "r.rowid = p.v") && strings.HasPrefix(step, "SEARCH r ") && step != "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)" {
			t.Errorf("%s\nin: %s", step, q)
		}
	}
	is.NoErr(rows.Err())
}

func checkPostgresPlan(t *testing.T, conn *sql.Conn, name, q string) {
	t.Helper()
	is := is.New(t)
	ctx := context.Background()
	for _, set := range []string{"SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"} {
		_, err := conn.ExecContext(ctx, set)
		is.NoErr(err)
	}
	explain := "EXPLAIN " + q
	if n := len(unique(regexp.MustCompile(`\$\d+`).FindAllString(q, -1))); n > 0 {
		_, err := conn.ExecContext(ctx, "PREPARE "+name+" AS "+q)
		is.NoErr(err)
		explain = "EXPLAIN EXECUTE " + name + " (" + strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ") + ")"
	}
	rows, err := conn.QueryContext(ctx, explain)
	is.NoErr(err)
	defer rows.Close()
	for rows.Next() {
		var step string
		is.NoErr(rows.Scan(&step))
		if strings.Contains(step, "Seq Scan") {
			t.Errorf("%s\nin: %s", step, q)
		}
		if strings.Contains(step, "Sort ") && isList(q) {
			t.Errorf("%s\nin: %s", step, q)
		}
	}
	is.NoErr(rows.Err())
}

func unique(items []string) []string { slices.Sort(items); return slices.Compact(items) }
