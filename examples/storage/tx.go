package filestore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// reader reads one organization. In an Update it reads the transaction's own
// copy, in a View what is committed.
type reader struct {
	db     database
	org    *organization
	name   string
	failed error // what doomed the transaction
	done   atomic.Bool
}

// tx changes its copy.
type tx struct{ reader }

// begin is what every method begins with; any error dooms the transaction.
func (r *reader) begin(ctx context.Context, checks ...error) error {
	if r.done.Load() {
		return storage.ErrClosed
	}
	if r.failed != nil {
		return storage.ErrPoisoned
	}
	r.failed = cmp.Or(append([]error{ctx.Err()}, checks...)...)
	return r.failed
}

func (r *reader) invalid(what string) error {
	r.failed = fmt.Errorf("%w: %s", storage.ErrInvalid, what)
	return r.failed
}

func checkLimit(limit int) error {
	if limit < 1 || limit > storage.MaxPage {
		return fmt.Errorf("%w: limit", storage.ErrInvalid)
	}
	return nil
}

func checkIDs(n int) error {
	if n > storage.MaxIDs {
		return fmt.Errorf("%w: too many ids", storage.ErrInvalid)
	}
	return nil
}

func join(parts ...string) string { return strings.Join(parts, "\x00") }

// put puts row in the place of its former revision, which is 0 where there is
// none. The function fits compares the row with each that stands: the one with
// its id has to have its identity, and no other may have what is unique.
func put[R any](rows map[string]R, id string, row R, revision func(R) int64, fits func(other string, r R) bool) bool {
	if revision(row)-1 != revision(rows[id]) {
		return false
	}
	for other, r := range rows {
		if !fits(other, r) {
			return false
		}
	}
	rows[id] = clone(row)
	return true
}

func anyRow[R any](string, R) bool { return true }

// list is a page of the rows that match, in descending order of ids, or those of
// the ids, if there are any.
func list[R any](rows map[string]R, ids []string, after string, limit int, match func(R) bool) (page []R, total int64) {
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(rows))) {
		if len(ids) > 0 && slices.Contains(ids, id) {
			page = append(page, rows[id])
		}
		if len(ids) > 0 || !match(rows[id]) {
			continue
		}
		total++
		if len(page) < limit && (after == "" || id < after) {
			page = append(page, rows[id])
		}
	}
	return clone(page), total
}

func (r *reader) Organization(ctx context.Context) (storage.Organization, bool, error) {
	err := r.begin(ctx)
	if err != nil || r.org.Row.Revision == 0 {
		return storage.Organization{}, false, err
	}
	return clone(r.org.Row), true, nil
}

func (t *tx) PutOrganization(ctx context.Context, o storage.Organization) (bool, error) {
	err := t.begin(ctx, o.Check(t.name))
	if err != nil || o.Revision-1 != t.org.Row.Revision {
		return false, err
	}
	t.org.Row = clone(o)
	return true, nil
}

func (r *reader) Agents(ctx context.Context, q storage.AgentQuery) (p storage.AgentPage, err error) {
	if err := r.begin(ctx, q.Check()); err != nil {
		return p, err
	}
	p.Agents, p.Total = list(r.org.Agents, q.IDs, q.After, q.Limit, func(a storage.Agent) bool {
		return (q.Name == "" || a.Name == q.Name) && (q.Status == "" || a.Status == q.Status)
	})
	return p, nil
}

func (t *tx) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	if err := t.begin(ctx, a.Check(t.name)); err != nil {
		return false, err
	}
	return put(t.org.Agents, a.ID, a, func(a storage.Agent) int64 { return a.Revision }, anyRow), nil
}

func (r *reader) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	if err := r.begin(ctx, q.Check()); err != nil {
		return nil, err
	}
	keys, _ := list(r.org.Keys, nil, "", len(r.org.Keys), func(k storage.Key) bool {
		return slices.Contains(q.IDs, k.ID) || slices.Contains(q.Agents, k.Agent)
	})
	return keys, nil
}

