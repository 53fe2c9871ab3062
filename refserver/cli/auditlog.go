package cli

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/files"
)

type auditCommands struct {
	List      auditList      `cmd:"" help:"List events, newest first."`
	Export    auditExport    `cmd:"" help:"Write the whole log, with the exact bytes that are signed."`
	Verify    auditVerify    `cmd:"" help:"Check every hash and signature of the log, on the server or of an exported file."`
	Reconcile auditReconcile `cmd:"" help:"Replay the log against the records that decide access."`

	Tail      auditTail         `cmd:"" help:"Ship the log from where it came to: to standard output, a file, syslog or HTTP."`
	Shipping  auditShipping     `cmd:"" help:"Show how far the server has shipped the log to its sinks."`
	Retention retentionCommands `cmd:"" help:"For how long the log keeps what it holds."`
	Hold      holdCommands      `cmd:"" help:"Legal holds."`
	Erase     auditErase        `cmd:"" name:"erase-person" help:"Erase what the log and records say about a person beyond their id."`

	AcceptRestore auditAcceptRestore `cmd:"" help:"Let an installation go on whose database was put back, and lock what went back."`

	Key           auditKey           `cmd:"" help:"Print the public keys that the log's signatures are checked with."`
	Checkpoint    auditCheckpoint    `cmd:"" help:"Fetch the log's newest signed head, to be kept elsewhere."`
	Prove         auditProve         `cmd:"" help:"Fetch a proof that an event is in the log, or that the log only grew."`
	Check         auditCheck         `cmd:"" help:"Check a proof or a signed head, without any server."`
	VerifyReceipt auditVerifyReceipt `cmd:"" help:"Check the receipt of a vend, without any server."`
}

// errFindings is a check that found something; what, was printed.
var errFindings = errors.New("the check found what must not be")

type auditList struct {
	readFlags
	Agent  string `help:"Only what concerns this agent: name or id."`
	Tool   string `help:"Only what concerns this tool: name, key or id."`
	Action string `placeholder:"grant.approved" help:"Only this action."`
	Actor  string `placeholder:"ID" help:"Only what this actor did."`
	From   moment `placeholder:"WHEN" help:"Not before: 2026-01-31, a time, or 8h for that long ago."`
	To     moment `placeholder:"WHEN" help:"Not after: 2026-01-31, a time, or 8h for that long ago."`
	Limit  int    `default:"100" help:"How many at most; 0 for all."`
}

// Run lists events.
func (c *auditList) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	q := client.EventQuery{Action: c.Action, Actor: c.Actor, From: c.From.past(s.options.Clock()), To: c.To.past(s.options.Clock())}
	if c.Limit > 0 {
		q.Limit = min(c.Limit, 500)
	}
	if c.Agent != "" {
		agent, err := findAgent(ctx, admin, c.Agent)
		if err != nil {
			return err
		}
		q.Agent = agent.id
	}
	if c.Tool != "" {
		tool, err := findTool(ctx, admin, c.Tool)
		if err != nil {
			return err
		}
		q.Tool = tool.id
	}
	titles := []string{"TIME", "ACTION", "OUTCOME", "ACTOR", "TARGET"}
	err = show(s, c.JSON, first(c.Limit, admin.Events(ctx, q)), titles, func(e client.Event) []string {
		actor, outcome := e.ActorLabel, e.Outcome
		if actor == "" {
			actor = e.ActorType + " " + e.ActorID
		}
		if e.PersonalRemoved {
			actor += " (label removed)"
		}
		if e.Reason != "" {
			outcome += " (" + e.Reason + ")"
		}
		return []string{e.CreatedAt.UTC().Format("2006-01-02 15:04:05.000Z"), e.Action, outcome, actor, e.TargetType + " " + e.TargetID}
	})
	if err != nil || c.JSON {
		return err
	}
	// Who may not read the policy is told nothing of it.
	if r, err := admin.Retention(ctx); err == nil && r.Removed > 0 {
		_, _ = fmt.Fprintf(s.stderr, "%s not listed: removed by retention, all below number %d\n", plural(r.Removed, "older event"), r.RemovedBelow)
	}
	return nil
}

// past reads a moment that looks back: a length of time is that long ago.
func (m moment) past(now time.Time) time.Time {
	switch {
	case !m.set || m.never:
		return time.Time{}
	case m.at.IsZero():
		return now.Add(-time.Duration(m.after))
	}
	return m.at
}

