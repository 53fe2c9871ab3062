//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// answerTime is how long an answer takes at most when the database is away.
const answerTime = 3 * time.Second

// proxied is an installation on a new Postgres database behind a proxy.
func proxied(t *testing.T) (*proxy, installed) {
	t.Helper()
	database, err := createDatabase(pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	// The database's path goes through the proxy as it is.
	network, through := newProxy(t, database)
	return network, newInstallation(t, through)
}

// A database that is away, or does not answer, means 503 with Retry-After in
// bounded time; when it is back, so is the service.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	between, in := proxied(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	var resumed []time.Duration
	for range rounds(1, 10) {
		for _, fault := range []network{refused, silent} {
			is := is.New(t)
			l.advance(t, 30)
			l.takeSlowest()
			between.set(fault)
			away := l.away.Load()
			until(t, readyWait, "requests are answered 503", func() bool { return l.away.Load() >= away+2*crashClients })
			is.Equal(status(p.url()+"/readyz"), http.StatusServiceUnavailable)
			is.Equal(status(p.url()+"/livez"), http.StatusOK)
			between.set(whole)
			began := time.Now()
			l.advance(t, 1)
			resumed = append(resumed, time.Since(began))
			slowest := l.takeSlowest()
			t.Logf("fault %d: the longest answer took %v", fault, slowest)
			is.True(slowest < within(answerTime))
		}
	}
	l.advance(t, 30)
	stop()
	spread(t, "service after the database was back", resumed, within(answerTime))
	is.New(t).Equal(l.cut.Load(), int64(0))
	l.check(t)
}

// A database that is slow makes nothing wrong and nobody wait for long.
func TestDatabaseSlow(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	between, in := proxied(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	l.advance(t, 30)
	l.takeSlowest()
	between.set(delayed)
	answered := func() int64 { return l.away.Load() + l.served.Load() }
	for range rounds(1, 10) {
		before := answered()
		until(t, time.Minute, "requests are answered", func() bool { return answered() >= before+2*crashClients })
	}
	between.set(whole)
	l.advance(t, 30)
	slowest := l.takeSlowest()
	t.Logf("the longest answer took %v", slowest)
	is.True(slowest < within(answerTime))
	stop()
	is.Equal(l.cut.Load(), int64(0))
	l.check(t)
}

// A vend whose COMMIT has no answer is decided by what stands in the log: a
// credential comes with its event, a refusal that does not say otherwise comes
// with none.
func TestCommitCut(t *testing.T) {
	t.Parallel()
	between, in := proxied(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, p.url())
	w := l.worker[0]
	_, err := l.admin.Assign(t.Context(), w.id, l.tool, client.Decision{}, nil)
	is.New(t).NoErr(err)
	for range rounds(2, 20) {
		for _, how := range []cutCommit{cutBefore, cutAfter, cutLate} {
			is := is.New(t)
			before, had := len(vendedEvents(t, l.admin)), len(l.vends)
			cuts := between.cuts.Load()
			between.next.Store(int32(how))
			began := time.Now()
			err := w.vend(t.Context())
			took := time.Since(began)
			is.True(took < within(answerTime))
			if between.cuts.Load() == cuts || between.next.Load() != int32(cutNone) {
				t.Fatal("no commit was cut")
			}
			events := len(vendedEvents(t, l.admin)) - before
			var answer *client.Error
			switch {
			case err == nil:
				is.Equal(events, 1)
				is.Equal(len(l.vends), had+1)
				is.True(how != cutBefore)
			case !errors.As(err, &answer):
				t.Errorf("cut %d: %v", how, err)
			case answer.Message == agentkey.ErrUnknown.Text:
				is.True(events <= 1)
				t.Errorf("cut %d: what became of the vend could have been found out", how)
			default:
				is.Equal(answer.Status, http.StatusServiceUnavailable)
				is.Equal(events, 0)
				is.Equal(how, cutBefore)
			}
		}
	}
	l.check(t)
}

// A vend whose COMMIT meets a database that went silent is answered in time.
func TestCommitSilent(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	between, in := proxied(t)
	p, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, p.url())
	w := l.worker[0]
	_, err := l.admin.Assign(t.Context(), w.id, l.tool, client.Decision{}, nil)
	is.NoErr(err)
	is.NoErr(w.vend(t.Context()))
	most := answerTime
	if !proving() { // on a busy machine, but not one waiting time after the other
		most += 2 * time.Second
	}
	for range rounds(1, 10) {
		between.next.Store(int32(cutSilent))
		began := time.Now()
		err := w.vend(t.Context())
		took := time.Since(began)
		t.Logf("answered after %v", took)
		is.Equal(network(between.state.Load()), silent)
		is.True(errors.Is(err, &client.Error{Status: http.StatusServiceUnavailable}))
		is.True(took < most)
		between.set(whole)
		until(t, readyWait, "service goes on", func() bool { return w.vend(t.Context()) == nil })
	}
	l.check(t)
}

// A node whose clock is wrong vends nothing and says that it is not ready; one
// whose clock is right serves on the same database.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	database, err := createDatabase(pgtest.DSN(t))
	is.New(t).NoErr(err)
	in := newInstallation(t, database)
	right, _ := in.start(t, program(t), freeAddress(t))
	l := newLoad(t, in.token, 1, right.url())
	w := l.worker[0]
	_, err = l.admin.Assign(t.Context(), w.id, l.tool, client.Decision{}, nil)
	is.New(t).NoErr(err)
	wrongBinary := testBinary(t, "agentkey-skewed")
	for _, skew := range []string{"-6s", "6s", "1h"} {
		is := is.New(t)
		skewed := in
		skewed.environment = append(skewed.environment[:len(skewed.environment):len(skewed.environment)], skewVariable+"="+skew)
		wrong := skewed.launch(t, wrongBinary, freeAddress(t))
		until(t, readyWait, "the server answers", func() bool { return status(wrong.url()+"/livez") == http.StatusOK })
		is.Equal(status(wrong.url()+"/readyz"), http.StatusServiceUnavailable)
		res, err := vendAt(t.Context(), wrong.url(), l.tool, w)
		is.NoErr(err)
		is.Equal(res.StatusCode, http.StatusServiceUnavailable)
		is.True(res.Header.Get("Retry-After") != "")
		is.NoErr(w.vend(t.Context()))
		is.Equal(status(right.url()+"/readyz"), http.StatusOK)
		wrong.kill()
	}
	l.check(t)
}

// vendAt asks another server for the credential. It closes the body.
func vendAt(ctx context.Context, url, tool string, w *worker) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/tools/"+tool+"/credentials", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(w.key.Bytes()))
	res, err := probe.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res, errors.Join(err, res.Body.Close())
}
