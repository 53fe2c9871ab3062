package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// eachSubject runs fn for every kind of row, each in an organization of its own
// that holds what the row refers to.
func (c *check) eachSubject(fn func(s subject, org string)) {
	for i, s := range subjects() {
		org := fmt.Sprintf("org-%d", i)
		c.update(org, func(ctx context.Context, tx storage.Tx) { s.prepare(ctx, tx, org) })
		fn(s, org)
	}
}

// refused fails unless the one call that fn makes is ErrInvalid.
func (c *check) refused(what, organization string, fn func(context.Context, storage.Tx) error) {
	var answer error
	err := c.try(c.ctx, c.store(), organization, func(ctx context.Context, tx storage.Tx) { answer = fn(ctx, tx) })
	if !errors.Is(answer, storage.ErrInvalid) {
		failf("%s: answered %s, not ErrInvalid", what, describe(answer))
	}
	if err == nil {
		failf("%s: was refused, but Update answered nil", what)
	}
}

func checkInsert(c *check) {
	c.eachSubject(func(s subject, org string) {
		for _, revision := range []int64{0, -1} {
			c.refused(fmt.Sprintf("%s of revision %d", s.name, revision), org, func(ctx context.Context, tx storage.Tx) error {
				_, err := s.put(ctx, tx, s.row(org, revision, 0))
				return err
			})
		}
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			s.expect(ctx, tx, org, nil)
			no(s.put(ctx, tx, s.row(org, 2, 0)))
			s.expect(ctx, tx, org, nil)
			yes(s.put(ctx, tx, s.row(org, 1, 0)))
			s.expect(ctx, tx, org, s.row(org, 1, 0))
			no(s.put(ctx, tx, s.row(org, 1, 1)))
		})
		c.view(org, func(ctx context.Context, tx storage.ReadTx) { s.expect(ctx, tx, org, s.row(org, 1, 0)) })
	})
}

func checkUpdate(c *check) {
	c.eachSubject(func(s subject, org string) {
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			yes(s.put(ctx, tx, s.row(org, 1, 0)))
			yes(s.put(ctx, tx, s.row(org, 2, 1)))
			s.expect(ctx, tx, org, s.row(org, 2, 1))
		})
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			for _, revision := range []int64{1, 2, 4} {
				no(s.put(ctx, tx, s.row(org, revision, 2)))
				s.expect(ctx, tx, org, s.row(org, 2, 1))
			}
			yes(s.put(ctx, tx, s.row(org, 3, 2)))
		})
		c.view(org, func(ctx context.Context, tx storage.ReadTx) { s.expect(ctx, tx, org, s.row(org, 3, 2)) })
		for _, column := range s.identity {
			c.identity(s, org, column)
		}
	})
}

// identity tries to change a column of the identity. That is refused or answered
// false.
func (c *check) identity(s subject, org, column string) {
	var done bool
	_ = c.try(c.ctx, c.store(), org, func(ctx context.Context, tx storage.Tx) {
		changed, err := s.put(ctx, tx, with(s.row(org, 4, 1), column, otherIdentity[column]))
		done = changed && err == nil
	})
	if done {
		failf("%s: Put answered true although it changes %s", s.name, column)
	}
	c.view(org, func(ctx context.Context, tx storage.ReadTx) { s.expect(ctx, tx, org, s.row(org, 3, 2)) })
}

var otherIdentity = map[string]any{
	"Agent": "agent-2", "Tool": "tool-3", "Grant": "grant-2", "ConfigKey": "another",
	"Purpose": vault.PurposeSign, "Digest": make([]byte, 32),
}

func checkRoundtrip(c *check) {
	for _, variant := range []int{1, 2, 3} {
		for i, s := range subjects() {
			org := fmt.Sprintf("org-%d-%d", variant, i)
			c.update(org, func(ctx context.Context, tx storage.Tx) {
				s.prepare(ctx, tx, org)
				yes(s.put(ctx, tx, s.row(org, 1, variant)))
				s.expect(ctx, tx, org, s.row(org, 1, variant))
			})
			c.view(org, func(ctx context.Context, tx storage.ReadTx) { s.expect(ctx, tx, org, s.row(org, 1, variant)) })
		}
	}
	window := storage.Window{WindowRef: storage.WindowRef{Tier: "read", Subject: odd}}
	fill(&window, 1)
	var lines []audit.Line
	var head storage.Head
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		ok(tx.PutWindows(ctx, []storage.Window{window}))
		e := event(audit.ActionAgentUpdated)
		e.Details = map[string]string{"text": "ß☃𝄞 ' \" \\ ? %"}
		lines = appendTo(ctx, tx, acme, true, event(audit.ActionAgentCreated), e)
		head = got(tx.Head(ctx))
	})
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		equal("window", got(tx.Windows(ctx, []storage.WindowRef{window.WindowRef})), []storage.Window{window})
		equal("lines", got(tx.Lines(ctx, 0, 10)), lines)
		after := got(tx.Head(ctx))
		head.Now, after.Now = 0, 0
		equal("head", after, head)
		equal("checkpoints", got(tx.Checkpoints(ctx, 0, 10)), []storage.Checkpoint{{Size: 2, Signed: head.Signed}})
	})
}

