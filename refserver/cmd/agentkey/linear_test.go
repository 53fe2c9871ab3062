package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/histories"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// historyLanes is how many organizations the long form uses at the same time.
const historyLanes = 4

// What two processes of the server on one Postgres answer to concurrent clients
// is what one serial order would have answered, also when connections are cut.
func TestServersAreLinearizable(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	database, err := createDatabase(pgtest.DSN(t))
	is.NoErr(err)
	in := newInstallation(t, database)
	urls := []string{startForHistories(t, in.environment), startForHistories(t, in.environment)}

	plan := histories.Plan{Clients: 8, Operations: rounds(200, 800), Weights: histories.Weights()}
	for _, kind := range []histories.Kind{histories.Advance, histories.Sweep} { // of a clock that a server does not have
		plan.Weights[kind] = 0
	}
	var all []*serverLane
	for i := range rounds(1, historyLanes) {
		all = append(all, newServerLane(t, in, urls, i))
	}
	few := int64(rounds(2, 200))
	var seeds atomic.Int64
	var working sync.WaitGroup
	for _, l := range all {
		working.Go(func() {
			for seed := seeds.Add(1) - 1; seed < few && !t.Failed(); seed = seeds.Add(1) - 1 {
				plan := plan
				plan.Seed = uint64(seed)
				if err := l.prove(t.Context(), plan); err != nil {
					t.Errorf("history %d: %v", seed, err)
				}
			}
		})
	}
	working.Wait()
	counts, operations, unanswered := make(map[histories.Kind]map[string]int), 0, 0
	for _, l := range all {
		for kind, codes := range l.total {
			if counts[kind] == nil {
				counts[kind] = make(map[string]int)
			}
			for code, n := range codes {
				counts[kind][code] += n
				operations += n
				if code == histories.Unknown {
					unanswered += n
				}
				is.True(code != histories.Internal)
			}
		}
		report, err := l.admin.Reconcile(t.Context())
		is.NoErr(err)
		is.True(report.OK) // the log replays to the records
	}
	t.Logf("%v", counts)
	t.Logf("%d of %d operations were not answered", unanswered, operations)
	is.True(unanswered <= operations/rounds(7, 40)) // one in a hundred is cut off
	is.True(counts[histories.Vend][histories.Done] > 0)
	is.True(counts[histories.Vend]["revoked"] > 0)
	is.True(counts[histories.Vend]["key_revoked"] > 0)
	is.True(!proving() || counts[histories.Suggest][histories.Done] > 0) // only before the tool is added
	is.True(counts[histories.Learn][histories.Done] > 0)
}

// serverLane is an organization of both servers. Its histories come one after
// another, because a lock is of the whole organization.
type serverLane struct {
	admin   *client.Admin
	targets []histories.Target
	total   map[histories.Kind]map[string]int
}

// newServerLane makes an organization with two administrators.
func newServerLane(t *testing.T, in installed, urls []string, i int) *serverLane {
	t.Helper()
	is := is.New(t)
	create := exec.Command(program(t), "orgs", "create", fmt.Sprintf("Histories %d", i), "--json")
	create.Env = in.environment
	out, err := create.Output()
	is.NoErr(err)
	var created struct {
		Token string `json:"token"`
	}
	is.NoErr(json.Unmarshal(out, &created))
	tokens := [histories.Actors]*vault.Secret{vault.NewSecret([]byte(created.Token))}
	l := &serverLane{total: make(map[histories.Kind]map[string]int)}
	l.admin, err = client.NewAdmin(urls[0], tokens[0], client.Options{})
	is.NoErr(err)
	approver, err := l.admin.AddAdministrator(t.Context(), client.NewAdministrator{Label: "approver@example.com", Role: "approver"})
	is.NoErr(err)
	issued, err := l.admin.CreateToken(t.Context(), client.NewToken{Administrator: approver.ID})
	is.NoErr(err)
	tokens[1] = issued.Secret
	for _, url := range urls {
		target, err := histories.NewServer(url, tokens, 100)
		is.NoErr(err)
		l.targets = append(l.targets, target)
	}
	return l
}

// prove records a history and checks it.
func (l *serverLane) prove(ctx context.Context, plan histories.Plan) error {
	if _, err := l.admin.Unlock(ctx, "a history begins"); err != nil {
		return err
	}
	history, err := histories.Record(ctx, plan, l.targets...)
	if err != nil {
		return err
	}
	if err := history.Check(time.Minute); err != nil {
		return err
	}
	for kind, codes := range history.Tally() {
		if l.total[kind] == nil {
			l.total[kind] = make(map[string]int)
		}
		for code, n := range codes {
			l.total[kind][code] += n
		}
	}
	return nil
}

// startForHistories starts the program with this environment, as a process of
// its own that is ended as an operator would end it, and answers its URL.
func startForHistories(t *testing.T, environment []string) string {
	t.Helper()
	is := is.New(t)
	// The context outlives the test's own, which ends before its cleanup.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program(t), "serve", "--listen", "127.0.0.1:0", "--log-level", "error")
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
