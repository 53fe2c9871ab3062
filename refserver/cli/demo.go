package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// demoTime bounds the whole demo.
const demoTime = 30 * time.Second

type demoCommand struct{}

// Run plays the demo. It fails if any step differs from what it should be.
func (c *demoCommand) Run(ctx context.Context, s *session) error {
	return playDemo(ctx, s, nil)
}

// playDemo starts a real server on a temporary database and plays the loop over
// HTTP. through, unless nil, stands between the demo and that server: by it the
// tests let each step go wrong.
func playDemo(ctx context.Context, s *session, through func(http.RoundTripper) http.RoundTripper) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	began := s.options.Clock()
	d, stop, err := openDemo(ctx, s, through)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := s.say("a server at %s, its database in a temporary directory\n", d.url); err != nil {
		return err
	}
	steps := d.steps()
	for i, step := range steps {
		seen, err := step.play(ctx)
		if err != nil {
			return fmt.Errorf("step %d (%s %s) differs from what it should be: %w", i+1, step.who, step.does, err)
		}
		if err := s.say("%2d  %-13s %s\n                  %s", i+1, step.who, step.does, strings.ReplaceAll(seen, "\n", "\n                  ")); err != nil {
			return err
		}
	}
	return s.say("\nall %d steps went as they should, in %.1f s", len(steps), s.options.Clock().Sub(began).Seconds())
}

// demo is the demo's state: who plays, and what they have learned so far.
type demo struct {
	url        string
	through    func(http.RoundTripper) http.RoundTripper
	clock      func() time.Time
	admin      *client.Admin
	agent      *client.Agent
	credential *vault.Secret

	agentID string
	tool    string
	request string
	hints   []string
}

// demoStep is one step. play says what was seen, or how it differs.
type demoStep struct {
	who, does string
	play      func(context.Context) (seen string, err error)
}

func (d *demo) steps() []demoStep {
	return []demoStep{
		{"administrator", "registers the agent bot", d.register},
		{"administrator", "adds the tool Linear with its credential", d.addTool},
		{"agent", "looks at the catalog", d.catalog},
		{"agent", "fetches the credential without access", d.refusedWithout},
		{"agent", "asks for access", d.ask},
		{"agent", "fetches the credential while the request is pending", d.refusedPending},
		{"administrator", "approves the request for 8 hours", d.approve},
		{"agent", "fetches the credential", d.receive},
		{"administrator", "revokes the grant", d.revoke},
		{"agent", "fetches the credential at once", d.refusedRevoked},
		{"auditor", "reads the log", d.history},
		{"auditor", "verifies every hash and signature of the log", d.verify},
		{"auditor", "replays the log against the records", d.reconcile},
	}
}

// openDemo starts the server and makes the administrator who plays.
func openDemo(ctx context.Context, s *session, through func(http.RoundTripper) http.RoundTripper) (_ *demo, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "agentkey-demo-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	in := &installation{closers: []func() error{func() error { return os.RemoveAll(dir) }}}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	at, err := sqliteAt(filepath.Join(dir, "agentkey.db"))
	if err != nil {
		return nil, nil, err
	}
	store, closeStore, err := at.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	in.closers = slices.Insert(in.closers, 0, closeStore)
	keys, err := temporaryKey()
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if in.manager, err = agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Logger: log, Clock: s.options.Clock}); err != nil {
		return nil, nil, err
	}
	token := newToken()
	if _, err := createOrganization(ctx, in.manager, agentkey.CreateOrganizationInput{Name: "Demo", Owner: "you", Token: token}); err != nil {
		return nil, nil, err
	}
	url, stopServer, err := startServer(ctx, in.manager, log, s.options.Clock)
	if err != nil {
		return nil, nil, err
	}
	d := &demo{url: url, through: through, clock: s.options.Clock, credential: vault.NewSecret([]byte("lin_api_demo_" + rand.Text()))}
	if d.admin, err = client.NewAdmin(url, token, d.options()); err != nil {
		return nil, nil, errors.Join(err, stopServer())
	}
	return d, func() error { return errors.Join(stopServer(), in.close()) }, nil
}

func temporaryKey() (vault.KeyProvider, error) {
	key := make([]byte, vault.KeySize)
	defer clear(key)
	rand.Read(key) // never fails; it ends the program rather than return weak bytes
	return localkey.NewRing(key)
}

// startServer serves on a free loopback port until stop is called.
func startServer(ctx context.Context, m *agentkey.Manager, log *slog.Logger, clock func() time.Time) (url string, stop func() error, err error) {
	server, err := refserver.New(m, refserver.Config{Listen: "127.0.0.1:0", Logger: log, Clock: clock})
	if err != nil {
		return "", nil, err
	}
	if err := server.Listen(); err != nil {
		return "", nil, err
	}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- server.Run(running) }()
	return server.URL(), func() error { end(); return <-ended }, nil
}

// options are those of each client: connections of its own, so that none is kept
// open when the server ends.
func (d *demo) options() client.Options {
	var transport http.RoundTripper = &http.Transport{DisableKeepAlives: true}
	if d.through != nil {
		transport = d.through(transport)
	}
	return client.Options{HTTP: &http.Client{Transport: transport}, UserAgent: "agentkey-demo"}
}

// differs says how a step went otherwise than it should.
func differs(want string) error { return errors.New("it should be: " + want) }

func (d *demo) register(ctx context.Context) (string, error) {
	key, err := d.admin.RegisterAgent(ctx, client.NewAgentRecord{Name: "bot", Description: "Triages issues."})
	if err != nil {
		return "", err
	}
	d.agentID = key.Agent
	// From here on the agent plays with nothing but its key.
	if d.agent, err = client.NewAgent(d.url, key.Secret, d.options()); err != nil {
		return "", err
	}
	if _, err := d.agent.Me(ctx); err != nil {
		return "", fmt.Errorf("with its new key: %w", err)
	}
	return "its key is shown this once, and starts with access to nothing", nil
}