func checkText(c *check) {
	c.eachSubject(func(s subject, org string) {
		row := reflect.TypeOf(s.row(org, 1, 0)).Elem()
		for i := range row.NumField() {
			if row.Field(i).Type.Kind() != reflect.String {
				continue
			}
			for _, bad := range []string{"a\xff", "a\x00b"} {
				c.refused(s.name+"'s "+row.Field(i).Name, org, func(ctx context.Context, tx storage.Tx) error {
					column := row.Field(i)
					value := reflect.ValueOf(bad).Convert(column.Type).Interface()
					_, err := s.put(ctx, tx, with(s.row(org, 1, 0), column.Name, value))
					return err
				})
			}
		}
	})
	bad := "a\xff"
	c.refused("an agent's id in a query", acme, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.Agents(ctx, storage.AgentQuery{IDs: []string{bad}})
		return err
	})
	c.refused("a scan's bound", acme, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.ScanRecords(ctx, storage.Scan{Kind: "setting", From: bad, Limit: 1})
		return err
	})
	c.refused("a window's subject", acme, func(ctx context.Context, tx storage.Tx) error {
		return tx.PutWindows(ctx, []storage.Window{{WindowRef: storage.WindowRef{Tier: "read", Subject: bad}, Times: []byte{1}}})
	})
	c.refused("a delivery's topic", acme, func(ctx context.Context, tx storage.Tx) error {
		d := delivery(acme, "delivery-1", clock)
		d.Topic = bad
		return tx.Enqueue(ctx, []storage.Delivery{d})
	})
}

func checkReference(c *check) {
	c.update(acme, func(ctx context.Context, tx storage.Tx) { base(ctx, tx, acme) })
	c.update(globex, func(ctx context.Context, tx storage.Tx) {
		yes(tx.PutOrganization(ctx, organization(globex)))
		yes(tx.PutAgent(ctx, agent(globex, "agent-9")))
		yes(tx.PutTool(ctx, tool(globex, "tool-9")))
	})
	put := func(what string, fn func(context.Context, storage.Tx) (bool, error)) {
		c.refused(what, acme, func(ctx context.Context, tx storage.Tx) error {
			_, err := fn(ctx, tx)
			return err
		})
	}
	// What ends in 9 is only there in the other organization.
	for _, id := range []string{"none", "agent-9"} {
		put("key of agent "+id, func(ctx context.Context, tx storage.Tx) (bool, error) {
			return tx.PutKey(ctx, agentKey(acme, "key-1", id))
		})
		put("grant of agent "+id, func(ctx context.Context, tx storage.Tx) (bool, error) {
			return tx.PutGrant(ctx, grant(acme, "grant-1", id, "tool-1"))
		})
	}
	for _, id := range []string{"none", "tool-9"} {
		put("grant of tool "+id, func(ctx context.Context, tx storage.Tx) (bool, error) {
			return tx.PutGrant(ctx, grant(acme, "grant-1", "agent-0", id))
		})
		put("credential of tool "+id, func(ctx context.Context, tx storage.Tx) (bool, error) {
			return tx.PutCredential(ctx, credential(acme, "credential-1", id, ""))
		})
	}
	put("credential of no grant", func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.PutCredential(ctx, credential(acme, "credential-1", "tool-0", "none"))
	})
	put("approval of no grant", func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.PutApproval(ctx, approval(acme, "none", "actor-1"))
	})
}

