package agentkey_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// vend lets bot fetch Linear's credential.
func (s *scene) vend() error {
	v, err := s.Vend(context.Background(), s.botKey, s.linear.ID)
	if err == nil {
		v.Credential.Destroy()
	}
	return err
}

func away(context.Context) error { return vault.ErrUnavailable }

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// While the key provider is away vends go on for the lifetime of the keys in
// memory and no longer; when it is back so are they.
func TestVendsWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, func(c *agentkey.Config) { c.KeyLifetime = 10 * time.Minute })
	s.Clock.Advance(10 * time.Minute) // all keys are read anew now
	is.NoErr(s.vend())
	s.keys.breaks(away)
	s.Clock.Advance(10*time.Minute - time.Microsecond)
	is.NoErr(s.vend())
	is.Equal(s.keys.calls(), 0)
	s.Clock.Advance(time.Microsecond)
	for range 3 {
		err := s.vend()
		is.True(errors.Is(err, agentkey.ErrKeys))
		is.True(errors.Is(err, agentkey.ErrUnavailable))
	}
	is.True(errors.Is(s.Ready(t.Context()), agentkey.ErrKeys))
	s.keys.breaks(nil)
	is.NoErr(s.vend())
	is.NoErr(s.Ready(t.Context()))
	s.consistent(false)
}

// A provider that does not answer is waited for once, not by each caller in turn.
func TestSlowProviderIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := newScene(t, func(c *agentkey.Config) { c.KeyTimeout = 2 * time.Second })
		s.keys.breaks(hang)
		s.cool()
		began := time.Now()
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if err := s.vend(); !errors.Is(err, agentkey.ErrKeys) {
					t.Errorf("vend: %v", err)
				}
			})
		}
		wg.Wait()
		is.Equal(time.Since(began), 2*time.Second)
		s.keys.breaks(nil)
		is.NoErr(s.vend())
	})
}

func TestKeysThatAreNeverHeld(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, func(c *agentkey.Config) { c.KeyLifetime = -1 })
	s.keys.breaks(nil)
	is.NoErr(s.vend())
	asked := s.keys.calls()
	is.True(asked > 0)
	is.NoErr(s.vend())
	is.Equal(s.keys.calls(), 2*asked)
	s.keys.breaks(away)
	is.True(errors.Is(s.vend(), agentkey.ErrKeys))
	s.keys.breaks(nil)
	is.NoErr(s.vend())
}

// With another key than the one that wrapped, New names both and shows neither.
func TestWrongKeyAtStart(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	store := memstore.New()
	right, rightText := newLocalKey(t)
	wrong, wrongText := newLocalKey(t)
	_, err := agentkey.New(t.Context(), agentkey.Config{Storage: store, Keys: right})
	is.NoErr(err)
	_, err = agentkey.New(t.Context(), agentkey.Config{Storage: store, Keys: wrong})
	is.True(errors.Is(err, agentkey.ErrKeys))
	for _, k := range []vault.KeyProvider{right, wrong} {
		id, idErr := k.CurrentKey(t.Context())
		is.NoErr(idErr)
		is.True(strings.Contains(err.Error(), id))
	}
	is.True(!strings.Contains(err.Error(), rightText) && !strings.Contains(err.Error(), wrongText))
	_, err = agentkey.New(t.Context(), agentkey.Config{Storage: store, Keys: right})
	is.NoErr(err)
}

func newLocalKey(t *testing.T) (vault.KeyProvider, string) {
	t.Helper()
	text, err := localkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	k, err := localkey.FromEnv(func(string) (string, bool) { return text, true }, "AGENTKEY_TEST_KEY")
	if err != nil {
		t.Fatal(err)
	}
	return k, text
}

// sealKeys reads the organization's seal keys, and how many values each sealed.
func (s *scene) sealKeys() (keys []storage.DataKey, sealed map[string]int64) {
	s.t.Helper()
	sealed = make(map[string]int64)
	err := s.inner.View(context.Background(), s.Organization.ID, func(ctx context.Context, tx storage.ReadTx) error {
		all, err := tx.DataKeys(ctx)
		if err != nil {
			return err
		}
		for _, k := range all {
			if k.Purpose == vault.PurposeSeal {
				keys = append(keys, k)
			}
		}
		page, err := tx.Tools(ctx, storage.ToolQuery{Limit: storage.MaxPage})
		if err != nil {
			return err
		}
		var refs []storage.CredentialRef
		for _, tool := range page.Tools {
			refs = append(refs, storage.CredentialRef{Tool: tool.ID})
		}
		credentials, err := tx.Credentials(ctx, refs)
		for _, c := range credentials {
			id, err := vault.SealedKeyID(c.Sealed)
			if err != nil {
				return err
			}
			sealed[id]++
		}
		return err
	})
	s.noErr(err)
	return keys, sealed
}

