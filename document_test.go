package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"
	"pgregory.net/rapid"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// exported is the catalog as a document.
func exported(t testing.TB, k *agentkeytest.Kit) agentkey.CatalogDocument {
	t.Helper()
	doc, err := k.ExportCatalog(t.Context(), k.Owner)
	noErr(t, err)
	return doc
}

// lines tells a plan, one line for each item.
func lines(p agentkey.ImportPlan) []string {
	var out []string
	for _, i := range p.Items {
		line := fmt.Sprintf("%s %d %s", i.Action, i.Entry, i.Key)
		if i.Kept {
			line += " kept"
		}
		for _, c := range i.Changes {
			line += " ~" + c
		}
		for _, e := range i.Errors {
			line += " !" + e.Field + " " + e.Message
		}
		if g := i.Grants; g.ApprovedEnd+g.PendingEnd+g.PendingMore > 0 {
			line += fmt.Sprintf(" ends %d+%d more %d of", g.ApprovedEnd, g.PendingEnd, g.PendingMore)
			for _, l := range g.Items {
				line += " " + l.AgentName
			}
		}
		out = append(out, line)
	}
	return out
}

func entry(key, name string) agentkey.CatalogEntry {
	return agentkey.CatalogEntry{Key: key, Name: name, AuthType: "api_key", Mode: storage.PerAgent}
}

func document(tools ...agentkey.CatalogEntry) agentkey.CatalogDocument {
	return agentkey.CatalogDocument{Version: agentkey.CatalogVersion, Tools: tools}
}

func TestExportHoldsTheCatalogByKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	_, err := k.AddTool(t.Context(), k.Owner, agentkey.AddToolInput{
		Name: "Zeta", Description: "the last", URL: "zeta.example.com", AuthType: "oauth_token", Mode: storage.PerAgent,
		RequiredApprovals: 2, Instructions: "first\nsecond",
	})
	is.NoErr(err)
	k.Tool("Alpha", "alp_api_test_1")
	bare := k.Tool("Bare", "bar_api_test_1")
	_, err = k.RemoveCredential(t.Context(), k.Owner, bare.ID)
	is.NoErr(err)

	is.Equal(exported(t, k), document(
		agentkey.CatalogEntry{Key: "alpha", Name: "Alpha", AuthType: "api_key", Mode: storage.Shared, RequiredApprovals: 1, CredentialConfigured: true},
		agentkey.CatalogEntry{Key: "bare", Name: "Bare", AuthType: "api_key", Mode: storage.Shared, RequiredApprovals: 1},
		agentkey.CatalogEntry{
			Key: "zeta", Name: "Zeta", Description: "the last", URL: "https://zeta.example.com/", AuthType: "oauth_token", Mode: storage.PerAgent,
			RequiredApprovals: 2, Instructions: "first\nsecond",
		},
	))
}

func TestPlanSaysWhatAnImportWouldDo(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	one, _ := k.Agent("one")
	_, asking := k.Agent("two")
	linear, gone, more := k.Tool("Linear", "lin_api_test_1"), k.Tool("Gone", "gon_api_test_1"), k.Tool("More", "mor_api_test_1")
	k.Allow(one, gone)
	k.Allow(one, linear)
	for _, tool := range []agentkey.Tool{gone, more, linear} {
		_, err := k.RequestAccess(ctx, asking, agentkey.RequestInput{Tool: tool.ID, Reason: "to test"})
		is.NoErr(err)
	}
	k.Tool("Same", "sam_api_test_1")

	doc := exported(t, k) // gone, linear, more, same
	doc.Tools = slices.Delete(doc.Tools, 0, 1)
	doc.Tools[0].Name, doc.Tools[0].URL = "Renamed", "linear.app"
	doc.Tools[1].RequiredApprovals, doc.Tools[1].Instructions = 3, "use it well"
	doc.Tools = append(doc.Tools, entry("fresh", "Fresh"))
	want := []string{
		"update 1 linear ~name ~url",
		"update 2 more ~requiredApprovals ~instructions ends 0+0 more 1 of two",
		"unchanged 3 same",
		"create 4 fresh",
	}
	before := exported(t, k)

	p, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(lines(p), append(slices.Clone(want), "remove 0 gone kept"))
	is.Equal(p.Count, agentkey.ImportCount{Create: 1, Update: 2, Unchanged: 1, Remove: 1})

	pruning, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	is.Equal(lines(pruning), append(want, "remove 0 gone ends 1+1 more 0 of two one"))
	is.True(pruning.Digest != p.Digest)
	is.Equal(exported(t, k), before) // a plan does nothing
}

