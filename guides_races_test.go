package agentkey_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Agents that learn the same at once make one suggestion: one creates it, and all
// others support it. So it is on every storage, and between processes.
func TestConcurrentInstructionSuggestions(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		s := newShelf(t)
		learnAtOnce(t, s, 50, s.Kit.Manager, s.Kit.Manager)
	})
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		s := newShelf(t, func(c *agentkey.Config) { c.Storage = open(t) })
		config := s.Config
		config.Storage, config.Node = open(t), "other"
		other, err := agentkey.New(t.Context(), config)
		noErr(t, err)
		t.Cleanup(func() { _ = other.Close(context.Background()) })
		learnAtOnce(t, s, 10, s.Kit.Manager, other)
	})
}

func learnAtOnce(t *testing.T, s *shelf, rounds int, managers ...*agentkey.Manager) {
	t.Helper()
	is := is.New(t)
	keys := []agentkey.Caller{s.key}
	for i := range 3 {
		agent, key := s.Agent(fmt.Sprintf("bot %d", i))
		s.Allow(agent, s.tool)
		keys = append(keys, key)
	}
	for round := range rounds {
		answers := make([]agentkey.InstructionsSuggested, 16)
		ok, _ := tallyErrors(t, atOnce(len(answers), func(i int) (err error) {
			answers[i], err = managers[i%len(managers)].SuggestInstructions(context.Background(), keys[i%len(keys)], agentkey.SuggestInstructionsInput{
				Tool: s.tool.ID, Learned: fmt.Sprintf("Fact number %d.", round), Why: "It cost me a day.",
			})
			return err
		}), nil)
		is.Equal(ok, len(answers))
		made := 0
		for _, a := range answers {
			is.Equal(a.ID, answers[0].ID)
			if !a.Existing {
				made++
			}
		}
		is.Equal(made, 1)
	}
	page, err := s.InstructionSuggestions(t.Context(), s.Owner, agentkey.InstructionSuggestionsInput{})
	is.NoErr(err)
	is.Equal(len(page.Suggestions), rounds)
	for _, x := range page.Suggestions {
		is.Equal(x.SupporterCount, int64(len(keys)))
		is.Equal(len(x.Supporters), len(keys))
	}
	s.agrees()
}

// Administrators who accept at once what is for one version make one more version:
// the first is accepted, the others are too late.
func TestConcurrentAccepts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	for round := range 10 {
		ids := make([]string, 8)
		for i := range ids {
			ids[i] = s.learn(fmt.Sprintf("Fact %d of %d.", i, round))
		}
		before := len(s.versions())
		ok, late := tallyErrors(t, atOnce(len(ids), func(i int) error {
			return s.accept(ids[i], fmt.Sprintf("Fact %d of %d.", i, round))
		}), agentkey.ErrInstructionsChanged)
		is.Equal(ok, 1)
		is.Equal(late, len(ids)-1)
		is.Equal(len(s.versions()), before+1)
	}
	s.agrees()
}

// Versions stay in line however many administrators write at once.
func TestConcurrentVersions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newShelf(t)
	ok, _ := tallyErrors(t, atOnce(32, func(i int) error {
		text := fmt.Sprintf("text %d", i)
		return second(s.UpdateTool(context.Background(), s.Owner, s.tool.ID, agentkey.UpdateToolInput{Instructions: &text}))
	}), nil)
	is.Equal(ok, 32)
	all := s.versions()
	is.Equal(len(all), 33)
	for i, v := range all {
		is.Equal(v.Number, int64(33-i))
		is.Equal(v.Current, i == 0)
	}
	tool, err := s.Manager.Tool(t.Context(), s.Owner, s.tool.ID)
	is.NoErr(err)
	is.Equal(tool.Instructions, all[0].Instructions)
	s.agrees()
}

// Who revokes meanwhile wins, on every backend: nothing is proposed by a call that
// began after the revocation returned.
func TestNothingLearnedAfterRevoke(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		r.tries(func() error {
			return second(r.SuggestInstructions(context.Background(), agentkey.TrustedAgent(r.Organization.ID, r.agent.ID), agentkey.SuggestInstructionsInput{
				Tool: r.tool.ID, Learned: "Pages end at 100 items.", Why: "It cost me a day.",
			}))
		})
		r.run(rounds/2, func(ctx context.Context, _ int) {
			r.given()
			r.insist(func() error { return second(r.Revoke(ctx, r.Owner, r.agent.ID, r.tool.ID)) })
			r.taken()
			r.insist(func() error {
				return second(r.Assign(ctx, r.Owner, agentkey.AssignInput{Agent: r.agent.ID, Tool: r.tool.ID}))
			})
		})
		taken, given := []audit.Action{audit.ActionGrantRevoked}, []audit.Action{audit.ActionGrantAssigned}
		r.never(audit.ActionToolInstructionSuggestionSupported, taken, given)
	})
}
