package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// callers is how many calls of one agent are under way at the same time.
const callers = 16

// Two servers on one Postgres count one agent's vends in one window: however many
// it tries for, in no window of that length does the log have more than allowed,
// and each window that begins lets as many pass again.
func TestWindowsOfTwoServers(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	window, most := time.Second, rounds(8, 60)
	if proving() {
		window = time.Minute
	}
	database, err := createDatabase(pgtest.DSN(t))
	is.NoErr(err)
	in := newInstallation(t, database)
	in.environment = append(in.environment, fmt.Sprintf("AGENTKEY_LIMIT_CREDENTIAL=%d/%v", most, window))
	binary := program(t)
	one, _ := in.start(t, binary, freeAddress(t))
	other, _ := in.start(t, binary, freeAddress(t))
	l := newLoad(t, in.token, 1, one.url())
	w := l.worker[0]
	_, err = l.admin.Assign(t.Context(), w.id, l.tool, client.Decision{}, nil)
	is.NoErr(err)

	// The ends of two windows are seen.
	ctx, cancel := context.WithTimeout(t.Context(), window*5/2)
	defer cancel()
	var calling sync.WaitGroup
	for i := range callers {
		url := []string{one.url(), other.url()}[i%2]
		agent, err := client.NewAgent(url, w.key, client.Options{MaxWait: -1})
		is.NoErr(err)
		calling.Go(func() {
			for ctx.Err() == nil {
				v, err := agent.Credential(ctx, l.tool)
				switch {
				case err == nil:
					v.Secret.Destroy()
				case errors.Is(err, &client.Error{Status: http.StatusTooManyRequests}):
					pause(ctx, window/100)
				case ctx.Err() == nil:
					t.Errorf("vend: %v", err)
				}
			}
		})
	}
	calling.Wait()

	vends := vendTimes(t, l.admin)
	t.Logf("%d vends in %v", len(vends), window*5/2)
	is.True(len(vends) > most) // the first window ended, and others passed
	for i := most; i < len(vends); i++ {
		if apart := vends[i] - vends[i-most]; apart < window.Microseconds() {
			t.Errorf("%d vends in %d µs", most+1, apart)
		}
	}
}

// vendTimes are the times of all vends in the log, in microseconds.
func vendTimes(t *testing.T, admin *client.Admin) (times []int64) {
	t.Helper()
	is := is.New(t)
	var export bytes.Buffer
	is.NoErr(admin.Export(t.Context(), &export))
	reader, err := audit.NewExportReader(&export)
	is.NoErr(err)
	for {
		entry, err := reader.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return times
		}
		is.NoErr(err)
		if entry.Line == nil {
			continue
		}
		e, err := audit.Parse(entry.Line.Content)
		is.NoErr(err)
		if e.Action == audit.ActionCredentialVended {
			times = append(times, e.Time)
		}
	}
}
