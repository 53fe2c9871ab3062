package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type retentionCommands struct {
	Show retentionShow `cmd:"" help:"Show for how long the log keeps what it holds, and what was removed."`
	Plan retentionPlan `cmd:"" help:"Show what a policy would remove now."`
	Set  retentionSet  `cmd:"" help:"Set for how long the log keeps what it holds."`

	System retentionSystem `cmd:"" help:"Show or set, in the database, for how long the installation's own log keeps addresses and the like."`
}

type holdCommands struct {
	List  holdList  `cmd:"" help:"List legal holds."`
	Place holdPlace `cmd:"" help:"Place a legal hold: what falls under it is neither removed nor erased."`
	Lift  holdLift  `cmd:"" help:"End a legal hold."`
}

type retentionShow struct{ readFlags }

// Run shows the policy.
func (c *retentionShow) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	r, err := admin.Retention(ctx)
	if err != nil {
		return err
	}
	return s.retention(r, c.JSON)
}

func (s *session) retention(r client.Retention, asJSON bool) error {
	if asJSON {
		return s.emit(r)
	}
	if err := s.say("content is kept %s, personal parts %s", kept(r.ContentDays, "for ever"), kept(r.PersonalDays, "as long as the content")); err != nil {
		return err
	}
	if r.Removed+r.PersonalRemoved == 0 {
		return s.say("nothing was removed so far")
	}
	return s.say("removed: the content of %s, all below number %d, and %s of others; last at %s",
		plural(r.Removed, "event"), r.RemovedBelow, plural(r.PersonalRemoved, "personal part"), shortTime(r.RemovedAt))
}

func kept(days int64, always string) string {
	if days == 0 {
		return always
	}
	return plural(days, "day")
}

// policyFlags are a policy of retention.
type policyFlags struct {
	ContentDays  int64 `placeholder:"DAYS" help:"Days that events keep their content: 30 at least; 0: for ever."`
	PersonalDays int64 `placeholder:"DAYS" help:"Days that events keep labels, addresses and free text: at most as many; 0: as long as the content."`
}

type retentionPlan struct {
	readFlags
	policyFlags
}

// Run shows a plan.
func (c *retentionPlan) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	p, err := c.plan(ctx, s, admin)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(p)
	}
	return s.retentionPlan(s.stdout, p)
}

func (f policyFlags) plan(ctx context.Context, s *session, admin *client.Admin) (client.RetentionPlan, error) {
	defer s.progress("the server reads the log").end()
	return admin.PlanRetention(ctx, f.ContentDays, f.PersonalDays)
}

func (s *session) retentionPlan(to io.Writer, p client.RetentionPlan) error {
	text := "nothing would be removed now"
	if p.UpTo != nil {
		text = fmt.Sprintf("would remove the content of %s and %s of others, up to event %d of %s",
			plural(p.Content, "event"), plural(p.Personal, "personal part"), *p.UpTo, shortTime(p.UpToTime))
	}
	for _, stays := range []struct {
		n   int64
		why string
	}{
		{p.Deciding, "because access, or what is known of it, rests on them"}, {p.Held, "under a legal hold"}, {p.Unshipped, "until every sink of the server has them"},
	} {
		if stays.n > 0 {
			text += fmt.Sprintf("\nold enough, and kept %s: %s", stays.why, plural(stays.n, "event"))
		}
	}
	_, err := fmt.Fprintln(to, text)
	return err
}

type retentionSet struct {
	readFlags
	policyFlags
	Yes bool `short:"y" help:"Don't ask before setting it."`
}

// Run shows what the policy would remove, asks, and sets it.
func (c *retentionSet) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if !c.Yes {
		p, err := c.plan(ctx, s, admin)
		if err == nil {
			err = s.retentionPlan(s.stderr, p)
		}
		if err == nil {
			err = s.confirm("Set this policy? What it removes does not come back. Only yes does: ", "nothing was changed")
		}
		if err != nil {
			return err
		}
	}
	r, err := admin.SetRetention(ctx, c.ContentDays, c.PersonalDays)
	if err != nil {
		return err
	}
	return s.retention(r, c.JSON)
}

