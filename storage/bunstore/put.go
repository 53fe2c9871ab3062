package bunstore

import (
	"context"
)

// put inserts a record of revision 1, or replaces the row of the revision
// before. Both are decided by the statement itself, so that a conflict is a
// count of zero and no error.
func put[T any](ctx context.Context, t *tx, rel *relation[T], record T, revision int64) (bool, error) {
	args, err := rel.args(&record)
	if err != nil {
		return false, t.fail(ctx, err)
	}
	if revision == 1 {
		n, err := t.exec(ctx, rel.insert, args...)
		return t.changed(ctx, n, err)
	}
	identity := append(args[:rel.identity:rel.identity], revision-1)
	n, err := t.exec(ctx, rel.update, append(args[rel.identity:len(args):len(args)], identity...)...)
	if n > 0 || err != nil || rel.primary == rel.identity {
		return t.changed(ctx, n, err)
	}
	stands, err := t.find(ctx, rel.stands, append(args[:rel.primary:rel.primary], revision-1)...)
	if stands {
		err = invalid("another identity than that of the row")
	}
	return false, t.fail(ctx, err)
}

// changed is the result of a statement that changes one row or none.
func (t *tx) changed(ctx context.Context, n int64, err error) (bool, error) {
	if err != nil {
		return false, t.fail(ctx, err)
	}
	if n > 0 {
		t.wrote = true
	}
	return n > 0, nil
}

// execute runs a statement whose count of rows is of no interest.
func (t *tx) execute(ctx context.Context, q statement, args ...any) error {
	n, err := t.exec(ctx, q, args...)
	_, err = t.changed(ctx, n, err)
	return err
}
