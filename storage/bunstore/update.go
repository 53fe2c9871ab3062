package bunstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/uptrace/bun"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// running marks the context that a running fn was given.
type running struct{}

func (s *Store) enterTx(ctx context.Context, organization string) error {
	if err := s.enter(ctx, organization); err != nil {
		return err
	}
	if ctx.Value(running{}) != nil {
		return storage.ErrNested
	}
	if organization == "" {
		return invalid("no organization")
	}
	return nil
}

// Update implements storage.Store. It runs fn once, or on SQLite twice.
func (s *Store) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.update(ctx, organization, nil, fn)
}

// UpdateBulk implements storage.BulkUpdater: where there is a Pipeline, the head
// and q come in one round trip.
func (s *Store) UpdateBulk(ctx context.Context, organization string, q storage.BulkQuery, fn func(context.Context, storage.Tx) error) error {
	if s.pipeline == nil || q.Check() != nil {
		return s.update(ctx, organization, nil, fn)
	}
	return s.update(ctx, organization, &q, fn)
}

func (s *Store) update(ctx context.Context, organization string, ahead *storage.BulkQuery, fn func(context.Context, storage.Tx) error) error {
	if err := s.enterTx(ctx, organization); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, storage.UpdateTime)
	defer cancel()
	// Whoever may take as long as it likes keeps nobody waiting for its end.
	if _, brief := ctx.Deadline(); brief && !s.postgres {
		if err := s.updateShared(wait, ctx, organization, fn); err != errApart {
			return err
		}
	}
	leave, err := s.enterGate(wait, ctx, organization)
	if err != nil {
		return err
	}
	defer leave()
	t, err := s.takeHead(wait, ctx, organization, ahead)
	if err != nil {
		return err
	}
	defer t.undo()
	if err := t.run(ctx, fn); err != nil {
		return err
	}
	return t.commit(ctx)
}

// gate is the name of the gate in front of an organization's head: on SQLite
// all writers share one.
func (s *Store) gate(organization string) string {
	if s.postgres {
		return organization
	}
	return ""
}

func (s *Store) passGate(wait, caller context.Context, organization string) (leave func(), err error) {
	leave, passed := s.gates.enter(wait.Done(), s.gate(organization))
	switch {
	case passed:
		return leave, nil
	case caller.Err() != nil:
		return nil, caller.Err()
	}
	return nil, fmt.Errorf("%w: the head is held in this process", storage.ErrBusy)
}

// enterGate is passGate for who wants a transaction of its own.
func (s *Store) enterGate(wait, caller context.Context, organization string) (leave func(), err error) {
	leave, err = s.passGate(wait, caller, organization)
	if err == nil && !s.postgres {
		s.settle()
	}
	return leave, err
}

// tx is the transaction of an Update.
type tx struct {
	*reader
	wrote    bool         // something was written
	made     bool         // the log's row was made by this transaction
	appended []audit.Line // number and leaf of the first and the last line
}

var (
	_ storage.ReadTx = (*reader)(nil)
	_ storage.Tx     = (*tx)(nil)
)

// takeHead begins a transaction that holds the organization's head: locked and
// read by a statement of its own, before any other. It waits for the head as
// long as wait lasts. What it can, it reads ahead.
func (s *Store) takeHead(wait, caller context.Context, organization string, ahead *storage.BulkQuery) (*tx, error) {
	r, err := s.begin(wait, caller, s.writer, organization, s.writing())
	if err != nil {
		return nil, err
	}
	t := &tx{reader: r}
	if s.postgres {
		err = t.lockRow(wait, caller, ahead)
	} else {
		err = t.lockFile(wait, caller)
	}
	if err != nil {
		t.undo()
		return nil, s.translate(caller, err)
	}
	return t, nil
}

// mode is how a transaction begins.
type mode struct {
	options sql.TxOptions
	text    string // the same, for a pipe
}

func (s *Store) writing() mode {
	if s.postgres {
		return mode{sql.TxOptions{Isolation: sql.LevelReadCommitted}, "BEGIN ISOLATION LEVEL READ COMMITTED"}
	}
	return mode{}
}

