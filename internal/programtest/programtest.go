// Package programtest runs a program of ours that ships a key provider: built as it
// is delivered, in processes of its own.
package programtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const bootstrap = "bootstrap-token-for-tests-0123456789"

// program is a built command with its settings.
type program struct {
	path, provider string
	env            []string
}

// Rotation is how the provider's key is followed by another.
type Rotation struct {
	Both, Only []string // settings with the new key before the old one, and with the new one alone
	Retire     func()   // removes the old key where it is kept
}

// Vend builds the command in the directory dir, starts it as a server on an empty
// database with the settings env, has it vend a credential, before and after a
// restart, the latter where only FIPS 140-3 is allowed, and examine keys and seals;
// then it has everything wrapped by another key, and wants all of it again without the
// one before. It fails the test unless the server says that the key is held by
// provider and ends well. What it logs must not hold one of the secrets.
func Vend(t *testing.T, dir, provider string, env []string, r Rotation, secrets ...string) {
	t.Helper()
	p := build(t, dir, provider, env)
	const credential = "lin_api_test_of_a_program"
	url, stop := p.serve(t, secrets)
	p.run(t, url, credential, "tools", "create", "Linear", "--url", "linear.app", "--credential-stdin")
	key := regexp.MustCompile(`sk_agent_\S+`).FindString(p.run(t, url, "", "agents", "create", "bot"))
	p.run(t, url, "", "grants", "assign", "bot", "Linear")
	restarted := func(with ...string) {
		if got := vend(t, url, key); got != credential {
			t.Error("another credential was vended")
		}
		stop()
		p.env = append(p.env, with...)
		url, stop = p.serve(t, secrets)
	}
	restarted("GODEBUG=fips140=only")
	restarted(r.Both...)
	const rotate = "agentkey keys rotate-kek"
	if status := p.run(t, url, "", "keys", "status"); !strings.Contains(status, rotate) {
		t.Errorf("before the rotation: %s", status)
	}
	if said := p.run(t, url, "", "keys", "rotate-kek"); !strings.Contains(said, "every data key is wrapped by ") {
		t.Errorf("the rotation: %s", said)
	}
	if status := p.run(t, url, "", "keys", "status"); strings.Contains(status, rotate) {
		t.Errorf("after the rotation: %s", status)
	}
	r.Retire()
	restarted(r.Only...)
	if got := vend(t, url, key); got != credential {
		t.Error("another credential was vended")
	}
	if report := p.run(t, url, "", "doctor", "crypto"); !strings.Contains(report, "1 of them were opened") {
		t.Errorf("keys and seals: %s", report)
	}
	stop()
}

func vend(t *testing.T, url, key string) string {
	t.Helper()
	agent, err := client.NewAgent(url, vault.NewSecret([]byte(key)), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := agent.Tools(t.Context())
	if err != nil || len(tools) != 1 {
		t.Fatalf("%d tools, %v", len(tools), err)
	}
	vended, err := agent.Credential(t.Context(), tools[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer vended.Secret.Destroy()
	return string(vended.Secret.Bytes())
}

func build(t *testing.T, dir, provider string, env []string) program {
	t.Helper()
	own := t.TempDir()
	p := program{path: filepath.Join(own, filepath.Base(dir)), provider: provider}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.path, dir).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p.env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(own, "state"), "XDG_CONFIG_HOME="+filepath.Join(own, "config"),
		"AGENTKEY_BOOTSTRAP_TOKEN="+bootstrap, "AGENTKEY_ADMIN_TOKEN="+bootstrap, "AGENTKEY_LISTEN=127.0.0.1:0")
	p.env = append(p.env, env...)
	return p
}

// serve starts the server and gives its address, and what ends it.
func (p program) serve(t *testing.T, secrets []string) (url string, stop func()) {
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
	named := false
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		named = named || strings.Contains(lines.Text(), "held by key provider "+p.provider)
		if found := regexp.MustCompile(`^listening on +(\S+)`).FindStringSubmatch(lines.Text()); found != nil {
			url = found[1]
		}
	}
	if url == "" || !named {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the server did not start with this provider: %s", errs.String())
	}
	return url, func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		for _, secret := range secrets {
			if strings.Contains(errs.String(), secret) {
				t.Error("the log shows a secret")
			}
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
