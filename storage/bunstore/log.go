package bunstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	updateHead statement = `UPDATE @logs SET epoch = ?, size = ?, edge = ?, signed = ?, time = ?, seal = ?, kept_size = ?, kept_time = ?
		WHERE organization = ? AND size = ?`
	insertEvent statement = `INSERT INTO @events (organization, seq, content, personal) VALUES (?, ?, ?, ?)`
	insertLeaf  statement = `INSERT INTO @leaves (organization, seq, hash) VALUES (?, ?, ?)`
	// On SQLite some lines at a time: most of what a short statement costs there is
	// beginning it.
	insertEvents = insertEvent + `, (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?), (?, ?, ?, ?)`
	insertLeaves = insertLeaf + `, (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)`
	// On Postgres lines travel as arrays, together with the head that follows the last
	// of them: a statement that never changes is prepared. It fails where the head is
	// not the one that was locked, so that a commit may follow it unseen.
	someEvents  statement = `INSERT INTO @events (organization, seq, content, personal) SELECT ?, * FROM unnest(?::bigint[], ?::bytea[], ?::bytea[])`
	someLeaves  statement = `INSERT INTO @leaves (organization, seq, hash) SELECT ?, * FROM unnest(?::bigint[], ?::bytea[])`
	insertLines           = `WITH event AS (` + someEvents + `) ` + someLeaves
	appendLines           = `WITH event AS (` + someEvents + `), leaf AS (` + someLeaves + `), ` + moved
	moved                 = `moved AS (` + updateHead + ` RETURNING 1) SELECT 1 / count(*) FROM moved`
	moveHead              = `WITH ` + moved

	insertCheckpoint  statement = `INSERT INTO @checkpoints (organization, size, signed) VALUES (?, ?, ?)`
	selectCheckpoints statement = `SELECT size, signed FROM @checkpoints WHERE organization = ? AND size > ? ORDER BY size LIMIT ?`
	selectLines       statement = `SELECT l.seq, e.content, e.personal, l.hash FROM @leaves AS l
		LEFT JOIN @events AS e ON e.organization = l.organization AND e.seq = l.seq
		WHERE l.organization = ? AND l.seq >= ? ORDER BY l.seq LIMIT ?`
	erasePersonal statement = `UPDATE @events SET personal = NULL WHERE organization = ?
		AND seq IN (SELECT CAST(p.v ->> 0 AS bigint) FROM @list)`
	eraseContent statement = `UPDATE @events SET content = NULL WHERE organization = ?
		AND seq IN (SELECT CAST(p.v ->> 0 AS bigint) FROM @list)`
	selectContents statement = `SELECT seq, content FROM @events WHERE organization = ? AND content IS NOT NULL
		AND seq IN (SELECT CAST(p.v ->> 0 AS bigint) FROM @list)`
)

// loadHead reads the head into the transaction.
func (r *reader) loadHead(ctx context.Context, q statement, args ...any) (found bool, err error) {
	var h storage.Head
	err = r.each(ctx, q, args, headInto(&h, &found))
	if err == nil {
		r.head, r.loaded = h, true
	}
	return found, err
}

func headInto(h *storage.Head, found *bool) func(Row) error {
	return func(row Row) error {
		err := scan(row, &h.Epoch, &h.Size, &h.Edge, &h.Signed, &h.Time, &h.Seal, &h.KeptSize, &h.KeptTime, &h.Now)
		*found = err == nil
		return err
	}
}

func (r *reader) Head(ctx context.Context) (storage.Head, error) {
	if err := r.enter(ctx); err != nil {
		return storage.Head{}, err
	}
	if !r.loaded {
		if _, err := r.loadHead(ctx, readHead, r.organization); err != nil {
			return storage.Head{}, r.fail(ctx, err)
		}
	}
	h := r.head
	h.Edge, h.Signed, h.Seal = cloned(h.Edge), cloned(h.Signed), cloned(h.Seal)
	return h, nil
}

func cloned(b []byte) []byte { return append([]byte(nil), b...) }

func (r *reader) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	if err := r.enter(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []audit.Line
	err := r.each(ctx, selectLines, []any{r.organization, from, int64(limit)}, collectLines(&found))
	return found, r.fail(ctx, err)
}

