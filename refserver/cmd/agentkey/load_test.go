package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// load is clients that request, approve, vend and revoke, over and over, whatever
// becomes of the server meanwhile. It remembers every answer that is none of the
// API's, and every vend.
type load struct {
	admin  *client.Admin
	worker []*worker
	tool   string
	secret string

	served atomic.Int64 // operations that were answered well
	away   atomic.Int64 // operations that were answered 503
	cut    atomic.Int64 // operations that were not answered

	mu      sync.Mutex
	vends   []vendSeen
	wrong   []string
	slowest time.Duration
	since   time.Time // what counts for slowest begins here
}

// worker is one client: an agent, and an administrator who decides for it.
type worker struct {
	load  *load
	agent *client.Agent
	admin *client.Admin
	id    string
	key   *vault.Secret
}

// vendSeen is a credential that a client received.
type vendSeen struct {
	agent string
	index int64
	leaf  string

	receipt json.RawMessage
}

// patient is longer than any answer may take.
const patient = 20 * time.Second

// newLoad makes clients, by turns of the servers at the URLs.
func newLoad(t *testing.T, token *vault.Secret, clients int, urls ...string) *load {
	t.Helper()
	l := &load{secret: "lin_api_test_" + nameOf("load")}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 2 * clients
	t.Cleanup(transport.CloseIdleConnections)
	options := client.Options{HTTP: &http.Client{Transport: transport, Timeout: patient}, MaxWait: -1}
	var admins []*client.Admin
	for _, url := range urls {
		admin, err := client.NewAdmin(url, token, options)
		if err != nil {
			t.Fatal(err)
		}
		admins = append(admins, admin)
	}
	l.admin = admins[0]
	tool, err := l.admin.AddTool(t.Context(),
		client.NewTool{Name: nameOf("Tool"), AuthType: "api_key", Mode: string(storage.Shared)}, vault.NewSecret([]byte(l.secret)))
	if err != nil {
		t.Fatal(err)
	}
	l.tool = tool.ID
	for i := range clients {
		issued, err := l.admin.RegisterAgent(t.Context(), client.NewAgentRecord{Name: nameOf("agent")})
		if err != nil {
			t.Fatal(err)
		}
		agent, err := client.NewAgent(urls[i%len(urls)], issued.Secret, options)
		if err != nil {
			t.Fatal(err)
		}
		l.worker = append(l.worker, &worker{load: l, agent: agent, admin: admins[i%len(urls)], id: issued.Agent, key: issued.Secret})
	}
	return l
}

// run sets the clients to work until stop is called.
func (l *load) run(t *testing.T) (stop func()) { return l.each(t, (*worker).cycle) }

