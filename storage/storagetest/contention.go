package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	workers = 8
	turns   = 20
	// racingTime bounds races on slow backends.
	racingTime = 3 * time.Second
)

// one of the stores, by turns.
func (c *check) one(i int) storage.Store { return c.stores[i%len(c.stores)] }

// racing reports whether there is time for another turn.
func racing(began time.Time) bool { return time.Since(began) < racingTime }

// checkSerial lets workers count in one record, which goes wrong as soon as two
// of them read the same number.
func checkSerial(c *check) {
	began := time.Now()
	var counted atomic.Int64
	var inside atomic.Int32
	c.together(workers, func(worker int) {
		for turn := 0; turn < turns && racing(began); turn++ {
			c.insist(c.one(worker), acme, func(ctx context.Context, tx storage.Tx) {
				if inside.Add(1) > 1 {
					failf("two fn run at the same time")
				}
				defer inside.Add(-1)
				r, there, err := tx.Record(ctx, "setting", "counter")
				ok(err)
				if !there {
					r = record(acme, "setting", "counter")
					r.Revision = 0
				}
				if lines := got(tx.Head(ctx)).Size; lines != r.Revision {
					failf("the log has %d lines, the counter stands at %d", lines, r.Revision)
				}
				runtime.Gosched() // lets others try
				r.Revision++
				yes(tx.PutRecord(ctx, r))
				appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))
			})
			counted.Add(1)
		}
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		r := found(tx.Record(ctx, "setting", "counter"))
		equal("counter", r.Revision, counted.Load())
		equal("size of the log", got(tx.Head(ctx)).Size, counted.Load())
	})
}

// fates are ends of an Update: the error that it has to answer, after it has begun
// to write.
var fates = []struct {
	name string
	meet func(ctx context.Context, tx storage.Tx, org string, cancel func()) error
	want error
}{
	{"succeeds", func(context.Context, storage.Tx, string, func()) error { return nil }, nil},
	{"succeeds again", func(context.Context, storage.Tx, string, func()) error { return nil }, nil},
	{"fails", func(context.Context, storage.Tx, string, func()) error { return errTest }, errTest},
	{"succeeds once more", func(context.Context, storage.Tx, string, func()) error { return nil }, nil},
	{"refers to nothing", func(ctx context.Context, tx storage.Tx, org string, _ func()) error {
		return second(tx.PutKey(ctx, agentKey(org, "key-9", "none")))
	}, storage.ErrInvalid},
	{"is cancelled", func(_ context.Context, _ storage.Tx, _ string, cancel func()) error { cancel(); return nil }, context.Canceled},
	{"panics", func(context.Context, storage.Tx, string, func()) error { panic(errTest) }, errTest},
}

// checkAlone has organizations meet every fate beside each other.
func checkAlone(c *check) {
	began := time.Now()
	var stand [workers][]string
	for turn := 0; turn < turns && racing(began); turn++ {
		id := fmt.Sprintf("turn-%02d", turn)
		c.together(workers, func(worker int) {
			fate := fates[(worker+turn)%len(fates)]
			err := storage.ErrBusy
			for errors.Is(err, storage.ErrBusy) && c.ctx.Err() == nil {
				err = c.meet(c.one(worker), fmt.Sprintf("org-%d", worker), id, fate.meet)
			}
			if !errors.Is(err, fate.want) {
				failf("an Update that %s answered %s", fate.name, describe(err))
			}
			if err == nil {
				stand[worker] = append(stand[worker], id)
			}
		})
	}
	for worker, ids := range stand {
		c.view(fmt.Sprintf("org-%d", worker), func(ctx context.Context, tx storage.ReadTx) {
			var found []string
			for _, r := range got(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", Limit: 100})) {
				found = append(found, r.ID)
			}
			equal("what stands", found, ids)
			equal("size of the log", got(tx.Head(ctx)).Size, int64(len(ids)))
		})
	}
}

// meet writes a record and an event, and then meets a fate. A panic of that is
// answered as an error.
func (c *check) meet(s storage.Store, org, id string, fate func(context.Context, storage.Tx, string, func()) error) (err error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer func() {
		if p := recover(); p == any(errTest) {
			err = errTest
		} else if p != nil {
			panic(p)
		}
	}()
	return s.Update(ctx, org, func(ctx context.Context, tx storage.Tx) error {
		func() {
			defer c.noteAndGoOn()
			yes(tx.PutRecord(ctx, record(org, "setting", id)))
			appendTo(ctx, tx, org, false, event(audit.ActionAgentUpdated))
		}()
		return fate(ctx, tx, org, cancel)
	})
}

// checkHeadFirst lets an Update wait for another that changes everything it
// reads afterwards.
func checkHeadFirst(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		appendTo(ctx, tx, acme, false, event(audit.ActionAgentCreated))
	})
	for round := range int64(5) {
		holding, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var left atomic.Bool
		holder := c.start(func() {
			c.insist(c.one(0), acme, func(ctx context.Context, tx storage.Tx) {
				once.Do(func() { close(holding) })
				c.await(release, "the wait of the holder")
				supersede(ctx, tx, round+2)
				left.Store(true)
			})
		})
		c.await(holding, "Update's wait for a free head")
		waiter := c.start(func() {
			c.insist(c.one(1), acme, func(ctx context.Context, tx storage.Tx) {
				if !left.Load() {
					failf("fn of the second Update ran while the first held the head")
				}
				superseded(ctx, tx, round+2)
			})
		})
		c.linger(lingering)
		close(release)
		holder.wait()
		waiter.wait()
	}
}

