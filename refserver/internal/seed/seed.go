// Package seed fills an organization with many agents, tools, grants and events,
// to measure what so many cost. What it writes is what the Manager would have written: every row
// and head is sealed, every event is hashed and signed, and a replay of the log
// agrees with the records. Only that it was decided one after another is invented.
package seed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Counts are how much there is to be.
type Counts struct{ Agents, Tools, Grants, Events int }

// Config says where. Nothing else may write to the organization meanwhile.
type Config struct {
	Manager *agentkey.Manager
	Store   storage.Store
	Keys    vault.KeyProvider
	Actor   agentkey.Actor // an owner or admin of the organization
	From    time.Time      // when the first agent is made; not before the log's last event
	To      time.Time      // when the last event happens

	// Assigned makes every grant by one event, and open. Otherwise each is asked
	// for, and decided on in one way or another.
	Assigned bool

	// PerAgent gives every grant a credential of its own. It goes with Assigned.
	PerAgent bool

	// Progress, unless nil, is told how long the log has become.
	Progress func(events int64)
}

// Seeded names what was made. Busy is the agent and BusyTool the tool with the
// most events.
type Seeded struct {
	Agents, Tools  []string
	Administrators []string
	Open           []storage.Pair // the approved grants
	Busy, BusyTool string
	Events         int64 // in the log
}

// Fill fills the organization. The same counts make the same shares of everything,
// with ids and salts of their own: of the grants 70 in 100 are approved, 15
// pending, 10 denied and 5 revoked, unless all are assigned; most events are
// vends, of which few agents and tools make many.
func Fill(ctx context.Context, c Config, n Counts) (Seeded, error) {
	w, err := open(ctx, c)
	if err != nil {
		return Seeded{}, err
	}
	defer w.close()
	w.progress = c.Progress
	f := &filler{writer: w, counts: n, assigned: c.Assigned, perAgent: c.PerAgent, random: rand.New(rand.NewPCG(1, 2)), step: 1}
	if span := c.To.Sub(c.From).Microseconds(); n.Events > 0 {
		f.step = max(span/int64(n.Events+1), 1)
	}
	for i := range administrators {
		f.out.Administrators = append(f.out.Administrators, fmt.Sprintf("administrator-%d", i))
	}
	if err := f.tools(ctx, c); err != nil {
		return f.out, err
	}
	for _, step := range []func(context.Context) error{f.agents, f.grants, f.events} {
		if err := step(ctx); err != nil {
			return f.out, err
		}
	}
	f.out.Events = w.size
	return f.out, nil
}

const administrators = 5

// made is every credential.
const made = "lin_api_test_seed"

// filler makes records and events up.
type filler struct {
	*writer
	counts   Counts
	assigned bool
	perAgent bool
	random   *rand.Rand
	step     int64            // microseconds between two events
	open     []audit.GrantRef // of out.Open
	out      Seeded
}

// tools are added by the Manager itself, which knows what belongs to one.
func (f *filler) tools(ctx context.Context, c Config) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				in := agentkey.AddToolInput{
					Name: fmt.Sprintf("Tool %d", i), Description: "A service that was made up", URL: fmt.Sprintf("tool-%d.example.com", i),
					AuthType: "api_key", Mode: storage.Shared,
				}
				if in.Credential = agentkey.NewSecret([]byte(made)); f.perAgent {
					in.Mode, in.Credential = storage.PerAgent, nil
				}
				v, err := c.Manager.AddTool(ctx, c.Actor, in)
				mu.Lock()
				if failed = or(failed, err); err == nil {
					f.out.Tools = append(f.out.Tools, v.ID)
				}
				mu.Unlock()
			}
		})
	}
	for i := range f.counts.Tools {
		next <- i
	}
	close(next)
	wg.Wait()
	return or(failed, f.writer.reload(ctx))
}

func or(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) agents(ctx context.Context) error {
	for i := range f.counts.Agents {
		now := f.tick(f.step)
		a := storage.Agent{
			Organization: f.organization, ID: f.id(), Name: fmt.Sprintf("Agent %d", i), Description: "A program that was made up",
			Owner: f.out.Administrators[0], CreatedBy: f.out.Administrators[0], CreatedByLabel: "owner@example.com", Status: storage.AgentActive,
			CreatedAt: now, UpdatedAt: now, Revision: 1,
		}
		e := f.event(audit.Actor{Kind: audit.ActorHuman, ID: a.CreatedBy, Auth: "token"}, audit.ActionAgentCreated)
		e.Agent, e.Target = a.ID, audit.Ref{Kind: audit.KindAgent, ID: a.ID}
		e.personal.AgentLabel = a.Name
		var err error
		if a.Seal, err = f.change(e, a.Row(f.installation)); err != nil {
			return err
		}
		f.put(func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutAgent(ctx, a) })
		f.out.Agents = append(f.out.Agents, a.ID)
		if err := f.flush(ctx, false); err != nil {
			return err
		}
	}
	return f.flush(ctx, true)
}