// each has every client do some work over and over until stop is called.
func (l *load) each(t *testing.T, work func(w *worker, ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for _, w := range l.worker {
		working.Go(func() {
			for ctx.Err() == nil {
				work(w, ctx)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); working.Wait() })
	t.Cleanup(stop)
	return stop
}

// cycle is one life of a grant, as far as it comes.
func (w *worker) cycle(ctx context.Context) {
	l := w.load
	asked, err := timed(ctx, l, "request", func() (client.Requested, error) {
		return w.agent.RequestAccess(ctx, l.tool, client.AccessRequest{Reason: "to file issues"})
	})
	if err == nil {
		_, err = timed(ctx, l, "approve", func() (client.Grant, error) { return w.admin.Approve(ctx, asked.ID, client.Decision{}, nil) })
	} else if errors.Is(err, &client.Error{Status: http.StatusConflict}) { // what was cut off has been done after all
		_, err = timed(ctx, l, "assign", func() (client.Grant, error) { return w.admin.Assign(ctx, w.id, l.tool, client.Decision{}, nil) })
	}
	for i := 0; i < 3 && err == nil; i++ {
		err = w.vend(ctx)
	}
	if err == nil {
		_, err = timed(ctx, l, "revoke", func() (client.Revoked, error) { return w.admin.Revoke(ctx, w.id, l.tool) })
	}
	if err != nil {
		pause(ctx, 30*time.Millisecond)
	}
}

func (w *worker) vend(ctx context.Context) error { return w.vendTool(ctx, w.load.tool) }

func (w *worker) vendTool(ctx context.Context, tool string) error {
	l := w.load
	got, err := timed(ctx, l, "vend", func() (*client.Credential, error) { return w.agent.Credential(ctx, tool) })
	if err != nil {
		return err
	}
	defer got.Secret.Destroy()
	var receipt struct {
		Index int64  `json:"log_index"`
		Leaf  string `json:"leaf_hash"`
	}
	if err := json.Unmarshal(got.Receipt, &receipt); err != nil || string(got.Secret.Bytes()) != l.secret {
		l.fault("a vend gave another credential, or no receipt")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vends = append(l.vends, vendSeen{agent: w.id, index: receipt.Index, leaf: receipt.Leaf, receipt: got.Receipt})
	return nil
}

// timed makes a call and judges its answer.
func timed[T any](ctx context.Context, l *load, what string, call func() (T, error)) (T, error) {
	began := time.Now()
	v, err := call()
	if ctx.Err() == nil { // else it was cut off by the end of the test
		l.judge(what, err, began)
	}
	return v, err
}

func (l *load) judge(what string, err error, began time.Time) {
	var answer *client.Error
	switch {
	case err == nil:
		l.served.Add(1)
	case errors.Is(err, client.ErrAnswer):
		l.fault(what + ": an answer that is none of the API's")
	case !errors.As(err, &answer):
		l.cut.Add(1)
	case answer.Status == http.StatusServiceUnavailable && answer.RetryAfter > 0:
		l.away.Add(1)
	case answer.Status >= 500:
		l.fault(fmt.Sprintf("%s: status %d, Retry-After %v: %s", what, answer.Status, answer.RetryAfter, answer.Message))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if began.Before(l.since) {
		began = l.since
	}
	l.slowest = max(l.slowest, time.Since(began))
}

func (l *load) fault(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, text)
}

// takeSlowest answers the longest that a call took since it was asked last. Of a
// call that was under way then, what came before does not count.
func (l *load) takeSlowest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	slowest := l.slowest
	l.slowest, l.since = 0, time.Now()
	return slowest
}

// advance waits until so many more operations were answered well.
func (l *load) advance(t *testing.T, n int64) {
	t.Helper()
	from := l.served.Load()
	until(t, time.Minute, "the clients get on", func() bool { return l.served.Load() >= from+n })
}

// check wants every answer to have been one of the API's, every credential that
// a client received to stand in the log as its receipt says, and the log to be
// whole and to replay to the records. The load must have ended.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d operations, %d vends, %d answered 503, %d cut off", l.served.Load(), len(l.vends), l.away.Load(), l.cut.Load())
	for _, w := range l.wrong[:min(len(l.wrong), 10)] {
		t.Error(w)
	}
	if len(l.vends) == 0 {
		t.Error("no credential was vended: this shows nothing")
	}
	vended := vendedEvents(t, l.admin)
	for _, v := range l.vends {
		if e, ok := vended[v.index]; !ok || e.leaf != v.leaf || e.agent != v.agent {
			t.Errorf("a credential was received, and there is no such event at %d", v.index)
		}
		delete(vended, v.index) // one event stands for one vend
	}
	report, err := l.admin.Reconcile(t.Context())
	if err != nil || !report.OK {
		t.Errorf("the log does not replay to the records: %v %+v", err, report)
	}
}

// vendedEvents exports the log, verifies it, and answers its vends.
func vendedEvents(t *testing.T, admin *client.Admin) map[int64]vendSeen {
	t.Helper()
	vended := make(map[int64]vendSeen)
	eachEvent(t, admin, func(event audit.Event, leaf string) {
		if event.Action == audit.ActionCredentialVended && event.Outcome == audit.OutcomeOK {
			vended[event.Seq] = vendSeen{agent: event.Agent, index: event.Seq, leaf: leaf}
		}
	})
	return vended
}

// eachEvent exports the log, verifies it, and goes through its events.
func eachEvent(t *testing.T, admin *client.Admin, see func(event audit.Event, leaf string)) {
	t.Helper()
	key, err := admin.PublicKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifiers, err := audit.NewVerifiers(key)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := admin.Export(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	entries, err := audit.NewExportReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	installation, organization, _, err := audit.ParseOrigin(entries.Header().Origin)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(t.Context(), audit.Log{
		Installation: installation, Organization: organization, Entries: entries, Verifiers: verifiers,
	})
	if err != nil || !report.OK() {
		t.Errorf("the log does not verify: %v %v", err, report.Findings)
	}
	if entries, err = audit.NewExportReader(bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := entries.Next(t.Context())
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Line == nil {
			continue
		}
		event, err := audit.Parse(entry.Line.Content)
		if err != nil {
			t.Fatal(err)
		}
		see(event, entry.Line.Leaf.String())
	}
}

// spread says how long something took, over many times, and wants none of them to
// be longer than allowed.
func spread(t *testing.T, what string, times []time.Duration, allowed time.Duration) {
	t.Helper()
	slices.Sort(times)
	t.Logf("%s: median %v, p99 %v, longest %v of %d", what, percentile(times, 50), percentile(times, 99), times[len(times)-1], len(times))
	if longest := times[len(times)-1]; longest > allowed {
		t.Errorf("%s: %v, and may take %v", what, longest, allowed)
	}
}
