package refserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// TestRenewedCertificate: a certificate whose files are renewed is used without a
// restart. Files that don't fit each other, or are gone, leave the one before in
// use, and that is said once.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	cert, key, before := certificate(t)
	f := servertest.New(t, servertest.Options{Config: refserver.Config{Listen: "127.0.0.1:0", TLSCert: cert, TLSKey: key}})
	url, stop := run(t, f.Server)
	accepted := func(pool *x509.CertPool) bool {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport}).Get(url + "/livez")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil
	}
	is.True(accepted(before))

	newCert, newKey, after := certificate(t)
	is.NoErr(os.Rename(newCert, cert)) // so far one of the two
	is.True(accepted(before))
	is.True(accepted(before))
	is.NoErr(os.Rename(newKey, key))
	is.True(accepted(after))
	is.True(!accepted(before))
	is.NoErr(os.WriteFile(cert, []byte("no certificate"), 0o600))
	is.True(accepted(after))
	is.NoErr(os.Remove(key))
	is.True(accepted(after))
	is.NoErr(stop())
	is.Equal(strings.Count(f.Log.String(), "TLS certificate renewed"), 1)
	is.Equal(strings.Count(f.Log.String(), "TLS certificate not renewed"), 2) // once each
}
