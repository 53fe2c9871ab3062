package agentkey_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// atOnce runs fn n times concurrently and gives what each answered, insistently.
func atOnce(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = insistently(func() error { return fn(i) })
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// tallyErrors counts successes and failures by sentinel; anything else is an error.
func tallyErrors(t *testing.T, errs []error, allowed error) (ok, refused int) {
	t.Helper()
	for _, err := range errs {
		switch {
		case err == nil:
			ok++
		case allowed != nil && errors.Is(err, allowed):
			refused++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	return ok, refused
}

func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	_, key := k.Agent("bot")
	for range 50 {
		tool := k.Tool("Linear", "lin_api_test_1")
		ok, refused := tallyErrors(t, atOnce(16, func(int) error {
			_, err := k.RequestAccess(context.Background(), key, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
			return err
		}), agentkey.ErrAlreadyPending)
		is.Equal(ok, 1)
		is.Equal(refused, 15)
	}
	requests, err := k.Inbox(t.Context(), k.Owner, agentkey.InboxInput{Limit: 100})
	is.NoErr(err)
	is.Equal(len(requests.Items), 50)
}

func TestConcurrentDecisions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	agent, key := k.Agent("bot")
	for range 10 {
		tool := k.Tool("Linear", "lin_api_test_1")
		ids := make([]string, 16)
		ok, _ := tallyErrors(t, atOnce(16, func(i int) error {
			g, err := k.Assign(context.Background(), k.Owner, agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID})
			ids[i] = g.ID
			return err
		}), nil)
		is.Equal(ok, 16) // one made it, and for the others it stood already
		for _, id := range ids {
			is.Equal(id, ids[0])
		}

		asked := k.Tool("Linear", "lin_api_test_1")
		g, err := k.RequestAccess(t.Context(), key, agentkey.RequestInput{Tool: asked.ID, Reason: "to file issues"})
		is.NoErr(err)
		ok, refused := tallyErrors(t, atOnce(16, func(int) error {
			_, err := k.Approve(context.Background(), k.Owner, g.ID, agentkey.DecisionInput{})
			return err
		}), agentkey.ErrNotPending)
		is.Equal(ok, 1)
		is.Equal(refused, 15)
	}
	r, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.True(r.OK())
}

// Tools of one name, added at once, get keys of their own.
func TestConcurrentTools(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	ok, _ := tallyErrors(t, atOnce(16, func(int) error {
		_, err := k.AddTool(context.Background(), k.Owner, agentkey.AddToolInput{
			Name: "Linear", AuthType: "api_key", Mode: storage.Shared, Credential: agentkey.NewSecret([]byte("lin_api_test_1")),
		})
		return err
	}), nil)
	is.Equal(ok, 16)
	tools, err := k.Tools(t.Context(), k.Owner, agentkey.ListInput{})
	is.NoErr(err)
	keys := make(map[string]bool)
	for _, tool := range tools {
		keys[tool.ConfigKey] = true
	}
	is.Equal(len(keys), 16)
	is.True(keys["linear"] && keys["linear-2"] && keys["linear-16"])
}

// race lets many attempts at something run without a pause while it is taken
// away and given back.
type race struct {
	*agentkeytest.Kit
	t       *testing.T
	agent   agentkey.Agent
	tool    agentkey.Tool
	attempt atomic.Pointer[func() error] // what is tried
	state   atomic.Int64                 // odd: it was taken away, and that call has returned
	passed  chan int64                   // the states in which attempts began that succeeded
	failed  chan int64                   // and of those that did not
	broken  atomic.Int64
}

const attackers = 8

// run takes away and gives back, round after round.
func (r *race) run(rounds int, round func(ctx context.Context, i int)) {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	end := func() {
		stop()
		wg.Wait()
	}
	defer end()
	for range attackers {
		wg.Go(func() {
			for ctx.Err() == nil {
				r.once()
			}
		})
	}
	for i := range rounds {
		round(ctx, i)
	}
	end()
	if n := r.broken.Load(); n > 0 {
		r.t.Errorf("%d succeeded that began after it was taken away", n)
	}
}

func (r *race) once() {
	before := r.state.Load()
	err := (*r.attempt.Load())()
	if err == nil && before%2 == 1 && r.state.Load() == before {
		r.broken.Add(1)
	}
	to := r.failed
	if err == nil {
		to = r.passed
	}
	select {
	case to <- before:
	default:
	}
}

// given says that it is there again, and waits until an attempt has succeeded.
func (r *race) given() {
	r.t.Helper()
	now := r.state.Load()
	for range 10_000 {
		select {
		case began := <-r.passed:
			if began == now {
				return
			}
		case <-r.failed:
		}
	}
	r.t.Fatal("nothing succeeds although it was given back")
}

// taken says that taking it away has returned, and waits for some attempts.
func (r *race) taken() {
	r.t.Helper()
	now := r.state.Add(1)
	for refused, late := 0, 0; refused < attackers/2; {
		select {
		case began := <-r.failed:
			if began == now {
				refused++
			}
		case began := <-r.passed:
			if began != now {
				continue
			}
			if late++; late > 100 {
				r.t.Fatal("goes on although it was taken away")
			}
		}
	}
	r.state.Add(1)
}

// insist repeats what storage was too busy for.
func (r *race) insist(do func() error) {
	r.t.Helper()
	for range 100 {
		switch err := do(); {
		case err == nil:
			return
		case !errors.Is(err, agentkey.ErrUnavailable):
			r.t.Fatal(err)
		}
	}
	r.t.Fatal("storage stays busy")
}

func newRace(t *testing.T, store storage.Store, options ...func(*agentkey.Config)) *race {
	t.Helper()
	options = append(options, func(c *agentkey.Config) { c.Storage = store })
	r := &race{Kit: agentkeytest.New(t, options...), t: t, passed: make(chan int64), failed: make(chan int64)}
	agent, key := r.Agent("bot")
	r.agent, r.tool = agent, r.Tool("Linear", "lin_api_test_1")
	r.Allow(agent, r.tool)
	r.vends(key, r.tool.ID)
	return r
}

// vends lets the attempts be vends.
func (r *race) vends(key agentkey.Caller, tool string) {
	r.tries(func() error {
		v, err := r.Vend(context.Background(), key, tool)
		if err == nil {
			v.Credential.Destroy()
		}
		return err
	})
}

// assign gives the agent the tool again, for as long as it says.
func (r *race) assign(ctx context.Context, length time.Duration) {
	r.t.Helper()
	in := agentkey.AssignInput{Agent: r.agent.ID, Tool: r.tool.ID, DecisionInput: agentkey.DecisionInput{Duration: length}}
	r.insist(func() error { return second(r.Assign(ctx, r.Owner, in)) })
}

func (r *race) tries(attempt func() error) { r.attempt.Store(&attempt) }

// log reads the organization's whole log.
func (r *race) log() (out []audit.Event) {
	r.t.Helper()
	err := r.Config.Storage.View(context.Background(), r.Organization.ID, func(ctx context.Context, tx storage.ReadTx) error {
		for {
			lines, err := tx.Lines(ctx, int64(len(out)), 2000)
			if err != nil || len(lines) == 0 {
				return err
			}
			for _, l := range lines {
				e, err := audit.Parse(l.Content)
				if err != nil {
					return err
				}
				out = append(out, e)
			}
		}
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// never fails when an event of a kind stands in the log between one that takes
// away and one that gives back.
func (r *race) never(what audit.Action, takes, gives []audit.Action) {
	r.t.Helper()
	away, vends := false, 0
	for _, e := range r.log() {
		switch {
		case slices.Contains(takes, e.Action):
			away = true
		case slices.Contains(gives, e.Action):
			away = false
		case e.Action == what && away:
			r.t.Errorf("event %d, %s, stands above what forbids it", e.Seq, what)
		case e.Action == what:
			vends++
		}
	}
	r.t.Logf("%d times %s", vends, what)
}

// stores are the backends that races are run on, and how many rounds: fewer where
// each takes its time, and many with AGENTKEY_PROVE set. Their clocks may be moved.
func stores(t *testing.T, test func(t *testing.T, store storage.Store, rounds int)) {
	few, fewer := 30, 6
	if os.Getenv("AGENTKEY_PROVE") != "" {
		few, fewer = 200, 200
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, memstore.New(), few)
	})
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) { test(t, dbtest.Clockless{Store: open(t)}, fewer) })
}

