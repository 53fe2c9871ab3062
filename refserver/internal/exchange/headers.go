package exchange

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/agentkey-dev/agentkey-go"
)

// policy is the Content-Security-Policy: an API shows nothing, and what ever
// shows comes from here.
const policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// requestHeader carries the ids of requests in both directions.
const requestHeader = "X-Request-Id"

// fixed are headers whose values never change, by their canonical names: shared by
// all responses, because nothing appends to a header that was set whole.
var (
	policyHeader     = []string{policy}
	nosniffHeader    = []string{"nosniff"}
	denyHeader       = []string{"DENY"}
	referrerHeader   = []string{"strict-origin-when-cross-origin"}
	transportHeader  = []string{"max-age=63072000; includeSubDomains"}
	permissionHeader = []string{"camera=(), microphone=(), geolocation=()"}
	noStoreHeader    = []string{"no-store"}
)

// setHeaders sets what stands on every response, whatever becomes of it.
func setHeaders(h http.Header, path, request string) {
	h["Content-Security-Policy"] = clip(policyHeader)
	h["X-Content-Type-Options"] = clip(nosniffHeader)
	h["X-Frame-Options"] = clip(denyHeader)
	h["Referrer-Policy"] = clip(referrerHeader)
	h["Strict-Transport-Security"] = clip(transportHeader)
	h["Permissions-Policy"] = clip(permissionHeader)
	h[requestHeader] = []string{request}
	if path == "/api" || strings.HasPrefix(path, "/api/") {
		h["Cache-Control"] = clip(noStoreHeader)
	}
}

// clip is a list that whoever appends to it copies.
func clip(list []string) []string { return list[:len(list):len(list)] }

// requestContext makes what is recorded of r.
func requestContext(r *http.Request, trusted []netip.Prefix) agentkey.RequestContext {
	return agentkey.RequestContext{
		Request:       uuid.Must(uuid.NewV7()).String(),
		ClientRequest: clientRequest(r.Header.Get(requestHeader)),
		Trace:         trace(r.Header.Get("Traceparent")),
		Address:       ClientAddress(r, trusted),
		UserAgent:     printable(r.UserAgent()),
	}
}

// clientRequest accepts a client's own id: up to 64 of A-Z a-z 0-9 . _ -
func clientRequest(id string) string {
	if len(id) > 64 || strings.IndexFunc(id, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-')
	}) >= 0 {
		return ""
	}
	return id
}

// trace takes the trace id of a W3C traceparent, version 00.
func trace(parent string) string {
	if len(parent) != 55 || parent[:3] != "00-" || parent[35] != '-' || parent[52] != '-' {
		return ""
	}
	id := parent[3:35]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// maxUserAgent is how much of a user agent is recorded, in bytes.
const maxUserAgent = 512

// printable makes text of what a client calls itself.
func printable(s string) string {
	if len(s) > maxUserAgent {
		s = s[:maxUserAgent]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// ClientAddress is who sent r: the peer of the connection, unless that is a
// trusted proxy; then the rightmost address of X-Forwarded-For that is not
// trusted. What stands left of it anybody could have written. It is the zero
// Addr when the peer has none.
func ClientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer := Peer(r)
	if !Trusted(peer, trusted) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		a := parseAddress(strings.TrimSpace(hop))
		if !a.IsValid() {
			return peer // the last that is known for certain
		}
		if peer = a; !Trusted(a, trusted) {
			break
		}
	}
	return peer
}

// Peer is the other end of the connection.
func Peer(r *http.Request) netip.Addr { return parseAddress(r.RemoteAddr) }

// Trusted reports whether a lies in one of the ranges.
func Trusted(a netip.Addr, ranges []netip.Prefix) bool {
	return a.IsValid() && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseAddress reads an address with or without a port.
func parseAddress(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// ForeignOrigin reports whether a browser says that another site than this host
// sent the request.
func (x *Exchange) ForeignOrigin() bool {
	for _, origin := range x.Request.Header.Values("Origin") {
		_, host, found := strings.Cut(origin, "://")
		if origin != "" && (!found || !strings.EqualFold(host, x.Request.Host)) {
			return true
		}
	}
	return false
}