func checkTenant(c *check) {
	for _, s := range subjects() {
		c.update(globex, func(ctx context.Context, tx storage.Tx) {
			if _, there, err := tx.Organization(ctx); err == nil && !there {
				s.prepare(ctx, tx, globex)
			}
			if s.name == "organization" {
				return // base puts it for the others
			}
			yes(s.put(ctx, tx, s.row(globex, 1, 0)))
		})
		c.refused(s.name+" of another organization", acme, func(ctx context.Context, tx storage.Tx) error {
			_, err := s.put(ctx, tx, s.row(globex, 1, 0))
			return err
		})
		c.update(acme, func(ctx context.Context, tx storage.Tx) {
			s.expect(ctx, tx, acme, nil)
			if s.name != "approval" { // which has nothing to refer to here
				no(s.put(ctx, tx, s.row(acme, 2, 1)))
			}
		})
	}
	c.update(globex, func(ctx context.Context, tx storage.Tx) {
		appendTo(ctx, tx, globex, true, event(audit.ActionAgentCreated))
		ok(tx.PutWindows(ctx, []storage.Window{{WindowRef: storage.WindowRef{Tier: "read", Subject: "a"}, Times: []byte{1}}}))
		ok(tx.Enqueue(ctx, []storage.Delivery{delivery(globex, "delivery-1", clock)}))
	})
	leased := c.lease(c.store(), clock, clock+1, 1)
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		foreign(ctx, tx)
		no(tx.DeleteTool(ctx, "tool-2", 1))
		no(tx.DeleteCredential(ctx, "credential-1", 1))
		no(tx.DeleteRecord(ctx, "setting", odd, 1))
		no(tx.Settle(ctx, storage.Settlement{ID: "delivery-1", LeaseUntil: leased[0].LeaseUntil, LeaseNode: leased[0].LeaseNode, Done: true}))
		missing(tx.ReserveSeals(ctx, "data-key-1", 5))
	})
	c.view(acme, foreign)
	equal("events of acme", got(c.store().Events(c.ctx, acme, storage.EventQuery{Limit: 10})), storage.EventPage{})
	c.update(acme, func(ctx context.Context, tx storage.Tx) { base(ctx, tx, acme) })
	for _, s := range subjects()[1:] {
		c.update(acme, func(ctx context.Context, tx storage.Tx) { yes(s.put(ctx, tx, s.row(acme, 1, 2))) })
		c.view(globex, func(ctx context.Context, tx storage.ReadTx) { s.expect(ctx, tx, globex, s.row(globex, 1, 0)) })
	}
}

// foreign fails when anything of another organization can be read.
func foreign(ctx context.Context, tx storage.ReadTx) {
	missing(tx.Organization(ctx))
	list := storage.AgentQuery{Limit: 10, Total: true}
	equal("agents", got(tx.Agents(ctx, list)), storage.AgentPage{})
	equal("tools", got(tx.Tools(ctx, storage.ToolQuery{Limit: 10, Total: true})), storage.ToolPage{})
	equal("grants", got(tx.Grants(ctx, storage.GrantQuery{Limit: 10, Total: true})), storage.GrantPage{})
	pair := storage.Pair{Agent: "agent-0", Tool: "tool-1"}
	equal("grants", got(tx.Grants(ctx, storage.GrantQuery{Pairs: []storage.Pair{pair}})), storage.GrantPage{})
	equal("keys", got(tx.Keys(ctx, storage.KeyQuery{Agents: []string{"agent-0"}})), []storage.Key(nil))
	equal("records", got(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", Limit: 10})), []storage.Record(nil))
	equal("records", got(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", Index: "a", Limit: 10})), []storage.Record(nil))
	equal("windows", got(tx.Windows(ctx, []storage.WindowRef{{Tier: "read", Subject: "a"}})), []storage.Window(nil))
	equal("lines", got(tx.Lines(ctx, 0, 10)), []audit.Line(nil))
	equal("checkpoints", got(tx.Checkpoints(ctx, 0, 10)), []storage.Checkpoint(nil))
	head := got(tx.Head(ctx))
	head.Now = 0
	equal("head", head, storage.Head{})
}

func checkOwned(c *check) {
	c.eachSubject(func(s subject, org string) {
		want := s.row(org, 1, 1)
		c.update(org, func(ctx context.Context, tx storage.Tx) {
			given := s.row(org, 1, 1)
			yes(s.put(ctx, tx, given))
			scribble(given)
			for range 2 {
				s.expect(ctx, tx, org, want)
				row, _, err := s.get(ctx, tx, org)
				ok(err)
				scribble(row)
			}
		})
		for range 2 {
			c.view(org, func(ctx context.Context, tx storage.ReadTx) {
				s.expect(ctx, tx, org, want)
				row, _, err := s.get(ctx, tx, org)
				ok(err)
				scribble(row)
			})
		}
	})
	c.ownedLog()
	due := delivery(acme, "delivery-1", clock)
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		given := delivery(acme, "delivery-1", clock)
		ok(tx.Enqueue(ctx, []storage.Delivery{given}))
		scribble(&given)
	})
	for turn := range int64(2) {
		leased := c.lease(c.store(), clock+turn*10, clock+turn*10+5, 1)
		equal("payload of a delivery", leased[0].Payload, due.Payload)
		scribble(&leased[0])
	}
}

func (c *check) ownedLog() {
	var want storage.Append
	ref := storage.WindowRef{Tier: "read", Subject: "a"}
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		want = following(got(tx.Head(ctx)), acme, event(audit.ActionAgentCreated))
		given := following(got(tx.Head(ctx)), acme, event(audit.ActionAgentCreated))
		given.Keep = true
		ok(tx.Append(ctx, given))
		scribble(&given)
		window := storage.Window{WindowRef: ref, Times: []byte{1, 2, 3}}
		ok(tx.PutWindows(ctx, []storage.Window{window}))
		scribble(&window)
	})
	for range 2 {
		c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
			lines, head := got(tx.Lines(ctx, 0, 10)), got(tx.Head(ctx))
			equal("lines", lines, want.Lines)
			equal("head", head.Head, want.Head)
			equal("head's seal", head.Seal, want.Seal)
			kept, windows := got(tx.Checkpoints(ctx, 0, 10)), got(tx.Windows(ctx, []storage.WindowRef{ref}))
			equal("checkpoints", kept, []storage.Checkpoint{{Size: 1, Signed: want.Head.Signed}})
			equal("windows", windows, []storage.Window{{WindowRef: ref, Times: []byte{1, 2, 3}}})
			scribble(&lines)
			scribble(&head)
			scribble(&kept)
			scribble(&windows)
		})
		page := got(c.store().Events(c.ctx, acme, storage.EventQuery{Limit: 10}))
		equal("events", page.Lines, want.Lines)
		scribble(&page)
	}
}

