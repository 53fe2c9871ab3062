package agentapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// schema tells an agent what a POST takes and what it may answer. It is the
// answer to a GET of the same path.
type schema struct {
	Method      string              `json:"method"`
	Path        string              `json:"path"`
	Description string              `json:"description"`
	Body        map[string]field    `json:"body"`
	Responses   map[string]response `json:"responses"` // by status, with what tells two of one status apart
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

// describe answers with a schema. It needs no key, is not limited, and looks up
// no tool.
func describe(s func() schema) exchange.Handler {
	return func(x *exchange.Exchange) error {
		return x.JSON(http.StatusOK, map[string]schema{"schema": s()})
	}
}

// common are the answers that every POST of the API may give, and those of its
// own.
func common(own map[string]response) map[string]response {
	for status, r := range map[string]response{
		"413": {"The body is longer than 8192 bytes.", example{"error": "the body is too large", "hint": "Send at most 8192 bytes."}},
		"415": {"The body is not JSON.", example{"error": "the body must be JSON", "hint": "Send the body with `Content-Type: application/json`."}},
		"429": {"You have asked too often.", example{"error": "rate limit exceeded", "hint": "Wait as long as Retry-After says."}},
	} {
		own[status] = r
	}
	return own
}

func requestSchema() schema {
	return schema{
		Method: http.MethodPost, Path: "/api/tools/{tool_id}/request",
		Description: "Ask for access to a tool. A person decides. A new request after a denial, a revocation or an end keeps its request_id.",
		Body: map[string]field{
			"reason":    {"string", true, 5, 500, "What you need the tool for, for the person who decides.", "File the bugs that the nightly run finds."},
			"duration":  {"integer", false, 0, 0, "For how many seconds from approval you need it; left out: no end.", 28800},
			"max_vends": {"integer", false, 0, 0, "How often you will fetch the credential at most; left out: no limit.", 20},
			"scopes":    {"array", false, 1, 64, "What you need of the tool, in its own terms. They tell the approver; the credential is the same.", []string{"issues:write"}},
			"ticket":    {"string", false, 0, 200, "A reference into another system.", "OPS-1234"},
		},
		Responses: common(map[string]response{
			"201": {"The request is recorded and pending.", example{"request_id": "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10", "status": "pending", "message": "Your request was recorded."}},
			"400": {"The body breaks a rule; details lists every field.", example{"error": "reason must have at least 5 characters", "details": []example{{"field": "reason", "message": "must have at least 5 characters"}}}},
			"404": {"There is no such tool.", example{"error": "no such tool", "hint": "List the tools with GET /api/tools."}},
			"409": {"A request is pending already, or access is approved.", example{"error": "a request is already pending", "hint": "Try again later; don't ask twice."}},
		}),
	}
}
