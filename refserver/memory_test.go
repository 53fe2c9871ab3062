package refserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// TestEndpointsHoldTheirMemory: whatever goes through a whole organization holds no
// more of it at a time when it has ten times as many agents, grants and events. With
// AGENTKEY_PROVE set it has 1,000 agents and then 10,000.
func TestEndpointsHoldTheirMemory(t *testing.T) {
	withoutRace(t)
	few, grants, events := 30, 4, 30
	if os.Getenv("AGENTKEY_PROVE") != "" {
		few, grants, events = 1_000, 16, 40 // half a million records, then
	}
	small, large := liveBytes(t, few, grants, events), liveBytes(t, 10*few, grants, events)
	for name, bytes := range small {
		room := uint64(2 << 20)
		switch {
		case name == "reconcile": // a pass holds 100,000 records
			room = 24 << 20
		case name == "retention": // which holds up to 80 bytes for each record
			room = 48 << 20
		case strings.HasPrefix(name, "export as"): // the client goes on while the server stands still
			room = 8 << 20
		}
		t.Logf("%-24s %6d KiB, %6d KiB", name, bytes>>10, large[name]>>10)
		if large[name] > bytes*5/4+room {
			t.Errorf("%s: %d bytes are live among %d agents, %d among %d", name, bytes, few, large[name], 10*few)
		}
	}
}

// through are the endpoints that go through a whole organization.
func through(s seed.Seeded, since time.Time, document string) map[string]func(url string) (*http.Request, error) {
	get := func(path string) func(string) (*http.Request, error) {
		return func(url string) (*http.Request, error) { return http.NewRequest(http.MethodGet, url+path, nil) }
	}
	send := func(method, path, contentType, body string) func(string) (*http.Request, error) {
		return func(url string) (*http.Request, error) {
			r, err := http.NewRequest(method, url+path, strings.NewReader(body))
			if err == nil {
				r.Header.Set("Content-Type", contentType)
			}
			return r, err
		}
	}
	incident := "incident?since=" + url.QueryEscape(since.UTC().Format(time.RFC3339)) + "&"
	return map[string]func(string) (*http.Request, error){
		"export": get("audit/export"), "verify": get("audit/verify"), "reconcile": get("audit/reconcile"),
		"retention": get("audit/retention/plan?contentDays=30&personalDays=30"), "erasure": send(http.MethodPost, "audit/erasure/plan", "application/json", `{"person":"`+s.Administrators[0]+`"}`),
		"inclusion": get("audit/proof/inclusion?seq=5"), "consistency": get("audit/proof/consistency?from=5"), "tail": get("audit/tail?from=0"),
		"incident of agent": get(incident + "agent=" + s.Busy), "incident of tool": get(incident + "tool=" + s.BusyTool), "incident of address": get(incident + "ip=192.0.2.7"),
		"catalog as YAML": get("config/export"), "catalog as JSON": get("config/export?format=json"),
		"import plan": send(http.MethodPut, "config/import?dryRun=1", "application/yaml", document), "import": send(http.MethodPut, "config/import", "application/yaml", document),
		"destruction": get("organization/destruction"), "keys": get("keys"), "onboarding": get("onboarding"), "notifications": get("notifications"),
	}
}

// liveBytes is how much more of the heap is live during each request than before,
// in an organization with so many grants and events for each agent.
func liveBytes(t *testing.T, agents, grants, events int) map[string]uint64 {
	t.Helper()
	ctx := t.Context()
	store := &watched{Store: dbtest.SQLite(t)(t)}
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Storage = store })
	from := k.Clock.Now()
	k.Clock.Advance(90 * 24 * time.Hour)
	made, err := seed.Fill(ctx, seed.Config{Manager: k.Manager, Store: store, Keys: k.Config.Keys, Actor: k.Owner, From: from, To: k.Clock.Now()},
		seed.Counts{Agents: agents, Tools: 120, Grants: grants * agents, Events: events * agents})
	fatal(t, err)
	index(t, store, k.Organization.ID)
	token, err := k.CreateToken(ctx, k.Owner, agentkey.CreateTokenInput{Name: "for HTTP"})
	fatal(t, err)
	s, err := refserver.New(k.Manager, refserver.Config{Listen: "127.0.0.1:0"})
	fatal(t, err)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	client := &http.Client{Transport: bearer(string(token.Secret.Bytes()))}
	var document bytes.Buffer
	fatal(t, fetched(client, server.URL, through(made, from, "")["catalog as YAML"], func(body io.Reader) error {
		_, err := io.Copy(&document, body)
		return err
	}))
	out := map[string]uint64{}
	all := through(made, from, document.String())
	discard := func(body io.Reader) error { _, err := io.Copy(io.Discard, body); return err }
	for name, request := range all {
		out[name] = store.live(t, func() error { return fetched(client, server.URL, request, discard) })
	}
	out["export as CSV"] = store.live(t, func() error {
		return fetched(client, server.URL, all["export"], func(body io.Reader) error { return view(ctx, body, false) })
	})
	out["export as OCSF"] = store.live(t, func() error {
		return fetched(client, server.URL, all["export"], func(body io.Reader) error { return view(ctx, body, true) })
	})
	return out
}

// view makes a view of an export as it arrives.
func view(ctx context.Context, body io.Reader, ocsf bool) error {
	log, err := audit.NewExportReader(body)
	if err != nil {
		return err
	}
	if ocsf {
		return audit.ExportOCSF(ctx, io.Discard, log.Header().Origin, log)
	}
	return audit.ExportCSV(ctx, io.Discard, log)
}

// bearer sends a token with every request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// fetched sends a request and has its answer read.
func fetched(client *http.Client, url string, request func(string) (*http.Request, error), read func(io.Reader) error) error {
	r, err := request(url + "/api/admin/")
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusServiceUnavailable { // late, on a busy machine
		return fetched(client, url, request, read)
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		return errors.New(r.URL.Path + ": " + res.Status + ": " + string(text))
	}
	return read(res.Body)
}

// watched is a storage that collects garbage in the middle of every read, while
// whoever reads stands still, and so sees what is live then.
type watched struct {
	*bunstore.Store
	on   atomic.Bool
	most uint64
}

func (w *watched) View(ctx context.Context, organization string, fn func(context.Context, storage.ReadTx) error) error {
	return w.Store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) error {
		err := fn(ctx, tx)
		w.look()
		return err
	})
}

func (w *watched) Events(ctx context.Context, organization string, q storage.EventQuery) (storage.EventPage, error) {
	page, err := w.Store.Events(ctx, organization, q)
	w.look()
	return page, err
}

func (w *watched) look() {
	if !w.on.Load() {
		return
	}
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	w.most = max(w.most, sample[0].Value.Uint64())
}

// live is the most that was live while fn ran, without what was before.
func (w *watched) live(t *testing.T, fn func() error) uint64 {
	t.Helper()
	fatal(t, fn()) // prepares statements, unwraps keys, makes tiles
	w.on.Store(true)
	defer w.on.Store(false)
	w.most = 0
	w.look()
	before := w.most
	fatal(t, fn())
	return w.most - before
}
