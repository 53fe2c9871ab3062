package agentkey_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// recorded gives an organization's events of an action, oldest first.
func (s *scene) recorded(organization string, action audit.Action) (out []audit.Event) {
	s.t.Helper()
	for _, l := range s.lines(organization) {
		e, err := audit.Parse(l.Content)
		s.noErr(err)
		if e.Action == action {
			out = append(out, e)
		}
	}
	return out
}

// refuse makes a vend that is refused for want of a grant.
func (s *scene) refuse() {
	s.t.Helper()
	if _, err := s.Vend(context.Background(), s.botKey, s.canarysTool.ID); !errors.Is(err, agentkey.ErrNoGrant) {
		s.t.Fatal(err)
	}
}

// counts gives the Count of each event.
func counts(events []audit.Event) (out []int64) {
	for _, e := range events {
		out = append(out, e.Count)
	}
	return out
}

// The first refusal of a subject, tool, reason and minute is recorded at once;
// its repeats become one event that says how many they were and how far apart.
func TestRepeatedRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	own := s.Organization.ID
	s.refuse()
	is.Equal(counts(s.recorded(own, audit.ActionCredentialRefused)), []int64{0})
	for range 4 {
		s.Clock.Advance(time.Second)
		s.refuse()
	}
	is.NoErr(s.Sweep(t.Context())) // the minute is not over
	is.Equal(counts(s.recorded(own, audit.ActionCredentialRefused)), []int64{0})

	_, err := s.Vend(t.Context(), s.canaryKey, s.linear.ID) // another subject
	is.True(errors.Is(err, agentkey.ErrNoGrant))
	other := s.Tool("Other", "oth_api_test_1")
	_, err = s.Vend(t.Context(), s.botKey, other.ID) // another tool
	is.True(errors.Is(err, agentkey.ErrNoGrant))
	is.Equal(counts(s.recorded(own, audit.ActionCredentialRefused)), []int64{0, 0, 0})

	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	events := s.recorded(own, audit.ActionCredentialRefused)
	is.Equal(counts(events), []int64{0, 0, 0, 4})
	first, repeats := events[0], events[3]
	is.Equal(repeats.Span, (3 * time.Second).Microseconds())
	is.Equal(repeats.Reason, first.Reason)
	is.Equal(repeats.Agent, s.bot.ID)
	is.Equal(repeats.Tool, s.canarysTool.ID)
	is.Equal(repeats.Actor, first.Actor)
	is.Equal(repeats.Outcome, audit.OutcomeRefused)

	is.NoErr(s.Sweep(t.Context())) // once
	is.Equal(len(s.recorded(own, audit.ActionCredentialRefused)), 4)
	s.refuse() // a new minute begins with an event again
	is.Equal(counts(s.recorded(own, audit.ActionCredentialRefused)), []int64{0, 0, 0, 4, 0})
	s.consistent(false)
}

// What is counted is what was decided: a transaction that runs twice, or that is
// not committed, counts once or not at all.
func TestRefusalsAreCountedByCommit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.refuse()
	try := func(k faultstore.Kind) error {
		s.faults.Arm(faultstore.Plan{})
		s.refuse() // counted
		commit := slices.Index(s.faults.Calls(), faultstore.Commit) + 1
		s.faults.Arm(faultstore.Plan{At: commit, Kind: k})
		defer s.faults.Disarm()
		_, err := s.Vend(t.Context(), s.botKey, s.canarysTool.ID)
		return err
	}
	is.True(errors.Is(try(faultstore.Rerun), agentkey.ErrNoGrant))           // counted once
	is.True(errors.Is(try(faultstore.Unavailable), agentkey.ErrUnavailable)) // not counted
	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(counts(s.recorded(s.Organization.ID, audit.ActionCredentialRefused)), []int64{0, 3})
}

// A flush that fails loses nothing, and does not try every count when storage is
// away.
func TestFailedFlushLosesNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	for range 20 {
		_, key := s.Agent("another")
		for range 3 {
			_, err := s.Vend(t.Context(), key, s.linear.ID)
			is.True(errors.Is(err, agentkey.ErrNoGrant))
		}
	}
	s.fail(netip.MustParseAddr("192.0.2.1"))
	s.Clock.Advance(time.Minute)
	s.faults.Arm(faultstore.Plan{At: 1, Kind: faultstore.Unavailable, Forever: true})
	for range 3 {
		is.True(errors.Is(s.Sweep(t.Context()), agentkey.ErrUnavailable))
	}
	is.True(len(s.faults.Calls()) < 3*8) // a few for each sweep
	s.faults.Disarm()
	s.fail(netip.MustParseAddr("192.0.2.1"))
	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	repeats := counts(s.recorded(s.Organization.ID, audit.ActionCredentialRefused))
	slices.Sort(repeats)
	is.Equal(repeats, append(make([]int64, 20), slices.Repeat([]int64{2}, 20)...))
	is.Equal(counts(s.recorded(storage.System, audit.ActionAuthFailed)), []int64{2})
}