// confirm asks on the terminal; only yes goes on.
func (s *session) confirm(question, otherwise string) error {
	if _, asks := terminal(s.stdin); !asks {
		return usagef("nobody can be asked here: give --yes after looking at the plan")
	}
	if _, err := fmt.Fprint(s.stderr, question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(io.LimitReader(s.stdin, 100)).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("%s", otherwise)
	}
	return nil
}

type holdList struct{ readFlags }

// Run lists holds.
func (c *holdList) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	all, err := admin.Holds(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(all)
	}
	t := table{titles: []string{"ID", "ON", "PLACED", "BY", "REASON"}, wrap: true}
	for _, h := range all {
		t.add(h.ID, heldOn(h), shortTime(&h.PlacedAt), h.PlacedBy, h.Reason)
	}
	return t.print(s)
}

func heldOn(h client.Hold) string {
	if h.Of == nil {
		return h.Scope
	}
	return h.Scope + " " + *h.Of
}

type holdPlace struct {
	readFlags
	Scope  string `arg:"" enum:"organization,agent,tool,person" help:"What it is on: ${enum}."`
	Of     string `arg:"" optional:"" help:"The agent or tool, by name or id; the person, by label or id."`
	Reason string `required:"" help:"Why, for the log and the list."`
}

// Run places a hold.
func (c *holdPlace) Run(ctx context.Context, s *session) error {
	if (c.Scope == "organization") != (c.Of == "") {
		return usagef("a hold on an agent, a tool or a person names it, and one on the organization names nothing")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	var of named
	switch c.Scope {
	case "agent":
		of, err = findAgent(ctx, admin, c.Of)
	case "tool":
		of, err = findTool(ctx, admin, c.Of)
	case "person":
		of, err = findPerson(ctx, admin, c.Of)
	}
	if err != nil {
		return err
	}
	h, err := admin.PlaceHold(ctx, c.Scope, of.id, c.Reason)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(h)
	}
	return s.say("hold %s placed on %s", h.ID, clean(heldOn(h)))
}

// findPerson takes an id or the exact label of an administrator. One that was
// removed is in no list any more.
func findPerson(ctx context.Context, admin *client.Admin, ref string) (named, error) {
	who, err := findAdministrator(ctx, admin, ref)
	if err != nil {
		return who, fmt.Errorf("%w; one who was removed is named by id, see `agentkey audit list --action administrator.removed`", err)
	}
	return who, nil
}

type holdLift struct {
	serverFlags
	ID     string `arg:"" help:"The hold's id, as the list shows it."`
	Reason string `required:"" help:"Why, for the log."`
}

// Run lifts a hold.
func (c *holdLift) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if err := admin.LiftHold(ctx, c.ID, c.Reason); err != nil {
		return err
	}
	return s.say("lifted")
}

type auditErase struct {
	readFlags
	Person string `arg:"" help:"Whose personal parts go: an administrator's label or, after their removal, their id."`
	ID     bool   `name:"by-id" help:"PERSON is the id of an actor as events have it, of a host's own people too."`
	DryRun bool   `help:"Show what would be erased, and erase nothing."`
	Yes    bool   `short:"y" help:"Don't ask before erasing."`
}

// Run shows what would be erased, asks, and erases it.
func (c *auditErase) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	who := named{c.Person, c.Person}
	if !c.ID {
		if who, err = findPerson(ctx, admin, c.Person); err != nil {
			return err
		}
	}
	plan, err := c.plan(ctx, s, admin, who.id)
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.show(s, s.stdout, "would erase", plan)
	}
	if !c.Yes {
		if err := s.erasure(s.stderr, "would erase", plan); err != nil {
			return err
		}
		if err := s.confirm("Erase this? It does not come back. Only yes does: ", "nothing was erased"); err != nil {
			return err
		}
	}
	shown := s.progress("the server erases")
	done, err := admin.ErasePerson(ctx, who.id)
	shown.end()
	if err != nil {
		return err
	}
	return c.show(s, s.stdout, "erased", done)
}

