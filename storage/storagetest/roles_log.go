package storagetest

import (
	"context"
	"fmt"
	"math"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

func checkLog(c *check) {
	for what, bad := range map[string]func(*storage.Append){
		"a gap before the lines":      func(a *storage.Append) { a.Lines = a.Lines[1:] },
		"a gap between the lines":     func(a *storage.Append) { a.Lines[1].Seq++ },
		"a line twice":                func(a *storage.Append) { a.Lines[1] = a.Lines[0] },
		"a head that is ahead":        func(a *storage.Append) { a.Head.Size, a.Head.Edge = 4, a.Head.Edge[:32] },
		"a head that is behind":       func(a *storage.Append) { a.Head.Size, a.Head.Edge = 1, a.Head.Edge[:32] },
		"an edge of another size":     func(a *storage.Append) { a.Head.Edge = a.Head.Edge[:32] },
		"no lines":                    func(a *storage.Append) { a.Lines = nil },
		"a line without content":      func(a *storage.Append) { a.Lines[0].Content = nil },
		"a head without a signature":  func(a *storage.Append) { a.Head.Signed = nil },
		"a head of an earlier epoch":  func(a *storage.Append) { a.Head.Epoch = -1 },
		"a head with an earlier time": func(a *storage.Append) { a.Head.Time = -1 },
	} {
		c.refused(what, acme, func(ctx context.Context, tx storage.Tx) error {
			a := following(got(tx.Head(ctx)), acme, event(audit.ActionAgentCreated), event(audit.ActionAgentCreated), event(audit.ActionAgentCreated))
			bad(&a)
			return tx.Append(ctx, a)
		})
	}
	var lines []audit.Line
	kept := []storage.Checkpoint(nil)
	for turn := range 4 {
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			for range 2 { // twice in one transaction: the second follows the first
				lines = append(lines, appendTo(ctx, tx, acme, turn%2 == 0, event(audit.ActionAgentCreated), event(audit.ActionAgentUpdated))...)
				head := got(tx.Head(ctx))
				equal("size of the head", head.Size, int64(len(lines)))
				if turn%2 == 0 {
					kept = append(kept, storage.Checkpoint{Size: head.Size, Signed: head.Signed})
				}
				equal("kept size", head.KeptSize, kept[len(kept)-1].Size)
				if turn%2 == 0 {
					equal("kept time", head.KeptTime, head.Time)
				}
			}
			equal("lines in the transaction", got(tx.Lines(ctx, 0, 100)), lines)
		})
	}
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		equal("all lines", got(tx.Lines(ctx, 0, 100)), lines)
		equal("some lines", got(tx.Lines(ctx, 5, 3)), lines[5:8])
		equal("last lines", got(tx.Lines(ctx, 14, 100)), lines[14:])
		equal("lines behind the end", got(tx.Lines(ctx, 16, 100)), []audit.Line(nil))
		equal("checkpoints", got(tx.Checkpoints(ctx, 0, 100)), kept)
		equal("checkpoints after the first", got(tx.Checkpoints(ctx, kept[0].Size, 2)), kept[1:3])
		equal("checkpoints after the last", got(tx.Checkpoints(ctx, 100, 2)), []storage.Checkpoint(nil))
	})
}