func TestImportDoesWhatTheAPIDoes(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	s := newStage(t)
	double := s.Tool("Payroll", "pay_api_test_1")

	doc := exported(t, s.Kit) // github, linear, payroll
	is.Equal(len(doc.Tools), 3)
	doc.Tools = slices.Delete(doc.Tools, 1, 2) // linear, which bot has
	doc.Tools[1].Name = "Payroll 2"
	fresh := agentkey.CatalogEntry{
		Key: "fresh", Name: "Fresh", Description: "new", URL: "fresh.example.com", AuthType: "bot_token", Mode: storage.Shared,
		RequiredApprovals: 2, Instructions: "be careful",
	}
	doc.Tools = append(doc.Tools, fresh)

	// What the API writes for each of the three, and then for the import.
	deleted, err := newStage(t).recordedWith(func(s *stage) error { return second(s.DeleteTool(ctx, s.boss(), s.tool.ID)) })
	is.NoErr(err)
	updated, err := newStage(t).recordedWith(func(s *stage) error {
		name := "Linear 2"
		return second(s.UpdateTool(ctx, s.boss(), s.tool.ID, agentkey.UpdateToolInput{Name: &name}))
	})
	is.NoErr(err)
	added, err := newStage(t).recordedWith(func(s *stage) error {
		return second(s.AddTool(ctx, s.boss(), agentkey.AddToolInput{
			Name: "Fresh", Description: "new", URL: "fresh.example.com", AuthType: "bot_token", Mode: storage.PerAgent, Instructions: "be careful",
		}))
	})
	is.NoErr(err)
	got, err := s.recorded(func() error {
		return second(s.ImportCatalog(ctx, s.boss(), doc, agentkey.ImportOptions{Prune: true}))
	})
	is.NoErr(err)
	last := "config.import_applied human tool_catalog +actor [] created= kept= removed= unchanged= updated="
	is.Equal(got, slices.Concat(deleted, updated, added, []string{last}))

	// What stands there is what the document says.
	fresh.URL = "https://fresh.example.com/"
	doc.Tools[2] = fresh
	slices.SortFunc(doc.Tools, func(a, b agentkey.CatalogEntry) int { return strings.Compare(a.Key, b.Key) })
	is.Equal(exported(t, s.Kit), doc)
	is.True(errors.Is(second(s.Manager.Tool(ctx, s.boss(), s.tool.ID)), agentkey.ErrNotFound))
	is.True(errors.Is(second(s.Vend(ctx, s.trusted(), s.tool.ID)), agentkey.ErrNoTool))
	v, err := s.Manager.Tool(ctx, s.boss(), double.ID)
	is.NoErr(err)
	is.True(v.Credential.Present) // an update keeps the credential
	is.Equal(v.Name, "Payroll 2")
	agreement, err := s.Reconcile(ctx, s.boss())
	is.NoErr(err)
	is.True(agreement.OK())
}

// recordedWith is recorded for a stage of its own.
func (s *stage) recordedWith(call func(s *stage) error) ([]string, error) {
	return s.recorded(func() error { return call(s) })
}

func TestImportedSharedToolNeedsACredential(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	bot, caller := k.Agent("bot")
	e := entry("linear", "Linear")
	e.Mode = storage.Shared
	_, err := k.ImportCatalog(ctx, k.Owner, document(e), agentkey.ImportOptions{})
	is.NoErr(err)
	tools, err := k.Tools(ctx, k.Owner, agentkey.ListInput{})
	is.NoErr(err)
	is.Equal(tools[0].Health, agentkey.ActionNeeded)
	k.Allow(bot, tools[0].Tool)
	_, err = k.Vend(ctx, caller, tools[0].ID)
	is.True(errors.Is(err, agentkey.ErrNoCredential))
	_, err = k.UpdateTool(ctx, k.Owner, tools[0].ID, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("lin_api_test_2"))})
	is.NoErr(err)
	v, err := k.Vend(ctx, caller, tools[0].ID)
	is.NoErr(err)
	v.Credential.Destroy()
}

