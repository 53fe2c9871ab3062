package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

var errTest = errors.New("storagetest: fn has failed")

// everything puts one of each into an empty organization, through every method
// that writes.
func everything(ctx context.Context, tx storage.Tx, org string) {
	base(ctx, tx, org)
	for _, s := range subjects()[1:] {
		yes(s.put(ctx, tx, s.row(org, 1, 0)))
	}
	yes(tx.PutTool(ctx, tool(org, "tool-3")))
	yes(tx.DeleteTool(ctx, "tool-3", 1))
	yes(tx.PutRecord(ctx, record(org, "setting", "gone")))
	yes(tx.DeleteRecord(ctx, "setting", "gone", 1))
	yes(tx.PutCredential(ctx, credential(org, "gone", "tool-1", "")))
	yes(tx.DeleteCredential(ctx, "gone", 1))
	if total := found(tx.ReserveSeals(ctx, "data-key-1", 7)); total != 7 {
		failf("ReserveSeals answered %d, not 7", total)
	}
	appendTo(ctx, tx, org, true, event(audit.ActionAgentCreated), event(audit.ActionAgentUpdated))
	ok(tx.Erase(ctx, []storage.Erasure{{Seq: 0, Personal: true}}))
	ok(tx.Enqueue(ctx, []storage.Delivery{delivery(org, "delivery-1", clock)}))
	ok(tx.PutWindows(ctx, []storage.Window{{WindowRef: storage.WindowRef{Tier: "read", Subject: "a"}, Times: []byte{1}}}))
}

// nothing fails when anything that everything puts is there.
func (c *check) nothing(s storage.Store, org string) {
	c.viewOf(s, org, foreign)
	digest := subjectKey(org).Digest
	missing(s.FindKey(c.ctx, digest))
	for what, list := range map[string][]string{
		"FindRecord": got(s.FindRecord(c.ctx, "setting", odd)), "Organizations": got(s.Organizations(c.ctx, "", 10)),
	} {
		if slices.Contains(list, org) {
			failf("%s still names the organization", what)
		}
	}
	for _, d := range got(s.Lease(c.ctx, storage.LeaseQuery{Now: clock, Until: clock, Node: "node", Limit: 10})) {
		if d.Organization == org {
			failf("its delivery is leased")
		}
	}
}

// all fails unless all that everything puts is there.
func (c *check) all(s storage.Store, org string) {
	c.viewOf(s, org, func(ctx context.Context, tx storage.ReadTx) {
		for _, s := range subjects()[1:] {
			row := s.row(org, 1, 0)
			if k, is := row.(*storage.DataKey); is {
				k.Reserved = 7
			}
			s.expect(ctx, tx, org, row)
		}
		lines := got(tx.Lines(ctx, 0, 10))
		if len(lines) != 2 || lines[0].Personal != nil || lines[1].Personal == nil {
			failf("the log holds %+v", lines)
		}
		equal("windows", len(got(tx.Windows(ctx, []storage.WindowRef{{Tier: "read", Subject: "a"}}))), 1)
	})
	found(s.FindKey(c.ctx, subjectKey(org).Digest))
	equal("Organizations", got(s.Organizations(c.ctx, "", 10)), []string{org})
	leased := got(s.Lease(c.ctx, storage.LeaseQuery{Now: clock, Until: clock, Node: "node", Limit: 10}))
	equal("leased", len(leased), 1)
}

func checkAtomic(c *check) {
	s := c.store()
	err := s.Update(c.ctx, acme, func(ctx context.Context, tx storage.Tx) error {
		defer c.noteAndGoOn()
		everything(ctx, tx, acme)
		return errTest
	})
	is(err, errTest)
	c.nothing(s, acme)
	c.panics()
	c.nothing(s, acme)
	c.update(acme, func(ctx context.Context, tx storage.Tx) { everything(ctx, tx, acme) })
	c.all(s, acme)
	err = s.Update(c.ctx, acme, func(ctx context.Context, tx storage.Tx) error {
		defer c.noteAndGoOn()
		yes(tx.DeleteTool(ctx, "tool-0", 1))
		yes(tx.DeleteRecord(ctx, "setting", odd, 1))
		yes(tx.PutAgent(ctx, *subjects()[1].row(acme, 2, 1).(*storage.Agent)))
		missing(tx.ReserveSeals(ctx, "none", 1))
		found(tx.ReserveSeals(ctx, "data-key-1", 1))
		ok(tx.Erase(ctx, []storage.Erasure{{Seq: 1, Content: true, Personal: true}}))
		ok(tx.PutWindows(ctx, []storage.Window{{WindowRef: storage.WindowRef{Tier: "read", Subject: "a"}}}))
		appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))
		return errTest
	})
	is(err, errTest)
	c.all(s, acme)
}