func (s *Store) reading() mode {
	if s.postgres {
		return mode{sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	}
	return mode{options: sql.TxOptions{ReadOnly: true}}
}

const (
	// Every transaction says for itself how long it may wait, run and idle, and
	// that a commit is on disk when it is answered: whatever the role's defaults.
	setLocal statement = `SELECT set_config('lock_timeout', ?, true), set_config('statement_timeout', ?, true),
		set_config('idle_in_transaction_session_timeout', ?, true), set_config('synchronous_commit', 'on', true)`

	// The limits are set by the locking statement itself, before it locks: the row
	// can't be told to be wanted until they are. It saves a round trip. The wait is
	// bounded by lock_timeout; statement_timeout holds from the next statement on.
	// The clock is read outside of the locking query, and so after the wait.
	lockHead statement = `WITH limits AS MATERIALIZED (SELECT set_config('lock_timeout', ?, true) || set_config('statement_timeout', ?, true) ||
		set_config('idle_in_transaction_session_timeout', ?, true) || set_config('synchronous_commit', 'on', true) AS made),
		head AS MATERIALIZED (
		SELECT epoch, size, edge, signed, time, seal, kept_size, kept_time FROM @logs
			WHERE organization = ? AND (SELECT made FROM limits) <> '' FOR UPDATE)
		SELECT head.*, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM head`
	makeHead statement = `INSERT INTO @logs (organization, epoch, size, edge, signed, time, seal, kept_size, kept_time)
		VALUES (?, 0, 0, ?, ?, 0, ?, 0, 0) ON CONFLICT DO NOTHING`
	dropHead statement = `DELETE FROM @logs WHERE organization = ? AND size = 0`

	// A write that finds nothing to do takes the write lock all the same, for handles
	// that don't begin their transactions with it.
	lockDatabase statement = `UPDATE @logs SET size = size WHERE organization = ? AND size < 0`
	readHead     statement = `SELECT epoch, size, edge, signed, time, seal, kept_size, kept_time, 0 FROM @logs WHERE organization = ?`
)

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

// lockTime is a little less than a statement may take, so that waiting in vain
// is told from a database that is slow.
const lockTime = storage.UpdateTime - answerTime

// answerTime is how long the database's own limits end before ours, so that it
// is heard saying so, on a connection that can be used again.
const answerTime = 100 * time.Millisecond

func (t *tx) lockRow(wait, ctx context.Context, ahead *storage.BulkQuery) error {
	patience := lockTime
	if deadline, ok := wait.Deadline(); ok {
		patience = min(patience, time.Until(deadline)-answerTime)
	}
	limits := []any{milliseconds(patience), milliseconds(storage.UpdateTime), milliseconds(idleTime), t.organization}
	// A row made by an Update that appended nothing goes away again, also
	// between our two statements: hence the second round.
	for range 3 {
		found, err := t.lockAhead(ctx, limits, ahead)
		if err != nil || found {
			return err
		}
		ahead = nil
		if err := t.limit(ctx, patience, storage.UpdateTime); err != nil {
			return err
		}
		n, err := t.exec(ctx, makeHead, t.organization, []byte{}, []byte{}, []byte{})
		if err != nil {
			return err
		}
		t.made = n == 1
	}
	return fmt.Errorf("%w: the log's row does not stay", storage.ErrBusy)
}

// lockAhead locks the head and, where statements travel together, has what it is to
// read ahead read by the next ones. What can't be read is left to who asks for it.
func (t *tx) lockAhead(ctx context.Context, limits []any, q *storage.BulkQuery) (found bool, err error) {
	if q == nil || t.pipe == nil {
		return t.loadHead(ctx, lockHead, limits...)
	}
	var h storage.Head
	t.pipe.keep(t.store.sql(lockHead), limits, headInto(&h, &found)) // behind the beginning there is room
	a := &readAhead{query: *q}
	err = t.readInto(ctx, *q, &a.bulk)
	switch {
	case !found, err != nil && !errors.Is(err, storage.ErrCorrupt):
		return false, err
	case err == nil:
		t.ahead = a
	}
	t.head, t.loaded = h, true
	return true, nil
}

// readAhead is a bulk read that came with the head.
type readAhead struct {
	query storage.BulkQuery
	bulk  storage.Bulk
}

func (t *tx) lockFile(wait, ctx context.Context) error {
	if err := t.takeFile(wait, ctx); err != nil {
		return err
	}
	_, err := t.loadHead(ctx, readHead, t.organization)
	return err
}

// takeFile takes SQLite's write lock.
func (r *reader) takeFile(wait, ctx context.Context) error {
	if r.pool.kept != nil {
		return nil // it was begun with it
	}
	return whenFree(wait, func() error {
		_, err := r.exec(ctx, lockDatabase, r.organization)
		return err
	})
}

// whenFree tries again and again while another process holds SQLite's write
// lock. SQLite's own patience sleeps longer and longer, and meets a writer who
// never pauses too seldom to get its turn.
func whenFree(wait context.Context, try func() error) error {
	for {
		err := try()
		if code, ok := sqliteCode(err); !ok || code != sqliteBusy {
			return err
		}
		pause := time.NewTimer(time.Millisecond)
		select {
		case <-pause.C:
		case <-wait.Done():
			pause.Stop()
			return err
		}
	}
}

// limit sets the transaction's own time limits on Postgres. An idle transaction
// ends before anybody's patience with its head does.
func (r *reader) limit(ctx context.Context, lock, statement time.Duration) error {
	if !r.store.postgres {
		return nil
	}
	return r.later(ctx, setLocal, milliseconds(lock), milliseconds(statement), milliseconds(idleTime))
}

const idleTime = storage.UpdateTime - 200*time.Millisecond

// run gives fn the transaction. A panic passes, and the transaction is undone.
func (t *tx) run(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	defer t.done.Store(true)
	if err := fn(context.WithValue(ctx, running{}, true), t); err != nil {
		return err
	}
	if t.failed != nil {
		return t.failed
	}
	return ctx.Err()
}

// commit ends the transaction. One that wrote nothing has nothing to keep.
func (t *tx) commit(ctx context.Context) error {
	if t.store.closed.Load() {
		return storage.ErrClosed
	}
	if !t.wrote {
		return nil
	}
	if t.made && t.appended == nil {
		if err := t.later(ctx, dropHead, t.organization); err != nil {
			return t.store.translate(ctx, err)
		}
	}
	// The caller's context may end: the answer matters all the same. The wait for
	// it and the search for the outcome share their time.
	most := outcomeTime
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, max(time.Until(deadline), 0)+storage.OutcomeTime)
	}
	left, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	return t.outcome(ctx, left, t.commitWithin(most*4/5))
}