// unordered are ids whose order by their bytes is none that a language has.
var unordered = []string{"b", "a", "B", "A", "aa", "a-", "a b", "a_", "é", "z", "10", "9", "ß", "~", "a.b", "Ab", "aB", "\u00e0", "☃", "𝄞", "\uffee"}

func checkOrder(c *check) {
	random := rand.New(rand.NewPCG(1, 2))
	shuffled := append([]string(nil), unordered...)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	c.update(acme, func(ctx context.Context, tx storage.Tx) {
		base(ctx, tx, acme)
		for _, id := range shuffled {
			yes(tx.PutAgent(ctx, agent(acme, "x"+id)))
			yes(tx.PutTool(ctx, tool(acme, "x"+id)))
			yes(tx.PutGrant(ctx, grant(acme, "x"+id, "agent-0", "x"+id)))
			yes(tx.PutKey(ctx, agentKey(acme, "x"+id, "agent-0")))
			k := dataKey(acme, "x"+id, vault.PurposeSeal)
			k.State = vault.KeyDecryptOnly
			yes(tx.PutDataKey(ctx, k))
		}
	})
	var x []string
	for _, id := range unordered {
		x = append(x, "x"+id)
	}
	x = descending(x)
	c.view(acme, func(ctx context.Context, tx storage.ReadTx) {
		paged("agents", append(x, "agent-0"), func(after string) []string {
			p := got(tx.Agents(ctx, storage.AgentQuery{After: after, Limit: 4}))
			return ids(p.Agents, func(a storage.Agent) string { return a.ID })
		})
		paged("tools", append(x, "tool-1", "tool-0"), func(after string) []string {
			p := got(tx.Tools(ctx, storage.ToolQuery{After: after, Limit: 4}))
			return ids(p.Tools, func(t storage.Tool) string { return t.ID })
		})
		paged("grants", append(x, "grant-0"), func(after string) []string {
			p := got(tx.Grants(ctx, storage.GrantQuery{After: after, Limit: 4}))
			return ids(p.Grants, grantID)
		})
		keys := got(tx.Keys(ctx, storage.KeyQuery{Agents: []string{"agent-0"}}))
		equal("keys", ids(keys, func(k storage.Key) string { return k.ID }), x)
		equal("data keys", ids(got(tx.DataKeys(ctx)), func(k storage.DataKey) string { return k.ID }), x)
	})
}

