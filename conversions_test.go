package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// Whoever has a grant row keeps it as it is: what was denied or revoked stays
// denied or revoked.
func TestConversionResurrectsNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	ctx := t.Context()
	tool := w.add("Errors", "")
	keys := map[grants.Status]agentkey.Caller{}
	for _, status := range []grants.Status{grants.StatusPending, grants.StatusApproved, grants.StatusDenied, grants.StatusRevoked} {
		agent, key := w.Agent(string(status))
		keys[status] = key
		g, err := w.RequestAccess(ctx, key, agentkey.RequestInput{Tool: tool.ID, Reason: "my own reason"})
		is.NoErr(err)
		switch status {
		case grants.StatusApproved, grants.StatusRevoked:
			_, err = w.Assign(ctx, w.Actor(agentkey.RoleApprover), agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID, DecisionInput: agentkey.DecisionInput{Credential: agentkey.NewSecret([]byte("err_api_test_1"))}})
			is.NoErr(err)
		case grants.StatusDenied:
			_, err = w.Deny(ctx, w.Owner, g.ID, "no")
			is.NoErr(err)
		}
		if status == grants.StatusRevoked {
			_, err = w.Revoke(ctx, w.Owner, agent.ID, tool.ID)
			is.NoErr(err)
		}
	}
	before := w.grants(tool.ID)
	for _, key := range keys {
		w.suggest(key, "Sentry", "sentry.io")
	}
	w.suggest(w.botKey, "Sentry", "sentry.io")
	name, url := "Sentry", "sentry.io"
	_, err := w.UpdateTool(ctx, w.Owner, tool.ID, agentkey.UpdateToolInput{Name: &name, URL: &url})
	is.NoErr(err)
	after := w.grants(tool.ID)
	is.Equal(len(after), len(before)+1)
	for agent, g := range before {
		g.ToolName = "Sentry"
		is.Equal(after[agent], g)
	}
	is.Equal(after[w.bot.ID].Status, grants.StatusPending)
	for status, key := range keys {
		if status != grants.StatusApproved {
			is.True(errors.Is(second(w.Vend(ctx, key, tool.ID)), agentkey.ErrRefused))
		}
	}
	w.agrees()
}

// A suggestion with many supporters is converted in bounded transactions: the
// first page with the tool, the others by the next sweep of this process or, when
// it ends before, by the first one of another.
func TestManySupporters(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]bool{"this process": false, "another process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			store := &longest{Store: memstore.New()}
			w := newWishes(t, func(c *agentkey.Config) { c.Storage = store })
			ctx := t.Context()
			const many = 2*agentkey.ConversionPage + 50
			id := w.crowd(many)
			also := w.suggest(w.botKey, "Issues", "linear.app").ID
			store.lines = 0
			v, err := w.AddTool(ctx, w.Owner, agentkey.AddToolInput{Name: "Linear", URL: "linear.app", AuthType: "api_key", Mode: "per_agent"})
			is.NoErr(err)
			is.Equal(len(w.grants(v.ID)), agentkey.ConversionPage)
			is.Equal(w.read(id).Status, agentkey.SuggestionAccepted) // at once, whatever is left to do
			is.Equal(w.read(also).Status, agentkey.SuggestionAccepted)
			m := w.Manager
			if other {
				config := w.Config
				config.Node = "other"
				m, err = agentkey.New(ctx, config)
				is.NoErr(err)
				defer func() { _ = m.Close(ctx) }()
			}
			is.NoErr(m.Sweep(ctx))
			is.Equal(len(w.grants(v.ID)), many+1)
			is.True(store.lines <= agentkey.ConversionPage+4) // of events in one transaction
			page, err := w.Events(ctx, w.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionToolSuggestionConverted}})
			is.NoErr(err)
			is.True(len(page.Events) >= 2)
			is.Equal([]string{page.Events[0].Actor.Kind, page.Events[0].Actor.Behalf}, []string{audit.ActorSystem, w.Owner.ID})
			n := len(page.Events)
			is.NoErr(m.Sweep(ctx)) // nothing is left
			page, err = w.Events(ctx, w.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionToolSuggestionConverted}})
			is.NoErr(err)
			is.Equal(len(page.Events), n)
			w.agrees()
		})
	}
}

// crowd lets many agents suggest one tool by its name.
func (w *wishes) crowd(n int) (id string) {
	w.t.Helper()
	var mu sync.Mutex
	tallyErrors(w.t, aFewAtOnce(n, func(i int) error {
		issued, err := w.RegisterAgent(context.Background(), w.Owner, agentkey.RegisterAgentInput{Name: fmt.Sprintf("agent %d", i)})
		if err != nil {
			return err
		}
		s, err := w.SuggestTool(context.Background(), agentkey.TrustedAgent(w.Organization.ID, issued.Agent.ID),
			agentkey.SuggestToolInput{Name: "Linear", Reason: fmt.Sprintf("reason %d", i)})
		mu.Lock()
		defer mu.Unlock()
		id = s.ID
		return err
	}), nil)
	return id
}

