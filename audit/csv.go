package audit

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// csvColumns are the columns of ExportCSV. Later versions may add some at the end.
var csvColumns = [...]string{
	"seq", "time", "action", "outcome", "reason", "actor_kind", "actor_id", "actor_label", "auth", "actor_credential", "behalf",
	"target_kind", "target_id", "agent", "agent_label", "tool", "tool_label", "grant", "credential", "credential_revision",
	"from", "to", "count", "span", "ticket", "request", "client_request", "trace", "node", "software", "address", "user_agent",
	"text", "details", "extra", "leaf",
}

// ExportCSV writes the events that r reads as CSV (RFC 4180) with a first row of names, for people and their spreadsheets. It is
// a view and proves nothing: what is signed are the exact bytes, which Export writes. A cell that a spreadsheet would take for a
// formula begins with an apostrophe. Of an event whose content was removed there are number and leaf hash. It stops at the
// first error of r or w and at a line whose content is no event, which is ErrFormat; Verify says more of that.
func ExportCSV(ctx context.Context, w io.Writer, r Reader) error {
	out := csv.NewWriter(w)
	_ = out.Write(csvColumns[:]) // the writer keeps its first error for Error
	err := eachLine(ctx, r, func(l *Line, e *Event, p Personal) error {
		_ = out.Write(csvRow(l, e, p))
		return out.Error()
	})
	if err != nil {
		return err
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("audit: writing the export: %w", err)
	}
	return nil
}

// eachLine calls fn with every line of r, its event, which is nil where the content was removed, and its personal part.
func eachLine(ctx context.Context, r Reader, fn func(*Line, *Event, Personal) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry, err := r.Next(ctx)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("audit: reading the log: %w", err)
		case entry.Line == nil:
			continue
		}
		l := entry.Line
		var event *Event
		var personal Personal
		if len(l.Content) > 0 {
			e, err := Parse(l.Content)
			if err != nil {
				return fmt.Errorf("%w: content of line %d", ErrFormat, l.Seq)
			}
			event = &e
		}
		if len(l.Personal) > 0 {
			if personal, err = ParsePersonal(l.Personal); err != nil {
				return fmt.Errorf("%w: personal part of line %d", ErrFormat, l.Seq)
			}
		}
		if err := fn(l, event, personal); err != nil {
			return err
		}
	}
}

func csvRow(l *Line, e *Event, p Personal) []string {
	row := make([]string, 0, len(csvColumns))
	if e == nil {
		row = append(row, strconv.FormatInt(l.Seq, 10))
		row = append(row, make([]string, len(csvColumns)-2)...)
		return append(row, l.Leaf.String())
	}
	row = append(row, strconv.FormatInt(l.Seq, 10), isoTime(e.Time), string(e.Action), string(e.Outcome), e.Reason,
		e.Actor.Kind, e.Actor.ID, p.ActorLabel, e.Actor.Auth, e.Actor.Credential, e.Actor.Behalf,
		e.Target.Kind, e.Target.ID, e.Agent, p.AgentLabel, e.Tool, p.ToolLabel, e.Grant.ID, e.Credential.ID, some(e.Credential.Revision),
		e.From, e.To, some(e.Count), some(e.Span), e.Ticket, e.Request, e.ClientRequest, e.Trace, e.Node, e.Software, p.Address, p.UserAgent,
		p.Text, compact(e.Details), compact(p.Extra), l.Leaf.String())
	for i, cell := range row[2 : len(row)-1] {
		row[2+i] = inert(cell)
	}
	return row
}

// inert keeps a spreadsheet from taking text for a formula.
func inert(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) ||
		strings.HasPrefix(cell, "＝") || strings.HasPrefix(cell, "＋") || strings.HasPrefix(cell, "－") || strings.HasPrefix(cell, "＠") {
		return "'" + cell
	}
	return cell
}

func some(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// compact is a map as JSON, or empty.
func compact(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(errors.Join(errors.New("audit: strings that can't be JSON"), err)) // they were read from it
	}
	return string(text)
}

func isoTime(us int64) string { return time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000000Z") }
