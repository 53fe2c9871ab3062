package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Inbox lists everything that waits for a person, what was asked for last first:
// of one kind, such as access_request, or of all.
func (a *Admin) Inbox(ctx context.Context, kind string) iter.Seq2[InboxItem, error] {
	return list[InboxItem](ctx, a, query("kind", kind), "requests")
}

// activityPage is the largest page of activity that the server gives.
const activityPage = "20"

// AgentActivity lists what happened to an agent, newest first.
func (a *Admin) AgentActivity(ctx context.Context, id string) iter.Seq2[Activity, error] {
	return list[Activity](ctx, a, url.Values{"limit": {activityPage}}, "agents", id, "activity")
}

// ToolActivity lists what happened to a tool, newest first.
func (a *Admin) ToolActivity(ctx context.Context, id string) iter.Seq2[Activity, error] {
	return list[Activity](ctx, a, url.Values{"limit": {activityPage}}, "tools", id, "activity")
}

// Notifications tells which webhooks the organization has.
func (a *Admin) Notifications(ctx context.Context) (Notifications, error) {
	return get[Notifications](ctx, a, "notifications")
}

// SetWebhook gives a channel, slack or discord, its webhook; the URL stays the
// caller's. The other channel stays as it is.
func (a *Admin) SetWebhook(ctx context.Context, channel string, url *vault.Secret) (n Notifications, err error) {
	_, err = a.c.do(ctx, call{
		method: http.MethodPost, path: adminPath("notifications"), body: struct{}{}, secret: url, named: channel + "Webhook",
	}, &n)
	return n, err
}

// WebhooksToClear says whose webhooks are removed.
type WebhooksToClear struct {
	Slack   bool `json:"clearSlack,omitempty"`
	Discord bool `json:"clearDiscord,omitempty"`
}

// ClearWebhooks removes webhooks.
func (a *Admin) ClearWebhooks(ctx context.Context, in WebhooksToClear) (Notifications, error) {
	return send[Notifications](ctx, a, http.MethodPost, in, nil, "notifications")
}

// Onboarding tells whether the organization still needs an introduction.
func (a *Admin) Onboarding(ctx context.Context) (Onboarding, error) {
	return get[Onboarding](ctx, a, "onboarding")
}

// DismissOnboarding notes that it does not. The first time stands.
func (a *Admin) DismissOnboarding(ctx context.Context) (Onboarding, error) {
	return send[Onboarding](ctx, a, http.MethodPost, struct{}{}, nil, "onboarding", "dismiss")
}
