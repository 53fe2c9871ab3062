package cli_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/transittest"
	"github.com/agentkey-dev/agentkey-go/refserver/cli"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const (
	transitToken = "hvs.test.token-of-the-server"
	bootstrap    = "bootstrap-token-for-tests-0123456789"
)

// keyService is a key service with the key agentkey, behind a certificate that the
// file ca is for, and the settings of a server that uses it.
func keyService(t *testing.T) (s *transittest.Server, env []string) {
	t.Helper()
	dir := t.TempDir()
	s = transittest.New(func() time.Time { return noon })
	s.AddKey("transit/agentkey", "aes256-gcm96", false)
	s.AddToken(transitToken, 0, 0, false)
	s.AddRole("server", "secret-id-of-the-server", time.Hour, time.Hour)
	listening := httptest.NewUnstartedServer(s)
	listening.Config.ErrorLog = log.New(io.Discard, "", 0)
	listening.StartTLS()
	t.Cleanup(listening.Close)
	ca := filepath.Join(dir, "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: listening.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, []string{
		"XDG_STATE_HOME=" + filepath.Join(dir, "state"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "config"),
		"AGENTKEY_BOOTSTRAP_TOKEN=" + bootstrap, "AGENTKEY_KEY_PROVIDER=transit:transit/agentkey",
		"AGENTKEY_TRANSIT_ADDRESS=" + listening.URL, "AGENTKEY_TRANSIT_CA=" + ca,
	}
}

// serving runs the server until the returned function is called, which gives its
// exit status and what it printed.
func serving(t *testing.T, env []string) (url string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := &printed{started: make(chan struct{}), sign: "listening on"}
	var errs bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Main(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, env, strings.NewReader(""), out, &errs, cli.Options{})
	}()
	stop = func() (int, string) {
		cancel()
		status := <-ended
		return status, out.String() + errs.String()
	}
	select {
	case <-out.started:
	case status := <-ended:
		ended <- status
		return "", stop
	}
	return regexp.MustCompile(`listening on +(\S+)`).FindStringSubmatch(out.String())[1], stop
}

// TestServeWithTransit vends a credential whose data keys Vault has wrapped, after a
// restart and a rotation in Vault too, by a token and as a role, and without the
// version before once everything is wrapped anew.
func TestServeWithTransit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s, env := keyService(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	is.NoErr(os.WriteFile(file, []byte(transitToken+"\n"), 0o600))
	url, stop := serving(t, append(env, "AGENTKEY_TRANSIT_TOKEN_FILE="+file))
	admin := []string{"AGENTKEY_URL=" + url, "AGENTKEY_ADMIN_TOKEN=" + bootstrap}
	do := func(stdin string, args ...string) string {
		t.Helper()
		r := run(t.Context(), admin, stdin, args...)
		if r.status != 0 {
			t.Fatalf("%v: %s", args, r.errors)
		}
		return r.out
	}
	is.True(url != "")
	do("lin_api_test_transit", "tools", "create", "Linear", "--url", "linear.app", "--credential-stdin")
	key := regexp.MustCompile(`sk_agent_\S+`).FindString(do("", "agents", "create", "bot"))
	do("", "grants", "assign", "bot", "Linear")
	vend := func(url string) string {
		t.Helper()
		c, err := client.NewAgent(url, vault.NewSecret([]byte(key)), client.Options{})
		is.NoErr(err)
		tools, err := c.Tools(t.Context())
		is.NoErr(err)
		got, err := c.Credential(t.Context(), tools[0].ID)
		is.NoErr(err)
		defer got.Secret.Destroy()
		return string(got.Secret.Bytes())
	}
	is.Equal(vend(url), "lin_api_test_transit")
	status, printed := stop()
	is.Equal(status, 0)
	is.True(strings.Contains(printed, "held by key provider transit"))
	is.True(!strings.Contains(printed, transitToken))
	is.True(!strings.Contains(printed, "is no setting"))
	is.True(s.Calls("encrypt") > 0)

	s.Rotate("transit/agentkey")
	asRole := append(slices.Clip(env), "AGENTKEY_TRANSIT_ROLE_ID=server", "AGENTKEY_TRANSIT_SECRET_ID=secret-id-of-the-server")
	url, stop = serving(t, asRole)
	is.Equal(vend(url), "lin_api_test_transit")
	r := run(t.Context(), asRole, "", "keys", "rotate-kek")
	is.Equal(r.status, 0)
	is.True(strings.Contains(r.out, "every data key is wrapped by transit:transit/agentkey:v2:"))
	s.Least("transit/agentkey", 2)
	s.Trim("transit/agentkey", 2)
	status, printed = stop()
	is.Equal(status, 0)
	is.True(!strings.Contains(printed, "is no setting"))
	url, stop = serving(t, asRole)
	is.Equal(vend(url), "lin_api_test_transit")
	status, printed = stop()
	is.Equal(status, 0)
	is.True(!strings.Contains(printed, "is no setting"))

	// A database that was sealed with a key that is gone names that key.
	s.DeleteKey("transit/agentkey")
	s.AddKey("transit/agentkey", "aes256-gcm96", false)
	s.Rotate("transit/agentkey")
	s.Rotate("transit/agentkey")
	s.Least("transit/agentkey", 3)
	url, stop = serving(t, append(env, "AGENTKEY_TRANSIT_TOKEN="+transitToken))
	is.Equal(url, "")
	status, printed = stop()
	is.Equal(status, 1)
	is.True(regexp.MustCompile(`need transit:transit/agentkey:v2:\d+, hold \[transit:transit/agentkey:v3:\d+\]`).MatchString(printed))
}

