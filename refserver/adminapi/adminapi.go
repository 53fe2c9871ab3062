package adminapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
)

// Options hold what is optional. The zero value is good.
type Options struct {
	// Logger takes failed authentication and internal errors; at debug level a
	// line for each request. It never gets a body, a header or a token. Nil:
	// nothing is logged.
	Logger *slog.Logger

	// Clock tells the time from which the rate limit headers count; give it the
	// Manager's. Nil: time.Now.
	Clock func() time.Time

	// TrustedProxies are the peers whose X-Forwarded-For is believed. None: the
	// client is whoever opened the connection.
	TrustedProxies []netip.Prefix

	// AnchorRevocations is how long what takes access away waits until the Manager's
	// anchors have it. The header AgentKey-Anchored of the answer then says yes or no.
	// Zero: it does not wait.
	AnchorRevocations time.Duration

	// Resolve gives the addresses of the host of a notifications' webhook. It is given
	// 5 seconds. Nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

type api struct {
	manager *agentkey.Manager
	wait    time.Duration // for anchors
	resolve outgoing.Resolver
}

// New returns the handler of the administrators' API. It serves the paths under
// /api/admin/ and starts nothing. It is safe for concurrent use, and the Manager
// is its caller's to close.
func New(m *agentkey.Manager, o Options) http.Handler { return router(m, o) }

// Routes are the routes that New serves: by path, the methods, sorted. A part of
// a path in braces stands for any segment.
func Routes() map[string][]string { return router(nil, Options{}).Routes() }

func router(m *agentkey.Manager, o Options) *exchange.Router {
	a := &api{m, o.AnchorRevocations, outgoing.System}
	if o.Resolve != nil {
		a.resolve = o.Resolve
	}
	rt := exchange.NewRouter(exchange.Config{Logger: o.Logger, Clock: o.Clock, TrustedProxies: o.TrustedProxies})
	for _, r := range a.routes() {
		h := a.limited(r.serve)
		if r.free {
			h = a.unlimited(a.anchored(r.serve))
		}
		if r.alone {
			rt.HandleAlone(r.method, prefix+r.path, h)
		} else {
			rt.Handle(r.method, prefix+r.path, h)
		}
	}
	return rt
}

const prefix = "/api/admin"

type handler func(x *exchange.Exchange, actor agentkey.Actor) error

type route struct {
	method, path string
	serve        handler
	free         bool // takes access away: no limit may stand in its way
	alone        bool // a GET that HEAD must not stand for: it is recorded
}

// routes is the whole API.
func (a *api) routes() []route {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		{method: get, path: "/agents", serve: a.listAgents},
		{method: post, path: "/agents", serve: a.createAgent},
		{method: get, path: "/agents/{id}", serve: a.getAgent},
		{method: put, path: "/agents/{id}", serve: a.updateAgent},
		{method: del, path: "/agents/{id}", serve: a.suspendAgent, free: true},
		{method: post, path: "/agents/{id}/reactivate", serve: a.reactivateAgent},
		{method: post, path: "/agents/{id}/rotate-key", serve: a.rotateKey},
		{method: get, path: "/agents/{id}/keys", serve: a.listKeys},
		{method: del, path: "/agents/{id}/keys/{keyId}", serve: a.revokeKey, free: true},
		{method: get, path: "/agents/{id}/activity", serve: a.agentActivity},
		{method: post, path: "/agents/{id}/tools", serve: a.assign},
		{method: del, path: "/agents/{id}/tools/{toolId}", serve: a.revoke, free: true},

		{method: get, path: "/tools", serve: a.listTools},
		{method: post, path: "/tools", serve: a.createTool},
		{method: get, path: "/tools/{id}", serve: a.getTool},
		{method: put, path: "/tools/{id}", serve: a.updateTool},
		{method: del, path: "/tools/{id}", serve: a.deleteTool},
		{method: del, path: "/tools/{id}/credential", serve: a.removeCredential, free: true},
		{method: get, path: "/tools/{id}/activity", serve: a.toolActivity},
		{method: get, path: "/tools/{id}/instructions/history", serve: a.listVersions},
		{method: get, path: "/tools/{id}/instructions/history/{versionId}", serve: a.getVersion},
		{method: get, path: "/tools/{id}/instructions/diff", serve: a.diffVersions},
		{method: get, path: "/instruction-suggestions", serve: a.listInstructionSuggestions},
		{method: get, path: "/instruction-suggestions/{id}", serve: a.getInstructionSuggestion},
		{method: get, path: "/instruction-suggestions/{id}/supporters", serve: a.listInstructionSupporters},
		{method: post, path: "/instruction-suggestions/{id}/dismiss", serve: a.dismissInstructionSuggestion},

		{method: get, path: "/suggestions", serve: a.listSuggestions},
		{method: get, path: "/suggestions/{id}", serve: a.getSuggestion},
		{method: get, path: "/suggestions/{id}/supporters", serve: a.listSupporters},
		{method: post, path: "/suggestions/{id}/dismiss", serve: a.dismissSuggestion},

		{method: get, path: "/requests", serve: a.listInbox},
		{method: post, path: "/requests/{id}/approve", serve: a.approve},
		{method: post, path: "/requests/{id}/deny", serve: a.deny, free: true},
		{method: get, path: "/grants", serve: a.listGrants},
		{method: post, path: "/grants/{id}/narrow", serve: a.narrow, free: true},

		{method: get, path: "/config/export", serve: a.exportCatalog, alone: true},
		{method: put, path: "/config/import", serve: a.importCatalog},

		{method: get, path: "/organization", serve: a.getOrganization},
		{method: put, path: "/organization", serve: a.updateOrganization},
		{method: post, path: "/organization/lock", serve: a.lock, free: true},
		{method: post, path: "/organization/unlock", serve: a.unlock},
		{method: get, path: "/organization/destruction", serve: a.planDestruction},
		{method: post, path: "/organization/destroy", serve: a.destroyOrganization, free: true},
		{method: get, path: "/keys", serve: a.getKeys},
		{method: post, path: "/keys/rotate", serve: a.rotateKeys},
		{method: post, path: "/keys/reseal", serve: a.resealKeys},
		{method: get, path: "/incident", serve: a.incident, alone: true},
		{method: post, path: "/incident/leaked-key", serve: a.leakedKey, free: true},
		{method: get, path: "/onboarding", serve: a.getOnboarding},
		{method: post, path: "/onboarding/dismiss", serve: a.dismissOnboarding},
		{method: get, path: "/notifications", serve: a.getNotifications},
		{method: post, path: "/notifications", serve: a.updateNotifications},
		{method: get, path: "/administrators", serve: a.listAdministrators},
		{method: post, path: "/administrators", serve: a.createAdministrator},
		{method: put, path: "/administrators/{id}", serve: a.updateAdministrator},
		{method: del, path: "/administrators/{id}", serve: a.removeAdministrator, free: true},
		{method: get, path: "/tokens", serve: a.listTokens},
		{method: post, path: "/tokens", serve: a.createToken},
		{method: del, path: "/tokens/{id}", serve: a.revokeToken, free: true},

		{method: get, path: "/audit-log", serve: a.listEvents},
		{method: get, path: "/audit/verify", serve: a.verify},
		{method: get, path: "/audit/reconcile", serve: a.reconcile},
		{method: get, path: "/audit/export", serve: a.export, alone: true},
		{method: get, path: "/audit/public-key", serve: a.publicKey},
		{method: get, path: "/audit/keys", serve: a.publicKeys},
		{method: get, path: "/audit/checkpoint", serve: a.checkpoint},
		{method: get, path: "/audit/proof/inclusion", serve: a.inclusion},
		{method: get, path: "/audit/proof/consistency", serve: a.consistency},

		{method: get, path: "/audit/retention", serve: a.getRetention},
		{method: put, path: "/audit/retention", serve: a.setRetention},
		{method: get, path: "/audit/retention/plan", serve: a.planRetention},
		{method: post, path: "/audit/erasure/plan", serve: a.planErasure},
		{method: post, path: "/audit/erasure", serve: a.erasePerson},
		{method: get, path: "/audit/tail", serve: a.tail},
		{method: get, path: "/audit/shipping", serve: a.shipping},
		{method: get, path: "/holds", serve: a.listHolds},
		{method: post, path: "/holds", serve: a.placeHold},
		{method: post, path: "/holds/{id}/lift", serve: a.liftHold},
	}
}

