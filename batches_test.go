package agentkey_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// held is a store whose next Update waits, once it is decided, until it is let go, so
// that others queue up behind it and share the one after.
type held struct {
	storage.Store
	hold    atomic.Pointer[chan struct{}]
	wait    atomic.Pointer[chan struct{}] // the same, before it has the head
	updates atomic.Int64
	within  func() // called once every decision of an Update is made
}

func (s *held) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	s.updates.Add(1)
	if wait := s.wait.Swap(nil); wait != nil {
		<-*wait
	}
	hold := s.hold.Swap(nil)
	return s.Store.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
		err := fn(ctx, tx)
		if hold != nil {
			<-*hold
		}
		if s.within != nil {
			s.within()
		}
		return err
	})
}

// crowd is a kit on a held store, within a bubble of package synctest.
type crowd struct {
	*agentkeytest.Kit
	t      *testing.T
	store  *held
	keys   *watchedKeys
	agent  agentkey.Agent
	caller agentkey.Caller
	tool   agentkey.Tool
}

func inCrowd(t *testing.T, test func(t *testing.T, c *crowd)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newCrowd(t)) })
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, store: &held{Store: memstore.New()}, keys: &watchedKeys{KeyProvider: agentkeytest.Keys(t), t: t}}
	c.Kit = agentkeytest.New(t, func(config *agentkey.Config) { config.Storage, config.Keys = c.store, c.keys })
	c.agent, c.caller = c.Kit.Agent("bot")
	c.tool = c.Kit.Tool("Linear", "lin_api_test_crowd")
	c.Allow(c.agent, c.tool)
	return c
}

func (c *crowd) vend(ctx context.Context, tool string) error {
	v, err := c.Vend(ctx, c.caller, tool)
	if err != nil {
		if v != nil {
			c.t.Error("something was revealed beside an error")
		}
		return err
	}
	v.Credential.Destroy()
	return nil
}

// together has operations queue up one after another behind a vend that is being
// carried out, lets that go, and answers what came of them, and in how many
// transactions.
func (c *crowd) together(operations ...func() error) (errs []error, updates int64) {
	letGo := make(chan struct{})
	c.store.hold.Store(&letGo)
	first := make(chan error, 1)
	go func() { first <- c.vend(c.t.Context(), c.tool.ID) }()
	synctest.Wait()
	errs = make([]error, len(operations))
	ended := make(chan struct{}, len(operations))
	for i, operation := range operations {
		go func() { errs[i] = operation(); ended <- struct{}{} }()
		synctest.Wait()
	}
	before := c.store.updates.Load()
	close(letGo)
	if err := <-first; err != nil {
		c.t.Error(err)
	}
	for range operations {
		<-ended
	}
	return errs, c.store.updates.Load() - before
}

func (c *crowd) vends() (n int) {
	page, err := c.Events(c.t.Context(), c.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionCredentialVended}, Limit: 500})
	if err != nil {
		c.t.Fatal(err)
	}
	return len(page.Events)
}

// TestRevokedInTheSameBatch: a vend that shares its transaction with a revocation is
// refused, also if it waited before that came.
func TestRevokedInTheSameBatch(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		vend := func() error { return c.vend(t.Context(), c.tool.ID) }
		errs, updates := c.together(vend, func() error {
			_, err := c.Revoke(t.Context(), c.Owner, c.agent.ID, c.tool.ID)
			return err
		}, vend, vend)
		is.Equal(updates, int64(1)) // they did share it
		is.NoErr(errs[1])
		for _, i := range []int{0, 2, 3} {
			is.True(errors.Is(errs[i], agentkey.ErrRevoked))
		}
		is.Equal(c.vends(), 1)
	})
}

// TestCallerGone: who goes before the turn is not even recorded; who goes while the
// batch is decided is recorded and gets nothing. Neither is its neighbours' affair.
func TestCallerGone(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		early, leaveEarly := context.WithCancel(t.Context())
		late, leaveLate := context.WithCancel(t.Context())
		vend := func(ctx context.Context) func() error { return func() error { return c.vend(ctx, c.tool.ID) } }
		errs, updates := c.together(vend(early), vend(t.Context()), vend(late), func() error {
			leaveEarly()
			first := true // the transaction that is held goes on before the batch
			c.store.within = func() {
				if !first {
					leaveLate()
				}
				first = false
			}
			return c.vend(t.Context(), c.tool.ID)
		})
		is.Equal(updates, int64(1))
		is.True(errors.Is(errs[0], context.Canceled))
		is.NoErr(errs[1])
		is.True(errors.Is(errs[2], context.Canceled))
		is.NoErr(errs[3])
		is.Equal(c.vends(), 4) // the first, and all but the early one
	})
}

