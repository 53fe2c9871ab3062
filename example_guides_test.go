package agentkey_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go"
)

// openLearned is a scene in which the agent has access to Linear, and has proposed
// what it learned there.
func openLearned() (s exampleScene, suggestion string) {
	s = openExample()
	ctx := context.Background()
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: s.bot.ID, Tool: s.linear.ID}))
	return s, must(s.SuggestInstructions(ctx, s.agent, agentkey.SuggestInstructionsInput{
		Tool: s.linear.ID, Learned: "Pages end at 100 items.", Why: "I missed the rest of a list.",
	})).ID
}

// An agent says what it learned, for those who use the tool next. The same from
// another agent is one more voice for the same suggestion.
func ExampleManager_SuggestInstructions() {
	s, first := openLearned()
	ctx := context.Background()
	other := must(s.RegisterAgent(ctx, s.admin, agentkey.RegisterAgentInput{Name: "other"}))
	must(s.Assign(ctx, s.approver, agentkey.AssignInput{Agent: other.Agent.ID, Tool: s.linear.ID}))
	again := must(s.SuggestInstructions(ctx, agentkey.Key(string(other.Secret.Bytes())), agentkey.SuggestInstructionsInput{
		Tool: s.linear.ID, Learned: "pages end at 100 items", Why: "So did I.",
	}))
	fmt.Println(again.ID == first, again.Existing)
	for _, x := range must(s.InstructionSuggestions(ctx, s.approver, agentkey.InstructionSuggestionsInput{Tool: s.linear.ID})).Suggestions {
		fmt.Println(x.Learned, x.SupporterCount)
	}
	for _, x := range must(s.InstructionSupporters(ctx, s.approver, agentkey.InstructionSupportersInput{Suggestion: first})).Supporters {
		fmt.Println("-", x.AgentName+":", x.Reason)
	}
	// Output:
	// true true
	// Pages end at 100 items. 2
	// - other: So did I.
	// - bot: I missed the rest of a list.
}

// Nothing is merged by itself: whoever accepts a suggestion writes the new text.
func ExampleManager_UpdateTool_acceptSuggestion() {
	s, suggestion := openLearned()
	ctx := context.Background()
	text := "Send the key as a header.\n\nPages end at 100 items."
	must(s.UpdateTool(ctx, s.admin, s.linear.ID, agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: suggestion}))
	accepted := must(s.InstructionSuggestion(ctx, s.admin, suggestion))
	version := must(s.InstructionVersion(ctx, s.admin, s.linear.ID, accepted.AcceptedVersion))
	fmt.Println(accepted.Status, version.Number, version.Source)
	vended := must(s.Vend(ctx, s.agent, s.linear.ID))
	defer vended.Credential.Destroy()
	fmt.Println(vended.Tool.Instructions)
	// Output:
	// accepted 2 suggestion_accept
	// Send the key as a header.
	//
	// Pages end at 100 items.
}

// Why a suggestion was dismissed is told to every agent that proposes the same, as
// long as the instructions are those that it was for.
func ExampleManager_DismissInstructionSuggestion() {
	s, suggestion := openLearned()
	ctx := context.Background()
	must(s.DismissInstructionSuggestion(ctx, s.approver, suggestion, "They end at 250 now."))
	_, err := s.SuggestInstructions(ctx, s.agent, agentkey.SuggestInstructionsInput{
		Tool: s.linear.ID, Learned: "Pages end at 100 items.", Why: "I missed the rest of a list.",
	})
	var settled *agentkey.SettledInstructionsError
	fmt.Println(errors.As(err, &settled), settled.Reason)
	// Output: true They end at 250 now.
}

// Every text that a tool's instructions had is kept, and can be gone back to.
func ExampleManager_InstructionVersions() {
	s, ctx := openExample(), context.Background()
	for _, text := range []string{"Ask for pages.", "Ask for everything at once."} {
		must(s.UpdateTool(ctx, s.admin, s.linear.ID, agentkey.UpdateToolInput{Instructions: &text}))
	}
	page := must(s.InstructionVersions(ctx, s.admin, agentkey.InstructionVersionsInput{Tool: s.linear.ID}))
	must(s.UpdateTool(ctx, s.admin, s.linear.ID, agentkey.UpdateToolInput{RestoreVersion: page.Versions[1].ID}))
	page = must(s.InstructionVersions(ctx, s.admin, agentkey.InstructionVersionsInput{Tool: s.linear.ID}))
	for _, v := range page.Versions {
		fmt.Printf("%d %s %q\n", v.Number, v.Source, v.Instructions)
	}
	// Output:
	// 4 restore "Ask for pages."
	// 3 manual "Ask for everything at once."
	// 2 manual "Ask for pages."
	// 1 tool_create ""
}

// Without ids it shows the last change.
func ExampleManager_DiffInstructions() {
	s, ctx := openExample(), context.Background()
	for _, text := range []string{"Ask for pages.\nSend the key as a header.", "Ask for small pages.\nSend the key as a header."} {
		must(s.UpdateTool(ctx, s.admin, s.linear.ID, agentkey.UpdateToolInput{Instructions: &text}))
	}
	d := must(s.DiffInstructions(ctx, s.admin, s.linear.ID, "", ""))
	fmt.Println(d.From.Number, d.To.Number)
	for _, l := range d.Lines {
		fmt.Println(l.Op, l.Text)
	}
	// Output:
	// 2 3
	// removed Ask for pages.
	// added Ask for small pages.
	// equal Send the key as a header.
}
