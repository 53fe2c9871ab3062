package agentkey_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

// recorded runs a call and tells the events that it wrote, one line each: action,
// outcome, target's kind, status from and to, the kinds of records changed, what
// was sealed, what the personal part holds, and the details.
func (s *stage) recorded(call func() error) (lines []string, err error) {
	s.t.Helper()
	before := s.newest()
	err = call()
	page, failed := s.Events(s.t.Context(), s.Owner, agentkey.EventsInput{Limit: 500})
	noErr(s.t, failed)
	for _, e := range slices.Backward(page.Events) {
		if e.Seq > before {
			lines = append(lines, described(e))
		}
	}
	return lines, err
}

func described(e agentkey.LoggedEvent) string {
	parts := []string{string(e.Action), e.Actor.Kind, e.Target.Kind}
	if e.Outcome != "ok" {
		parts = append(parts, string(e.Outcome)+":"+e.Reason)
	}
	if e.From+e.To != "" {
		parts = append(parts, e.From+">"+e.To)
	}
	var changes []string
	for _, c := range e.Changes {
		change := c.Kind
		if c.Removed {
			change = "-" + change
		}
		changes = append(changes, change)
	}
	parts = append(parts, "["+strings.Join(changes, " ")+"]")
	for range e.Sealed {
		parts = append(parts, "sealed")
	}
	for name, value := range map[string]string{"+actor": e.Personal.ActorLabel, "+agent": e.Personal.AgentLabel, "+tool": e.Personal.ToolLabel, "+text": e.Personal.Text} {
		if value != "" {
			parts = append(parts, name)
		}
	}
	for name := range e.Personal.Extra {
		parts = append(parts, "+"+name)
	}
	for name := range e.Details {
		parts = append(parts, name+"=")
	}
	slices.Sort(parts[3:])
	return strings.Join(parts, " ")
}

