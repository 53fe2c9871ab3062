package agentkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// SinkConfig is a sink that events are shipped to.
type SinkConfig struct {
	// Name is under what the sink's progress is kept: letters, digits and
	// underscores. A new name begins with the first event of every log. Required.
	Name string `validate:"required,max=64,code"`

	// Sink takes the events. Required.
	Sink audit.Sink `validate:"-"`

	// Personal ships the personal parts too. False: they stay here, where they can
	// be erased.
	Personal bool

	// Timeout bounds one call of the sink. Zero: 10 seconds.
	Timeout time.Duration `validate:"min=0,max=10m"`
}

// SinkStatus says how far an organization's log has been shipped to a sink.
type SinkStatus struct {
	Name      string
	Personal  bool
	Shipped   int64 // events shipped: the number of the next one
	Behind    int64 // events that are yet to be shipped
	ShippedAt int64 // when it last took something of this log; 0: never

	// Of this process, if it is the one that ships.
	Failures  int   // in a row
	FailingAt int64 // since when; 0: it does not fail
	Failure   string
}

// Bounds of one batch.
const (
	shipLines = 500
	shipBytes = 1 << 20
)

// Pauses after failures in a row: they double and are spread by a fifth.
const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// kindCursor is the kind of record that says how far a log was shipped to a sink,
// by the sink's name. It has a seal, so that nobody can have events passed over, and
// no event: that would have to be shipped in turn. An old one put back ships again.
const kindCursor = "audit_cursor"

type cursorPayload struct {
	Next int64 `json:"next"`
	At   int64 `json:"at"`
}

// shipper ships to one sink.
type shipper struct {
	m *Manager
	SinkConfig

	mu       sync.Mutex
	failures int
	since    int64
	failure  string

	// Of the goroutine that ships:
	held   time.Time            // when the turn was last taken
	broken map[string]time.Time // logs that can't be read, and when to try again
}

// lease is how long a turn at shipping is held: longer than any call of the sink.
func (s *shipper) lease() time.Duration { return 3 * s.Timeout }

// run ships until ctx ends.
func (s *shipper) run(ctx context.Context) {
	for wait := time.Duration(0); pause(ctx, wait); {
		err := s.round(ctx)
		if ctx.Err() != nil {
			break
		}
		wait = s.settle(ctx, err)
	}
	s.handOver(context.WithoutCancel(ctx))
}

// handOver lets another process take the turn at once.
func (s *shipper) handOver(ctx context.Context) {
	if s.held.IsZero() {
		return
	}
	if _, err := s.m.turn(ctx, "ship/"+s.Name, 0); err != nil {
		s.m.log.LogAttrs(ctx, slog.LevelWarn, "turn at shipping not handed over", slog.String("sink", s.Name), slog.Any("error", err))
	}
}

// settle notes how a round went, and says how long to wait for the next.
func (s *shipper) settle(ctx context.Context, err error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var refused *sinkError
	if !errors.As(err, &refused) { // what else went wrong was logged, and is not the sink's
		if s.failures > 0 {
			s.m.log.LogAttrs(ctx, slog.LevelInfo, "audit sink takes events again", slog.String("sink", s.Name))
		}
		s.failures, s.since, s.failure = 0, 0, ""
		return s.m.config.SweepInterval
	}
	if s.failures == 0 {
		s.since = micros(s.m.config.Clock())
	}
	s.failures++
	s.failure = cut(err.Error(), 200)
	wait := min(firstPause<<min(s.failures-1, 10), maxPause)
	wait = wait*4/5 + rand.N(wait*2/5)
	s.m.log.LogAttrs(ctx, slog.LevelWarn, "audit sink fails; nothing is lost", slog.String("sink", s.Name),
		slog.Int("failures", s.failures), slog.Duration("next", wait), slog.Any("error", err))
	return wait
}

// mine takes or keeps the turn at shipping.
func (s *shipper) mine(ctx context.Context) (bool, error) {
	now := s.m.config.Clock()
	if !s.held.IsZero() && now.Sub(s.held) < s.lease()/4 && !now.Before(s.held) {
		return true, nil
	}
	mine, err := s.m.turn(ctx, "ship/"+s.Name, s.lease())
	s.held = time.Time{}
	if err == nil && mine {
		s.held = now
	}
	return mine && err == nil, err
}

// sinkError is what a sink answered: no other log need be tried.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

