package agentkey_test

import (
	"context"
	"fmt"
	"time"

	"github.com/agentkey-dev/agentkey-go"
)

// The inbox holds what waits for a person, whatever it is.
func ExampleManager_Inbox() {
	s, ctx := openExample(), context.Background()
	must(s.RequestAccess(ctx, s.agent, agentkey.RequestInput{Tool: s.linear.ID, Reason: "to file bugs"}))
	page := must(s.Inbox(ctx, s.approver, agentkey.InboxInput{}))
	for _, item := range page.Items {
		fmt.Println(item.Kind, item.Request.AgentName, item.Request.ToolName, item.Request.Reason)
	}
	must(s.Deny(ctx, s.approver, page.Items[0].ID, "not this week"))
	fmt.Println(len(must(s.Inbox(ctx, s.approver, agentkey.InboxInput{})).Items))
	// Output:
	// access_request bot Linear to file bugs
	// 0
}

// What happened to an agent, newest first.
func ExampleManager_AgentActivity() {
	s, ctx := openExample(), context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	for _, e := range must(s.AgentActivity(ctx, s.admin, s.bot.ID, agentkey.ActivityInput{Limit: 2})).Events {
		fmt.Println(e.Action, e.Personal.ToolLabel)
	}
	// Output:
	// grant.assigned Linear
	// agent.created
}

// What happened to a tool, newest first.
func ExampleManager_ToolActivity() {
	s, ctx := openExample(), context.Background()
	must(s.Vend(ctx, s.agent, must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID})).Tool)).Credential.Destroy()
	for _, e := range must(s.ToolActivity(ctx, s.admin, s.linear.ID, agentkey.ActivityInput{Limit: 2})).Events {
		fmt.Println(e.Action, e.Actor.Kind, e.Actor.ID == s.bot.ID)
	}
	// Output:
	// credential.vended agent true
	// grant.assigned human false
}

// A channel gets its webhook. Its URL is sealed like a credential, and nothing tells
// it but whoever knows it already.
func ExampleManager_UpdateNotificationSettings() {
	s, ctx := openExample(), context.Background()
	url := agentkey.NewSecret([]byte("https://hooks.slack.com/services/T0TEST/B0TEST/hook_test_1"))
	defer url.Destroy()
	must(s.UpdateNotificationSettings(ctx, s.admin, agentkey.UpdateNotificationSettingsInput{Slack: url}))
	fmt.Printf("%+v\n", must(s.NotificationSettings(ctx, s.admin)))
	must(s.UpdateNotificationSettings(ctx, s.admin, agentkey.UpdateNotificationSettingsInput{ClearSlack: true}))
	fmt.Println(must(s.NotificationSettings(ctx, s.admin)).Slack.Configured)
	// Output:
	// {Slack:{Configured:true Preview:https://hooks.slac…} Discord:{Configured:false Preview:}}
	// false
}

// An introduction that was dismissed stays dismissed as of the first time.
func ExampleManager_DismissOnboarding() {
	s, ctx := openExample(), context.Background()
	fmt.Println(must(s.Settings(ctx, s.admin)).OnboardingDismissedAt)
	must(s.DismissOnboarding(ctx, s.admin))
	fmt.Println(time.UnixMicro(must(s.Settings(ctx, s.admin)).OnboardingDismissedAt).UTC())
	// Output:
	// 0
	// 2026-01-01 12:00:00 +0000 UTC
}
