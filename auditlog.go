package agentkey

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Events lists events, newest first. What no action is called selects none.
func (m *Manager) Events(ctx context.Context, a Actor, in EventsInput) (EventsPage, error) {
	if err := m.authorize(ctx, a, OpReadAudit); err != nil {
		return EventsPage{}, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return EventsPage{}, err
	}
	none := (audit.Filter{Action: in.Filter.Action}).Validate() != nil
	if none {
		in.Filter.Action = ""
	}
	q := storage.EventQuery{Filter: in.Filter, Limit: limit}
	if err := in.Filter.Validate(); err != nil {
		return EventsPage{}, invalid("filter", "is not valid")
	}
	if in.Cursor != "" {
		c, err := audit.ParseCursor(in.Cursor)
		if err != nil {
			return EventsPage{}, invalid("cursor", "is not valid")
		}
		q.Before = c.Before
	}
	if none {
		return EventsPage{Events: []LoggedEvent{}}, nil
	}
	page, err := m.store.Events(ctx, a.Organization, q)
	if err != nil {
		return EventsPage{}, storageError(err)
	}
	out := EventsPage{Events: make([]LoggedEvent, 0, len(page.Lines))}
	for _, l := range page.Lines {
		e, err := loggedEvent(l)
		if err != nil {
			m.reportIntegrity(ctx, a.Organization, &headError{organization: a.Organization})
			return EventsPage{}, err
		}
		out.Events = append(out.Events, e)
	}
	if page.Next > 0 {
		out.Next = audit.Cursor{Before: page.Next}.String()
		return out, nil
	}
	out.Removed, out.RemovedBelow = -1, -1
	if r, err := m.retention(ctx, a.Organization); err == nil { // it takes keys, which the list does not
		out.Removed, out.RemovedBelow = r.Removed, r.RemovedBelow
	}
	return out, nil
}

func loggedEvent(l audit.Line) (LoggedEvent, error) {
	e, err := audit.Parse(l.Content)
	if err != nil {
		return LoggedEvent{}, fmt.Errorf("%w: event %d", ErrIntegrity, l.Seq)
	}
	out := LoggedEvent{Event: e, Leaf: l.Leaf, PersonalRemoved: len(e.Personal) > 0 && len(l.Personal) == 0}
	if len(l.Personal) > 0 {
		if out.Personal, err = audit.ParsePersonal(l.Personal); err != nil {
			return LoggedEvent{}, fmt.Errorf("%w: personal part of event %d", ErrIntegrity, l.Seq)
		}
	}
	return out, nil
}

// linesPage is how many lines one read of the log takes.
const linesPage = 2000

// logSource reads an organization's log as it was when it was asked for.
type logSource struct {
	m            *Manager
	organization string
	size         int64
	removals     int64         // how often content had been removed, when size was the log's
	source       *audit.Source // of which this is a part

	lines []audit.Line
	next  int64
	kept  []storage.Checkpoint
	after int64
	dry   bool
}

func (m *Manager) source(ctx context.Context, organization string) (*audit.Source, storage.Head, error) {
	head, removals, err := m.logAsOf(ctx, organization)
	if err != nil {
		return nil, head, err
	}
	s := &logSource{m: m, organization: organization, size: head.Size, removals: removals}
	s.source = &audit.Source{Lines: s.line, Checkpoints: s.checkpoint, Head: head.Signed}
	return s.source, head, nil
}

// logAsOf reads a log's head, and how often retention has removed content of it.
func (m *Manager) logAsOf(ctx context.Context, organization string) (head storage.Head, removals int64, err error) {
	err = m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		if head, err = tx.Head(ctx); err != nil {
			return err
		}
		r, _, err := tx.Record(ctx, kindRemoved, organization)
		removals = r.Revision
		return err
	})
	return head, removals, storageError(err)
}

// extended says whether content was removed since the log was as long as it is
// read. Then it is read up to its present head: the event that says so is there.
func (s *logSource) extended(ctx context.Context) (bool, error) {
	head, removals, err := s.m.logAsOf(ctx, s.organization)
	if err != nil || removals == s.removals {
		return false, err
	}
	s.size, s.removals, s.source.Head = head.Size, removals, head.Signed
	return true, nil
}

