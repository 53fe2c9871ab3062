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

	// Origins are those whose web pages may call the API, compared exactly, such
	// as https://app.example.com. None: pages can't read what is answered, and
	// are refused credentials.
	Origins []string
}

type api struct{ manager *agentkey.Manager }

// New returns the handler of the agents' API. It serves the paths under /api/
// and starts nothing. It is safe for concurrent use, and the Manager is its
// caller's to close.
func New(m *agentkey.Manager, o Options) http.Handler { return router(m, o) }

// Routes are the routes that New serves: by path, the methods, sorted. A part of
// a path in braces stands for any segment.
func Routes() map[string][]string { return router(nil, Options{}).Routes() }

func router(m *agentkey.Manager, o Options) *exchange.Router {
	rt := exchange.NewRouter(exchange.Config{Logger: o.Logger, Clock: o.Clock, TrustedProxies: o.TrustedProxies})
	rt.CrossOrigin(o.Origins)
	for _, r := range (&api{m}).routes() {
		if r.alone {
			rt.HandleAlone(r.method, r.path, r.serve)
		} else {
			rt.Handle(r.method, r.path, r.serve)
		}
	}
	return rt
}

type route struct {
	method, path string
	serve        exchange.Handler
	alone        bool // a GET that HEAD must not stand for
}

// routes is the whole API.
func (a *api) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{method: get, path: "/api/tools", serve: a.tools},
		{method: get, path: "/api/me", serve: a.me},
		// A HEAD would be a vend that nobody sees.
		{method: get, path: "/api/tools/{tool_id}/credentials", serve: a.credentials, alone: true},
		{method: get, path: "/api/tools/suggest", serve: describe(suggestSchema)},
		{method: post, path: "/api/tools/suggest", serve: a.suggest},
		{method: get, path: "/api/tools/{tool_id}/request", serve: describe(requestSchema)},
		{method: post, path: "/api/tools/{tool_id}/request", serve: a.request},
		{method: get, path: "/api/tools/{tool_id}/instructions/suggest", serve: describe(instructionsSchema)},
		{method: post, path: "/api/tools/{tool_id}/instructions/suggest", serve: a.suggestInstructions},
	}
}

// admit does what comes before everything else, in this order: the limit of the
// client's address, the key, the agent's status, and the tier's limit.
func (a *api) admit(x *exchange.Exchange, tier ratelimit.Tier) (agentkey.Caller, ratelimit.Decision, error) {
	if _, err := a.manager.AdmitAddress(x.Brief(), x.Context.Address); err != nil {
		return agentkey.Caller{}, ratelimit.Decision{}, err
	}
	return a.manager.Admit(x.Brief(), agentkey.Key(x.Bearer()).With(x.Context), tier)
}
