package agentkey_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// keysOf reads an organization's data keys, by state.
func (s *scene) keysOf(organization string) map[vault.KeyState][]storage.DataKey {
	s.t.Helper()
	out := make(map[vault.KeyState][]storage.DataKey)
	s.noErr(s.inner.View(context.Background(), organization, func(ctx context.Context, tx storage.ReadTx) error {
		keys, err := tx.DataKeys(ctx)
		for _, k := range keys {
			out[k.State] = append(out[k.State], k)
		}
		return err
	}))
	return out
}

// rotate has everything done that was asked for.
func (s *scene) rotate() {
	s.t.Helper()
	done, err := s.ContinueRotations(context.Background())
	s.noErr(err)
	if !done {
		s.t.Fatal("rotations are not done")
	}
}

// After a rotation and a re-sealing nothing is left under the keys before, which
// are then destroyed: the seal key at once, the row key when nothing lives any more
// that nobody can list. Vends go on, also of a process that held the keys before.
func TestRotateAndReseal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	s.perAgent("Each")
	is.NoErr(s.vend())
	_, err := s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID) // holds the keys from now on
	is.NoErr(err)
	before := s.keysOf(s.Organization.ID)[vault.KeyActive]
	is.Equal(len(before), 2)

	status, err := s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	is.Equal(len(status.Keys), 4)
	is.NoErr(s.vend())
	status, err = s.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{Count: true})
	is.NoErr(err)
	is.True(status.Reseal > 5)
	is.Equal(status.Resealing, nil)

	status, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	is.True(status.Resealing != nil)
	s.rotate()
	for _, k := range before {
		state := s.state(s.Organization.ID, k.ID)
		if k.Purpose == vault.PurposeSeal {
			is.Equal(state.State, vault.KeyDestroyed)
			is.Equal(len(state.Wrapped), 0)
		} else {
			is.Equal(state.State, vault.KeyDecryptOnly) // windows may still be sealed with it
		}
	}
	status, err = s.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{Count: true})
	is.NoErr(err)
	is.Equal(status.Reseal, int64(0))
	is.Equal(status.Resealing, nil)
	is.NoErr(s.vend())
	_, err = s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.NoErr(err)
	s.consistent(false)

	s.Clock.Advance(25 * time.Hour)
	_, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	s.rotate()
	is.Equal(len(s.keysOf(s.Organization.ID)[vault.KeyDestroyed]), 2)
	is.Equal(len(s.keysOf(s.Organization.ID)[vault.KeyDecryptOnly]), 0)
	is.NoErr(s.vend())
	s.consistent(false)
	found, err := s.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
}

// state reads a data key.
func (s *scene) state(organization, id string) storage.DataKey {
	for _, keys := range s.keysOf(organization) {
		for _, k := range keys {
			if k.ID == id {
				return k
			}
		}
	}
	s.t.Fatalf("no data key %s", id)
	return storage.DataKey{}
}

// The installation's own keys are rotated by an Operator.
func TestRotateTheInstallationsKeys(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	operator := agentkey.Operator("test")
	_, err := s.RotateDataKeys(t.Context(), operator, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	_, err = s.Reseal(t.Context(), operator)
	is.NoErr(err)
	s.rotate()
	is.NoErr(s.vend())
	s.consistent(false)
	_, err = s.witness.Verify(t.Context(), asHost(s.Owner))
	is.NoErr(err)
}

// A value that does not open keeps its key, and nothing else.
func TestResealAroundDamage(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	old := s.sealKey()
	mend := s.damage(s.linear.ID)
	_, err := s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{Purposes: []vault.Purpose{vault.PurposeSeal}})
	is.NoErr(err)
	_, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	s.rotate()
	is.Equal(s.state(s.Organization.ID, old).State, vault.KeyDecryptOnly)
	_, err = s.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.NoErr(err)
	last := s.recorded(s.Organization.ID, audit.ActionResealCompleted)
	is.Equal(len(last), 1)
	is.Equal(last[0].Outcome, audit.OutcomeFailed)
	mend()
	_, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	s.rotate()
	is.Equal(s.state(s.Organization.ID, old).State, vault.KeyDestroyed)
}

func (s *scene) sealKey() string {
	keys, _ := s.sealKeys()
	return keys[0].ID
}

// ReplaceForTest gives a tool another credential.
func (s *scene) ReplaceForTest(ctx context.Context, tool string) (agentkey.ToolView, error) {
	return s.UpdateTool(ctx, s.Owner, tool, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("lin_api_test_2"))})
}