func (d *demo) addTool(ctx context.Context) (string, error) {
	tool, err := d.admin.AddTool(ctx, client.NewTool{Name: "Linear", URL: "linear.app", AuthType: "api_key", Mode: "shared"}, d.credential)
	if err != nil {
		return "", err
	}
	d.tool = tool.ID
	return "sealed; no administrator can read it again", nil
}

func (d *demo) catalog(ctx context.Context) (string, error) {
	tools, err := d.agent.Tools(ctx)
	if err != nil {
		return "", err
	}
	if len(tools) != 1 || tools[0].ID != d.tool || tools[0].Access != "none" {
		return "", differs("one tool, without access to it")
	}
	return "GET /api/tools → 200: Linear, your_access: none", nil
}

// fetch is the agent's one call that matters.
func (d *demo) fetch(ctx context.Context) (*client.Credential, error) {
	return d.agent.Credential(ctx, d.tool)
}

// refused fetches the credential and wants a 403 with a hint of its own.
func (d *demo) refused(ctx context.Context) (string, error) {
	c, err := d.fetch(ctx)
	if err == nil {
		c.Secret.Destroy()
		return "", differs("refused with 403, but the credential was handed out")
	}
	var answered *client.Error
	if !errors.As(err, &answered) || answered.Status != http.StatusForbidden {
		return "", fmt.Errorf("it should be refused with 403: %w", err)
	}
	if answered.Hint == "" || slices.Contains(d.hints, answered.Hint) {
		return "", differs("a hint that says what to do in just this case")
	}
	d.hints = append(d.hints, answered.Hint)
	return "GET /api/tools/" + d.tool + "/credentials → 403\nhint: " + clean(answered.Hint), nil
}

func (d *demo) refusedWithout(ctx context.Context) (string, error) { return d.refused(ctx) }
func (d *demo) refusedPending(ctx context.Context) (string, error) { return d.refused(ctx) }
func (d *demo) refusedRevoked(ctx context.Context) (string, error) { return d.refused(ctx) }

func (d *demo) ask(ctx context.Context) (string, error) {
	asked, err := d.agent.RequestAccess(ctx, d.tool, client.AccessRequest{Reason: "I triage the issues that users report."})
	if err != nil {
		return "", err
	}
	if asked.Status != "pending" || asked.ID == "" {
		return "", differs("a pending request")
	}
	d.request = asked.ID
	return "POST /api/tools/" + d.tool + "/request → 201: pending", nil
}

func (d *demo) approve(ctx context.Context) (string, error) {
	grant, err := d.admin.Approve(ctx, d.request, client.Decision{ExpiresIn: client.Seconds(8 * time.Hour)}, nil)
	if err != nil {
		return "", err
	}
	if grant.Status != "approved" || grant.ExpiresAt == nil {
		return "", differs("approved, with an end")
	}
	if off := grant.ExpiresAt.Sub(d.clock().Add(8 * time.Hour)); off.Abs() > time.Minute {
		return "", differs("approved until 8 hours from now")
	}
	return "approved until " + when(*grant.ExpiresAt), nil
}

func (d *demo) receive(ctx context.Context) (string, error) {
	c, err := d.fetch(ctx)
	if err != nil {
		return "", err
	}
	defer c.Secret.Destroy()
	if !c.Secret.Equal(d.credential) {
		return "", differs("the credential that was added")
	}
	if len(c.Receipt) == 0 {
		return "", differs("with a receipt: the vend stands in the log before the credential leaves")
	}
	return "GET /api/tools/" + d.tool + "/credentials → 200\ncredential: " + string(c.Secret.Bytes()), nil
}

func (d *demo) revoke(ctx context.Context) (string, error) {
	revoked, err := d.admin.Revoke(ctx, d.agentID, d.tool)
	if err != nil {
		return "", err
	}
	if revoked.Vends != 1 {
		return "", differs("one vend since approval")
	}
	return "revoked; fetched once since approval", nil
}

// demoHistory is what the log must hold of the agent's story, in this order.
func demoHistory() []string {
	return []string{
		"credential.refused", "grant.requested", "credential.refused", "grant.approved", "credential.vended", "grant.revoked",
		"credential.refused",
	}
}

func (d *demo) history(ctx context.Context) (string, error) {
	var actions []string
	for event, err := range d.admin.Events(ctx, client.EventQuery{Tool: d.tool}) {
		if err != nil {
			return "", err
		}
		actions = append(actions, event.Action)
	}
	slices.Reverse(actions) // the list is newest first
	story := slices.DeleteFunc(slices.Clone(actions), func(a string) bool { return strings.HasPrefix(a, "tool.") })
	if !slices.Equal(story, demoHistory()) {
		return "", differs(strings.Join(demoHistory(), ", ") + "; it is " + clean(strings.Join(story, ", ")))
	}
	return strings.Join(story, "\n"), nil
}

func (d *demo) verify(ctx context.Context) (string, error) {
	v, err := d.admin.Verify(ctx)
	if err != nil {
		return "", err
	}
	if !v.OK || v.Events < int64(len(demoHistory())) {
		return "", differs("a log without findings")
	}
	return "ok, " + plural(v.Events, "event"), nil
}

func (d *demo) reconcile(ctx context.Context) (string, error) {
	r, err := d.admin.Reconcile(ctx)
	if err != nil {
		return "", err
	}
	if !r.OK || r.Records == 0 {
		return "", differs("records that agree with the log")
	}
	return "ok, " + plural(r.Records, "record") + " agree with " + plural(r.Events, "event"), nil
}