// panics lets fn panic. Whether Update passes the panic on is the backend's.
func (c *check) panics() {
	defer func() {
		if p := recover(); p != nil && p != any(errTest) {
			panic(p)
		}
	}()
	err := c.store().Update(c.ctx, acme, func(ctx context.Context, tx storage.Tx) error {
		func() {
			defer c.noteAndGoOn()
			everything(ctx, tx, acme)
		}()
		panic(errTest)
	})
	if err == nil {
		failf("Update answered nil although fn panicked")
	}
}

func checkDurable(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) { everything(ctx, tx, acme) })
	c.onTest(func(t *testing.T) { c.stores[0] = c.claims.reopen(t, c.stores[0]) })
	c.all(c.store(), acme)
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		appendTo(ctx, tx, acme, false, event(audit.ActionAgentUpdated))
	})
}

// checkRerun counts the runs of fn itself: what stands afterwards is what the
// last one wrote, whoever else was at it.
func checkRerun(c *check) {
	c.together(4, func(worker int) {
		for turn := range 5 {
			runs := 0
			id := fmt.Sprintf("record-%d-%d", worker, turn)
			c.insist(c.store(), acme, func(ctx context.Context, tx storage.Tx) {
				runs++
				r := record(acme, "setting", id)
				r.Payload = []byte{byte(runs)}
				yes(tx.PutRecord(ctx, r))
				yes(tx.PutRecord(ctx, record(acme, "setting", fmt.Sprintf("%s-run-%d", id, runs))))
			})
			c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
				equal("payload", found(tx.Record(ctx, "setting", id)).Payload, []byte{byte(runs)})
				rows := got(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", From: id + "-run", To: id + "-rup", Limit: 10}))
				equal("rows of all runs", ids(rows, func(r storage.Record) string { return r.ID }), []string{fmt.Sprintf("%s-run-%d", id, runs)})
			})
		}
	})
}

func checkConflict(c *check) {
	c.update(globex, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization(globex)))
		yes(tx.PutAgent(ctx, agent(globex, "agent-0")))
		yes(tx.PutKey(ctx, agentKey(globex, "key-1", "agent-0")))
	})
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		for _, s := range subjects()[1:] {
			yes(s.put(ctx, tx, s.row(acme, 1, 0)))
		}
		yes(tx.PutCredential(ctx, credential(acme, "shared", "tool-0", "")))
	})
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		conflicts(ctx, tx)
		yes(tx.PutRecord(ctx, record(acme, "setting", "after")))
		for _, s := range subjects()[1:] {
			s.expect(ctx, tx, acme, s.row(acme, 1, 0))
		}
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		found(tx.Record(ctx, "setting", "after"))
		for _, s := range subjects()[1:] {
			s.expect(ctx, tx, acme, s.row(acme, 1, 0))
		}
		equal("grants", got(tx.Grants(ctx, storage.GrantQuery{Total: true})).Total, int64(2))
		equal("tools", got(tx.Tools(ctx, storage.ToolQuery{Total: true})).Total, int64(3))
		equal("keys", len(got(tx.Keys(ctx, storage.KeyQuery{Agents: []string{"agent-0"}}))), 1)
	})
}

// conflicts provokes every conflict there is.
func conflicts(ctx context.Context, tx storage.Tx) {
	for _, s := range subjects()[1:] {
		no(s.put(ctx, tx, s.row(acme, 1, 1)))
		no(s.put(ctx, tx, s.row(acme, 3, 1)))
	}
	sameConfig := tool(acme, "tool-9")
	sameConfig.ConfigKey = "config-tool-0"
	no(tx.PutTool(ctx, sameConfig))
	no(tx.PutGrant(ctx, grant(acme, "grant-9", "agent-0", "tool-0")))
	no(tx.PutCredential(ctx, credential(acme, "credential-9", "tool-0", "")))
	no(tx.PutCredential(ctx, credential(acme, "credential-9", "tool-0", "grant-0")))
	sameDigest := agentKey(acme, "key-9", "agent-0")
	sameDigest.Digest = subjectKey(acme).Digest
	no(tx.PutKey(ctx, sameDigest))
	sameDigest.Digest = agentKey(globex, "key-1", "agent-0").Digest
	no(tx.PutKey(ctx, sameDigest))
	no(tx.PutDataKey(ctx, dataKey(acme, "data-key-9", vault.PurposeRow)))
	no(tx.DeleteTool(ctx, "tool-0", 2))
	no(tx.DeleteTool(ctx, "none", 1))
	no(tx.DeleteCredential(ctx, "shared", 2))
	no(tx.DeleteCredential(ctx, "none", 1))
	no(tx.DeleteRecord(ctx, "setting", odd, 2))
	no(tx.DeleteRecord(ctx, "setting", "none", 1))
	missing(tx.ReserveSeals(ctx, "none", 1))
	no(tx.Settle(ctx, storage.Settlement{ID: "none", LeaseUntil: clock, LeaseNode: "node", Done: true}))
}

