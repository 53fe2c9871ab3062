package agentkey

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// identity is what tools and suggestions are told apart by: the words of the name
// and the domain of the URL, either of which may be empty.
type identity struct{ name, domain string }

func identityOf(name, url string) identity {
	return identity{name: normalWords(name), domain: domainOf(url)}
}

// domainOf is the host of a URL that normalURL made, without a leading "www.".
func domainOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), "www.")
}

// maxIdentity is the longest identity that is indexed as it is, in bytes.
const maxIdentity = 256

// indexValue is an identity as the value of an index entry. No identity holds a '#'.
func indexValue(s string) string {
	if len(s) <= maxIdentity {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "#" + hex.EncodeToString(sum[:])
}

// asciiHost gives the form of a host name that stands in the DNS, as net/http
// dials it (UTS 46, IDNA 2008): so a host is the same however it was written.
func asciiHost(host string) (string, error) {
	if !strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.ToLower(host), nil
	}
	return idna.Lookup.ToASCII(host)
}
