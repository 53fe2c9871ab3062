package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// keyFaults are what can be wrong with a key provider.
var keyFaults = map[string]func(ctx context.Context) error{
	"down": away,
	"slow": func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", vault.ErrUnavailable, ctx.Err())
		case <-time.After(30 * time.Second):
			return nil
		}
	},
	"answers wrong bytes": func(context.Context) error { return errGarbled },
	"has another key": func(context.Context) error {
		return fmt.Errorf("%w: need test:1, hold [test:2]", vault.ErrUnknownKey)
	},
	"refuses": func(context.Context) error { return errors.New("permission denied") },
}

// needsProvider are what can't be done without it, also while keys are in memory.
func (s *scene) needsProvider() map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"new organization": func(ctx context.Context) error {
			_, err := s.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Other", Owner: "eve@example.com"})
			return err
		},
		"rotate data keys": func(ctx context.Context) error {
			_, err := s.RotateDataKeys(ctx, s.Owner, agentkey.RotateDataKeysInput{})
			return err
		},
		"rewrap data keys": func(ctx context.Context) error {
			_, err := s.RewrapDataKeys(ctx, agentkey.Operator("test"))
			return err
		},
		"rotate signing key": func(ctx context.Context) error {
			_, err := s.RotateSigningKey(ctx, agentkey.Operator("test"))
			return err
		},
		"New": func(ctx context.Context) error {
			m, err := agentkey.New(ctx, agentkey.Config{Storage: s.inner, Keys: s.keys, Clock: s.Clock.Now, Node: "new"})
			if err == nil {
				err = m.Close(ctx)
			}
			return err
		},
	}
}

// needsKeys are what the keys in memory are enough for.
func (s *scene) needsKeys() map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"vend":  func(context.Context) error { return s.vend() },
		"Ready": s.Ready,
		"replace credential": func(ctx context.Context) error {
			_, err := s.UpdateTool(ctx, s.Owner, s.canarysTool.ID, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("can_api_test_2"))})
			return err
		},
		"suspend": func(ctx context.Context) error {
			if _, err := s.SuspendAgent(ctx, s.Owner, s.canary.ID); err != nil {
				return err
			}
			_, err := s.ReactivateAgent(ctx, s.Owner, s.canary.ID)
			return err
		},
	}
}

// TestKeyProviderFaults: whatever is wrong with the provider, what is in memory is
// good for its lifetime; after that everything is refused within three seconds,
// nobody else waits, nothing is kept in the clear, and all is well once the
// provider is.
func TestKeyProviderFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range keyFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { keyProviderFails(t, fault) })
		})
	}
}

func keyProviderFails(t *testing.T, fault func(context.Context) error) {
	is := is.New(t)
	const lifetime = 10 * time.Minute
	s := newScene(t, func(c *agentkey.Config) { c.KeyLifetime = lifetime })
	healthy, err := agentkey.New(t.Context(), agentkey.Config{
		Storage: s.inner, Keys: s.keys.KeyProvider, Clock: s.Clock.Now, Node: "healthy", Policies: agentkeytest.Unlimited(), KeyLifetime: -1,
	})
	is.NoErr(err)
	s.Clock.Advance(lifetime)
	s.refusedOrNot(s.needsKeys(), false)

	s.keys.breaks(fault)
	s.Clock.Advance(lifetime - time.Microsecond)
	s.refusedOrNot(s.needsKeys(), false)
	s.refusedOrNot(s.needsProvider(), true)
	s.Clock.Advance(time.Microsecond)
	before := s.logs()
	s.refusedOrNot(s.needsKeys(), true)
	s.refusedOrNot(s.needsProvider(), true)
	for id, events := range s.logs() { // nothing was done; that wrong bytes came back may be told
		for _, action := range events[len(before[id]):] {
			is.True(strings.HasPrefix(action, "integrity."))
		}
	}

	// While they wait, others change the same organization.
	done := make(chan error, 1)
	go func() { done <- s.vend() }()
	synctest.Wait()
	began := time.Now()
	v, err := healthy.Vend(t.Context(), s.botKey, s.linear.ID)
	is.NoErr(err)
	v.Credential.Destroy()
	is.NoErr(s.inner.Update(t.Context(), s.Organization.ID, func(context.Context, storage.Tx) error { return nil }))
	is.Equal(time.Since(began), time.Duration(0))
	is.True(errors.Is(<-done, agentkey.ErrUnavailable))

	s.keys.breaks(nil)
	s.refusedOrNot(s.needsKeys(), false)
	s.refusedOrNot(s.needsProvider(), false)
	s.consistent(false)
	d, err := healthy.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(d.Findings, nil) // every value is sealed, and opens
	is.NoErr(healthy.Close(t.Context()))
	is.NoErr(s.witness.Close(t.Context()))
}