func TestAbsentApprovalsLeaveThemAsTheyAre(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	e := entry("payroll", "Payroll")
	e.RequiredApprovals = 2
	_, err := k.ImportCatalog(t.Context(), k.Owner, document(e), agentkey.ImportOptions{})
	is.NoErr(err)
	e.RequiredApprovals = 0
	p, err := k.ImportCatalog(t.Context(), k.Owner, document(e, entry("other", "Other")), agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(lines(p), []string{"unchanged 1 payroll", "create 2 other"})
	doc := exported(t, k)
	is.Equal(doc.Tools[0].RequiredApprovals, int64(1)) // other
	is.Equal(doc.Tools[1].RequiredApprovals, int64(2))
}

func TestInvalidEntriesAreAllNamedAndNothingIsDone(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	k.Tool("Linear", "lin_api_test_1")
	before := exported(t, k)
	linear := before.Tools[0]
	linear.AuthType, linear.Mode = "other", storage.PerAgent
	long := entry("long", "Long")
	long.URL = "example.com/" + strings.Repeat("x", 489)
	address := entry("address", "Address")
	address.URL = "ftp://example.com"
	wide := entry("wide", "a\u202eb")
	wide.Instructions = strings.Repeat("x", 4001)
	unread := agentkey.CatalogEntry{Problems: []agentkey.FieldError{{Field: "name", Message: "must be a string"}}}
	doc := document(
		entry("good", "Good"), entry("Bad Key", "B"), linear, entry("twice", "Twice"), entry("twice", "Again"), long, address, wide, unread, entry("", "None"),
	)
	want := []string{
		"create 1 good",
		"invalid 2 item-2 !key must be lower-case letters and digits, in parts joined by single hyphens !name must have at least 2 characters",
		"invalid 3 linear ~authType ~credentialMode !authType can't be changed: it is api_key; delete the tool and add it again, or give it another key " +
			"!credentialMode can't be changed: it is shared; delete the tool and add it again, or give it another key",
		"create 4 twice",
		"invalid 5 item-5 !key is that of entry 4 already",
		"invalid 6 long !url must have at most 500 characters",
		"invalid 7 address !url must be an http or https URL or a host name",
		"invalid 8 item-8 !name must not hold control characters or characters that change the direction of text !instructions must have at most 4000 characters",
		"invalid 9 item-9 !name must be a string",
		"invalid 10 item-10 !key is required",
	}
	p, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(lines(p), want)
	for _, i := range p.Items {
		is.True(i.Action != agentkey.ImportInvalid || i.Name == "") // what was rejected is not repeated
	}

	_, err = k.ImportCatalog(ctx, k.Owner, doc, agentkey.ImportOptions{})
	var bad *agentkey.ValidationError
	is.True(errors.As(err, &bad))
	is.Equal(len(bad.Fields), 11)
	is.Equal(bad.Fields[0].Field, "item-2.key")
	is.Equal(bad.Fields[2].Field, "item-3.authType")
	is.Equal(exported(t, k), before)
}

func TestDocumentsThatAreNone(t *testing.T) {
	t.Parallel()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.CatalogLimit = 2 })
	for name, doc := range map[string]agentkey.CatalogDocument{
		"version":  {Version: 2},
		"no entry": {},
		"too long": document(entry("a", "Aa"), entry("b", "Bb"), entry("c", "Cc")),
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.True(errors.Is(second(k.PlanImport(t.Context(), k.Owner, doc, agentkey.ImportOptions{})), agentkey.ErrInvalid))
			is.True(errors.Is(second(k.ImportCatalog(t.Context(), k.Owner, doc, agentkey.ImportOptions{})), agentkey.ErrInvalid))
		})
	}
}

func TestCatalogLimitHoldsInAPlan(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.CatalogLimit = 2 })
	k.Tool("One", "one_api_test_1")
	doc := document(entry("two", "Two"), entry("three", "Three"))
	p, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(lines(p), []string{
		"create 1 two", "invalid 2 three !key is that of a new tool, and the catalog has room for 2 tools only", "remove 0 one kept",
	})
	p, err = k.ImportCatalog(ctx, k.Owner, doc, agentkey.ImportOptions{Prune: true}) // makes room
	is.NoErr(err)
	is.Equal(lines(p), []string{"create 1 two", "create 2 three", "remove 0 one"})
	is.Equal(len(exported(t, k).Tools), 2)
}

func TestPlanIsOfOneDocumentAndOneSetOfOptions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	k.Tool("Linear", "lin_api_test_1")
	doc := document(entry("fresh", "Fresh"))
	p, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{})
	is.NoErr(err)
	again, err := k.PlanImport(ctx, k.Owner, doc, agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(p, again)
	for _, other := range []struct {
		doc   agentkey.CatalogDocument
		prune bool
	}{{doc, true}, {document(entry("fresh", "Other")), false}} {
		o := agentkey.ImportOptions{Prune: other.prune, Plan: p.Digest}
		is.True(errors.Is(second(k.ImportCatalog(ctx, k.Owner, other.doc, o)), agentkey.ErrChanged))
	}
	is.Equal(len(exported(t, k).Tools), 1)
}

