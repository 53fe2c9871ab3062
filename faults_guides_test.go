package agentkey_test

import (
	"context"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

// learn lets bot propose something for the instructions of linear.
func (s *scene) learn(text string) string {
	s.t.Helper()
	out, err := s.SuggestInstructions(s.t.Context(), s.botKey, agentkey.SuggestInstructionsInput{Tool: s.linear.ID, Learned: text, Why: "It cost me a day."})
	s.noErr(err)
	return out.ID
}

// guide writes the next version of linear's instructions.
func (s *scene) guide(text string) {
	s.t.Helper()
	_, err := s.UpdateTool(s.t.Context(), s.Owner, s.linear.ID, agentkey.UpdateToolInput{Instructions: &text})
	s.noErr(err)
}

func guideFaults() []faultOperation {
	const fact = "Pages end at 100 items."
	learn := func(variant string, refused bool, before func(s *scene)) faultOperation {
		return faultOperation{method: "SuggestInstructions", variant: variant, refused: refused, prepare: func(s *scene) call {
			before(s)
			return func(ctx context.Context) (any, error) {
				return answer(s.SuggestInstructions(ctx, s.botKey, agentkey.SuggestInstructionsInput{Tool: s.linear.ID, Learned: fact, Why: "It cost me a day."}))
			}
		}}
	}
	change := func(variant string, in func(s *scene) agentkey.UpdateToolInput) faultOperation {
		return faultOperation{method: "UpdateTool", variant: variant, prepare: func(s *scene) call {
			change := in(s)
			return func(ctx context.Context) (any, error) { return answer(s.UpdateTool(ctx, s.Owner, s.linear.ID, change)) }
		}}
	}
	text := fact
	return []faultOperation{
		learn("", false, func(*scene) {}),
		learn("again", false, func(s *scene) { s.learn(fact) }),
		learn("dismissed", true, func(s *scene) {
			_, err := s.DismissInstructionSuggestion(s.t.Context(), s.Owner, s.learn(fact), "not true")
			s.noErr(err)
		}),
		learn("after the end", true, func(s *scene) {
			_, err := s.Narrow(s.t.Context(), s.Owner, s.grant.ID, agentkey.Terms{Duration: time.Minute.Microseconds()})
			s.noErr(err)
		}),
		change("with instructions", func(*scene) agentkey.UpdateToolInput { return agentkey.UpdateToolInput{Instructions: &text} }),
		change("with a suggestion", func(s *scene) agentkey.UpdateToolInput {
			return agentkey.UpdateToolInput{Instructions: &text, AcceptSuggestion: s.learn(fact)}
		}),
		change("with an old version", func(s *scene) agentkey.UpdateToolInput {
			s.guide("Ask for pages.")
			v, err := s.Manager.InstructionVersion(s.t.Context(), s.Owner, s.linear.ID, "")
			s.noErr(err)
			s.guide(fact)
			return agentkey.UpdateToolInput{RestoreVersion: v.ID}
		}),
		{method: "DismissInstructionSuggestion", prepare: func(s *scene) call {
			id := s.learn(fact)
			return func(ctx context.Context) (any, error) {
				return answer(s.DismissInstructionSuggestion(ctx, s.Owner, id, "not true"))
			}
		}},
		{method: "Sweep", variant: "after a tool was deleted", parts: true, loose: true, prepare: func(s *scene) call {
			s.learn(fact)
			_, err := s.DeleteTool(s.t.Context(), s.Owner, s.linear.ID)
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return onlyError(s.Sweep(ctx)) }
		}},
	}
}
