package cli

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type channelsCommands struct {
	Show  channelsShow  `cmd:"" help:"Show which channels have a webhook."`
	Set   channelsSet   `cmd:"" help:"Give a channel its webhook. Its URL is a credential, and is read as one."`
	Clear channelsClear `cmd:"" help:"Remove a channel's webhook."`
}

// channelArg is a channel as an argument.
type channelArg struct {
	Channel string `arg:"" enum:"slack,discord" help:"slack or discord."`
}

func showNotifications(s *session, asJSON bool) func(client.Notifications, error) error {
	return func(n client.Notifications, err error) error {
		if err != nil {
			return err
		}
		if asJSON {
			return s.emit(n)
		}
		for _, c := range []struct {
			name    string
			preview *string
		}{{"slack", n.SlackPreview}, {"discord", n.DiscordPreview}} {
			said := "no webhook"
			if c.preview != nil {
				said = *c.preview
			}
			if err := s.say("%-8s %s", c.name, said); err != nil {
				return err
			}
		}
		return nil
	}
}

type channelsShow struct{ readFlags }

// Run shows which channels have a webhook, never its URL.
func (c *channelsShow) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	return showNotifications(s, c.JSON)(admin.Notifications(ctx))
}

type channelsSet struct {
	serverFlags
	channelArg
	credentialFlags
}

// Run gives a channel its webhook.
func (c *channelsSet) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	url, err := c.read(s)
	if err != nil {
		return err
	}
	defer url.Destroy()
	return showNotifications(s, false)(admin.SetWebhook(ctx, c.Channel, url))
}

type channelsClear struct {
	serverFlags
	channelArg
}

// Run removes a channel's webhook.
func (c *channelsClear) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	in := client.WebhooksToClear{Slack: c.Channel == "slack", Discord: c.Channel == "discord"}
	return showNotifications(s, false)(admin.ClearWebhooks(ctx, in))
}