// refusedOrNot makes calls, and wants each refused for the provider, or done, soon
// enough and without a word of a secret.
func (s *scene) refusedOrNot(calls map[string]func(ctx context.Context) error, refused bool) {
	s.t.Helper()
	for name, call := range calls {
		began := time.Now()
		err := call(context.Background())
		took := time.Since(began)
		switch {
		case !refused && (err != nil || took > 0):
			s.t.Errorf("%s: %v after %v", name, err, took)
		case refused && (!errors.Is(err, agentkey.ErrKeys) && !errors.Is(err, agentkey.ErrIntegrity) || took > 3*time.Second):
			s.t.Errorf("%s: %v after %v", name, err, took)
		case refused && strings.Contains(err.Error(), "thirty-two bytes"):
			s.t.Errorf("%s: the error shows what the provider answered", name)
		}
	}
}

// TestKeysAreWrappedInOneTime: what has several keys wrapped gives the provider
// the time of one call for all of them.
func TestKeysAreWrappedInOneTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.keys.breaks(func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", vault.ErrUnavailable, ctx.Err())
			case <-time.After(time.Second): // one key is wrapped, and proven, in time, and not two
				return nil
			}
		})
		all := s.needsProvider()
		s.refusedOrNot(map[string]func(context.Context) error{
			"new organization": all["new organization"], "rotate data keys": all["rotate data keys"],
		}, true)
		s.keys.breaks(nil)
		s.refusedOrNot(all, false)
		is.New(t).NoErr(s.witness.Close(t.Context()))
	})
}

// TestKeyRollsWhileTheProviderFails: a data key that is used up seals nothing more
// until the next one can be wrapped; what is sealed opens meanwhile.
func TestKeyRollsWhileTheProviderFails(t *testing.T) {
	t.Parallel()
	for name, fault := range keyFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := newScene(t, func(c *agentkey.Config) { c.SealsPerKey = 2 }) // which the scene has used
				s.keys.breaks(fault)
				replace := map[string]func(context.Context) error{"replace credential": s.needsKeys()["replace credential"]}
				s.refusedOrNot(replace, true)
				is.NoErr(s.vend())
				keys, _ := s.sealKeys()
				is.Equal(len(keys), 1)
				s.keys.breaks(nil)
				s.refusedOrNot(replace, false)
				keys, sealed := s.sealKeys()
				is.Equal(len(keys), 2)
				for _, k := range keys {
					is.True(sealed[k.ID] <= 2)
				}
				is.NoErr(s.vend())
				s.consistent(false)
				is.NoErr(s.witness.Close(t.Context()))
			})
		})
	}
}

// TestHeadIsFreeWhileTheProviderIsAsked: on one SQLite file a process that waits
// for its key provider keeps no other from changing the same organization.
func TestHeadIsFreeWhileTheProviderIsAsked(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newSite(t).copy(t)
	is.NoErr(c.start())
	asked, answer := make(chan struct{}, 8), make(chan struct{})
	keys := &watchedKeys{KeyProvider: c.keys, t: t}
	store, err := bunstore.OpenSQLite(c.path)
	is.NoErr(err)
	defer func() { is.NoErr(store.Close()) }()
	config := c.config(store)
	config.Keys, config.Node, config.KeyTimeout = keys, "waits", time.Minute
	waits, err := agentkey.New(t.Context(), config)
	is.NoErr(err)
	keys.breaks(func(ctx context.Context) error {
		asked <- struct{}{}
		<-answer
		return nil
	})
	done := make(chan error, 1)
	go func() {
		v, err := waits.Vend(t.Context(), agentkey.TrustedAgent(c.org, c.bot), c.shared)
		if err == nil {
			v.Credential.Destroy()
		}
		done <- err
	}()
	<-asked
	is.NoErr(c.vend(c.bot, c.shared))
	is.NoErr(second(c.m.SuspendAgent(t.Context(), c.owner, c.bystander)))
	is.Equal(len(done), 0)
	close(answer)
	is.NoErr(<-done)
}
