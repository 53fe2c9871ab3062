package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type auditTail struct {
	serverFlags
	sinkFlags `embed:"" envprefix:"AGENTKEY_TAIL_"`
	Follow    bool   `short:"f" help:"Go on with what comes, until interrupted; a sink or server that is down is tried again."`
	From      int64  `placeholder:"N" help:"Begin with the event of this number, where the cursor says nothing else. Default: the first."`
	Cursor    string `placeholder:"FILE" help:"Keep in this file how far it came: written after the sink has taken the events, read at the next start."`
}

// How often a log that has ended is looked at, and how pauses grow after failures.
const (
	tailInterval = 2 * time.Second
	tailPause    = time.Minute
)

// Run ships the log to a sink, or writes it to standard output.
func (c *auditTail) Run(ctx context.Context, s *session) error {
	if c.From < 0 {
		return usagef("--from must not be negative")
	}
	sinks, closeAll, err := c.open(s, envTailSink)
	if err != nil {
		return err
	}
	defer func() { _ = closeAll() }()
	if len(sinks) == 0 {
		c.Stdout = true
		if sinks, closeAll, err = c.open(s, envTailSink); err != nil {
			return err
		}
	}
	if len(sinks) != 1 {
		return usagef("a tail has one sink: a cursor says how far one of them came")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	t := &tailing{admin: admin, sink: sinks[0], cursor: c.Cursor, at: tailCursor{Next: c.From}}
	if err := t.load(); err != nil {
		return err
	}
	return t.run(ctx, s, c.Follow)
}

// tailing ships a log page by page.
type tailing struct {
	admin  *client.Admin
	sink   agentkey.SinkConfig
	cursor string
	at     tailCursor
}

// tailCursor is what a cursor file holds.
type tailCursor struct {
	Origin string `json:"origin"` // the log's, without its epoch
	Next   int64  `json:"next"`
}

const maxCursorFile = 4096

// load reads the cursor file, if there is one. One that is not whole is no reason
// to begin anew unasked, nor to pass anything over.
func (t *tailing) load() error {
	if t.cursor == "" {
		return nil
	}
	text, err := readSmall(t.cursor, "cursor file", maxCursorFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var at tailCursor
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&at) != nil || at.Origin == "" || at.Next < 0 || at.Next > audit.MaxInteger {
		return usagef("the cursor file is no cursor of audit tail, or not whole; remove it to begin with --from, where the sink may get events twice")
	}
	t.at = at
	return nil
}

func (t *tailing) save() error {
	if t.cursor == "" {
		return nil
	}
	return writeWhole(t.cursor, func(w io.Writer) error { return json.NewEncoder(w).Encode(t.at) })
}

func (t *tailing) run(ctx context.Context, s *session, follow bool) error {
	wait := time.Second
	for {
		more, err := t.page(ctx)
		switch {
		case ctx.Err() != nil && follow:
			return nil // interrupted: what the sink has is in the cursor
		case err != nil && (!follow || !passing(err)):
			return err
		case err != nil:
			s.complain(err)
			wait = min(2*wait, tailPause)
		case more:
			wait = time.Second
			continue
		case !follow:
			return nil
		default:
			wait = tailInterval
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// errTail is a log that is not what it must be.
var errTail = errors.New("what the server answered is not the log, or not the one that the cursor is for")

// passing says whether trying again may help.
func passing(err error) bool {
	var answered *client.Error
	var usage *usageError
	if errors.As(err, &answered) {
		return answered.Status == 429 || answered.Status >= 500
	}
	return !errors.As(err, &usage) && !errors.Is(err, errTail)
}

// page ships what comes next, and says whether there was something.
func (t *tailing) page(ctx context.Context) (more bool, err error) {
	text, err := t.admin.Tail(ctx, t.at.Next, t.sink.Personal)
	if err != nil || len(text) == 0 {
		return false, err
	}
	b := audit.Batch{}
	for line := range bytes.Lines(text) {
		whole, _ := bytes.CutSuffix(line, []byte("\n"))
		origin, l, err := audit.ParseShipped(whole)
		if err != nil || l.Seq != t.at.Next+int64(len(b.Lines)) || b.Origin != "" && origin != b.Origin {
			return false, errTail
		}
		if len(l.Content) > 0 && audit.LeafHash(l.Content) != l.Leaf {
			return false, fmt.Errorf("event %d is not what its leaf hash says: verify the log", l.Seq)
		}
		b.Origin, b.Lines = origin, append(b.Lines, l)
	}
	installation, organization, _, err := audit.ParseOrigin(b.Origin)
	log := installation + "/" + organization
	if err != nil || t.at.Origin != "" && t.at.Origin != log {
		return false, errTail
	}
	bounded, cancel := context.WithTimeout(ctx, t.sink.Timeout)
	defer cancel()
	if err := t.sink.Sink.Ship(bounded, b); err != nil {
		return false, err
	}
	t.at = tailCursor{Origin: log, Next: t.at.Next + int64(len(b.Lines))}
	return true, t.save()
}

type auditShipping struct{ readFlags }

// Run shows how far the server's sinks are.
func (c *auditShipping) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	all, err := admin.Shipping(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(all)
	}
	t := table{titles: []string{"SINK", "SHIPPED", "BEHIND", "LAST SHIPPED", "FAILURES"}}
	for _, one := range all {
		failures := fmt.Sprint(one.Failures)
		if one.Failure != nil {
			failures += ": " + *one.Failure
		}
		t.add(one.Name, fmt.Sprint(one.Shipped), fmt.Sprint(one.Behind), shortTime(one.ShippedAt), failures)
	}
	return t.print(s)
}

func shortTime(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
