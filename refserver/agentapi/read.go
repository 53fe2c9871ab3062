package agentapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type toolItem struct {
	ID           string        `json:"id"`
	Name         string        `json:"name"`
	Description  string        `json:"description"`
	Access       grants.Status `json:"your_access"`
	DenialReason string        `json:"denial_reason,omitempty"`
	ExpiresAt    *string       `json:"expires_at,omitempty"`
	VendsLeft    *int64        `json:"vends_left,omitempty"`
}

// tools is GET /api/tools: the catalog, whole unless limit or cursor is sent.
func (a *api) tools(x *exchange.Exchange) error {
	caller, decision, err := a.admit(x, ratelimit.TierRead)
	if err != nil {
		return err
	}
	q := x.Query()
	in := agentkey.CatalogInput{After: q.ID("cursor"), Limit: q.Limit()}
	if q.Has("cursor") && in.Limit == 0 {
		in.Limit = defaultPage
	}
	if err := q.Err(); err != nil {
		return err
	}
	catalog, err := a.manager.Catalog(x.Ctx(), caller, in)
	if err != nil {
		return err
	}
	items := make([]toolItem, len(catalog.Items))
	for i, t := range catalog.Items {
		items[i] = toolItem{ID: t.ID, Name: t.Name, Description: t.Description, Access: t.Access, DenialReason: t.DenialReason}
		if t.Access == grants.StatusApproved {
			items[i].ExpiresAt, items[i].VendsLeft = exchange.OptionalTime(t.ExpiresAt), vendsLeft(t.VendsLeft)
		}
	}
	if catalog.Next != "" {
		x.NextPage(catalog.Next)
	}
	x.LimitHeaders(ratelimit.TierRead, decision)
	return x.JSON(http.StatusOK, struct {
		Tools []toolItem `json:"tools"`
	}{items})
}

// defaultPage is the length of a page of which only the cursor is given.
const defaultPage = 100

// vendsLeft is nil for a grant without a limit, which never shows one.
func vendsLeft(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

type denial struct {
	Name   string  `json:"name"`
	Reason *string `json:"reason"`
}

type profile struct {
	ID          string   `json:"agent_id"`
	Name        string   `json:"agent_name"`
	Description string   `json:"description"`
	CreatedAt   string   `json:"created_at"`
	Approved    []string `json:"tools_approved"`
	Pending     []string `json:"tools_pending"`
	Denied      []denial `json:"tools_denied"`
	Available   int64    `json:"tools_available"`
	Hint        string   `json:"hint,omitempty"`
}

const nothingYet = "You have no tools yet. List them with GET /api/tools and ask for one with POST /api/tools/{tool_id}/request."

// me is GET /api/me.
func (a *api) me(x *exchange.Exchange) error {
	caller, decision, err := a.admit(x, ratelimit.TierRead)
	if err != nil {
		return err
	}
	p, err := a.manager.Profile(x.Ctx(), caller)
	if err != nil {
		return err
	}
	out := profile{
		ID: p.Agent.ID, Name: p.Agent.Name, Description: p.Agent.Description, CreatedAt: exchange.Time(p.Agent.CreatedAt),
		Approved: append([]string{}, p.Approved...), Pending: append([]string{}, p.Pending...),
		Denied: make([]denial, len(p.Denied)), Available: p.Available,
	}
	for i, d := range p.Denied {
		out.Denied[i] = denial{d.Tool, exchange.Optional(d.Reason)}
	}
	if len(out.Approved) == 0 && len(out.Pending) == 0 {
		out.Hint = nothingYet
	}
	x.LimitHeaders(ratelimit.TierRead, decision)
	return x.JSON(http.StatusOK, out)
}
