package storagetest

import (
	"context"
	"fmt"
	"math"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// roles are tests of what single methods promise.
func roles() []clause {
	return []clause{
		{"roles", "organizations", "Organization reads the organization's own record. Organizations names those that have a log, in ascending order.", checkOrganizations, nil},
		{"roles", "agents", "a query finds by ids, or lists what meets every condition; Total counts all of it, whatever After and Limit.", checkAgents, nil},
		{"roles", "keys", "keys are found by their ids, as all keys of some agents, and by digest.", checkKeys, nil},
		{"roles", "tools", "a query finds tools by ids, name and configuration key; DeleteTool removes the tool with its credentials, its grants and their approvals.", checkTools, nil},
		{"roles", "credentials", "there is at most one credential for each tool and grant, found by both.", checkCredentials, nil},
		{"roles", "grants", "grants are found by ids, by pairs, or as a list.", checkGrants, nil},
		{"roles", "approvals", "Approvals reads the approvals of these grants, all cycles, oldest first.", checkApprovals, nil},
		{"roles", "data-keys", "at most one key of a purpose is active; ReserveSeals adds to the count and changes no revision.", checkDataKeys, nil},
		{"roles", "log", "lines follow each other without a gap, and the head follows the lines; anything else is ErrInvalid. What was appended reads back in ascending order.", checkLog, nil},
		{"roles", "erase", "Erase removes the content, the personal part or both of lines, never their leaf hashes. What is gone already stays gone.", checkErase, nil},
		{"roles", "records", "a record is found by kind and id; FindRecord names the organizations that hold it, at most two.", checkRecords, nil},
		{"roles", "scans", "a scan reads the records of a kind whose entry in an index lies in a range, by value and then by id, both bytewise.", checkScans, nil},
		{"roles", "outbox", "Lease takes pending deliveries that are due and not leased, the longest due first, sets their LeaseUntil and LeaseNode and adds one to their Attempts. Settle ends or postpones a leased delivery and clears its lease, unless its lease is no longer the one given.", checkOutbox, nil},
		{"roles", "windows", "windows are kept by tier and subject; one without times is removed.", checkWindows, nil},
		{"roles", "events", "Events finds lines of an organization's log, newest first. It is complete: it knows every line that was committed before it was called. Lines whose content was removed are found no more.", checkEvents, nil},
		{"roles", "due", "Due names what has come to its end at or before now and still stands as active, earliest end first: approved grants, active keys, active credentials.", checkDue, nil},
	}
}

func checkOrganizations(c *check) {
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) { missing(tx.Organization(ctx)) })
	for _, org := range []string{"b", "a", "B", storage.System, "a-b"} {
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			if org != storage.System {
				yes(tx.PutOrganization(ctx, organization(org)))
			}
			appendTo(ctx, tx, org, false, event(audit.ActionOrganizationCreated))
		})
	}
	c.update("silent", func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization("silent"))) // and begins no log
	})
	c.update("idle", func(context.Context, storage.Tx) {})
	s := c.store()
	equal("all", got(s.Organizations(c.ctx, "", 10)), []string{"B", "a", "a-b", "b", storage.System})
	equal("first two", got(s.Organizations(c.ctx, "", 2)), []string{"B", "a"})
	equal("next two", got(s.Organizations(c.ctx, "a", 2)), []string{"a-b", "b"})
	equal("the rest", got(s.Organizations(c.ctx, "b", 2)), []string{storage.System})
}

