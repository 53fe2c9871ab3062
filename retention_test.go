package agentkey_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

const days = 24 * time.Hour

// life is an organization in which things happen at random.
type life struct {
	*agentkeytest.Kit
	t      *testing.T
	rand   *rand.Rand
	agents []agentkey.Agent
	keys   []agentkey.Caller
	tools  []agentkey.Tool
	holds  []string
	n      int
}

func newLife(t *testing.T, store storage.Store, seed uint64) *life {
	t.Helper()
	l := &life{t: t, rand: rand.New(rand.NewPCG(seed, 1)), Kit: agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })}
	for i := range 3 {
		agent, key := l.Agent(fmt.Sprint("bot ", i))
		l.agents, l.keys = append(l.agents, agent), append(l.keys, key)
		l.tools = append(l.tools, l.Tool(fmt.Sprint("tool ", i), fmt.Sprint("lin_api_test_", i)))
	}
	return l
}

func pick[T any](l *life, from []T) T { return from[l.rand.IntN(len(from))] }

// step does something; it may be refused.
func (l *life) step() {
	ctx, a := l.t.Context(), l.Owner
	agent, tool := l.rand.IntN(len(l.agents)), l.rand.IntN(len(l.tools))
	in := agentkey.AssignInput{Agent: l.agents[agent].ID, Tool: l.tools[tool].ID}
	l.n++
	var err error
	switch l.rand.IntN(16) {
	case 0, 1:
		_, err = l.Assign(ctx, a, in)
	case 2:
		in.MaxVends, in.Duration = 3, 5*days
		_, err = l.Assign(ctx, a, in)
	case 3, 4, 5:
		var v *agentkey.Vended
		if v, err = l.Vend(ctx, l.keys[agent], in.Tool); err == nil {
			v.Credential.Destroy()
		}
	case 6:
		_, err = l.Revoke(ctx, a, in.Agent, in.Tool)
	case 7, 8:
		var g agentkey.Grant
		if g, err = l.RequestAccess(ctx, l.keys[agent], agentkey.RequestInput{Tool: in.Tool, Reason: "to test"}); err == nil {
			if l.rand.IntN(2) == 0 {
				_, err = l.Approve(ctx, a, g.ID, agentkey.DecisionInput{})
			} else {
				_, err = l.Deny(ctx, a, g.ID, "no")
			}
		}
	case 9:
		if _, err = l.SuspendAgent(ctx, a, in.Agent); err == nil {
			_, err = l.ReactivateAgent(ctx, a, in.Agent)
		}
	case 10:
		secret := agentkey.NewSecret(fmt.Appendf(nil, "lin_api_test_%d", l.n))
		_, err = l.UpdateTool(ctx, a, in.Tool, agentkey.UpdateToolInput{Credential: secret})
	case 11:
		if _, err = l.DeleteTool(ctx, a, in.Tool); err == nil {
			l.tools[tool] = l.Tool(fmt.Sprint("new tool ", l.n), fmt.Sprint("lin_api_test_new_", l.n))
		}
	case 12:
		text := fmt.Sprint("Instructions ", l.n)
		_, err = l.UpdateTool(ctx, a, in.Tool, agentkey.UpdateToolInput{Instructions: &text})
	case 13:
		_, err = l.SuggestTool(ctx, l.keys[agent], agentkey.SuggestToolInput{Name: fmt.Sprint("wish ", l.n%4), Reason: "to test"})
	case 14:
		scope := pick(l, []agentkey.HoldInput{{Scope: agentkey.HoldAgent, ID: in.Agent}, {Scope: agentkey.HoldTool, ID: in.Tool}, {Scope: agentkey.HoldPerson, ID: a.ID}})
		scope.Reason = "a dispute"
		var h agentkey.Hold
		if h, err = l.PlaceHold(ctx, a, scope); err == nil {
			l.holds = append(l.holds, h.Key)
		}
	case 15:
		if len(l.holds) > 0 {
			err, l.holds = l.LiftHold(ctx, a, l.holds[0], "it is over"), l.holds[1:]
		}
	}
	if errors.Is(err, agentkey.ErrUnavailable) {
		l.t.Fatal(err)
	}
	l.Clock.Advance(time.Duration(l.rand.Int64N(int64(3 * days))))
}