// Law 2: whatever is revoked stays so, on every backend.
func TestNoVendAfterRevoke(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		r.run(rounds, func(ctx context.Context, _ int) {
			r.given()
			r.insist(func() error {
				_, err := r.Revoke(ctx, r.Owner, r.agent.ID, r.tool.ID)
				return err
			})
			r.taken()
			r.insist(func() error {
				_, err := r.Assign(ctx, r.Owner, agentkey.AssignInput{Agent: r.agent.ID, Tool: r.tool.ID})
				return err
			})
		})
		r.never(audit.ActionCredentialVended, []audit.Action{audit.ActionGrantRevoked}, []audit.Action{audit.ActionGrantAssigned})
	})
}

func TestNoVendWhileSuspended(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		r.run(rounds, func(ctx context.Context, _ int) {
			r.given()
			r.insist(func() error { return second(r.SuspendAgent(ctx, r.Owner, r.agent.ID)) })
			r.taken()
			r.insist(func() error { return second(r.ReactivateAgent(ctx, r.Owner, r.agent.ID)) })
			r.assign(ctx, 0)
		})
		r.never(audit.ActionCredentialVended, []audit.Action{audit.ActionAgentSuspended}, []audit.Action{audit.ActionGrantAssigned})
	})
}

func TestNoVendWhileLocked(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		r.run(rounds, func(ctx context.Context, _ int) {
			r.given()
			r.insist(func() error { return second(r.Lock(ctx, r.Owner, "")) })
			r.taken()
			r.insist(func() error { return second(r.Unlock(ctx, r.Owner, "")) })
		})
		r.never(audit.ActionCredentialVended, []audit.Action{audit.ActionOrganizationLocked}, []audit.Action{audit.ActionOrganizationUnlocked})
	})
}

