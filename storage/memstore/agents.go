package memstore

import (
	"context"
	"slices"

	"github.com/agentkey-dev/agentkey-go/storage"
)

func (r *reader) Organization(ctx context.Context) (o storage.Organization, ok bool, err error) {
	if err := r.enter(ctx); err != nil {
		return o, false, err
	}
	if r.row == nil {
		return o, false, nil
	}
	return *copyOrganization(*r.row), true, nil
}

func (t *tx) PutOrganization(ctx context.Context, o storage.Organization) (bool, error) {
	if err := t.enter(ctx, o.Check(t.name)); err != nil {
		return false, err
	}
	var stands int64
	if t.row != nil {
		stands = t.row.Revision
	}
	if !follows(o.Revision, stands) {
		return false, nil
	}
	t.row = copyOrganization(o)
	return true, nil
}

func (r *reader) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return storage.AgentPage{}, err
	}
	if len(q.IDs) > 0 {
		return storage.AgentPage{Agents: byID(r.agents, q.IDs, copyAgent)}, nil
	}
	match := func(a *storage.Agent) bool {
		return (q.Name == "" || q.Name == a.Name) && (q.Status == "" || q.Status == a.Status)
	}
	var p storage.AgentPage
	p.Agents, p.Total = list(r.agents, q.After, q.Limit, q.Total, match, copyAgent)
	return p, nil
}

func (t *tx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	if err := t.enter(ctx, a.Check(t.name)); err != nil {
		return false, err
	}
	var stands int64
	if old, ok := t.agents.get(a.ID); ok {
		stands = old.Revision
	}
	if !follows(a.Revision, stands) {
		return false, nil
	}
	t.agents = t.agents.put(a.ID, copyAgent(a))
	return true, nil
}

func (r *reader) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return nil, err
	}
	ids := slices.Clone(q.IDs)
	for _, agent := range q.Agents {
		for k, id := range r.keysOf.ascend(key(agent, "")) {
			if k != key(agent, id) {
				break
			}
			ids = append(ids, id)
		}
	}
	return byID(r.keys, ids, copyKey), nil
}

func (t *tx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	if err := t.enter(ctx, k.Check(t.name)); err != nil {
		return false, err
	}
	old, ok := t.keys.get(k.ID)
	switch {
	case !ok && k.Revision == 1:
		if !t.agents.has(k.Agent) {
			return false, t.invalid("key of no agent")
		}
		if !t.share(addKey(string(k.Digest), keyPlace{t.name, k.ID})) {
			return false, nil
		}
		t.keysOf = t.keysOf.put(key(k.Agent, k.ID), k.ID)
	case !ok || !follows(k.Revision, old.Revision):
		return false, nil
	case k.Agent != old.Agent || !slices.Equal(k.Digest, old.Digest):
		return false, t.invalid("identity of a key changed")
	}
	stored := copyKey(k)
	t.keys = t.keys.put(k.ID, stored)
	t.atEnd(keyEnd(old), keyEnd(stored))
	return true, nil
}

func addKey(digest string, place keyPlace) func(*root) bool {
	return func(r *root) bool {
		if r.keys.has(digest) {
			return false
		}
		r.keys = r.keys.put(digest, place)
		return true
	}
}
