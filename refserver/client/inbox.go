package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
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

// Onboarding tells whether the organization still needs an introduction.
func (a *Admin) Onboarding(ctx context.Context) (Onboarding, error) {
	return get[Onboarding](ctx, a, "onboarding")
}

// DismissOnboarding notes that it does not. The first time stands.
func (a *Admin) DismissOnboarding(ctx context.Context) (Onboarding, error) {
	return send[Onboarding](ctx, a, http.MethodPost, struct{}{}, nil, "onboarding", "dismiss")
}