func checkAgents(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization(acme)))
		for i := range 6 {
			a := agent(acme, fmt.Sprint("agent-", i))
			a.Name = []string{"even", "odd"}[i%2]
			if i >= 4 {
				a.Status = storage.AgentSuspended
			}
			yes(tx.PutAgent(ctx, a))
		}
	})
	find := func(ctx context.Context, tx storage.ReadTx, q storage.AgentQuery, total int64, want ...string) {
		p := got(tx.Agents(ctx, q))
		list := ids(p.Agents, func(a storage.Agent) string { return a.ID })
		if len(q.IDs) > 0 {
			list = descending(list)
		}
		equal(fmt.Sprintf("%+v", q), list, want)
		if q.Total {
			equal(fmt.Sprintf("total of %+v", q), p.Total, total)
		}
	}
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		find(ctx, tx, storage.AgentQuery{IDs: []string{"agent-1", "none", "agent-3", "agent-1"}}, 0, "agent-3", "agent-1")
		find(ctx, tx, storage.AgentQuery{Name: "even", Limit: 10}, 0, "agent-4", "agent-2", "agent-0")
		find(ctx, tx, storage.AgentQuery{Status: storage.AgentSuspended, Limit: 10}, 0, "agent-5", "agent-4")
		find(ctx, tx, storage.AgentQuery{Name: "odd", Status: storage.AgentActive, Limit: 10}, 0, "agent-3", "agent-1")
		find(ctx, tx, storage.AgentQuery{After: "agent-4", Limit: 2, Total: true}, 6, "agent-3", "agent-2")
		find(ctx, tx, storage.AgentQuery{Name: "even", Total: true}, 3)
		find(ctx, tx, storage.AgentQuery{Name: "none", Limit: 10, Total: true}, 0)
	})
}

func checkKeys(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		yes(tx.PutAgent(ctx, agent(acme, "agent-1")))
		yes(tx.PutAgent(ctx, agent(acme, "agent-2")))
		for i := range 6 {
			yes(tx.PutKey(ctx, agentKey(acme, fmt.Sprint("key-", i), fmt.Sprint("agent-", i%3))))
		}
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		for want, q := range map[string]storage.KeyQuery{
			"[key-5 key-1]":             {IDs: []string{"key-1", "none", "key-5"}},
			"[key-4 key-1]":             {Agents: []string{"agent-1", "none"}},
			"[key-5 key-3 key-2 key-0]": {Agents: []string{"agent-2", "agent-0"}},
			"[]":                        {},
		} {
			list := ids(got(tx.Keys(ctx, q)), func(k storage.Key) string { return k.ID })
			equal(fmt.Sprintf("%+v", q), fmt.Sprint(descending(list)), want)
		}
	})
	want := agentKey(acme, "key-3", "agent-0")
	equal("key of a digest", found(c.store().FindKey(c.ctx, want.Digest)), want)
	revoked := want
	revoked.Revision, revoked.Status = 2, storage.KeyRevoked
	c.update(acme, func(ctx context.Context, tx storage.Tx) { yes(tx.PutKey(ctx, revoked)) })
	equal("revoked key of a digest", found(c.store().FindKey(c.ctx, want.Digest)), revoked)
	missing(c.store().FindKey(c.ctx, make([]byte, 32)))
	missing(c.store().FindKey(c.ctx, nil))
	c.refused("a digest of another length", acme, func(ctx context.Context, tx storage.Tx) error {
		k := agentKey(acme, "key-9", "agent-0")
		k.Digest = k.Digest[:31]
		_, err := tx.PutKey(ctx, k)
		return err
	})
}

