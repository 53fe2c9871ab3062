package histories_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/histories"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// call is an operation of a history that is written by hand.
type call struct {
	in   histories.Input
	out  histories.Output
	from int64
	to   int64
}

// The parts of such a history: agent 0 holds key 1, tool 0 has credential 10.
var (
	vend     = histories.Input{Kind: histories.Vend, Key: 1}
	request  = histories.Input{Kind: histories.Request, Key: 1}
	assign   = histories.Input{Kind: histories.Assign}
	once     = histories.Input{Kind: histories.Assign, Terms: histories.Terms{Max: 1}}
	twice    = histories.Input{Kind: histories.Assign, Terms: histories.Terms{Max: 2}}
	short    = histories.Input{Kind: histories.Assign, Terms: histories.Terms{Seconds: 5}}
	approve  = histories.Input{Kind: histories.Approve}
	revoke   = histories.Input{Kind: histories.Revoke}
	suspend  = histories.Input{Kind: histories.Suspend}
	replace  = histories.Input{Kind: histories.Replace, Credential: 11}
	rotate   = histories.Input{Kind: histories.Rotate, Key: 3}
	advance  = histories.Input{Kind: histories.Advance, Terms: histories.Terms{Seconds: 5}}
	assign1  = histories.Input{Kind: histories.Assign, Tool: 1, Credential: 12}
	suggest  = histories.Input{Kind: histories.Suggest, Key: 1}
	dismiss  = histories.Input{Kind: histories.Dismiss}
	add      = histories.Input{Kind: histories.Add, Tool: 3, Credential: 30}
	vend3    = histories.Input{Kind: histories.Vend, Tool: 3, Key: 1}
	joined   = histories.Output{Joined: true}
	learn    = histories.Input{Kind: histories.Learn, Key: 1}
	reject   = histories.Input{Kind: histories.Reject, Fact: 1}
	accept   = histories.Input{Kind: histories.Accept, Fact: 1, Text: 40}
	rewrite  = histories.Input{Kind: histories.Rewrite, Text: 41}
	first    = histories.Output{Fact: 1}
	firstToo = histories.Output{Fact: 1, Joined: true}
	another  = histories.Output{Fact: 2}
	guided   = histories.Output{Credential: 10, Left: -1, Text: 41}
	lock     = histories.Input{Kind: histories.Lock}
	unlock   = histories.Input{Kind: histories.Unlock}
	deny     = histories.Input{Kind: histories.Deny}
	narrow   = histories.Input{Kind: histories.Narrow, Terms: histories.Terms{Max: 1}}
	request2 = histories.Input{Kind: histories.Request, Tool: 2, Key: 1}
	approve2 = histories.Input{Kind: histories.Approve, Tool: 2}
	second   = histories.Input{Kind: histories.Approve, Tool: 2, Actor: 1}
	assign2  = histories.Input{Kind: histories.Assign, Tool: 2}
	revoke2  = histories.Input{Kind: histories.Revoke, Tool: 2}
	vend2    = histories.Input{Kind: histories.Vend, Tool: 2, Key: 1}
	guarded  = histories.Output{Credential: 20, Left: -1}
	vend1    = histories.Input{Kind: histories.Vend, Tool: 1, Key: 1}
	given    = histories.Output{Credential: 10, Left: -1}
	replaced = histories.Output{Credential: 11, Left: -1}
	done     = histories.Output{Cycle: 1}
	plain    = histories.Output{}
)

func refused(code string) histories.Output { return histories.Output{Code: code} }

func TestOrdersByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		order bool
		calls []call
	}{
		{"vend of nothing", true, []call{{vend, refused("no_grant"), 1, 2}}},
		{"vend without a grant", false, []call{{vend, given, 1, 2}}},
		{"request, approve, vend", true, []call{{request, done, 1, 2}, {vend, refused("pending"), 3, 4}, {approve, done, 5, 6}, {vend, given, 7, 8}}},
		{"vend before the approval was asked for", false, []call{{request, done, 1, 2}, {vend, given, 3, 4}, {approve, done, 5, 6}}},
		{"vend beside a revocation", true, []call{{assign, done, 1, 2}, {revoke, done, 3, 6}, {vend, given, 4, 7}}},
		{"vend after a revocation", false, []call{{assign, done, 1, 2}, {revoke, done, 3, 4}, {vend, given, 5, 6}}},
		{"refused beside the revocation, then given", false, []call{
			{assign, done, 1, 2}, {revoke, done, 3, 10}, {vend, refused("revoked"), 4, 5}, {vend, given, 6, 7},
		}},
		{"refused as revoked without a revocation", false, []call{{assign, done, 1, 2}, {vend, refused("revoked"), 3, 4}}},
		{"old credential after the replacement", false, []call{{assign, done, 1, 2}, {replace, plain, 3, 4}, {vend, given, 5, 6}}},
		{"new credential, then the old one again", false, []call{
			{assign, done, 1, 2}, {replace, plain, 3, 10}, {vend, replaced, 4, 5}, {vend, given, 6, 7},
		}},
		{"old key after the rotation", false, []call{{assign, done, 1, 2}, {rotate, plain, 3, 4}, {vend, given, 5, 6}}},
		{"one vend too many", false, []call{{once, done, 1, 2}, {vend, histories.Output{Credential: 10}, 3, 6}, {vend, histories.Output{Credential: 10}, 4, 7}}},
		{"all vends used", true, []call{{once, done, 1, 2}, {vend, histories.Output{Credential: 10}, 3, 6}, {vend, refused("used_up"), 4, 7}}},
		{"vend after the end", false, []call{{short, done, 1, 2}, {advance, plain, 3, 4}, {vend, given, 5, 6}}},
		{"expired at the end", true, []call{{short, done, 1, 2}, {advance, plain, 3, 4}, {vend, refused("expired"), 5, 6}}},
		{"suspended", true, []call{{assign, done, 1, 2}, {suspend, histories.Output{Revoked: 1}, 3, 4}, {vend, refused("agent_suspended"), 5, 6}}},
		{"a suspension that left a grant alone", false, []call{{assign, done, 1, 2}, {suspend, plain, 3, 4}}},
		{"half a suspension", false, []call{ // each tool alone would have an order
			{assign, done, 1, 2}, {assign1, done, 3, 4}, {suspend, histories.Output{Revoked: histories.Untold}, 5, 20},
			{vend, refused("agent_suspended"), 6, 7}, {vend1, histories.Output{Credential: 12, Left: -1}, 8, 9},
		}},
		{"vend of a locked organization", false, []call{{assign, done, 1, 2}, {lock, plain, 3, 4}, {vend, given, 5, 6}}},
		{"refused while it is locked, and given again", true, []call{
			{assign, done, 1, 2}, {lock, plain, 3, 4}, {vend, refused("organization_locked"), 5, 6}, {unlock, plain, 7, 8}, {vend, given, 9, 10},
		}},
		{"request of a locked organization", false, []call{{lock, plain, 1, 2}, {request, done, 3, 4}}},
		{"denied", true, []call{{request, done, 1, 2}, {deny, done, 3, 4}, {vend, refused("denied"), 5, 6}}},
		{"one approval of two", false, []call{{request2, done, 1, 2}, {approve2, done, 3, 4}, {vend2, guarded, 5, 6}}},
		{"two approvals of two", true, []call{{request2, done, 1, 2}, {approve2, done, 3, 6}, {second, done, 4, 7}, {vend2, guarded, 8, 9}}},
		{"the same approver twice", false, []call{{request2, done, 1, 2}, {approve2, done, 3, 4}, {approve2, done, 5, 6}}},
		{"the same approver twice, refused", true, []call{{request2, done, 1, 2}, {approve2, done, 3, 4}, {approve2, refused("already_decided"), 5, 6}}},
		{"an approval of the cycle before", false, []call{
			{request2, done, 1, 2}, {approve2, done, 3, 4}, {revoke2, done, 5, 6}, {request2, histories.Output{Cycle: 2}, 7, 8},
			{second, histories.Output{Cycle: 2}, 9, 10}, {vend2, guarded, 11, 12},
		}},
		{"assigned where two must approve", false, []call{{assign2, done, 1, 2}}},
		{"narrowed to one vend", false, []call{
			{assign, done, 1, 2}, {narrow, done, 3, 4}, {vend, histories.Output{Credential: 10}, 5, 6}, {vend, given, 7, 8},
		}},
		{"narrowed to what was used", true, []call{
			{twice, done, 1, 2}, {vend, histories.Output{Credential: 10, Left: 1}, 3, 4}, {narrow, refused(histories.Invalid), 5, 6},
			{vend, histories.Output{Credential: 10}, 7, 8},
		}},
		{"suggested, joined", true, []call{{suggest, plain, 1, 2}, {suggest, joined, 3, 4}}},
		{"suggested twice beside each other, both the first", false, []call{{suggest, plain, 1, 4}, {suggest, plain, 2, 5}}},
		{"suggested after it was dismissed", false, []call{{suggest, plain, 1, 2}, {dismiss, plain, 3, 4}, {suggest, joined, 5, 6}}},
		{"suggested, added, requested by that", true, []call{{suggest, plain, 1, 2}, {add, plain, 3, 4}, {vend3, refused("pending"), 5, 6}}},
		{"added without the request", false, []call{{suggest, plain, 1, 2}, {add, plain, 3, 4}, {vend3, refused("no_grant"), 5, 6}}},
		{"added after it was dismissed", true, []call{
			{suggest, plain, 1, 2}, {dismiss, plain, 3, 4}, {add, plain, 5, 6}, {vend3, refused("no_grant"), 7, 8}, {suggest, refused("existing_tool"), 9, 10},
		}},
		{"learned, learned by another", true, []call{{assign, done, 1, 2}, {learn, first, 3, 6}, {learn, firstToo, 4, 7}}},
		{"learned twice, both the first", false, []call{{assign, done, 1, 2}, {learn, first, 3, 6}, {learn, another, 4, 7}}},
		{"learned without access", false, []call{{learn, first, 1, 2}}},
		{"learned after a revocation", false, []call{{assign, done, 1, 2}, {revoke, done, 3, 4}, {learn, first, 5, 6}}},
		{"learned after it was rejected", false, []call{{assign, done, 1, 2}, {learn, first, 3, 4}, {reject, plain, 5, 6}, {learn, firstToo, 7, 8}}},
		{"refused after it was rejected", true, []call{
			{assign, done, 1, 2}, {learn, first, 3, 4}, {reject, plain, 5, 6}, {learn, refused("instructions_dismissed"), 7, 8},
		}},
		{"learned anew for a new version", true, []call{
			{assign, done, 1, 2}, {learn, first, 3, 4}, {reject, plain, 5, 6}, {rewrite, plain, 7, 8}, {learn, another, 9, 10},
		}},
		{"the suggestion of an older version, joined", false, []call{
			{assign, done, 1, 2}, {learn, first, 3, 4}, {rewrite, plain, 5, 6}, {learn, firstToo, 7, 8},
		}},
		{"the suggestion of an older version, made again", false, []call{
			{assign, done, 1, 2}, {learn, first, 3, 4}, {rewrite, plain, 5, 6}, {learn, first, 7, 8},
		}},
		{"accepted for an older version", false, []call{{assign, done, 1, 2}, {learn, first, 3, 4}, {rewrite, plain, 5, 6}, {accept, plain, 7, 8}}},
		{"refused for an older version, then rejected", true, []call{
			{assign, done, 1, 2}, {learn, first, 3, 4}, {rewrite, plain, 5, 6}, {accept, refused("instructions_changed"), 7, 8}, {reject, plain, 9, 10},
			{vend, guided, 11, 12},
		}},
		{"accepted and rejected", false, []call{{assign, done, 1, 2}, {learn, first, 3, 4}, {accept, plain, 5, 8}, {reject, plain, 6, 9}}},
		{"old instructions after a new version", false, []call{{assign, done, 1, 2}, {rewrite, plain, 3, 4}, {vend, given, 5, 6}}},
		{"unknown whether it was learned, then joined", true, []call{
			{assign, done, 1, 2}, {learn, refused(histories.Unknown), 3, math.MaxInt64}, {learn, firstToo, 5, 6}, {reject, plain, 7, 8},
		}},
		{"unknown and done", true, []call{{assign, done, 1, 2}, {revoke, refused(histories.Unknown), 3, math.MaxInt64}, {vend, refused("revoked"), 5, 6}}},
		{"unknown and not done", true, []call{{assign, done, 1, 2}, {revoke, refused(histories.Unknown), 3, math.MaxInt64}, {vend, given, 5, 6}}},
		{"unknown and done twice", false, []call{
			{assign, done, 1, 2}, {revoke, refused(histories.Unknown), 3, math.MaxInt64},
			{vend, refused("revoked"), 5, 6}, {assign, histories.Output{Cycle: 2}, 7, 8}, {vend, refused("revoked"), 9, 10},
		}},
		{"unavailable but done", false, []call{{assign, done, 1, 2}, {revoke, refused(histories.Unavailable), 3, 4}, {vend, refused("revoked"), 5, 6}}},
		{"an error nobody knows", false, []call{{vend, refused(histories.Internal), 1, 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			h := histories.History{Keys: [histories.Agents]int{1, 2}, Credential: 10, Guarded: 20}
			for i, o := range c.calls {
				h.Operations = append(h.Operations, porcupine.Operation{ClientId: i, Input: o.in, Output: o.out, Call: o.from, Return: o.to})
			}
			err := h.Check(time.Minute)
			is.Equal(err == nil, c.order)
			is.Equal(errors.Is(err, histories.ErrNoOrder), !c.order)
		})
	}
}

