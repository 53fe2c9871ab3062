package agentapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// maxBody is the longest body that an agent may send, in bytes.
const maxBody = 8192

type requested struct {
	ID      string        `json:"request_id"`
	Status  grants.Status `json:"status"`
	Message string        `json:"message"`
}

// request is POST /api/tools/{tool}/request.
func (a *api) request(x *exchange.Exchange) error {
	caller, decision, err := a.admit(x, ratelimit.TierRequest)
	if err != nil {
		return err
	}
	tool, ok := x.PathID("tool")
	if !ok {
		return agentkey.ErrNoTool
	}
	in := agentkey.RequestInput{Tool: tool}
	err = x.Read(exchange.Body{Limit: maxBody, Advice: "Shorten the reason."}, func(f *exchange.Fields) {
		f.Text("reason", &in.Reason)
		f.Seconds("duration", &in.Duration)
		f.Int("max_vends", &in.MaxVends)
		f.Texts("scopes", &in.Scopes)
		f.Text("ticket", &in.Ticket)
	})
	if err != nil {
		return err
	}
	g, err := a.manager.RequestAccess(x.Ctx(), caller, in)
	if err != nil {
		return err
	}
	x.LimitHeaders(ratelimit.TierRequest, decision)
	return x.JSON(http.StatusCreated, requested{g.ID, g.Status,
		"Your request was recorded and waits for a person's decision. Look at your_access in GET /api/tools from time to time."})
}

type schema struct {
	Method      string              `json:"method"`
	Path        string              `json:"path"`
	Description string              `json:"description"`
	Body        map[string]field    `json:"body"`
	Responses   map[string]response `json:"responses"`
}

type field struct {
	Type        string `json:"type"`
	Required    bool   `json:"required"`
	MinLength   int    `json:"min_length,omitempty"`
	MaxLength   int    `json:"max_length,omitempty"`
	Description string `json:"description"`
	Example     any    `json:"example"`
}

type response struct {
	Description string `json:"description"`
	Example     any    `json:"example"`
}

type example map[string]any

// requestSchema is GET /api/tools/{tool}/request: what a request looks like. It
// needs no key, is not limited, and knows no tool.
func (a *api) requestSchema(x *exchange.Exchange) error {
	return x.JSON(http.StatusOK, map[string]schema{"schema": {
		Method: http.MethodPost, Path: "/api/tools/{tool_id}/request",
		Description: "Ask for access to a tool. A person decides. A new request after a denial, a revocation or an end keeps its request_id.",
		Body: map[string]field{
			"reason":    {"string", true, 5, 500, "What you need the tool for, for the person who decides.", "File the bugs that the nightly run finds."},
			"duration":  {"integer", false, 0, 0, "For how many seconds from approval you need it; left out: no end.", 28800},
			"max_vends": {"integer", false, 0, 0, "How often you will fetch the credential at most; left out: no limit.", 20},
			"scopes":    {"array", false, 1, 64, "What you need of the tool, in its own terms. They tell the approver; the credential is the same.", []string{"issues:write"}},
			"ticket":    {"string", false, 0, 200, "A reference into another system.", "OPS-1234"},
		},
		Responses: map[string]response{
			"201": {"The request is recorded and pending.", example{"request_id": "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10", "status": "pending", "message": "Your request was recorded."}},
			"400": {"The body breaks a rule; details lists every field.", example{"error": "reason must have at least 5 characters", "details": []example{{"field": "reason", "message": "must have at least 5 characters"}}}},
			"404": {"There is no such tool.", example{"error": "no such tool", "hint": "List the tools with GET /api/tools."}},
			"409": {"A request is pending already, or access is approved.", example{"error": "a request is already pending", "hint": "Try again later; don't ask twice."}},
			"413": {"The body is longer than 8192 bytes.", example{"error": "the body is too large", "hint": "Shorten the reason."}},
			"415": {"The body is not JSON.", example{"error": "the body must be JSON"}},
			"429": {"You have asked too often.", example{"error": "rate limit exceeded", "hint": "Wait as long as Retry-After says."}},
		},
	}})
}