// TestCallerGoesAtItsTurn: who goes just when its turn comes leads no batch into the
// ground: its neighbour's is decided in the same transaction or without it.
func TestCallerGoesAtItsTurn(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		for range 200 {
			leaving, leave := context.WithCancel(t.Context())
			c.store.within = func() { leave() } // the transaction before ends in the same moment
			errs, updates := c.together(
				func() error { return c.vend(leaving, c.tool.ID) },
				func() error { return c.vend(t.Context(), c.tool.ID) },
			)
			is.Equal(updates, int64(1))
			is.True(errors.Is(errs[0], context.Canceled))
			is.NoErr(errs[1])
		}
	})
}

// TestJoinedUnderTheHead: who queues up while the first waits for the head, which
// another process may hold, is decided under that head, a revocation first. The first may
// leave: before the head is had it goes alone, and after that it is carried through.
func TestJoinedUnderTheHead(t *testing.T) {
	for name, leaves := range map[string]bool{"the first stays": false, "the first leaves": true} {
		t.Run(name, func(t *testing.T) {
			inCrowd(t, func(t *testing.T, c *crowd) {
				is := is.New(t)
				hasHead := make(chan struct{})
				c.store.wait.Store(&hasHead)
				ctx, leave := context.WithCancel(t.Context())
				var errs [4]error
				var ended sync.WaitGroup
				for i, operation := range []func() error{
					func() error { return c.vend(ctx, c.tool.ID) },
					func() error { return c.vend(t.Context(), c.tool.ID) },
					func() error {
						_, err := c.Revoke(t.Context(), c.Owner, c.agent.ID, c.tool.ID)
						return err
					},
					func() error { return c.vend(t.Context(), c.tool.ID) },
				} {
					ended.Go(func() { errs[i] = operation() })
					synctest.Wait()
				}
				before := c.store.updates.Load() // the first is in its own
				if leaves {
					leave()
					synctest.Wait()
				} else {
					c.store.within = leave // it is decided, and recorded
				}
				close(hasHead)
				ended.Wait()
				leave()
				is.True(errors.Is(errs[0], context.Canceled))
				is.True(errors.Is(errs[1], agentkey.ErrRevoked))
				is.NoErr(errs[2])
				is.True(errors.Is(errs[3], agentkey.ErrRevoked))
				if leaves {
					is.Equal(c.store.updates.Load()-before, int64(1))
					is.Equal(c.vends(), 0)
				} else {
					is.Equal(c.store.updates.Load()-before, int64(0))
					is.Equal(c.vends(), 1)
				}
			})
		})
	}
}

// TestPanicRevealsNothing: where storage panics between decision and commit, whoever
// shares the transaction is told that the outcome is unknown, and given nothing.
func TestPanicRevealsNothing(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		vend := func() (err error) {
			defer func() {
				if recover() != nil {
					err = agentkey.ErrUnknown // the one that carried out the transaction
				}
			}()
			return c.vend(t.Context(), c.tool.ID)
		}
		decisions := 0
		c.store.within = func() {
			if decisions++; decisions == 2 { // after the one behind which they queue up
				panic("a fault of the storage")
			}
		}
		errs, _ := c.together(vend, vend, vend)
		for _, err := range errs {
			is.True(errors.Is(err, agentkey.ErrUnknown))
		}
		is.Equal(c.vends(), 1)
		is.NoErr(c.vend(t.Context(), c.tool.ID)) // and the queue goes on
	})
}

// TestNobodyIsLeftOut: who leads is in its batch, also if what takes access away and
// goes alone comes in the moment before it begins.
func TestNobodyIsLeftOut(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	vend := vender(k)
	other, _ := k.Agent("other")
	k.Allow(other, k.Tool("GitHub", "ghp_test_other"))
	do := []func() error{
		func() error { return vend(t.Context()) },
		func() error { return second(k.SuspendAgent(t.Context(), k.Owner, other.ID)) },
	}
	for range 3000 {
		is.NoErr(errors.Join(atOnce(4, func(i int) error { return do[i%2]() })...))
	}
}

