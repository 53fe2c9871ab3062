package agentkey_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	slackWebhook   = "https://hooks.slack.com/services/T0TEST/B0TEST/hook_test_0001"
	discordWebhook = "https://discord.com/api/webhooks/1/hook_test_0002"
)

// webhooks is an input with URLs; an empty one is left out.
func webhooks(slack, discord string) (in agentkey.UpdateNotificationSettingsInput) {
	if slack != "" {
		in.Slack = agentkey.NewSecret([]byte(slack))
	}
	if discord != "" {
		in.Discord = agentkey.NewSecret([]byte(discord))
	}
	return in
}

func (s *stage) setSlack(a agentkey.Actor) error {
	return second(s.UpdateNotificationSettings(s.t.Context(), a, webhooks(slackWebhook, "")))
}

func notificationFaults() []faultOperation {
	return []faultOperation{
		{method: "NotificationSettings", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.NotificationSettings(ctx, s.Owner)) }
		}},
		{method: "UpdateNotificationSettings", prepare: func(s *scene) call {
			_, err := s.UpdateNotificationSettings(s.t.Context(), s.Owner, webhooks(slackWebhook, discordWebhook))
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				in := webhooks(slackWebhook, "")
				in.ClearDiscord = true
				return answer(s.UpdateNotificationSettings(ctx, s.Owner, in))
			}
		}},
	}
}

// storedWebhooks reads the rows of webhooks as they are stored.
func storedWebhooks(t *testing.T, store storage.Store, organization string) (rows []storage.Record) {
	t.Helper()
	noErr(t, store.View(t.Context(), organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		rows, err = tx.ScanRecords(ctx, storage.Scan{Kind: "notification_webhook", Limit: 10})
		return err
	}))
	return rows
}

func sealedOf(t *testing.T, r storage.Record) []byte {
	t.Helper()
	var p struct{ Sealed []byte }
	noErr(t, json.Unmarshal(r.Payload, &p))
	return p.Sealed
}

// What is not given stays, clear wins, and every change is an event with a digest
// of what was sealed and no word of it.
func TestNotificationSettings(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	update := func(in agentkey.UpdateNotificationSettingsInput) agentkey.NotificationSettings {
		t.Helper()
		s, err := k.UpdateNotificationSettings(t.Context(), k.Owner, in)
		is.NoErr(err)
		read, err := k.NotificationSettings(t.Context(), k.Owner)
		is.NoErr(err)
		is.Equal(s, read)
		return s
	}
	events := func() []agentkey.LoggedEvent {
		t.Helper()
		page, err := k.Events(t.Context(), k.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionNotificationSettingsUpdated}})
		is.NoErr(err)
		return page.Events
	}
	onSlack := agentkey.Webhook{Configured: true, Preview: "https://hooks.slac…"}
	onDiscord := agentkey.Webhook{Configured: true, Preview: "https://discord.co…"}
	var none agentkey.Webhook

	is.Equal(update(agentkey.UpdateNotificationSettingsInput{}), agentkey.NotificationSettings{})
	is.Equal(update(agentkey.UpdateNotificationSettingsInput{ClearSlack: true}), agentkey.NotificationSettings{})
	is.Equal(len(events()), 0) // nothing was there, and nothing is
	is.Equal(len(storedWebhooks(t, k.Config.Storage, k.Organization.ID)), 0)

	is.Equal(update(webhooks(slackWebhook, "")), agentkey.NotificationSettings{Slack: onSlack})
	first := storedWebhooks(t, k.Config.Storage, k.Organization.ID)[0]
	e := events()[0]
	is.Equal(e.Target, audit.Ref{Kind: audit.KindNotificationSettings, ID: k.Organization.ID})
	is.Equal(e.Details, map[string]string{"slack_configured": "true", "discord_configured": "false"})
	digest := vault.SealedDigest(sealedOf(t, first))
	is.Equal(e.Sealed, []audit.SealedRef{{Kind: first.Kind, ID: first.ID, Digest: digest[:]}})

	is.Equal(update(webhooks(" \t", discordWebhook)), agentkey.NotificationSettings{Slack: onSlack, Discord: onDiscord})
	is.Equal(update(webhooks("", "")), agentkey.NotificationSettings{Slack: onSlack, Discord: onDiscord})
	is.Equal(len(events()), 2)
	is.Equal(update(webhooks(slackWebhook, "")).Slack, onSlack)
	rows := storedWebhooks(t, k.Config.Storage, k.Organization.ID)
	is.Equal(len(rows), 2)
	is.True(!slices.ContainsFunc(rows, func(r storage.Record) bool { return r.ID == first.ID })) // replaced by one of its own

	in := webhooks(slackWebhook, "https://example.com/hook_test")
	in.ClearSlack, in.ClearDiscord = true, true
	in.Reachable = func(context.Context, string) bool { t.Error("asked for what is not kept"); return false }
	is.Equal(update(in), agentkey.NotificationSettings{Slack: none, Discord: none})
	is.Equal(len(events()), 4)
	is.Equal(events()[0].Details, map[string]string{"slack_configured": "false", "discord_configured": "false"})

	report, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(report.Findings, nil)
}

