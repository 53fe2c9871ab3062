package agentkey_test

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
)

// eachSite runs attacks on a site on each database.
func eachSite(t *testing.T, test func(t *testing.T, s *site)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, newSite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, newPostgresSite(t))
	})
}

// dump is a site on Postgres: where it can be copied to, and the rows of its
// tables as JSON.
type dump struct {
	dsn  string
	rows map[string]string
}

var postgresSiteOnce struct {
	sync.Once
	site *site
}

// newPostgresSite is newSite on Postgres.
func newPostgresSite(t testing.TB) *site {
	t.Helper()
	dsn := pgtest.DSN(t)
	postgresSiteOnce.Do(func() {
		s := blankSite(t)
		s.dump = &dump{dsn: dsn}
		c := s.copy(t)
		noErr(t, c.start())
		s.fill(t, c.m)
		noErr(t, c.m.Close(t.Context()))
		s.dump.rows = make(map[string]string)
		for _, table := range c.tables() {
			s.dump.rows[table] = c.texts("SELECT coalesce(json_agg(r), '[]')::text FROM " + table + " r")[0]
		}
		postgresSiteOnce.site = s
	})
	if postgresSiteOnce.site == nil {
		t.Fatal("the installation could not be built")
	}
	return postgresSiteOnce.site
}

// empty is a site of the same database that has its tables and nothing in them.
func (s *site) empty(t testing.TB) *site {
	t.Helper()
	e := blankSite(t)
	if s.dump != nil {
		e.dump = &dump{dsn: s.dump.dsn}
		return e
	}
	e.file = emptyFile(t)
	return e
}

// asSQLite gives Postgres what the attacks take from SQLite.
const asSQLite = `
CREATE FUNCTION replace(bytea, text, text) RETURNS bytea LANGUAGE sql AS $$ SELECT convert_to(replace(convert_from($1, 'UTF8'), $2, $3), 'UTF8') $$;
CREATE FUNCTION instr(bytea, text) RETURNS integer LANGUAGE sql AS $$ SELECT position($2 in convert_from($1, 'UTF8')) $$`

// copyTo makes a schema with the rows, and disarms it: whoever may write whatever
// the database takes is held up by no key, check or trigger.
func (d *dump) copyTo(t testing.TB, c *burglary) {
	t.Helper()
	schema := "site_" + strings.ToLower(rand.Text())
	store := openSchema(t, d.dsn, schema)
	t.Cleanup(func() {
		execRawAnyway(t, d.dsn, `DROP SCHEMA "`+schema+`" CASCADE`)
	})
	u, err := url.Parse(d.dsn)
	noErr(t, err)
	q := u.Query()
	for name, value := range map[string]string{
		"search_path": schema, "session_replication_role": "replica", "default_query_exec_mode": "simple_protocol",
	} {
		q.Set(name, value)
	}
	u.RawQuery = q.Encode()
	c.raw, err = sql.Open("pgx", u.String())
	noErr(t, err)
	t.Cleanup(func() { _ = c.raw.Close() })
	c.raw.SetMaxOpenConns(1)
	c.store = dbtest.Clockless{Store: store}
	execRaw(t, c.raw, asSQLite)
	for _, check := range c.texts(`SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
		FROM pg_constraint WHERE contype = 'c' AND connamespace = current_schema()::regnamespace AND conrelid <> 0`) {
		execRaw(t, c.raw, check)
	}
	for table, rows := range d.rows {
		execRaw(t, c.raw, fmt.Sprintf("INSERT INTO %s SELECT * FROM json_populate_recordset(null::%s, $1::json)", table, table), rows)
	}
}

// execRawAnyway is for when the test has ended.
func execRawAnyway(t testing.TB, dsn, query string) {
	db, err := sql.Open("pgx", dsn)
	if err == nil {
		_, err = db.Exec(query)
		_ = db.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

var (
	hexLiteral  = regexp.MustCompile(`\bx'([0-9a-f]*)'`)
	placeholder = regexp.MustCompile(`\?([0-9]*)`)
)

// dialect is a query of SQLite in the words of the site's database.
func (s *site) dialect(query string) string {
	if s.dump == nil {
		return query
	}
	query = hexLiteral.ReplaceAllString(query, `'\x$1'::bytea`)
	query = strings.ReplaceAll(query, "AS BLOB)", "AS bytea)")
	n := 0
	return placeholder.ReplaceAllStringFunc(query, func(p string) string {
		if n++; p != "?" {
			return "$" + p[1:]
		}
		return fmt.Sprintf("$%d", n)
	})
}

// putBack replaces the rows of a table by older ones.
func (c *burglary) putBack(table, old string) {
	c.t.Helper()
	if c.dump == nil {
		c.change(fmt.Sprintf("REPLACE INTO %s SELECT * FROM %s", table, old))
		return
	}
	var same []string
	for _, column := range c.texts(`SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indisprimary AND i.indrelid = '` + table + `'::regclass`) {
		same = append(same, fmt.Sprintf("%s.%s = %s.%s", table, column, old, column))
	}
	c.exec(fmt.Sprintf("DELETE FROM %s USING %s WHERE %s", table, old, strings.Join(same, " AND ")))
	c.change(fmt.Sprintf("INSERT INTO %s SELECT * FROM %s", table, old))
}

// spared says of most attacks on Postgres that they are left to the long form:
// four of five, counted through the test.
func (c *burglary) spared() bool {
	c.turn++
	return c.dump != nil && os.Getenv("AGENTKEY_PROVE") == "" && c.turn%5 != 1
}

// blankSite is a site without rows.
func blankSite(t testing.TB) *site {
	t.Helper()
	return &site{
		keys: agentkeytest.Keys(t), clock: agentkeytest.NewClock(agentkeytest.Epoch),
		attackerKey: "sk_agent_" + strings.Repeat("A", 32), attackerToken: "sk_admin_" + strings.Repeat("A", 32),
	}
}