func collectLines(found *[]audit.Line) func(Row) error {
	return func(rows Row) error {
		var l audit.Line
		var leaf []byte
		if err := scan(rows, &l.Seq, &l.Content, &l.Personal, &leaf); err != nil {
			return err
		}
		if len(leaf) != len(l.Leaf) {
			return fmt.Errorf("%w: leaf of line %d", storage.ErrCorrupt, l.Seq)
		}
		copy(l.Leaf[:], leaf)
		*found = append(*found, l)
		return nil
	}
}

func (r *reader) Checkpoints(ctx context.Context, after int64, limit int) ([]storage.Checkpoint, error) {
	if err := r.enter(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []storage.Checkpoint
	err := r.each(ctx, selectCheckpoints, []any{r.organization, after, int64(limit)}, func(rows Row) error {
		var c storage.Checkpoint
		err := scan(rows, &c.Size, &c.Signed)
		found = append(found, c)
		return err
	})
	return found, r.fail(ctx, err)
}

func (t *tx) Append(ctx context.Context, a storage.Append) error {
	if err := t.enter(ctx, a.Check(t.head)); err != nil {
		return err
	}
	next := storage.Head{Head: a.Head, Seal: cloned(a.Seal), KeptSize: t.head.KeptSize, KeptTime: t.head.KeptTime, Now: t.head.Now}
	next.Edge, next.Signed = cloned(a.Head.Edge), cloned(a.Head.Signed)
	if a.Keep {
		next.KeptSize, next.KeptTime = a.Head.Size, a.Head.Time
	}
	if err := t.fail(ctx, t.write(ctx, a.Lines, next)); err != nil {
		return err
	}
	if a.Keep {
		if err := t.fail(ctx, t.later(ctx, insertCheckpoint, t.organization, a.Head.Size, next.Signed)); err != nil {
			return err
		}
	}
	t.head = next
	for _, l := range []audit.Line{a.Lines[0], a.Lines[len(a.Lines)-1]} {
		t.appended = append(t.appended, audit.Line{Seq: l.Seq, Leaf: l.Leaf})
	}
	return nil
}

// write writes lines and the head that follows them.
func (t *tx) write(ctx context.Context, lines []audit.Line, next storage.Head) error {
	t.wrote = true
	head := []any{
		next.Epoch, next.Size, octets(next.Edge), octets(next.Signed), next.Time, octets(next.Seal), next.KeptSize, next.KeptTime,
		t.organization, t.head.Size,
	}
	switch {
	case t.pipe != nil && len(lines) == 1:
		return t.writeOne(ctx, lines[0], head)
	case t.store.postgres:
		return t.writeTogether(ctx, lines, head)
	}
	n, err := t.writeEach(ctx, lines, head)
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: the head has moved", storage.ErrCorrupt)
	}
	return err
}

// someLines is how many lines insertEvents and insertLeaves write.
const someLines = 8

// writeEach writes few lines at a time: SQLite is in this process, and a statement
// is a call.
func (t *tx) writeEach(ctx context.Context, lines []audit.Line, head []any) (int64, error) {
	if t.head.Size == 0 {
		if _, err := t.exec(ctx, makeHead, t.organization, []byte{}, []byte{}, []byte{}); err != nil {
			return 0, err
		}
	}
	events, leaves := make([]any, 0, 4*someLines), make([]any, 0, 3*someLines)
	organization := any(t.organization)
	for len(lines) > 0 {
		n, event, leaf := 1, insertEvent, insertLeaf
		if len(lines) >= someLines {
			n, event, leaf = someLines, insertEvents, insertLeaves
		}
		events, leaves = events[:0], leaves[:0]
		for i := range lines[:n] {
			l := &lines[i]
			seq := any(l.Seq)
			events = append(events, organization, seq, octets(l.Content), nullable(l.Personal))
			leaves = append(leaves, organization, seq, l.Leaf[:])
		}
		if _, err := t.exec(ctx, event, events...); err != nil {
			return 0, err
		}
		if _, err := t.exec(ctx, leaf, leaves...); err != nil {
			return 0, err
		}
		lines = lines[n:]
	}
	return t.exec(ctx, updateHead, head...)
}

