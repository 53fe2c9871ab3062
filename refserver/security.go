package refserver

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// contactTime is for how long security.txt says that it holds: less than a year,
// as RFC 9116 advises.
const contactTime = 180 * 24 * time.Hour

var errNoContact = &exchange.Error{
	Status: http.StatusNotFound, Code: "no_security_contact", Text: "no contact is named here",
	Hint: "Ask whoever runs this server.",
}

// securityText is GET /.well-known/security.txt (RFC 9116). Its end is counted
// from now, by the day, so that it never runs out while the server is run.
func (s *Server) securityText(x *exchange.Exchange) error {
	if s.settings.SecurityContact == "" {
		return errNoContact
	}
	expires := x.Now().Add(contactTime).UTC().Truncate(24 * time.Hour)
	x.Header().Set("Cache-Control", "public, max-age=86400")
	return x.Bytes(http.StatusOK, "text/plain; charset=utf-8",
		[]byte("Contact: "+s.settings.SecurityContact+"\nExpires: "+expires.Format(time.RFC3339)+"\n"))
}

// checkContact takes what RFC 9116 takes: a URI, on the web with https only.
func checkContact(contact string) error {
	if contact == "" {
		return nil
	}
	u, err := url.Parse(contact)
	known := err == nil && (u.Scheme == "https" && u.Host != "" || (u.Scheme == "mailto" || u.Scheme == "tel") && u.Opaque != "")
	if !known || strings.IndexFunc(contact, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return errors.New("refserver: Config.SecurityContact must be a URI such as mailto:security@example.com or https://example.com/security")
	}
	return nil
}

// checkOrigins takes origins as browsers send them; they are compared exactly.
func checkOrigins(origins []string) error {
	for _, origin := range origins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || origin != u.Scheme+"://"+u.Host ||
			origin != strings.ToLower(origin) || strings.Contains(origin, "*") {
			return errors.New("refserver: Config.Origins: an origin is a scheme and a host in lower case, such as https://app.example.com, without a path")
		}
	}
	return nil
}