// Failed authentication is counted by address, an IPv6 address by its /64. What
// was presented is nowhere.
func TestFailedAuthenticationIsCounted(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	before := len(s.lines(storage.System))
	present := func(key, from string) {
		var a netip.Addr
		if from != "" {
			a = netip.MustParseAddr(from)
		}
		_, err := s.Vend(t.Context(), agentkey.Key(key).With(agentkey.RequestContext{Address: a}), s.linear.ID)
		is.True(errors.Is(err, agentkey.ErrUnauthenticated))
	}
	const unknown = "sk_agent_PRESENTEDPRESENTEDPRESENTED"
	present(unknown, "192.0.2.1")
	present("PRESENTED", "192.0.2.1")
	present("", "192.0.2.1")
	present(unknown, "::ffff:192.0.2.1")
	present(unknown, "2001:db8::1")
	present(unknown, "2001:db8::ffff:2")
	present(unknown, "fe80::1%eth0")
	present(unknown, "")
	_, err := s.Authenticate(t.Context(), agentkey.NewSecret([]byte("sk_admin_PRESENTED")), agentkey.RequestContext{})
	is.True(errors.Is(err, agentkey.ErrUnknownToken))
	is.Equal(len(s.lines(storage.System)), before) // no attacker makes the log grow

	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	got := make(map[string]int64)
	for _, l := range s.lines(storage.System)[before:] {
		e, err := audit.Parse(l.Content)
		is.NoErr(err)
		p, err := audit.ParsePersonal(l.Personal)
		is.NoErr(err)
		got[p.Address+" "+e.Reason] = e.Count
		is.True(!strings.Contains(string(l.Content)+string(l.Personal), "PRESENTED"))
		is.Equal(e.Actor.Kind, audit.ActorUnknown)
	}
	is.Equal(got, map[string]int64{
		"192.0.2.1 unknown_key": 3, "192.0.2.1 missing_key": 1, "2001:db8::/64 unknown_key": 2, "fe80::/64 unknown_key": 1,
		"other unknown_key": 1, "other unknown_token": 1,
	})
}

// What is counted of failed authentication is bounded, also while nothing can be
// written, and no count is lost.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	const rounds, addresses = 3, 1 << 14
	round := 0
	flood := func(context.Context) error {
		if round == rounds {
			return vault.ErrUnavailable // a sweep asks for the keys of more than one thing
		}
		round++
		for i := range addresses {
			var b [16]byte
			b[0], b[3] = 0x20, byte(round)
			binary.BigEndian.PutUint32(b[4:], uint32(i))
			c := agentkey.Key("nothing").With(agentkey.RequestContext{Address: netip.AddrFrom16(b)})
			_, err := s.Vend(t.Context(), c, s.linear.ID)
			is.True(errors.Is(err, agentkey.ErrUnknownKey))
		}
		return vault.ErrUnavailable
	}
	_ = flood(t.Context())
	s.keys.breaks(flood) // while a flush asks for keys, in vain, more come
	for range rounds - 1 {
		s.cool()
		is.True(errors.Is(s.Sweep(t.Context()), agentkey.ErrKeys))
	}
	is.Equal(round, rounds)
	s.keys.breaks(nil)
	s.Clock.Advance(time.Minute)
	is.NoErr(s.Sweep(t.Context()))
	events := s.recorded(storage.System, audit.ActionAuthFailed)
	var sum int64
	for _, e := range events {
		sum += e.Count
	}
	is.Equal(sum, int64(rounds*addresses))
	is.True(len(events) <= 1<<14+1)
}

// Close writes what was counted, also when the clock has gone back meanwhile.
func TestCloseWritesCounts(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.refuse()
	s.refuse()
	s.fail(netip.MustParseAddr("192.0.2.1"))
	s.Clock.Advance(-time.Hour)
	is.NoErr(s.Close(t.Context()))
	is.Equal(counts(s.recorded(s.Organization.ID, audit.ActionCredentialRefused)), []int64{0, 1})
	is.Equal(counts(s.recorded(storage.System, audit.ActionAuthFailed)), []int64{1})
}

// Close also writes what calls count that it waits for.
func TestCloseWritesCountsOfCallsUnderWay(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var mu sync.Mutex
	var stop chan struct{} // the next look at the clock waits for it
	stopped := make(chan struct{})
	clock := agentkeytest.NewClock(agentkeytest.Epoch)
	s := newScene(t, func(c *agentkey.Config) {
		c.Clock = func() time.Time {
			mu.Lock()
			wait := stop
			stop = nil
			mu.Unlock()
			if wait != nil {
				close(stopped)
				<-wait
			}
			return clock.Now()
		}
	})
	resume := make(chan struct{})
	mu.Lock()
	stop = resume
	mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { s.fail(netip.MustParseAddr("192.0.2.1")) })
	<-stopped
	var closed error
	wg.Go(func() { closed = s.Close(context.Background()) })
	for { // until Close has begun
		if _, err := s.Kit.Manager.Organization(t.Context(), asHost(s.Owner)); errors.Is(err, agentkey.ErrClosed) {
			break
		}
	}
	close(resume)
	wg.Wait()
	is.NoErr(closed)
	is.Equal(counts(s.recorded(storage.System, audit.ActionAuthFailed)), []int64{1})
}
