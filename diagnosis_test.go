package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/vault"
)

func (c *burglary) diagnose(in agentkey.DiagnoseInput) agentkey.Diagnosis {
	c.t.Helper()
	d, err := c.m.Diagnose(c.t.Context(), agentkey.Operator("test"), in)
	noErr(c.t, err)
	return d
}

// credential is SQL for the value of a tool.
func credential(column, tool string) string {
	return fmt.Sprintf("(SELECT %s FROM agentkey_credentials WHERE tool_id = '%s')", column, tool)
}

// TestDiagnoseFindsDamage: every kind of damage, done by SQL, is found with the kind
// and id of the record, and with what is wrong; and what is not damaged is not named.
func TestDiagnoseFindsDamage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dataKey := func(organization, purpose string) string {
		return fmt.Sprintf("organization = '%s' AND purpose = '%s'", organization, purpose)
	}
	value := "UPDATE agentkey_credentials SET sealed = CAST(%s AS BLOB) WHERE tool_id = '%s'"
	for name, d := range map[string]struct {
		sql  []string
		want []string // kind: problem, each at least once, and nothing else
	}{
		"nothing": {},
		"a value changed": {
			[]string{fmt.Sprintf(value, lastByte("sealed"), s.shared)},
			[]string{"credential: row does not fit its seal", "credential: value does not open in its place"},
		},
		"a value cut": {
			[]string{fmt.Sprintf(value, "substr(sealed, 1, 20)", s.shared)},
			[]string{"credential: row does not fit its seal", "credential: value is not sealed in a known form"},
		},
		"a value of another tool": {
			[]string{fmt.Sprintf(value, credential("sealed", s.double), s.shared)},
			[]string{"credential: row does not fit its seal", "credential: value does not open in its place; it is that of credential "},
		},
		"a value of another organization": {
			[]string{fmt.Sprintf(value, credential("sealed", s.otherTool), s.shared)},
			[]string{"credential: row does not fit its seal", "credential: value is sealed with a data key that is not there"},
		},
		"a wrapped key of another organization": {
			[]string{"UPDATE agentkey_data_keys SET wrapped = (SELECT wrapped FROM agentkey_data_keys WHERE " + dataKey(s.other, "seal") + ") WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: does not unwrap: it was changed, or is of another place", "data_key: row does not fit its seal"},
		},
		"a wrapped key changed": {
			[]string{"UPDATE agentkey_data_keys SET wrapped = CAST(" + lastByte("wrapped") + " AS BLOB) WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: does not unwrap", "data_key: row does not fit its seal"},
		},
		"a wrapped row key changed": {
			[]string{"UPDATE agentkey_data_keys SET wrapped = CAST(" + lastByte("wrapped") + " AS BLOB) WHERE " + dataKey(s.org, "row")},
			[]string{"data_key: does not unwrap", "data_key: no key that seals rows is at hand"},
		},
		"wrapped by a key that nobody has": {
			[]string{"UPDATE agentkey_data_keys SET provider = 'local:00000000000000000000000000000000' WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: does not unwrap: vault: unwrap data key: vault: unknown key: need local:00000000000000000000000000000000, hold [local:", "data_key: row does not fit its seal"},
		},
		"a data key removed": {
			[]string{"DELETE FROM agentkey_data_keys WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: 0 active keys of purpose seal", "credential: value is sealed with a data key that is not there"},
		},
		"a data key retired": {
			[]string{"UPDATE agentkey_data_keys SET state = 'decrypt_only' WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: row does not fit its seal", "data_key: 0 active keys of purpose seal"},
		},
		"as if the organization had been destroyed": {
			[]string{"UPDATE agentkey_data_keys SET state = 'destroyed' WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: row does not fit its seal"},
		},
		"as if all of its keys had been": {
			[]string{"UPDATE agentkey_data_keys SET state = 'destroyed' WHERE organization = '" + s.org + "'"},
			[]string{"data_key: no key that seals rows is at hand"},
		},
		"seals not counted": {
			[]string{"UPDATE agentkey_data_keys SET reserved = 1 WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: seals 3 values, and 1 seals were reserved"},
		},
		"seals past the threshold": {
			[]string{"UPDATE agentkey_data_keys SET reserved = 268435457 WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: has reserved 268435457 seals, of 268435456"},
		},
		"a count below zero": {
			[]string{"UPDATE agentkey_data_keys SET reserved = -1 WHERE " + dataKey(s.org, "seal")},
			[]string{"data_key: seals 3 values, and -1", "data_key: has reserved -1 seals"},
		},
		"a grant changed": {
			[]string{"UPDATE agentkey_grants SET vends_used = 7 WHERE id = '" + s.grant + "'"},
			[]string{"grant: row does not fit its seal"},
		},
		"a seal that is none": {
			[]string{"UPDATE agentkey_agents SET seal = x'00' WHERE id = '" + s.bot + "'"},
			[]string{"agent: row has no seal of a known form"},
		},
		"a seal of another key": {
			[]string{"UPDATE agentkey_agents SET seal = (SELECT seal FROM agentkey_agents WHERE id = '" + s.otherBot + "') WHERE id = '" + s.bot + "'"},
			[]string{"agent: row is sealed with a data key that is not there"},
		},
		"an administrator made owner": {
			[]string{"UPDATE agentkey_records SET payload = CAST(replace(payload, 'alice', 'mallo') AS BLOB) WHERE kind = 'administrator' AND organization = '" + s.org + "'"},
			[]string{"administrator: row does not fit its seal"},
		},
		"the head's time changed": {
			[]string{"UPDATE agentkey_logs SET time = time + 1 WHERE organization = '" + s.org + "'"},
			[]string{"log: head is not what was signed and sealed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.copy(t)
			for _, query := range d.sql {
				c.change(query)
			}
			noErr(t, c.start())
			c.finds(c.diagnose(agentkey.DiagnoseInput{Organization: s.org}), d.want)
			log := s.org
			if len(c.logged(s.org, audit.ActionCryptoExamined)) == 0 {
				log = systemLog // its own can't be written
			}
			if n := len(c.logged(log, audit.ActionCryptoExaminationFailed)); (n == 1) != (len(d.want) > 0) {
				t.Errorf("%d events say that something was found", n)
			}
		})
	}
}

