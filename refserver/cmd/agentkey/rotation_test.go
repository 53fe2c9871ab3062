//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// A server that is killed again and again while it seals everything anew goes on
// where it was: no vend fails but by the kill itself, and at the end everything is
// readable and nothing is left under the keys before.
func TestResealingIsKilledOnSQLite(t *testing.T) {
	t.Parallel()
	resealThroughKills(t, onSQLite(t), 1)
}

// Of two servers any may be killed: the other goes on vending, and re-seals when the
// turn of the one that was killed is over.
func TestResealingIsKilledOnPostgres(t *testing.T) {
	t.Parallel()
	database, err := createDatabase(pgtest.DSN(t))
	is.New(t).NoErr(err)
	resealThroughKills(t, newInstallation(t, database), 2)
}

// resealClients is how many clients vend meanwhile.
const resealClients = 16

func resealThroughKills(t *testing.T, in installed, servers int) {
	is := is.New(t)
	kills := rounds(1, 50)
	binary := program(t)
	random := rand.New(rand.NewPCG(3, uint64(kills)))
	nodes, urls := make([]*process, servers), make([]string, servers)
	for i := range nodes {
		nodes[i], _ = in.start(t, binary, freeAddress(t))
		urls[i] = nodes[i].url()
	}
	admin, err := client.NewAdmin(urls[0], in.token, client.Options{})
	is.NoErr(err)
	l := newLoad(t, in.token, resealClients, urls...)
	granted := l.grantTools(t, rounds(20, 500))
	stop := l.each(t, func(w *worker, ctx context.Context) {
		for _, tool := range granted[w] {
			err := w.vendTool(ctx, tool)
			if err != nil && !late(err) {
				l.fault(fmt.Sprintf("a vend was refused: %v", err))
			}
			if err != nil || !proving() {
				pause(ctx, 20*time.Millisecond)
			}
		}
	})
	longest := 2 * time.Second
	if proving() {
		longest = 12 * time.Second // so that the turn of the one that was killed ends, and the next is at work
	}
	for range kills {
		answered(t, func() error { _, err := admin.RotateDataKeys(t.Context()); return err })
		answered(t, func() error { _, err := admin.Reseal(t.Context()); return err })
		pause(t.Context(), time.Duration(random.Int64N(int64(longest))))
		i := random.IntN(servers)
		nodes[i].kill()
		nodes[i], _ = in.start(t, binary, nodes[i].address)
	}
	l.advance(t, 20)
	began, last := time.Now(), client.Rotation{}
	until(t, 20*time.Minute, "everything is sealed anew", func() bool {
		k, err := admin.Keys(context.Background(), false)
		if err == nil && k.Resealing != nil && k.Resealing.Done/100 != last.Done/100 {
			last = *k.Resealing
			t.Logf("%d of %d", last.Done, last.Total)
		}
		return err == nil && k.Resealing == nil
	})
	t.Logf("sealed anew %v after the last kill", time.Since(began))
	stop()
	l.check(t)
	// No vend fails for what is sealed anew beside it. A database that answers late on a
	// busy machine is another matter, and rare.
	is.True(!proving() || l.away.Load() <= l.served.Load()/100)
	resealed := make(map[string]int64)
	eachEvent(t, admin, func(e audit.Event, _ string) {
		if e.Action == audit.ActionCredentialResealed {
			resealed[e.Node] += e.Count
		}
	})
	t.Logf("%d processes sealed anew: %v", len(resealed), resealed)
	k, err := admin.Keys(t.Context(), true)
	is.NoErr(err)
	is.Equal(k.Reseal, int64(0))
	for _, d := range k.Keys {
		is.True(d.Purpose != "seal" || d.Lifecycle != "deactivated")
	}
	doctor := exec.Command(binary, "doctor", "crypto", "--all")
	doctor.Env = in.environment
	out, err := doctor.CombinedOutput()
	if err != nil {
		t.Errorf("doctor crypto: %v\n%s", err, out)
	}
}

// grantTools makes so many tools with the load's secret, and gives each to one of
// its clients.
func (l *load) grantTools(t *testing.T, n int) map[*worker][]string {
	t.Helper()
	is := is.New(t)
	granted := make(map[*worker][]string)
	for i := range n {
		tool, err := l.admin.AddTool(t.Context(),
			client.NewTool{Name: nameOf("Tool"), AuthType: "api_key", Mode: string(storage.Shared)}, vault.NewSecret([]byte(l.secret)))
		is.NoErr(err)
		w := l.worker[i%len(l.worker)]
		_, err = l.admin.Assign(t.Context(), w.id, tool.ID, client.Decision{}, nil)
		is.NoErr(err)
		granted[w] = append(granted[w], tool.ID)
	}
	return granted
}

// answered makes a call until a database that answers late has answered.
func answered(t *testing.T, call func() error) {
	t.Helper()
	until(t, time.Minute, "the call is answered", func() bool {
		err := call()
		if err != nil && !late(err) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// late says whether a call was answered 503, or not at all.
func late(err error) bool {
	var answer *client.Error
	return !errors.Is(err, client.ErrAnswer) && (!errors.As(err, &answer) || answer.Status == http.StatusServiceUnavailable)
}