// steps is a life of an organization: each call with exactly what it records.
var steps = []struct {
	name string
	call func(s *stage) error
	want []string
}{
	{
		"register", func(s *stage) error {
			return second(s.RegisterAgent(s.t.Context(), s.boss(), agentkey.RegisterAgentInput{Name: "more"}))
		},
		[]string{"agent.created human agent +actor +agent [agent key]"},
	},
	{
		"update agent", func(s *stage) error {
			return second(s.UpdateAgent(s.t.Context(), s.boss(), s.bot.ID, agentkey.UpdateAgentInput{}))
		},
		[]string{"agent.updated human agent +actor +agent [agent]"},
	},
	{
		"rotate with grace", func(s *stage) error {
			return second(s.RotateKey(s.t.Context(), s.boss(), s.bot.ID, agentkey.RotateKeyInput{Grace: time.Hour}))
		},
		[]string{"agent.key_rotated human agent +actor +agent [key key]"},
	},
	{
		"revoke key", func(s *stage) error { return s.RevokeKey(s.t.Context(), s.boss(), s.bot.ID, s.key) },
		[]string{"agent.key_revoked human key +actor +agent [key] active>revoked"},
	},
	{
		"revoke a revoked key", func(s *stage) error { return s.RevokeKey(s.t.Context(), s.boss(), s.bot.ID, s.key) },
		nil,
	},
	{
		"call by the revoked key", func(s *stage) error {
			return refusedWith(second(s.Vend(s.t.Context(), s.requester, s.tool.ID)), agentkey.ErrKeyRevoked)
		},
		[]string{"auth.rejected agent agent [] refused:key_revoked"},
	},
	{
		"call by a suspended agent", func(s *stage) error {
			return refusedWith(second(s.Profile(s.t.Context(), s.suspender)), agentkey.ErrSuspended)
		},
		[]string{"auth.rejected_suspended agent agent +actor [] refused:agent_suspended"},
	},
	{
		"vend", func(s *stage) error { return second(s.Vend(s.t.Context(), s.trusted(), s.tool.ID)) },
		[]string{"credential.vended agent tool +actor +agent +tool []"},
	},
	{
		"learn", func(s *stage) error { return s.learns("Send the key as a header.") },
		[]string{"tool_instruction_suggestion.created agent tool_instruction_suggestion +actor +agent +learned +text +tool >pending [tool_instruction_suggestion tool_instruction_supporter]"},
	},
	{
		"learn it again", func(s *stage) error { return s.learns("send the key, as a header") },
		[]string{"tool_instruction_suggestion.supported agent tool_instruction_suggestion +actor +agent +learned +text +tool [tool_instruction_suggestion tool_instruction_supporter] pending>pending"},
	},
	{
		"learn what is not approved", func(s *stage) error {
			return refusedWith(second(s.SuggestInstructions(s.t.Context(), s.trusted(), agentkey.SuggestInstructionsInput{Tool: s.pending.Tool, Learned: "anything", Why: "because"})), agentkey.ErrPending)
		},
		[]string{"tool_instruction_suggestion.refused agent agent +actor +agent +tool [] refused:pending"},
	},
	{
		"dismiss", func(s *stage) error {
			return second(s.DismissInstructionSuggestion(s.t.Context(), s.boss(), s.learned, "not true"))
		},
		[]string{"tool_instruction_suggestion.dismissed human tool_instruction_suggestion +actor +text [tool_instruction_suggestion] pending>dismissed"},
	},
	{
		"learn what was dismissed", func(s *stage) error {
			return refusedWith(s.learns("Pages end at 100 items"), agentkey.ErrInstructionsDismissed)
		},
		[]string{"tool_instruction_suggestion.refused agent tool_instruction_suggestion +actor +agent +tool [] refused:instructions_dismissed"},
	},
	{
		"accept", func(s *stage) error {
			text := "Send the key as a header."
			return s.updateTool(agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: s.latest()})
		},
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated= version_source=",
			"tool.instructions.version_created human tool_instruction_version +actor +tool [tool_instruction_version tool_guide] source=",
			"tool_instruction_suggestion.accepted human tool_instruction_suggestion +actor +tool [tool_instruction_suggestion] pending>accepted version="},
	},
	{
		"write the same again", func(s *stage) error {
			text := "  Send the key as a header. "
			return s.updateTool(agentkey.UpdateToolInput{Instructions: &text})
		},
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated="},
	},
	{
		"restore", func(s *stage) error { return s.updateTool(agentkey.UpdateToolInput{RestoreVersion: s.first()}) },
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated= version_source=",
			"tool.instructions.version_created human tool_instruction_version +actor +tool [tool_instruction_version tool_guide] source=",
			"tool.instructions.restored human tool_instruction_version +actor +tool [] restored_from="},
	},
	{
		"vend what is pending", func(s *stage) error {
			return refusedWith(second(s.Vend(s.t.Context(), s.trusted(), s.pending.Tool)), agentkey.ErrPending)
		},
		[]string{"credential.refused agent tool +actor +agent +tool [] refused:pending"},
	},
	{
		"vend an unknown tool", func(s *stage) error {
			return refusedWith(second(s.Vend(s.t.Context(), s.trusted(), "unknown")), agentkey.ErrNoTool)
		},
		[]string{"credential.refused agent agent +actor +agent [] refused:no_tool"},
	},
	{
		"request again", func(s *stage) error {
			return refusedWith(second(s.RequestAccess(s.t.Context(), s.trusted(), agentkey.RequestInput{Tool: s.tool.ID, Reason: "to test"})), agentkey.ErrAlreadyApproved)
		},
		[]string{"grant.request_refused agent agent +actor +agent +tool [] refused:already_approved"},
	},
	{
		"narrow", func(s *stage) error {
			return second(s.Narrow(s.t.Context(), s.boss(), s.granted.ID, agentkey.Terms{MaxVends: 1}))
		},
		[]string{"grant.narrowed human grant +actor +agent +tool [grant] approved>approved"},
	},
	{
		"narrow to the same", func(s *stage) error {
			return second(s.Narrow(s.t.Context(), s.boss(), s.granted.ID, agentkey.Terms{MaxVends: 1}))
		},
		nil,
	},
	{
		"last vend", func(s *stage) error { return second(s.Vend(s.t.Context(), s.trusted(), s.tool.ID)) },
		[]string{"credential.vended agent tool +actor +agent +tool [grant]",
			"grant.used_up system grant +agent +tool [] approved>used_up"},
	},
	{
		"deny", func(s *stage) error { return second(s.Deny(s.t.Context(), s.boss(), s.pending.ID, "why")) },
		[]string{"grant.denied human grant +actor +agent +text +tool [grant approval -access_request] pending>denied"},
	},
	{
		"request after a denial", func(s *stage) error {
			return second(s.RequestAccess(s.t.Context(), s.trusted(), agentkey.RequestInput{Tool: s.pending.Tool, Reason: "to test"}))
		},
		[]string{"grant.requested agent grant +actor +agent +text +tool [grant access_request] denied>pending"},
	},
	{
		"approve", func(s *stage) error {
			return second(s.Approve(s.t.Context(), s.boss(), s.pending.ID, agentkey.DecisionInput{}))
		},
		[]string{"grant.approved human grant +actor +agent +tool [grant approval -access_request] pending>approved"},
	},
	{
		"assign what is approved", func(s *stage) error {
			return second(s.Assign(s.t.Context(), s.boss(), agentkey.AssignInput{Agent: s.bot.ID, Tool: s.pending.Tool}))
		},
		nil,
	},
	{
		"revoke", func(s *stage) error { return second(s.Revoke(s.t.Context(), s.boss(), s.bot.ID, s.pending.Tool)) },
		[]string{"grant.revoked human grant +actor +agent +tool [grant] approved>revoked"},
	},
	{
		"revoke once more", func(s *stage) error { return second(s.Revoke(s.t.Context(), s.boss(), s.bot.ID, s.pending.Tool)) },
		[]string{"grant.revoked human grant +actor +agent +tool [grant] revoked>revoked"},
	},
	{
		"assign for an hour", func(s *stage) error {
			return second(s.Assign(s.t.Context(), s.boss(), agentkey.AssignInput{Agent: s.bot.ID, Tool: s.pending.Tool, DecisionInput: agentkey.DecisionInput{Duration: time.Hour}}))
		},
		[]string{"grant.assigned human grant +actor +agent +tool [grant approval] revoked>approved"},
	},
	{
		"sweep at its end", func(s *stage) error { return s.sweepAfter(time.Hour) },
		[]string{"grant.expired system grant +agent +tool [grant] approved>expired"},
	},
	{
		"request after its end", func(s *stage) error {
			return second(s.RequestAccess(s.t.Context(), s.trusted(), agentkey.RequestInput{Tool: s.pending.Tool, Reason: "to test"}))
		},
		[]string{"grant.requested agent grant +actor +agent +text +tool [grant access_request] expired>pending"},
	},
	{
		"assign what is pending", func(s *stage) error {
			return second(s.Assign(s.t.Context(), s.boss(), agentkey.AssignInput{Agent: s.bot.ID, Tool: s.pending.Tool}))
		},
		[]string{"grant.approved human grant +actor +agent +tool [grant approval -access_request] pending>approved"},
	},
	{
		"add a tool", func(s *stage) error { return s.addTool(agentkey.AddToolInput{Name: "more"}) },
		[]string{"tool.created human tool +actor +tool [tool tool_identity] mode=",
			"tool.instructions.version_created human tool_instruction_version +actor +tool [tool_instruction_version tool_guide] source="},
	},
	{
		"add a shared tool", func(s *stage) error {
			return s.addTool(agentkey.AddToolInput{Name: "more", Mode: "shared", Credential: agentkey.NewSecret([]byte("more_test_credential"))})
		},
		[]string{"tool.created human tool +actor +tool [tool tool_identity credential] mode= sealed",
			"tool.instructions.version_created human tool_instruction_version +actor +tool [tool_instruction_version tool_guide] source="},
	},
	{
		"update a tool", func(s *stage) error { return s.updateTool(agentkey.UpdateToolInput{}) },
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated="},
	},
	{
		"replace a credential", func(s *stage) error {
			return s.updateTool(agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("next_test_credential"))})
		},
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated=",
			"tool.credential_replaced human tool +actor +tool [-credential credential] sealed"},
	},
	{
		"end a credential", func(s *stage) error { return s.endCredential() },
		[]string{"tool.updated human tool +actor +tool [tool] mode= rotated=",
			"tool.updated human credential +actor +tool [credential]"},
	},
	{
		"sweep at the credential's end", func(s *stage) error { return s.sweepAfter(time.Hour) },
		[]string{"tool.credential_expired system credential +tool [credential] active>expired"},
	},
	{
		"remove a credential", func(s *stage) error { return second(s.RemoveCredential(s.t.Context(), s.boss(), s.tool.ID)) },
		[]string{"tool.credential_removed human tool +actor +tool [-credential]"},
	},
	{
		"suggest a tool", func(s *stage) error { return s.suggest("Sentry", "sentry.example.com") },
		[]string{"tool_suggestion.created agent tool_suggestion +actor +agent +text +tool +url >pending [tool_suggestion tool_supporter]"},
	},
	{
		"suggest it again", func(s *stage) error { return s.suggest("sentry!", "") },
		[]string{"tool_suggestion.supported agent tool_suggestion +actor +agent +submitted_name +text +tool +url [tool_suggestion tool_supporter] pending>pending"},
	},
	{
		"suggest what is there", func(s *stage) error {
			return refusedWith(s.suggest("LINEAR", ""), agentkey.ErrToolExists)
		},
		[]string{"tool_suggestion.redirected_to_existing_tool agent tool +actor +agent +tool [] refused:existing_tool"},
	},
	{
		"dismiss a suggestion", func(s *stage) error {
			return second(s.DismissToolSuggestion(s.t.Context(), s.boss(), s.suggestion.ID))
		},
		[]string{"tool_suggestion.dismissed human tool_suggestion +actor +tool +url [tool_suggestion] dismissed_until= pending>dismissed"},
	},
	{
		"suggest what was dismissed", func(s *stage) error {
			return refusedWith(s.suggest("Grafana", "https://www.grafana.example.com/login"), agentkey.ErrSuggestionDismissed)
		},
		[]string{"tool_suggestion.cooldown_rejected agent tool_suggestion +actor +agent [] refused:suggestion_dismissed retry_after="},
	},
	{
		"suggest it after the cooldown", func(s *stage) error {
			s.Clock.Advance(agentkey.SuggestionCooldown)
			return s.suggest("Grafana", "grafana.example.com")
		},
		[]string{"tool_suggestion.supported agent tool_suggestion +actor +agent +submitted_name +submitted_url +text +tool +url [tool_suggestion tool_supporter] dismissed>pending"},
	},
	{
		"add a tool that was suggested", func(s *stage) error {
			return s.addTool(agentkey.AddToolInput{Name: "Whatever", URL: "grafana.example.com"})
		},
		[]string{
			"tool.created human tool +actor +tool [tool tool_identity] mode=",
			"tool.instructions.version_created human tool_instruction_version +actor +tool [tool_instruction_version tool_guide] source=",
			"tool_suggestion.auto_resolved human tool_suggestion +actor +tool +url [tool_suggestion] pending>accepted resolution_source=",
			"grant.requested_from_suggestion human grant +actor +agent +text +tool >pending [grant access_request] suggestion=",
		},
	},
	{
		"rename a tool to what was suggested", func(s *stage) error {
			name, url := "Sentry", "sentry.example.com"
			return s.updateTool(agentkey.UpdateToolInput{Name: &name, URL: &url})
		},
		[]string{
			"tool.updated human tool +actor +tool [tool tool_identity] mode= rotated=",
			"tool_suggestion.auto_resolved human tool_suggestion +actor +tool +url [tool_suggestion] pending>accepted resolution_source=",
		},
	},
	{
		"lock", func(s *stage) error { return second(s.Lock(s.t.Context(), s.boss(), "why")) },
		[]string{"organization.locked human organization +actor +text [organization]"},
	},
	{
		"lock once more", func(s *stage) error { return second(s.Lock(s.t.Context(), s.boss(), "why")) },
		nil,
	},
	{
		"vend while locked", func(s *stage) error {
			return refusedWith(second(s.Vend(s.t.Context(), s.trusted(), s.pending.Tool)), agentkey.ErrOrganizationLocked)
		},
		[]string{"credential.refused agent tool +actor +agent +tool [] refused:organization_locked"},
	},
	{
		"unlock", func(s *stage) error { return second(s.Unlock(s.t.Context(), s.boss(), "")) },
		[]string{"organization.unlocked human organization +actor [organization]"},
	},
	{
		"dismiss the introduction", func(s *stage) error { return second(s.DismissOnboarding(s.t.Context(), s.boss())) },
		[]string{"organization.updated human organization +actor [organization_settings] onboarding="},
	},
	{
		"dismiss it once more", func(s *stage) error { return second(s.DismissOnboarding(s.t.Context(), s.boss())) },
		nil,
	},
	{
		"give Slack a webhook", func(s *stage) error { return s.setSlack(s.boss()) },
		[]string{"notification.settings.updated human organization_notification_settings +actor [notification_webhook] discord_configured= sealed slack_configured="},
	},
	{
		"give it another", func(s *stage) error { return s.setSlack(s.boss()) },
		[]string{"notification.settings.updated human organization_notification_settings +actor [-notification_webhook notification_webhook] discord_configured= sealed slack_configured="},
	},
	{
		"remove it", func(s *stage) error {
			return second(s.UpdateNotificationSettings(s.t.Context(), s.boss(), agentkey.UpdateNotificationSettingsInput{ClearSlack: true}))
		},
		[]string{"notification.settings.updated human organization_notification_settings +actor [-notification_webhook] discord_configured= slack_configured="},
	},
	{
		"remove it once more", func(s *stage) error {
			return second(s.UpdateNotificationSettings(s.t.Context(), s.boss(), agentkey.UpdateNotificationSettingsInput{ClearSlack: true}))
		},
		nil,
	},
	{
		"rename", func(s *stage) error { return second(s.UpdateOrganization(s.t.Context(), s.boss(), "renamed")) },
		[]string{"organization.updated human organization +actor [organization]"},
	},
	{
		"delete a tool", func(s *stage) error { return second(s.DeleteTool(s.t.Context(), s.boss(), s.pending.Tool)) },
		[]string{"grant.revoked human grant +actor +agent +tool [-grant -approval -approval -approval -approval] approved>revoked",
			"tool.deleted human tool +actor +tool [-credential -tool_identity -tool_guide tool_removal tool_removal -tool] approved= pending="},
	},
	{
		"sweep after it", func(s *stage) error { return s.Sweep(s.t.Context()) },
		[]string{"tool.instructions.removed system tool [-tool_instruction_version -tool_removal -tool_removal]"},
	},
	{
		"suspend", func(s *stage) error { return s.suspendWithGrant() },
		[]string{"grant.assigned human grant +actor +agent +tool [grant approval] used_up>approved",
			"agent.suspended human agent +actor +agent [agent] active>suspended",
			"grant.revoked human grant +actor +agent +tool [grant] approved>revoked",
			"grant.revoked human grant +actor +agent +tool [grant -access_request] pending>revoked"},
	},
	{
		"suspend once more", func(s *stage) error { return second(s.SuspendAgent(s.t.Context(), s.boss(), s.bot.ID)) },
		nil,
	},
	{
		"reactivate", func(s *stage) error { return second(s.ReactivateAgent(s.t.Context(), s.boss(), s.bot.ID)) },
		[]string{"agent.reactivated human agent +actor +agent [agent] suspended>active"},
	},
	{
		"add an administrator", func(s *stage) error {
			return second(s.AddAdministrator(s.t.Context(), s.boss(), agentkey.AddAdministratorInput{Label: "x", Role: agentkey.RoleAdmin}))
		},
		[]string{"administrator.created human administrator +actor +label >admin [administrator]"},
	},
	{
		"update an administrator", func(s *stage) error {
			return second(s.UpdateAdministrator(s.t.Context(), s.boss(), s.administrator.ID, agentkey.UpdateAdministratorInput{}))
		},
		[]string{"administrator.updated human administrator +actor +label [administrator] admin>admin"},
	},
	{
		"create a token", func(s *stage) error {
			return second(s.CreateToken(s.t.Context(), s.boss(), agentkey.CreateTokenInput{Administrator: s.administrator.ID}))
		},
		[]string{"token.created human token +actor [token] administrator="},
	},
	{
		"revoke a token", func(s *stage) error { return s.RevokeToken(s.t.Context(), s.boss(), s.administratorsToken) },
		[]string{"token.revoked human token +actor [token] administrator="},
	},
	{
		"revoke it once more", func(s *stage) error { return s.RevokeToken(s.t.Context(), s.boss(), s.administratorsToken) },
		nil,
	},
	{
		"remove an administrator", func(s *stage) error { return s.RemoveAdministrator(s.t.Context(), s.boss(), s.administrator.ID) },
		[]string{"administrator.removed human administrator +actor +label [administrator] admin>removed"},
	},
	{
		"record", func(s *stage) error { return s.record(agentkey.RecordInput{Text: "why"}) },
		[]string{"x.acme.tested human  +actor +text []"},
	},
	{
		"export", func(s *stage) error { return s.Export(s.t.Context(), s.boss(), io.Discard) },
		[]string{"audit.exported human log +actor []"},
	},
}