// TestPoisonedNeighbour: a vend that meets an edited row fails alone. The batch is
// run again one by one.
func TestPoisonedNeighbour(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		bad := c.Kit.Tool("GitHub", "ghp_test_poisoned")
		c.Allow(c.agent, bad)
		is.NoErr(c.store.Store.Update(t.Context(), c.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
			found, err := tx.Credentials(ctx, []storage.CredentialRef{{Tool: bad.ID}})
			if err != nil {
				return err
			}
			found[0].Revision++
			found[0].Sealed = slices.Clone(found[0].Sealed)
			found[0].Sealed[len(found[0].Sealed)-1] ^= 1
			_, err = tx.PutCredential(ctx, found[0])
			return err
		}))
		vend := func(tool string) func() error { return func() error { return c.vend(t.Context(), tool) } }
		errs, updates := c.together(vend(c.tool.ID), vend(bad.ID), vend(c.tool.ID))
		is.NoErr(errs[0])
		is.True(errors.Is(errs[1], agentkey.ErrIntegrity))
		is.NoErr(errs[2])
		is.True(updates >= 4) // together, and each alone
		is.Equal(c.vends(), 3)
	})
}

// TestUnknownKeysWaitForNobody: a key that nobody has is refused while a head is
// held, without a transaction.
func TestUnknownKeysWaitForNobody(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		_, updates := c.together(func() error {
			before := c.store.updates.Load()
			_, err := c.Vend(t.Context(), agentkey.Key("sk_agent_test_nobody_has_this_key"), c.tool.ID)
			is.True(errors.Is(err, agentkey.ErrUnauthenticated))
			is.Equal(c.store.updates.Load(), before)
			return nil
		})
		is.Equal(updates, int64(0))
	})
}

// fill has the queue fill up with vends behind one that is being carried out. What
// comes of them is known once letGo is closed.
func (c *crowd) fill() (letGo chan struct{}, answers chan error) {
	const bound = 4096
	letGo, answers = make(chan struct{}), make(chan error, 1+bound)
	c.store.hold.Store(&letGo)
	for range cap(answers) {
		go func() { answers <- c.vend(c.t.Context(), c.tool.ID) }()
		synctest.Wait()
	}
	return letGo, answers
}

// TestQueueIsBounded: whoever finds the queue full is refused at once, and those in
// it are served.
func TestQueueIsBounded(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		letGo, answers := c.fill()
		began := time.Now()
		is.True(errors.Is(c.vend(t.Context(), c.tool.ID), agentkey.ErrOverloaded))
		is.Equal(time.Since(began), time.Duration(0)) // of the bubble's clock
		close(letGo)
		for range cap(answers) {
			is.NoErr(<-answers)
		}
	})
}

// TestNoCrowdDelaysARevocation: what takes access away finds room in a full queue,
// and is decided before all vends that wait in it. A stranger's report of a leak does
// not: whoever has a dead key could delay vends.
func TestNoCrowdDelaysARevocation(t *testing.T) {
	t.Parallel()
	for name, takeAway := range map[string]func(ctx context.Context, c *crowd, key *agentkey.Secret) error{
		"revoke": func(ctx context.Context, c *crowd, _ *agentkey.Secret) error {
			return second(c.Revoke(ctx, c.Owner, c.agent.ID, c.tool.ID))
		},
		"suspend": func(ctx context.Context, c *crowd, _ *agentkey.Secret) error {
			return second(c.SuspendAgent(ctx, c.Owner, c.agent.ID))
		},
		"lock": func(ctx context.Context, c *crowd, _ *agentkey.Secret) error { return second(c.Lock(ctx, c.Owner, "")) },
		"leak": func(ctx context.Context, c *crowd, key *agentkey.Secret) error {
			return second(c.ReportOwnLeak(ctx, c.Owner, agentkey.LeakReport{Secret: key, Source: "commit"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inCrowd(t, func(t *testing.T, c *crowd) {
				is := is.New(t)
				issued, err := c.RotateKey(t.Context(), c.Owner, c.agent.ID, agentkey.RotateKeyInput{})
				is.NoErr(err)
				c.caller = agentkey.Key(string(issued.Secret.Bytes()))
				letGo, answers := c.fill()
				taken := make(chan error, 1)
				go func() { taken <- takeAway(t.Context(), c, issued.Secret) }()
				synctest.Wait()
				close(letGo)
				is.NoErr(<-taken)
				given := 0
				for range cap(answers) {
					if err := <-answers; err == nil {
						given++
					} else {
						is.True(errors.Is(err, agentkey.ErrRefused) || errors.Is(err, agentkey.ErrUnauthenticated))
					}
				}
				is.Equal(given, 1) // that which was being carried out
			})
		})
	}
	t.Run("a stranger's report", func(t *testing.T) {
		inCrowd(t, func(t *testing.T, c *crowd) {
			is := is.New(t)
			issued, err := c.RegisterAgent(t.Context(), c.Owner, agentkey.RegisterAgentInput{Name: "other"})
			is.NoErr(err)
			letGo, answers := c.fill()
			_, err = c.ReportLeak(t.Context(), agentkey.RequestContext{}, agentkey.LeakReport{Secret: issued.Secret, Source: "commit"})
			is.True(errors.Is(err, agentkey.ErrOverloaded))
			close(letGo)
			for range cap(answers) {
				is.NoErr(<-answers)
			}
		})
	})
}

// TestNobodyStarves: an approval among many vends is decided in the transactions
// that decide those before it, and has the number in the log that it queued for.
func TestNobodyStarves(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		other := c.Kit.Tool("GitHub", "ghp_test_waits")
		asked, err := c.RequestAccess(t.Context(), c.caller, agentkey.RequestInput{Tool: other.ID, Reason: "to read issues"})
		is.NoErr(err)
		vend := func() error { return c.vend(t.Context(), c.tool.ID) }
		operations := slices.Repeat([]func() error{vend}, 300)
		operations = append(operations, func() error {
			_, err := c.Approve(t.Context(), c.Owner, asked.ID, agentkey.DecisionInput{})
			return err
		})
		errs, updates := c.together(append(operations, slices.Repeat([]func() error{vend}, 300)...)...)
		is.NoErr(errors.Join(errs...))
		is.Equal(updates, int64(3)) // 601 in batches of 256
		seq := func(action audit.Action) int64 {
			page, err := c.Events(t.Context(), c.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: action, Tool: other.ID}, Limit: 1})
			is.NoErr(err)
			is.Equal(len(page.Events), 1)
			return page.Events[0].Seq
		}
		is.Equal(seq(audit.ActionGrantApproved)-seq(audit.ActionGrantRequested), int64(302)) // in its turn: after the 301 vends before it
	})
}

