package agentkey_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// What is not kept and not shipped is told, and no longer once it is.
func TestLags(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	n, g, store := newNotebook(), &gathered{}, memstore.New()
	kit := agentkeytest.New(t, shippingTo(agentkey.SinkConfig{Name: "one", Sink: g}), func(c *agentkey.Config) {
		c.Storage, c.Anchors = store, []agentkey.Anchor{n}
	})
	size := func(organization string) (size int64) {
		noErr(t, store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
			head, err := tx.Head(ctx)
			size = head.Size
			return err
		}))
		return size
	}
	lags := func(m *agentkey.Manager) (anchor, sink agentkey.Lag) {
		l, err := m.Lags(ctx)
		is.NoErr(err)
		for _, one := range []*agentkey.Lag{&l.Anchors[0], &l.Sinks[0]} {
			one.Since, one.At = one.Since.UTC(), one.At.UTC()
		}
		return l.Anchors[0], l.Sinks[0]
	}
	org := kit.Organization.ID
	began := kit.Clock.Now()
	kit.Clock.Advance(time.Hour)
	anchor, sink := lags(kit.Manager)
	is.Equal(sink, agentkey.Lag{Name: "one", Logs: 2, Events: size(org) + size(storage.System), Since: began})
	is.Equal(anchor.Name, "notes")
	is.True(anchor.Events >= size(org))

	is.NoErr(kit.Ship(ctx))
	shipped := kit.Clock.Now()
	_, err := kit.Lock(agentkey.AwaitAnchors(ctx, time.Minute, func(bool) {}), kit.Owner, "an incident")
	is.NoErr(err)
	head, err := audit.OpenCheckpoint(n.get(org), must(audit.NewVerifiers(kit.PublicKey())))
	is.NoErr(err)
	is.Equal(head.Size, size(org))
	before := anchor
	anchor, sink = lags(kit.Manager)
	is.Equal(sink, agentkey.Lag{Name: "one", Logs: 1, Events: 1, Since: shipped, At: shipped})
	is.Equal(anchor.At, kit.Clock.Now())
	is.True(anchor.Events < before.Events)
	kit.Clock.Advance(time.Hour)
	is.NoErr(kit.Ship(ctx))
	is.NoErr(kit.Close(ctx)) // which keeps what was not kept

	again := func() *agentkey.Manager {
		m, err := agentkey.New(ctx, agentkey.Config{
			Storage: store, Keys: kit.Config.Keys, Clock: kit.Clock.Now, Anchors: []agentkey.Anchor{n}, Sinks: []agentkey.SinkConfig{{Name: "one", Sink: g}},
		})
		is.NoErr(err)
		return m
	}
	m := again()
	anchor, sink = lags(m)
	is.Equal(anchor, agentkey.Lag{Name: "notes", At: kit.Clock.Now()})
	is.Equal(sink, agentkey.Lag{Name: "one", At: kit.Clock.Now()})
	is.NoErr(m.Close(ctx))
	n.fails = errors.New("away")
	anchor, _ = lags(again()) // it does not know what an anchor has that is away
	is.Equal(anchor, agentkey.Lag{Name: "notes", Logs: 2, Events: size(org) + size(storage.System), Since: began, Failures: 1})
}

// Without anchors and sinks nothing is read.
func TestNothingLags(t *testing.T) {
	t.Parallel()
	l, err := agentkeytest.New(t).Lags(t.Context())
	is := is.New(t)
	is.NoErr(err)
	is.Equal(len(l.Anchors)+len(l.Sinks), 0)
}