// sound fails unless log and records agree, and the log is what was signed.
func (l *life) sound() agentkey.Reconciliation {
	l.t.Helper()
	r, err := l.Reconcile(context.Background(), l.Owner)
	noErr(l.t, err)
	if !r.OK() {
		l.t.Fatalf("after %d steps: %+v", l.n, r.Findings)
	}
	report, err := l.Verify(context.Background(), l.Owner)
	noErr(l.t, err)
	if !report.OK() {
		l.t.Fatalf("after %d steps: %+v", l.n, report.Findings)
	}
	return r
}

func (l *life) retain() {
	l.t.Helper()
	noErr(l.t, l.Sweep(context.Background()))
	noErr(l.t, l.Retain(context.Background()))
}

// Whatever happened, and whatever was removed of what is known about it, a replay
// finds nothing where nothing was done, and every old row that is put back.
func TestRetentionKeepsReplaySound(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(2), 60
	if os.Getenv("AGENTKEY_PROVE") != "" {
		seeds, steps = 40, 300
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			path := filepath.Join(t.TempDir(), "agentkey.db")
			store, err := bunstore.OpenSQLite(path)
			is.NoErr(err)
			t.Cleanup(func() { _ = store.Close() })
			is.NoErr(store.Migrate(t.Context()))
			l := newLife(t, store, seed)
			raw := openRaw(t, path)
			_, err = l.SetRetention(t.Context(), l.Owner, agentkey.RetentionPolicy{ContentDays: 30, PersonalDays: 7})
			is.NoErr(err)
			for i := range steps {
				l.step()
				if i == 25 {
					snapshot(t, raw, "old")
				}
				if i%30 == 29 {
					l.sound()
					l.retain()
					l.sound()
				}
			}
			got, err := l.Retention(t.Context(), l.Owner)
			is.NoErr(err)
			is.True(got.Removed > 0)
			report, err := l.Verify(t.Context(), l.Owner)
			is.NoErr(err)
			is.Equal(report.HashVerified, got.Removed)
			is.Equal(report.ContentVerified+report.HashVerified, report.Events)
			snapshot(t, raw, "present")
			found := 0
			for _, table := range revised {
				found += l.putBack(raw, table)
			}
			is.True(found > 0)
			l.sound()
		})
	}
}

// revised are the tables whose rows have revisions that the log knows.
var revised = []string{"agents", "keys", "tools", "credentials", "grants", "records"}

func snapshot(t *testing.T, raw *sql.DB, name string) {
	t.Helper()
	for _, table := range revised {
		execRaw(t, raw, fmt.Sprintf("CREATE TABLE %s_%s AS SELECT * FROM agentkey_%s", name, table, table))
	}
}

// putBack puts every old row of a table back, one at a time, and wants each found.
func (l *life) putBack(raw *sql.DB, table string) int {
	l.t.Helper()
	key := "o.organization = p.organization AND o.id = p.id"
	if table == "records" {
		key += " AND o.kind = p.kind AND p.kind NOT IN ('turn', 'log_tile', 'audit_cursor')"
	}
	rows, err := raw.Query(fmt.Sprintf("SELECT o.rowid, p.rowid FROM old_%s AS o JOIN present_%s AS p ON %s WHERE o.revision < p.revision", table, table, key))
	noErr(l.t, err)
	var pairs [][2]int64
	for rows.Next() {
		var p [2]int64
		noErr(l.t, rows.Scan(&p[0], &p[1]))
		pairs = append(pairs, p)
	}
	noErr(l.t, errors.Join(rows.Err(), rows.Close()))
	for _, p := range pairs[:min(len(pairs), 3)] {
		l.replace(raw, table, "old", p[0])
		r, err := l.Reconcile(context.Background(), asHost(l.Owner))
		if err == nil && r.OK() {
			l.t.Errorf("an old row of %s was put back, and nobody noticed", table)
		}
		l.replace(raw, table, "present", p[1])
	}
	return len(pairs)
}