// first is the beginning of a list; n of 0 is all of it.
func first[T any](n int, items iter.Seq2[T, error]) iter.Seq2[T, error] {
	if n == 0 {
		return items
	}
	return func(yield func(T, error) bool) {
		left := n
		for item, err := range items {
			if left--; !yield(item, err) || left == 0 {
				return
			}
		}
	}
}

type auditExport struct {
	serverFlags
	Out    string `placeholder:"FILE" help:"Write to this file, once it is complete. Default: standard output."`
	Format string `enum:"jsonl,csv,ocsf" default:"jsonl" help:"jsonl holds the exact bytes and can be verified; csv and ocsf are views of them."`
}

// Run exports the log.
func (c *auditExport) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	var passed counter
	if c.Out == "" {
		if _, ok := terminal(s.stdout); ok {
			return c.export(ctx, admin, s.stdout) // which shows how far it is
		}
	}
	shown := s.progress("exporting the log")
	defer shown.end()
	shown.follow(passed.megabytes)
	if c.Out == "" {
		return c.export(ctx, admin, io.MultiWriter(s.stdout, &passed))
	}
	return writeWhole(c.Out, func(w io.Writer) error { return c.export(ctx, admin, io.MultiWriter(w, &passed)) })
}

// export writes the log in the format that was asked for. The views are made
// here, of the exact bytes as they arrive.
func (c *auditExport) export(ctx context.Context, admin *client.Admin, w io.Writer) error {
	if c.Format == "jsonl" {
		return admin.Export(ctx, w)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		err := admin.Export(ctx, out)
		exported <- err
		_ = out.CloseWithError(err) // nil is the end of the file
	}()
	err := c.view(ctx, in, w)
	if err != nil {
		cancel()
		_ = in.CloseWithError(err)
	}
	if cause := <-exported; cause != nil && (err == nil || ctx.Err() == nil) {
		return cause
	}
	return err
}

func (c *auditExport) view(ctx context.Context, in io.Reader, w io.Writer) error {
	log, err := audit.NewExportReader(in)
	if err != nil {
		return err
	}
	if c.Format == "csv" {
		return audit.ExportCSV(ctx, w, log)
	}
	return audit.ExportOCSF(ctx, w, log.Header().Origin, log)
}

// writeWhole writes a file that takes its name only when it is complete and on
// the disk, readable by its owner only.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".agentkey-*") // mode 0600
	if err != nil {
		return fmt.Errorf("make the file: %w", cause(err))
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails once it has its name
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	err = os.Rename(f.Name(), path)
	if err == nil {
		err = files.SyncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("name the file: %w", files.Cause(err))
	}
	return nil
}

type auditVerify struct {
	readFlags
	File      string   `arg:"" optional:"" help:"Check this exported log, without any server; - is standard input. It may be compressed by gzip."`
	PublicKey []string `placeholder:"KEY" sep:"none" help:"The log's public key as serve printed it, for FILE; repeat it for former keys."`
	Against   []string `placeholder:"FILE" sep:"none" help:"A signed head that you kept: the log of FILE must extend it. Repeat it for more."`
}

// Run verifies the log.
func (c *auditVerify) Run(ctx context.Context, s *session) error {
	if (c.File == "") != (len(c.PublicKey) == 0) {
		return usagef("FILE and --public-key belong together: the key must come from elsewhere than the file")
	}
	if c.File == "" && len(c.Against) > 0 {
		return usagef("--against needs FILE: the server's own log is checked against a kept head by audit prove --from and audit check")
	}
	v, err := c.verify(ctx, s)
	if err != nil {
		return err
	}
	if c.JSON {
		err = s.emit(v)
	} else {
		err = s.verified(v)
	}
	if err == nil && !v.OK {
		err = errFindings
	}
	return err
}

func (c *auditVerify) verify(ctx context.Context, s *session) (client.Verification, error) {
	if c.File != "" {
		return s.verifyFile(ctx, c.File, c.PublicKey, c.Against)
	}
	admin, err := c.connect(s)
	if err != nil {
		return client.Verification{}, err
	}
	defer s.progress("the server verifies the log").end()
	return admin.Verify(ctx)
}

