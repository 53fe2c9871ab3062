package refserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const metricsToken = "metrics_token_test_0123456789"

// place is an anchor or a sink that is away, or takes everything.
type place struct{ away bool }

func (p *place) Name() string { return `file:/heads "1"` }

func (p *place) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	if p.away {
		return errors.New("away")
	}
	return h.FollowsUnseen()
}

func (p *place) Ship(context.Context, audit.Batch) error {
	if p.away {
		return errors.New("away")
	}
	return nil
}

// What is behind is told to whoever has the token, and to nobody else.
func TestMetrics(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	anchor, sink := &place{away: true}, &place{}
	f := servertest.New(t, servertest.Options{
		Anchors: []agentkey.Anchor{anchor}, Sinks: []agentkey.SinkConfig{{Name: "siem", Sink: sink}},
		Config: refserver.Config{MetricsToken: vault.NewSecret([]byte(metricsToken))},
	})
	is.NoErr(f.Manager.Ship(t.Context()))
	f.Clock.Add(90 * time.Second)
	_, _ = f.Agent("bot")

	text := f.Do("GET", "/metrics", metricsToken, "")
	is.Equal(text.Status, http.StatusOK)
	is.Equal(text.Header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
	for _, line := range []string{
		"# TYPE agentkey_anchor_events_behind gauge",
		`agentkey_anchor_logs_behind{anchor="file:/heads \"1\""} 2`,
		`agentkey_anchor_lag_seconds{anchor="file:/heads \"1\""} 90`,
		`agentkey_anchor_last_success_timestamp_seconds{anchor="file:/heads \"1\""} 0`,
		`agentkey_anchor_failures{anchor="file:/heads \"1\""} 1`,
		`agentkey_sink_events_behind{sink="siem"} 1`,
		`agentkey_sink_lag_seconds{sink="siem"} 0`,
		`agentkey_sink_last_success_timestamp_seconds{sink="siem"} 1795416014.128`,
	} {
		if !strings.Contains(text.Body, line+"\n") {
			t.Errorf("no line %s in\n%s", line, text.Body)
		}
	}

	var ready struct {
		Status         string
		Anchors, Sinks []struct {
			Name                        string
			EventsBehind, SecondsBehind int64
			LastAt                      *string
			Failures                    int
		}
	}
	read := func(token string) {
		t.Helper()
		ready.Anchors, ready.Sinks = nil, nil
		answer := f.Do("GET", "/readyz", token, "")
		is.Equal(answer.Status, http.StatusOK) // ready in spite of what is behind
		is.NoErr(json.Unmarshal([]byte(answer.Body), &ready))
		is.Equal(ready.Status, "ok")
	}
	read(metricsToken)
	is.Equal(ready.Anchors[0].SecondsBehind, int64(90))
	is.Equal(ready.Anchors[0].LastAt, nil)
	is.Equal(ready.Anchors[0].Failures, 1)
	is.Equal(ready.Sinks[0].EventsBehind, int64(1))
	is.True(ready.Sinks[0].LastAt != nil)
	is.NoErr(f.Manager.Ship(t.Context()))
	read(metricsToken)
	is.Equal(ready.Sinks[0].EventsBehind, int64(1)) // it is looked at every few seconds only
	f.Clock.Add(10 * time.Second)
	read(metricsToken)
	is.Equal(ready.Sinks[0].EventsBehind, int64(0))

	for _, token := range []string{"", f.Owner, metricsToken + "x", "nonsense"} {
		is.Equal(f.Do("GET", "/metrics", token, "").Status, http.StatusUnauthorized)
		read(token)
		is.Equal(len(ready.Anchors)+len(ready.Sinks), 0)
	}
	is.True(!strings.Contains(f.Log.String(), metricsToken))
}

func TestMetricsAreOff(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{})
	is.Equal(f.Do("GET", "/metrics", metricsToken, "").Status, http.StatusNotFound)
	for _, token := range []string{"", "short", strings.Repeat("x", 23), "two words that are long enough", strings.Repeat("ü", 20)} {
		err := refserver.Config{MetricsToken: vault.NewSecret([]byte(token))}.Validate()
		is.True(err != nil && (token == "" || !strings.Contains(err.Error(), token)))
	}
}