func (s *stage) learns(text string) error {
	return second(s.SuggestInstructions(s.t.Context(), s.trusted(), agentkey.SuggestInstructionsInput{Tool: s.tool.ID, Learned: text, Why: "It cost me a day."}))
}

// latest is the instruction suggestion that was made last.
func (s *stage) latest() string {
	s.t.Helper()
	page, err := s.InstructionSuggestions(s.t.Context(), s.boss(), agentkey.InstructionSuggestionsInput{Limit: 1})
	noErr(s.t, err)
	return page.Suggestions[0].ID
}

// first is the version that the tool was added with.
func (s *stage) first() string {
	s.t.Helper()
	page, err := s.InstructionVersions(s.t.Context(), s.boss(), agentkey.InstructionVersionsInput{Tool: s.tool.ID})
	noErr(s.t, err)
	return page.Versions[len(page.Versions)-1].ID
}

// Each operation records what the contract says, in that order, and no more.
func TestEventsOfOperations(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, step := range steps {
		got, err := s.recorded(func() error { return step.call(s) })
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", step.name, strings.Join(got, "\n     "), strings.Join(step.want, "\n     "))
		}
	}
	report, err := s.Reconcile(t.Context(), s.Owner)
	noErr(t, err)
	if !report.OK() {
		t.Errorf("reconcile: %+v", report.Findings)
	}
	verified, err := s.Verify(t.Context(), s.Owner)
	noErr(t, err)
	if !verified.OK() {
		t.Errorf("verify: %+v", verified.Findings)
	}
}
