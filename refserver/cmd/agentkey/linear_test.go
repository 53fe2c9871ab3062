package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/histories"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// What two processes of the server on one Postgres answer to concurrent clients
// is what one serial order would have answered, also when connections are cut.
func TestServersAreLinearizable(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	database, err := createDatabase(pgtest.DSN(t))
	is.NoErr(err)
	key, err := localkey.Generate()
	is.NoErr(err)
	token := vault.NewSecret([]byte("test_token_" + rand.Text()))
	environment := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AGENTKEY_DATABASE=" + database,
		"AGENTKEY_ENCRYPTION_KEY=" + key, "AGENTKEY_BOOTSTRAP_TOKEN=" + string(token.Bytes()),
		"AGENTKEY_LIMIT_PREAUTH=off", "AGENTKEY_LIMIT_READ=off", "AGENTKEY_LIMIT_CREDENTIAL=off",
		"AGENTKEY_LIMIT_REQUEST=off", "AGENTKEY_LIMIT_ADMIN=off", "AGENTKEY_LIMIT_ADMIN_READ=off",
	}

	few, plan := 2, histories.Plan{Clients: 8, Operations: 200, Weights: histories.Weights()}
	if os.Getenv("AGENTKEY_PROVE") != "" {
		few, plan.Operations = 200, 800
	}
	plan.Weights[histories.Advance], plan.Weights[histories.Sweep] = 0, 0
	url := startForHistories(t, environment)
	var targets []histories.Target
	for _, u := range []string{url, startForHistories(t, environment)} {
		target, err := histories.NewServer(u, token, 100)
		is.NoErr(err)
		targets = append(targets, target)
	}
	counts := make(map[histories.Kind]map[string]int)
	for seed := range few {
		plan.Seed = uint64(seed)
		history, err := histories.Record(t.Context(), plan, targets...)
		is.NoErr(err)
		if err := history.Check(time.Minute); err != nil {
			t.Fatalf("history %d: %v", seed, err)
		}
		for kind, codes := range history.Tally() {
			for code, n := range codes {
				if counts[kind] == nil {
					counts[kind] = make(map[string]int)
				}
				counts[kind][code] += n
				is.True(code != histories.Internal)
			}
		}
	}
	t.Logf("%v", counts)
	is.True(counts[histories.Vend][histories.Done] > 0)
	is.True(counts[histories.Vend]["revoked"] > 0)
	is.True(counts[histories.Vend]["key_revoked"] > 0)

	admin, err := client.NewAdmin(url, token, client.Options{})
	is.NoErr(err)
	report, err := admin.Reconcile(t.Context())
	is.NoErr(err)
	is.True(report.OK) // the log replays to the records
}

// startForHistories starts the program with this environment, as a process of
// its own that is ended as an operator would end it, and answers its URL. The
// program is the test's own binary, which TestMain makes one: it has the race
// detector if the test has.
func startForHistories(t *testing.T, environment []string) string {
	t.Helper()
	is := is.New(t)
	binary, err := os.Executable()
	is.NoErr(err)
	path := filepath.Join(t.TempDir(), "agentkey")
	is.NoErr(os.Symlink(binary, path))
	// The context outlives the test's own, which ends before its cleanup.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), path, "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
	var log strings.Builder
	cmd.Env, cmd.Stderr = environment, &log
	out, err := cmd.StdoutPipe()
	is.NoErr(err)
	is.NoErr(cmd.Start())
	lines := bufio.NewScanner(out)
	url := ""
	for url == "" && lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "listening on"); ok {
			url = strings.TrimSpace(address)
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil || log.Len() > 0 {
			t.Errorf("server: %v\n%s", err, log.String())
		}
	})
	if url == "" {
		t.Fatal("the server did not start")
	}
	return url
}