// writeOne writes one line by plain statements, which travel together: an array of
// one and what joins it to the head cost the database more than the line does.
func (t *tx) writeOne(ctx context.Context, l audit.Line, head []any) error {
	if err := t.later(ctx, insertEvent, t.organization, l.Seq, octets(cloned(l.Content)), nullable(cloned(l.Personal))); err != nil {
		return err
	}
	if err := t.later(ctx, insertLeaf, t.organization, l.Seq, cloned(l.Leaf[:])); err != nil {
		return err
	}
	return t.later(ctx, moveHead, head...)
}

// bulk bounds the lines of one statement, in bytes.
const bulk = 1 << 20

// writeTogether writes all lines in one statement, or in as few as their size allows.
func (t *tx) writeTogether(ctx context.Context, lines []audit.Line, head []any) error {
	var p part
	size := 0
	for i, l := range lines {
		p.add(l)
		if size += len(l.Content) + len(l.Personal); i < len(lines)-1 && size >= bulk {
			if _, err := t.exec(ctx, insertLines, p.args(t)...); err != nil {
				return err
			}
			p, size = part{}, 0
		}
	}
	return t.later(ctx, appendLines, append(p.args(t), head...)...)
}

// part is some lines, as the arrays that their columns travel in.
type part struct {
	seqs                     []int64
	content, personal, leafs [][]byte
}

func (p *part) add(l audit.Line) {
	p.seqs = append(p.seqs, l.Seq)
	p.content = append(p.content, octets(cloned(l.Content)))
	if len(l.Personal) == 0 {
		p.personal = append(p.personal, nil)
	} else {
		p.personal = append(p.personal, cloned(l.Personal))
	}
	p.leafs = append(p.leafs, cloned(l.Leaf[:]))
}

// args are the arguments of insertLines, and the first of appendLines.
func (p *part) args(t *tx) []any {
	if t.pipe != nil {
		return []any{t.organization, p.seqs, p.content, p.personal, t.organization, p.seqs, p.leafs}
	}
	// Not every driver knows arrays, but all of them text.
	seqs := literal(p.seqs, func(seq int64) string { return strconv.FormatInt(seq, 10) })
	return []any{t.organization, seqs, literal(p.content, hexed), literal(p.personal, hexed), t.organization, seqs, literal(p.leafs, hexed)}
}

// literal is an array as Postgres writes it.
func literal[T any](items []T, spell func(T) string) string {
	var b strings.Builder
	for i, item := range items {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(spell(item))
	}
	b.WriteByte('}')
	return b.String()
}

func hexed(b []byte) string {
	if b == nil {
		return "NULL"
	}
	return `"\\x` + hex.EncodeToString(b) + `"`
}

// nullable is b, or a NULL when there is nothing in it.
func nullable(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func (t *tx) Erase(ctx context.Context, erasures []storage.Erasure) error {
	if err := t.enter(ctx, checkIDs(len(erasures))); err != nil {
		return err
	}
	for _, e := range erasures {
		if e.Seq < 0 || e.Seq >= t.head.Size {
			return t.fail(ctx, invalid("erasure of no line"))
		}
	}
	if err := t.fail(ctx, t.forget(ctx, erasures)); err != nil {
		return err
	}
	err := t.eraseEach(ctx, erasePersonal, numbers(erasures, func(e storage.Erasure) bool { return e.Personal }))
	if err != nil {
		return err
	}
	return t.eraseEach(ctx, eraseContent, numbers(erasures, func(e storage.Erasure) bool { return e.Content }))
}

func (t *tx) eraseEach(ctx context.Context, q statement, seqs [][1]string) error {
	if len(seqs) == 0 {
		return nil
	}
	text, err := list(seqs)
	if err != nil {
		return t.fail(ctx, err)
	}
	return t.execute(ctx, q, t.organization, text)
}

// numbers are the lines of which something goes, for @list.
func numbers(erasures []storage.Erasure, of func(storage.Erasure) bool) (seqs [][1]string) {
	for _, e := range erasures {
		if of(e) {
			seqs = append(seqs, [1]string{strconv.FormatInt(e.Seq, 10)})
		}
	}
	return seqs
}