// A host is asked for once the actor may change anything, and what does not lead
// to public addresses is not kept.
func TestWebhookHostsAreAskedFor(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	var asked []string
	in := webhooks("HTTPS://Hooks.Slack-Gov.com:443/services/T0/hook_test", discordWebhook)
	in.Reachable = func(_ context.Context, host string) bool {
		asked = append(asked, host)
		return host != "discord.com"
	}
	auditor := k.Owner
	auditor.Role = agentkey.RoleAuditor
	_, err := k.UpdateNotificationSettings(t.Context(), auditor, in)
	is.True(errors.Is(err, agentkey.ErrForbidden))
	is.Equal(asked, nil)
	_, err = k.UpdateNotificationSettings(t.Context(), k.Owner, in)
	var bad *agentkey.ValidationError
	is.True(errors.As(err, &bad))
	is.Equal(bad.Fields[0].Field, "discordWebhook")
	is.Equal(asked, []string{"Hooks.Slack-Gov.com", "discord.com"})
	s, err := k.NotificationSettings(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(s, agentkey.NotificationSettings{}) // neither was kept
}

// Only the services' own hosts and paths, spelled plainly.
func TestWebhookURLs(t *testing.T) {
	t.Parallel()
	k := agentkeytest.New(t)
	const slack, discord = "slack", "discord"
	for _, tt := range []struct {
		channel, url string
		good         bool
	}{
		{slack, slackWebhook, true},
		{slack, "https://hooks.slack-gov.com/services/hook_test/", true},
		{slack, "https://HOOKS.slack.com:443/services/hook_test", true},
		{discord, discordWebhook, true},
		{discord, "https://discordapp.com/api/webhooks/1/hook_test", true},
		{discord, "https://ptb.discord.com/api/webhooks/1/hook_test?thread_id=7&wait=true", true},
		{discord, "https://canary.discord.com/api/webhooks/1/hook_test", true},
		{slack, "https://hooks.slack.com/services/" + strings.Repeat("a", 2048-33), true},

		{slack, "https://hooks.slack.com/services/hook_test" + strings.Repeat("a", 2048-33), false},
		{slack, discordWebhook, false},
		{discord, slackWebhook, false},
		{slack, "http://hooks.slack.com/services/hook_test", false},
		{slack, "hooks.slack.com/services/hook_test", false},
		{slack, "https://hooks.slack.com:8443/services/hook_test", false},
		{slack, "https://hooks.slack.com:/services/hook_test", false},
		{slack, "https://user@hooks.slack.com/services/hook_test", false},
		{slack, "https://hooks.slack.com@example.com/services/hook_test", false},
		{slack, "https://hooks.slack.com.example.com/services/hook_test", false},
		{slack, "https://hooks-slack.com/services/hook_test", false},
		{slack, "https://hooksxslack.com/services/hook_test", false},
		{slack, "https://evil.hooks.slack.com/services/hook_test", false},
		{slack, "https://hooks.slack.com./services/hook_test", false},
		{slack, "https://hooks.slack.com/hook_test", false},
		{slack, "https://hooks.slack.com/services/", false},
		{slack, "https://hooks.slack.com/services/../hook_test", false},
		{slack, "https://hooks.slack.com/services/%2e%2e/hook_test", false},
		{slack, `https://hooks.slack.com\@example.com/services/hook_test`, false},
		{slack, "https://hooks.slack.com/services//hook_test", false},
		{slack, "https://hooks.slack.com/services/hook_test#x", false},
		{slack, "https://hooks.slack.com/services/hook_test\n", false},
		{slack, " https://hooks.slack.com/services/hook_test", false},
		{slack, "https://hooks.slack.com/services/hook_test\x00", false},
		{slack, "https://hooks.slack.com/services/hook_tést", false},
		{discord, "https://discord.com/api/hook_test", false},
		{discord, "https://beta.discord.com/api/webhooks/1/hook_test", false},
		{discord, "https://ptb.discordapp.com/api/webhooks/1/hook_test", false},
		{discord, "https://127.0.0.1/api/webhooks/1/hook_test", false},
	} {
		in := webhooks(tt.url, "")
		if tt.channel == discord {
			in = webhooks("", tt.url)
		}
		s, err := k.UpdateNotificationSettings(t.Context(), k.Owner, in)
		var bad *agentkey.ValidationError
		switch {
		case tt.good && err != nil:
			t.Errorf("%s: %v", tt.url, err)
		case !tt.good && (!errors.As(err, &bad) || len(bad.Fields) != 1 || bad.Fields[0].Field != tt.channel+"Webhook"):
			t.Errorf("%s: %v", tt.url, err)
		case !tt.good && strings.Contains(err.Error()+bad.Fields[0].Message, "hook_t"):
			t.Errorf("an error holds the URL: %v", err)
		}
		for _, preview := range []string{s.Slack.Preview, s.Discord.Preview} {
			if preview != "" && (strings.Count(preview, "/") != 2 || len(preview) != 18+len("…")) {
				t.Errorf("preview %q", preview)
			}
		}
	}
}

// The file of the database holds no URL, and a value opens nowhere but in its place:
// whatever is done by SQL is found, and nothing is told of it.
func TestWebhooksAreSealed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const row = "kind = 'notification_webhook' AND organization = "
	for name, d := range map[string]struct {
		change []string // with the ids of the two channels' rows, and of another organization's
		want   []string // of Diagnose
	}{
		"nothing": {},
		"the other channel's": {
			[]string{"UPDATE agentkey_records SET payload = (SELECT payload FROM agentkey_records WHERE id = '$discord') WHERE id = '$slack'"},
			[]string{"notification_webhook: row does not fit its seal", "notification_webhook: value does not open in its place; it is that of notification_webhook $discord"},
		},
		"another organization's": {
			[]string{"UPDATE agentkey_records SET payload = (SELECT payload FROM agentkey_records WHERE id = '$other') WHERE id = '$slack'"},
			[]string{"notification_webhook: row does not fit its seal", "notification_webhook: value is sealed with a data key that is not there"},
		},
		"its revision": {
			[]string{`UPDATE agentkey_records SET payload = CAST(replace(payload, '"sealed_revision":1', '"sealed_revision":2') AS BLOB) WHERE id = '$slack'`},
			[]string{"notification_webhook: row does not fit its seal", "notification_webhook: value does not open in its place"},
		},
		"its channel": {
			[]string{`UPDATE agentkey_records SET payload = CAST(replace(payload, '"slack"', '"other"') AS BLOB) WHERE id = '$slack'`},
			[]string{"notification_webhook: row does not fit its seal"},
		},
		"no JSON": {
			[]string{"UPDATE agentkey_records SET payload = x'7b' WHERE id = '$slack'"},
			[]string{"notification_webhook: row does not fit its seal", "notification_webhook: value is not sealed in a known form"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			c := s.copy(t)
			noErr(t, c.start())
			other := person(c.other, "olga", agentkey.RoleOwner)
			for _, a := range []agentkey.Actor{c.owner, other} {
				_, err := c.m.UpdateNotificationSettings(t.Context(), a, webhooks(slackWebhook, discordWebhook))
				is.NoErr(err)
			}
			c.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			content, err := os.ReadFile(c.path)
			is.NoErr(err)
			is.True(bytes.Contains(content, []byte("https://hooks.slac…"))) // it is in there, but
			for _, secret := range []string{"hook_test", "T0TEST", "hooks.slack.com", base64.StdEncoding.EncodeToString([]byte(slackWebhook))[:40]} {
				is.True(!bytes.Contains(content, []byte(secret)))
			}
			id := func(organization, channel string) string {
				return c.texts("SELECT id FROM agentkey_records WHERE " + row + "'" + organization + `' AND CAST(payload AS TEXT) LIKE '%"channel":"` + channel + `"%'`)[0]
			}
			ids := strings.NewReplacer("$slack", id(c.org, "slack"), "$discord", id(c.org, "discord"), "$other", id(c.other, "slack"))
			for _, query := range d.change {
				c.change(ids.Replace(query))
			}
			var want []string
			for _, w := range d.want {
				want = append(want, ids.Replace(w))
			}
			c.finds(c.diagnose(agentkey.DiagnoseInput{Organization: c.org, All: true}), want)
			c.finds(c.diagnose(agentkey.DiagnoseInput{Organization: c.org}), want)
			settings, err := c.m.NotificationSettings(t.Context(), c.owner)
			if len(want) == 0 {
				is.NoErr(err)
				return
			}
			is.True(errors.Is(err, agentkey.ErrIntegrity))
			is.Equal(settings, agentkey.NotificationSettings{})
		})
	}
}

