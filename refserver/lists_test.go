package refserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/load"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// crowd is an organization on SQLite with much in it.
type crowd struct {
	*agentkeytest.Kit
	store *bunstore.Store
	crowded
	middle, to time.Time
}

// crowded is what is known of a crowd besides its database.
type crowded struct {
	Key       string // the key provider's
	Home      agentkey.Organization
	Made      seed.Seeded
	Suggested string // the suggestion of many agents
	Token     string
}

// newCrowd makes one in a directory, or opens what an earlier one left there.
func newCrowd(t testing.TB, dir string, n seed.Counts) *crowd {
	t.Helper()
	ctx := context.Background()
	c := &crowd{}
	kept, err := os.ReadFile(filepath.Join(dir, "crowd.json"))
	if err == nil {
		err = json.Unmarshal(kept, &c.crowded)
	} else {
		c.Key, err = localkey.Generate()
	}
	fatal(t, err)
	keys, err := localkey.FromEnv(func(string) (string, bool) { return c.Key, true }, "AGENTKEY_ENCRYPTION_KEY")
	fatal(t, err)
	c.store = dbtest.SQLiteFile(t, filepath.Join(dir, "agentkey.db"))(t)
	c.Kit = agentkeytest.New(t, func(config *agentkey.Config) {
		config.Storage, config.Keys, config.ReconcileInterval = c.store, keys, -1 // no replay beside what is measured
	})
	from := c.Clock.Now()
	c.Clock.Advance(90 * 24 * time.Hour)
	c.to = c.Clock.Now()
	c.middle = from.Add(c.to.Sub(from) / 2)
	if kept == nil {
		c.fill(t, n, from)
		kept, err = json.Marshal(c.crowded)
		fatal(t, err)
		fatal(t, os.WriteFile(filepath.Join(dir, "crowd.json"), kept, 0o600))
	} else {
		c.Organization = c.Home
		c.Owner, err = c.Authenticate(ctx, agentkey.NewSecret([]byte(c.Token)), agentkey.RequestContext{})
		fatal(t, err)
	}
	// A large heap of the test's own would be marked with every collection.
	c.Made.Open, c.Made.Agents, c.Made.Tools = nil, nil, slices.Clone(c.Made.Tools[:1])
	begun := time.Now()
	index(t, c.store, c.Organization.ID)
	t.Logf("%+v: indexed in %s", n, time.Since(begun).Round(time.Millisecond))
	return c
}

// index has a log's index catch up. Where the database is late it goes on where it was.
func index(t testing.TB, s storage.Store, organization string) {
	t.Helper()
	err := storage.ErrUnavailable
	for errors.Is(err, storage.ErrUnavailable) {
		err = seed.Index(t.Context(), s, organization)
	}
	fatal(t, err)
}

func (c *crowd) fill(t testing.TB, n seed.Counts, from time.Time) {
	t.Helper()
	ctx := context.Background()
	c.Home = c.Organization
	begun := time.Now()
	var err error
	c.Made, err = seed.Fill(ctx, seed.Config{
		Manager: c.Manager, Store: c.store, Keys: c.Config.Keys, Actor: c.Owner, From: from, To: c.to,
	}, n)
	fatal(t, err)
	filled := time.Now()
	for i := range 150 {
		_, err := c.AddAdministrator(ctx, c.Owner, agentkey.AddAdministratorInput{Label: fmt.Sprintf("person %d", i), Role: agentkey.RoleAuditor})
		fatal(t, err)
		_, err = c.CreateToken(ctx, c.Owner, agentkey.CreateTokenInput{Name: fmt.Sprintf("token %d", i)})
		fatal(t, err)
	}
	c.suggest(t)
	token, err := c.CreateToken(ctx, c.Owner, agentkey.CreateTokenInput{Name: "for HTTP"})
	fatal(t, err)
	c.Token = string(token.Secret.Bytes())
	t.Logf("%+v: filled in %s, and lists of what is suggested in %s", n, filled.Sub(begun).Round(time.Millisecond), time.Since(filled).Round(time.Millisecond))
}