func (l *life) replace(raw *sql.DB, table, from string, row int64) {
	l.t.Helper()
	var columns []string
	rows, err := raw.Query("SELECT name FROM pragma_table_info(?)", "agentkey_"+table)
	noErr(l.t, err)
	for rows.Next() {
		var name string
		noErr(l.t, rows.Scan(&name))
		columns = append(columns, name)
	}
	noErr(l.t, errors.Join(rows.Err(), rows.Close()))
	list := strings.Join(columns, ", ")
	key := "id = (SELECT id FROM %[1]s WHERE rowid = %[2]d) AND organization = (SELECT organization FROM %[1]s WHERE rowid = %[2]d)"
	if table == "records" {
		key += " AND kind = (SELECT kind FROM %[1]s WHERE rowid = %[2]d)"
	}
	source := from + "_" + table
	execRaw(l.t, raw, fmt.Sprintf("UPDATE agentkey_%s SET (%s) = (SELECT %s FROM %s WHERE rowid = %d) WHERE ", table, list, list, source, row)+fmt.Sprintf(key, source, row))
}

// The policy, its plan and what it comes to.
func TestRetention(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		ctx := t.Context()
		clock := agentkeytest.NewClock(time.Now()) // Postgres has one of its own
		kit := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Clock = open(t), clock.Now })
		bot, key := kit.Agent("bot")
		tool := kit.Tool("Linear", "lin_api_test_1")
		kit.Allow(bot, tool)
		for range 5 {
			v, err := kit.Vend(ctx, key, tool.ID)
			is.NoErr(err)
			v.Credential.Destroy()
		}
		recordMany(t, kit.Manager, kit.Owner, 300)
		clock.Advance(20 * days)
		policy := agentkey.RetentionPolicy{ContentDays: 30, PersonalDays: 10}
		plan, err := kit.PlanRetention(ctx, kit.Owner, policy)
		is.NoErr(err)
		is.Equal(plan.Content, int64(0))
		is.True(plan.Personal > 300)
		clock.Advance(20 * days)
		plan, err = kit.PlanRetention(ctx, kit.Owner, policy)
		is.NoErr(err)
		is.Equal(plan.Content, int64(304)) // all but the last vend
		is.True(plan.Deciding > 0)
		is.NoErr(kit.Retain(ctx)) // off by default
		_, err = kit.SetRetention(ctx, kit.Owner, policy)
		is.NoErr(err)
		is.NoErr(kit.Retain(ctx))
		got, err := kit.Retention(ctx, kit.Owner)
		is.NoErr(err)
		is.Equal(got.Removed, int64(304))
		is.Equal(got.PersonalRemoved, plan.Personal)
		is.Equal(got.RemovedBelow, plan.UpTo+1)
		again, err := kit.PlanRetention(ctx, kit.Owner, policy)
		is.NoErr(err)
		is.Equal(again.Content+again.Personal, int64(0))

		report, err := kit.Verify(ctx, kit.Owner)
		is.NoErr(err)
		is.True(report.OK())
		is.Equal(report.HashVerified, int64(304))
		r, err := kit.Reconcile(ctx, kit.Owner)
		is.NoErr(err)
		is.True(r.OK())
		page, err := kit.Events(ctx, kit.Owner, agentkey.EventsInput{Filter: audit.Filter{Agent: bot.ID, Action: audit.ActionCredentialVended}})
		is.NoErr(err)
		is.Equal(len(page.Events), 1)
		receipt, err := kit.InclusionProof(ctx, kit.Owner, page.Events[0].Seq-1, 0) // of a vend whose content is gone
		is.NoErr(err)
		verifiers, err := audit.NewVerifiers(kit.PublicKeys()...)
		is.NoErr(err)
		_, err = receipt.Verify(verifiers)
		is.NoErr(err)
		_, err = kit.AgentActivity(ctx, kit.Owner, bot.ID, agentkey.ActivityInput{})
		is.NoErr(err)
		revoked, err := kit.Revoke(ctx, kit.Owner, bot.ID, tool.ID)
		is.NoErr(err)
		is.True(revoked.RotateUpstream)

		var export bytes.Buffer
		is.NoErr(kit.Export(ctx, kit.Owner, &export))
		file, err := audit.NewExportReader(bytes.NewReader(export.Bytes()))
		is.NoErr(err)
		installation, organization, _, err := audit.ParseOrigin(file.Header().Origin)
		is.NoErr(err)
		offline, err := audit.Verify(ctx, audit.Log{
			Installation: installation, Organization: organization, Entries: file, Verifiers: verifiers, Recorded: true,
		})
		is.NoErr(err)
		is.True(offline.OK())
		is.Equal(offline.HashVerified, int64(304))
		is.NoErr(audit.ExportCSV(ctx, &bytes.Buffer{}, mustExport(t, export.Bytes())))
		is.NoErr(audit.ExportOCSF(ctx, &bytes.Buffer{}, "x", mustExport(t, export.Bytes())))
	})
}

