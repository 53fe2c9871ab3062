package dbtest

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// Clockless hides a database's clock from tests that move one of their own, far from
// it: a node whose clock is wrong vends nothing. All else is the store's, its optional
// powers too.
type Clockless struct{ *bunstore.Store }

// Update gives fn a head that knows no time of its own.
func (s Clockless) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	return s.Store.Update(ctx, organization, withoutClock(fn))
}

// UpdateBulk does, too.
func (s Clockless) UpdateBulk(ctx context.Context, organization string, q storage.BulkQuery, fn func(context.Context, storage.Tx) error) error {
	return s.Store.UpdateBulk(ctx, organization, q, withoutClock(fn))
}

func withoutClock(fn func(context.Context, storage.Tx) error) func(context.Context, storage.Tx) error {
	return func(ctx context.Context, tx storage.Tx) error {
		return fn(ctx, clocklessTx{tx, tx.(storage.BulkReader)})
	}
}

type clocklessTx struct {
	storage.Tx
	storage.BulkReader
}

// Head is the head without the database's time.
func (tx clocklessTx) Head(ctx context.Context) (storage.Head, error) {
	head, err := tx.Tx.Head(ctx)
	head.Now = 0
	return head, err
}