func checkTools(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		yes(tx.PutGrant(ctx, grant(acme, "grant-1", "agent-0", "tool-1")))
		for _, n := range []string{"0", "1"} {
			yes(tx.PutCredential(ctx, credential(acme, "shared-"+n, "tool-"+n, "")))
			yes(tx.PutCredential(ctx, credential(acme, "own-"+n, "tool-"+n, "grant-"+n)))
			yes(tx.PutApproval(ctx, approval(acme, "grant-"+n, "actor-1")))
		}
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		for want, q := range map[string]storage.ToolQuery{
			"[tool-0] ":  {Name: "Tool tool-0", Limit: 10},
			"[tool-1] ":  {ConfigKey: "config-tool-1", Limit: 10},
			"[tool-1]  ": {IDs: []string{"none", "tool-1"}},
			"[]":         {ConfigKey: "config-tool-1", Name: "Tool tool-0", Limit: 10},
		} {
			p := got(tx.Tools(ctx, q))
			equal(fmt.Sprintf("%+v", q)+want, ids(p.Tools, func(t storage.Tool) string { return "[" + t.ID + "]" }), named(want))
		}
		equal("total", got(tx.Tools(ctx, storage.ToolQuery{After: "tool-0", Limit: 1, Total: true})), storage.ToolPage{Total: 2})
	})
	left := func(ctx context.Context, tx storage.ReadTx) {
		gone := []storage.CredentialRef{{Tool: "tool-0"}, {Tool: "tool-0", Grant: "grant-0"}}
		equal("credentials of a tool that is gone", got(tx.Credentials(ctx, gone)), []storage.Credential(nil))
		kept := []storage.CredentialRef{{Tool: "tool-1"}, {Tool: "tool-1", Grant: "grant-1"}}
		equal("credentials of another tool", len(got(tx.Credentials(ctx, kept))), 2)
		list := got(tx.Grants(ctx, storage.GrantQuery{Limit: 10}))
		equal("grants", ids(list.Grants, grantID), []string{"grant-1"})
		list = got(tx.Grants(ctx, storage.GrantQuery{Pairs: []storage.Pair{{Agent: "agent-0", Tool: "tool-0"}}}))
		equal("grant of a pair that is gone", list.Grants, []grants.Grant(nil))
		equal("approvals", len(got(tx.Approvals(ctx, []string{"grant-0", "grant-1"}))), 1)
		tools := got(tx.Tools(ctx, storage.ToolQuery{Limit: 10}))
		equal("tools", ids(tools.Tools, func(t storage.Tool) string { return t.ID }), []string{"tool-1"})
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		yes(tx.DeleteTool(ctx, "tool-0", 1))
		left(ctx, tx)
	})
	c.view(acme, left)
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		again := tool(acme, "tool-5")
		again.ConfigKey = "config-tool-0"
		yes(tx.PutTool(ctx, again)) // the key is free
	})
}

func named(list string) []string {
	if list == "[]" {
		return nil
	}
	return []string{list[:len("[tool-0]")]}
}

func checkCredentials(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		yes(tx.PutCredential(ctx, credential(acme, "shared", "tool-0", "")))
		yes(tx.PutCredential(ctx, credential(acme, "own", "tool-0", "grant-0")))
	})
	find := func(ctx context.Context, tx storage.ReadTx, want []string, refs ...storage.CredentialRef) {
		list := ids(got(tx.Credentials(ctx, refs)), func(cr storage.Credential) string { return cr.ID })
		equal(fmt.Sprintf("credentials of %+v", refs), descending(list), want)
	}
	shared, own := storage.CredentialRef{Tool: "tool-0"}, storage.CredentialRef{Tool: "tool-0", Grant: "grant-0"}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		find(ctx, tx, []string{"shared"}, shared)
		find(ctx, tx, []string{"own"}, own)
		find(ctx, tx, []string{"shared", "own"}, own, shared, storage.CredentialRef{Tool: "tool-1"})
		find(ctx, tx, nil)
		yes(tx.DeleteCredential(ctx, "shared", 1))
		find(ctx, tx, nil, shared)
		yes(tx.PutCredential(ctx, credential(acme, "next", "tool-0", "")))
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) { find(ctx, tx, []string{"own", "next"}, own, shared) })
}

func grantID(g grants.Grant) string { return g.ID }

