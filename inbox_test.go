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

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// inbox is the ids of everything that waits, read in pages of so many.
func inbox(t *testing.T, k *agentkeytest.Kit, limit int) (ids []string) {
	t.Helper()
	for in := (agentkey.InboxInput{Limit: limit}); ; {
		page, err := k.Inbox(t.Context(), k.Owner, in)
		noErr(t, err)
		for _, item := range page.Items {
			ids = append(ids, item.ID)
		}
		if in.Cursor = page.Next; in.Cursor == "" {
			return ids
		}
	}
}

// TestInboxHoldsWhatIsPending ends requests in every way that there is. Each
// leaves the inbox with the event that ends it, and nothing else does.
func TestInboxHoldsWhatIsPending(t *testing.T) {
	t.Parallel()
	stays := func(*agentkeytest.Kit, agentkey.Grant) error { return nil }
	ctx := t.Context()
	for name, end := range map[string]func(k *agentkeytest.Kit, g agentkey.Grant) error{
		"approve": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.Approve(ctx, k.Owner, g.ID, agentkey.DecisionInput{}))
		},
		"deny": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.Deny(ctx, k.Owner, g.ID, "not now"))
		},
		"assign": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.Assign(ctx, k.Owner, agentkey.AssignInput{Agent: g.Agent, Tool: g.Tool}))
		},
		"revoke": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.Revoke(ctx, k.Owner, g.Agent, g.Tool))
		},
		"suspend": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.SuspendAgent(ctx, k.Owner, g.Agent))
		},
		"delete the tool": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			return second(k.DeleteTool(ctx, k.Owner, g.Tool))
		},
		"nothing": stays,
		"lock":    func(k *agentkeytest.Kit, _ agentkey.Grant) error { return second(k.Lock(ctx, k.Owner, "an incident")) },
		"the first of two approvals": func(k *agentkeytest.Kit, g agentkey.Grant) error {
			two := int64(2)
			_, err := k.UpdateTool(ctx, k.Owner, g.Tool, agentkey.UpdateToolInput{RequiredApprovals: &two})
			return errors.Join(err, second(k.Approve(ctx, k.Actor(agentkey.RoleApprover), g.ID, agentkey.DecisionInput{})))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			store := memstore.New()
			k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
			_, key := k.Agent("bot")
			_, otherKey := k.Agent("other")
			tool := k.Tool("Linear", "lin_api_test_1")
			rest := k.Tool("GitHub", "ghp_test_1")
			g, err := k.RequestAccess(ctx, key, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
			is.NoErr(err)
			kept, err := k.RequestAccess(ctx, otherKey, agentkey.RequestInput{Tool: rest.ID, Reason: "to read code"})
			is.NoErr(err)
			is.Equal(inbox(t, k, 100), []string{kept.ID, g.ID}) // of one time, the newest id first
			is.NoErr(end(k, g))
			want := []string{kept.ID}
			if slices.Contains([]string{"nothing", "lock", "the first of two approvals"}, name) {
				want = []string{kept.ID, g.ID}
			}
			is.Equal(inbox(t, k, 100), want)
			is.NoErr(store.View(ctx, k.Organization.ID, func(ctx context.Context, tx storage.ReadTx) error {
				left, err := tx.ScanRecords(ctx, storage.Scan{Kind: "access_request", Limit: 100})
				is.Equal(len(left), len(want)) // a list skips what is no longer pending: nothing may pile up unseen
				return err
			}))
			agreed, err := k.Reconcile(ctx, k.Owner)
			is.NoErr(err)
			is.Equal(agreed.Findings, nil)
		})
	}
}

// TestInboxAsksAgain: a request that is made again takes the place of its new time.
func TestInboxAsksAgain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	agent, key := k.Agent("bot")
	first, last := k.Tool("Linear", "lin_api_test_1"), k.Tool("GitHub", "ghp_test_1")
	ask := func(tool agentkey.Tool) agentkey.Grant {
		k.Clock.Advance(time.Minute)
		g, err := k.RequestAccess(ctx, key, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
		is.NoErr(err)
		return g
	}
	a, b := ask(first), ask(last)
	is.Equal(inbox(t, k, 100), []string{b.ID, a.ID})
	is.NoErr(second(k.Deny(ctx, k.Owner, a.ID, "")))
	again := ask(first)
	is.Equal(again.ID, a.ID)
	is.Equal(inbox(t, k, 100), []string{a.ID, b.ID})
	page, err := k.Inbox(ctx, k.Owner, agentkey.InboxInput{Kind: agentkey.InboxAccessRequest})
	is.NoErr(err)
	item := page.Items[0]
	is.Equal(item.Kind, agentkey.InboxAccessRequest)
	is.Equal(item.RequestedAt, again.RequestedAt)
	is.Equal(item.Request.AgentName, agent.Name)
	is.Equal(item.Request.ToolName, first.Name)
	is.Equal(item.Request.Reason, "to file issues")
}

