package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// statement is the text of a fixed statement, the same for both databases: with
// "?" for arguments, "@name" for the table agentkey_name, and the forms
// "@any" (see sql), "@list" and "@each" for arguments that are lists.
type statement string

// sql is the statement as the database wants it. A list travels as JSON, so
// that the text does not depend on its length:
//
//	id @any       id is one of the strings of a JSON array
//	FROM @list    one row, p.v, for each element of a JSON array
//	FROM @each    the same, for an array of strings, each as its text
func (s *Store) sql(q statement) string {
	if text, ok := s.texts.Load(q); ok {
		return text.(string)
	}
	text := s.spell(q)
	s.texts.Store(q, text)
	return text
}

func (s *Store) spell(q statement) string {
	var b strings.Builder
	arg := 0
	rest := string(q)
	for {
		i := strings.IndexAny(rest, "?@")
		if i < 0 {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(rest[:i])
		if rest[i] == '?' {
			s.placeholder(&b, &arg)
			rest = rest[i+1:]
			continue
		}
		name := rest[i+1:]
		if end := strings.IndexFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }); end >= 0 {
			name = name[:end]
		}
		rest = rest[i+1+len(name):]
		s.macro(&b, name, &arg)
	}
}

func (s *Store) placeholder(b *strings.Builder, arg *int) {
	*arg++
	if s.postgres {
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(*arg))
		return
	}
	b.WriteByte('?')
}

func (s *Store) macro(b *strings.Builder, name string, arg *int) {
	before, after := "", ""
	switch {
	case name == "any" && s.postgres:
		before, after = "= ANY (ARRAY(SELECT json_array_elements_text(", "::text::json)))"
	case name == "any":
		before, after = "IN (SELECT value FROM json_each(", "))"
	case name == "list" && s.postgres:
		before, after = "(SELECT e.v FROM json_array_elements(", "::text::json) AS e (v)) AS p"
	case name == "each" && s.postgres:
		before, after = "(SELECT e.v FROM json_array_elements_text(", "::text::json) AS e (v)) AS p"
	case name == "each", name == "list":
		before, after = "(SELECT value AS v FROM json_each(", ")) AS p"
	default:
		b.WriteString(s.table(name))
		return
	}
	b.WriteString(before)
	s.placeholder(b, arg)
	b.WriteString(after)
}

// table is the full name of a table.
func (s *Store) table(name string) string {
	if s.postgres {
		return `"` + s.schema + `".agentkey_` + name
	}
	return "agentkey_" + name
}

// pool is a handle with its prepared statements.
type pool struct {
	store    *Store
	db       *sql.DB
	bun      *bun.DB
	wanted   []statement // empty: none is prepared
	prepared atomic.Pointer[map[statement]*sql.Stmt]
	slot     chan struct{} // held by who prepares
	single   atomic.Bool   // no pipe can be had
	kept     chan *session // nil: transactions are database/sql's
}

func newPool(s *Store, db *sql.DB, lists ...[]statement) *pool {
	p := &pool{store: s, db: db, bun: s.bare(db), slot: make(chan struct{}, 1)}
	for _, list := range lists {
		p.wanted = append(p.wanted, list...)
	}
	p.prepared.Store(&map[statement]*sql.Stmt{})
	return p
}

// prepare prepares what is not yet prepared. It must not be called by who holds
// a connection: there may be only one.
func (p *pool) prepare(ctx context.Context) error {
	if len(*p.prepared.Load()) == len(p.wanted) {
		return nil
	}
	if p.kept != nil {
		x, err := p.takeSession(ctx)
		if err == nil {
			p.giveBack(x)
		}
		return err
	}
	select {
	case p.slot <- struct{}{}:
		defer func() { <-p.slot }()
	case <-ctx.Done():
		return ctx.Err()
	}
	done := maps.Clone(*p.prepared.Load())
	defer func() { p.prepared.Store(&done) }()
	for _, q := range p.wanted {
		if done[q] != nil {
			continue
		}
		stmt, err := p.db.PrepareContext(ctx, p.store.sql(q))
		if err != nil {
			return schemaFault(err)
		}
		done[q] = stmt
	}
	return nil
}

// query runs a statement outside of a transaction.
func (p *pool) query(ctx context.Context, q statement, args ...any) (*sql.Rows, error) {
	if err := p.prepare(ctx); err != nil {
		return nil, err
	}
	if len(p.wanted) == 0 {
		return p.db.QueryContext(ctx, p.store.sql(q), args...)
	}
	stmt := (*p.prepared.Load())[q]
	if stmt == nil { // closed in the meantime
		return nil, storage.ErrClosed
	}
	return stmt.QueryContext(ctx, args...)
}

// schemaFault tells what a statement meets that does not fit the schema.
func schemaFault(err error) error {
	if code, ok := sqliteCode(err); ok && code == sqliteError {
		return storage.ErrSchema
	}
	return err
}

func (p *pool) close() error {
	if p.kept != nil {
		return p.endSession()
	}
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	var err error
	for _, stmt := range *p.prepared.Load() {
		err = errors.Join(err, stmt.Close())
	}
	p.prepared.Store(&map[statement]*sql.Stmt{})
	return err
}
