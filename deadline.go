package agentkey

import (
	"context"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// operationTime bounds a change, from its call to its answer: the wait for the
// head, every statement, and the search for the outcome of a commit that is not
// answered. What changes as many rows as an agent or a tool has grants is bounded
// statement by statement instead.
const operationTime = 2800 * time.Millisecond

// answerBy is where a context holds the time that AnswerBy was given.
type answerBy struct{}

// AnswerBy returns a context in which the Manager's calls answer by a time, for
// hosts that owe their own callers an answer: storage or a key provider that is
// slow or silent is given up early enough. The error is then an ErrStorage or an
// ErrKeys. Unlike a deadline of the context it leaves what is slow by its size its
// time: reading and searching a long log, suspending an agent with thousands of
// grants. Without it every change has about three seconds of its own, after those
// that Config.KeyTimeout gives the provider.
func AnswerBy(ctx context.Context, t time.Time) context.Context {
	return context.WithValue(ctx, answerBy{}, t)
}

// within is what is left of most, at the latest until the caller wants its answer.
func within(ctx context.Context, most time.Duration) time.Time {
	if wanted, ok := ctx.Value(answerBy{}).(time.Time); ok {
		if left := time.Until(wanted); left > most {
			return wanted.Add(most - left)
		}
		return wanted
	}
	return time.Now().Add(most)
}

// reading bounds a call of storage that changes nothing.
func reading(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, within(ctx, operationTime))
}

// decidedBy is when storage must have been asked to commit an operation that
// begins now. What is left after that is for a commit that is not answered.
func decidedBy(ctx context.Context) time.Time {
	return within(ctx, operationTime).Add(-storage.OutcomeTime)
}

// update is the storage's Update, bounded like an operation.
func (m *Manager) update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	ctx, cancel := context.WithDeadline(ctx, decidedBy(ctx))
	defer cancel()
	return m.store.Update(ctx, organization, fn)
}