// grants gives each agent about as many, of tools next to each other.
func (f *filler) grants(ctx context.Context) error {
	if f.counts.Grants == 0 || len(f.out.Agents) == 0 || len(f.out.Tools) == 0 {
		return nil
	}
	each := (f.counts.Grants + len(f.out.Agents) - 1) / len(f.out.Agents)
	if each > len(f.out.Tools) {
		return fmt.Errorf("seed: more grants than pairs of agents and tools")
	}
	for i := range f.counts.Grants {
		agent := i / each
		tool := (agent*each + i%each) % len(f.out.Tools)
		one := f.grant
		if f.assigned {
			one = f.assign
		}
		if err := one(f.out.Agents[agent], f.out.Tools[tool], i); err != nil {
			return err
		}
		if err := f.flush(ctx, false); err != nil {
			return err
		}
	}
	return f.flush(ctx, true)
}

func (f *filler) identity(agent, tool string) grants.Identity {
	return grants.Identity{ID: f.id(), Organization: f.organization, Agent: agent, Tool: tool}
}

// decider is one of those who are not the agents' owner, each in turn.
func (f *filler) decider(i int) grants.Decider {
	return grants.Decider{ID: f.out.Administrators[1+i%(administrators-1)], Kind: audit.ActorHuman, Label: "approver@example.com"}
}

// opened notes a grant that may be vended.
func (f *filler) opened(g grants.Grant) {
	f.open = append(f.open, audit.GrantRef{ID: g.ID, Revision: g.Revision, Cycle: g.Cycle})
	f.out.Open = append(f.out.Open, storage.Pair{Agent: g.Agent, Tool: g.Tool})
}

// assign makes a grant that an administrator gave.
func (f *filler) assign(agent, tool string, i int) error {
	now := f.tick(f.step)
	by := f.decider(i)
	t, err := grants.Assign(nil, grants.AssignInput{Identity: f.identity(agent, tool), By: by, Owner: f.out.Administrators[0], OtherApprovers: true}, now)
	if err := or(err, f.decide(t, by, audit.ActionGrantAssigned, nil)); err != nil {
		return err
	}
	f.opened(t.Grant)
	if !f.perAgent {
		return nil
	}
	return f.credential(storage.Credential{
		Organization: f.organization, ID: f.id(), Tool: tool, Grant: t.Grant.ID, AuthType: "api_key", Status: storage.CredentialActive,
		RotatedAt: now, CreatedAt: now, UpdatedAt: now, Revision: 1, SealedRevision: 1,
	})
}

// grant makes one that was asked for and, mostly, decided on.
func (f *filler) grant(agent, tool string, i int) error {
	now := f.tick(f.step)
	t, err := grants.Request(nil, grants.RequestInput{Identity: f.identity(agent, tool), Reason: "to do what was made up"}, now)
	if err != nil {
		return err
	}
	request, err := f.request(t)
	if err != nil {
		return err
	}
	by := f.decider(i)
	switch share := i % 100; {
	case share < 15:
		return nil
	case share < 25:
		t, err = grants.Deny(t.Grant, grants.DenyInput{By: by, Reason: "not now"}, f.tick(1))
		return or(err, f.decide(t, by, audit.ActionGrantDenied, request))
	}
	t, err = grants.Approve(t.Grant, grants.ApproveInput{By: by, OtherApprovers: true}, f.tick(1))
	if err := or(err, f.decide(t, by, audit.ActionGrantApproved, request)); err != nil {
		return err
	}
	if i%100 < 30 {
		t, err = grants.Revoke(t.Grant, by, f.tick(1))
		return or(err, f.decide(t, by, audit.ActionGrantRevoked, nil))
	}
	f.opened(t.Grant)
	return nil
}

// id is an id of the present time, so that ids go on as their records do.
func (f *filler) id() string {
	id := uuid.Must(uuid.NewV7())
	ms := f.now / 1000
	for i := range 6 {
		id[i] = byte(ms >> (8 * (5 - i)))
	}
	return id.String()
}

// events are vends by few agents more than by others, and now and then a refusal.
func (f *filler) events(ctx context.Context) error {
	if len(f.open) == 0 {
		return nil
	}
	zipf := rand.NewZipf(f.random, 1.1, 8, uint64(len(f.open)-1))
	f.out.Busy, f.out.BusyTool = f.out.Open[0].Agent, f.out.Open[0].Tool
	for f.size+int64(len(f.lines)) < int64(f.counts.Events) {
		i := zipf.Uint64()
		p := f.out.Open[i]
		now := f.tick(f.step)
		e := f.event(audit.Actor{Kind: audit.ActorAgent, ID: p.Agent, Auth: "key"}, audit.ActionCredentialVended)
		e.Agent, e.Tool, e.Target, e.Grant = p.Agent, p.Tool, audit.Ref{Kind: audit.KindTool, ID: p.Tool}, f.open[i]
		if now%50 == 0 {
			e.Action, e.Outcome, e.Reason = audit.ActionCredentialRefused, audit.OutcomeRefused, string(grants.ReasonCredentialExpired)
		}
		e.personal.AgentLabel, e.personal.ToolLabel = "An agent", "A tool"
		if err := f.flush(ctx, false); err != nil {
			return err
		}
	}
	return f.flush(ctx, true)
}