// meddler lets something happen between the reads of a Manager and its next
// transaction.
type meddler struct {
	*memstore.Store
	between func()
}

func (m *meddler) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	err := m.Store.View(ctx, organization, fn)
	if f := m.between; f != nil {
		m.between = nil
		f()
	}
	return err
}

// Whoever gave no plan gets what the document means when it is decided, not when
// it was read.
func TestImportIsDecidedUnderTheHead(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	store := &meddler{Store: memstore.New()}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	bot, _ := k.Agent("bot")
	late := func() {
		tool := k.Tool("Late", "lat_api_test_1")
		k.Allow(bot, tool)
	}
	store.between = late
	p, err := k.ImportCatalog(ctx, k.Owner, document(entry("fresh", "Fresh")), agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	is.Equal(lines(p), []string{"create 1 fresh", "remove 0 late ends 1+0 more 0 of bot"})
	is.Equal(len(exported(t, k).Tools), 1)
	page, err := k.Events(ctx, k.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionGrantRevoked}})
	is.NoErr(err)
	is.Equal(len(page.Events), 1)

	plan, err := k.PlanImport(ctx, k.Owner, document(), agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	store.between = late
	_, err = k.ImportCatalog(ctx, k.Owner, document(), agentkey.ImportOptions{Prune: true, Plan: plan.Digest})
	is.True(errors.Is(err, agentkey.ErrChanged))
	is.Equal(len(exported(t, k).Tools), 2)
}

func TestPlanNamesTwentyGrants(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	tool := k.Tool("Linear", "lin_api_test_1")
	for i := range 25 {
		bot, _ := k.Agent(fmt.Sprintf("bot %02d", i))
		k.Allow(bot, tool)
	}
	p, err := k.PlanImport(t.Context(), k.Owner, document(), agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	g := p.Items[0].Grants
	is.Equal(g.ApprovedEnd, int64(25))
	is.Equal(len(g.Items), 20)
	is.Equal(g.Items[0].AgentName, "bot 24")
}

func TestEndedGrantsAreNotCountedAsOpen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	bot, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	_, err := k.Assign(t.Context(), k.Owner, agentkey.AssignInput{Agent: bot.ID, Tool: tool.ID, DecisionInput: agentkey.DecisionInput{Duration: time.Hour}})
	is.NoErr(err)
	prune := agentkey.ImportOptions{Prune: true}
	p, err := k.PlanImport(t.Context(), k.Owner, document(), prune)
	is.NoErr(err)
	is.Equal(p.Items[0].Grants.ApprovedEnd, int64(1))
	k.Clock.Advance(2 * time.Hour)
	p, err = k.PlanImport(t.Context(), k.Owner, document(), prune)
	is.NoErr(err)
	is.Equal(p.Items[0].Grants.ApprovedEnd, int64(0))
}

func numbered(n int) (tools []agentkey.CatalogEntry) {
	for i := range n {
		tools = append(tools, entry(fmt.Sprintf("tool-%04d", i), "Tool"))
	}
	return tools
}

func TestImportIsBounded(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	refused := func(o agentkey.ImportOptions, tools ...agentkey.CatalogEntry) {
		t.Helper()
		before := exported(t, k)
		var bad *agentkey.ValidationError
		is.True(errors.As(second(k.PlanImport(ctx, k.Owner, document(tools...), o)), &bad))
		is.Equal(bad.Fields[0].Field, "tools")
		is.True(errors.Is(second(k.ImportCatalog(ctx, k.Owner, document(tools...), o)), agentkey.ErrInvalid))
		is.Equal(exported(t, k), before)
	}
	refused(agentkey.ImportOptions{}, numbered(1501)...)
	_, err := k.ImportCatalog(ctx, k.Owner, document(numbered(501)...), agentkey.ImportOptions{})
	is.NoErr(err)
	refused(agentkey.ImportOptions{Prune: true})
	two := numbered(501)
	for i := range two {
		two[i].RequiredApprovals = 2
	}
	refused(agentkey.ImportOptions{}, two...)
}

