package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// gathered is a sink that remembers, and may be down.
type gathered struct {
	mu     sync.Mutex
	fault  func(b audit.Batch) error // nil: it takes all
	seqs   map[string][]int64        // as they came, by origin
	lines  map[string]map[int64]audit.Line
	shaken bool // it answers an error although it has taken the batch
}

func (g *gathered) Ship(ctx context.Context, b audit.Batch) error {
	if faultstore.Holding(ctx) {
		panic("a sink was asked while a log head was held")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault != nil {
		if err := g.fault(b); err != nil {
			return err
		}
	}
	if g.seqs == nil {
		g.seqs, g.lines = make(map[string][]int64), make(map[string]map[int64]audit.Line)
	}
	for _, l := range b.Lines {
		g.seqs[b.Origin] = append(g.seqs[b.Origin], l.Seq)
		if g.lines[b.Origin] == nil {
			g.lines[b.Origin] = make(map[int64]audit.Line)
		}
		g.lines[b.Origin][l.Seq] = l
	}
	if g.shaken {
		return errors.New("no answer came")
	}
	return nil
}

func (g *gathered) set(fault func(audit.Batch) error, shaken bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault, g.shaken = fault, shaken
}

// ordered fails unless every log came from its beginning, without a gap, and
// going back only by what came just before. It answers how many lines came twice.
func (g *gathered) ordered(t *testing.T, want map[string]int64) (twice int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for origin, seqs := range g.seqs {
		next := int64(0)
		for _, seq := range seqs {
			if seq > next {
				t.Fatalf("%s: %d came where %d was next", origin, seq, next)
			}
			if seq < next {
				twice++
			}
			next = max(next, seq+1)
		}
		if size, ok := want[origin]; ok && next != size {
			t.Fatalf("%s: %d of %d came", origin, next, size)
		}
	}
	return twice
}

func shippingTo(sinks ...agentkey.SinkConfig) func(*agentkey.Config) {
	return func(c *agentkey.Config) { c.Sinks = sinks }
}

// A sink that is down in every way at random: all comes, in order, and the bytes
// are those that are signed.
func TestShipping(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	r := rand.New(rand.NewPCG(7, 7))
	g, bare := &gathered{}, &gathered{}
	kit := agentkeytest.New(t, shippingTo(agentkey.SinkConfig{Name: "all", Sink: g, Personal: true}, agentkey.SinkConfig{Name: "bare", Sink: bare}))
	failures := 0
	for range 30 {
		recordMany(t, kit.Manager, kit.Owner, r.IntN(20))
		n := r.IntN(4)
		g.set(func(audit.Batch) error {
			if n--; n == 0 {
				return errors.New("down")
			}
			return nil
		}, r.IntN(3) == 0)
		if kit.Ship(ctx) != nil {
			failures++
		}
		kit.Clock.Advance(time.Minute)
	}
	is.True(failures > 5)
	g.set(nil, false)
	is.NoErr(kit.Ship(ctx))
	status, err := kit.Shipping(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(len(status), 2)
	origin := audit.Origin(kit.Installation(), kit.Organization.ID, 1)
	for i, s := range status {
		is.Equal(s.Behind, int64(0))
		is.Equal(s.Name, []string{"all", "bare"}[i])
	}
	want := map[string]int64{origin: status[0].Shipped}
	is.True(g.ordered(t, want) > 0)
	is.Equal(bare.ordered(t, want), 0) // one sink's failures are not another's
	is.Equal(len(g.seqs), 2)           // the reserved log too
	for seq, l := range g.lines[origin] {
		is.Equal(audit.LeafHash(l.Content), l.Leaf)
		is.Equal(len(bare.lines[origin][seq].Personal), 0)
	}
	is.True(len(g.lines[origin][1].Personal) > 0)
}

// Nobody who can write to the database can have events passed over: a cursor that
// was changed counts for nothing, and an old one only ships again.
func TestCursorsAreSealed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	g := &gathered{}
	store := memstore.New()
	kit := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store }, shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}))
	is.NoErr(kit.Ship(ctx))
	recordMany(t, kit.Manager, kit.Owner, 20)
	is.NoErr(store.Update(ctx, kit.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
		r, ok, err := tx.Record(ctx, "audit_cursor", "one")
		if err != nil || !ok {
			return fmt.Errorf("no cursor: %w", err)
		}
		r.Organization, r.Payload, r.Revision = kit.Organization.ID, []byte(`{"next":1000}`), r.Revision+1
		_, err = tx.PutRecord(ctx, r)
		return err
	}))
	is.NoErr(kit.Ship(ctx))
	page, err := kit.Events(ctx, kit.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionIntegrityFailed}})
	is.NoErr(err)
	is.Equal(len(page.Events), 1)
	is.NoErr(kit.Ship(ctx))
	status, err := kit.Shipping(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(status[0].Behind, int64(0))
	is.True(g.ordered(t, map[string]int64{audit.Origin(kit.Installation(), kit.Organization.ID, 1): status[0].Shipped}) > 0)
}