// suggest fills a page of each list of what agents suggest, of keys and of
// versions.
func (c *crowd) suggest(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	for i := range 150 {
		busy, other := agentkey.TrustedAgent(c.Organization.ID, c.Made.Busy), agentkey.TrustedAgent(c.Organization.ID, c.Made.Agents[i%len(c.Made.Agents)])
		first, err := c.SuggestTool(ctx, other, agentkey.SuggestToolInput{Name: "Suggested by all", Reason: "to read what is there"})
		fatal(t, err)
		c.Suggested = first.ID
		_, err = c.SuggestTool(ctx, busy, agentkey.SuggestToolInput{Name: fmt.Sprintf("Suggested %d", i), Reason: "to read what is there"})
		fatal(t, err)
		_, err = c.SuggestInstructions(ctx, busy, agentkey.SuggestInstructionsInput{Tool: c.Made.BusyTool, Learned: fmt.Sprintf("Pages end at %d items.", i), Why: "The answer said so."})
		fatal(t, err)
		text := fmt.Sprintf("Version %d", i)
		_, err = c.UpdateTool(ctx, c.Owner, c.Made.Tools[0], agentkey.UpdateToolInput{Instructions: &text})
		fatal(t, err)
		issued, err := c.RotateKey(ctx, c.Owner, c.Made.Busy, agentkey.RotateKeyInput{})
		fatal(t, err)
		issued.Secret.Destroy()
	}
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing is the first page of a list: read by the Manager, and its path over HTTP.
type listing struct {
	read func(ctx context.Context) (items int, err error)
	path string
}

// length is how many items a method answered.
func length[T any](items []T, err error) (int, error) { return len(items), err }

func (c *crowd) listings() map[string]listing {
	list := agentkey.ListInput{}
	all := map[string]listing{
		"agents": {func(ctx context.Context) (int, error) { return length(c.Agents(ctx, c.Owner, list)) }, "agents"},
		"tools":  {func(ctx context.Context) (int, error) { return length(c.Tools(ctx, c.Owner, list)) }, "tools"},
		"administrators": {func(ctx context.Context) (int, error) {
			return length(c.Administrators(ctx, c.Owner, list))
		}, "administrators"},
		"tokens": {func(ctx context.Context) (int, error) { return length(c.Tokens(ctx, c.Owner, list)) }, "tokens"},
		"inbox": {func(ctx context.Context) (int, error) {
			page, err := c.Inbox(ctx, c.Owner, agentkey.InboxInput{})
			return len(page.Items), err
		}, "requests"},
		"activity-of-agent": {func(ctx context.Context) (int, error) {
			page, err := c.AgentActivity(ctx, c.Owner, c.Made.Busy, agentkey.ActivityInput{})
			return len(page.Events), err
		}, "agents/" + c.Made.Busy + "/activity"},
		"activity-of-tool": {func(ctx context.Context) (int, error) {
			page, err := c.ToolActivity(ctx, c.Owner, c.Made.BusyTool, agentkey.ActivityInput{})
			return len(page.Events), err
		}, "tools/" + c.Made.BusyTool + "/activity"},
		"versions": {func(ctx context.Context) (int, error) {
			page, err := c.InstructionVersions(ctx, c.Owner, agentkey.InstructionVersionsInput{Tool: c.Made.Tools[0]})
			return len(page.Versions), err
		}, "tools/" + c.Made.Tools[0] + "/instructions/history"},
		"keys": {func(ctx context.Context) (int, error) {
			return length(c.AgentKeys(ctx, c.Owner, agentkey.AgentKeysInput{Agent: c.Made.Busy}))
		}, "agents/" + c.Made.Busy + "/keys"},
		"suggestions": {func(ctx context.Context) (int, error) {
			return length(c.ToolSuggestions(ctx, c.Owner, agentkey.ToolSuggestionsInput{}))
		}, "suggestions"},
		"supporters": {func(ctx context.Context) (int, error) {
			page, err := c.ToolSupporters(ctx, c.Owner, agentkey.ToolSupportersInput{Suggestion: c.Suggested})
			return len(page.Supporters), err
		}, "suggestions/" + c.Suggested + "/supporters"},
		"instruction-suggestions": {func(ctx context.Context) (int, error) {
			page, err := c.InstructionSuggestions(ctx, c.Owner, agentkey.InstructionSuggestionsInput{})
			return len(page.Suggestions), err
		}, "instruction-suggestions"},
	}
	for name, in := range map[string]agentkey.GrantsInput{
		"grants": {}, "grants-of-agent": {Agent: c.Made.Busy}, "grants-of-tool": {Tool: c.Made.BusyTool}, "grants-denied": {Status: grants.StatusDenied},
	} {
		q := url.Values{}
		for field, value := range map[string]string{"agent_id": in.Agent, "tool_id": in.Tool, "status": string(in.Status)} {
			if value != "" {
				q.Set(field, value)
			}
		}
		all[name] = listing{func(ctx context.Context) (int, error) { return length(c.Grants(ctx, c.Owner, in)) }, "grants?" + q.Encode()}
	}
	for name, f := range c.filters() {
		all[name] = listing{func(ctx context.Context) (int, error) {
			page, err := c.Events(ctx, c.Owner, agentkey.EventsInput{Filter: f})
			return len(page.Events), err
		}, "audit-log?" + filterQuery(f)}
	}
	return all
}

// filters are every property that the log is searched by, and every pair of them:
// of who and what has the most events, and of a rare action.
func (c *crowd) filters() map[string]audit.Filter {
	properties := []struct {
		name string
		set  func(f *audit.Filter)
	}{
		{"agent", func(f *audit.Filter) { f.Agent = c.Made.Busy }}, {"tool", func(f *audit.Filter) { f.Tool = c.Made.BusyTool }},
		{"actor", func(f *audit.Filter) { f.Actor = c.Made.Administrators[1] }}, {"action", func(f *audit.Filter) { f.Action = audit.ActionGrantDenied }},
		{"from", func(f *audit.Filter) { f.From = c.middle.UnixMicro() }}, {"to", func(f *audit.Filter) { f.To = c.middle.UnixMicro() }},
	}
	all := map[string]audit.Filter{"events": {}}
	for i, one := range properties {
		var f audit.Filter
		one.set(&f)
		all["events-by-"+one.name] = f
		for _, other := range properties[i+1:] {
			pair := f
			other.set(&pair)
			all["events-by-"+one.name+"-and-"+other.name] = pair
		}
	}
	return all
}

func filterQuery(f audit.Filter) string {
	q := url.Values{}
	for name, value := range map[string]string{"agent_id": f.Agent, "tool_id": f.Tool, "actor": f.Actor, "action": string(f.Action)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range map[string]int64{"from": f.From, "to": f.To} {
		if at > 0 {
			q.Set(name, time.UnixMicro(at).UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	return q.Encode()
}

// BenchmarkLists measures the first page of every list of a large organization on
// SQLite: by the Manager, and over HTTP from a whole server. It reports the 95th
// percentile. With AGENTKEY_PROVE set the organization has 10,000 agents, 2,000
// tools, 50,000 grants and 1,000,000 events, otherwise a fiftieth of that. With
// AGENTKEY_BENCH_KEPT it keeps its database in that directory, and uses what an
// earlier run kept there.
func BenchmarkLists(b *testing.B) {
	n := seed.Counts{Agents: 10_000, Tools: 2_000, Grants: 50_000, Events: 1_000_000}
	if os.Getenv("AGENTKEY_PROVE") == "" {
		n = seed.Counts{Agents: n.Agents / 50, Tools: n.Tools / 50, Grants: n.Grants / 50, Events: n.Events / 50}
	}
	dir := b.TempDir()
	if kept := os.Getenv("AGENTKEY_BENCH_KEPT"); kept != "" {
		dir = filepath.Join(kept, fmt.Sprintf("lists-%d", n.Events))
		fatal(b, os.MkdirAll(dir, 0o700))
	}
	c := newCrowd(b, dir, n)
	s, err := refserver.New(c.Manager, refserver.Config{Listen: "127.0.0.1:0"})
	fatal(b, err)
	serve(b, s)
	all := c.listings()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.Run("list="+name+"/via=manager", func(b *testing.B) {
			percentile(b, func() error {
				_, err := all[name].read(b.Context())
				return err
			})
		})
		if all[name].path == "" {
			continue
		}
		r := get(b, s.URL()+"/api/admin/"+all[name].path)
		r.Header.Set("Authorization", "Bearer "+c.Token)
		b.Run("list="+name+"/via=http", func(b *testing.B) {
			percentile(b, func() error { return send(http.DefaultTransport, r.Clone(b.Context())) })
		})
	}
}

// percentile reports the time that 95 of 100 operations stay below, and what one costs
// the processor: with HTTP that of the client too, and of collecting garbage.
func percentile(b *testing.B, operation func() error) {
	b.Helper()
	fatal(b, operation())
	b.ReportAllocs()
	took := make([]time.Duration, 0, b.N)
	used, _ := load.CPUTime(os.Getpid())
	for b.Loop() {
		begun := time.Now()
		if err := operation(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	if all, known := load.CPUTime(os.Getpid()); known {
		b.ReportMetric(float64((all-used).Microseconds())/1000/float64(len(took)), "cpu-ms")
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[(len(took)*95-1)/100].Microseconds())/1000, "p95-ms")
}

// TestListsHoldTheirMemory: a page of a list takes as much memory in an
// organization of many more agents and events. With AGENTKEY_PROVE set it has
// 1,000 agents and then 10,000.
func TestListsHoldTheirMemory(t *testing.T) {
	withoutRace(t)
	few, many, of, held := 300, 1_500, 6_000, 6_000
	if os.Getenv("AGENTKEY_PROVE") != "" {
		// As many for each agent, so that a page names as many different ones.
		few, many, of, held = 1_000, 10_000, 16_000, 160_000
	}
	small := bytesOfPages(t, seed.Counts{Agents: few, Tools: 120, Grants: of, Events: 10 * few})
	large := bytesOfPages(t, seed.Counts{Agents: many, Tools: 120, Grants: held, Events: 10 * many})
	for name, bytes := range small {
		if large[name] > bytes*5/4+64<<10 {
			t.Errorf("%s: %d bytes a page among %d agents, %d among %d", name, bytes, few, large[name], many)
		}
	}
}

func withoutRace(t *testing.T) {
	t.Helper()
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates too: make alone runs this without it")
	}
}

// bytesOfPages is what each list that fills its page allocates for one.
func bytesOfPages(t *testing.T, n seed.Counts) map[string]uint64 {
	c := newCrowd(t, t.TempDir(), n)
	out := map[string]uint64{}
	for name, l := range c.listings() {
		items, err := l.read(t.Context()) // prepares statements, unwraps keys
		fatal(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 5 {
			_, err := l.read(t.Context())
			fatal(t, err)
		}
		runtime.ReadMemStats(&after)
		if items == 100 || items == 5 {
			out[name] = (after.TotalAlloc - before.TotalAlloc) / 5
		}
	}
	return out
}