func checkGrants(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		yes(tx.PutAgent(ctx, agent(acme, "agent-1")))
		g1, g2, g3 := grant(acme, "grant-1", "agent-0", "tool-1"), grant(acme, "grant-2", "agent-1", "tool-0"), grant(acme, "grant-3", "agent-1", "tool-1")
		g2.Status, g3.Status = grants.StatusApproved, grants.StatusRevoked
		for _, g := range []grants.Grant{g1, g2, g3} {
			yes(tx.PutGrant(ctx, g))
		}
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		for _, test := range []struct {
			q    storage.GrantQuery
			want []string
		}{
			{storage.GrantQuery{IDs: []string{"grant-2", "grant-0", "none"}}, []string{"grant-2", "grant-0"}},
			{storage.GrantQuery{Pairs: []storage.Pair{{Agent: "agent-0", Tool: "tool-1"}, {Agent: "agent-1", Tool: "tool-0"}, {Agent: "agent-2", Tool: "tool-0"}}}, []string{"grant-2", "grant-1"}},
			{storage.GrantQuery{Agent: "agent-0", Limit: 10}, []string{"grant-1", "grant-0"}},
			{storage.GrantQuery{Tool: "tool-0", Limit: 10}, []string{"grant-2", "grant-0"}},
			{storage.GrantQuery{Agent: "agent-1", Tool: "tool-1", Limit: 10}, []string{"grant-3"}},
			{storage.GrantQuery{Statuses: []grants.Status{grants.StatusApproved, grants.StatusRevoked}, Limit: 10}, []string{"grant-3", "grant-2"}},
			{storage.GrantQuery{Agent: "agent-0", Statuses: []grants.Status{grants.StatusApproved}, Limit: 10}, nil},
			{storage.GrantQuery{After: "grant-3", Limit: 2}, []string{"grant-2", "grant-1"}},
		} {
			equal(fmt.Sprintf("%+v", test.q), descending(ids(got(tx.Grants(ctx, test.q)).Grants, grantID)), test.want)
		}
		q := storage.GrantQuery{Statuses: []grants.Status{grants.StatusPending}, After: "grant-1", Limit: 1, Total: true}
		page := got(tx.Grants(ctx, q))
		equal("total", page.Total, int64(2))
		equal("page", ids(page.Grants, grantID), []string{"grant-0"})
	})
}

func checkApprovals(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		yes(tx.PutGrant(ctx, grant(acme, "grant-1", "agent-0", "tool-1")))
		for i, actor := range []string{"z", "a", "m"} {
			for cycle := range int64(2) {
				a := approval(acme, "grant-0", actor)
				a.Cycle, a.Time = cycle+1, clock+cycle*100+int64(i)
				yes(tx.PutApproval(ctx, a))
			}
		}
		service := approval(acme, "grant-1", "a")
		service.ActorKind, service.Time = "service", clock+500
		yes(tx.PutApproval(ctx, approval(acme, "grant-1", "a")))
		yes(tx.PutApproval(ctx, service)) // of another kind, and so another actor
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		name := func(a grants.Approval) string { return fmt.Sprint(a.Cycle, a.Actor) }
		list := got(tx.Approvals(ctx, []string{"grant-0", "none"}))
		equal("approvals of one grant", ids(list, name), []string{"1z", "1a", "1m", "2z", "2a", "2m"})
		equal("approvals of two", len(got(tx.Approvals(ctx, []string{"grant-1", "grant-0"}))), 8)
		equal("approvals of none", len(got(tx.Approvals(ctx, []string{"none"}))), 0)
	})
}

func checkDataKeys(c *check) {
	c.update(storage.System, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutDataKey(ctx, dataKey(storage.System, "sign", vault.PurposeSign)))
	})
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization(acme)))
		seal, row := dataKey(acme, "seal-1", vault.PurposeSeal), dataKey(acme, "row-1", vault.PurposeRow)
		yes(tx.PutDataKey(ctx, seal))
		yes(tx.PutDataKey(ctx, row))
		next := dataKey(acme, "seal-2", vault.PurposeSeal)
		no(tx.PutDataKey(ctx, next))
		seal.Revision, seal.State = 2, vault.KeyDecryptOnly
		yes(tx.PutDataKey(ctx, seal))
		yes(tx.PutDataKey(ctx, next))
		seal.Revision, seal.State = 3, vault.KeyActive
		no(tx.PutDataKey(ctx, seal)) // the other one is active
	})
	for _, want := range []int64{1000, 2000, 3000} {
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			equal("reserved", found(tx.ReserveSeals(ctx, "seal-2", 1000)), want)
			missing(tx.ReserveSeals(ctx, "none", 1000))
		})
	}
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		keys := got(tx.DataKeys(ctx))
		equal("keys", ids(keys, func(k storage.DataKey) string { return k.ID }), []string{"seal-2", "seal-1", "row-1"})
		equal("reserved", keys[0].Reserved, int64(3000))
		equal("revision", keys[0].Revision, int64(1))
		equal("state", keys[1].State, vault.KeyDecryptOnly)
	})
}