// A key dies when it is rotated without grace, and at the end of its grace.
func TestNoVendWithAnOldKey(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, time.Minute} {
		t.Run(grace.String(), func(t *testing.T) {
			t.Parallel()
			stores(t, func(t *testing.T, store storage.Store, rounds int) {
				r := newRace(t, store)
				r.run(rounds, func(ctx context.Context, _ int) {
					r.given()
					var issued agentkey.IssuedKey
					r.insist(func() (err error) {
						issued, err = r.RotateKey(ctx, r.Owner, r.agent.ID, agentkey.RotateKeyInput{Grace: grace})
						return err
					})
					if grace > 0 {
						r.given()
						r.Clock.Advance(grace)
					}
					r.taken()
					r.vends(agentkey.Key(string(issued.Secret.Bytes())), r.tool.ID)
				})
				r.neverOldKey(grace, rounds)
			})
		})
	}
}

func (r *race) neverOldKey(grace time.Duration, rounds int) {
	r.t.Helper()
	ends := make(map[string]int64) // the time from which a key is dead
	seen := make(map[string]bool)
	for _, e := range r.log() {
		if e.Action == audit.ActionAgentCreated || e.Action == audit.ActionAgentKeyRotated {
			for _, c := range e.Changes {
				if c.Kind == audit.KindKey && seen[c.ID] && ends[c.ID] == 0 {
					ends[c.ID] = e.Time + grace.Microseconds()
				}
				seen[c.ID] = true
			}
		}
		if end := ends[e.Actor.Credential]; e.Action == audit.ActionCredentialVended && end != 0 && e.Time >= end {
			r.t.Errorf("event %d is a vend with a dead key", e.Seq)
		}
	}
	if len(ends) < rounds {
		r.t.Errorf("%d keys died", len(ends))
	}
}

// A grant ends at its end, and is not more than ended.
func TestNoVendAfterExpiry(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		r.insist(func() error { return second(r.Revoke(t.Context(), r.Owner, r.agent.ID, r.tool.ID)) })
		r.run(rounds, func(ctx context.Context, _ int) {
			r.assign(ctx, time.Minute)
			r.given()
			r.Clock.Advance(time.Minute)
			r.taken()
		})
		r.never(audit.ActionCredentialVended, []audit.Action{audit.ActionGrantExpired}, []audit.Action{audit.ActionGrantAssigned})
	})
}

func TestNoVendOfADeletedTool(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		key := agentkey.TrustedAgent(r.Organization.ID, r.agent.ID)
		r.run(rounds, func(ctx context.Context, _ int) {
			r.given()
			r.insist(func() error { return second(r.DeleteTool(ctx, r.Owner, r.tool.ID)) })
			r.taken()
			r.insist(func() error {
				v, err := r.AddTool(ctx, r.Owner, agentkey.AddToolInput{
					Name: "Linear", AuthType: "api_key", Mode: storage.Shared, Credential: agentkey.NewSecret([]byte("lin_api_test_1")),
				})
				r.tool = v.Tool
				return err
			})
			r.assign(ctx, 0)
			r.vends(key, r.tool.ID)
		})
		deleted := make(map[string]bool)
		for _, e := range r.log() {
			if e.Action == audit.ActionToolDeleted {
				deleted[e.Tool] = true
			}
			if e.Action == audit.ActionCredentialVended && deleted[e.Tool] {
				t.Errorf("event %d is a vend of a deleted tool", e.Seq)
			}
		}
	})
}