// What a sink has not taken yet is not removed.
func TestRetentionWaitsForSinks(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	g := &gathered{}
	kit := agentkeytest.New(t, shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}))
	recordMany(t, kit.Manager, kit.Owner, 50)
	kit.Clock.Advance(40 * days)
	_, err := kit.SetRetention(ctx, kit.Owner, agentkey.RetentionPolicy{ContentDays: 30, PersonalDays: 5})
	is.NoErr(err)
	plan, err := kit.PlanRetention(ctx, kit.Owner, agentkey.RetentionPolicy{ContentDays: 30})
	is.NoErr(err)
	is.Equal(plan.Content, int64(0))
	is.True(plan.Unshipped >= 50)
	is.NoErr(kit.Retain(ctx))
	is.NoErr(kit.Ship(ctx))
	is.NoErr(kit.Retain(ctx))
	got, err := kit.Retention(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(got.Removed, int64(50))
	late := &gathered{} // one that begins now gets number and leaf of what is gone
	again, err := agentkey.New(ctx, agentkey.Config{
		Storage: kit.Config.Storage, Keys: kit.Config.Keys, Clock: kit.Clock.Now, Node: "late",
		Sinks: []agentkey.SinkConfig{{Name: "late", Sink: late}},
	})
	is.NoErr(err)
	is.NoErr(again.Ship(ctx))
	gone := 0
	for _, l := range late.lines[audit.Origin(kit.Installation(), kit.Organization.ID, 1)] {
		if len(l.Content) == 0 {
			gone++
		}
	}
	is.Equal(gone, 50)
}

// Run ships by itself, asks a sink that is down again with growing pauses, lets
// nobody wait for one that hangs, and hands over when it ends.
func TestRunShips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		g := &gathered{}
		var asked []time.Time
		g.fault = func(audit.Batch) error {
			asked = append(asked, time.Now())
			return errors.New("down")
		}
		hangs := hanging{}
		kit := agentkeytest.New(t, func(c *agentkey.Config) { c.Clock = time.Now },
			shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}, agentkey.SinkConfig{Name: "hangs", Sink: hangs}))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- kit.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		bot, key := kit.Agent("bot")
		tool := kit.Tool("Linear", "lin_api_test_1")
		kit.Allow(bot, tool)
		v, err := kit.Vend(t.Context(), key, tool.ID) // nobody waits
		is.NoErr(err)
		v.Credential.Destroy()
		n := len(asked)
		is.True(n > 10 && n < 25) // 1, 2, 4 … seconds, then a minute each
		is.True(asked[1].Sub(asked[0]) < 2*time.Second)
		is.True(asked[n-1].Sub(asked[n-2]) > 45*time.Second)
		status, err := kit.Shipping(t.Context(), kit.Owner)
		is.NoErr(err)
		is.True(status[0].Behind > 0 && status[0].Failures > 10 && status[0].FailingAt > 0)
		is.True(status[1].Failures > 5)
		g.set(nil, false)
		time.Sleep(2 * time.Minute)
		status, err = kit.Shipping(t.Context(), kit.Owner)
		is.NoErr(err)
		is.Equal([]int64{status[0].Behind, int64(status[0].Failures)}, []int64{0, 0})
		cancel()
		is.NoErr(<-ended)
		second, err := agentkey.New(t.Context(), agentkey.Config{
			Storage: kit.Config.Storage, Keys: kit.Config.Keys, Node: "second", Sinks: []agentkey.SinkConfig{{Name: "one", Sink: g}},
		})
		is.NoErr(err)
		is.NoErr(second.Ship(t.Context())) // at once
		status, err = second.Shipping(t.Context(), kit.Owner)
		is.NoErr(err)
		is.Equal(status[0].Behind, int64(0))
		is.Equal(g.ordered(t, nil), 0)
		is.NoErr(second.Close(t.Context()))
	})
}