// Seals are reserved durably, in blocks, before they are used: a process that
// ends loses the rest of its block and never seals past it.
func TestSealsAreReservedInBlocks(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	keys, _ := s.sealKeys()
	is.Equal(len(keys), 1)
	is.Equal(keys[0].Reserved, int64(1024)) // for the two tools of the scene
	for range 3 {
		s.Tool("Another", "oth_api_test_1")
	}
	keys, _ = s.sealKeys()
	is.Equal(keys[0].Reserved, int64(1024))
	_, err := s.witness.AddTool(t.Context(), s.Owner, agentkey.AddToolInput{
		Name: "Other", AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("oth_api_test_2")),
	})
	is.NoErr(err)
	keys, _ = s.sealKeys()
	is.Equal(keys[0].Reserved, int64(2048)) // another process has a block of its own
}

// However many seal at once, no key seals more than it may.
func TestKeysRollBeforeTheyAreUsedUp(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const limit, sealers, each = 50, 16, 20
	s := newScene(t, func(c *agentkey.Config) { c.SealsPerKey = limit })
	var wg sync.WaitGroup
	for range sealers {
		wg.Go(func() {
			for range each {
				_, err := answered(func() (agentkey.ToolView, error) {
					return s.AddTool(t.Context(), s.Owner, agentkey.AddToolInput{
						Name: "Another", AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("oth_api_test_1")),
					})
				})
				if err != nil {
					t.Errorf("add tool: %v", err)
				}
			}
		})
	}
	wg.Wait()
	keys, sealed := s.sealKeys()
	var sum int64
	for _, k := range keys {
		is.True(k.Reserved <= limit)
		is.True(sealed[k.ID] <= k.Reserved)
		sum += sealed[k.ID]
	}
	is.Equal(sum, int64(2+sealers*each))
	rolled := s.recorded(s.Organization.ID, audit.ActionDataKeyRolled)
	is.Equal(len(rolled), len(keys)-1)
	is.True(len(keys) >= (2+sealers*each)/limit)
	is.NoErr(s.vend()) // what an older key sealed opens as before
	s.consistent(false)
}

// A key that is too old seals nothing more, also when it has seals left.
func TestKeysRollByAge(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, func(c *agentkey.Config) { c.KeyAge = time.Hour })
	before, _ := s.sealKeys()
	s.Clock.Advance(time.Hour - time.Second)
	s.Tool("Before", "oth_api_test_1")
	keys, _ := s.sealKeys()
	is.Equal(len(keys), 1)
	s.Clock.Advance(time.Second)
	s.Tool("After", "oth_api_test_2")
	keys, sealed := s.sealKeys()
	is.Equal(len(keys), 2)
	is.Equal(sealed[before[0].ID], int64(3))
	is.NoErr(s.vend())
	s.Tool("Later", "oth_api_test_3")
	keys, _ = s.sealKeys()
	is.Equal(len(keys), 2)
	s.consistent(false)
}

// With a KeyAge below zero the age of a key does not matter.
func TestKeysThatNeverAge(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t, func(c *agentkey.Config) { c.KeyAge = -1 })
	s.Clock.Advance(1000 * 24 * time.Hour)
	s.Tool("After", "oth_api_test_2")
	keys, _ := s.sealKeys()
	is.Equal(len(keys), 1)
}

// A data key is destroyed outside the Manager: nothing that it protects opens
// any more, at once, although the key is still in memory.
func TestDestroyedKeyIsImmediate(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	is.NoErr(s.vend())
	s.keys.breaks(nil)
	err := s.inner.Update(t.Context(), s.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
		keys, err := tx.DataKeys(ctx)
		for _, k := range keys {
			if k.Purpose == vault.PurposeSeal {
				k.Organization, k.State, k.Revision = s.Organization.ID, vault.KeyDestroyed, k.Revision+1
				_, err = tx.PutDataKey(ctx, k)
			}
		}
		return err
	})
	is.NoErr(err)
	// The row seal can't be made from outside: it is the edit that is refused.
	is.True(errors.Is(s.vend(), agentkey.ErrIntegrity))
}
