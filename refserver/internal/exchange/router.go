package exchange

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go"
)

// Timeout bounds what a handler does for one request: before the server's write
// timeout ends the connection without a word, the client is told 503.
const Timeout = 25 * time.Second

// answerTime is how soon a request is answered once it is there whole, whatever
// the database does. See [agentkey.AnswerBy] for what may take longer.
const answerTime = 2800 * time.Millisecond

// Config is what a Router needs to know. The zero value is good.
type Config struct {
	// Logger takes failed authentication, internal errors and, at debug level,
	// one line for each request. It never gets a body, a header's value, a path
	// or a key. Nil: nothing is logged.
	Logger *slog.Logger

	// Clock tells the time from which the rate limit headers count. Nil: time.Now.
	Clock func() time.Time

	// TrustedProxies are the peers whose X-Forwarded-For is believed. None: the
	// client is who opened the connection.
	TrustedProxies []netip.Prefix
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	c.TrustedProxies = slices.Clone(c.TrustedProxies)
	return c
}

// Handler answers one request. An error that it returns is answered by the
// Router, unless the response has begun: then the connection is cut, so that
// half an answer is never taken for a whole one.
type Handler func(x *Exchange) error

// Router is an http.Handler that routes by path and method. Its routes are
// added before it serves; from then on it is safe for concurrent use.
type Router struct {
	config    Config
	mux       *http.ServeMux
	routes    map[string]map[string]Handler // by pattern and method
	otherwise *Error                        // the answer to what has no route

	crossOrigin bool     // routes answer OPTIONS
	origins     []string // whose web pages may read the answers
}

// NewRouter returns a Router without routes.
func NewRouter(c Config) *Router {
	rt := &Router{
		config: c.withDefaults(), mux: http.NewServeMux(), routes: make(map[string]map[string]Handler), otherwise: errNoRoute,
	}
	rt.mux.HandleFunc(everything, func(w http.ResponseWriter, _ *http.Request) { w.(*response).x.fail(rt.otherwise) })
	return rt
}

// Refusing returns a handler that answers everything with e.
func Refusing(c Config, e *Error) http.Handler {
	rt := NewRouter(c)
	rt.otherwise = e
	return rt
}

// everything is the pattern of paths that have no route.
const everything = "/"

// Handle adds a route. The pattern is a path as http.ServeMux has it. A GET
// answers HEAD as well; for one whose effect must not go unseen there is
// [Router.HandleAlone].
func (rt *Router) Handle(method, pattern string, h Handler) {
	rt.HandleAlone(method, pattern, h)
	if method == http.MethodGet {
		rt.routes[pattern][http.MethodHead] = h
	}
}

// HandleAlone adds a route for this method only.
func (rt *Router) HandleAlone(method, pattern string, h Handler) {
	if rt.routes[pattern] == nil {
		methods := make(map[string]Handler)
		rt.routes[pattern] = methods
		rt.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { w.(*response).x.dispatch(pattern, methods) })
		if rt.crossOrigin {
			methods[http.MethodOptions] = preflight
		}
	}
	rt.routes[pattern][method] = h
}

// Routes returns the methods of every pattern, in a fresh map.
func (rt *Router) Routes() map[string][]string {
	all := make(map[string][]string, len(rt.routes))
	for pattern, methods := range rt.routes {
		all[pattern] = names(methods)
	}
	return all
}

func names(methods map[string]Handler) []string {
	list := make([]string, 0, len(methods))
	for name := range methods {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// ServeHTTP answers r.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	x := &Exchange{
		Request:  r,
		Context:  requestContext(r, rt.config.TrustedProxies),
		config:   rt.config,
		origins:  rt.origins,
		answerBy: began.Add(answerTime),
		endsBy:   began.Add(Timeout),
	}
	x.w = &response{ResponseWriter: w, x: x}
	x.brief = agentkey.AnswerBy(r.Context(), x.answerBy)
	defer x.release()
	setHeaders(w.Header(), r.URL.Path, x.Context.Request)
	defer x.recover()
	switch p := r.URL.Path; {
	case rt.slashed(r):
		x.redirect(strings.TrimSuffix(r.URL.EscapedPath(), "/"))
	case !strings.HasPrefix(p, "/") || path.Clean(p) != p:
		x.fail(rt.otherwise) // before ServeMux answers with a redirect of its own
	default:
		rt.mux.ServeHTTP(x.w, r)
	}
	if rt.config.Logger.Enabled(x.brief, slog.LevelDebug) {
		rt.config.Logger.DebugContext(x.brief, "request",
			"method", knownMethod(r.Method), "route", x.pattern, "status", x.w.status, "request", x.Context.Request)
	}
}

// slashed reports whether the path is that of a route but for one slash at its
// end. Only such a path is redirected, so that no other text of a client ever
// becomes a Location.
func (rt *Router) slashed(r *http.Request) bool {
	trimmed, found := strings.CutSuffix(r.URL.Path, "/")
	if !found || !strings.HasPrefix(trimmed, "/") || path.Clean(trimmed) != trimmed {
		return false
	}
	_, pattern := rt.mux.Handler(&http.Request{Method: r.Method, URL: &url.URL{Path: trimmed, RawPath: strings.TrimSuffix(r.URL.RawPath, "/")}})
	return pattern != everything
}

// dispatch calls the handler of the request's method.
func (x *Exchange) dispatch(pattern string, methods map[string]Handler) {
	x.pattern = pattern
	x.admitOrigin(methods)
	h := methods[x.Request.Method]
	if h == nil {
		x.w.Header().Set("Allow", strings.Join(names(methods), ", "))
		x.fail(errMethod)
		return
	}
	if err := h(x); err != nil {
		x.fail(err)
	}
}

// recover answers a panic. Its value may hold anything and is not logged; the
// stack holds no values.
func (x *Exchange) recover() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.config.Logger.ErrorContext(x.brief, "panic",
		"route", x.pattern, "request", x.Context.Request, "stack", string(debug.Stack()))
	x.fail(errPanic)
}

// knownMethod keeps what a client may call a method out of the log.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return m
	}
	return "other"
}
