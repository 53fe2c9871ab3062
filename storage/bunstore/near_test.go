package bunstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// TestRowsThatMoved: what a vend needs of many is found wherever it stands by now,
// and a row that is another record's, or another organization's, is never taken for it.
func TestRowsThatMoved(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := newSQLite(t)
	s := p.open(t)
	is.NoErr(s.Migrate(t.Context()))
	furnish(t, s, "acme", 6)
	furnish(t, s, "globex", 6) // has the same ids
	q := storage.BulkQuery{Tools: []string{"tool"}, Credentials: true}
	for _, agent := range []string{"agent-001", "agent-003", "agent-004", "agent-003", "none"} {
		q.Keys, q.Agents, q.Pairs = append(q.Keys, "key-"+agent), append(q.Agents, agent), append(q.Pairs, storage.Pair{Agent: agent, Tool: "tool"})
	}
	holds := func(found int) {
		t.Helper()
		for range 2 { // what the first remembers serves the second
			update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
				is.Equal(len(readsAlike(t, ctx, tx, q).Agents), found)
				return nil
			})
		}
	}
	move := func(statement string) {
		t.Helper()
		for _, table := range []string{"keys", "agents", "grants"} {
			_, err := p.raw.Exec("UPDATE OR ROLLBACK agentkey_" + table + " SET " + statement)
			is.NoErr(err)
		}
	}
	holds(3)
	move("rowid = -rowid")
	move("rowid = rowid + 13") // each where one of the other organization was
	holds(3)
	var one, two int64
	is.NoErr(p.raw.QueryRow(`SELECT a.rowid, b.rowid FROM agentkey_grants a, agentkey_grants b
		WHERE a.organization = 'acme' AND a.id = 'grant-agent-001' AND b.organization = 'acme' AND b.id = 'grant-agent-002'`).Scan(&one, &two))
	for _, damage := range []string{
		fmt.Sprintf("UPDATE agentkey_grants SET rowid = 1000 WHERE rowid = %d", one),
		fmt.Sprintf("UPDATE agentkey_grants SET rowid = %d, asked_scopes = 'no list' WHERE rowid = %d", one, two),
	} { // a neighbour that can't be read stands where one of them was
		_, err := p.raw.Exec(damage)
		is.NoErr(err)
	}
	holds(3)
	move("rowid = rowid + 4294967296") // more than is remembered
	holds(3)
	move("rowid = rowid - 4294967296")
	_, err := p.raw.Exec(`DELETE FROM agentkey_credentials; DELETE FROM agentkey_grants WHERE agent_id = 'agent-004';
		DELETE FROM agentkey_keys WHERE agent_id = 'agent-004'; DELETE FROM agentkey_agents WHERE id = 'agent-004'`)
	is.NoErr(err)
	holds(2)
}
