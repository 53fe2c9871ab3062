package refserver_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// countedKeys counts what its provider is asked.
type countedKeys struct {
	vault.KeyProvider
	wraps, unwraps atomic.Int64
}

func (k *countedKeys) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	k.wraps.Add(1)
	return k.KeyProvider.WrapKey(ctx, key, c)
}

func (k *countedKeys) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	k.unwraps.Add(1)
	return k.KeyProvider.UnwrapKey(ctx, w, c)
}

func localKey(t *testing.T, seed byte) *localkey.Provider {
	t.Helper()
	key := sha256.Sum256([]byte{seed})
	p, err := localkey.NewRing(key[:])
	fatal(t, err)
	return p
}

// However many values are sealed, the outer key is rotated by calls for the data
// keys alone; and all are sealed anew while 16 goroutines vend, none of whose vends
// fails but when a busy machine's disk answers late. With AGENTKEY_PROVE set there
// are 100,000 values.
func TestRotateManyValues(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	n := seed.Counts{Agents: 20, Tools: 10, Grants: 200}
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n = seed.Counts{Agents: 1000, Tools: 100, Grants: 100_000}
	}
	before := localKey(t, 1)
	both, err := vault.NewProviders(localKey(t, 2), before)
	is.NoErr(err)
	keys := &countedKeys{KeyProvider: both}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage, c.Keys, c.Clock = dbtest.SQLite(t)(t), before, time.Now })
	began := time.Now()
	made, err := seed.Fill(ctx, seed.Config{
		Manager: k.Manager, Store: k.Config.Storage, Keys: before, Actor: k.Owner, From: began, To: began, Assigned: true, PerAgent: true,
	}, n)
	is.NoErr(err)
	t.Logf("%d values sealed in %v", n.Grants, time.Since(began))
	config := k.Config
	config.Keys = keys
	m, err := agentkey.New(ctx, config)
	is.NoErr(err)
	operator := agentkey.Operator("test")
	_, err = m.RewrapDataKeys(ctx, operator)
	is.NoErr(err)
	keys.wraps.Store(0)
	keys.unwraps.Store(0)
	began = time.Now()
	done, err := m.ContinueRotations(ctx)
	is.NoErr(err)
	is.True(done)
	t.Logf("outer key rotated in %v: %d calls of WrapKey, %d of UnwrapKey", time.Since(began), keys.wraps.Load(), keys.unwraps.Load())
	is.Equal(keys.wraps.Load(), int64(5))      // row and seal of two organizations, and the one that signs
	is.True(keys.unwraps.Load() <= int64(2*5)) // each to prove it, and each once to have it

	vending, stop := context.WithCancel(ctx)
	var vends, late atomic.Int64
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := g; vending.Err() == nil; i += 16 {
				pair := made.Open[i%len(made.Open)]
				v, err := m.Vend(ctx, agentkey.TrustedAgent(k.Organization.ID, pair.Agent), pair.Tool)
				if errors.Is(err, agentkey.ErrStorage) {
					late.Add(1)
					continue
				}
				if err != nil {
					t.Errorf("vend: %v", err)
					return
				}
				v.Credential.Destroy()
				vends.Add(1)
			}
		})
	}
	began = time.Now()
	_, err = m.RotateDataKeys(ctx, k.Owner, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	_, err = m.Reseal(ctx, k.Owner)
	is.NoErr(err)
	for done = false; !done; {
		if done, err = m.ContinueRotations(ctx); !errors.Is(err, agentkey.ErrStorage) {
			is.NoErr(err)
		}
	}
	stop()
	all.Wait()
	t.Logf("sealed anew in %v beside %d vends; %d were answered late", time.Since(began), vends.Load(), late.Load())
	is.True(vends.Load() > 0)
	is.True(late.Load() <= 16+vends.Load()/100)
	status, err := m.KeysStatus(ctx, k.Owner, agentkey.KeysStatusInput{Count: true})
	is.NoErr(err)
	is.Equal(status.Reseal, int64(0))
	for _, d := range status.Keys {
		if d.Purpose == vault.PurposeSeal && d.State == vault.KeyActive {
			is.Equal(d.Values, int64(n.Grants))
		}
	}
	found, err := m.Diagnose(ctx, operator, agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
}