func (s *logSource) line(ctx context.Context) (audit.Line, error) {
	if len(s.lines) == 0 {
		if s.next >= s.size {
			more, err := s.extended(ctx)
			if err != nil {
				return audit.Line{}, err
			}
			if !more || s.next >= s.size {
				return audit.Line{}, io.EOF
			}
		}
		err := s.m.store.View(ctx, s.organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			s.lines, err = tx.Lines(ctx, s.next, linesPage)
			return err
		})
		if err != nil {
			return audit.Line{}, storageError(err)
		}
		for len(s.lines) > 0 && s.lines[len(s.lines)-1].Seq >= s.size {
			s.lines = s.lines[:len(s.lines)-1]
		}
		if len(s.lines) == 0 {
			return audit.Line{}, io.EOF
		}
	}
	l := s.lines[0]
	s.lines = s.lines[1:]
	s.next = l.Seq + 1
	return l, nil
}

func (s *logSource) checkpoint(ctx context.Context) (audit.Kept, error) {
	if len(s.kept) == 0 && !s.dry {
		err := s.m.store.View(ctx, s.organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			s.kept, err = tx.Checkpoints(ctx, s.after, linesPage)
			return err
		})
		if err != nil {
			return audit.Kept{}, storageError(err)
		}
		s.dry = len(s.kept) < linesPage
	}
	if len(s.kept) == 0 || s.kept[0].Size > s.size {
		return audit.Kept{}, io.EOF
	}
	c := s.kept[0]
	s.kept, s.after = s.kept[1:], c.Size
	return audit.Kept{Size: c.Size, Signed: c.Signed}, nil
}

// Verify reads the organization's whole log and reports everything that is not
// as it was signed. It holds one page in memory. Content that retention removed
// is counted; content that is missing otherwise is a finding.
func (m *Manager) Verify(ctx context.Context, a Actor) (audit.Report, error) {
	if err := m.authorize(ctx, a, OpVerifyAudit); err != nil {
		return audit.Report{}, err
	}
	source, head, err := m.source(ctx, a.Organization)
	if err != nil {
		return audit.Report{}, err
	}
	verifiers, err := m.trusted(ctx)
	if err != nil {
		return audit.Report{}, err
	}
	report, err := audit.Verify(ctx, audit.Log{
		Installation: m.installation, Organization: a.Organization, Entries: source, Verifiers: verifiers, Recorded: true,
	})
	if err != nil {
		return report, err
	}
	err = m.read(ctx, a.Organization, func(_ context.Context, _ storage.ReadTx, u *unit) error {
		_, err := m.checkStoredHead(u, head)
		return err
	})
	if damaged := (*headError)(nil); errors.As(err, &damaged) {
		last := max(head.Size-1, 0)
		report.Findings = append(report.Findings, audit.Finding{From: last, To: last, Problem: "head is not what was signed and sealed"})
		err = nil
	}
	return report, err
}

// Export writes the organization's whole log: the exact bytes of every event
// with its leaf hash, the kept checkpoints and the head, as JSON lines. The
// export itself is an event, and the last one in it.
func (m *Manager) Export(ctx context.Context, a Actor, w io.Writer) error {
	if err := m.authorize(ctx, a, OpExportAudit); err != nil {
		return err
	}
	err := m.act(ctx, a, OpExportAudit, needs{ended: true}, func(u *unit) error {
		u.event(a.who(), audit.ActionAuditExported).Target = audit.Ref{Kind: audit.KindLog, ID: a.Organization}
		return nil
	})
	if err != nil {
		return err
	}
	source, head, err := m.source(ctx, a.Organization)
	if err != nil {
		return err
	}
	verifiers, err := m.trusted(ctx)
	if err != nil {
		return err
	}
	removed, err := m.removed(ctx, a.Organization)
	if err != nil {
		return err
	}
	return audit.Export(ctx, w, audit.ExportHeader{
		Origin: audit.Origin(m.installation, a.Organization, head.Epoch), PublicKeys: verifiers.Keys(), ContentFrom: removed.Bound,
	}, source)
}

// Record writes an event of the host's own into the log and answers its number.
// Its action has the form x.<namespace>.<what>. Details must be neither secret
// nor personal; the text is kept in the part that can be erased.
func (m *Manager) Record(ctx context.Context, a Actor, in RecordInput) (int64, error) {
	if err := m.authorize(ctx, a, OpRecord); err != nil {
		return 0, err
	}
	if err := m.validation.input(&in); err != nil {
		return 0, err
	}
	action, err := audit.HostAction(in.Action)
	if err != nil {
		return 0, invalid("action", "must be x. followed by two or more parts of a-z, 0-9 and _")
	}
	var e *entry
	err = m.act(ctx, a, OpRecord, needs{}, func(u *unit) error {
		e = u.event(a.who(), action)
		e.Target, e.Agent, e.Tool, e.Details = in.Target, in.Agent, in.Tool, in.Details
		e.personal.Text = in.Text
		if _, err := e.Encode(); errors.Is(err, audit.ErrInvalid) {
			return invalid("target", "or details are not valid")
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return e.Seq, nil
}
