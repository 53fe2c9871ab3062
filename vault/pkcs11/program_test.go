//go:build cgo

package pkcs11_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const bootstrap = "bootstrap-token-for-tests-0123456789"

// program is the built command with its settings.
type program struct {
	path string
	env  []string
}

func build(t *testing.T, env ...string) program {
	t.Helper()
	dir := t.TempDir()
	p := program{path: filepath.Join(dir, "agentkey-pkcs11")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, "./cmd/agentkey-pkcs11").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p.env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"),
		"AGENTKEY_BOOTSTRAP_TOKEN="+bootstrap, "AGENTKEY_ADMIN_TOKEN="+bootstrap, "AGENTKEY_LISTEN=127.0.0.1:0")
	p.env = append(p.env, env...)
	return p
}

// serve starts the server and gives its address, and what ends it.
func (p program) serve(t *testing.T) (url string, stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, "serve")
	cmd.Env = p.env
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	provider := false
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		provider = provider || strings.Contains(lines.Text(), "held by key provider pkcs11")
		if found := regexp.MustCompile(`^listening on +(\S+)`).FindStringSubmatch(lines.Text()); found != nil {
			url = found[1]
		}
	}
	if url == "" || !provider {
		_ = cmd.Wait()
		t.Fatalf("the server did not start: %s", errs.String())
	}
	return url, func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		if strings.Contains(errs.String(), userPIN) {
			t.Error("the log shows the PIN")
		}
	}
}

func (p program) run(t *testing.T, url, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, args...)
	cmd.Env, cmd.Stdin = append(p.env, "AGENTKEY_URL="+url), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestProgram vends with the program that ships the provider, after a restart too.
func TestProgram(t *testing.T) {
	h := needed(t)
	is := is.New(t)
	h.makeKey(t, tokenLabel, labelOf(t), []byte{7})
	file := filepath.Join(t.TempDir(), "pin")
	is.NoErr(os.WriteFile(file, []byte(userPIN), 0o600))
	p := build(t, "AGENTKEY_KEY_PROVIDER=pkcs11:"+labelOf(t), "PKCS11_MODULE="+h.path, "PKCS11_TOKEN="+tokenLabel, "PKCS11_PIN_FILE="+file)
	url, stop := p.serve(t)
	p.run(t, url, "lin_api_test_pkcs11", "tools", "create", "Linear", "--url", "linear.app", "--credential-stdin")
	key := regexp.MustCompile(`sk_agent_\S+`).FindString(p.run(t, url, "", "agents", "create", "bot"))
	p.run(t, url, "", "grants", "assign", "bot", "Linear")
	for range 2 {
		agent, err := client.NewAgent(url, vault.NewSecret([]byte(key)), client.Options{})
		is.NoErr(err)
		tools, err := agent.Tools(t.Context())
		is.NoErr(err)
		vended, err := agent.Credential(t.Context(), tools[0].ID)
		is.NoErr(err)
		is.Equal(string(vended.Secret.Bytes()), "lin_api_test_pkcs11")
		vended.Secret.Destroy()
		stop()
		url, stop = p.serve(t)
	}
	stop()
}