func (t *tx) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	if err := t.begin(ctx, k.Check(t.name)); err != nil {
		return false, err
	}
	for name, o := range t.db { // digests are unique in the whole store
		for _, other := range o.Keys {
			if name != t.name && bytes.Equal(other.Digest, k.Digest) {
				return false, nil
			}
		}
	}
	if _, ok := t.org.Agents[k.Agent]; !ok && k.Revision == 1 {
		return false, t.invalid("key of no agent")
	}
	return put(t.org.Keys, k.ID, k, func(k storage.Key) int64 { return k.Revision }, func(id string, other storage.Key) bool {
		return (id == k.ID) == bytes.Equal(other.Digest, k.Digest) && (id != k.ID || other.Agent == k.Agent)
	}), nil
}

func (r *reader) Tools(ctx context.Context, q storage.ToolQuery) (p storage.ToolPage, err error) {
	if err := r.begin(ctx, q.Check()); err != nil {
		return p, err
	}
	p.Tools, p.Total = list(r.org.Tools, q.IDs, q.After, q.Limit, func(t storage.Tool) bool {
		return (q.Name == "" || t.Name == q.Name) && (q.ConfigKey == "" || t.ConfigKey == q.ConfigKey)
	})
	return p, nil
}

func (t *tx) PutTool(ctx context.Context, tool storage.Tool) (bool, error) {
	if err := t.begin(ctx, tool.Check(t.name)); err != nil {
		return false, err
	}
	return put(t.org.Tools, tool.ID, tool, func(t storage.Tool) int64 { return t.Revision }, func(id string, other storage.Tool) bool {
		return (id == tool.ID) == (other.ConfigKey == tool.ConfigKey)
	}), nil
}

func (t *tx) DeleteTool(ctx context.Context, id string, revision int64) (bool, error) {
	err := t.begin(ctx, storage.CheckText(id))
	if tool, ok := t.org.Tools[id]; err != nil || !ok || tool.Revision != revision {
		return false, err
	}
	delete(t.org.Tools, id)
	maps.DeleteFunc(t.org.Credentials, func(_ string, c storage.Credential) bool { return c.Tool == id })
	maps.DeleteFunc(t.org.Grants, func(_ string, g grants.Grant) bool { return g.Tool == id })
	maps.DeleteFunc(t.org.Approvals, func(_ string, a grants.Approval) bool {
		_, ok := t.org.Grants[a.Grant]
		return !ok
	})
	return true, nil
}

func (r *reader) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	if err := r.begin(ctx, checkIDs(len(refs))); err != nil {
		return nil, err
	}
	found, _ := list(r.org.Credentials, nil, "", len(refs), func(c storage.Credential) bool {
		return slices.Contains(refs, storage.CredentialRef{Tool: c.Tool, Grant: c.Grant})
	})
	return found, nil
}

func (t *tx) PutCredential(ctx context.Context, c storage.Credential) (bool, error) {
	if err := t.begin(ctx, c.Check(t.name)); err != nil {
		return false, err
	}
	_, hasTool := t.org.Tools[c.Tool]
	_, hasGrant := t.org.Grants[c.Grant]
	if c.Revision == 1 && (!hasTool || c.Grant != "" && !hasGrant) {
		return false, t.invalid("credential of no tool or no grant")
	}
	return put(t.org.Credentials, c.ID, c, func(c storage.Credential) int64 { return c.Revision }, func(id string, other storage.Credential) bool {
		return (id == c.ID) == (other.Tool == c.Tool && other.Grant == c.Grant)
	}), nil
}

func (t *tx) DeleteCredential(ctx context.Context, id string, revision int64) (bool, error) {
	err := t.begin(ctx, storage.CheckText(id))
	if c, ok := t.org.Credentials[id]; err != nil || !ok || c.Revision != revision {
		return false, err
	}
	delete(t.org.Credentials, id)
	return true, nil
}

