// Package agentkeytest gives other packages' tests a whole AgentKey: a Manager
// over a storage in memory, with a random key, a clock that stands still until it
// is told to move, and an organization with an owner.
//
// It imports the standard library's testing only, so that embedders can use it
// with any test framework.
package agentkeytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// Epoch is where a kit's clock begins.
var Epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Clock is a clock that moves only when told to. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock makes a clock that stands at t.
func NewClock(t time.Time) *Clock { return &Clock{now: t} }

// Now tells the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Kit is a Manager with what most tests need around it.
type Kit struct {
	*agentkey.Manager
	Config       agentkey.Config
	Clock        *Clock
	Organization agentkey.Organization
	Owner        agentkey.Actor // the organization's first administrator

	t testing.TB
}

// Keys makes a key provider with one random key.
func Keys(t testing.TB) vault.KeyProvider {
	t.Helper()
	text, err := localkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := localkey.FromEnv(func(string) (string, bool) { return text, true }, "AGENTKEY_ENCRYPTION_KEY")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Unlimited are policies under which no limit is ever reached.
func Unlimited() ratelimit.Policies {
	policies := ratelimit.DefaultPolicies()
	for tier := range policies {
		policies[tier] = ratelimit.Policy{}
	}
	return policies
}

// New makes a kit and closes it when the test ends. The options change the
// configuration before the Manager is made; rate limits are off unless they set
// some.
func New(t testing.TB, options ...func(*agentkey.Config)) *Kit {
	t.Helper()
	clock := NewClock(Epoch)
	config := agentkey.Config{Clock: clock.Now, Node: "test"}
	for _, option := range options {
		option(&config)
	}
	if config.Storage == nil {
		config.Storage = memstore.New()
	}
	if config.Keys == nil {
		config.Keys = Keys(t)
	}
	if config.Policies == nil && config.Limiter == nil {
		config.Policies = Unlimited()
	}
	m := insist(t, "make a manager", func() (*agentkey.Manager, error) { return agentkey.New(t.Context(), config) })
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Logf("agentkeytest: close: %v", err)
		}
	})
	k := &Kit{Manager: m, Config: config, Clock: clock, t: t}
	k.Organization, k.Owner = k.NewOrganization("Test")
	return k
}

// insist fails the test unless call succeeds. A storage that answers too late, as
// a database on a busy machine may, is asked again: nothing was done.
func insist[T any](t testing.TB, what string, call func() (T, error)) T {
	t.Helper()
	for tries := 1; ; tries++ {
		v, err := call()
		if err == nil {
			return v
		}
		if !errors.Is(err, agentkey.ErrStorage) || errors.Is(err, agentkey.ErrUnknown) || tries == 10 {
			t.Fatalf("agentkeytest: %s: %v", what, err)
		}
	}
}

// NewOrganization makes one more organization and gives its owner.
func (k *Kit) NewOrganization(name string) (agentkey.Organization, agentkey.Actor) {
	k.t.Helper()
	created := insist(k.t, "create organization", func() (agentkey.CreatedOrganization, error) {
		return k.CreateOrganization(k.t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: name, Owner: "owner@example.com"})
	})
	return created.Organization, k.authenticate(created.Token)
}

func (k *Kit) authenticate(token agentkey.IssuedToken) agentkey.Actor {
	k.t.Helper()
	return insist(k.t, "authenticate", func() (agentkey.Actor, error) {
		return k.Authenticate(k.t.Context(), token.Secret, agentkey.RequestContext{})
	})
}

// Actor makes an administrator of the kit's organization with a role.
func (k *Kit) Actor(role agentkey.Role) agentkey.Actor {
	k.t.Helper()
	admin := insist(k.t, "add administrator", func() (agentkey.Administrator, error) {
		return k.AddAdministrator(k.t.Context(), k.Owner, agentkey.AddAdministratorInput{Label: string(role) + "@example.com", Role: role})
	})
	return k.authenticate(insist(k.t, "create token", func() (agentkey.IssuedToken, error) {
		return k.CreateToken(k.t.Context(), k.Owner, agentkey.CreateTokenInput{Administrator: admin.ID})
	}))
}

// Agent registers an agent and gives the caller it is by its key.
func (k *Kit) Agent(name string) (agentkey.Agent, agentkey.Caller) {
	k.t.Helper()
	issued := insist(k.t, "register agent", func() (agentkey.IssuedKey, error) {
		return k.RegisterAgent(k.t.Context(), k.Owner, agentkey.RegisterAgentInput{Name: name})
	})
	return issued.Agent, agentkey.Key(string(issued.Secret.Bytes()))
}

// Tool adds a shared tool with a credential, which should be an obvious fake.
func (k *Kit) Tool(name, credential string) agentkey.Tool {
	k.t.Helper()
	return insist(k.t, "add tool", func() (agentkey.ToolView, error) {
		return k.AddTool(k.t.Context(), k.Owner, agentkey.AddToolInput{
			Name: name, AuthType: "api_key", Mode: "shared", Credential: agentkey.NewSecret([]byte(credential)),
		})
	}).Tool
}

// Allow assigns a tool to an agent.
func (k *Kit) Allow(agent agentkey.Agent, tool agentkey.Tool) agentkey.Grant {
	k.t.Helper()
	return insist(k.t, "assign", func() (agentkey.Grant, error) {
		return k.Assign(k.t.Context(), k.Owner, agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID})
	})
}
