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
	tool, ok := x.PathID("tool_id")
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
		f.Check(a.manager.CheckInput, &in)
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
