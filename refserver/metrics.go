package refserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

var (
	errMetricsOff = &exchange.Error{
		Status: http.StatusNotFound, Code: "metrics_off", Text: "there are no metrics here",
		Hint: "Whoever runs this server can set a token for them.",
	}
	errMetricsToken = &exchange.Error{
		Status: http.StatusUnauthorized, Code: "unknown_token", Text: "the token is not that of the metrics",
		Hint: "Send it as Authorization: Bearer.",
	}
)

// minMetricsToken is the least length of the token for metrics: more than anybody guesses.
const minMetricsToken = 24

func (c Config) checkMetricsToken() error {
	if c.MetricsToken == nil {
		return nil
	}
	if c.MetricsToken.Len() < minMetricsToken {
		return fmt.Errorf("refserver: Config.MetricsToken must have %d characters at least", minMetricsToken)
	}
	for _, b := range c.MetricsToken.Bytes() {
		if b <= ' ' || b > '~' {
			return errors.New("refserver: Config.MetricsToken can't stand in a header")
		}
	}
	return nil
}

// watches says whether whoever asks has the token for metrics.
func (s *Server) watches(x *exchange.Exchange) bool {
	given := x.Bearer()
	if s.settings.MetricsToken == nil || given == "" {
		return false
	}
	want, got := sha256.Sum256(s.settings.MetricsToken.Bytes()), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// lags keeps how far anchors and sinks are behind for a moment: to find it out costs
// a read of every log, however many ask.
type lags struct {
	mu    sync.Mutex
	until time.Time
	last  agentkey.Lags
}

const lagsTime = 5 * time.Second

func (l *lags) get(ctx context.Context, m *agentkey.Manager, now time.Time) (agentkey.Lags, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.until) {
		return l.last, nil
	}
	found, err := m.Lags(ctx)
	if err == nil {
		l.last, l.until = found, now.Add(lagsTime)
	}
	return found, err
}

// lagItem is an anchor or a sink in the answer of /readyz.
type lagItem struct {
	Name     string  `json:"name"`
	Logs     int64   `json:"logsBehind"`
	Events   int64   `json:"eventsBehind"`
	Seconds  int64   `json:"secondsBehind"`
	At       *string `json:"lastAt"`
	Failures int     `json:"failures"`
}

func itemsOf(all []agentkey.Lag, now time.Time) []lagItem {
	items := []lagItem{}
	for _, l := range all {
		item := lagItem{Name: l.Name, Logs: l.Logs, Events: l.Events, Seconds: int64(behind(l, now).Seconds()), Failures: l.Failures}
		if !l.At.IsZero() {
			item.At = exchange.OptionalTime(l.At.UnixMicro())
		}
		items = append(items, item)
	}
	return items
}

func behind(l agentkey.Lag, now time.Time) time.Duration {
	if l.Since.IsZero() {
		return 0
	}
	return max(now.Sub(l.Since), 0)
}

// metrics is GET /metrics, in the text format of Prometheus.
func (s *Server) metrics(x *exchange.Exchange) error {
	if _, err := s.manager.AdmitAddress(x.Ctx(), x.Context.Address); err != nil {
		return err
	}
	switch {
	case s.settings.MetricsToken == nil:
		return errMetricsOff
	case !s.watches(x):
		return errMetricsToken
	}
	found, err := s.lags.get(x.Ctx(), s.manager, x.Now())
	if err != nil {
		return err
	}
	x.Header().Set("Cache-Control", "no-store")
	return x.Bytes(http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", exposition(found, x.Now()))
}

// gauges are what is told of each anchor and each sink.
var gauges = []struct {
	name, help string
	value      func(l agentkey.Lag, now time.Time) float64
}{
	{"logs_behind", "Logs that it does not have to their end.", func(l agentkey.Lag, _ time.Time) float64 { return float64(l.Logs) }},
	{"events_behind", "Committed events that it does not have, of all logs together.", func(l agentkey.Lag, _ time.Time) float64 { return float64(l.Events) }},
	{"lag_seconds", "Age of the oldest of these events; 0 when there are none.", func(l agentkey.Lag, now time.Time) float64 { return behind(l, now).Seconds() }},
	{"last_success_timestamp_seconds", "When it last took something; 0 when it never did.", func(l agentkey.Lag, _ time.Time) float64 {
		if l.At.IsZero() {
			return 0
		}
		return float64(l.At.UnixMicro()) / 1e6
	}},
	{"failures", "Attempts of this process that failed, in a row.", func(l agentkey.Lag, _ time.Time) float64 { return float64(l.Failures) }},
}

var inLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func exposition(found agentkey.Lags, now time.Time) []byte {
	var out bytes.Buffer
	for _, kind := range []struct {
		name string
		all  []agentkey.Lag
	}{{"anchor", found.Anchors}, {"sink", found.Sinks}} {
		for _, g := range gauges {
			name := "agentkey_" + kind.name + "_" + g.name
			fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s gauge\n", name, g.help, name)
			for _, l := range kind.all {
				fmt.Fprintf(&out, "%s{%s=\"%s\"} %.15g\n", name, kind.name, inLabel.Replace(l.Name), g.value(l, now))
			}
		}
	}
	return out.Bytes()
}