// TestServeRefusesTransit: what is wrong shows at the start, with nothing made.
func TestServeRefusesTransit(t *testing.T) {
	t.Parallel()
	const private = "hvs.test.in-the-wrong-place"
	for name, c := range map[string]struct {
		env    []string
		status int
		says   string
	}{
		"no login":           {nil, 2, "needs a token"},
		"token twice":        {[]string{"AGENTKEY_TRANSIT_TOKEN=" + private, "AGENTKEY_TRANSIT_TOKEN_FILE=x"}, 2, "keep one"},
		"token and role":     {[]string{"AGENTKEY_TRANSIT_TOKEN=" + private, "AGENTKEY_TRANSIT_ROLE_ID=r"}, 2, "not both"},
		"role of nobody":     {[]string{"AGENTKEY_TRANSIT_SECRET_ID=" + private}, 2, "needs a token"},
		"token for a file":   {[]string{"AGENTKEY_TRANSIT_TOKEN_FILE=" + private}, 1, "no such file"},
		"token not valid":    {[]string{"AGENTKEY_TRANSIT_TOKEN=" + private}, 1, "403"},
		"role not valid":     {[]string{"AGENTKEY_TRANSIT_ROLE_ID=server", "AGENTKEY_TRANSIT_SECRET_ID=" + private}, 1, "status 400"},
		"no key":             {[]string{"AGENTKEY_TRANSIT_TOKEN=" + transitToken, "AGENTKEY_KEY_PROVIDER=transit"}, 2, "name the key"},
		"another key":        {[]string{"AGENTKEY_TRANSIT_TOKEN=" + transitToken, "AGENTKEY_KEY_PROVIDER=transit:no/such"}, 1, "there is no transit:no/such"},
		"plain http":         {[]string{"AGENTKEY_TRANSIT_TOKEN=" + transitToken, "AGENTKEY_TRANSIT_ADDRESS=http://" + private + ".example"}, 2, "plain http"},
		"authority":          {[]string{"AGENTKEY_TRANSIT_TOKEN=" + transitToken, "AGENTKEY_TRANSIT_CA=" + private}, 1, "no such file"},
		"a local key beside": {[]string{"AGENTKEY_TRANSIT_TOKEN=" + transitToken, "AGENTKEY_KEY_FILE=" + private}, 2, "for --key-provider local only"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, env := keyService(t)
			url, stop := serving(t, append(env, c.env...))
			status, printed := stop()
			is.Equal(url, "")
			is.Equal(status, c.status)
			is.True(strings.Contains(printed, c.says))
			is.True(!strings.Contains(printed, private))
			is.True(!strings.Contains(printed, transitToken))
		})
	}
}

// TestDestroyWithTransit: with keys of organizations in Vault, what destroys an
// organization ends its backups too, and the way back is none.
func TestDestroyWithTransit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s, env := keyService(t)
	env = append(env, "AGENTKEY_TRANSIT_TOKEN="+transitToken, "AGENTKEY_TRANSIT_ORGANIZATION_KEYS=true", "AGENTKEY_ADMIN_TOKEN="+bootstrap)
	url, stop := serving(t, env)
	do := func(stdin string, args ...string) string {
		t.Helper()
		r := run(t.Context(), append(slices.Clip(env), "AGENTKEY_URL="+url), stdin, args...)
		if r.status != 0 {
			t.Fatalf("%v: %s", args, r.errors)
		}
		return r.out
	}
	do("lin_api_test_transit", "tools", "create", "Linear", "--credential-stdin")
	own := regexp.MustCompile(`seal +active .*transit:transit/(agentkey-[0-9a-f-]{36}):v1:`).FindStringSubmatch(do("", "keys", "status"))
	is.Equal(len(own), 2)
	is.True(s.Holds("transit/" + own[1]))
	status, _ := stop()
	is.Equal(status, 0)
	directory, _ := strings.CutPrefix(env[0], "XDG_STATE_HOME=")
	database, err := os.ReadFile(filepath.Join(directory, "agentkey", "agentkey.db"))
	is.NoErr(err)
	backup := filepath.Join(t.TempDir(), "backup.db")
	is.NoErr(os.WriteFile(backup, database, 0o600))
	is.True(strings.Contains(do("", "doctor", "crypto", "--database", "sqlite:"+backup), "in their place"))

	url, stop = serving(t, env)
	is.True(strings.Contains(do("", "keys", "destroy-org", "--confirm", "Default"), "has none of the keys left"))
	is.True(!s.Holds("transit/" + own[1]))
	is.True(s.Holds("transit/agentkey"))
	do("", "audit", "verify")
	do("", "doctor", "crypto")
	r := run(t.Context(), env, "", "doctor", "crypto", "--database", "sqlite:"+backup)
	is.True(r.status != 0)
	is.True(strings.Contains(r.out+r.errors, "there is no transit:transit/"+own[1]) || strings.Contains(r.out+r.errors, "need transit:transit/"+own[1]))
	status, printed := stop()
	is.Equal(status, 0)
	is.True(!strings.Contains(printed, transitToken))
}