// outcome is what a commit that answered so has come to. Where that leaves it open,
// it is looked for as long as left lasts.
func (t *tx) outcome(ctx, left context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case t.store.surelyUndone(err):
		return t.store.translate(ctx, err)
	case t.appended == nil:
		return fmt.Errorf("%w: commit without an answer", storage.ErrUnknown)
	}
	return t.store.resolve(left, t.organization, t.appended)
}

// outcomeTime leaves room, within storage.ResolveTime, for what came before.
const outcomeTime = storage.ResolveTime - 500*time.Millisecond

// resolve finds out, under the head and before ctx ends, whether lines stand at
// their numbers.
func (s *Store) resolve(ctx context.Context, organization string, lines []audit.Line) error {
	for {
		stand, err := s.stand(ctx, organization, lines)
		switch {
		case err == nil && stand:
			return nil
		case err == nil && s.postgres:
			return fmt.Errorf("%w: the commit failed", storage.ErrUnavailable)
		case err == nil, errors.Is(err, storage.ErrClosed):
			// See surelyUndone: on SQLite, not to be seen is not yet gone.
			return fmt.Errorf("%w: the commit failed", storage.ErrUnknown)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: commit without an answer", storage.ErrUnknown)
		}
	}
}

// stand reports whether all these lines stand in the log at their numbers.
func (s *Store) stand(ctx context.Context, organization string, lines []audit.Line) (bool, error) {
	t, err := s.takeHead(ctx, ctx, organization, nil)
	if err != nil {
		return false, err
	}
	defer t.undo()
	for _, l := range lines {
		found, err := t.Lines(ctx, l.Seq, 1)
		if err != nil {
			return false, err
		}
		if len(found) == 0 || found[0].Seq != l.Seq || found[0].Leaf != l.Leaf {
			return false, nil
		}
	}
	return true, nil
}