// paged fails unless pages of four, read one after the other, make the list.
func paged(what string, want []string, page func(after string) []string) {
	var list []string
	for after := ""; ; {
		p := page(after)
		list = append(list, p...)
		if len(p) > 4 || len(list) > len(want) {
			failf("%s: pages don't end, or are longer than their limit: %q", what, list)
		}
		if len(p) < 4 {
			break
		}
		after = p[len(p)-1]
	}
	equal(what, list, want)
}

func checkLimits(c *check) {
	s := c.store()
	for _, limit := range []int{-1, 0, storage.MaxPage + 1} {
		for what, query := range map[string]func(context.Context, storage.Tx) error{
			"Agents": func(ctx context.Context, tx storage.Tx) error {
				return second(tx.Agents(ctx, storage.AgentQuery{Limit: limit}))
			},
			"Tools": func(ctx context.Context, tx storage.Tx) error {
				return second(tx.Tools(ctx, storage.ToolQuery{Limit: limit}))
			},
			"Grants": func(ctx context.Context, tx storage.Tx) error {
				return second(tx.Grants(ctx, storage.GrantQuery{Limit: limit}))
			},
			"Lines":       func(ctx context.Context, tx storage.Tx) error { return second(tx.Lines(ctx, 0, limit)) },
			"Checkpoints": func(ctx context.Context, tx storage.Tx) error { return second(tx.Checkpoints(ctx, 0, limit)) },
			"ScanRecords": func(ctx context.Context, tx storage.Tx) error {
				return second(tx.ScanRecords(ctx, storage.Scan{Kind: "setting", Limit: limit}))
			},
		} {
			c.refused(fmt.Sprintf("%s with limit %d", what, limit), acme, query)
		}
		is(second(s.Organizations(c.ctx, "", limit)), storage.ErrInvalid)
		is(second(s.Due(c.ctx, clock, limit)), storage.ErrInvalid)
		is(second(s.Events(c.ctx, acme, storage.EventQuery{Limit: limit})), storage.ErrInvalid)
		is(second(s.Lease(c.ctx, storage.LeaseQuery{Now: clock, Until: clock + 1, Node: "node", Limit: limit})), storage.ErrInvalid)
	}
	many := make([]string, storage.MaxIDs+1)
	for what, query := range map[string]func(context.Context, storage.Tx) error{
		"Agents": func(ctx context.Context, tx storage.Tx) error {
			return second(tx.Agents(ctx, storage.AgentQuery{IDs: many}))
		},
		"Keys": func(ctx context.Context, tx storage.Tx) error {
			return second(tx.Keys(ctx, storage.KeyQuery{IDs: many}))
		},
		"Approvals": func(ctx context.Context, tx storage.Tx) error { return second(tx.Approvals(ctx, many)) },
	} {
		c.refused(what+" with too many ids", acme, query)
	}
}

func checkClosed(c *check) {
	s := c.store()
	closer, closes := s.(io.Closer)
	if !closes {
		panic(skip("the store has no method Close() error"))
	}
	c.update(acme, func(ctx context.Context, tx storage.Tx) { yes(tx.PutOrganization(ctx, organization(acme))) })
	ok(closer.Close())
	for name, call := range calls(s) {
		if err := call(c.ctx); !errors.Is(err, storage.ErrClosed) {
			failf("%s answered %s, not ErrClosed", name, describe(err))
		}
	}
}

// calls are all methods of a store.
func calls(s storage.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Update": func(ctx context.Context) error {
			return s.Update(ctx, acme, func(context.Context, storage.Tx) error { return nil })
		},
		"View": func(ctx context.Context) error {
			return s.View(ctx, acme, func(context.Context, storage.ReadTx) error { return nil })
		},
		"FindKey": func(ctx context.Context) error {
			_, _, err := s.FindKey(ctx, make([]byte, 32))
			return err
		},
		"FindRecord": func(ctx context.Context) error {
			_, err := s.FindRecord(ctx, "setting", "a")
			return err
		},
		"Organizations": func(ctx context.Context) error {
			_, err := s.Organizations(ctx, "", 1)
			return err
		},
		"Lease": func(ctx context.Context) error {
			_, err := s.Lease(ctx, storage.LeaseQuery{Now: clock, Until: clock + 1, Node: "node", Limit: 1})
			return err
		},
		"Due": func(ctx context.Context) error {
			_, err := s.Due(ctx, clock, 1)
			return err
		},
		"Events": func(ctx context.Context) error {
			_, err := s.Events(ctx, acme, storage.EventQuery{Limit: 1})
			return err
		},
	}
}