func (c *auditErase) plan(ctx context.Context, s *session, admin *client.Admin, id string) (client.Erasure, error) {
	defer s.progress("the server reads the log").end()
	return admin.PlanErasure(ctx, id)
}

func (c *auditErase) show(s *session, to io.Writer, what string, e client.Erasure) error {
	if c.JSON {
		return s.emit(e)
	}
	return s.erasure(to, what, e)
}

func (s *session) erasure(to io.Writer, what string, e client.Erasure) error {
	text := fmt.Sprintf("%s the personal parts of %s, and the label in %s, %s, %s and %s",
		what, plural(e.Events, "event"), plural(e.Agents, "agent"), plural(e.Grants, "grant"), plural(e.Approvals, "approval"), plural(e.Records, "other record"))
	if e.Held > 0 {
		text += fmt.Sprintf("\nkept under a legal hold: %s", several(e.Held, "event or record", "events and records"))
	}
	if e.Administrator {
		text += "\nThe person still is an administrator: that label stays, and new events carry it. Remove them first."
	}
	text += "\nNot found are names in free text that others wrote, and whatever left this database: exports, shipped events, backups."
	_, err := fmt.Fprintln(to, text)
	return err
}

// retentionSystem is for the log of what belongs to no organization, which no
// administrator's token reaches.
type retentionSystem struct {
	databaseFlags
	encryptionFlags
	policyFlags
	Yes  bool `short:"y" help:"Set the policy; without this it is only shown what there is, and what this policy would remove."`
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run shows or sets the policy of the installation's own log, in the database.
func (c *retentionSystem) Run(ctx context.Context, s *session) (err error) {
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	in, err := openInstallation(ctx, s, at, c.encryptionFlags, agentkey.Config{Clock: s.options.Clock})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	policy := agentkey.RetentionPolicy{ContentDays: c.ContentDays, PersonalDays: c.PersonalDays}
	plan, err := in.manager.PlanRetention(ctx, operator(), policy)
	if err != nil {
		return err
	}
	now, err := in.manager.Retention(ctx, operator())
	if err == nil && c.Yes {
		now, err = in.manager.SetRetention(ctx, operator(), policy)
	}
	if err == nil {
		err = s.retention(shownRetention(now), c.JSON)
	}
	if err != nil || c.Yes || c.JSON {
		return err
	}
	return s.retentionPlan(s.stdout, shownPlan(plan))
}

func shownRetention(r agentkey.Retention) client.Retention {
	out := client.Retention{
		ContentDays: r.ContentDays, PersonalDays: r.PersonalDays, UpdatedAt: shownTime(r.UpdatedAt),
		Removed: r.Removed, PersonalRemoved: r.PersonalRemoved, RemovedBelow: r.RemovedBelow, RemovedAt: shownTime(r.RemovedAt),
	}
	if r.UpdatedBy != "" {
		out.UpdatedBy = &r.UpdatedBy
	}
	return out
}

func shownPlan(p agentkey.RetentionPlan) client.RetentionPlan {
	out := client.RetentionPlan{Content: p.Content, Personal: p.Personal, Deciding: p.Deciding, Held: p.Held, Unshipped: p.Unshipped}
	if p.UpTo >= 0 {
		out.UpTo, out.UpToTime = &p.UpTo, shownTime(p.UpToTime)
	}
	return out
}

// shownTime is a time in microseconds, nil for 0.
func shownTime(micros int64) *time.Time {
	if micros == 0 {
		return nil
	}
	t := time.UnixMicro(micros).UTC()
	return &t
}