func checkErase(c *check) {
	var want []audit.Line
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		e := event(audit.ActionAgentCreated)
		want = appendTo(ctx, tx, acme, false, e, e, e, e)
	})
	erase := func(es ...storage.Erasure) {
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			ok(tx.Erase(ctx, es))
			equal("lines in the transaction", got(tx.Lines(ctx, 0, 10)), want)
		})
		c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
			lines := got(tx.Lines(ctx, 0, 10))
			equal("lines", lines, want)
			for i, l := range lines {
				if l.Content == nil != (want[i].Content == nil) {
					failf("content of line %d: nil is %t", i, l.Content == nil)
				}
			}
		})
	}
	want[0].Content, want[1].Personal, want[2].Content, want[2].Personal = nil, nil, nil, nil
	erase(storage.Erasure{Seq: 0, Content: true}, storage.Erasure{Seq: 1, Personal: true}, storage.Erasure{Seq: 2, Content: true, Personal: true})
	erase(storage.Erasure{Seq: 0, Content: true}, storage.Erasure{Seq: 2}, storage.Erasure{Seq: 3})
	want[0].Personal = nil
	erase(storage.Erasure{Seq: 0, Personal: true})
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		equal("size of the log", got(tx.Head(ctx)).Size, int64(4))
		want = append(want, appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))...)
	})
	erase()
}

// scans are all the ways to read the index: the entries are by value 1: b, c;
// 1x: a; 2: e, d (which has no index of this name before); é: f.
func checkScans(c *check) {
	entry := func(value string) []storage.IndexEntry {
		return []storage.IndexEntry{{Name: "other", Value: "same"}, {Name: "by", Value: value}}
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		for id, value := range map[string]string{"a": "1x", "b": "1", "c": "1", "d": "9", "e": "2", "f": "é"} {
			yes(tx.PutRecord(ctx, record(acme, "suggestion", id, entry(value)...)))
		}
		yes(tx.PutRecord(ctx, record(acme, "suggestion", "none")))
		yes(tx.PutRecord(ctx, record(acme, "guide", "z", entry("1")...)))
		moved := record(acme, "suggestion", "d", entry("2")...)
		moved.Revision = 2
		yes(tx.PutRecord(ctx, moved))
		yes(tx.PutRecord(ctx, record(acme, "suggestion", "gone", entry("1")...)))
		yes(tx.DeleteRecord(ctx, "suggestion", "gone", 1))
	})
	for _, test := range []struct {
		s    storage.Scan
		want string
	}{
		{storage.Scan{Index: "by"}, "b c a d e f"},
		{storage.Scan{Index: "by", Descending: true}, "f e d a c b"},
		{storage.Scan{Index: "by", From: "1x"}, "a d e f"},
		{storage.Scan{Index: "by", To: "2"}, "b c a"},
		{storage.Scan{Index: "by", From: "1x", To: "é"}, "a d e"},
		{storage.Scan{Index: "by", From: "1x", To: "é", Descending: true}, "e d a"},
		{storage.Scan{Index: "by", From: "3", To: "2"}, ""},
		{storage.Scan{Index: "by", Limit: 2}, "b c"},
		{storage.Scan{Index: "by", AfterValue: "1", AfterID: "b", Limit: 2}, "c a"},
		{storage.Scan{Index: "by", AfterValue: "2", AfterID: "d", Descending: true, Limit: 2}, "a c"},
		{storage.Scan{Index: "by", AfterValue: "1", AfterID: "c", From: "1", To: "2"}, "a"},
		{storage.Scan{Index: "other", From: "same"}, "a b c d e f"},
		{storage.Scan{Index: "none"}, ""},
		{storage.Scan{}, "a b c d e f none"},
		{storage.Scan{Descending: true, Limit: 3}, "none f e"},
		{storage.Scan{From: "b", To: "e"}, "b c d"},
		{storage.Scan{AfterID: "c", Limit: 2}, "d e"},
		{storage.Scan{AfterID: "c", Descending: true}, "b a"},
	} {
		test.s.Kind = "suggestion"
		if test.s.Limit == 0 {
			test.s.Limit = 10
		}
		c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
			seen := ""
			for i, r := range got(tx.ScanRecords(ctx, test.s)) {
				if i > 0 {
					seen += " "
				}
				seen += r.ID
			}
			equal(fmt.Sprintf("%+v", test.s), seen, test.want)
		})
	}
}

