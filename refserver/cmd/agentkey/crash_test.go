//go:build unix

package main

import (
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// crashClients is how many clients are at work while things break.
const crashClients = 8

// A server that is killed at any moment, again and again, is ready soon after its
// next start without anybody's help, and whatever a client received is in the log.
func TestKilledOnSQLite(t *testing.T) {
	t.Parallel()
	killAgainAndAgain(t, onSQLite(t).anchored(t), rounds(2, 300))
}

func TestKilledOnPostgres(t *testing.T) {
	t.Parallel()
	database, err := createDatabase(pgtest.DSN(t))
	is.New(t).NoErr(err)
	killAgainAndAgain(t, newInstallation(t, database).anchored(t), rounds(2, 100))
}

// anchored keeps heads in files: a server that takes the end of another for a database
// that was put back does not start.
func (in installed) anchored(t *testing.T) installed {
	in.environment = append(slices.Clip(in.environment), "AGENTKEY_ANCHOR=file:"+filepath.Join(t.TempDir(), "heads"))
	return in
}

func killAgainAndAgain(t *testing.T, in installed, kills int) {
	binary, address := program(t), freeAddress(t)
	random := rand.New(rand.NewPCG(1, uint64(kills)))
	p, _ := in.start(t, binary, address)
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	var starts, work []time.Duration
	for range kills {
		l.advance(t, random.Int64N(60)) // at once, too: while it is starting up
		p.kill()
		var took time.Duration
		p, took = in.start(t, binary, address)
		starts, work = append(starts, took), append(work, p.worked())
	}
	l.advance(t, 20)
	stop()
	spread(t, "processor time until ready, with what was served by then", work, within(startTime))
	spread(t, "ready after a kill", starts, within(startTime))
	l.check(t)
}

// A server goes on by itself when its Postgres was restarted, however that was
// stopped, and answers whatever comes meanwhile.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in := newInstallation(t, c.dsn())
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	random := rand.New(rand.NewPCG(2, 1))
	var resumed []time.Duration
	for i := range rounds(2, 30) {
		l.advance(t, 20+random.Int64N(60))
		how := syscall.SIGINT
		if i%2 == 0 {
			how = syscall.SIGQUIT
		}
		is.New(t).NoErr(c.stop(how))
		away := l.away.Load()
		until(t, readyWait, "requests are answered 503", func() bool { return l.away.Load() >= away+crashClients })
		is.New(t).Equal(status(p.url()+"/readyz"), http.StatusServiceUnavailable)
		is.New(t).Equal(status(p.url()+"/livez"), http.StatusOK)
		c.start(t)
		began := time.Now()
		l.advance(t, 1)
		resumed = append(resumed, time.Since(began))
		is.New(t).Equal(status(p.url()+"/readyz"), http.StatusOK)
	}
	stop()
	spread(t, "service after Postgres came back", resumed, within(startTime))
	if l.cut.Load() > 0 {
		t.Errorf("%d requests were not answered", l.cut.Load())
	}
	if slowest := l.takeSlowest(); slowest > within(answerTime) {
		t.Errorf("an answer took %v", slowest)
	}
	l.check(t)
}

// Servers that start together on an empty database become one installation.
func TestStartTogether(t *testing.T) {
	t.Parallel()
	binary := program(t)
	for range rounds(1, 10) {
		is := is.New(t)
		database, err := createDatabase(pgtest.DSN(t))
		is.NoErr(err)
		in := newInstallation(t, database)
		var nodes []*process
		for range 5 {
			nodes = append(nodes, in.launch(t, binary, freeAddress(t)))
		}
		var organization, key string
		var urls []string
		for _, p := range nodes {
			p.await(t)
			urls = append(urls, p.url())
			admin, err := client.NewAdmin(p.url(), in.token, client.Options{})
			is.NoErr(err)
			o, err := admin.Organization(t.Context())
			is.NoErr(err)
			k, err := admin.PublicKey(t.Context())
			is.NoErr(err)
			if organization == "" {
				organization, key = o.ID, k
			}
			is.Equal(o.ID, organization)
			is.Equal(k, key)
		}
		l := newLoad(t, in.token, 2*len(urls), urls...)
		stop := l.run(t)
		l.advance(t, 50)
		stop()
		is.Equal(l.cut.Load(), int64(0))
		l.check(t)
		for _, p := range nodes {
			p.kill()
		}
	}
}