func checkRecords(c *check) {
	s := c.store()
	for _, org := range []string{acme, globex, "initech"} {
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			yes(tx.PutRecord(ctx, record(org, "token", "everywhere")))
			yes(tx.PutRecord(ctx, record(org, "token", "only-in-"+org)))
			yes(tx.PutRecord(ctx, record(org, "guide", "everywhere")))
		})
	}
	equal("holders of one record", got(s.FindRecord(c.ctx, "token", "only-in-globex")), []string{globex})
	equal("holders of another kind", got(s.FindRecord(c.ctx, "guide", "only-in-globex")), []string(nil))
	equal("holders of none", got(s.FindRecord(c.ctx, "token", "none")), []string(nil))
	equal("number of holders, of three", len(got(s.FindRecord(c.ctx, "token", "everywhere"))), 2)
	c.update(globex, func(ctx context.Context, tx storage.Tx) {
		yes(tx.DeleteRecord(ctx, "token", "only-in-globex", 1))
		missing(tx.Record(ctx, "token", "only-in-globex"))
		found(tx.Record(ctx, "guide", "everywhere"))
		yes(tx.DeleteRecord(ctx, "token", "everywhere", 1))
		yes(tx.PutRecord(ctx, record(globex, "token", "everywhere"))) // and begins at 1 again
	})
	equal("holders of a deleted record", got(s.FindRecord(c.ctx, "token", "only-in-globex")), []string(nil))
	big := record(acme, "guide", "big")
	big.Payload = make([]byte, 1<<20)
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutRecord(ctx, big))
		equal("largest payload", found(tx.Record(ctx, "guide", "big")), big)
	})
	for what, bad := range map[string]func(*storage.Record){
		"a payload over the limit": func(r *storage.Record) { r.Payload = make([]byte, 1<<20+1) },
		"a kind with capitals":     func(r *storage.Record) { r.Kind = "Setting" },
		"an id over the limit":     func(r *storage.Record) { r.ID = string(make([]byte, 201)) },
		"two entries of one index": func(r *storage.Record) { r.Index = []storage.IndexEntry{{Name: "a"}, {Name: "a", Value: "b"}} },
	} {
		c.refused(what, acme, func(ctx context.Context, tx storage.Tx) error {
			r := record(acme, "setting", "bad")
			bad(&r)
			_, err := tx.PutRecord(ctx, r)
			return err
		})
	}
}

func checkWindows(c *check) {
	a, b := storage.WindowRef{Tier: "read", Subject: "a"}, storage.WindowRef{Tier: "credential", Subject: "a"}
	put := func(ws ...storage.Window) {
		c.update(acme, func(ctx context.Context, tx storage.Tx) { ok(tx.PutWindows(ctx, ws)) })
	}
	expect := func(want ...storage.Window) {
		c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
			ws := got(tx.Windows(ctx, []storage.WindowRef{b, a, {Tier: "read", Subject: "none"}}))
			list := ids(ws, func(w storage.Window) string { return fmt.Sprintf("%+v", w) })
			equal("windows", descending(list), descending(ids(want, func(w storage.Window) string { return fmt.Sprintf("%+v", w) })))
		})
	}
	first, second := storage.Window{WindowRef: a, Times: []byte{1, 2}, UpdatedAt: clock}, storage.Window{WindowRef: b, Times: []byte{3}, UpdatedAt: clock}
	put(first, second)
	expect(first, second)
	first.Times, first.UpdatedAt = []byte{1, 2, 4}, math.MaxInt64
	put(first)
	expect(first, second)
	second.Times = nil
	put(second)
	expect(first)
	put(storage.Window{WindowRef: b}, storage.Window{WindowRef: a, Times: []byte{}})
	expect()
}
