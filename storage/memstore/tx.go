package memstore

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// reader reads one organization as it stood in one root. In an Update it reads
// the transaction's own state.
type reader struct {
	organization
	root   root
	name   string
	failed error // what doomed the transaction
	done   atomic.Bool
}

// tx changes the state that its reader reads.
type tx struct {
	*reader
	// shared are the changes to what all organizations share: made once to the
	// transaction's own root, and again to the newest when it commits.
	shared []func(*root) bool
}

var (
	_ storage.ReadTx = (*reader)(nil)
	_ storage.Tx     = (*tx)(nil)
)

func newReader(committed *root, organization string) *reader {
	r := &reader{root: *committed, name: organization}
	if o, ok := committed.organizations.get(organization); ok {
		r.organization = *o
	}
	return r
}

func (t *tx) run(ctx context.Context, fn func(context.Context, storage.Tx) error) error {
	defer t.done.Store(true)
	if err := fn(ctx, t); err != nil {
		return err
	}
	return t.failed
}

// enter is what every method begins with. It dooms the transaction when the
// context has ended or a check has failed.
func (r *reader) enter(ctx context.Context, checks ...error) error {
	switch {
	case r.done.Load():
		return storage.ErrClosed
	case r.failed != nil:
		return storage.ErrPoisoned
	}
	if err := ctx.Err(); err != nil {
		return r.fail(err)
	}
	for _, err := range checks {
		if err != nil {
			return r.fail(err)
		}
	}
	return nil
}

func (r *reader) fail(err error) error {
	r.failed = err
	return err
}

func (r *reader) invalid(what string) error {
	return r.fail(fmt.Errorf("%w: %s", storage.ErrInvalid, what))
}

// share makes a change to what all organizations share. It reports false, with
// nothing changed, when it can't be made.
func (t *tx) share(change func(*root) bool) bool {
	if !change(&t.root) {
		return false
	}
	t.shared = append(t.shared, change)
	return true
}

// follows reports whether a row of revision next may take the place of the one
// that stands, whose revision is 0 when there is none.
func follows(next, stands int64) bool { return next-1 == stands }

func checkIDs(n int) error {
	if n > storage.MaxIDs {
		return fmt.Errorf("%w: too many ids", storage.ErrInvalid)
	}
	return nil
}

func checkLimit(limit int) error {
	if limit < 1 || limit > storage.MaxPage {
		return fmt.Errorf("%w: limit", storage.ErrInvalid)
	}
	return nil
}

// byID gathers the rows of these ids, those that are there, in descending order
// of ids.
func byID[V any](rows tree[*V], ids []string, out func(V) *V) []V {
	var wanted tree[*V]
	for _, id := range ids {
		if row, ok := rows.get(id); ok {
			wanted = wanted.put(id, row)
		}
	}
	found, _ := list(wanted, "", len(ids), false, func(*V) bool { return true }, out)
	return found
}

// list gathers a page of the rows that match and, if total, counts all of them.
func list[V any](rows tree[*V], after string, limit int, total bool, match func(*V) bool, out func(V) *V) (page []V, n int64) {
	start := after
	if total {
		start = ""
	}
	for id, row := range rows.descend(start) {
		if !total && len(page) == limit {
			break
		}
		if !match(row) {
			continue
		}
		if total {
			n++
		}
		if len(page) < limit && (after == "" || id < after) {
			page = append(page, *out(*row))
		}
	}
	return page, n
}