// The longest imports that are allowed fit into one transaction.
func TestImportAtItsBound(t *testing.T) {
	t.Parallel()
	if testing.Short() || underRace() {
		t.Skip("1500 tools on two databases; make alone runs it without the race detector")
	}
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		ctx := t.Context()
		store := open(t)
		k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
		tools := numbered(1500)
		p, err := k.ImportCatalog(ctx, k.Owner, document(tools...), agentkey.ImportOptions{})
		is.NoErr(err)
		is.Equal(p.Count, agentkey.ImportCount{Create: 1500})
		for i := range tools {
			tools[i].Instructions = "changed"
		}
		p, err = k.ImportCatalog(ctx, k.Owner, document(tools...), agentkey.ImportOptions{})
		is.NoErr(err)
		is.Equal(p.Count, agentkey.ImportCount{Update: 1500})
		p, err = k.ImportCatalog(ctx, k.Owner, document(tools[500:]...), agentkey.ImportOptions{Prune: true})
		is.NoErr(err)
		is.Equal(p.Count, agentkey.ImportCount{Unchanged: 1000, Remove: 500})
		is.Equal(len(exported(t, k).Tools), 1000)
	})
}

func TestImportSeesOneOrganizationOnly(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	k.Tool("Linear", "lin_api_test_1")
	_, other := k.NewOrganization("Other")
	p, err := k.ImportCatalog(ctx, other, document(entry("linear", "Other Linear")), agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	is.Equal(lines(p), []string{"create 1 linear"})
	is.Equal(exported(t, k).Tools[0].Name, "Linear")
}

// texts are names and guides that a document could spoil.
func anyText(from, to int) *rapid.Generator[string] {
	runes := rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("aZ09 -:#'\"\\{}[]&*!|>%@`~\n\r\t\u00a0\u2028\ufeff\u200b漢é🙂")))
	return rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(runes, from, to).Draw(t, "runes")) })
}

var traps = []string{"no", "yes", "on", "off", "null", "~", "true", "1e3", "0x10", "0o7", "017", "2026-11-23", "12:30", "1_000", ".inf", "<<", "=", "- a", "a: b", "a #b"}

func anyTool() *rapid.Generator[agentkey.AddToolInput] {
	return rapid.Custom(func(t *rapid.T) agentkey.AddToolInput {
		text := func(n int) *rapid.Generator[string] { return rapid.OneOf(rapid.SampledFrom(traps), anyText(0, n)) }
		in := agentkey.AddToolInput{
			Name: text(60).Draw(t, "name"), Description: text(40).Draw(t, "description"), Instructions: text(200).Draw(t, "instructions"),
			URL: rapid.OneOf(rapid.SampledFrom([]string{"", "linear.app", "HTTP://EXAMPLE.com:80/A?b=c#d", "https://bücher.example/ä ö"}),
				rapid.StringMatching(`[a-z]{1,9}\.example/[ -~äß]{0,40}`)).Draw(t, "url"),
			AuthType:          rapid.SampledFrom([]string{"api_key", "oauth_token", "bot_token", "other"}).Draw(t, "auth"),
			Mode:              rapid.SampledFrom([]storage.CredentialMode{storage.Shared, storage.PerAgent}).Draw(t, "mode"),
			RequiredApprovals: rapid.Int64Range(0, 100).Draw(t, "approvals"),
		}
		if in.Mode == storage.Shared {
			in.Credential = agentkey.NewSecret([]byte("any_api_test_1"))
		}
		return in
	})
}

// Whatever a catalog holds, its export imports as unchanged, and brings the same
// catalog into being elsewhere.
func TestExportImportsAsUnchanged(t *testing.T) {
	t.Parallel()
	k := agentkeytest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		is := is.New(rt)
		_, owner := k.NewOrganization("Source")
		for _, in := range rapid.SliceOfN(anyTool(), 0, 6).Draw(rt, "tools") {
			if _, err := k.AddTool(t.Context(), owner, in); err != nil && !errors.Is(err, agentkey.ErrInvalid) {
				rt.Fatal(err)
			}
		}
		doc, err := k.ExportCatalog(t.Context(), owner)
		is.NoErr(err)
		p, err := k.ImportCatalog(t.Context(), owner, doc, agentkey.ImportOptions{Prune: true})
		is.NoErr(err)
		is.Equal(p.Count, agentkey.ImportCount{Unchanged: len(doc.Tools)})

		_, elsewhere := k.NewOrganization("Target")
		p, err = k.ImportCatalog(t.Context(), elsewhere, doc, agentkey.ImportOptions{})
		is.NoErr(err)
		is.Equal(p.Count, agentkey.ImportCount{Create: len(doc.Tools)})
		copied, err := k.ExportCatalog(t.Context(), elsewhere)
		is.NoErr(err)
		for i := range doc.Tools {
			doc.Tools[i].CredentialConfigured = false // credentials don't travel
		}
		is.Equal(copied, doc)
	})
}
