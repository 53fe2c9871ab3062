package histories_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/agentkeytest"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/internal/histories"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// A cache that lags one commit behind is caught, whatever it is that vends read
// from it, and so is nothing at all without the cache.
func TestStaleReadsAreCaught(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		stale reads
	}{
		{"grants", reads{grants: true}},
		{"credentials", reads{credentials: true}},
		{"agents", reads{agents: true}},
		{"keys", reads{keys: true}},
		{"tools", reads{tools: true}},
		{"guides", reads{guides: true}},
		{"none", reads{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			store := &lagging{Store: memstore.New(), stale: c.stale}
			k := agentkeytest.New(t, func(config *agentkey.Config) { config.Storage = store })
			attempts := 20
			if c.stale == (reads{}) {
				attempts = 2
			}
			var err error
			for seed := 0; seed < attempts && err == nil; seed++ {
				plan := histories.Plan{Seed: uint64(seed), Clients: 2, Operations: 400, Weights: histories.Weights()}
				for _, k := range []histories.Kind{histories.Revoke, histories.Suspend, histories.Rotate, histories.Replace, histories.Rewrite} {
					plan.Weights[k] = 15
				}
				plan.Weights[histories.Learn] = 40
				err = check(t, k, plan)
			}
			is.Equal(errors.Is(err, histories.ErrNoOrder), c.stale != reads{})
			t.Log(err)
		})
	}
}

// check records one history on the kit's Manager and checks it.
func check(t *testing.T, k *agentkeytest.Kit, plan histories.Plan) error {
	t.Helper()
	_, owner := k.NewOrganization("history")
	target := &vending{&histories.Manager{Manager: k.Manager, Actor: owner, Move: k.Clock.Advance}}
	h, err := histories.Record(t.Context(), plan, target)
	if err != nil {
		t.Fatal(err)
	}
	return h.Check(time.Minute)
}

// vending marks vends, and what agents learn, so that the storage can tell them.
type vending struct{ *histories.Manager }

type marked struct{}

func (v *vending) Do(ctx context.Context, c histories.Call) histories.Answer {
	if c.Kind == histories.Vend || c.Kind == histories.Learn {
		ctx = context.WithValue(ctx, marked{}, true)
	}
	return v.Manager.Do(ctx, c)
}

// reads are what is read as it was one commit ago.
type reads struct{ grants, credentials, agents, keys, tools, guides bool }

// rows are the rows that decide a vend.
type rows struct {
	grants      map[storage.Pair]grants.Grant
	credentials map[storage.CredentialRef]storage.Credential
	agents      map[string]storage.Agent
	keys        map[string]storage.Key
	tools       map[string]storage.Tool
	guides      map[string]storage.Record // which version of a tool's instructions is current
}

const guideKind = "tool_guide"

func (r rows) clone() rows {
	return rows{maps.Clone(r.grants), maps.Clone(r.credentials), maps.Clone(r.agents), maps.Clone(r.keys), maps.Clone(r.tools), maps.Clone(r.guides)}
}

// lagging is a storage whose vends read some rows from a cache that is behind
// by one commit. Everything else reads what stands.
type lagging struct {
	storage.Store
	stale reads

	mu        sync.Mutex
	now, then rows
}

func (s *lagging) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(ctx, organization, func(ctx context.Context, inner storage.Tx) error {
		s.mu.Lock()
		if s.now.grants == nil {
			s.now = rows{
				make(map[storage.Pair]grants.Grant), make(map[storage.CredentialRef]storage.Credential),
				make(map[string]storage.Agent), make(map[string]storage.Key), make(map[string]storage.Tool), make(map[string]storage.Record),
			}
			s.then = s.now.clone()
		}
		tx := &laggingTx{Tx: inner, next: s.now.clone(), then: s.then}
		s.mu.Unlock()
		if ctx.Value(marked{}) != nil {
			tx.stale = s.stale
		}
		if err := fn(ctx, tx); err != nil {
			return err
		}
		if tx.appended {
			// Storage in memory commits what returned nil.
			s.mu.Lock()
			s.then, s.now = s.now, tx.next
			s.mu.Unlock()
		}
		return nil
	})
}

