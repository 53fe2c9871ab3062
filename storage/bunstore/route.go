package bunstore

import (
	"cmp"
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

const (
	selectHolders       statement = `SELECT organization FROM @records WHERE kind = ? AND id = ? ORDER BY organization LIMIT 2`
	selectOrganizations statement = `SELECT organization FROM @logs WHERE size > 0 AND organization > ? ORDER BY organization LIMIT ?`

	// Each arm is bounded by itself, in the order of its own index.
	selectDue statement = `SELECT * FROM (
		SELECT * FROM (SELECT expires_at AS at, '` + audit.KindGrant + `' AS kind, organization, id, agent_id AS agent, tool_id AS tool, '' AS grant_ref
			FROM @grants WHERE status = 'approved' AND expires_at <> 0 AND expires_at <= ? ORDER BY expires_at, organization, id LIMIT ?) AS ended_grants
		UNION ALL
		SELECT * FROM (SELECT expires_at, '` + audit.KindKey + `', organization, id, agent_id, '', ''
			FROM @keys WHERE status = 'active' AND expires_at <> 0 AND expires_at <= ? ORDER BY expires_at, organization, id LIMIT ?) AS ended_keys
		UNION ALL
		SELECT * FROM (SELECT expires_at, '` + audit.KindCredential + `', organization, id, '', tool_id, coalesce(grant_id, '')
			FROM @credentials WHERE status = 'active' AND expires_at <> 0 AND expires_at <= ? ORDER BY expires_at, organization, id LIMIT ?) AS ended_credentials
		) AS ends ORDER BY at, organization, kind, id LIMIT ?`
)

// ask runs one statement outside of a transaction.
func (s *Store) ask(caller context.Context, q statement, args []any, fn func(Row) error) error {
	ctx, _, cancel := bounded(caller)
	defer cancel()
	rows, err := s.reader.query(ctx, q, args...)
	return s.translate(caller, drain(rows, err, fn))
}

// FindKey implements storage.Store.
func (s *Store) FindKey(ctx context.Context, digest []byte) (k storage.Key, ok bool, err error) {
	if err := s.enter(ctx); err != nil {
		return k, false, err
	}
	return s.finder.find(ctx, s, octets(digest))
}

func (s *Store) findKey(ctx context.Context, digest []byte) (k storage.Key, ok bool, err error) {
	var keys []storage.Key
	err = s.ask(ctx, selectKeyByDigest, []any{digest}, keyRelation.collect(&keys))
	if err != nil || len(keys) == 0 {
		return k, false, err
	}
	return keys[0], true, nil
}

// FindRecord implements storage.Store.
func (s *Store) FindRecord(ctx context.Context, kind, id string) (organizations []string, err error) {
	if err := s.enter(ctx, kind, id); err != nil {
		return nil, err
	}
	err = s.ask(ctx, selectHolders, []any{kind, id}, collectTexts(&organizations))
	return organizations, err
}

// Organizations implements storage.Store.
func (s *Store) Organizations(ctx context.Context, after string, limit int) (organizations []string, err error) {
	if err := cmp.Or(s.enter(ctx, after), checkLimit(limit)); err != nil {
		return nil, err
	}
	err = s.ask(ctx, selectOrganizations, []any{after, int64(limit)}, collectTexts(&organizations))
	return organizations, err
}

func collectTexts(found *[]string) func(Row) error {
	return func(rows Row) error {
		var text string
		err := scan(rows, &text)
		*found = append(*found, text)
		return err
	}
}

// Due implements storage.Store.
func (s *Store) Due(ctx context.Context, now int64, limit int) ([]storage.Due, error) {
	if err := cmp.Or(s.enter(ctx), checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []storage.Due
	n := int64(limit)
	err := s.ask(ctx, selectDue, []any{now, n, now, n, now, n, n}, func(rows Row) error {
		var d storage.Due
		err := scan(rows, &d.At, &d.Kind, &d.Organization, &d.ID, &d.Agent, &d.Tool, &d.Grant)
		found = append(found, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("due: %w", err)
	}
	return found, nil
}
