package agentapi

import (
	"errors"
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

const (
	learnedFirst = "Your suggestion was recorded and waits for a person. Thank you."
	learnedAgain = "Others have suggested the same, or you have: your voice was added to it."
)

// suggestInstructions is POST /api/tools/{tool_id}/instructions/suggest: what the
// agent learned about the tool.
func (a *api) suggestInstructions(x *exchange.Exchange) error {
	caller, decision, err := a.admit(x, ratelimit.TierRequest)
	if err != nil {
		return err
	}
	tool, ok := x.PathID("tool_id")
	if !ok {
		return agentkey.ErrNoTool
	}
	in := agentkey.SuggestInstructionsInput{Tool: tool}
	return a.take(x, caller, decision, proposal{
		advice: "Shorten what you learned and why.", first: learnedFirst, again: learnedAgain, conflict: settledInstructions,
		read: func(f *exchange.Fields) {
			f.Text("learned", &in.Learned)
			f.Text("why", &in.Why)
			f.Check(a.manager.CheckInput, &in)
		},
		propose: func(c agentkey.Caller) (proposed, error) {
			s, err := a.manager.SuggestInstructions(x.Ctx(), c, in)
			return proposed{ID: s.ID, Status: s.Status, Existing: s.Existing}, err
		},
	})
}

// settledInstructions is the decision that stands, with the reason of a
// dismissal.
func settledInstructions(err error) map[string]any {
	var settled *agentkey.SettledInstructionsError
	if !errors.As(err, &settled) {
		return nil
	}
	message := "The instructions that come with the credential hold this already."
	if errors.Is(err, agentkey.ErrInstructionsDismissed) {
		message = "An administrator decided against this for the instructions as they are."
	}
	return map[string]any{
		"suggestion_id": settled.Suggestion, "dismissal_reason": exchange.Optional(settled.Reason), "message": message,
	}
}

func instructionsSchema() schema {
	const id = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"
	return schema{
		Method: http.MethodPost, Path: "/api/tools/{tool_id}/instructions/suggest",
		Description: "Say what you learned about a tool that you have access to, for the instructions that come with its credential. A person decides.",
		Body: map[string]field{
			"learned": {"string", true, 5, 2000, "What the next agent should know, in words that stand alone. No secrets.", "Lists end at 100 items; ask for the next page with the cursor."},
			"why":     {"string", true, 5, 2000, "How you came to know it, for the person who decides.", "The first answer lacked half of the issues."},
		},
		Responses: common(map[string]response{
			"201": {"The suggestion is recorded; existing says whether it was there already and you support it now.",
				example{"suggestion_id": id, "status": "pending", "existing": false, "message": learnedFirst}},
			"400": {"The body breaks a rule; details lists every field.", example{"error": "learned must have at least 5 characters", "details": []example{{"field": "learned", "message": "must have at least 5 characters"}}}},
			"403": {"You have no access to the tool now.", example{"error": "pending", "hint": "Wait for the decision on your request."}},
			"404": {"There is no such tool.", example{"error": "no such tool", "hint": "List the tools with GET /api/tools."}},
			"409": {"The same was decided on for the instructions as they are.",
				example{"error": "the suggestion was dismissed", "suggestion_id": id, "dismissal_reason": "The limit is 250 since May.", "message": "An administrator decided against this."}},
		}),
	}
}
