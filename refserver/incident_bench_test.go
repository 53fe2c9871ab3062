package refserver_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
)

// BenchmarkIncident measures, over HTTP and on SQLite, from the report of a leaked
// key or the call for a lockdown to the first refused vend: an agent that holds access
// vends before, and is refused after. The leaked key is of an agent with 20 grants. The
// organization has 10,000 agents and 50,000 grants with AGENTKEY_PROVE set, otherwise a
// fiftieth of that. longest-ms is the longest that it took.
func BenchmarkIncident(b *testing.B) {
	n := seed.Counts{Agents: 10_000, Tools: 100, Grants: 50_000, Events: 20_000}
	if os.Getenv("AGENTKEY_PROVE") == "" {
		n = seed.Counts{Agents: n.Agents / 50, Tools: n.Tools, Grants: n.Grants / 50, Events: n.Events / 50}
	}
	c := newCrowd(b, b.TempDir(), n)
	s, err := refserver.New(c.Manager, refserver.Config{Listen: "127.0.0.1:0", LeakReports: true})
	fatal(b, err)
	serve(b, s)
	tools := make([]agentkey.Tool, 20)
	for i := range tools {
		tools[i] = c.Tool(fmt.Sprintf("Tool of an incident %d", i), "lin_api_test_incident")
	}
	admin := func(path, body string) *http.Request {
		return post(b, s.URL()+"/api/admin/"+path, c.Token, body)
	}
	made := 0
	agent := func() (key string, vend func(want int)) {
		made++
		issued, err := c.RegisterAgent(b.Context(), c.Owner, agentkey.RegisterAgentInput{Name: fmt.Sprintf("agent of an incident %d", made)})
		fatal(b, err)
		for _, tool := range tools {
			c.Allow(issued.Agent, tool)
		}
		key = string(issued.Secret.Bytes())
		return key, func(want int) {
			r := get(b, s.URL()+"/api/tools/"+tools[0].ID+"/credentials")
			r.Header.Set("Authorization", "Bearer "+key)
			answered(b, r, want)
		}
	}
	b.Run("leak", func(b *testing.B) {
		longest(b, func() func() {
			key, vend := agent()
			vend(http.StatusOK)
			return func() {
				answered(b, post(b, s.URL()+"/leaked-keys", "", `[{"token":"`+key+`","source":"commit"}]`), http.StatusOK)
				vend(http.StatusUnauthorized)
			}
		})
	})
	b.Run("lockdown", func(b *testing.B) {
		_, vend := agent()
		longest(b, func() func() {
			answered(b, admin("organization/unlock", `{}`), http.StatusOK)
			vend(http.StatusOK)
			return func() {
				answered(b, admin("organization/lock", `{"reason":"an incident"}`), http.StatusOK)
				vend(http.StatusForbidden)
			}
		})
	})
}

// longest measures what prepare answers, and not prepare, and reports the longest time.
func longest(b *testing.B, prepare func() func()) {
	var most time.Duration
	for b.Loop() {
		b.StopTimer()
		act := prepare()
		begun := time.Now()
		b.StartTimer()
		act()
		most = max(most, time.Since(begun))
	}
	b.ReportMetric(float64(most.Microseconds())/1000, "longest-ms")
}

func post(b *testing.B, url, token, body string) *http.Request {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(body))
	fatal(b, err)
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func answered(b *testing.B, r *http.Request, want int) {
	b.Helper()
	res, err := http.DefaultTransport.RoundTrip(r)
	fatal(b, err)
	fatal(b, res.Body.Close())
	if res.StatusCode != want {
		b.Fatalf("%s %s: status %d", r.Method, r.URL.Path, res.StatusCode)
	}
}
