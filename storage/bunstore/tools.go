package bunstore

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/storage"
)

var toolRelation = newRelation("tools",
	`organization id config_key revision name description url auth_type mode required_approvals instructions
	created_at updated_at seal`,
	2, 3, func(t *storage.Tool) []any {
		return []any{
			&t.Organization, &t.ID, &t.ConfigKey, &t.Revision, &t.Name, &t.Description, &t.URL, &t.AuthType, &t.Mode,
			&t.RequiredApprovals, &t.Instructions, &t.CreatedAt, &t.UpdatedAt, &t.Seal,
		}
	})

var credentialRelation = newRelation("credentials",
	`organization id tool_id grant_id revision auth_type status expires_at rotated_at sealed sealed_revision
	created_at updated_at seal`,
	2, 4, func(c *storage.Credential) []any {
		return []any{
			&c.Organization, &c.ID, &c.Tool, optional{&c.Grant}, &c.Revision, &c.AuthType, &c.Status, &c.ExpiresAt,
			&c.RotatedAt, &c.Sealed, &c.SealedRevision, &c.CreatedAt, &c.UpdatedAt, &c.Seal,
		}
	})

var (
	selectTools       = "SELECT " + toolRelation.list("t") + " FROM @tools AS t WHERE t.organization = ? AND t.id @any ORDER BY t.id DESC"
	selectCredentials = "SELECT " + credentialRelation.list("c") + " FROM @list CROSS JOIN @credentials AS c" +
		" WHERE c.organization = ? AND c.tool_id = p.v ->> 0 AND coalesce(c.grant_id, '') = p.v ->> 1 ORDER BY c.id DESC"
)

const (
	deleteTool statement = `DELETE FROM @tools WHERE organization = ? AND id = ?`
	// A credential goes with its tool, and with its grant whatever tool it names.
	deleteToolCredentials statement = `DELETE FROM @credentials WHERE organization = ? AND (tool_id = ?
		OR grant_id IN (SELECT g.id FROM @grants AS g WHERE g.organization = ? AND g.tool_id = ?))`
	deleteToolApprovals statement = `DELETE FROM @approvals WHERE organization = ?
		AND grant_id IN (SELECT g.id FROM @grants AS g WHERE g.organization = ? AND g.tool_id = ?)`
	deleteToolGrants statement = `DELETE FROM @grants WHERE organization = ? AND tool_id = ?`
	deleteCredential statement = `DELETE FROM @credentials WHERE organization = ? AND id = ? AND revision = ?`
)

func (r *reader) Tools(ctx context.Context, q storage.ToolQuery) (p storage.ToolPage, err error) {
	if err := r.enter(ctx, q.Check()); err != nil {
		return p, err
	}
	if len(q.IDs) > 0 {
		p.Tools, err = byIDs(ctx, r, toolRelation, selectTools, q.IDs)
		p.Total = found(q.Total, p.Tools)
		return p, r.fail(ctx, err)
	}
	conditions := []condition{{"name = ?", q.Name}, {"config_key = ?", q.ConfigKey}}
	p.Tools, p.Total, err = page(ctx, r, toolRelation, "tools", conditions, q.After, q.Limit, q.Total)
	return p, r.fail(ctx, err)
}

func (t *tx) PutTool(ctx context.Context, tool storage.Tool) (bool, error) {
	if err := t.enter(ctx, tool.Check(t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, toolRelation, tool, tool.Revision)
}

func (t *tx) DeleteTool(ctx context.Context, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return false, err
	}
	stands, err := t.find(ctx, toolRelation.stands, t.organization, id, revision)
	if !stands || err != nil {
		return false, t.fail(ctx, err)
	}
	for _, step := range []struct {
		q    statement
		args []any
	}{
		{deleteToolApprovals, []any{t.organization, t.organization, id}},
		{deleteToolCredentials, []any{t.organization, id, t.organization, id}},
		{deleteToolGrants, []any{t.organization, id}},
		{deleteTool, []any{t.organization, id}},
	} {
		if err := t.execute(ctx, step.q, step.args...); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (r *reader) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	if err := r.enter(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	pairs := make([][2]string, len(refs))
	for i, ref := range refs {
		if err := storage.CheckText(ref.Tool, ref.Grant); err != nil {
			return nil, r.fail(ctx, err)
		}
		pairs[i] = [2]string{ref.Tool, ref.Grant}
	}
	found, err := byPairs(ctx, r, credentialRelation, selectCredentials, pairs)
	return found, r.fail(ctx, err)
}

// byPairs reads rows by a list of pairs, each of them once.
func byPairs[T any](ctx context.Context, r *reader, rel *relation[T], q statement, pairs [][2]string) ([]T, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	wanted, err := list(unique(pairs))
	if err != nil {
		return nil, err
	}
	return selected(ctx, r, rel, q, wanted, r.organization)
}

// unique is the list without what stood in it before.
func unique[T comparable](items []T) []T {
	seen := make(map[T]bool, len(items))
	kept := items[:0:0]
	for _, item := range items {
		if !seen[item] {
			seen[item] = true
			kept = append(kept, item)
		}
	}
	return kept
}

func (t *tx) PutCredential(ctx context.Context, c storage.Credential) (bool, error) {
	if err := t.enter(ctx, c.Check(t.organization)); err != nil {
		return false, err
	}
	return put(ctx, t, credentialRelation, c, c.Revision)
}

func (t *tx) DeleteCredential(ctx context.Context, id string, revision int64) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(id)); err != nil {
		return false, err
	}
	n, err := t.exec(ctx, deleteCredential, t.organization, id, revision)
	return t.changed(ctx, n, err)
}