// A row that was replaced and is put back fits its seal. It is a second one for its
// channel, and the log knows that it was removed.
func TestOldWebhookPutBack(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	set := func() {
		t.Helper()
		_, err := k.UpdateNotificationSettings(t.Context(), k.Owner, webhooks(slackWebhook, ""))
		is.NoErr(err)
	}
	set()
	old := storedWebhooks(t, k.Config.Storage, k.Organization.ID)[0]
	set()
	is.NoErr(k.Config.Storage.Update(t.Context(), k.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
		_, err := tx.PutRecord(ctx, old)
		return err
	}))
	_, err := k.NotificationSettings(t.Context(), k.Owner)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	_, err = k.UpdateNotificationSettings(t.Context(), k.Owner, agentkey.UpdateNotificationSettingsInput{ClearSlack: true})
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	report, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.Equal(len(report.Findings), 1)
	is.Equal(report.Findings[0].ID, old.ID)
}

// Webhooks are sealed anew with everything else, are counted with it, and keep a
// data key alive for as long as one of them is under it.
func TestWebhooksAreSealedAnew(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	_, err := s.UpdateNotificationSettings(t.Context(), s.Owner, webhooks(slackWebhook, discordWebhook))
	is.NoErr(err)
	values := func(key string) (n int64) { // under a key, or under any
		t.Helper()
		status, err := s.KeysStatus(t.Context(), s.Owner, agentkey.KeysStatusInput{Count: true})
		is.NoErr(err)
		for _, k := range status.Keys {
			if k.ID == key || key == "" {
				n += k.Values
			}
		}
		return n
	}
	opened := func(want int64) {
		t.Helper()
		for _, in := range []agentkey.DiagnoseInput{{All: true}, {}} {
			d, err := s.Diagnose(t.Context(), agentkey.Operator("test"), in)
			is.NoErr(err)
			is.Equal(d.Findings, nil)
			is.Equal(d.Opened, want)
		}
	}
	old := s.sealKey()
	before := values(old)
	opened(before)
	_, err = s.UpdateNotificationSettings(t.Context(), s.Owner, agentkey.UpdateNotificationSettingsInput{ClearSlack: true})
	is.NoErr(err)
	is.Equal(values(old), before-1)
	_, err = s.UpdateNotificationSettings(t.Context(), s.Owner, webhooks(slackWebhook, ""))
	is.NoErr(err)

	// One that was changed by hand keeps the key.
	rows := storedWebhooks(t, s.inner, s.Organization.ID)
	put := func(r storage.Record) {
		t.Helper()
		is.NoErr(s.inner.Update(t.Context(), s.Organization.ID, func(ctx context.Context, tx storage.Tx) error {
			if _, err := tx.DeleteRecord(ctx, r.Kind, r.ID, r.Revision); err != nil {
				return err
			}
			_, err := tx.PutRecord(ctx, r)
			return err
		}))
	}
	edited := rows[0]
	var p map[string]any
	is.NoErr(json.Unmarshal(edited.Payload, &p))
	sealed := sealedOf(t, rows[0])
	sealed[len(sealed)-1] ^= 1
	p["sealed"] = sealed
	edited.Payload, err = json.Marshal(p)
	is.NoErr(err)
	put(edited)
	rotate := func() {
		t.Helper()
		_, err = s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
		is.NoErr(err)
		_, err = s.Reseal(t.Context(), s.Owner)
		is.NoErr(err)
		s.rotate()
	}
	rotate()
	is.Equal(s.state(s.Organization.ID, old).State, vault.KeyDecryptOnly)
	is.Equal(values(old), int64(1))

	put(rows[0])
	rotate()
	is.Equal(s.state(s.Organization.ID, old).State, vault.KeyDestroyed)
	is.Equal(values(""), before)
	is.Equal(values(old), int64(0))
	opened(before)
	after := storedWebhooks(t, s.inner, s.Organization.ID)
	is.Equal(len(after), 2)
	for i, r := range after {
		is.True(!bytes.Equal(sealedOf(t, r), sealedOf(t, rows[i])))
	}
	settings, err := s.NotificationSettings(t.Context(), s.Owner)
	is.NoErr(err)
	is.True(settings.Slack.Configured && settings.Discord.Configured)
	s.consistent(false)

	// Rows alone, when only the key that seals rows was rotated.
	_, err = s.RotateDataKeys(t.Context(), s.Owner, agentkey.RotateDataKeysInput{Purposes: []vault.Purpose{vault.PurposeRow}})
	is.NoErr(err)
	_, err = s.Reseal(t.Context(), s.Owner)
	is.NoErr(err)
	s.rotate()
	for i, r := range storedWebhooks(t, s.inner, s.Organization.ID) {
		is.Equal(sealedOf(t, r), sealedOf(t, after[i]))
		is.True(!bytes.Equal(r.Seal, after[i].Seal))
	}
	opened(before)
	s.consistent(false)
}

