package agentkey_test

import (
	"context"
	"errors"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/internal/faultstore"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// patience is how long a caller of an operation under fault waits.
const patience = 12 * time.Second

// scene is a Manager over a storage that can fail, with a second one beside it
// that sees the same storage without faults.
type scene struct {
	*agentkeytest.Kit
	t       *testing.T
	inner   *memstore.Store
	faults  *faultstore.Store
	keys    *watchedKeys
	witness *agentkey.Manager
	others  []*agentkey.Manager // that an operation is tried on in place of the Kit's
	notes   *notes

	bot, canary         agentkey.Agent
	botKey, canaryKey   agentkey.Caller
	linear, canarysTool agentkey.Tool
	grant               agentkey.Grant // of bot to linear
}

// watchedKeys is a key provider that must never be asked while a head is held.
type watchedKeys struct {
	vault.KeyProvider
	t testing.TB

	mu    sync.Mutex
	asked int
	fault func(ctx context.Context) error // nil: it answers
}

func (k *watchedKeys) look(ctx context.Context) error {
	k.mu.Lock()
	k.asked++
	fault := k.fault
	k.mu.Unlock()
	if faultstore.Holding(ctx) {
		k.t.Error("the key provider was asked while a log head was held")
	}
	if fault != nil {
		return fault(ctx)
	}
	return nil
}

// breaks lets the provider fail, or answer again.
func (k *watchedKeys) breaks(fault func(ctx context.Context) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault, k.asked = fault, 0
}

// calls is how often the provider was asked since the last breaks.
func (k *watchedKeys) calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *watchedKeys) CurrentKey(ctx context.Context) (string, error) {
	if err := k.look(ctx); err != nil {
		return "", err
	}
	return k.KeyProvider.CurrentKey(ctx)
}

func (k *watchedKeys) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if err := k.look(ctx); err == errGarbled {
		return vault.Wrapped{Provider: "garbled", Blob: []byte("no wrapped key at all")}, nil
	} else if err != nil {
		return vault.Wrapped{}, err
	}
	return k.KeyProvider.WrapKey(ctx, key, c)
}

func (k *watchedKeys) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	if err := k.look(ctx); err == errGarbled {
		return []byte("thirty-two bytes that are no key"), nil
	} else if err != nil {
		return nil, err
	}
	return k.KeyProvider.UnwrapKey(ctx, w, c)
}

// errGarbled is the fault of a provider that answers, and wrongly.
var errGarbled = errors.New("garbled")

// notes is a Notifier that counts.
type notes struct {
	ids  []string
	fail error
}

func (n *notes) Notify(_ context.Context, x agentkey.Notification) error {
	n.ids = append(n.ids, x.ID)
	return n.fail
}

func newScene(t *testing.T, options ...func(*agentkey.Config)) *scene {
	t.Helper()
	inner := memstore.New()
	faults := faultstore.New(inner)
	s := &scene{t: t, inner: inner, faults: faults, notes: &notes{}}
	s.keys = &watchedKeys{KeyProvider: agentkeytest.Keys(t), t: t}
	s.Kit = agentkeytest.New(t, append([]func(*agentkey.Config){func(c *agentkey.Config) {
		c.Storage, c.Keys, c.Notifier = faults, s.keys, s.notes
	}}, options...)...)
	var err error
	s.witness, err = agentkey.New(t.Context(), agentkey.Config{
		Storage: inner, Keys: s.keys, Clock: s.Clock.Now, Node: "witness", Policies: agentkeytest.Unlimited(),
	})
	s.noErr(err)
	s.bot, s.botKey = s.Agent("bot")
	s.canary, s.canaryKey = s.Agent("canary")
	s.linear = s.Tool("Linear", "lin_api_test_1")
	s.canarysTool = s.Tool("Canary", "can_api_test_1")
	s.grant = s.Allow(s.bot, s.linear)
	s.Allow(s.canary, s.canarysTool)
	return s
}