// errNoToken replaces the Manager's answer when no token came at all.
var errNoToken = &agentkey.Error{
	Code: "missing_token", Family: agentkey.ErrUnauthenticated, Text: "no token",
	Hint: "Send an administrator's token as `Authorization: Bearer sk_admin_…`.",
}

// limited counts the request against the client's address before it is
// authenticated.
func (a *api) limited(h handler) exchange.Handler {
	return func(x *exchange.Exchange) error {
		if _, err := a.manager.AdmitAddress(x.Ctx(), x.Context.Address); err != nil {
			return err
		}
		actor, err := a.authenticate(x)
		if err != nil {
			return err
		}
		return h(x, actor)
	}
}

// anchoredHeader says of a change that waited for the anchors whether all of them
// have it.
const anchoredHeader = "AgentKey-Anchored"

// anchored lets a change wait for the anchors, and says whether they have it.
func (a *api) anchored(h handler) handler {
	if a.wait <= 0 {
		return h
	}
	return func(x *exchange.Exchange, actor agentkey.Actor) error {
		x.With(func(ctx context.Context) context.Context {
			return agentkey.AwaitAnchors(ctx, a.wait, func(anchored bool) {
				said := "no"
				if anchored {
					said = "yes"
				}
				x.Header().Set(anchoredHeader, said)
			})
		})
		err := h(x, actor)
		if err != nil {
			x.Header().Del(anchoredHeader)
		}
		return err
	}
}