// damage edits a tool's sealed value and seals nothing anew, until it is mended.
func (s *scene) damage(tool string) (mend func()) {
	s.t.Helper()
	put := func(c storage.Credential) {
		s.t.Helper()
		s.noErr(s.inner.Update(context.Background(), s.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
			if _, err := tx.DeleteCredential(ctx, c.ID, c.Revision); err != nil {
				return err
			}
			_, err := tx.PutCredential(ctx, c)
			return err
		}))
	}
	var sound storage.Credential
	s.noErr(s.inner.View(context.Background(), s.Organization.ID, func(ctx context.Context, tx storage.ReadTx) error {
		found, err := tx.Credentials(ctx, []storage.CredentialRef{{Tool: tool}})
		sound = found[0]
		return err
	}))
	edited := sound
	edited.Sealed = bytes.Clone(sound.Sealed)
	edited.Sealed[len(edited.Sealed)-1] ^= 1
	put(edited)
	return func() { put(sound) }
}

// countedKeys counts the calls of a key provider.
type countedKeys struct {
	vault.KeyProvider
	wraps, unwraps int
}

func (k *countedKeys) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	k.wraps++
	return k.KeyProvider.WrapKey(ctx, key, c)
}

func (k *countedKeys) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	k.unwraps++
	return k.KeyProvider.UnwrapKey(ctx, w, c)
}

// moving is a provider with a new key beside the scene's.
func (s *scene) moving(fresh vault.KeyProvider) vault.KeyProvider {
	s.t.Helper()
	p, err := vault.NewProviders(fresh, s.keys)
	s.noErr(err)
	return p
}

// ring makes a provider of some local keys, the first of which wraps.
func ring(t *testing.T, seeds ...byte) *localkey.Provider {
	t.Helper()
	keys := make([][]byte, len(seeds))
	for i, seed := range seeds {
		key := sha256.Sum256([]byte{seed})
		keys[i] = key[:]
	}
	p, err := localkey.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The outer key is rotated with one WrapKey for each data key and one UnwrapKey
// that proves it, however many values there are; after it the key before is not
// needed any more.
func TestRewrap(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	for i := range 30 {
		s.Tool(fmt.Sprintf("Tool %d", i), "oth_api_test_1")
	}
	counted := &countedKeys{KeyProvider: s.moving(ring(t, 2))}
	m, err := agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: counted, Clock: s.Clock.Now, Policies: agentkeytest.Unlimited()})
	is.NoErr(err)
	status, err := m.RewrapDataKeys(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	is.True(status.Rewrapping != nil)
	done, err := s.ContinueRotations(t.Context()) // its provider has another current key
	is.NoErr(err)
	is.True(!done)
	counted.wraps, counted.unwraps = 0, 0
	done, err = m.ContinueRotations(t.Context())
	is.NoErr(err)
	is.True(done)
	is.Equal(counted.wraps, 5)      // row and seal of two organizations, and the one that signs
	is.True(counted.unwraps <= 2*5) // each to prove it, and each once to have it
	only, err := agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: ring(t, 2), Clock: s.Clock.Now, Policies: agentkeytest.Unlimited()})
	is.NoErr(err)
	v, err := only.Vend(t.Context(), s.botKey, s.linear.ID)
	is.NoErr(err)
	v.Credential.Destroy()
	_, err = agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: s.keys, Clock: s.Clock.Now})
	is.True(errors.Is(err, agentkey.ErrKeys))
	r, err := only.Reconcile(t.Context(), asHost(s.Owner))
	is.NoErr(err)
	is.True(r.OK())
	status, err = only.KeysStatus(t.Context(), agentkey.Operator("test"), agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.Equal(status.Rewrap, 0)
	is.Equal(status.Rewrapping, nil)
}