// aFewAtOnce runs fn for 0 to n-1, at most 32 at a time.
func aFewAtOnce(n int, fn func(i int) error) []error {
	errs := make([]error, 0, n)
	for at := 0; at < n; at += 32 {
		errs = append(errs, atOnce(min(32, n-at), func(i int) error { return fn(at + i) })...)
	}
	return errs
}

// longest keeps the greatest number of lines that one Update appended.
type longest struct {
	storage.Store
	lines int
}

type longestTx struct {
	storage.Tx
	s *longest
}

func (s *longest) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		return fn(ctx, longestTx{tx, s})
	})
}

func (tx longestTx) Append(ctx context.Context, a storage.Append) error {
	tx.s.lines = max(tx.s.lines, len(a.Lines))
	return tx.Tx.Append(ctx, a)
}

// What is left ends with the tool.
func TestConversionOfADeletedTool(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	id := w.crowd(agentkey.ConversionPage + 1)
	tool := w.add("Linear", "")
	is.Equal(w.read(id).Tool, tool.ID)
	_, err := w.DeleteTool(t.Context(), w.Owner, tool.ID)
	is.NoErr(err)
	s := w.read(id) // the suggestion stays
	is.Equal([]any{s.Status, s.Tool, s.SupporterCount}, []any{agentkey.SuggestionAccepted, "", int64(agentkey.ConversionPage + 1)})
	is.NoErr(w.Sweep(t.Context()))
	found, err := w.Grants(t.Context(), w.Owner, agentkey.GrantsInput{})
	is.NoErr(err)
	is.Equal(len(found), 0)
	is.True(!w.suggest(w.key, "Linear", "").Existing) // and may be suggested anew
	w.agrees()
}

// However many agents suggest one thing at once, through however many Managers,
// it is one record.
func TestConcurrentSuggestions(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		store := memstore.New()
		concurrentSuggestions(t, 50, func(testing.TB) storage.Store { return store })
	})
	few := 15
	if os.Getenv("AGENTKEY_PROVE") != "" {
		few = 50
	}
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		concurrentSuggestions(t, few, func(t testing.TB) storage.Store { return open(t) })
	})
}

func concurrentSuggestions(t *testing.T, rounds int, open func(testing.TB) storage.Store) {
	is := is.New(t)
	const agents = 16
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Clock = open(t), time.Now })
	config := k.Config
	config.Storage, config.Node = open(t), "other"
	other, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	t.Cleanup(func() { _ = other.Close(context.Background()) })
	managers := []*agentkey.Manager{k.Manager, other}
	callers := make([]agentkey.Caller, agents)
	for i := range callers {
		agent, _ := k.Agent(fmt.Sprintf("agent %d", i))
		callers[i] = agentkey.TrustedAgent(k.Organization.ID, agent.ID)
	}
	spellings := []string{"Linear %d", "LINEAR %d", "linear-%d", "Ｌｉｎｅａｒ %d"}
	for round := range rounds {
		made := make([]agentkey.ToolSuggested, agents)
		ok, _ := tallyErrors(t, atOnce(agents, func(i int) (err error) {
			in := agentkey.SuggestToolInput{Name: fmt.Sprintf(spellings[i%4], round), Reason: "to file issues"}
			if i%3 == 0 {
				in.URL = fmt.Sprintf("linear-%d.app", round)
			}
			for range 10 { // a machine that does much else makes storage too busy now and then
				made[i], err = managers[i%2].SuggestTool(context.Background(), callers[i], in)
				if !errors.Is(err, agentkey.ErrUnavailable) {
					break
				}
			}
			return err
		}), nil)
		is.Equal(ok, agents)
		first := 0
		for _, s := range made {
			is.Equal(s.ID, made[0].ID)
			if !s.Existing {
				first++
			}
		}
		is.Equal(first, 1)
	}
	all, err := other.ToolSuggestions(t.Context(), k.Owner, agentkey.ToolSuggestionsInput{Limit: 500})
	is.NoErr(err)
	is.Equal(len(all), rounds)
	for _, s := range all {
		is.Equal(s.SupporterCount, int64(agents))
	}
	r, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.True(r.OK())
}