// finds wants each of the problems, and no other, in the one organization.
func (c *burglary) finds(d agentkey.Diagnosis, want []string) {
	c.t.Helper()
	if d.OK() != (len(want) == 0) || d.Found != int64(len(d.Findings)) {
		c.t.Errorf("ok: %v, %d findings", d.OK(), d.Found)
	}
	seen := map[string]bool{}
	for _, f := range d.Findings {
		i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(f.Kind+": "+f.Problem, w) })
		if i < 0 || f.Organization != c.org || f.ID == "" {
			c.t.Errorf("unexpected: %+v", f)
			continue
		}
		seen[want[i]] = true
	}
	if len(seen) != len(want) {
		c.t.Errorf("found %v, want %q", d.Findings, want)
	}
}

// TestDiagnoseWhatIsSound: thousands of values while agents fetch and administrators
// replace them, under several data keys: nothing is found, and every log says that
// it was looked at.
func TestDiagnoseWhatIsSound(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	const tools = 1200
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.SealsPerKey = 300 })
	made := addTools(t, k, tools)
	agent, caller := k.Agent("bot")
	k.Allow(agent, made[0])
	k.NewOrganization("Other")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	began := make(chan struct{})
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, err := answered(func() (agentkey.ToolView, error) {
				return k.UpdateTool(t.Context(), k.Owner, made[i%tools].ID, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("lin_api_test_new"))})
			})
			if err != nil {
				t.Error(err)
				return
			}
			v, err := answered(func() (*agentkey.Vended, error) { return k.Vend(t.Context(), caller, made[0].ID) })
			if err != nil {
				t.Error(err)
				return
			}
			v.Credential.Destroy()
			if i == 0 {
				close(began)
			}
		}
	})
	<-began
	for _, in := range []agentkey.DiagnoseInput{{All: true}, {Sample: 50}} {
		told := 0
		in.Progress = func(agentkey.Diagnosis) { told++ }
		d, err := k.Diagnose(t.Context(), agentkey.Operator("test"), in)
		is.NoErr(err)
		is.Equal(d.Findings, nil)
		is.Equal(d.Organizations, int64(3))
		is.Equal(d.Values, int64(tools))
		is.True(d.Older > 0 && d.Rows > tools && told > 3 && d.DataKeys > 8)
		is.Equal(d.Rewrap, int64(0))
		if in.All {
			is.Equal(d.Opened, int64(tools))
		} else {
			is.True(d.Opened <= 50 && d.Opened > 30) // but those replaced meanwhile
		}
	}
	stop()
	wg.Wait()
	page, err := k.Events(t.Context(), k.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionCryptoExamined}})
	is.NoErr(err)
	is.Equal(len(page.Events), 2)
	is.Equal(page.Events[0].Details["opened"], "50")
	is.Equal(page.Events[1].Details["opened"], "all")
}