// The signing key is handed over by an event that the key before signed. A process
// that did not hear of it goes on, and takes the new one without an alarm.
func TestRotateSigningKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	is.NoErr(s.vend())
	_, err := s.witness.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.NoErr(err)
	former := s.PublicKey()
	trusted, err := audit.NewVerifiers(former)
	is.NoErr(err)
	r, err := s.RotateSigningKey(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	is.Equal(r.Former, former)
	is.Equal(r.Present, s.PublicKey())
	is.True(r.Present != former)
	present, err := agentkey.CheckHandover(trusted, r.Event, r.Receipt)
	is.NoErr(err)
	is.Equal(present, r.Present)
	other, err := audit.NewVerifiers(r.Present)
	is.NoErr(err)
	_, err = agentkey.CheckHandover(other, r.Event, r.Receipt)
	is.True(errors.Is(err, audit.ErrSignature))
	forged := []byte(strings.Replace(string(r.Event), `"outcome":"ok"`, `"outcome":"failed","reason":"x"`, 1))
	_, err = agentkey.CheckHandover(trusted, forged, r.Receipt)
	is.True(err != nil)

	is.NoErr(s.vend())                                          // signed by the new key
	_, err = s.witness.Vend(t.Context(), s.botKey, s.linear.ID) // which this process meets first in a head
	is.NoErr(err)
	is.Equal(s.witness.PublicKey(), r.Present)
	is.Equal(len(s.witness.PublicKeys()), 2)
	s.consistent(false)
	is.Equal(len(s.recorded(s.Organization.ID, audit.ActionIntegrityFailed)), 0)
	is.Equal(len(s.recorded(storage.System, audit.ActionIntegrityFailed)), 0)
	var export strings.Builder
	is.NoErr(s.Export(t.Context(), s.Owner, &export))
	is.True(strings.Contains(export.String(), former) && strings.Contains(export.String(), r.Present))
	again, err := agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: s.keys, Clock: s.Clock.Now})
	is.NoErr(err)
	is.Equal(again.PublicKeys(), s.PublicKeys())
}

// A destroyed organization opens nothing, at once and in every process, refuses
// everything but reading its log, and says which outer key still opens backups.
func TestDestroyOrganization(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	m, err := agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: s.moving(ring(t, 2)), Clock: s.Clock.Now, Policies: agentkeytest.Unlimited()})
	is.NoErr(err)
	_, err = m.Vend(t.Context(), s.canaryKey, s.canarysTool.ID) // holds the keys from now on
	is.NoErr(err)
	s.perAgent("Each")
	plan, err := s.PlanDestruction(t.Context(), s.Owner)
	is.NoErr(err)
	is.Equal(plan.Name, s.Organization.Name)
	in := agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation}
	for _, wrong := range []agentkey.DestroyOrganizationInput{
		{Name: plan.Name + "x", Confirmation: plan.Confirmation}, {Name: plan.Name, Confirmation: "guessed"}, {},
	} {
		_, err := s.DestroyOrganization(t.Context(), s.Owner, wrong)
		is.True(err != nil)
		is.NoErr(s.vend())
	}
	d, err := s.DestroyOrganization(t.Context(), s.Owner, in)
	is.NoErr(err)
	is.True(d.Pending)
	is.Equal(d.Outer, []agentkey.OuterKey{{ID: plan.Outer[0], State: agentkey.OuterHeld, InUse: true}})

	for _, k := range s.keysOf(s.Organization.ID)[vault.KeyDestroyed] {
		is.Equal(len(k.Wrapped), 0)
	}
	is.True(errors.Is(s.vend(), agentkey.ErrOrganizationDestroyed))
	_, err = m.Vend(t.Context(), s.canaryKey, s.canarysTool.ID)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	_, err = s.ReplaceForTest(t.Context(), s.linear.ID)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	_, err = s.Reseal(t.Context(), s.Owner)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	_, err = s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	_, err = s.Unlock(t.Context(), s.Owner, "")
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	_, err = s.DestroyOrganization(t.Context(), s.Owner, in)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))

	s.Clock.Advance(1000 * time.Hour) // grants and keys come to their end as ever
	is.NoErr(s.Sweep(t.Context()))
	is.NoErr(m.Sweep(t.Context()))
	s.consistent(false)
	var export strings.Builder
	is.NoErr(s.Export(t.Context(), asHost(s.Owner), &export))
	found, err := s.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
	is.Equal(found.Destroyed, int64(1))

	_, err = m.RewrapDataKeys(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	done, err := m.ContinueRotations(t.Context())
	is.NoErr(err)
	is.True(done)
	status, err := m.KeysStatus(t.Context(), asHost(s.Owner), agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.Equal(status.Destruction.Outer, []agentkey.OuterKey{{ID: plan.Outer[0], State: agentkey.OuterHeld}})
	only, err := agentkey.New(t.Context(), agentkey.Config{Storage: s.inner, Keys: ring(t, 2), Clock: s.Clock.Now, Policies: agentkeytest.Unlimited()})
	is.NoErr(err)
	status, err = only.KeysStatus(t.Context(), asHost(s.Owner), agentkey.KeysStatusInput{})
	is.NoErr(err)
	is.True(!status.Destruction.Pending)
}