// verified shows what a verification found.
func (s *session) verified(v client.Verification) error {
	if v.OK {
		if err := s.say("ok, %s", plural(v.Events, "event")); err != nil {
			return err
		}
		if v.Origin != "" { // the keys are those of all organizations' logs
			if err := s.say("of the log %s", clean(v.Origin)); err != nil {
				return err
			}
		}
		if v.HashVerified+v.PersonalErased == 0 {
			return nil
		}
		return s.say("%d content-verified, %d hash-verified because their content was removed; the personal part of %d was erased",
			v.ContentVerified, v.HashVerified, v.PersonalErased)
	}
	for _, f := range v.Findings {
		if err := s.say("%s: %s", spanOf(f.From, f.To), clean(f.Problem)); err != nil {
			return err
		}
	}
	return s.say("NOT ok, %s", plural(v.Events, "event"))
}

// spanOf names the events that a finding is about.
func spanOf(from, to int64) string {
	if to != from {
		return fmt.Sprintf("events %d to %d", from, to)
	}
	return fmt.Sprintf("event %d", from)
}

// exported opens an exported log, and says how long it is; 0 when that is not known.
func (s *session) exported(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(s.stdin), 0, nil
	}
	f, err := openNamed(path, "exported log")
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return f, 0, nil
	}
	return f, info.Size(), nil
}

// unpacked reads what gzip has compressed, and anything else as it is.
func unpacked(in io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(in)
	magic, err := buffered.Peek(2)
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case string(magic) == "\x1f\x8b":
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

// verifyFile checks an exported log against keys that the caller trusts.
func (s *session) verifyFile(ctx context.Context, path string, keys, against []string) (client.Verification, error) {
	verifiers, err := verifiersOf(keys)
	if err != nil {
		return client.Verification{}, err
	}
	var kept [][]byte
	for _, name := range against {
		signed, err := readSmall(name, "kept head", audit.MaxCheckpoint)
		if err != nil {
			return client.Verification{}, err
		}
		kept = append(kept, signed)
	}
	in, size, err := s.exported(path)
	if err != nil {
		return client.Verification{}, err
	}
	defer func() { _ = in.Close() }()
	var passed counter
	shown := s.progress("verifying the exported log")
	defer shown.end()
	shown.follow(func() string { return passed.of(size) })
	plain, err := unpacked(io.TeeReader(in, &passed))
	if err != nil {
		return client.Verification{}, fmt.Errorf("exported log: %w", cause(err))
	}
	export, err := audit.NewExportReader(plain)
	if err != nil {
		return client.Verification{}, fmt.Errorf("exported log: %w", cause(err))
	}
	header := export.Header()
	installation, organization, _, err := audit.ParseOrigin(header.Origin)
	if err != nil {
		return client.Verification{}, fmt.Errorf("exported log: %w", err)
	}
	report, err := audit.Verify(ctx, audit.Log{
		Installation: installation, Organization: organization, Entries: export, Verifiers: verifiers, Recorded: true,
		Elsewhere: kept,
	})
	if err != nil {
		return client.Verification{}, fmt.Errorf("exported log: %w", cause(err))
	}
	v := client.Verification{
		OK: report.OK(), Events: report.Events, Findings: []client.Finding{},
		Origin: header.Origin, ContentVerified: report.ContentVerified, HashVerified: report.HashVerified, PersonalErased: report.PersonalErased,
	}
	for _, f := range report.Findings {
		v.Findings = append(v.Findings, client.Finding{From: f.From, To: f.To, Problem: f.Problem})
	}
	return v, nil
}

type auditReconcile struct{ readFlags }

// Run reconciles log and records.
func (c *auditReconcile) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	shown := s.progress("the server replays the log")
	r, err := admin.Reconcile(ctx)
	shown.end()
	if err != nil {
		return err
	}
	if c.JSON {
		err = s.emit(r)
	} else {
		err = s.reconciled(r)
	}
	if err == nil && !r.OK {
		err = errFindings
	}
	return err
}

// reconciled shows what a replay found.
func (s *session) reconciled(r client.Reconciliation) error {
	if r.OK {
		return s.say("ok, %s agree with %s", plural(r.Records, "record"), plural(r.Events, "event"))
	}
	for _, f := range r.Findings {
		if err := s.say("%s %s: %s", clean(f.Kind), clean(f.ID), clean(f.Problem)); err != nil {
			return err
		}
	}
	return s.say("NOT ok, %s", plural(int64(len(r.Findings)), "finding"))
}