// faults are statements that fail, each for another reason.
func faults() map[string]func(context.Context, storage.Tx) error {
	return map[string]func(context.Context, storage.Tx) error{
		"a row without revision": func(ctx context.Context, tx storage.Tx) error {
			r := record(acme, "setting", "bad")
			r.Revision = 0
			_, err := tx.PutRecord(ctx, r)
			return err
		},
		"a reference to nothing": func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PutKey(ctx, agentKey(acme, "key-9", "none"))
			return err
		},
		"a query over its limits": func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.Agents(ctx, storage.AgentQuery{Limit: storage.MaxPage + 1})
			return err
		},
		"a gap in the log": func(ctx context.Context, tx storage.Tx) error {
			head := got(tx.Head(ctx))
			head.Size, head.Edge = 3, make([]byte, 64)
			return tx.Append(ctx, following(head, acme, event(audit.ActionAgentCreated)))
		},
		"an ended context": func(ctx context.Context, tx storage.Tx) error {
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, _, err := tx.Organization(ended)
			return err
		},
	}
}

func checkPoison(c *check) {
	for name, fault := range faults() {
		err := c.store().Update(c.ctx, acme, func(ctx context.Context, tx storage.Tx) error {
			defer c.noteAndGoOn()
			everything(ctx, tx, acme)
			if fault(ctx, tx) == nil {
				failf("%s was not refused", name)
			}
			for method, call := range methods(ctx, tx) {
				if err := call(); !errors.Is(err, storage.ErrPoisoned) {
					failf("after %s: %s answered %s, not ErrPoisoned", name, method, describe(err))
				}
			}
			return nil
		})
		if err == nil {
			failf("after %s: Update answered nil", name)
		}
		c.nothing(c.store(), acme)
	}
}

// methods are methods of every role of a Tx, called so that they would succeed.
func methods(ctx context.Context, tx storage.Tx) map[string]func() error {
	calls := readMethods(ctx, tx)
	calls["PutAgent"] = func() error { return second(tx.PutAgent(ctx, agent(acme, "late"))) }
	calls["PutTool"] = func() error { return second(tx.PutTool(ctx, tool(acme, "late"))) }
	calls["DeleteTool"] = func() error { return second(tx.DeleteTool(ctx, "tool-1", 1)) }
	calls["PutGrant"] = func() error { return second(tx.PutGrant(ctx, grant(acme, "late", "agent-1", "tool-1"))) }
	calls["PutApproval"] = func() error { return second(tx.PutApproval(ctx, approval(acme, "grant-0", "late"))) }
	calls["PutDataKey"] = func() error { return second(tx.PutDataKey(ctx, dataKey(acme, "late", vault.PurposeSeal))) }
	calls["PutRecord"] = func() error { return second(tx.PutRecord(ctx, record(acme, "setting", "late"))) }
	calls["DeleteRecord"] = func() error { return second(tx.DeleteRecord(ctx, "setting", odd, 1)) }
	calls["Enqueue"] = func() error { return tx.Enqueue(ctx, []storage.Delivery{delivery(acme, "late", clock)}) }
	calls["Erase"] = func() error { return tx.Erase(ctx, nil) }
	calls["Append"] = func() error {
		return tx.Append(ctx, following(storage.Head{}, acme, event(audit.ActionAgentCreated)))
	}
	calls["PutWindows"] = func() error {
		return tx.PutWindows(ctx, []storage.Window{{WindowRef: storage.WindowRef{Tier: "read", Subject: "late"}, Times: []byte{1}}})
	}
	return calls
}