// Once a credential was replaced nobody is given the old one.
func TestNoVendOfAReplacedCredential(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store storage.Store, rounds int) {
		r := newRace(t, store)
		key := agentkey.TrustedAgent(r.Organization.ID, r.agent.ID)
		var newest atomic.Int64
		r.tries(func() error {
			least := newest.Load()
			v, err := r.Vend(context.Background(), key, r.tool.ID)
			if err != nil {
				return err
			}
			defer v.Credential.Destroy()
			n, err := strconv.ParseInt(strings.TrimPrefix(string(v.Credential.Bytes()), "lin_api_test_"), 10, 64)
			if err != nil || n < least {
				r.broken.Add(1)
			}
			return nil
		})
		r.run(rounds, func(ctx context.Context, i int) {
			r.insist(func() error {
				secret := agentkey.NewSecret([]byte("lin_api_test_" + strconv.Itoa(i+2)))
				return second(r.UpdateTool(ctx, r.Owner, r.tool.ID, agentkey.UpdateToolInput{Credential: secret}))
			})
			newest.Store(int64(i + 2))
			r.state.Add(2)
			r.given()
		})
		var current string
		for _, e := range r.log() {
			for _, c := range e.Changes {
				if c.Kind == audit.KindCredential && !c.Removed {
					current = c.ID
				}
			}
			if e.Action == audit.ActionCredentialVended && e.Credential.ID != current {
				t.Errorf("event %d is a vend of a replaced credential", e.Seq)
			}
		}
	})
}

// An administrator who was removed, whose token was revoked or whose role was
// taken changes nothing any more.
func TestNoChangeByAFormerAdministrator(t *testing.T) {
	t.Parallel()
	auditor := agentkey.RoleAuditor
	for name, takeAway := range map[string]func(ctx context.Context, r *race, a agentkey.Actor) error{
		"removed": func(ctx context.Context, r *race, a agentkey.Actor) error {
			return r.RemoveAdministrator(ctx, r.Owner, a.ID)
		},
		"token revoked": func(ctx context.Context, r *race, a agentkey.Actor) error {
			return r.RevokeToken(ctx, r.Owner, a.Credential)
		},
		"role": func(ctx context.Context, r *race, a agentkey.Actor) error {
			_, err := r.UpdateAdministrator(ctx, r.Owner, a.ID, agentkey.UpdateAdministratorInput{Role: &auditor})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores(t, func(t *testing.T, store storage.Store, rounds int) {
				r := newRace(t, store)
				a := r.changes()
				r.run(rounds, func(ctx context.Context, _ int) {
					r.given()
					r.insist(func() error { return takeAway(ctx, r, a) })
					r.taken()
					a = r.changes()
				})
				r.neverFormer(rounds)
			})
		})
	}
}

// changes lets the attempts be changes by a new administrator.
func (r *race) changes() (a agentkey.Actor) {
	r.t.Helper()
	ctx := r.t.Context()
	r.insist(func() error {
		admin, err := r.AddAdministrator(ctx, r.Owner, agentkey.AddAdministratorInput{Label: "admin@example.com", Role: agentkey.RoleAdmin})
		if err != nil {
			return err
		}
		token, err := r.CreateToken(ctx, r.Owner, agentkey.CreateTokenInput{Administrator: admin.ID})
		if err != nil {
			return err
		}
		a, err = r.Authenticate(ctx, token.Secret, agentkey.RequestContext{})
		return err
	})
	r.tries(func() error {
		text := "changed"
		return second(r.UpdateAgent(context.Background(), a, r.agent.ID, agentkey.UpdateAgentInput{Description: &text}))
	})
	return a
}

func (r *race) neverFormer(rounds int) {
	r.t.Helper()
	former, changes := make(map[string]bool), 0
	for _, e := range r.log() {
		switch e.Action {
		case audit.ActionAdministratorRemoved, audit.ActionTokenRevoked, audit.ActionAdministratorUpdated:
			former[e.Target.ID] = true
		case audit.ActionAgentUpdated:
			changes++
			if former[e.Actor.ID] || former[e.Actor.Credential] {
				r.t.Errorf("event %d is a change by a former administrator", e.Seq)
			}
		}
	}
	if changes < rounds {
		r.t.Errorf("%d changes", changes)
	}
}