// supersede changes rows of all roles to a revision.
func supersede(ctx context.Context, tx storage.Tx, revision int64) {
	o, a, t, g := organization(acme), agent(acme, "agent-0"), tool(acme, "tool-0"), grant(acme, "grant-0", "agent-0", "tool-0")
	o.Revision, a.Revision, t.Revision, g.Revision = revision, revision, revision, revision
	yes(tx.PutOrganization(ctx, o))
	yes(tx.PutAgent(ctx, a))
	yes(tx.PutTool(ctx, t))
	yes(tx.PutGrant(ctx, g))
	appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))
}

func superseded(ctx context.Context, tx storage.Tx, revision int64) {
	equal("revision of the grant", got(tx.Grants(ctx, storage.GrantQuery{IDs: []string{"grant-0"}})).Grants[0].Revision, revision)
	equal("revision of the organization", found(tx.Organization(ctx)).Revision, revision)
	equal("revision of the agent", got(tx.Agents(ctx, storage.AgentQuery{IDs: []string{"agent-0"}})).Agents[0].Revision, revision)
	equal("revision of the tool", got(tx.Tools(ctx, storage.ToolQuery{IDs: []string{"tool-0"}})).Tools[0].Revision, revision)
	equal("size of the log", got(tx.Head(ctx)).Size, revision)
}

// checkRevocation lets workers vend while grants are revoked under their hands.
func checkRevocation(c *check) {
	began := time.Now()
	rounds := 0
	for ; rounds < 25 && racing(began); rounds++ {
		org := fmt.Sprintf("org-%d", rounds)
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			base(ctx, tx, org)
			g := grant(org, "grant-0", "agent-0", "tool-0")
			g.Revision, g.Status = 2, grants.StatusApproved
			yes(tx.PutGrant(ctx, g))
		})
		var vended atomic.Int32
		c.together(workers+1, func(worker int) {
			if worker == workers {
				for vended.Load() == 0 && racing(began) && c.result().seen == "" {
					c.linger(time.Millisecond)
				}
				c.revoke(c.one(0), org)
				return
			}
			for c.vend(c.one(worker), org) {
				vended.Add(1)
			}
		})
		c.noVendAfterRevocation(org)
	}
}

func (c *check) revoke(s storage.Store, org string) {
	c.insist(s, org, func(ctx context.Context, tx storage.Tx) {
		g := got(tx.Grants(ctx, storage.GrantQuery{IDs: []string{"grant-0"}})).Grants[0]
		g.Revision, g.Status = g.Revision+1, grants.StatusRevoked
		yes(tx.PutGrant(ctx, g))
		appendTo(ctx, tx, org, false, event(audit.ActionGrantRevoked))
	})
}

func (c *check) vend(s storage.Store, org string) (vended bool) {
	c.insist(s, org, func(ctx context.Context, tx storage.Tx) {
		pair := storage.Pair{Agent: "agent-0", Tool: "tool-0"}
		page := got(tx.Grants(ctx, storage.GrantQuery{Pairs: []storage.Pair{pair}}))
		if len(page.Grants) != 1 {
			failf("the grant is not there")
		}
		runtime.Gosched()
		if vended = page.Grants[0].Status == grants.StatusApproved; vended {
			appendTo(ctx, tx, org, false, event(audit.ActionCredentialVended))
		}
	})
	return vended
}

func (c *check) noVendAfterRevocation(org string) {
	c.view(org, func(ctx context.Context, tx storage.ReadTx) {
		revokedAt := int64(-1)
		for from := int64(0); ; {
			lines := got(tx.Lines(ctx, from, 1000))
			for _, l := range lines {
				e := got(audit.Parse(l.Content))
				if e.Action == audit.ActionGrantRevoked {
					revokedAt = e.Seq
				} else if revokedAt >= 0 {
					failf("a vend stands at %d, above the revocation at %d", e.Seq, revokedAt)
				}
				from = l.Seq + 1
			}
			if len(lines) == 0 {
				break
			}
		}
		if revokedAt < 0 {
			failf("the revocation is not in the log")
		}
	})
}

func checkLeaseRace(c *check) {
	const n = 60
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization(acme)))
		var ds []storage.Delivery
		for i := range n {
			ds = append(ds, delivery(acme, fmt.Sprintf("delivery-%d", i), clock))
		}
		ok(tx.Enqueue(ctx, ds))
	})
	var mu sync.Mutex
	takers := make(map[string]int)
	take := func(worker int) (taken int) {
		q := storage.LeaseQuery{Now: clock, Until: clock + 1, Node: fmt.Sprint(worker), Limit: 3}
		ds, err := c.one(worker).Lease(c.ctx, q)
		if errors.Is(err, storage.ErrBusy) && c.ctx.Err() == nil {
			return 1 // somebody else is at it
		}
		ok(err)
		mu.Lock()
		defer mu.Unlock()
		for _, d := range ds {
			if other, leased := takers[d.ID]; leased {
				failf("delivery %s was leased to %d and to %d", d.ID, other, worker)
			}
			takers[d.ID] = worker
		}
		return len(ds)
	}
	c.together(workers, func(worker int) {
		for take(worker) > 0 {
		}
	})
	for take(workers) > 0 { // what was passed over while others were at it
	}
	equal("leased deliveries", len(takers), n)
}