func readMethods(ctx context.Context, tx storage.ReadTx) map[string]func() error {
	return map[string]func() error{
		"Organization": func() error { _, _, err := tx.Organization(ctx); return err },
		"Agents":       func() error { return second(tx.Agents(ctx, storage.AgentQuery{Limit: 1})) },
		"Keys":         func() error { return second(tx.Keys(ctx, storage.KeyQuery{Agents: []string{"agent-0"}})) },
		"Tools":        func() error { return second(tx.Tools(ctx, storage.ToolQuery{Limit: 1})) },
		"Credentials":  func() error { return second(tx.Credentials(ctx, []storage.CredentialRef{{Tool: "tool-0"}})) },
		"Grants":       func() error { return second(tx.Grants(ctx, storage.GrantQuery{Limit: 1})) },
		"Approvals":    func() error { return second(tx.Approvals(ctx, []string{"grant-0"})) },
		"DataKeys":     func() error { return second(tx.DataKeys(ctx)) },
		"Head":         func() error { return second(tx.Head(ctx)) },
		"Lines":        func() error { return second(tx.Lines(ctx, 0, 1)) },
		"Checkpoints":  func() error { return second(tx.Checkpoints(ctx, 0, 1)) },
		"Record":       func() error { _, _, err := tx.Record(ctx, "setting", "a"); return err },
		"ScanRecords":  func() error { return second(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", Limit: 1})) },
		"Windows":      func() error { return second(tx.Windows(ctx, []storage.WindowRef{{Tier: "read", Subject: "a"}})) },
	}
}

func second[T any](_ T, err error) error { return err }

// checkUnknown loses the answers to commits. What Update answers has to be what
// is the case, or that nobody can tell.
func checkUnknown(c *check) {
	for _, appends := range []bool{true, false} {
		for _, applied := range []bool{true, false} {
			org := fmt.Sprintf("org-%t-%t", appends, applied)
			c.update(org, func(ctx context.Context, tx storage.Tx) {
				appendTo(ctx, tx, org, false, event(audit.ActionAgentCreated))
			})
			c.onTest(func(t *testing.T) { c.claims.loseCommit(t, c.store(), applied) })
			err := c.try(c.ctx, c.store(), org, func(ctx context.Context, tx storage.Tx) {
				yes(tx.PutRecord(ctx, record(org, "setting", "a")))
				if appends {
					appendTo(ctx, tx, org, false, event(audit.ActionAgentUpdated))
				}
			})
			var kept bool
			c.view(org, func(ctx context.Context, tx storage.ReadTx) {
				_, there, err := tx.Record(ctx, "setting", "a")
				ok(err)
				kept = there
			})
			switch {
			case !appends && !errors.Is(err, storage.ErrUnknown):
				failf("nothing was appended: answered %s, not ErrUnknown", describe(err))
			case appends && kept != (err == nil):
				failf("answered %s, but what fn did is there: %t", describe(err), kept)
			}
		}
	}
}

func checkNested(c *check) {
	s := c.store()
	nested := func(ctx context.Context) {
		for _, org := range []string{acme, globex} {
			is(s.Update(ctx, org, func(context.Context, storage.Tx) error { return nil }), storage.ErrNested)
			is(s.View(ctx, org, func(context.Context, storage.ReadTx) error { return nil }), storage.ErrNested)
		}
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		nested(ctx)
		yes(tx.PutOrganization(ctx, organization(acme)))
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		nested(ctx)
		found(tx.Organization(ctx))
	})
}

func checkDone(c *check) {
	var tx storage.Tx
	var readTx storage.ReadTx
	c.update(acme, func(ctx context.Context, running storage.Tx) {
		everything(ctx, running, acme)
		tx = running
	})
	c.view(acme, func(_ context.Context, running storage.ReadTx) { readTx = running })
	closed := func(what string, calls map[string]func() error) {
		for method, call := range calls {
			if err := call(); !errors.Is(err, storage.ErrClosed) {
				failf("%s of %s that has ended answered %s, not ErrClosed", method, what, describe(err))
			}
		}
	}
	closed("an Update", methods(c.ctx, tx))
	closed("a View", readMethods(c.ctx, readTx))
	c.all(c.store(), acme)
	_ = c.store().Update(c.ctx, globex, func(ctx context.Context, running storage.Tx) error {
		tx = running
		return errTest
	})
	closed("an undone Update", methods(c.ctx, tx))
}

func checkCancelled(c *check) {
	ended, cancel := context.WithCancel(c.ctx)
	cancel()
	is(c.store().Update(ended, acme, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PutOrganization(ctx, organization(acme))
		return err
	}), context.Canceled)
	c.nothing(c.store(), acme)
	for _, last := range []string{"a statement", "the return of fn"} {
		ctx, cancel := context.WithCancel(c.ctx)
		err := c.store().Update(ctx, acme, func(ctx context.Context, tx storage.Tx) error {
			defer c.noteAndGoOn()
			everything(ctx, tx, acme)
			cancel()
			if last == "a statement" {
				_, err := tx.PutRecord(ctx, record(acme, "setting", "late"))
				is(err, context.Canceled)
			}
			return nil
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			failf("the context ended before %s: answered %s, not the context's error", last, describe(err))
		}
		c.nothing(c.store(), acme)
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) { everything(ctx, tx, acme) })
	c.all(c.store(), acme)
}
