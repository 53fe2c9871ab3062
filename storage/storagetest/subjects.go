package storagetest

import (
	"context"
	"crypto/sha256"
	"reflect"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// subject is a kind of row with a revision. What holds for all of them is tested
// on each.
type subject struct {
	name string
	// row makes the one row of this kind that a test looks at; its identity is
	// the same for all revisions and variants. It returns a pointer.
	row func(org string, revision int64, variant int) any
	put func(ctx context.Context, tx storage.Tx, row any) (bool, error)
	get func(ctx context.Context, tx storage.ReadTx, org string) (any, bool, error)
	// identity names the columns that an update may not change.
	identity []string
}

// describeSubject makes a subject of its typed parts.
func describeSubject[R any](
	name string, identity []string, make func(org string) R,
	put func(storage.Tx, context.Context, R) (bool, error),
	get func(ctx context.Context, tx storage.ReadTx, org string) ([]R, error),
) subject {
	return subject{
		name: name, identity: identity,
		row: func(org string, revision int64, variant int) any {
			row := make(org)
			reflect.ValueOf(&row).Elem().FieldByName("Revision").SetInt(revision)
			fill(&row, variant)
			return &row
		},
		put: func(ctx context.Context, tx storage.Tx, row any) (bool, error) {
			return put(tx, ctx, *row.(*R))
		},
		get: func(ctx context.Context, tx storage.ReadTx, org string) (any, bool, error) {
			rows, err := get(ctx, tx, org)
			if err != nil || len(rows) == 0 {
				return nil, false, err
			}
			if len(rows) > 1 {
				failf("%s: %d rows with one identity", name, len(rows))
			}
			return &rows[0], true, nil
		},
	}
}

// subjects are all kinds of rows. Those but the organization's own need base.
func subjects() []subject {
	return []subject{
		describeSubject("organization", nil, subjectOrganization, storage.Tx.PutOrganization, readOrganization),
		describeSubject("agent", nil, subjectAgent, storage.Tx.PutAgent, readAgent),
		describeSubject("key", []string{"Agent", "Digest"}, subjectKey, storage.Tx.PutKey, readKey),
		describeSubject("tool", []string{"ConfigKey"}, subjectTool, storage.Tx.PutTool, readTool),
		describeSubject("grant", []string{"Agent", "Tool"}, subjectGrant, storage.Tx.PutGrant, readGrant),
		describeSubject("credential", []string{"Tool", "Grant"}, subjectCredential, storage.Tx.PutCredential, readCredential),
		describeSubject("approval", nil, subjectApproval, storage.Tx.PutApproval, readApproval),
		describeSubject("data key", []string{"Purpose"}, subjectDataKey, storage.Tx.PutDataKey, readDataKey),
		describeSubject("record", nil, subjectRecord, storage.Tx.PutRecord, readRecord),
	}
}

// prepare puts what the subject refers to.
func (s subject) prepare(ctx context.Context, tx storage.Tx, org string) {
	if s.name != "organization" {
		base(ctx, tx, org)
	}
}

// expect fails unless the row stands as given, or is absent when want is nil.
func (s subject) expect(ctx context.Context, tx storage.ReadTx, org string, want any) {
	row, there, err := s.get(ctx, tx, org)
	ok(err)
	switch {
	case want == nil && there:
		failf("%s: found a row that must not be there: %+v", s.name, row)
	case want != nil && !there:
		failf("%s: the row is not there", s.name)
	case want != nil && !same(deref(row), deref(want)):
		failf("%s: read back is not what was put: %s", s.name, differences(deref(row), deref(want)))
	}
}

func deref(row any) any { return reflect.ValueOf(row).Elem().Interface() }

// with is a copy of the row with one column changed.
func with(row any, column string, value any) any {
	c := reflect.New(reflect.TypeOf(row).Elem())
	c.Elem().Set(reflect.ValueOf(row).Elem())
	c.Elem().FieldByName(column).Set(reflect.ValueOf(value))
	return c.Interface()
}

func subjectOrganization(org string) storage.Organization { return storage.Organization{ID: org} }

func readOrganization(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Organization, error) {
	o, there, err := tx.Organization(ctx)
	if !there {
		return nil, err
	}
	return []storage.Organization{o}, err
}

func subjectAgent(org string) storage.Agent {
	return storage.Agent{Organization: org, ID: "agent-1"}
}

func readAgent(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Agent, error) {
	p, err := tx.Agents(ctx, storage.AgentQuery{IDs: []string{"agent-1"}})
	return p.Agents, err
}

func subjectKey(org string) storage.Key {
	digest := sha256.Sum256([]byte("subject of " + org))
	return storage.Key{Organization: org, ID: "key-1", Agent: "agent-0", Digest: digest[:]}
}

func readKey(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Key, error) {
	return tx.Keys(ctx, storage.KeyQuery{IDs: []string{"key-1"}})
}

func subjectTool(org string) storage.Tool {
	return storage.Tool{Organization: org, ID: "tool-2", ConfigKey: "config-tool-2"}
}

func readTool(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Tool, error) {
	p, err := tx.Tools(ctx, storage.ToolQuery{IDs: []string{"tool-2"}})
	return p.Tools, err
}

func subjectGrant(org string) grants.Grant {
	return grants.Grant{Organization: org, ID: "grant-1", Agent: "agent-0", Tool: "tool-1"}
}

func readGrant(ctx context.Context, tx storage.ReadTx, _ string) ([]grants.Grant, error) {
	p, err := tx.Grants(ctx, storage.GrantQuery{IDs: []string{"grant-1"}})
	return p.Grants, err
}

func subjectCredential(org string) storage.Credential {
	return storage.Credential{Organization: org, ID: "credential-1", Tool: "tool-0", Grant: "grant-0"}
}

func readCredential(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Credential, error) {
	return tx.Credentials(ctx, []storage.CredentialRef{{Tool: "tool-0", Grant: "grant-0"}})
}

func subjectApproval(org string) grants.Approval {
	return grants.Approval{Organization: org, Grant: "grant-0", Cycle: 1, Actor: "actor-1", ActorKind: "human"}
}

func readApproval(ctx context.Context, tx storage.ReadTx, _ string) ([]grants.Approval, error) {
	return tx.Approvals(ctx, []string{"grant-0"})
}

func subjectDataKey(org string) storage.DataKey {
	return storage.DataKey{Organization: org, ID: "data-key-1", Purpose: vault.PurposeRow, Reserved: 0}
}

func readDataKey(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.DataKey, error) {
	return tx.DataKeys(ctx)
}

func subjectRecord(org string) storage.Record {
	return storage.Record{
		Organization: org, Kind: "setting", ID: odd,
		Index: []storage.IndexEntry{{Name: "b", Value: odd}, {Name: "a", Value: ""}},
	}
}

func readRecord(ctx context.Context, tx storage.ReadTx, _ string) ([]storage.Record, error) {
	r, there, err := tx.Record(ctx, "setting", odd)
	if !there {
		return nil, err
	}
	return []storage.Record{r}, err
}