func checkDigestRace(c *check) {
	for round := range 4 {
		var wins atomic.Int32
		digest := subjectKey(fmt.Sprint(round)).Digest
		c.together(2, func(i int) {
			org := fmt.Sprintf("org-%d-%d", round, i)
			var won bool
			c.insist(c.one(i), org, func(ctx context.Context, tx storage.Tx) {
				yes(tx.PutOrganization(ctx, organization(org)))
				yes(tx.PutAgent(ctx, agent(org, "agent-0")))
				k := agentKey(org, "key-1", "agent-0")
				k.Digest = digest
				var err error
				won, err = tx.PutKey(ctx, k)
				ok(err)
				if i == 0 {
					c.linger(lingering) // for the other to put its own meanwhile
				}
			})
			if won {
				wins.Add(1)
			}
		})
		if n := wins.Load(); n != 1 {
			failf("%d of 2 organizations got the same digest", n)
		}
		k := found(c.store().FindKey(c.ctx, digest))
		if !bytes.Equal(k.Digest, digest) {
			failf("FindKey found another key")
		}
	}
}

func checkView(c *check) {
	put := func(revision int64) {
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			for _, id := range []string{"a", "b"} {
				r := record(acme, "setting", id)
				r.Revision = revision
				yes(tx.PutRecord(ctx, r))
			}
			appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))
		})
	}
	revision := func(ctx context.Context, tx storage.ReadTx, id string) int64 {
		return found(tx.Record(ctx, "setting", id)).Revision
	}
	put(1)
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		equal("revision after an Update has returned", revision(ctx, tx, "a"), int64(1))
		c.start(func() { put(2) }).promptly("an Update while a View runs")
		equal("revision of the second row in the same View", revision(ctx, tx, "b"), int64(1))
		equal("size of the log in the same View", got(tx.Head(ctx)).Size, int64(1))
	})
	release := c.hold(c.store(), acme)
	c.start(func() {
		c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
			equal("revision after an Update has returned", revision(ctx, tx, "b"), int64(2))
		})
	}).promptly("a View while an Update runs")
	release()
	c.boundedView()
}

// boundedView stays in a View for longer than it may last.
func (c *check) boundedView() {
	var read error
	err := c.store().View(c.ctx, acme, func(ctx context.Context, tx storage.ReadTx) error {
		defer c.noteAndGoOn()
		timer := time.NewTimer(storage.ViewTime + promptly)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		_, _, read = tx.Organization(ctx)
		return nil
	})
	if read == nil && err == nil {
		failf("a View could still read after %v", storage.ViewTime+promptly)
	}
}

// checkContext provokes each way in which an Update can fail to begin.
func checkContext(c *check) {
	cancelled, cancel := context.WithCancel(c.ctx)
	cancel()
	late, cancelLate := context.WithDeadline(c.ctx, time.Now().Add(-time.Second))
	defer cancelLate()
	for name, call := range calls(c.store()) {
		own(name+" with a cancelled context", call(cancelled), context.Canceled)
		own(name+" after its deadline", call(late), context.DeadlineExceeded)
	}
	release := c.hold(c.store(), acme)
	noop := func(context.Context, storage.Tx) error { return nil }
	short, cancelShort := context.WithTimeout(c.ctx, 4*lingering)
	defer cancelShort()
	own("Update that waits until its deadline", c.store().Update(short, acme, noop), context.DeadlineExceeded)
	waiting, cancelWaiting := context.WithCancel(c.ctx)
	defer cancelWaiting()
	timer := time.AfterFunc(2*lingering, cancelWaiting)
	defer timer.Stop()
	own("Update that waits until it is cancelled", c.store().Update(waiting, acme, noop), context.Canceled)
	began := time.Now()
	own("Update that waits for UpdateTime", c.store().Update(c.ctx, acme, noop), storage.ErrBusy)
	if took := time.Since(began); took > storage.UpdateTime+2*promptly {
		failf("Update waited %v for the head; UpdateTime is %v", took, storage.UpdateTime)
	}
	release()
	c.update(acme, func(ctx context.Context, tx storage.Tx) { yes(tx.PutOrganization(ctx, organization(acme))) })
}

// own fails unless err is want and none of the errors it may be confused with.
func own(what string, err, want error) {
	for _, e := range []error{context.Canceled, context.DeadlineExceeded, storage.ErrBusy, storage.ErrUnavailable} {
		if errors.Is(err, e) != (e == want) {
			failf("%s: answered %s, not %q alone", what, describe(err), want)
		}
	}
}