// TestInboxPages walks a long inbox, most of it of one time, in pages of every
// length, while nothing changes: each item once, in one order.
func TestInboxPages(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	tool := k.Tool("Linear", "lin_api_test_1")
	for i := range 25 {
		if i%10 == 9 {
			k.Clock.Advance(time.Second)
		}
		_, key := k.Agent(fmt.Sprintf("bot %d", i))
		_, err := k.RequestAccess(t.Context(), key, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
		is.NoErr(err)
	}
	whole := inbox(t, k, 500)
	is.Equal(len(whole), 25)
	for _, limit := range []int{1, 2, 7, 24, 25, 26} {
		is.Equal(inbox(t, k, limit), whole)
	}
}

func TestInboxRefuses(t *testing.T) {
	t.Parallel()
	k := agentkeytest.New(t)
	for name, in := range map[string]agentkey.InboxInput{
		"limit":             {Limit: 501},
		"negative limit":    {Limit: -1},
		"kind":              {Kind: "grant"},
		"cursor":            {Cursor: "!"},
		"cursor's time":     {Cursor: "MS9hY2Nlc3NfcmVxdWVzdC94"},               // 1/access_request/x
		"cursor's kind":     {Cursor: "MDAwMDAwMDAwMDAwMDAwMDAwMDEvZ3JhbnQveA"}, // …/grant/x
		"cursor without id": {Cursor: "MDAwMDAwMDAwMDAwMDAwMDAwMDEvZ3JhbnQv"},   // …/grant/
		"cursor with NUL":   {Cursor: "MDAwMDAwMDAwMDAwMDAwMDAwMDEvYWNjZXNzX3JlcXVlc3QvAA"},
	} {
		if _, err := k.Inbox(t.Context(), k.Owner, in); !errors.Is(err, agentkey.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInboxRecordsDecideNothing: who removes the record of a request, or puts an
// old one back, hides or shows nothing that the log does not tell of, and can't
// keep anybody from deciding.
func TestInboxRecordsDecideNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	_, key := k.Agent("bot")
	ask := func(name string) agentkey.Grant {
		g, err := k.RequestAccess(ctx, key, agentkey.RequestInput{Tool: k.Tool(name, "lin_api_test_1").ID, Reason: "to file issues"})
		is.NoErr(err)
		return g
	}
	hidden, stale := ask("Linear"), ask("GitHub")
	var old storage.Record
	edit := func(fn func(ctx context.Context, tx storage.Tx) (bool, error)) {
		is.NoErr(k.Config.Storage.Update(ctx, k.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
			ok, err := fn(ctx, tx)
			if err == nil && !ok {
				err = errors.New("nothing was edited")
			}
			return err
		}))
	}
	edit(func(ctx context.Context, tx storage.Tx) (ok bool, err error) {
		if old, _, err = tx.Record(ctx, "access_request", stale.ID); err != nil {
			return false, err
		}
		return tx.DeleteRecord(ctx, "access_request", hidden.ID, 1)
	})
	is.NoErr(second(k.Approve(ctx, k.Owner, stale.ID, agentkey.DecisionInput{})))
	edit(func(ctx context.Context, tx storage.Tx) (bool, error) {
		old.Organization = k.Organization.ID
		return tx.PutRecord(ctx, old)
	})
	is.Equal(inbox(t, k, 100), nil)
	agreed, err := k.Reconcile(ctx, k.Owner)
	is.NoErr(err)
	found := map[string]string{}
	for _, f := range agreed.Findings {
		found[f.ID] = f.Problem
	}
	is.Equal(found, map[string]string{hidden.ID: "record is missing", stale.ID: "log says that it was removed"})
	is.NoErr(second(k.Approve(ctx, k.Owner, hidden.ID, agentkey.DecisionInput{})))
}

func TestActivity(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	agent, key := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	k.Allow(agent, tool)
	for range 25 {
		v, err := k.Vend(ctx, key, tool.ID)
		is.NoErr(err)
		v.Credential.Destroy()
	}
	for limit, want := range map[int]int{0: 5, -3: 1, 1: 1, 20: 20, 21: 20} {
		ofAgent, err := k.AgentActivity(ctx, k.Owner, agent.ID, agentkey.ActivityInput{Limit: limit})
		is.NoErr(err)
		is.Equal(len(ofAgent.Events), want)
		ofTool, err := k.ToolActivity(ctx, k.Owner, tool.ID, agentkey.ActivityInput{Limit: limit})
		is.NoErr(err)
		is.Equal(len(ofTool.Events), want)
	}
	var actions []string
	in := agentkey.ActivityInput{Limit: 20}
	for {
		page, err := k.AgentActivity(ctx, k.Owner, agent.ID, in)
		is.NoErr(err)
		for _, e := range page.Events {
			actions = append(actions, string(e.Action))
		}
		if in.Cursor = page.Next; in.Cursor == "" {
			break
		}
	}
	is.Equal(len(actions), 27)
	is.Equal(actions[25:], []string{"grant.assigned", "agent.created"})
	none, err := k.AgentActivity(ctx, k.Owner, "unknown", agentkey.ActivityInput{})
	is.NoErr(err)
	is.Equal(len(none.Events), 0)
	_, err = k.ToolActivity(ctx, k.Owner, "", agentkey.ActivityInput{})
	is.True(errors.Is(err, agentkey.ErrInvalid)) // no filter would be every event
}

func TestOnboardingKeepsTheFirstTime(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	s, err := k.Settings(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(s.OnboardingDismissedAt, int64(0))
	dismissed, err := k.DismissOnboarding(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(dismissed.OnboardingDismissedAt, k.Clock.Now().UnixMicro())
	k.Clock.Advance(time.Hour)
	again, err := k.DismissOnboarding(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(again, dismissed)
	s, err = k.Settings(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(s, dismissed)
}

// TestAdministratorsAndTokensInPages reads both lists in pages, with removed ones
// in between.
func TestAdministratorsAndTokensInPages(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	approver := k.Actor(agentkey.RoleApprover)
	for i := range 12 {
		admin, err := k.AddAdministrator(ctx, k.Owner, agentkey.AddAdministratorInput{Label: fmt.Sprintf("person %d", i), Role: agentkey.RoleAuditor})
		is.NoErr(err)
		_, err = k.CreateToken(ctx, approver, agentkey.CreateTokenInput{Name: "laptop"})
		is.NoErr(err)
		if i%3 == 0 {
			is.NoErr(k.RemoveAdministrator(ctx, k.Owner, admin.ID))
		}
	}
	administrators := func(in agentkey.ListInput) ([]string, error) {
		found, err := k.Administrators(ctx, k.Owner, in)
		return ids(found, func(a agentkey.Administrator) string { return a.ID }), err
	}
	tokens := func(a agentkey.Actor) func(agentkey.ListInput) ([]string, error) {
		return func(in agentkey.ListInput) ([]string, error) {
			found, err := k.Tokens(ctx, a, in)
			return ids(found, func(t agentkey.Token) string { return t.ID }), err
		}
	}
	for name, list := range map[string]struct {
		read func(agentkey.ListInput) ([]string, error)
		want int
	}{
		"administrators": {administrators, 10}, "all tokens": {tokens(k.Owner), 14}, "own tokens": {tokens(approver), 13},
	} {
		whole, err := list.read(agentkey.ListInput{})
		is.NoErr(err)
		if len(whole) != list.want {
			t.Errorf("%s: %d, want %d", name, len(whole), list.want)
		}
		is.True(slices.IsSortedFunc(whole, func(a, b string) int { return -strings.Compare(a, b) })) // newest first
		var paged []string
		for in := (agentkey.ListInput{Limit: 3}); ; {
			some, err := list.read(in)
			is.NoErr(err)
			paged = append(paged, some...)
			if len(some) < in.Limit {
				break
			}
			in.After = some[len(some)-1]
		}
		is.Equal(paged, whole)
		_, err = list.read(agentkey.ListInput{Limit: 501})
		is.True(errors.Is(err, agentkey.ErrInvalid))
	}
	named, err := k.Administrators(ctx, k.Owner, agentkey.ListInput{Name: "person 4"})
	is.NoErr(err)
	is.Equal(len(named), 1)
}

func ids[T any](items []T, id func(T) string) (all []string) {
	for _, item := range items {
		all = append(all, id(item))
	}
	return all
}
