//go:build unix

package main

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// Where the runtime allows nothing but what FIPS 140-3 does, the program speaks TLS
// with Postgres, and only with the one whose certificate it was told to trust.
func TestPostgresOverTLS(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := installedPostgres(t)
	dir := c.ownDir(t)
	cert, key, access := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "hba.conf")
	issue(t, cert, key)
	// Over the network nobody gets in without TLS.
	is.NoErr(os.WriteFile(access, []byte("local all all trust\nhostssl all all 127.0.0.1/32 trust\n"), 0o600))
	if c.account != nil {
		for _, path := range []string{cert, key, access} {
			is.NoErr(os.Chown(path, int(c.account.Uid), int(c.account.Gid)))
		}
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	is.NoErr(err)
	c.port = port
	c.settings = []string{
		"listen_addresses=" + host, "port=" + port, "hba_file=" + access, "ssl=on", "ssl_cert_file=" + cert, "ssl_key_file=" + key,
	}
	c.begin(t, dir)

	database := func(mode, root string) string {
		u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort(host, port), Path: "/postgres"}
		u.RawQuery = url.Values{"sslmode": {mode}, "sslrootcert": {root}}.Encode()
		return u.String()
	}
	in := newInstallation(t, database("verify-full", cert))
	in.environment = append(in.environment, "GODEBUG=fips140=only")
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 2, p.url())
	stop := l.run(t)
	l.advance(t, 20)
	stop()
	l.check(t)

	other := filepath.Join(t.TempDir(), "other.pem")
	issue(t, other, filepath.Join(t.TempDir(), "key.pem"))
	for name, wrong := range map[string]string{"another authority": database("verify-full", other), "without TLS": database("disable", cert)} {
		doctor := exec.Command(program(t), "doctor", "--database", wrong)
		doctor.Env = in.environment
		out, err := doctor.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "database  failed") {
			t.Errorf("%s: it was taken: %s", name, out)
		}
		t.Logf("%s: %s", name, out)
	}
}
