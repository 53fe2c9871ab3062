package outgoing_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
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
