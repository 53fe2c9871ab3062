package memstore

import (
	"context"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
)

func (r *reader) Tools(ctx context.Context, q storage.ToolQuery) (storage.ToolPage, error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return storage.ToolPage{}, err
	}
	if len(q.IDs) > 0 {
		return storage.ToolPage{Tools: byID(r.tools, q.IDs, copyTool)}, nil
	}
	match := func(t *storage.Tool) bool {
		return (q.Name == "" || q.Name == t.Name) && (q.ConfigKey == "" || q.ConfigKey == t.ConfigKey)
	}
	var p storage.ToolPage
	p.Tools, p.Total = list(r.tools, q.After, q.Limit, q.Total, match, copyTool)
	return p, nil
}

func (t *tx) PutTool(ctx context.Context, tool storage.Tool) (bool, error) {
	if err := t.enter(ctx, tool.Check(t.name)); err != nil {
		return false, err
	}
	old, ok := t.tools.get(tool.ID)
	switch {
	case !ok && tool.Revision == 1:
		if t.toolFor.has(tool.ConfigKey) {
			return false, nil
		}
		t.toolFor = t.toolFor.put(tool.ConfigKey, tool.ID)
	case !ok || !follows(tool.Revision, old.Revision):
		return false, nil
	case tool.ConfigKey != old.ConfigKey:
		return false, t.invalid("identity of a tool changed")
	}
	t.tools = t.tools.put(tool.ID, copyTool(tool))
	return true, nil
}

func (t *tx) DeleteTool(ctx context.Context, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return false, err
	}
	tool, ok := t.tools.get(id)
	if !ok || tool.Revision != revision {
		return false, nil
	}
	t.tools, t.toolFor = t.tools.drop(id), t.toolFor.drop(tool.ConfigKey)
	for _, c := range t.credentials.ascend("") {
		if c.Tool == id {
			t.dropCredential(c)
		}
	}
	for _, g := range t.grants.ascend("") {
		if g.Tool == id {
			t.grants, t.grantFor = t.grants.drop(g.ID), t.grantFor.drop(key(g.Agent, g.Tool))
			t.atEnd(grantEnd(g), nil)
			t.dropApprovals(g.ID)
		}
	}
	return true, nil
}

func (t *tx) dropApprovals(grant string) {
	prefix := key(grant, "")
	for k := range t.approvals.ascend(prefix) {
		if !strings.HasPrefix(k, prefix) {
			return
		}
		t.approvals = t.approvals.drop(k)
	}
}

func (r *reader) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	if err := r.enter(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	var ids []string
	for _, ref := range refs {
		if err := storage.CheckText(ref.Tool, ref.Grant); err != nil {
			return nil, r.fail(err)
		}
		if id, ok := r.credential.get(key(ref.Tool, ref.Grant)); ok {
			ids = append(ids, id)
		}
	}
	return byID(r.credentials, ids, copyCredential), nil
}

func (t *tx) PutCredential(ctx context.Context, c storage.Credential) (bool, error) {
	if err := t.enter(ctx, c.Check(t.name)); err != nil {
		return false, err
	}
	old, ok := t.credentials.get(c.ID)
	switch {
	case !ok && c.Revision == 1:
		if !t.tools.has(c.Tool) || c.Grant != "" && !t.grants.has(c.Grant) {
			return false, t.invalid("credential of no tool or no grant")
		}
		if t.credential.has(key(c.Tool, c.Grant)) {
			return false, nil
		}
		t.credential = t.credential.put(key(c.Tool, c.Grant), c.ID)
	case !ok || !follows(c.Revision, old.Revision):
		return false, nil
	case c.Tool != old.Tool || c.Grant != old.Grant:
		return false, t.invalid("identity of a credential changed")
	}
	stored := copyCredential(c)
	t.credentials = t.credentials.put(c.ID, stored)
	t.atEnd(credentialEnd(old), credentialEnd(stored))
	return true, nil
}

func (t *tx) DeleteCredential(ctx context.Context, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return false, err
	}
	c, ok := t.credentials.get(id)
	if !ok || c.Revision != revision {
		return false, nil
	}
	t.dropCredential(c)
	return true, nil
}

func (t *tx) dropCredential(c *storage.Credential) {
	t.credentials = t.credentials.drop(c.ID)
	t.credential = t.credential.drop(key(c.Tool, c.Grant))
	t.atEnd(credentialEnd(c), nil)
}