// unlimited counts only what fails to authenticate, so that nobody who shares an
// administrator's address can keep them from taking access away.
func (a *api) unlimited(h handler) exchange.Handler {
	return func(x *exchange.Exchange) error {
		actor, err := a.authenticate(x)
		if errors.Is(err, agentkey.ErrUnauthenticated) {
			if _, limited := a.manager.AdmitAddress(x.Ctx(), x.Context.Address); limited != nil {
				return limited
			}
		}
		if err != nil {
			return err
		}
		return h(x, actor)
	}
}

func (a *api) authenticate(x *exchange.Exchange) (agentkey.Actor, error) {
	presented := x.Bearer()
	token := agentkey.NewSecret([]byte(presented))
	defer token.Destroy()
	actor, err := a.manager.Authenticate(x.Ctx(), token, x.Context)
	if presented == "" && errors.Is(err, agentkey.ErrUnauthenticated) {
		err = errNoToken
	}
	return actor, err
}

// maxBody is the longest body that an administrator may send, in bytes.
const maxBody = 32768

var (
	needed   = exchange.Body{Limit: maxBody, Strict: true}
	optional = exchange.Body{Limit: maxBody, Strict: true, Optional: true}
)

// data answers in the envelope.
func data(x *exchange.Exchange, status int, v any) error {
	return x.JSON(status, struct {
		Data any `json:"data"`
	}{v})
}

// ok is the answer to what has nothing else to say.
type ok struct {
	OK bool `json:"ok"`
}

func done(x *exchange.Exchange) error { return data(x, http.StatusOK, ok{true}) }

// page reads what every list takes. The cursor is the id of the last item of the
// page before.
func page(q *exchange.Query) agentkey.ListInput {
	return agentkey.ListInput{Name: q.Text("name"), After: q.ID("cursor"), Limit: q.Limit()}
}

// defaultPage is the length of a page when none is asked for; the Manager's.
const defaultPage = 100

// linkNext links to the next page after a full one, whose last item is last.
func linkNext[T any](x *exchange.Exchange, items []T, limit int, id func(T) string) {
	if limit == 0 {
		limit = defaultPage
	}
	if len(items) >= limit {
		x.NextPage(id(items[len(items)-1]))
	}
}

// each makes the items of an answer; never nil, which would be null.
func each[T, U any](in []T, item func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = item(v)
	}
	return out
}
