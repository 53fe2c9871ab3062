package bunstore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// TestGrantSummaries: what is summarized for many at once is what Grants answers
// for each.
func TestGrantSummaries(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		agents, tools := scatter(t, s, "acme", 8, 6)
		scatter(t, s, "globex", 8, 6) // has the same ids, and is never answered
		statuses := []grants.Status{grants.StatusPending, grants.StatusApproved, grants.StatusDenied}
		for _, limit := range []int{1, 2, 100} {
			for _, q := range []storage.SummaryQuery{{Agents: agents}, {Tools: tools}, {Agents: append(agents[:2:2], "nobody", agents[0])}, {}} {
				q.Statuses, q.Limit = statuses, limit
				is.NoErr(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
					got, err := tx.(storage.Summarizer).GrantSummaries(ctx, q)
					is.NoErr(err)
					want, err := singly(ctx, tx, q)
					is.NoErr(err)
					order := func(a, b storage.GrantSummary) int {
						return strings.Compare(a.ID+string(a.Status), b.ID+string(b.Status))
					}
					slices.SortFunc(got, order)
					slices.SortFunc(want, order)
					is.Equal(fmt.Sprint(got), fmt.Sprint(want))
					return nil
				}))
			}
		}
		for _, q := range []storage.SummaryQuery{
			{Agents: agents, Statuses: statuses}, {Agents: agents, Tools: tools, Limit: 1}, {Agents: make([]string, storage.MaxIDs+1), Limit: 1}, {Tools: []string{"\x00"}, Limit: 1},
		} {
			err := s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				_, err := tx.(storage.Summarizer).GrantSummaries(ctx, q)
				return err
			})
			is.True(errors.Is(err, storage.ErrInvalid))
		}
	})
}

// TestAgentKeys: pages of an agent's keys are all its keys and nobody else's.
func TestAgentKeys(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		for _, org := range []string{"acme", "globex"} {
			scatter(t, s, org, 2, 1)
			update(t, s, org, func(ctx context.Context, tx storage.Tx) error {
				var p puts
				for i := range 14 {
					id := fmt.Sprintf("k%02d", i)
					digest := sha256.Sum256([]byte(org + id))
					p.put(tx.PutKey(ctx, storage.Key{Organization: org, ID: id, Agent: fmt.Sprintf("a%02d", i%2), Digest: digest[:], Status: storage.KeyActive, Revision: 1}))
				}
				return p.err
			})
		}
		is.NoErr(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
			want, err := tx.Keys(ctx, storage.KeyQuery{Agents: []string{"a01"}})
			is.NoErr(err)
			is.Equal(len(want), 7)
			var got []storage.Key
			for after := ""; ; after = got[len(got)-1].ID {
				page, err := tx.(storage.KeyLister).AgentKeys(ctx, "a01", after, 3)
				is.NoErr(err)
				if got = append(got, page...); len(page) < 3 {
					break
				}
			}
			is.Equal(got, want)
			return nil
		}))
		for _, limit := range []int{0, storage.MaxPage + 1} {
			is.True(errors.Is(s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				_, err := tx.(storage.KeyLister).AgentKeys(ctx, "a01", "", limit)
				return err
			}), storage.ErrInvalid))
		}
	})
}

func singly(ctx context.Context, tx storage.ReadTx, q storage.SummaryQuery) (all []storage.GrantSummary, err error) {
	for _, id := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(q.Agents, q.Tools)))) {
		for _, status := range q.Statuses {
			g := storage.GrantQuery{Statuses: []grants.Status{status}, Limit: q.Limit, Total: true, Agent: id}
			if len(q.Tools) > 0 {
				g.Agent, g.Tool = "", id
			}
			page, err := tx.Grants(ctx, g)
			if err != nil {
				return nil, err
			}
			if page.Total > 0 {
				all = append(all, storage.GrantSummary{ID: id, Status: status, Count: page.Total, Grants: page.Grants})
			}
		}
	}
	return all, nil
}