// Time that is too short to decide is an error.
func TestUndecidedIsAnError(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	// Which of so many concurrent replacements came last has no end of answers, and
	// none explains the vend.
	h := histories.History{Keys: [histories.Agents]int{1, 2}, Credential: 10}
	for i := range 60 {
		in := replace
		in.Credential = 100 + i
		h.Operations = append(h.Operations, porcupine.Operation{ClientId: i, Input: in, Output: plain, Call: int64(i), Return: 1000})
	}
	h.Operations = append(h.Operations, porcupine.Operation{ClientId: 60, Input: vend, Output: given, Call: 2000, Return: 2001})
	err := h.Check(50 * time.Millisecond)
	is.True(errors.Is(err, histories.ErrUndecided))
}

// Commits whose outcome nobody can tell, some of them kept and some lost, leave a
// history that has an order.
func TestUnknownOutcomesHaveAnOrder(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &forgetful{Store: memstore.New()}
	k := agentkeytest.New(t, func(config *agentkey.Config) { config.Storage = store })
	_, owner := k.NewOrganization("history")
	store.every.Store(60)
	h, err := histories.Record(t.Context(),
		histories.Plan{Seed: 1, Clients: 4, Operations: 600, Weights: histories.Weights(), Trusted: true, Ends: true},
		&histories.Manager{Manager: k.Manager, Actor: owner, Move: k.Clock.Advance})
	store.every.Store(0)
	is.NoErr(err)
	is.NoErr(h.Check(time.Minute))
	unknown := 0
	for _, codes := range h.Tally() {
		unknown += codes[histories.Unknown]
	}
	is.True(unknown > 1)
}

// forgetful is a storage that now and then can't tell whether it committed: by
// turns it has and it has not.
type forgetful struct {
	storage.Store
	every, updates atomic.Int64
}

var errLost = errors.New("the commit was lost")

func (s *forgetful) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	every, n := s.every.Load(), s.updates.Add(1)
	if every == 0 || n%every != 0 {
		return s.Store.Update(ctx, organization, fn)
	}
	lost := n/every%2 == 0
	err := s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		if lost {
			return errLost
		}
		return nil
	})
	if err == nil || errors.Is(err, errLost) {
		return storage.ErrUnknown
	}
	return err
}
