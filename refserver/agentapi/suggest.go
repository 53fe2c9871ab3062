package agentapi

import (
	"errors"
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// proposal is what an agent proposes, of either kind.
type proposal struct {
	advice       string // for who sends too much
	read         func(f *exchange.Fields)
	propose      func(c agentkey.Caller) (proposed, error)
	first, again string                         // the message to the first who proposes it, and to others
	conflict     func(err error) map[string]any // what a conflict says besides; nil: nothing
}

type proposed struct {
	ID       string                    `json:"suggestion_id"`
	Status   agentkey.SuggestionStatus `json:"status"`
	Existing bool                      `json:"existing"`
	Message  string                    `json:"message"`
}

// take reads a proposal of an agent that was admitted, and answers it.
func (a *api) take(x *exchange.Exchange, c agentkey.Caller, d ratelimit.Decision, p proposal) error {
	if err := x.Read(exchange.Body{Limit: maxBody, Advice: p.advice}, p.read); err != nil {
		return err
	}
	out, err := p.propose(c)
	more := p.conflict(err)
	if err != nil && more == nil {
		return err
	}
	x.LimitHeaders(ratelimit.TierRequest, d)
	if err != nil {
		return &exchange.Extended{Err: err, Fields: more}
	}
	if out.Message = p.first; out.Existing {
		out.Message = p.again
	}
	return x.JSON(http.StatusCreated, out)
}

const (
	suggestedFirst = "Your suggestion was recorded and waits for a person. When the tool is added, your request for it is opened by itself."
	suggestedAgain = "Others have suggested this tool, or you have: your voice was added. When it is added, your request for it is opened by itself."
	askForIt       = "This tool is in the catalog already: ask for access to it with POST /api/tools/{tool_id}/request."
)

// suggest is POST /api/tools/suggest: a tool that the catalog lacks.
func (a *api) suggest(x *exchange.Exchange) error {
	caller, decision, err := a.admit(x, ratelimit.TierRequest)
	if err != nil {
		return err
	}
	var in agentkey.SuggestToolInput
	return a.take(x, caller, decision, proposal{
		advice: "Shorten the reason.", first: suggestedFirst, again: suggestedAgain, conflict: turnedAway,
		read: func(f *exchange.Fields) {
			f.Text("name", &in.Name)
			f.Text("url", &in.URL)
			f.Text("reason", &in.Reason)
			f.Check(a.manager.CheckInput, &in)
		},
		propose: func(c agentkey.Caller) (proposed, error) {
			s, err := a.manager.SuggestTool(x.Ctx(), c, in)
			return proposed{ID: s.ID, Status: s.Status, Existing: s.Existing}, err
		},
	})
}

// turnedAway is what the two conflicts of a suggestion say besides.
func turnedAway(err error) map[string]any {
	var known *agentkey.ExistingToolError
	if errors.As(err, &known) {
		return map[string]any{"tool_id": known.Tool, "tool_name": known.Name, "message": askForIt}
	}
	var cooling *agentkey.CooldownError
	if errors.As(err, &cooling) {
		return map[string]any{"suggestion_id": cooling.Suggestion, "retry_after": exchange.Time(cooling.RetryAfter.UnixMicro())}
	}
	return nil
}

func suggestSchema() schema {
	const id = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"
	return schema{
		Method: http.MethodPost, Path: "/api/tools/suggest",
		Description: "Suggest a tool that the catalog lacks. The same suggestion of several agents is one, with each of them behind it. When a person adds the tool, everybody behind it has a pending request.",
		Body: map[string]field{
			"name":   {"string", true, 2, 120, "What the tool is called; with a letter or a digit.", "Linear"},
			"url":    {"string", false, 0, 500, "Its address: an http or https URL or a host name; left out or empty when you don't know it.", "https://linear.app"},
			"reason": {"string", true, 5, 500, "What you need it for, for the person who decides.", "File the bugs that the nightly run finds."},
		},
		Responses: common(map[string]response{
			"201": {"The suggestion is pending; existing says whether it was before.", example{"suggestion_id": id, "status": "pending", "existing": false, "message": "Your suggestion was recorded."}},
			"400": {"The body breaks a rule; details lists every field.", example{"error": "name must hold a letter or a digit", "details": []example{{"field": "name", "message": "must hold a letter or a digit"}}}},
			"409 (existing tool)": {"The tool is in the catalog: ask for access to it.", example{
				"error": "the tool is in the catalog already", "tool_id": id, "tool_name": "Linear", "message": askForIt, "hint": "Ask for access to it with POST /api/tools/{tool_id}/request.",
			}},
			"409 (cooldown)": {"A person decided against it less than a day ago.", example{
				"error": "the suggestion was dismissed", "suggestion_id": id, "retry_after": "2026-11-24T06:40:14.128Z", "hint": "Suggest it again after retry_after at the earliest.",
			}},
		}),
	}
}