// TestNobodyIsPassedForEver: a vend in a flood of what takes access away is decided
// once maxPassed of those have gone before it.
func TestNobodyIsPassedForEver(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		is := is.New(t)
		const flood, maxPassed = 300, 256
		other, _ := c.Kit.Agent("other")
		in := agentkey.AssignInput{Agent: other.ID, Tool: c.tool.ID}
		in.MaxVends = flood + 1
		g, err := c.Assign(t.Context(), c.Owner, in)
		is.NoErr(err)
		operations := []func() error{func() error { return c.vend(t.Context(), c.tool.ID) }}
		for left := int64(flood); left > 0; left-- {
			operations = append(operations, func() error {
				return second(c.Narrow(t.Context(), c.Owner, g.ID, agentkey.Terms{MaxVends: left}))
			})
		}
		errs, _ := c.together(operations...)
		is.NoErr(errors.Join(errs...))
		page, err := c.Events(t.Context(), c.Owner, agentkey.EventsInput{Limit: 500})
		is.NoErr(err)
		is.Equal(page.Events[flood-maxPassed].Action, audit.ActionCredentialVended) // newest first
		is.Equal(page.Events[flood+1].Action, audit.ActionCredentialVended)         // the one behind which all queued up
	})
}

// finished counts the Updates of one organization that have ended.
type finished struct {
	storage.Store
	organization string
	n            atomic.Int64
}

func (s *finished) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	err := s.Store.Update(ctx, organization, fn)
	if organization == s.organization {
		s.n.Add(1)
	}
	return err
}

// TestFloodIsNotOthersAffair: while one organization is flooded, a lone vend of
// another waits for two of its commits at most. On SQLite both share one writer. The
// bound is on the median, because a goroutine may be anywhere but in the queue.
func TestFloodIsNotOthersAffair(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := &finished{Store: dbtest.SQLite(t)(t)}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	store.organization = k.Organization.ID
	flooded := vender(k)
	lone := *k
	lone.Organization, lone.Owner = k.NewOrganization("Globex")
	alone := vender(&lone)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	const callers = 64
	for range callers {
		go func() {
			for ctx.Err() == nil {
				_ = flooded(ctx)
			}
			ended <- struct{}{}
		}()
	}
	waited := make([]int64, 31)
	for i := range waited {
		before := store.n.Load()
		is.NoErr(alone(t.Context()))
		waited[i] = store.n.Load() - before
	}
	stop()
	for range callers {
		<-ended
	}
	slices.Sort(waited)
	is.True(store.n.Load() > 0)
	is.True(waited[len(waited)/2] <= 2)
}

// vender allows an agent of the kit's organization a tool, and vends that.
func vender(k *agentkeytest.Kit) func(context.Context) error {
	agent, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_flood")
	k.Allow(agent, tool)
	caller := agentkey.TrustedAgent(k.Organization.ID, agent.ID)
	return func(ctx context.Context) error {
		v, err := k.Vend(ctx, caller, tool.ID)
		if err == nil {
			v.Credential.Destroy()
		}
		return err
	}
}
