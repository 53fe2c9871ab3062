package agentkey

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
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

var errHost = errors.New("not a host name")

// asciiHost gives the form of a host name that stands in the DNS: each label
// mapped to lower case and NFKC and, unless it is ASCII then, in Punycode. So a
// host is the same however it was written.
func asciiHost(host string) (string, error) {
	if !strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		return strings.ToLower(host), nil
	}
	host = norm.NFKC.String(strings.ToLower(norm.NFKC.String(strings.Map(visible, host))))
	host = strings.ReplaceAll(host, "\u3002", ".") // the ideographic full stop, which NFKC leaves
	labels := strings.Split(host, ".")
	for i, label := range labels {
		if !strings.ContainsFunc(label, func(r rune) bool { return r >= 0x80 }) {
			continue
		}
		if !hasWords(label) {
			return "", errHost
		}
		labels[i] = "xn--" + punycode([]rune(label))
		if len(labels[i]) > 63 {
			return "", errHost
		}
	}
	return strings.Join(labels, "."), nil
}

// hasWords refuses in a label what names no host: spaces, controls, what is
// not assigned, and a mark that stands on nothing.
func hasWords(label string) bool {
	for i, r := range label {
		if !unicode.In(r, unicode.L, unicode.N, unicode.M, unicode.S) && r != '-' && r != '_' && r != '\u00b7' && r != '\u30fb' {
			return false
		}
		if i == 0 && unicode.Is(unicode.M, r) {
			return false
		}
	}
	return true
}

// Parameters of Punycode, RFC 3492 section 5.
const (
	punyBase, punyMin, punyMax = 36, 1, 26
	punySkew, punyDamp         = 38, 700
	punyBias, punyFirst        = 72, 0x80
)

// punycode encodes a label as RFC 3492 section 6.3 says. A label comes from a
// URL of at most 500 characters, so that nothing overflows.
func punycode(label []rune) string {
	var out []byte
	for _, r := range label {
		if r < punyFirst {
			out = append(out, byte(r))
		}
	}
	basic := len(out)
	if basic > 0 {
		out = append(out, '-')
	}
	n, delta, bias := rune(punyFirst), 0, punyBias
	for handled := basic; handled < len(label); {
		next := rune(unicode.MaxRune)
		for _, r := range label {
			if r >= n {
				next = min(next, r)
			}
		}
		delta += int(next-n) * (handled + 1)
		n = next
		for _, r := range label {
			if r < n {
				delta++
			}
			if r != n {
				continue
			}
			out = appendPuny(out, delta, bias)
			bias = punyAdapt(delta, handled+1, handled == basic)
			delta = 0
			handled++
		}
		delta++
		n++
	}
	return string(out)
}

// appendPuny appends a number of variable length.
func appendPuny(out []byte, q, bias int) []byte {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	for k := punyBase; ; k += punyBase {
		t := min(max(k-bias, punyMin), punyMax)
		if q < t {
			return append(out, digits[q])
		}
		out = append(out, digits[t+(q-t)%(punyBase-t)])
		q = (q - t) / (punyBase - t)
	}
}

func punyAdapt(delta, points int, first bool) int {
	if first {
		delta /= punyDamp
	} else {
		delta /= 2
	}
	delta += delta / points
	k := 0
	for ; delta > (punyBase-punyMin)*punyMax/2; k += punyBase {
		delta /= punyBase - punyMin
	}
	return k + (punyBase-punyMin+1)*delta/(delta+punySkew)
}