// addTools adds tools with a credential, sixteen at a time.
func addTools(t *testing.T, k *agentkeytest.Kit, n int) []agentkey.Tool {
	t.Helper()
	made := make([]agentkey.Tool, n)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := w; i < n; i += 16 {
				v, err := answered(func() (agentkey.ToolView, error) {
					return k.AddTool(t.Context(), k.Owner, agentkey.AddToolInput{
						Name: fmt.Sprintf("Tool %d", i), AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte("lin_api_test_1")),
					})
				})
				if err != nil {
					t.Error(err)
					return
				}
				made[i] = v.Tool
			}
		})
	}
	wg.Wait()
	return made
}

// TestDiagnoseThroughRotation: what is left to be sealed anew is counted, and no
// finding; nor is what a destroyed organization leaves behind.
func TestDiagnoseThroughRotation(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	look := func() agentkey.Diagnosis {
		t.Helper()
		d, err := s.witness.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
		is.NoErr(err)
		is.Equal(d.Findings, nil)
		return d
	}
	is.Equal(look().Older, int64(0))
	_, err := s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
	is.NoErr(err)
	_, err = s.RotateSigningKey(t.Context(), agentkey.Operator("test"))
	is.NoErr(err)
	s.Tool("New", "new_api_test_1")
	d := look()
	is.Equal(d.Older, int64(2))
	is.Equal(d.Opened, int64(3))
	_, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	s.rotate()
	d = look()
	is.Equal(d.Older, int64(0))
	is.Equal(d.Opened, int64(3))

	_, other := s.NewOrganization("Other")
	plan, err := s.PlanDestruction(t.Context(), s.Owner)
	is.NoErr(err)
	_, err = s.DestroyOrganization(t.Context(), s.Owner, agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation})
	is.NoErr(err)
	d = look()
	is.Equal(d.Destroyed, int64(1))
	is.Equal(d.Opened, int64(0))
	is.Equal(d.Organizations, int64(3))
	is.True(other.Organization != "")
	is.True(len(s.recorded(s.Organization.ID, audit.ActionCryptoExamined)) == 4) // its log still takes events
}

// forgetful is a provider that does not bind what it wraps to its place.
type forgetful struct{ vault.KeyProvider }

var nowhere = vault.Context{Installation: "i", Organization: "o", Purpose: "p", Key: "k"}

func (f forgetful) WrapKey(ctx context.Context, key []byte, _ vault.Context) (vault.Wrapped, error) {
	return f.KeyProvider.WrapKey(ctx, key, nowhere)
}

func (f forgetful) UnwrapKey(ctx context.Context, w vault.Wrapped, _ vault.Context) ([]byte, error) {
	return f.KeyProvider.UnwrapKey(ctx, w, nowhere)
}

// TestDiagnoseProvider: what is wrong with the provider is told first.
func TestDiagnoseProvider(t *testing.T) {
	t.Parallel()
	t.Run("binds nothing", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		k := agentkeytest.New(t, func(c *agentkey.Config) { c.Keys = forgetful{agentkeytest.Keys(t)} })
		d, err := k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{})
		is.NoErr(err)
		is.Equal(len(d.Findings), 1)
		is.Equal(d.Findings[0].Kind, agentkey.KindKeyProvider)
		is.True(strings.Contains(d.Findings[0].Problem, "what it wrapped for another"))
		is.Equal(d.Organizations, int64(2)) // and goes on
	})
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		s := newScene(t)
		s.keys.breaks(away)
		d, err := s.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{})
		is.NoErr(err)
		is.Equal(len(d.Findings), 1)
		is.Equal(d.Findings[0].Kind, agentkey.KindKeyProvider)
		is.Equal(d.Organizations, int64(0))
		s.keys.breaks(nil)
		s.keys.afterwards(4, away)
		_, err = s.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{})
		is.True(errors.Is(err, agentkey.ErrKeys)) // it stopped answering: that is no finding about any key
	})
}

// afterwards lets the provider answer so many calls, and break then.
func (k *watchedKeys) afterwards(n int, fault func(context.Context) error) {
	k.breaks(func(ctx context.Context) error {
		if k.calls() <= n {
			return nil
		}
		return fault(ctx)
	})
}

// TestDiagnoseInput: what is no organization, and samples that are none.
func TestDiagnoseInput(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	for _, in := range []agentkey.DiagnoseInput{{Sample: -1}, {Sample: 10_001}, {Organization: "a b"}, {Organization: strings.Repeat("a", 129)}} {
		_, err := k.Diagnose(t.Context(), agentkey.Operator("test"), in)
		is.True(errors.Is(err, agentkey.ErrInvalid))
	}
	_, err := k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{Organization: "nowhere"})
	is.True(errors.Is(err, agentkey.ErrNotFound))
	k.Clock.Advance(time.Second)
	d, err := k.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{Organization: k.Organization.ID})
	is.NoErr(err)
	is.True(d.OK())
	is.Equal(d.Organizations, int64(1))
}