// hanging is a sink that never answers.
type hanging struct{}

func (hanging) Ship(ctx context.Context, _ audit.Batch) error {
	<-ctx.Done()
	return ctx.Err()
}

// Two processes with one sink ship in turns.
func TestOneShipsAtATime(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	g := &gathered{}
	kit := agentkeytest.New(t, shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}))
	other, err := agentkey.New(ctx, agentkey.Config{
		Storage: kit.Config.Storage, Keys: kit.Config.Keys, Clock: kit.Clock.Now, Node: "other", Sinks: []agentkey.SinkConfig{{Name: "one", Sink: g}},
	})
	is.NoErr(err)
	is.NoErr(kit.Ship(ctx))
	recordMany(t, kit.Manager, kit.Owner, 10)
	is.NoErr(other.Ship(ctx)) // not its turn
	status, err := other.Shipping(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(status[0].Behind, int64(10))
	kit.Clock.Advance(time.Minute)
	is.NoErr(other.Ship(ctx))
	status, err = other.Shipping(ctx, kit.Owner)
	is.NoErr(err)
	is.Equal(status[0].Behind, int64(0))
	is.Equal(g.ordered(t, nil), 0)
}

// An organization whose log can't be read keeps no other waiting, and is no
// failure of the sink.
func TestOneLogCannotBeShipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		g := &gathered{}
		store := memstore.New()
		kit := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Clock = store, time.Now }, shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}))
		broken, _ := kit.NewOrganization("broken")
		is.NoErr(store.Update(t.Context(), broken.ID, func(ctx context.Context, tx storage.Tx) error {
			keys, err := tx.DataKeys(ctx)
			if err != nil {
				return err
			}
			k := keys[0]
			k.Organization, k.Provider, k.Revision = broken.ID, "local:none", k.Revision+1
			_, err = tx.PutDataKey(ctx, k)
			return err
		}))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- kit.Run(ctx) }()
		for range 20 {
			recordMany(t, kit.Manager, kit.Owner, 1)
			time.Sleep(6 * time.Second)
			status, err := kit.Shipping(t.Context(), kit.Owner)
			is.NoErr(err)
			is.Equal([]int64{status[0].Behind, int64(status[0].Failures)}, []int64{0, 0})
		}
		cancel()
		is.NoErr(<-ended)
		is.Equal(len(g.seqs[audit.Origin(kit.Installation(), broken.ID, 1)]), 0)
	})
}

func TestSinksAreChecked(t *testing.T) {
	t.Parallel()
	for name, sinks := range map[string][]agentkey.SinkConfig{
		"no sink":   {{Name: "a"}},
		"no name":   {{Sink: hanging{}}},
		"two alike": {{Name: "a", Sink: hanging{}}, {Name: "a", Sink: hanging{}}},
		"no code":   {{Name: "a/b", Sink: hanging{}}},
		"timeout":   {{Name: "a", Sink: hanging{}, Timeout: -1}},
	} {
		_, err := agentkey.New(t.Context(), agentkey.Config{Storage: memstore.New(), Keys: agentkeytest.Keys(t), Sinks: sinks})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