// What seals webhooks is destroyed with the organization.
func TestWebhooksOfADestroyedOrganization(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	_, err := s.UpdateNotificationSettings(t.Context(), s.Owner, webhooks(slackWebhook, ""))
	is.NoErr(err)
	plan, err := s.PlanDestruction(t.Context(), s.Owner)
	is.NoErr(err)
	_, err = s.DestroyOrganization(t.Context(), s.Owner, agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation})
	is.NoErr(err)
	_, err = s.NotificationSettings(t.Context(), s.Owner)
	is.True(errors.Is(err, agentkey.ErrOrganizationDestroyed))
	d, err := s.Diagnose(t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{Organization: s.Organization.ID, All: true})
	is.NoErr(err)
	is.Equal(d.Findings, nil)
	is.Equal(d.Opened, int64(0))
	is.True(d.Values > 0)
}

// A URL that was sealed with a key which another process has followed by the next
// one meanwhile is sealed again.
func TestWebhookIsSealedUnderTheNewestKey(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newScene(t)
	set := func() {
		t.Helper()
		_, err := s.UpdateNotificationSettings(t.Context(), s.Owner, webhooks(slackWebhook, ""))
		is.NoErr(err)
	}
	set()
	_, err := s.witness.RotateDataKeys(t.Context(), asHost(s.Owner), agentkey.RotateDataKeysInput{Purposes: []vault.Purpose{vault.PurposeSeal}})
	is.NoErr(err)
	set()
	rows := storedWebhooks(t, s.inner, s.Organization.ID)
	is.Equal(len(rows), 1)
	key, err := vault.SealedKeyID(sealedOf(t, rows[0]))
	is.NoErr(err)
	is.Equal(s.state(s.Organization.ID, key).State, vault.KeyActive)
	s.consistent(false)
}
