package contract_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestNotificationSettings is 6: the settings, what they refuse, and what of a URL
// is told: its first 18 characters.
func TestNotificationSettings(t *testing.T) {
	t.Parallel()
	const (
		path    = "/api/admin/notifications"
		slack   = "https://hooks.slack.com/services/T0TEST/B0TEST/hook_test_0001"
		discord = "https://discord.com/api/webhooks/1/hook_test_0002"
	)
	o := unlimited()
	o.Config.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "hooks.slack.com", "discord.com":
			return []netip.Addr{netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("2606:2800::1")}, nil
		case "ptb.discord.com":
			return []netip.Addr{netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("10.0.0.1")}, nil
		case "canary.discord.com":
			return nil, nil
		}
		return nil, errors.New("no such host")
	}
	each(t, o, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		get := func() map[string]any { return f.Must(200, "GET", path, f.Owner, "") }
		set := func(body string) map[string]any {
			t.Helper()
			answered := f.Must(200, "POST", path, f.Owner, body)
			is.Equal(answered, get())
			return answered
		}
		events := func() []map[string]any {
			return f.Do("GET", "/api/admin/audit-log?action=notification.settings.updated", f.Owner, "").Items(t)
		}
		is.Equal(keys(get()), "discordConfigured discordWebhookPreview lastDiscordDeliveryAt lastDiscordDeliveryStatus lastDiscordError "+
			"lastSlackDeliveryAt lastSlackDeliveryStatus lastSlackError slackConfigured slackWebhookPreview")
		is.Equal(words(set(`{}`)["slackConfigured"], set(`{"clearSlack":true}`)["discordConfigured"], len(events())), "false false 0")

		s := set(`{"slackWebhook":" ` + slack + `\n"}`)
		is.Equal(words(s["slackConfigured"], s["slackWebhookPreview"], s["discordConfigured"], s["discordWebhookPreview"]), "true https://hooks.slac… false <nil>")
		is.Equal(words(s["lastSlackDeliveryStatus"], s["lastSlackDeliveryAt"], s["lastSlackError"]), "<nil> <nil> <nil>")
		s = set(`{"discordWebhook":"` + discord + `","slackWebhook":"","clearSlack":false}`)
		is.Equal(words(s["slackConfigured"], s["discordWebhookPreview"]), "true https://discord.co…")
		s = set(`{"clearSlack":true,"slackWebhook":"` + slack + `"}`)
		is.Equal(words(s["slackConfigured"], s["slackWebhookPreview"], s["discordConfigured"]), "false <nil> true")

		found := events()
		is.Equal(len(found), 3)
		row := found[0]
		is.Equal(words(row["actorType"], row["targetType"], row["targetId"]), words("human", "organization_notification_settings", f.Organization))
		is.Equal(row["metadata"], map[string]any{"slackConfigured": false, "discordConfigured": true})

		before := get()
		for _, body := range []string{
			`{"slackWebhook":"` + discord + `"}`, `{"slackWebhook":"http://hooks.slack.com/services/hook_test"}`,
			`{"slackWebhook":"https://hooks.slack.com:444/services/hook_test"}`, `{"slackWebhook":"https://u@hooks.slack.com/services/hook_test"}`,
			`{"discordWebhook":"https://discord.com/api/hook_test"}`, `{"slackWebhook":7}`, `{"clearSlack":"yes"}`, `{"teamsWebhook":"hook_test"}`,
			`{"discordWebhook":"https://discord.com/api/webhooks/` + strings.Repeat("a", 2048) + `"}`,
			// It leads to this network, to nowhere, and can't be told:
			`{"discordWebhook":"https://ptb.discord.com/api/webhooks/1/hook_test"}`, `{"discordWebhook":"https://canary.discord.com/api/webhooks/1/hook_test"}`,
			`{"slackWebhook":"https://hooks.slack-gov.com/services/hook_test"}`,
		} {
			res := f.Do("POST", path, f.Owner, body)
			is.Equal(res.Status, 400)
			is.True(!strings.Contains(res.Body, "hook_test"))
		}
		is.Equal(get(), before)
		is.Equal(len(events()), 3)
		is.True(!strings.Contains(f.Log.String(), "hook_test"))
	})
}