// lease takes deliveries and fails when there are none.
func (c *check) lease(s storage.Store, now, until int64, limit int) []storage.Delivery {
	ds := got(s.Lease(c.ctx, storage.LeaseQuery{Now: now, Until: until, Node: "node-1", Limit: limit}))
	if len(ds) == 0 {
		failf("nothing was leased at %d", now)
	}
	return ds
}

func checkOutbox(c *check) {
	const until = clock + 100
	for _, org := range []string{acme, globex} {
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			ok(tx.Enqueue(ctx, []storage.Delivery{
				delivery(org, org+"-late", clock+50), delivery(org, org+"-second", clock-10), delivery(org, org+"-first", clock-30),
			}))
		})
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		ok(tx.Enqueue(ctx, []storage.Delivery{delivery(acme, "zero", math.MinInt64)}))
	})
	leased := c.lease(c.store(), clock, until, 3)
	equal("the longest due", leased[0].ID, "zero")
	want := delivery(acme, "zero", math.MinInt64)
	want.LeaseUntil, want.LeaseNode, want.Attempts = until, "node-1", 1
	equal("what was leased", leased[0], want)
	name := func(d storage.Delivery) string { return d.ID }
	equal("the next", descending(ids(leased[1:], name)), []string{"globex-first", "acme-first"})
	equal("the rest", descending(ids(c.lease(c.store(), clock, until, 10), name)), []string{"globex-second", "acme-second"})
	equal("leased twice", len(got(c.store().Lease(c.ctx, storage.LeaseQuery{Now: clock, Until: until, Node: "node-2", Limit: 10}))), 0)
	settle := func(ctx context.Context, tx storage.Tx, s storage.Settlement) (bool, error) {
		if s.LeaseUntil == 0 {
			s.LeaseUntil, s.LeaseNode = until, "node-1"
		}
		return tx.Settle(ctx, s)
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		no(settle(ctx, tx, storage.Settlement{ID: "zero", LeaseUntil: until - 1, LeaseNode: "node-1", Done: true}))
		no(settle(ctx, tx, storage.Settlement{ID: "zero", LeaseUntil: until, LeaseNode: "node-2", Done: true}))
		no(settle(ctx, tx, storage.Settlement{ID: "acme-late", Done: true}))
		no(settle(ctx, tx, storage.Settlement{ID: "globex-first", Done: true}))
		yes(settle(ctx, tx, storage.Settlement{ID: "zero", Done: true}))
		no(settle(ctx, tx, storage.Settlement{ID: "zero", Done: true}))
		yes(settle(ctx, tx, storage.Settlement{ID: "acme-first", State: storage.DeliveryPending, NextAt: clock + 20, LastError: odd}))
		yes(settle(ctx, tx, storage.Settlement{ID: "acme-second", State: storage.DeliveryDead, LastError: "dead"}))
	})
	equal("before it is due again", len(got(c.store().Lease(c.ctx, storage.LeaseQuery{Now: clock + 19, Until: until, Node: "node-2", Limit: 10}))), 0)
	again := c.lease(c.store(), clock+20, until, 10)
	equal("postponed", ids(again, name), []string{"acme-first"})
	equal("its last error", again[0].LastError, odd)
	equal("its attempts", again[0].Attempts, int64(2))
	c.refused("an id that is taken", acme, func(ctx context.Context, tx storage.Tx) error {
		return tx.Enqueue(ctx, []storage.Delivery{delivery(acme, "acme-late", clock)})
	})
	// The leases end; the dead one stays dead.
	equal("after the leases", descending(ids(c.lease(c.store(), until, until+100, 10), name)),
		[]string{"globex-second", "globex-late", "globex-first", "acme-late", "acme-first"})
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		no(settle(ctx, tx, storage.Settlement{ID: "acme-first", Done: true})) // of the lease before
	})
}