func mustExport(t *testing.T, b []byte) *audit.ExportReader {
	t.Helper()
	r, err := audit.NewExportReader(bytes.NewReader(b))
	noErr(t, err)
	return r
}

// What nobody decided to remove is found missing, although a policy is in force.
func TestRemovedByHandIsFound(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	kit := agentkeytest.New(t)
	recordMany(t, kit.Manager, kit.Owner, 50)
	kit.Clock.Advance(40 * days)
	_, err := kit.SetRetention(ctx, kit.Owner, agentkey.RetentionPolicy{ContentDays: 30})
	is.NoErr(err)
	hold, err := kit.PlaceHold(ctx, kit.Owner, agentkey.HoldInput{Scope: agentkey.HoldOrganization, Reason: "a dispute"})
	is.NoErr(err)
	is.NoErr(kit.Retain(ctx))
	got, err := kit.Retention(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(got.Removed, int64(0))
	is.NoErr(kit.LiftHold(ctx, kit.Owner, hold.Key, "it is over"))
	is.NoErr(kit.Retain(ctx))
	got, err = kit.Retention(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(got.Removed, int64(50))
	listed, err := kit.Events(ctx, kit.Owner, agentkey.EventsInput{Limit: 500})
	is.NoErr(err)
	is.Equal(listed.Removed, int64(50)) // which the list does not show
	is.Equal(listed.RemovedBelow, got.RemovedBelow)
	// In this order: once content is missing that stands above everything removed, no count is needed to say so.
	for _, c := range []struct {
		seq  int64
		want string
	}{{0, "more content is missing than was removed"}, {got.RemovedBelow, "content is missing"}} {
		line := readLine(t, kit.Config.Storage, kit.Organization.ID, c.seq)
		is.True(len(line.Content) > 0)
		eraseByHand(t, kit.Config.Storage, kit.Organization.ID, c.seq)
		report, err := kit.Verify(ctx, kit.Owner)
		is.NoErr(err)
		is.True(slices.ContainsFunc(report.Findings, func(f audit.Finding) bool { return f.Problem == c.want }))
		r, err := kit.Reconcile(ctx, kit.Owner)
		is.NoErr(err)
		is.True(!r.OK())
	}
}

func readLine(t *testing.T, store storage.Store, organization string, seq int64) (l audit.Line) {
	t.Helper()
	noErr(t, store.View(t.Context(), organization, func(ctx context.Context, tx storage.ReadTx) error {
		lines, err := tx.Lines(ctx, seq, 1)
		if err == nil {
			l = lines[0]
		}
		return err
	}))
	return l
}

func eraseByHand(t *testing.T, store storage.Store, organization string, seq int64) {
	t.Helper()
	noErr(t, store.Update(t.Context(), organization, func(ctx context.Context, tx storage.Tx) error {
		return tx.Erase(ctx, []storage.Erasure{{Seq: seq, Content: true, Personal: true}})
	}))
}

// agrees fails unless log and records agree.
func (s *scene) agrees() {
	s.t.Helper()
	report, err := s.Verify(context.Background(), s.Owner)
	s.noErr(err)
	r, err := s.Reconcile(context.Background(), s.Owner)
	s.noErr(err)
	if !report.OK() || !r.OK() {
		s.t.Fatalf("%+v %+v", report.Findings, r.Findings)
	}
}

// A removal that is cut off anywhere goes on the next time, and its counts are
// right all the same.
func TestRetentionIsCutOff(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	prepare := func() (*scene, int64) {
		s := newScene(t)
		recordMany(t, s.Kit.Manager, s.Owner, 270)
		s.Clock.Advance(40 * days)
		policy := agentkey.RetentionPolicy{ContentDays: 30}
		_, err := s.SetRetention(t.Context(), s.Owner, policy)
		is.NoErr(err)
		plan, err := s.PlanRetention(t.Context(), s.Owner, policy)
		is.NoErr(err)
		return s, plan.Content
	}
	free, _ := prepare()
	free.faults.Arm(faultstore.Plan{})
	is.NoErr(free.Retain(t.Context()))
	cuts := 0
	for i, call := range free.faults.Calls() {
		if call != "Erase" && call != faultstore.Commit {
			continue
		}
		cuts++
		s, planned := prepare()
		s.faults.Arm(faultstore.Plan{At: i + 1, Kind: faultstore.Unavailable, Forever: true})
		is.True(s.Retain(t.Context()) != nil)
		s.faults.Disarm()
		s.agrees()
		is.NoErr(s.Retain(t.Context()))
		got, err := s.Retention(t.Context(), s.Owner)
		is.NoErr(err)
		is.Equal(got.Removed, planned)
		s.agrees()
	}
	is.True(cuts >= 4)
}

// meddled lets something happen before every so many views.
type meddled struct {
	storage.Store
	views  int
	meddle func()
}

func (s *meddled) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	if s.views++; s.meddle != nil && s.views%2 == 0 {
		s.meddle()
	}
	return s.Store.View(ctx, organization, fn)
}

// Whoever reads the log while content is removed under them finds nothing wrong.
func TestReadersMeetRetention(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	store := &meddled{Store: memstore.New()}
	kit := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	remover, err := agentkey.New(ctx, agentkey.Config{Storage: store.Store, Keys: kit.Config.Keys, Clock: kit.Clock.Now, Node: "remover"})
	is.NoErr(err)
	for range 5 {
		recordMany(t, kit.Manager, kit.Owner, 450)
		kit.Clock.Advance(days)
	}
	owner := asHost(kit.Owner)
	removals := 0
	_, err = kit.SetRetention(ctx, owner, agentkey.RetentionPolicy{ContentDays: 30})
	is.NoErr(err)
	kit.Clock.Advance(24 * days)
	store.meddle = func() { // a few days' events, between any two reads
		kit.Clock.Advance(days / 2)
		removals++
		noErr(t, remover.Retain(ctx))
	}
	report, err := kit.Verify(ctx, owner)
	is.NoErr(err)
	is.True(report.OK())
	r, err := kit.Reconcile(ctx, owner)
	is.NoErr(err)
	is.True(r.OK())
	var export bytes.Buffer
	is.NoErr(kit.Export(ctx, owner, &export))
	file := mustExport(t, export.Bytes())
	verifiers, err := audit.NewVerifiers(kit.PublicKeys()...)
	is.NoErr(err)
	installation, organization, _, err := audit.ParseOrigin(file.Header().Origin)
	is.NoErr(err)
	offline, err := audit.Verify(ctx, audit.Log{
		Installation: installation, Organization: organization, Entries: file, Verifiers: verifiers, Recorded: true,
	})
	is.NoErr(err)
	is.True(offline.OK())
	store.meddle = nil
	got, err := kit.Retention(ctx, owner)
	is.NoErr(err)
	is.True(got.Removed > 2000 && removals > 3)
}