// begin begins a transaction. It lives in a context of its own, so that neither
// a commit nor a rollback is cut off by the end of the caller's, and which ends
// when the database does not answer either.
// A connection may have to be waited for, or be made: that ends with wait.
func (s *Store) begin(wait, caller context.Context, p *pool, organization string, how mode) (*reader, error) {
	switch pipe, err := p.openPipe(wait, how.text); {
	case err != nil:
		return nil, s.translate(caller, err)
	case pipe != nil:
		r := &reader{store: s, pool: p, bun: pipe.conn, pipe: pipe, organization: organization}
		r.deadline, _ = caller.Deadline()
		return r, nil
	}
	if p.kept != nil {
		return s.beginHeld(wait, caller, p, organization)
	}
	if err := p.prepare(wait); err != nil {
		return nil, s.translate(caller, err)
	}
	own, cancel := context.WithCancel(context.WithoutCancel(caller))
	stop := context.AfterFunc(wait, cancel)
	var began bun.Tx
	try := func() (err error) { began, err = p.bun.BeginTx(own, &how.options); return err }
	var err error
	if s.postgres {
		err = try()
	} else {
		err = whenFree(wait, try)
	}
	if ended := !stop(); ended {
		if err == nil {
			_ = began.Rollback()
		}
		err = wait.Err()
		if !s.postgres && p == s.writer {
			err = fmt.Errorf("%w: another process writes", storage.ErrBusy)
		}
	}
	if err != nil {
		cancel()
		return nil, s.translate(caller, err)
	}
	r := &reader{store: s, pool: p, bun: began, sql: began.Tx, cancel: cancel, organization: organization}
	r.deadline, _ = caller.Deadline()
	return r, nil
}

// beginHeld begins a transaction of the session that a pool keeps.
func (s *Store) beginHeld(wait, caller context.Context, p *pool, organization string) (*reader, error) {
	x, err := p.takeSession(wait)
	if err != nil {
		return nil, s.translate(caller, err)
	}
	h, err := x.begin(wait, p)
	if err != nil {
		return nil, s.translate(caller, err)
	}
	r := &reader{store: s, pool: p, bun: x.conn, sql: h, cancel: func() {}, organization: organization}
	r.deadline, _ = caller.Deadline()
	return r, nil
}

// undo ends the transaction and keeps nothing. After a commit it does nothing.
func (r *reader) undo() {
	r.done.Store(true)
	most := patience
	if !r.deadline.IsZero() {
		most = min(most, max(time.Until(r.deadline), answerTime))
	}
	if r.pipe != nil {
		r.pipe.close(most)
		return
	}
	_ = r.endWithin(most, r.sql.Rollback)
	r.cancel()
}

// commitWithin commits in bounded time. An error says nothing yet of the outcome, see
// surelyUndone.
func (r *reader) commitWithin(most time.Duration) error {
	if r.pipe == nil {
		return r.endWithin(most, r.sql.Commit)
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	return r.pipe.commit(ctx)
}

// endWithin commits or rolls back, in bounded time on a connection that can hang.
func (r *reader) endWithin(most time.Duration, how func() error) error {
	if r.store.postgres {
		timer := time.AfterFunc(most, r.cancel)
		defer timer.Stop()
	}
	return how()
}

// withWrite runs fn in a transaction that holds no head: for what belongs to no
// log. On SQLite it holds the write lock.
func (s *Store) withWrite(caller context.Context, organization string, fn func(context.Context, *reader) error) error {
	wait, cancel := context.WithTimeout(caller, storage.UpdateTime)
	defer cancel()
	if !s.postgres {
		leave, err := s.enterGate(wait, caller, organization)
		if err != nil {
			return err
		}
		defer leave()
	}
	r, err := s.begin(wait, caller, s.writer, organization, s.writing())
	if err != nil {
		return err
	}
	defer r.undo()
	if s.postgres {
		err = r.limit(caller, lockTime, storage.UpdateTime)
	} else {
		err = r.takeFile(wait, caller)
	}
	if err == nil {
		err = fn(caller, r)
	}
	if err != nil {
		return s.translate(caller, err)
	}
	if err := caller.Err(); err != nil {
		return err
	}
	if err := r.commitWithin(patience); err != nil {
		if s.surelyUndone(err) {
			return s.translate(caller, err)
		}
		return fmt.Errorf("%w: commit without an answer", storage.ErrUnknown)
	}
	return nil
}

// View implements storage.Store.
func (s *Store) View(caller context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	if err := s.enterTx(caller, organization); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(caller, storage.ViewTime)
	defer cancel()
	return s.read(ctx, organization, func(r *reader) error {
		defer r.done.Store(true)
		if err := fn(context.WithValue(ctx, running{}, true), r); err != nil {
			return err
		}
		if r.failed != nil {
			return r.failed
		}
		return ctx.Err()
	})
}

// read runs fn in a transaction that reads one consistent state. The context
// must have a deadline.
func (s *Store) read(ctx context.Context, organization string, fn func(*reader) error) error {
	r, err := s.begin(ctx, ctx, s.reader, organization, s.reading())
	if err != nil {
		return err
	}
	defer r.undo()
	if err := r.limit(ctx, storage.ViewTime, storage.ViewTime); err != nil {
		return s.translate(ctx, err)
	}
	return fn(r)
}