func checkEvents(c *check) {
	const n = 30
	actions := []audit.Action{audit.ActionAgentCreated, audit.ActionCredentialVended, audit.ActionGrantRevoked}
	var lines []audit.Line
	for batch := range 3 {
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			var events []audit.Event
			for i := range n / 3 {
				e := event(actions[(batch+i)%3])
				e.Agent, e.Tool = fmt.Sprint("agent-", i%2), fmt.Sprint("tool-", i%5)
				e.Actor.ID, e.Grant.ID = fmt.Sprint("actor-", i%4), fmt.Sprint("grant-", i%3)
				e.Target = audit.Ref{Kind: audit.KindAgent, ID: fmt.Sprint("agent-", i%3)}
				if i%4 == 3 {
					e.Outcome, e.Reason = audit.OutcomeRefused, "revoked"
				}
				events = append(events, e)
			}
			lines = append(lines, appendTo(ctx, tx, acme, false, events...)...)
		})
		// Complete after each commit, not only at the end.
		page := got(c.store().Events(c.ctx, acme, storage.EventQuery{Limit: 1}))
		equal("newest line", page.Lines, lines[len(lines)-1:])
	}
	c.update(globex, func(ctx context.Context, tx storage.Tx) {
		appendTo(ctx, tx, globex, false, event(audit.ActionAgentCreated))
	})
	at := got(audit.Parse(lines[10].Content)).Time
	for _, f := range []audit.Filter{
		{}, {Agent: "agent-1"}, {Agent: "agent-2"}, {Tool: "tool-4"}, {Actor: "actor-3"}, {Target: "agent-2"}, {Grant: "grant-1"},
		{Action: audit.ActionCredentialVended}, {Outcome: audit.OutcomeRefused}, {From: at}, {To: at}, {From: at, To: at},
		{Agent: "agent-1", Action: audit.ActionGrantRevoked, From: at}, {Agent: "none"}, {From: at + 1_000_000},
	} {
		c.eventsOf(lines, f)
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		ok(tx.Erase(ctx, []storage.Erasure{{Seq: 29, Content: true}, {Seq: 12, Content: true, Personal: true}, {Seq: 3, Personal: true}}))
	})
	lines[3].Personal = nil
	c.eventsOf(append(lines[:12:12], lines[13:29]...), audit.Filter{})
	equal("events of no log", got(c.store().Events(c.ctx, "none", storage.EventQuery{Limit: 1})), storage.EventPage{})
	for _, q := range []storage.EventQuery{{Limit: 1, Before: -1}, {Limit: 1, Filter: audit.Filter{From: 2, To: 1}}} {
		is(second(c.store().Events(c.ctx, acme, q)), storage.ErrInvalid)
	}
}

// eventsOf compares what a filter finds with the lines that it matches.
func (c *check) eventsOf(lines []audit.Line, f audit.Filter) {
	var want []audit.Line
	var latest int64
	for i := len(lines) - 1; i >= 0; i-- {
		if e := got(audit.Parse(lines[i].Content)); f.Match(&e) {
			want = append(want, lines[i])
			latest = max(latest, e.Time)
		}
	}
	what := fmt.Sprintf("%+v", f)
	count := got(c.store().Events(c.ctx, acme, storage.EventQuery{Filter: f, Count: true, Before: 2, Limit: 1}))
	equal("count of "+what, count, storage.EventPage{Count: int64(len(want)), Latest: latest})
	for _, limit := range []int{3, len(want), 100} {
		if limit == 0 {
			continue
		}
		var list []audit.Line
		for before := int64(0); ; {
			page := got(c.store().Events(c.ctx, acme, storage.EventQuery{Filter: f, Before: before, Limit: limit}))
			list = append(list, page.Lines...)
			if len(page.Lines) > limit || len(list) > len(want) {
				failf("lines of %s: a page over its limit, or lines twice", what)
			}
			if page.Next == 0 {
				break
			}
			if before != 0 && page.Next >= before {
				failf("lines of %s: the next page after %d is said to begin at %d", what, before, page.Next)
			}
			before = page.Next
		}
		equal(fmt.Sprintf("lines of %s in pages of %d", what, limit), list, want)
	}
}