// round ships what there is of every log. A log that can't be read keeps no
// other waiting; a sink that fails ends the round.
func (s *shipper) round(ctx context.Context) error {
	if err := s.m.enter(); err != nil {
		return err
	}
	defer s.m.leave()
	var failed error
	err := s.m.eachOrganization(ctx, func(id string) error {
		if s.m.config.Clock().Before(s.broken[id]) {
			return nil
		}
		for {
			mine, err := s.mine(ctx)
			if err != nil {
				return err
			}
			if !mine {
				return errNotMine
			}
			more, err := s.batch(ctx, id)
			var refused *sinkError
			switch {
			case errors.As(err, &refused), ctx.Err() != nil:
				return err
			case err != nil:
				failed = errors.Join(failed, err)
				s.setAside(ctx, id, err)
				return nil
			case !more:
				return nil
			}
		}
	})
	if errors.Is(err, errNotMine) {
		err = nil
	}
	return errors.Join(failed, err)
}

// setAside leaves a log that can't be read alone for a while, so that it slows
// down no other.
func (s *shipper) setAside(ctx context.Context, organization string, err error) {
	if s.broken == nil {
		s.broken = make(map[string]time.Time)
	}
	s.broken[organization] = s.m.config.Clock().Add(maxPause)
	s.m.log.LogAttrs(ctx, slog.LevelError, "log can't be shipped", slog.String("sink", s.Name), slog.String("organization", organization), slog.Any("error", err))
}

// errNotMine says that another process ships.
var errNotMine = errors.New("agentkey: another process ships")

// batch ships the next lines of a log, and says whether there may be more.
func (s *shipper) batch(ctx context.Context, organization string) (more bool, err error) {
	at, lines, head, err := s.next(ctx, organization)
	if err != nil || len(lines) == 0 {
		return false, err
	}
	next := lines[len(lines)-1].Seq + 1
	bounded, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	b := audit.Batch{Origin: audit.Origin(s.m.installation, organization, head.Epoch), Lines: lines}
	if err := s.Sink.Ship(bounded, b); err != nil {
		return false, &sinkError{err}
	}
	return next < head.Size, s.advance(ctx, organization, at, next)
}

// next reads the lines that come next, as many as a batch may hold.
func (s *shipper) next(ctx context.Context, organization string) (at storage.Record, lines []audit.Line, head storage.Head, err error) {
	damaged := false
	err = s.m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{logOnly: true}); err != nil {
			return err
		}
		if head, err = tx.Head(ctx); err != nil {
			return err
		}
		var c cursorPayload
		if at, c, err = u.cursor(ctx, tx, s.Name); err != nil {
			return err
		}
		damaged = at.Revision > 0 && c == cursorPayload{}
		lines, err = tx.Lines(ctx, c.Next, shipLines)
		return err
	})
	if err != nil {
		return at, nil, head, err
	}
	if damaged {
		s.m.reportIntegrity(ctx, organization, &integrityError{kind: kindCursor, id: s.Name})
	}
	size := 0
	for i := range lines {
		l := &lines[i]
		if len(l.Content) > 0 && audit.LeafHash(l.Content) != l.Leaf {
			s.m.reportIntegrity(ctx, organization, &headError{organization: organization}) // and it is shipped as it is
		}
		if !s.Personal {
			l.Personal = nil
		}
		if size += len(l.Content) + len(l.Personal); size > shipBytes && i > 0 {
			return at, lines[:i], head, nil
		}
	}
	return at, lines, head, nil
}

// cursor reads how far a log was shipped. One that is not what was written counts
// for nothing: all is shipped again.
func (u *unit) cursor(ctx context.Context, tx storage.ReadTx, sink string) (r storage.Record, c cursorPayload, err error) {
	r, ok, err := tx.Record(ctx, kindCursor, sink)
	if err != nil || !ok {
		return r, c, err
	}
	r.Organization = u.organization
	err = u.verify(r.Row(u.installation), r.Seal)
	if errors.Is(err, ErrIntegrity) || err == nil && (json.Unmarshal(r.Payload, &c) != nil || c.Next < 0) {
		return r, cursorPayload{}, nil
	}
	return r, c, err
}

