package adminapi

import (
	"context"
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// notifications are the settings as the contract has them. This server delivers to
// no webhook, so that there is nothing to say of deliveries.
type notifications struct {
	Slack          bool    `json:"slackConfigured"`
	SlackPreview   *string `json:"slackWebhookPreview"`
	SlackStatus    *string `json:"lastSlackDeliveryStatus"`
	SlackAt        *string `json:"lastSlackDeliveryAt"`
	SlackError     *string `json:"lastSlackError"`
	Discord        bool    `json:"discordConfigured"`
	DiscordPreview *string `json:"discordWebhookPreview"`
	DiscordStatus  *string `json:"lastDiscordDeliveryStatus"`
	DiscordAt      *string `json:"lastDiscordDeliveryAt"`
	DiscordError   *string `json:"lastDiscordError"`
}

func answerNotifications(x *exchange.Exchange) func(agentkey.NotificationSettings, error) error {
	return func(s agentkey.NotificationSettings, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, notifications{
			Slack: s.Slack.Configured, SlackPreview: exchange.Optional(s.Slack.Preview),
			Discord: s.Discord.Configured, DiscordPreview: exchange.Optional(s.Discord.Preview),
		})
	}
}

func (a *api) getNotifications(x *exchange.Exchange, actor agentkey.Actor) error {
	return answerNotifications(x)(a.manager.NotificationSettings(x.Ctx(), actor))
}

// resolving is how long the host of a webhook may take to be found.
const resolving = 5 * time.Second

// updateNotifications keeps a webhook only if its host leads to public addresses.
func (a *api) updateNotifications(x *exchange.Exchange, actor agentkey.Actor) error {
	in := agentkey.UpdateNotificationSettingsInput{Reachable: func(ctx context.Context, host string) bool {
		ctx, cancel := context.WithTimeout(ctx, resolving)
		defer cancel()
		return a.resolve.Public(ctx, host)
	}}
	defer func() {
		in.Slack.Destroy()
		in.Discord.Destroy()
	}()
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Secret("slackWebhook", &in.Slack)
		f.Secret("discordWebhook", &in.Discord)
		f.Bool("clearSlack", &in.ClearSlack)
		f.Bool("clearDiscord", &in.ClearDiscord)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	return answerNotifications(x)(a.manager.UpdateNotificationSettings(x.Ctx(), actor, in))
}
