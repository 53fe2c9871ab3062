package agentapi

import (
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// Options hold what is optional. The zero value is good.
type Options struct {
	// Logger takes failed authentication and internal errors; at debug level a
	// line for each request. It never gets a body, a header or a key. Nil:
	// nothing is logged.
	Logger *slog.Logger

	// Clock tells the time from which the rate limit headers count; give it the
	// Manager's. Nil: time.Now.
	Clock func() time.Time

	// TrustedProxies are the peers whose X-Forwarded-For is believed. None: the
	// client is whoever opened the connection.
	TrustedProxies []netip.Prefix
}

type api struct{ manager *agentkey.Manager }

// New returns the handler of the agents' API. It serves the paths under /api/
// and starts nothing. It is safe for concurrent use, and the Manager is its
// caller's to close.
func New(m *agentkey.Manager, o Options) http.Handler {
	a := &api{m}
	rt := exchange.NewRouter(exchange.Config(o))
	rt.Handle(http.MethodGet, "/api/tools", a.tools)
	rt.Handle(http.MethodGet, "/api/me", a.me)
	// A HEAD would be a vend that nobody sees.
	rt.HandleAlone(http.MethodGet, "/api/tools/{tool}/credentials", a.credentials)
	rt.Handle(http.MethodGet, "/api/tools/{tool}/request", a.requestSchema)
	rt.Handle(http.MethodPost, "/api/tools/{tool}/request", a.request)
	return rt
}

// admit does what comes before everything else, in this order: the limit of the
// client's address, the key, the agent's status, and the tier's limit.
func (a *api) admit(x *exchange.Exchange, tier ratelimit.Tier) (agentkey.Caller, ratelimit.Decision, error) {
	if _, err := a.manager.AdmitAddress(x.Ctx(), x.Context.Address); err != nil {
		return agentkey.Caller{}, ratelimit.Decision{}, err
	}
	return a.manager.Admit(x.Ctx(), agentkey.Key(x.Bearer()).With(x.Context), tier)
}