// advance notes that a log was shipped up to a number. If somebody else has noted
// something meanwhile, that stands: at worst lines are shipped twice.
func (s *shipper) advance(ctx context.Context, organization string, at storage.Record, next int64) error {
	keys, err := s.m.keys.acquire(ctx, organization, false)
	if err != nil {
		return err
	}
	defer keys.release()
	now := micros(s.m.config.Clock())
	payload, err := json.Marshal(cursorPayload{Next: next, At: now})
	if err != nil {
		return err
	}
	r := storage.Record{Organization: organization, Kind: kindCursor, ID: s.Name, Payload: payload, UpdatedAt: now, Revision: at.Revision + 1}
	if r.Seal, err = keys.rows.Seal(r.Row(s.m.installation)); err != nil {
		return fmt.Errorf("agentkey: seal cursor: %w", err)
	}
	err = s.m.update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PutRecord(ctx, r)
		return err
	})
	return storageError(err)
}

// Ship ships what there is to every sink, once, and answers what failed. Run does
// so all the time; a host with a scheduler of its own may call it instead.
func (m *Manager) Ship(ctx context.Context) error {
	var failed error
	for _, s := range m.shippers {
		one := &shipper{m: m, SinkConfig: s.SinkConfig}
		err := one.round(ctx)
		if err != nil {
			err = fmt.Errorf("%w: audit sink %s: %w", ErrStorage, s.Name, err)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// shipped is up to where every sink has a log: what retention may remove.
type shipped struct{ content, personal int64 }

func (m *Manager) shippedTo(ctx context.Context, organization string) (out shipped, err error) {
	out = shipped{audit.MaxInteger, audit.MaxInteger}
	if len(m.shippers) == 0 {
		return out, nil
	}
	err = m.cursors(ctx, organization, func(s *shipper, c cursorPayload, _ int64) {
		out.content = min(out.content, c.Next)
		if s.Personal {
			out.personal = min(out.personal, c.Next)
		}
	})
	return out, err
}

// cursors calls fn for each sink with how far it has a log of a size.
func (m *Manager) cursors(ctx context.Context, organization string, fn func(s *shipper, c cursorPayload, size int64)) error {
	found := make([]cursorPayload, len(m.shippers))
	var size int64
	err := m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{logOnly: true}); err != nil {
			return err
		}
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		size = head.Size
		for i, s := range m.shippers {
			if _, found[i], err = u.cursor(ctx, tx, s.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, s := range m.shippers {
		fn(s, found[i], size)
	}
	return nil
}

// Shipping says how far the organization's log has been shipped to each of the
// Config.Sinks. What it says of failures is of this process.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) Shipping(ctx context.Context, a Actor) ([]SinkStatus, error) {
	if err := m.authorize(ctx, a, OpReadShipping); err != nil {
		return nil, err
	}
	out := []SinkStatus{}
	err := m.cursors(ctx, a.Organization, func(s *shipper, c cursorPayload, size int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		out = append(out, SinkStatus{
			Name: s.Name, Personal: s.SinkConfig.Personal, Shipped: c.Next, Behind: max(size-c.Next, 0), ShippedAt: c.At,
			Failures: s.failures, FailingAt: s.since, Failure: s.failure,
		})
	})
	return out, err
}

// TailInput asks for the lines that come next.
type TailInput struct {
	From     int64 // the number of the first
	Limit    int   // 1 to 1000; 0: 500
	Personal bool  // with personal parts
}

// TailPage is a run of lines of a log.
type TailPage struct {
	audit.Batch       // Lines may be empty: there are no more yet
	Size        int64 // of the log
}

// Tail reads lines of the organization's log from a number on, in order, with
// their exact bytes: what whoever follows the log has not seen yet. It is not
// recorded, as no list is. A page has about a megabyte at most.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) Tail(ctx context.Context, a Actor, in TailInput) (TailPage, error) {
	if err := m.authorize(ctx, a, OpTailAudit); err != nil {
		return TailPage{}, err
	}
	if in.From < 0 || in.From > audit.MaxInteger {
		return TailPage{}, invalid("from", "must be the number of an event")
	}
	if in.Limit < 0 || in.Limit > 2*shipLines {
		return TailPage{}, invalid("limit", "must be 1 to 1000")
	}
	var page TailPage
	err := m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		page = TailPage{Size: head.Size}
		page.Origin = audit.Origin(m.installation, a.Organization, head.Epoch)
		page.Lines, err = tx.Lines(ctx, in.From, or(in.Limit, shipLines))
		return err
	})
	size := 0
	for i := range page.Lines {
		l := &page.Lines[i]
		if !in.Personal {
			l.Personal = nil
		}
		if size += len(l.Content) + len(l.Personal); size > shipBytes && i > 0 {
			page.Lines = page.Lines[:i]
			break
		}
	}
	return page, err
}
