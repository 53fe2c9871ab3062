// Package servertest makes a server over a real Manager in memory, for the tests
// of the packages that speak HTTP.
package servertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// Start is the time at which every test begins.
var start = time.Date(2026, 11, 23, 6, 40, 14, 128_000_000, time.UTC)

// Clock is a clock that a test moves. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now tells the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock on.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Log keeps what was logged. It is safe for concurrent use.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write keeps p.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Options say how a Fixture differs from a server with every default.
type Options struct {
	Store    storage.Store      // nil: memstore
	Keys     vault.KeyProvider  // nil: one random local key
	Policies ratelimit.Policies // nil: the defaults
	Anchors  []agentkey.Anchor  // nil: none
	Sinks    []agentkey.SinkConfig
	Config   refserver.Config // Logger and Clock are set by New
}

// Unlimited are policies that let everything pass.
func Unlimited() ratelimit.Policies {
	p := ratelimit.Policies{}
	for _, tier := range ratelimit.Tiers() {
		p[tier] = ratelimit.Policy{}
	}
	return p
}

// Fixture is a server with one organization.
type Fixture struct {
	T            testing.TB
	Manager      *agentkey.Manager
	Server       *refserver.Server
	Handler      http.Handler
	Clock        *Clock
	Log          *Log
	Organization string
	Owner        string // the first owner's token
	OwnerID      string
}

// New makes a server. It ends with the test.
func New(t testing.TB, o Options) *Fixture {
	t.Helper()
	f := &Fixture{T: t, Clock: &Clock{now: start}, Log: &Log{}}
	if o.Keys == nil {
		key := make([]byte, 32)
		rand.Read(key)
		keys, err := localkey.NewRing(key)
		f.check(err)
		o.Keys = keys
	}
	if o.Store == nil {
		o.Store = memstore.New()
	}
	logger := slog.New(slog.NewTextHandler(f.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx := context.Background()
	var err error
	for range 10 { // the database of a busy machine may answer late
		f.Manager, err = agentkey.New(ctx, agentkey.Config{
			Storage: o.Store, Keys: o.Keys, Policies: o.Policies, Clock: f.Clock.Now, Logger: logger, Node: "test",
			Anchors: o.Anchors, Sinks: o.Sinks,
		})
		if !errors.Is(err, agentkey.ErrStorage) {
			break
		}
	}
	f.check(err)
	t.Cleanup(func() { _ = f.Manager.Close(ctx) })
	o.Config.Logger, o.Config.Clock = logger, f.Clock.Now
	f.Server, err = refserver.New(f.Manager, o.Config)
	f.check(err)
	f.Handler = Checked(t, f.Server.Handler())
	f.Organization, f.OwnerID, f.Owner = f.CreateOrganization("Example")
	return f
}

func (f *Fixture) check(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

// CreateOrganization makes another organization and gives its owner's token.
func (f *Fixture) CreateOrganization(name string) (id, owner, token string) {
	f.T.Helper()
	o, err := f.Manager.CreateOrganization(context.Background(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: name, Owner: "owner@example.com"})
	f.check(err)
	return o.Organization.ID, o.Administrator.ID, string(o.Token.Secret.Bytes())
}

// Request is a request to the handler. Without a Body there is no content type.
type Request struct {
	Method, Path, Token, Body string
	Header                    http.Header // replaces what Token and Body set
	Peer                      string      // HOST:PORT; empty: 192.0.2.1:1234
}

// Response is what came back.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Send sends a request straight to the handler.
func (f *Fixture) Send(r Request) Response {
	f.T.Helper()
	var req *http.Request
	if r.Body == "" {
		req = httptest.NewRequest(r.Method, r.Path, nil)
	} else {
		req = httptest.NewRequest(r.Method, r.Path, strings.NewReader(r.Body))
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if r.Peer != "" {
		req.RemoteAddr = r.Peer
	}
	w := httptest.NewRecorder()
	f.Handler.ServeHTTP(w, req)
	return Response{w.Code, w.Result().Header, w.Body.String()}
}

// Do sends a request with a token and a body.
func (f *Fixture) Do(method, path, token, body string) Response {
	f.T.Helper()
	return f.Send(Request{Method: method, Path: path, Token: token, Body: body})
}

// Must is Do for what has to succeed; it gives the body's data, or the body
// itself where there is no envelope.
func (f *Fixture) Must(status int, method, path, token, body string) map[string]any {
	f.T.Helper()
	res := f.Do(method, path, token, body)
	if res.Status != status {
		f.T.Fatalf("%s %s: status %d, body %s", method, path, res.Status, res.Body)
	}
	return res.Object(f.T)
}

// Object is the body's data, or the body itself where there is no envelope.
func (r Response) Object(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.Body), &v); err != nil {
		t.Fatalf("body is no object: %v", err)
	}
	if inner, found := v["data"].(map[string]any); found {
		return inner
	}
	return v
}

// Items is the list in the body's data.
func (r Response) Items(t testing.TB) []map[string]any {
	t.Helper()
	var v struct {
		Data []map[string]any `json:"data"`
	}
	if err := json.Unmarshal([]byte(r.Body), &v); err != nil {
		t.Fatalf("body is no list: %v", err)
	}
	return v.Data
}

// Agent makes an agent.
func (f *Fixture) Agent(name string) (id, key string) {
	f.T.Helper()
	o := f.Must(http.StatusCreated, http.MethodPost, "/api/admin/agents", f.Owner, `{"name":"`+name+`"}`)
	return o["agent_id"].(string), o["api_key"].(string)
}

// Tool makes a tool with a shared credential.
func (f *Fixture) Tool(name, credential string) (id string) {
	f.T.Helper()
	text, err := json.Marshal(credential)
	f.check(err)
	o := f.Must(http.StatusCreated, http.MethodPost, "/api/admin/tools", f.Owner, `{"name":"`+name+`","credential":`+string(text)+`}`)
	return o["id"].(string)
}

// Approved makes an agent's request for a tool and approves it.
func (f *Fixture) Approved(key, tool string) (request string) {
	f.T.Helper()
	o := f.Must(http.StatusCreated, http.MethodPost, "/api/tools/"+tool+"/request", key, `{"reason":"needed for the test"}`)
	request = o["request_id"].(string)
	f.Must(http.StatusOK, http.MethodPost, "/api/admin/requests/"+request+"/approve", f.Owner, `{}`)
	return request
}

// Administrator makes an administrator of a role, with a token.
func (f *Fixture) Administrator(role agentkey.Role) (id, token string) {
	f.T.Helper()
	o := f.Must(http.StatusCreated, http.MethodPost, "/api/admin/administrators", f.Owner,
		`{"label":"`+string(role)+`@example.com","role":"`+string(role)+`"}`)
	id = o["id"].(string)
	o = f.Must(http.StatusCreated, http.MethodPost, "/api/admin/tokens", f.Owner, `{"administrator":"`+id+`","name":"test"}`)
	return id, o["token"].(string)
}
