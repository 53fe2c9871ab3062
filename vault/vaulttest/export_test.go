package vaulttest

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// ClauseNames returns the names of all clauses in order.
func ClauseNames() []string {
	names := make([]string, len(clauses))
	for i, c := range clauses {
		names[i] = c.name
	}
	return names
}

// Failures runs the clauses that are not skipped and returns what each that failed
// reported first.
func Failures(t *testing.T, open func(t *testing.T) vault.KeyProvider, opts ...Option) map[string]string {
	t.Helper()
	s := &suite{open: open}
	for _, opt := range opts {
		opt(s)
	}
	failures := make(map[string]string)
	for _, c := range clauses {
		if c.skip(s) != "" {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), clauseTimeout)
		var r recorder
		done := make(chan struct{})
		go func() { // a goroutine of its own, so that Fatalf can end the clause
			defer close(done)
			c.run(&check{reporter: &r, ctx: ctx, t: t, suite: s, sentence: c.sentence})
		}()
		<-done
		cancel()
		if r.first != "" {
			failures[c.name] = r.first
		}
	}
	return failures
}

type recorder struct{ first string }

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	if r.first == "" {
		r.first = fmt.Sprintf(format, args...)
	}
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
