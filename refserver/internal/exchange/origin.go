package exchange

import (
	"net/http"
	"slices"
	"strings"
)

// What a web page of an allowed origin may send and read.
const (
	pageSends = "Authorization, Content-Type"
	pageReads = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-RateLimit-Policy, " +
		"RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, Link"
	pageKeeps = "600" // seconds for which a browser keeps the answer to OPTIONS
)

// CrossOrigin lets web pages of these origins, compared exactly, read what the
// routes answer that are added from now on. Those routes answer OPTIONS, also
// when there are no origins: without a limit and without authentication.
func (rt *Router) CrossOrigin(origins []string) {
	rt.crossOrigin, rt.origins = true, slices.Clone(origins)
}

// origin is the Origin of the request; found reports whether it has one. Several
// are no origin that could be allowed.
func (x *Exchange) origin() (origin string, found bool) {
	sent := slices.DeleteFunc(slices.Clone(x.Request.Header.Values("Origin")), func(o string) bool { return o == "" })
	switch len(sent) {
	case 0:
		return "", false
	case 1:
		return sent[0], true
	}
	return "null", true
}

// FromForeignPage reports whether a web page sent the request whose origin is not
// allowed.
func (x *Exchange) FromForeignPage() bool {
	origin, found := x.origin()
	return found && !slices.Contains(x.origins, origin)
}

// admitOrigin sets the headers by which a page of an allowed origin may read the
// response, whatever becomes of it.
func (x *Exchange) admitOrigin(methods map[string]Handler) {
	if len(x.origins) == 0 {
		return
	}
	h := x.w.Header()
	h.Add("Vary", "Origin")
	origin, found := x.origin()
	if !found || x.FromForeignPage() {
		return
	}
	listed := slices.DeleteFunc(names(methods), func(m string) bool { return m == http.MethodHead || m == http.MethodOptions })
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Headers", pageSends)
	h.Set("Access-Control-Allow-Methods", strings.Join(append(listed, http.MethodOptions), ", "))
	h.Set("Access-Control-Expose-Headers", pageReads)
	h.Set("Access-Control-Max-Age", pageKeeps)
}

// preflight is OPTIONS.
func preflight(x *Exchange) error {
	if x.FromForeignPage() {
		return x.Empty(http.StatusForbidden)
	}
	return x.Empty(http.StatusNoContent)
}
