package outgoing_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{
		"https://example.com/hook_test": true, " https://example.com\n": true, "http://127.0.0.1:8/x": true, "http://[::1]/x": true, "http://localhost/x": true,
		"": false, "hook_test": false, "http://example.com/hook_test": false, "https://u:hook_test@example.com/": false, "ftp://127.0.0.1/hook_test": false,
		"https:///hook_test": false, "https://example.com/#hook_test": false, "http://10.0.0.1/hook_test": false, "://hook_test": false,
	} {
		is := is.New(t)
		_, err := outgoing.ParseURL("sink", text)
		is.Equal(err == nil, good)
		if err != nil {
			is.True(!strings.Contains(err.Error(), "hook_test"))
		}
	}
}

// Nothing is sent to where a name leads that must not be reached, and reaching
// sends no request at all.
func TestReach(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	requests := 0
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ })
	plain, encrypted := httptest.NewServer(count), httptest.NewTLSServer(count)
	roots := x509.NewCertPool()
	roots.AddCert(encrypted.Certificate())
	reach := func(address string, roots *x509.CertPool) error {
		u, err := outgoing.ParseURL("sink", address)
		is.NoErr(err)
		return outgoing.Reach(t.Context(), u, roots)
	}
	is.NoErr(reach(plain.URL, nil))
	is.NoErr(reach(encrypted.URL, roots))
	is.Equal(reach(encrypted.URL, x509.NewCertPool()).Error(), "the certificate is not trusted")
	for _, address := range []string{"https://169.254.169.254/", "https://[fe80::1]/", "https://224.0.0.1/", "https://0.0.0.0/", "https://[::ffff:169.254.169.254]/"} {
		is.True(errors.Is(reach(address, nil), outgoing.ErrAddress))
	}
	u, err := url.Parse("http://192.0.2.1/") // as a name that leads there would
	is.NoErr(err)
	is.True(errors.Is(outgoing.Reach(t.Context(), u, nil), outgoing.ErrAddress))
	plain.Close()
	encrypted.Close()
	is.True(reach(plain.URL, nil) != nil)
	is.Equal(requests, 0)
	is.True(errors.Is(outgoing.Plain(&url.Error{Op: "Get", URL: "https://hook_test", Err: context.Canceled}), context.Canceled))
}

// A host that leads to one address which is not public is not public.
func TestPublic(t *testing.T) {
	t.Parallel()
	for addresses, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800::1": true, "93.184.216.34 2606:2800::1": true, "::ffff:93.184.216.34": true,
		"": false, "93.184.216.34 10.0.0.1": false, "127.0.0.1": false, "::1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "fe80::1": false, "fd00::1": false, "100.64.0.1": false,
		"192.0.0.1": false, "192.0.2.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false,
		"240.0.0.1": false, "255.255.255.255": false, "ff02::1": false, "2001:db8::1": false, "2001::1": false, "2002:7f00:1::": false,
		"64:ff9b::7f00:1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "100::1": false,
	} {
		r := outgoing.Resolver(func(context.Context, string) (found []netip.Addr, err error) {
			for text := range strings.FieldsSeq(addresses) {
				found = append(found, netip.MustParseAddr(text))
			}
			return found, nil
		})
		if got := r.Public(t.Context(), "name.example"); got != want {
			t.Errorf("%q: %t", addresses, got)
		}
	}
	failing := outgoing.Resolver(func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, errors.New("no such host")
	})
	is.New(t).True(!failing.Public(t.Context(), "name.example"))
}