// What a suggestion and a new tool meet is looked up in an index, however much
// there is: so many reads, and so many rows of each.
func TestMatchingIsALookUp(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	counts := &counting{Store: memstore.New()}
	w := newWishes(t, func(c *agentkey.Config) { c.Storage = counts })
	ctx := t.Context()
	tools, suggestions := 200, 500
	if os.Getenv("AGENTKEY_PROVE") != "" {
		tools, suggestions = 2000, 5000
	}
	measure := func(call func() error) (int, int) {
		counts.begin()
		noErr(t, call())
		return counts.reads, counts.rows
	}
	suggest := func() (int, int) {
		return measure(func() error { return second(w.try(w.botKey, "Fresh one", "fresh.example.com", "to do my work")) })
	}
	add := func(name string) (int, int) {
		return measure(func() error {
			return second(w.AddTool(ctx, w.Owner, agentkey.AddToolInput{Name: name, URL: "fresh.example.com", AuthType: "api_key", Mode: "per_agent"}))
		})
	}
	reads, rows := suggest()
	addReads, addRows := add("Fresh two")

	tallyErrors(t, aFewAtOnce(tools, func(i int) error {
		return second(w.AddTool(context.Background(), w.Owner, agentkey.AddToolInput{
			Name: fmt.Sprintf("Tool %d", i), URL: fmt.Sprintf("tool-%d.example.com", i), AuthType: "api_key", Mode: "per_agent",
		}))
	}), nil)
	tallyErrors(t, aFewAtOnce(suggestions, func(i int) error {
		in := agentkey.SuggestToolInput{Name: "Popular name", URL: fmt.Sprintf("wish-%d.example.com", i), Reason: "to do my work"}
		if i%2 == 0 {
			in = agentkey.SuggestToolInput{Name: fmt.Sprintf("Wish %d", i), Reason: "to do my work"}
		}
		return second(w.SuggestTool(context.Background(), w.botKey, in))
	}), nil)
	v, err := w.Tools(ctx, w.Owner, agentkey.ListInput{Name: "Fresh two"})
	is.NoErr(err)
	is.Equal(second(w.DeleteTool(ctx, w.Owner, v[0].ID)), nil)
	moreReads, moreRows := suggest()
	is.Equal([]int{moreReads, moreRows}, []int{reads, rows})
	moreReads, moreRows = add("Fresh three")
	is.Equal([]int{moreReads, moreRows}, []int{addReads, addRows})
	popularReads, popularRows := measure(func() error { return second(w.try(w.key, "popular name", "", "to do my work")) })
	is.True(popularReads <= reads+2 && popularRows <= rows+2) // thousands share it, and one is read
	t.Logf("a suggestion: %d reads of %d rows; a tool: %d of %d", reads, rows, addReads, addRows)
}

// counting counts the reads of Updates and the rows that they answered.
type counting struct {
	storage.Store
	mu          sync.Mutex
	reads, rows int
}

func (s *counting) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads, s.rows = 0, 0
}

func (s *counting) read(rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	s.rows += rows
}

func (s *counting) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error { return fn(ctx, countingTx{tx, s}) })
}

type countingTx struct {
	storage.Tx
	s *counting
}

func (tx countingTx) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	r, ok, err := tx.Tx.Record(ctx, kind, id)
	tx.s.read(1)
	return r, ok, err
}

func (tx countingTx) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	found, err := tx.Tx.ScanRecords(ctx, s)
	tx.s.read(len(found))
	return found, err
}

func (tx countingTx) Tools(ctx context.Context, q storage.ToolQuery) (storage.ToolPage, error) {
	page, err := tx.Tx.Tools(ctx, q)
	tx.s.read(len(page.Tools))
	return page, err
}

func (tx countingTx) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	page, err := tx.Tx.Grants(ctx, q)
	tx.s.read(len(page.Grants))
	return page, err
}

func (tx countingTx) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	page, err := tx.Tx.Agents(ctx, q)
	tx.s.read(len(page.Agents))
	return page, err
}

// An import resolves suggestions as the API does, many tools at once.
func TestImportResolvesSuggestions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w := newWishes(t)
	ctx := t.Context()
	doc := document(entry("one", "One"), entry("two", "Two"), entry("three", "Three"))
	is.Equal(second(w.ImportCatalog(ctx, w.Owner, doc, agentkey.ImportOptions{})), nil) // where nobody suggested anything
	a, b := w.suggest(w.botKey, "Sentry", ""), w.suggest(w.key, "Grafana", "")
	doc.Tools[0].Name = "Sentry"
	doc.Tools = append(doc.Tools, entry("grafana", "Grafana"), entry("grafana-too", "Grafana"))
	is.Equal(second(w.ImportCatalog(ctx, w.Owner, doc, agentkey.ImportOptions{})), nil)
	is.Equal(w.read(a.ID).Status, agentkey.SuggestionAccepted)
	is.Equal(w.read(b.ID).Status, agentkey.SuggestionAccepted)
	is.Equal(len(w.grants(w.read(a.ID).Tool)), 1)
	is.Equal(len(w.grants(w.read(b.ID).Tool)), 1) // by the first of the two
	inbox, err := w.Inbox(ctx, w.Owner, agentkey.InboxInput{})
	is.NoErr(err)
	is.Equal(len(inbox.Items), 2)
	w.agrees()
}