// scatter gives an organization agents and tools with a grant for most pairs, and
// a few events for each.
func scatter(t *testing.T, s storage.Store, org string, nAgents, nTools int) (agents, tools []string) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 11))
	furnish(t, s, org, 1)
	statuses := []grants.Status{grants.StatusPending, grants.StatusApproved, grants.StatusDenied, grants.StatusRevoked}
	update(t, s, org, func(ctx context.Context, tx storage.Tx) error {
		var p puts
		for i := range nTools {
			id := fmt.Sprintf("t%02d", i)
			tools = append(tools, id)
			p.put(tx.PutTool(ctx, storage.Tool{Organization: org, ID: id, ConfigKey: id, Revision: 1}))
		}
		for i := range nAgents {
			id := fmt.Sprintf("a%02d", i)
			agents = append(agents, id)
			p.put(tx.PutAgent(ctx, storage.Agent{Organization: org, ID: id, Status: storage.AgentActive, Revision: 1}))
			for j, tool := range tools {
				if random.IntN(5) > 0 {
					p.put(tx.PutGrant(ctx, grants.Grant{
						Organization: org, ID: fmt.Sprintf("g%02d%02d", (i*7+j*3)%50, i*nTools+j), Agent: id, Tool: tool,
						Status: statuses[random.IntN(len(statuses))], Cycle: 1, Revision: 1,
					}))
				}
			}
		}
		if p.err != nil {
			return p.err
		}
		var events []audit.Event
		for range 300 {
			e := event(agents[random.IntN(len(agents)-1)], tools[random.IntN(len(tools))], "g")
			e.Action = []audit.Action{audit.ActionCredentialVended, audit.ActionGrantApproved, audit.ActionCredentialRefused}[random.IntN(3)]
			if random.IntN(2) == 0 {
				e.Actor = audit.Actor{Kind: audit.ActorHuman, ID: fmt.Sprintf("h%d", random.IntN(3))}
			}
			events = append(events, e)
		}
		return appendEvents(ctx, tx, org, events...)
	})
	return agents, tools
}

// TestLatestEvents: what is known of many agents at once is what Events says of
// each.
func TestLatestEvents(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		agents, _ := scatter(t, s, "acme", 6, 3)
		for _, actions := range [][]audit.Action{
			{audit.ActionCredentialVended}, {audit.ActionCredentialVended, audit.ActionGrantApproved}, {audit.ActionAgentCreated}, nil,
		} {
			got, err := s.LatestEvents(t.Context(), "acme", agents, actions)
			is.NoErr(err)
			want := map[string]int64{}
			for _, agent := range agents {
				for _, action := range actions {
					page, err := s.Events(t.Context(), "acme", storage.EventQuery{Filter: audit.Filter{Agent: agent, Action: action}, Count: true})
					is.NoErr(err)
					if page.Count > 0 {
						want[agent] = max(want[agent], page.Latest)
					}
				}
			}
			is.Equal(got, want)
		}
		_, err := s.LatestEvents(t.Context(), "acme", make([]string, storage.MaxIDs+1), nil)
		is.True(errors.Is(err, storage.ErrInvalid))
	})
}

// TestEventsByPairs: any two properties together select what the filter matches,
// whatever index they are looked up by.
func TestEventsByPairs(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		scatter(t, s, "acme", 6, 3)
		all, err := s.Events(t.Context(), "acme", storage.EventQuery{Limit: 1000})
		is.NoErr(err)
		properties := []func(*audit.Filter){
			func(f *audit.Filter) { f.Agent = "a01" }, func(f *audit.Filter) { f.Tool = "t01" }, func(f *audit.Filter) { f.Actor = "h1" },
			func(f *audit.Filter) { f.Actor = "a01" }, func(f *audit.Filter) { f.Action = audit.ActionGrantApproved },
			func(f *audit.Filter) { f.Outcome = audit.OutcomeOK }, func(f *audit.Filter) { f.From = noon + 100 }, func(f *audit.Filter) { f.To = noon + 200 },
		}
		for _, first := range properties {
			for _, second := range properties {
				for _, third := range properties {
					var f audit.Filter
					first(&f)
					second(&f)
					third(&f)
					var want []int64
					for _, l := range all.Lines {
						e, err := audit.Parse(l.Content)
						is.NoErr(err)
						if f.Match(&e) {
							want = append(want, l.Seq)
						}
					}
					found, err := s.Events(t.Context(), "acme", storage.EventQuery{Filter: f, Limit: 1000})
					is.NoErr(err)
					var got []int64
					for _, l := range found.Lines {
						got = append(got, l.Seq)
					}
					is.Equal(got, want)
				}
			}
		}
	})
}
