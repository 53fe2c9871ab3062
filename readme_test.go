package agentkey_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// readmeBlocks are the README's code blocks of a language.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(b, -1) {
		blocks = append(blocks, string(found[1]))
	}
	return blocks
}

// blockWith is the one block that holds text.
func blockWith(t *testing.T, language, text string) string {
	t.Helper()
	var found []string
	for _, block := range readmeBlocks(t, language) {
		if strings.Contains(block, text) {
			found = append(found, block)
		}
	}
	if len(found) != 1 {
		t.Fatalf("README.md: %d blocks of %s hold %q, want 1", len(found), language, text)
	}
	return found[0]
}

// TestReadmeEmbed pastes the README's program into an empty module, runs it
// there, and wants just what the README says it prints.
func TestReadmeEmbed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	snippet := blockWith(t, "go", "package main")
	program, err := os.ReadFile("examples/embed/main.go")
	is.NoErr(err)
	is.Equal(snippet, string(program))               // README.md and examples/embed/main.go differ
	is.True(strings.Count(snippet, "\n") <= 60)      // one screen
	is.True(!strings.Contains(snippet, "/internal")) // an embedder could not import it

	root, err := os.Getwd()
	is.NoErr(err)
	sums, err := os.ReadFile("go.sum")
	is.NoErr(err)
	dir := t.TempDir()
	module := fmt.Sprintf("module example.com/embed\n\ngo 1.26.0\n\nrequire github.com/agentkey-dev/agentkey-go v0.0.0\n\n"+
		"replace github.com/agentkey-dev/agentkey-go => %s\n", root)
	for name, content := range map[string]string{"go.mod": module, "go.sum": string(sums), "main.go": snippet} {
		is.NoErr(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	run := exec.CommandContext(t.Context(), "go", "run", ".")
	run.Dir, run.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off")
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	printed := strings.ReplaceAll(regexp.QuoteMeta(blockWith(t, "text", "refused: no grant")), "…", `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	if !regexp.MustCompile("^" + printed + "$").Match(out) {
		t.Fatalf("the program printed\n%s\nnot what the README says", out)
	}
}

// TestReadmeRun types the README's commands, in their order, into a shell. What
// follows # is what each must answer. A value that ends in … is one that the
// reader copies from the output before.
func TestReadmeRun(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := startReadmeServer(t)
	commands := 0
	for _, line := range strings.Split(blockWith(t, "sh", "audit verify"), "\n") {
		command, want, _ := strings.Cut(line, "  # ")
		name, value, assigned := strings.Cut(strings.TrimPrefix(command, "export "), "=")
		switch {
		case command == "":
		case assigned && regexp.MustCompile(`^[A-Z_]+$`).MatchString(name):
			r.assign(t, name, value)
		default:
			commands++
			r.run(t, command, want)
		}
	}
	if commands != 9 {
		t.Errorf("README.md has %d commands, want 9", commands)
	}
}

// readmeReader is somebody who follows the README.
type readmeReader struct {
	dir  string
	env  []string
	url  string
	seen string // everything printed so far
}

// startReadmeServer builds and starts the program as the README says, but on a
// free port and in directories of the test's own.
func startReadmeServer(t *testing.T) *readmeReader {
	t.Helper()
	r := &readmeReader{dir: t.TempDir()}
	build, serve, _ := strings.Cut(strings.TrimSpace(blockWith(t, "sh", "agentkey serve")), " && ")
	build = strings.Replace(build, "-o agentkey", "-o "+filepath.Join(r.dir, "agentkey"), 1)
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", build).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AGENTKEY_") && !strings.HasPrefix(v, "XDG_") {
			r.env = append(r.env, v)
		}
	}
	r.env = append(r.env, "HOME="+r.dir, "NO_PROXY=*")
	server := exec.Command(filepath.Join(r.dir, "agentkey"), strings.Fields(serve)[1:]...)
	server.Dir, server.Env = r.dir, append(r.env, "AGENTKEY_LISTEN=127.0.0.1:0")
	var log bytes.Buffer
	server.Stderr = &log
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Errorf("serve: %v\n%s", err, log.Bytes())
		}
	})
	in := bufio.NewReader(stdout)
	for range 5 {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("serve did not print five lines, but %q", r.seen)
		}
		r.seen += line
	}
	r.url = r.find(t, `listening on +(\S+)`)
	token, err := os.ReadFile(r.find(t, `administrator +token in (.+)`))
	if err != nil {
		t.Fatal(err)
	}
	r.seen += string(token)
	return r
}

func (r *readmeReader) find(t *testing.T, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindAllStringSubmatch(r.seen, -1)
	if found == nil {
		t.Fatalf("nothing printed so far has the form %s", pattern)
	}
	return found[len(found)-1][1]
}

// assign sets a variable: to the value, or to what the reader saw of that form.
func (r *readmeReader) assign(t *testing.T, name, value string) {
	t.Helper()
	const id = `([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})`
	forms := map[string]string{
		"AGENTKEY_ADMIN_TOKEN": `(sk_admin_\S+)`, "KEY": `(sk_agent_\S+)`, "TOOL": `tool Linear \(` + id, "REQUEST": `"request_id":"` + id,
	}
	switch {
	case name == "S":
		value = "lin_api_test_readme"
	case strings.HasSuffix(value, "…"):
		value = r.find(t, forms[name])
	case name == "AGENTKEY_URL":
		value = r.url
	}
	r.env = append(r.env, name+"="+value)
}

func (r *readmeReader) run(t *testing.T, command, want string) {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "sh", "-c", command)
	shell.Dir, shell.Env = r.dir, r.env
	var out, stderr bytes.Buffer
	shell.Stdout, shell.Stderr = &out, &stderr
	if err := shell.Run(); err != nil {
		t.Fatalf("%s\n%v\n%s%s", command, err, out.Bytes(), stderr.Bytes())
	}
	r.seen += out.String()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), " N ", " [0-9]+ ")
	if status := regexp.MustCompile(`^\d{3}`).FindString(want); status != "" {
		pattern = `^HTTP/1\.1 ` + status + ` `
	}
	switch {
	case !regexp.MustCompile("(?m)" + pattern).MatchString(out.String()):
		t.Errorf("%s\nwant %s, got\n%s", command, want, out.Bytes())
	case strings.Contains(want, "hint") && !strings.Contains(out.String(), `"hint":"`):
		t.Errorf("%s: no hint in\n%s", command, out.Bytes())
	case strings.Contains(want, "secret") != strings.Contains(out.String(), "lin_api_test_readme"):
		t.Errorf("%s: the secret is where it should not be, or not where it should:\n%s", command, out.Bytes())
	}
}