func checkDue(c *check) {
	for _, org := range []string{acme, globex} {
		c.update(org, func(ctx context.Context, tx storage.Tx) { c.ends(ctx, tx, org) })
	}
	// Times are counted from the clock; those of globex are one later.
	want := []storage.Due{
		{Organization: acme, Kind: audit.KindKey, ID: "key-1", Agent: "agent-0", At: clock + 10},
		{Organization: globex, Kind: audit.KindKey, ID: "key-1", Agent: "agent-0", At: clock + 11},
		{Organization: acme, Kind: audit.KindGrant, ID: "grant-1", Agent: "agent-0", Tool: "tool-1", At: clock + 20},
		{Organization: globex, Kind: audit.KindGrant, ID: "grant-1", Agent: "agent-0", Tool: "tool-1", At: clock + 21},
		{Organization: acme, Kind: audit.KindCredential, ID: "own", Tool: "tool-0", Grant: "grant-0", At: clock + 30},
		{Organization: globex, Kind: audit.KindCredential, ID: "own", Tool: "tool-0", Grant: "grant-0", At: clock + 31},
		{Organization: acme, Kind: audit.KindCredential, ID: "shared", Tool: "tool-0", At: clock + 40},
		{Organization: globex, Kind: audit.KindCredential, ID: "shared", Tool: "tool-0", At: clock + 41},
	}
	for _, test := range []struct {
		now   int64
		limit int
		n     int
	}{{9, 10, 0}, {10, 10, 1}, {20, 10, 3}, {30, 2, 2}, {100, 10, 8}, {100, 5, 5}} {
		due := got(c.store().Due(c.ctx, clock+test.now, test.limit))
		equal(fmt.Sprintf("due at %d, at most %d", test.now, test.limit), due, want[:test.n])
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		k := agentKey(acme, "key-1", "agent-0")
		k.ExpiresAt, k.Status, k.Revision = clock+10, storage.KeyExpired, 2
		yes(tx.PutKey(ctx, k))
		yes(tx.DeleteCredential(ctx, "shared", 1))
		g := grant(acme, "grant-1", "agent-0", "tool-1")
		g.Status, g.ExpiresAt, g.Revision = grants.StatusApproved, clock+1000, 2
		yes(tx.PutGrant(ctx, g))
	})
	left := []storage.Due{want[1], want[3], want[4], want[5], want[7]}
	equal("due after some were ended", got(c.store().Due(c.ctx, clock+100, 10)), left)
}

// ends puts rows that come to their end and rows that don't.
func (c *check) ends(ctx context.Context, tx storage.Tx, org string) {
	later := int64(0)
	if org == globex {
		later = 1
	}
	base(ctx, tx, org)
	g := grant(org, "grant-1", "agent-0", "tool-1")
	g.Status, g.ExpiresAt = grants.StatusApproved, clock+20+later
	yes(tx.PutGrant(ctx, g))
	k, revoked, endless := agentKey(org, "key-1", "agent-0"), agentKey(org, "key-2", "agent-0"), agentKey(org, "key-3", "agent-0")
	k.ExpiresAt, revoked.ExpiresAt, revoked.Status = clock+10+later, clock+5, storage.KeyRevoked
	shared, own := credential(org, "shared", "tool-0", ""), credential(org, "own", "tool-0", "grant-0")
	shared.ExpiresAt, own.ExpiresAt = clock+40+later, clock+30+later
	expired := credential(org, "expired", "tool-1", "")
	expired.Status, expired.ExpiresAt = storage.CredentialExpired, clock+1
	for _, key := range []storage.Key{k, revoked, endless} {
		yes(tx.PutKey(ctx, key))
	}
	for _, cr := range []storage.Credential{shared, own, expired} {
		yes(tx.PutCredential(ctx, cr))
	}
}