func (r *reader) Grants(ctx context.Context, q storage.GrantQuery) (p storage.GrantPage, err error) {
	if err := r.begin(ctx, q.Check()); err != nil {
		return p, err
	}
	if len(q.IDs)+len(q.Pairs) > 0 {
		p.Grants, _ = list(r.org.Grants, nil, "", len(r.org.Grants), func(g grants.Grant) bool {
			return slices.Contains(q.IDs, g.ID) || slices.Contains(q.Pairs, storage.Pair{Agent: g.Agent, Tool: g.Tool})
		})
		return p, nil
	}
	p.Grants, p.Total = list(r.org.Grants, nil, q.After, q.Limit, func(g grants.Grant) bool {
		return (q.Agent == "" || g.Agent == q.Agent) && (q.Tool == "" || g.Tool == q.Tool) &&
			(len(q.Statuses) == 0 || slices.Contains(q.Statuses, g.Status))
	})
	return p, nil
}

func (t *tx) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	if err := t.begin(ctx, storage.CheckGrant(g, t.name)); err != nil {
		return false, err
	}
	_, hasAgent := t.org.Agents[g.Agent]
	_, hasTool := t.org.Tools[g.Tool]
	if g.Revision == 1 && (!hasAgent || !hasTool) {
		return false, t.invalid("grant of no agent or no tool")
	}
	return put(t.org.Grants, g.ID, g, func(g grants.Grant) int64 { return g.Revision }, func(id string, other grants.Grant) bool {
		return (id == g.ID) == (other.Agent == g.Agent && other.Tool == g.Tool)
	}), nil
}

func (r *reader) Approvals(ctx context.Context, grantIDs []string) ([]grants.Approval, error) {
	if err := r.begin(ctx, checkIDs(len(grantIDs)), storage.CheckText(grantIDs...)); err != nil {
		return nil, err
	}
	found, _ := list(r.org.Approvals, nil, "", len(r.org.Approvals), func(a grants.Approval) bool {
		return slices.Contains(grantIDs, a.Grant)
	})
	slices.SortStableFunc(found, func(a, b grants.Approval) int { return cmp.Compare(a.Time, b.Time) })
	return found, nil
}

func (t *tx) PutApproval(ctx context.Context, a grants.Approval) (bool, error) {
	if err := t.begin(ctx, storage.CheckApproval(a, t.name)); err != nil {
		return false, err
	}
	if _, ok := t.org.Grants[a.Grant]; !ok {
		return false, t.invalid("approval of no grant")
	}
	id := join(a.Grant, strconv.FormatInt(a.Cycle, 10), a.ActorKind, a.Actor)
	return put(t.org.Approvals, id, a, func(a grants.Approval) int64 { return a.Revision }, anyRow), nil
}

func (r *reader) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	keys, _ := list(r.org.DataKeys, nil, "", len(r.org.DataKeys), func(storage.DataKey) bool { return true })
	return keys, nil
}

func (t *tx) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	if err := t.begin(ctx, k.Check(t.name)); err != nil {
		return false, err
	}
	return put(t.org.DataKeys, k.ID, k, func(k storage.DataKey) int64 { return k.Revision }, func(id string, other storage.DataKey) bool {
		if id == k.ID {
			return other.Purpose == k.Purpose
		}
		return other.Purpose != k.Purpose || other.State != vault.KeyActive || k.State != vault.KeyActive
	}), nil
}

func (t *tx) ReserveSeals(ctx context.Context, id string, n int64) (int64, bool, error) {
	err := t.begin(ctx, storage.CheckText(id))
	k, ok := t.org.DataKeys[id]
	if err != nil || !ok {
		return 0, false, err
	}
	k.Reserved += n
	t.org.DataKeys[id] = k
	return k.Reserved, true, nil
}