func (s *scene) noErr(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// ask lets bot ask for a tool.
func (s *scene) ask(tool agentkey.Tool) agentkey.Grant {
	s.t.Helper()
	g, err := s.RequestAccess(s.t.Context(), s.botKey, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
	s.noErr(err)
	return g
}

// perAgent adds a tool whose credentials belong to grants.
func (s *scene) perAgent(name string) agentkey.Tool {
	s.t.Helper()
	v, err := s.AddTool(s.t.Context(), s.Owner, agentkey.AddToolInput{Name: name, AuthType: "api_key", Mode: storage.PerAgent})
	s.noErr(err)
	return v.Tool
}

// lines reads an organization's whole log around the faults.
func (s *scene) lines(organization string) (out []audit.Line) {
	s.t.Helper()
	for {
		var page []audit.Line
		err := s.inner.View(context.Background(), organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			page, err = tx.Lines(ctx, int64(len(out)), storage.MaxPage)
			return err
		})
		s.noErr(err)
		if out = append(out, page...); len(page) < storage.MaxPage {
			return out
		}
	}
}

// logs names every event there is, by organization.
func (s *scene) logs() map[string][]string {
	s.t.Helper()
	ids, err := s.inner.Organizations(context.Background(), "", 100)
	s.noErr(err)
	out := make(map[string][]string)
	for _, id := range ids {
		for _, l := range s.lines(id) {
			e, err := audit.Parse(l.Content)
			s.noErr(err)
			out[id] = append(out[id], string(e.Action))
		}
	}
	return out
}

// added names the events that came after before, sorted, without data_key.rolled,
// which comes before the operation that needs the next key.
func (s *scene) added(before map[string][]string) []string {
	s.t.Helper()
	var out []string
	for id, actions := range s.logs() {
		place := id
		switch {
		case id == s.Organization.ID:
			place = "own"
		case before[id] == nil:
			place = "new"
		}
		for _, a := range actions[len(before[id]):] {
			if a != string(audit.ActionDataKeyRolled) {
				out = append(out, place+" "+a)
			}
		}
	}
	slices.Sort(out)
	return out
}

// outcome is what an operation under fault came to.
type outcome struct {
	answer any
	err    error
	took   time.Duration
	added  []string
}

func (s *scene) run(call func(context.Context) (any, error), p faultstore.Plan) outcome {
	s.t.Helper()
	before := s.logs()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.faults.Arm(p)
	began := time.Now()
	answer, err := call(ctx)
	o := outcome{answer: answer, err: err, took: time.Since(began)}
	s.faults.Disarm()
	o.added = s.added(before)
	return o
}

// consistent fails unless logs and records agree and every head is as signed.
func (s *scene) consistent(cutOff bool) {
	s.t.Helper()
	operator := agentkey.Operator("test")
	for _, a := range []agentkey.Actor{s.Owner, operator} {
		a = asHost(a)
		report, err := s.witness.Verify(context.Background(), a)
		s.noErr(err)
		if !report.OK() {
			s.t.Fatalf("verify: %+v", report)
		}
		r, err := s.witness.Reconcile(context.Background(), a)
		s.noErr(err)
		for _, f := range r.Findings {
			if !cutOff || f.Kind != audit.KindOrganization || a.Organization != storage.System {
				s.t.Fatalf("reconcile: %+v", f)
			}
		}
	}
	if !cutOff {
		s.outbox()
	}
}

// asHost is the same owner, vouched for by the host: no token is looked up.
func asHost(a agentkey.Actor) agentkey.Actor {
	return agentkey.Actor{Organization: a.Organization, Kind: a.Kind, ID: a.ID, Role: agentkey.RoleOwner, Auth: "host"}
}

// outbox fails unless there is one notification for each request and for each
// suggestion that became pending, and for each leak that ended something.
func (s *scene) outbox() {
	s.t.Helper()
	asked, sent := 0, 0
	for _, l := range s.lines(s.Organization.ID) {
		e, err := audit.Parse(l.Content)
		s.noErr(err)
		switch e.Action {
		case audit.ActionGrantRequested, audit.ActionToolSuggestionCreated, audit.ActionToolInstructionSuggestionCreated:
			asked++
		case audit.ActionToolSuggestionSupported:
			if e.From == string(agentkey.SuggestionDismissed) {
				asked++
			}
		case audit.ActionAgentKeyLeaked, audit.ActionTokenLeaked:
			if e.Details["in_use"] == "true" {
				asked++
			}
		case audit.ActionNotificationSent:
			sent++
		}
	}
	later := agentkeytest.Epoch.Add(1000 * time.Hour).UnixMicro()
	left, err := s.inner.Lease(context.Background(), storage.LeaseQuery{Now: later, Until: later + 1, Node: "test", Limit: 100})
	s.noErr(err)
	if asked != sent+len(left) {
		s.t.Fatalf("%d requests, %d notifications sent and %d waiting", asked, sent, len(left))
	}
}

// revealed fails unless what left is what the log says has left.
func (s *scene) revealed(o outcome) {
	s.t.Helper()
	v, ok := o.answer.(*agentkey.Vended)
	if !ok || v == nil {
		if o.err != nil && carriesSecret(o.answer) {
			s.t.Fatalf("%T was answered with an error", o.answer)
		}
		return
	}
	if o.err != nil {
		s.t.Fatal("a vend was answered with an error")
	}
	lines := s.lines(s.Organization.ID)
	seq := v.Receipt.Index
	if seq < 0 || seq >= int64(len(lines)) {
		s.t.Fatalf("vended without event %d", seq)
	}
	l := lines[seq]
	e, err := audit.Parse(l.Content)
	s.noErr(err)
	verifiers, err := audit.NewVerifiers(s.Manager.PublicKey())
	s.noErr(err)
	_, err = v.Receipt.Verify(verifiers)
	s.noErr(err)
	if l.Leaf != v.Receipt.Leaf || e.Action != audit.ActionCredentialVended || e.Agent != s.bot.ID || e.Tool != v.Tool.ID {
		s.t.Fatalf("event %d does not record the vend: %s", seq, l.Content)
	}
	if !strings.Contains(string(v.Credential.Bytes()), "_api_test_") {
		s.t.Fatal("vended something else than the credential")
	}
}

func carriesSecret(answer any) bool {
	switch a := answer.(type) {
	case agentkey.IssuedKey:
		return a.Secret != nil
	case agentkey.IssuedToken:
		return a.Secret != nil
	case agentkey.CreatedOrganization:
		return a.Token.Secret != nil
	}
	return false
}

// recovered fails unless a vend works at once now that the faults are over.
func (s *scene) recovered() {
	s.t.Helper()
	v, err := s.Vend(context.Background(), s.canaryKey, s.canarysTool.ID)
	if errors.Is(err, agentkey.ErrOrganizationLocked) || errors.Is(err, agentkey.ErrOrganizationDestroyed) {
		return
	}
	s.noErr(err)
	v.Credential.Destroy()
}

// judge compares an outcome under fault with that of the same operation without.
func (s *scene) judge(op faultOperation, free, o outcome) {
	s.t.Helper()
	if o.took > patience {
		s.t.Fatalf("answered after %s", o.took)
	}
	same := slices.Equal(o.added, free.added)
	alike := o.err == nil && free.err == nil || o.err != nil && free.err != nil && (errors.Is(o.err, free.err) || o.err.Error() == free.err.Error())
	ended := errors.Is(o.err, context.DeadlineExceeded)
	switch {
	case alike:
		if !same && !(op.loose && subset(o.added, free.added)) {
			s.t.Fatalf("answered, and %q was recorded instead of %q", o.added, free.added)
		}
	case !errors.Is(o.err, agentkey.ErrUnavailable) && !ended:
		s.t.Fatalf("an error of no family: %v", o.err)
	case len(o.added) == 0:
	case op.parts && subset(o.added, free.added):
	case same && (ended || errors.Is(o.err, agentkey.ErrUnknown)):
	default:
		s.t.Fatalf("answered %v, and %q was recorded", o.err, o.added)
	}
}

func subset(some, all []string) bool {
	all = slices.Clone(all)
	for _, x := range some {
		i := slices.Index(all, x)
		if i < 0 {
			return false
		}
		all = slices.Delete(all, i, i+1)
	}
	return true
}

// TestEveryStorageCallFails lets every storage call of every operation fail in
// turn, once and for good, in every way that storage can fail. Whatever is
// answered: no change without its event, no event without its change, no
// credential without the event that records it, in bounded time, and service
// resumes by itself.
func TestEveryStorageCallFails(t *testing.T) {
	t.Parallel()
	for _, op := range faultOperations() {
		t.Run(op.name(), func(t *testing.T) {
			t.Parallel()
			var free freeRun
			synctest.Test(t, func(t *testing.T) { free = sweepFree(t, op) })
			for _, kind := range faultstore.Kinds() {
				for _, forever := range []bool{false, true} {
					if !worthwhile(kind, forever) {
						continue
					}
					synctest.Test(t, func(t *testing.T) { sweepFaults(t, op, kind, forever, free) })
				}
			}
		})
	}
}

// worthwhile leaves out what differs from other faults to the backend only: an
// error that repeats is the same whatever it says. The sweep runs one goroutine
// at a time, so that the race detector, which makes it five times as long, has
// nothing to find in it: with it, every operation runs without a fault only.
func worthwhile(kind faultstore.Kind, forever bool) bool {
	switch kind {
	case faultstore.Unavailable:
		return (!forever || !testing.Short()) && !underRace()
	case faultstore.UnknownLost:
		return (!forever || !testing.Short()) && !underRace()
	case faultstore.UnknownApplied, faultstore.Hang:
		return !testing.Short() && !underRace()
	}
	return !forever && !testing.Short() && !underRace()
}

// underRace says whether this test binary was built with the race detector.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

type freeRun struct {
	outcome
	calls []string
}

// sweepFree runs an operation without a fault.
func sweepFree(t *testing.T, op faultOperation) freeRun {
	s := newScene(t, op.options...)
	call := op.prepare(s)
	s.cool()
	free := freeRun{outcome: s.run(call, faultstore.Plan{})}
	free.calls = s.faults.Calls()
	if free.err != nil && !op.refused {
		t.Fatal(free.err)
	}
	if op.refused && free.err == nil {
		t.Fatal("was not refused")
	}
	if len(free.calls) == 0 && !op.still {
		t.Fatal("no storage call")
	}
	s.consistent(false)
	return free
}

// cool lets the data keys in memory run out, so that they are read again.
func (s *scene) cool() { s.Clock.Advance(6 * time.Minute) }

func sweepFaults(t *testing.T, op faultOperation, kind faultstore.Kind, forever bool, free freeRun) {
	for at := 1; at <= len(free.calls); at++ {
		if kind.OfCommit() && free.calls[at-1] != faultstore.Commit {
			continue
		}
		s := newScene(t, op.options...)
		call := op.prepare(s)
		s.cool()
		o := s.run(call, faultstore.Plan{At: at, Kind: kind, Forever: forever})
		t.Logf("call %d (%s), %s, for good %t", at, free.calls[at-1], kind, forever)
		s.judge(op, free.outcome, o)
		if unknown := kind == faultstore.UnknownApplied || kind == faultstore.UnknownLost; unknown && op.method == "Vend" && !errors.Is(o.err, agentkey.ErrUnknown) {
			t.Fatalf("the commit of a vend is unknown, and it was answered %v", o.err)
		}
		s.revealed(o)
		s.consistent(op.parts)
		if !op.ends {
			s.recovered()
		}
	}
}

// Every exported method of Manager is in the sweep.
func TestSweepIsComplete(t *testing.T) {
	t.Parallel()
	swept := make(map[string]bool)
	for _, op := range faultOperations() {
		swept[op.method] = true
	}
	m := reflect.TypeFor[*agentkey.Manager]()
	for i := range m.NumMethod() {
		if name := m.Method(i).Name; !swept[name] {
			t.Errorf("%s is not in the sweep", name)
		}
		delete(swept, m.Method(i).Name)
	}
	for name := range swept {
		t.Errorf("%s is in the sweep and no method", name)
	}
}
