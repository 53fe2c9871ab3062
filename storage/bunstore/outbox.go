package bunstore

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/storage"
)

var deliveryRelation = newRelation("outbox",
	`organization id topic payload state attempts created_at next_at lease_until lease_node last_error`,
	2, 2, func(d *storage.Delivery) []any {
		return []any{
			&d.Organization, &d.ID, &d.Topic, &d.Payload, &d.State, &d.Attempts, &d.CreatedAt, &d.NextAt,
			&d.LeaseUntil, &d.LeaseNode, &d.LastError,
		}
	})

const (
	settleDone statement = `DELETE FROM @outbox
		WHERE organization = ? AND id = ? AND lease_until = ? AND lease_node = ? AND lease_until <> 0`
	settleLater statement = `UPDATE @outbox SET state = ?, next_at = ?, last_error = ?, lease_until = 0, lease_node = ''
		WHERE organization = ? AND id = ? AND lease_until = ? AND lease_node = ? AND lease_until <> 0`

	due statement = `SELECT organization, id FROM @outbox
		WHERE state = 'pending' AND next_at <= ? AND lease_until <= ? ORDER BY next_at, organization, id LIMIT ?`
	setLease statement = `UPDATE @outbox SET lease_until = ?, lease_node = ?, attempts = attempts + 1
		WHERE (organization, id) IN (`
)

var (
	leased = ") RETURNING " + statement(strings.Join(deliveryRelation.columns, ", "))
	// The rows that another node is taking are passed over, not waited for.
	leaseRows = setLease + due + " FOR UPDATE SKIP LOCKED" + leased
	leaseFile = setLease + due + leased
)

func (t *tx) Enqueue(ctx context.Context, ds []storage.Delivery) error {
	if err := t.enter(ctx, checkIDs(len(ds))); err != nil {
		return err
	}
	for _, d := range ds {
		if err := d.Check(t.organization); err != nil {
			return t.fail(ctx, err)
		}
		ok, err := put(ctx, t, deliveryRelation, d, 1)
		if err != nil {
			return err
		}
		if !ok {
			return t.fail(ctx, invalid("id of a delivery is taken"))
		}
	}
	return nil
}

func (t *tx) Settle(ctx context.Context, s storage.Settlement) (bool, error) {
	if err := t.enter(ctx, storage.CheckText(s.ID, s.LeaseNode, s.LastError, string(s.State))); err != nil {
		return false, err
	}
	lease := []any{t.organization, s.ID, s.LeaseUntil, s.LeaseNode}
	if s.Done {
		n, err := t.exec(ctx, settleDone, lease...)
		return t.changed(ctx, n, err)
	}
	if s.State != storage.DeliveryPending && s.State != storage.DeliveryDead {
		return false, t.fail(ctx, invalid("state of a delivery"))
	}
	n, err := t.exec(ctx, settleLater, append([]any{string(s.State), s.NextAt, s.LastError}, lease...)...)
	return t.changed(ctx, n, err)
}

// Lease implements storage.Store. Taking a delivery counts as an attempt.
func (s *Store) Lease(ctx context.Context, q storage.LeaseQuery) ([]storage.Delivery, error) {
	if err := cmp.Or(s.enter(ctx, q.Node), checkLimit(q.Limit)); err != nil {
		return nil, err
	}
	lease := leaseFile
	if s.postgres {
		lease = leaseRows
	}
	var taken []storage.Delivery
	err := s.withWrite(ctx, storage.System, func(ctx context.Context, r *reader) (err error) {
		taken, err = selected(ctx, r, deliveryRelation, lease, q.Until, q.Node, q.Now, q.Now, int64(q.Limit))
		return err
	})
	if err != nil {
		return nil, err
	}
	// The order in which rows come back from RETURNING is nobody's promise.
	slices.SortFunc(taken, func(a, b storage.Delivery) int {
		return cmp.Or(cmp.Compare(a.NextAt, b.NextAt), strings.Compare(a.Organization, b.Organization), strings.Compare(a.ID, b.ID))
	})
	return taken, nil
}