// FindKey routes by the key as it was, where keys are read so.
func (s *lagging) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	k, ok, err := s.Store.FindKey(ctx, digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, cached := s.then.keys[k.ID]; cached && s.stale.keys && ctx.Value(marked{}) != nil {
		k = old
	}
	return k, ok, err
}

type laggingTx struct {
	storage.Tx
	stale      reads
	next, then rows
	appended   bool
}

func (tx *laggingTx) Append(ctx context.Context, a storage.Append) error {
	tx.appended = true
	return tx.Tx.Append(ctx, a)
}

func (tx *laggingTx) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	tx.next.grants[storage.Pair{Agent: g.Agent, Tool: g.Tool}] = g
	return tx.Tx.PutGrant(ctx, g)
}

func (tx *laggingTx) PutCredential(ctx context.Context, c storage.Credential) (bool, error) {
	tx.next.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}] = c
	return tx.Tx.PutCredential(ctx, c)
}

func (tx *laggingTx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	tx.next.agents[a.ID] = a
	return tx.Tx.PutAgent(ctx, a)
}

func (tx *laggingTx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	tx.next.keys[k.ID] = k
	return tx.Tx.PutKey(ctx, k)
}

func (tx *laggingTx) PutTool(ctx context.Context, v storage.Tool) (bool, error) {
	tx.next.tools[v.ID] = v
	return tx.Tx.PutTool(ctx, v)
}

func (tx *laggingTx) PutRecord(ctx context.Context, r storage.Record) (bool, error) {
	if r.Kind == guideKind {
		tx.next.guides[r.ID] = r
	}
	return tx.Tx.PutRecord(ctx, r)
}

func (tx *laggingTx) Tools(ctx context.Context, q storage.ToolQuery) (storage.ToolPage, error) {
	page, err := tx.Tx.Tools(ctx, q)
	if tx.stale.tools {
		for i, v := range page.Tools {
			page.Tools[i] = old(v, tx.then.tools, v.ID)
		}
	}
	return page, err
}

func (tx *laggingTx) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	r, ok, err := tx.Tx.Record(ctx, kind, id)
	if tx.stale.guides && kind == guideKind && ok {
		r = old(r, tx.then.guides, id)
	}
	return r, ok, err
}

func (tx *laggingTx) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	page, err := tx.Tx.Grants(ctx, q)
	if tx.stale.grants {
		for i, g := range page.Grants {
			page.Grants[i] = old(g, tx.then.grants, storage.Pair{Agent: g.Agent, Tool: g.Tool})
		}
	}
	return page, err
}

func (tx *laggingTx) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	found, err := tx.Tx.Credentials(ctx, refs)
	if tx.stale.credentials {
		for i, c := range found {
			found[i] = old(c, tx.then.credentials, storage.CredentialRef{Tool: c.Tool, Grant: c.Grant})
		}
	}
	return found, err
}

func (tx *laggingTx) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	page, err := tx.Tx.Agents(ctx, q)
	if tx.stale.agents {
		for i, a := range page.Agents {
			page.Agents[i] = old(a, tx.then.agents, a.ID)
		}
	}
	return page, err
}

func (tx *laggingTx) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	found, err := tx.Tx.Keys(ctx, q)
	if tx.stale.keys {
		found = slices.Clone(found)
		for i, k := range found {
			found[i] = old(k, tx.then.keys, k.ID)
		}
	}
	return found, err
}

// old is the row as the cache has it, or as it is when the cache has none.
func old[K comparable, V any](current V, cache map[K]V, key K) V {
	if v, ok := cache[key]; ok {
		return v
	}
	return current
}
