package agentkey_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// countingFinds counts how often keys are looked for.
type countingFinds struct {
	storage.Store
	finds atomic.Int64
}

func (s *countingFinds) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	s.finds.Add(1)
	return s.Store.FindKey(ctx, digest)
}

// A remembered key spares the look-up and nothing else: what another process did to
// the key, to the agent or to the grant counts for the next vend.
func TestRememberedKeysOnlyRoute(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t, only(ratelimit.TierCredential))
	bot, key := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	k.Allow(bot, tool)
	store := &countingFinds{Store: k.Config.Storage}
	config := k.Config
	config.Storage, config.Node = store, "other"
	serving := func() *agentkey.Manager { // windows of its own, and keys that it has yet to meet
		m, err := agentkey.New(ctx, config)
		is.NoErr(err)
		t.Cleanup(func() { _ = m.Close(context.Background()) })
		return m
	}
	vend := func(m *agentkey.Manager, c agentkey.Caller) error {
		_, err := m.Vend(ctx, c, tool.ID)
		return err
	}

	m := serving()
	is.NoErr(vend(m, key))
	is.NoErr(vend(m, key))
	is.Equal(store.finds.Load(), int64(1))

	_, err := k.SuspendAgent(ctx, k.Owner, bot.ID)
	is.NoErr(err)
	m = serving()
	is.True(errors.Is(vend(m, key), agentkey.ErrSuspended))
	_, err = k.ReactivateAgent(ctx, k.Owner, bot.ID)
	is.NoErr(err)
	is.True(errors.Is(vend(m, key), agentkey.ErrRevoked))
	k.Allow(bot, tool)
	is.NoErr(vend(m, key))

	// Dead, it is refused at once and then forgotten: it is charged once.
	m = serving()
	is.NoErr(vend(m, key))
	issued, err := k.RotateKey(ctx, k.Owner, bot.ID, agentkey.RotateKeyInput{})
	is.NoErr(err)
	is.Equal(agentkey.RemembersKeys(m), 1)
	for range 5 {
		is.True(errors.Is(vend(m, key), agentkey.ErrKeyRevoked))
		is.Equal(agentkey.RemembersKeys(m), 0)
	}
	fresh := agentkey.Key(string(issued.Secret.Bytes()))
	is.NoErr(vend(m, fresh))
	is.True(errors.Is(vend(m, fresh), agentkey.ErrLimited)) // three in all

	is.Equal(agentkey.RemembersKeys(m), 0) // whom a limit stops is looked up anew

	// A dead key is told so whatever it asks for, and charges the agent no more than once.
	m = serving()
	is.NoErr(vend(m, fresh))
	issued, err = k.RotateKey(ctx, k.Owner, bot.ID, agentkey.RotateKeyInput{})
	is.NoErr(err)
	for range 5 {
		_, err := m.Vend(ctx, fresh, "no id at all!")
		is.True(errors.Is(err, agentkey.ErrKeyRevoked))
	}
	fresh = agentkey.Key(string(issued.Secret.Bytes()))
	is.NoErr(vend(m, fresh))

	// Nobody is remembered who is not known.
	is.True(errors.Is(vend(m, agentkey.Key("sk_agent_test_unknown")), agentkey.ErrUnknownKey))
	is.Equal(agentkey.RemembersKeys(m), 1)

	// From where it is not valid, a remembered key is looked up again and charges nobody.
	m = serving()
	bound, err := k.RotateKey(ctx, k.Owner, bot.ID, agentkey.RotateKeyInput{Addresses: []string{"192.0.2.0/24"}})
	is.NoErr(err)
	from := func(address string) agentkey.Caller {
		return agentkey.Key(string(bound.Secret.Bytes())).With(agentkey.RequestContext{Address: netip.MustParseAddr(address)})
	}
	is.NoErr(vend(m, from("192.0.2.1")))
	for range 5 {
		is.True(errors.Is(vend(m, from("198.51.100.1")), agentkey.ErrKeyAddress))
	}
	is.NoErr(vend(m, from("192.0.2.1")))
	is.NoErr(vend(m, from("192.0.2.1")))
}

// What is remembered is bounded, whoever is forgotten is found again, and nobody is
// while there is room.
func TestRememberedKeysAreBounded(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	bot, key := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	k.Allow(bot, tool)
	store := &countingFinds{Store: k.Config.Storage}
	config := k.Config
	config.Storage = store
	m, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	vend := func() {
		_, err := m.Vend(t.Context(), key, tool.ID)
		is.NoErr(err)
	}
	other := storage.Key{Organization: "acme", Agent: bot.ID, ID: bot.ID}
	agentkey.RememberKey(m, [32]byte{}, storage.Key{Organization: "acme", Agent: bot.ID, ID: "{" + bot.ID + "}"})
	is.Equal(agentkey.RemembersKeys(m), 0) // no id that comes back as it was
	others := uint64(0)
	remember := func(n int) {
		for range n {
			others++
			var digest [32]byte
			binary.BigEndian.PutUint64(digest[:], others)
			agentkey.RememberKey(m, digest, other)
		}
	}

	vend()
	remember(agentkey.MaxRoutes - 1)
	vend()
	is.Equal(agentkey.RemembersKeys(m), agentkey.MaxRoutes)
	is.Equal(store.finds.Load(), int64(1))

	remember(100 * agentkey.MaxRoutes) // it is still there once in 10^43
	is.Equal(agentkey.RemembersKeys(m), agentkey.MaxRoutes)
	vend()
	is.Equal(store.finds.Load(), int64(2))
	is.Equal(agentkey.RemembersKeys(m), agentkey.MaxRoutes)
}
