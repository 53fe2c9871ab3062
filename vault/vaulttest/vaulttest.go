// Package vaulttest holds the conformance suite for implementations of
// vault.KeyProvider. It uses only the standard library.
package vaulttest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// clauseTimeout bounds each clause: a provider that hangs fails instead.
const clauseTimeout = 10 * time.Second

// Option adds what [TestProvider] can't make by itself.
type Option func(*suite)

// WithOther gives the suite a provider that holds another key and none of those of
// the provider under test. Without it the clause CrossKey is skipped.
func WithOther(open func(t *testing.T) vault.KeyProvider) Option {
	return func(s *suite) { s.other = open }
}

// WithOutage gives the suite a provider and a function that makes its key service
// unreachable. Without it the clause Unavailable is skipped; providers that need no
// service leave it out.
func WithOutage(open func(t *testing.T) (p vault.KeyProvider, fail func())) Option {
	return func(s *suite) { s.outage = open }
}

// WithSecrets gives the suite byte strings that must never be printed, such as the
// provider's own keys and the token it authenticates with.
func WithSecrets(secrets ...[]byte) Option {
	return func(s *suite) { s.secrets = append(s.secrets, secrets...) }
}

// TestProvider tests every clause of vault.KeyProvider as a subtest of the same
// name. open returns a provider ready for use; providers from several calls may
// share their keys.
func TestProvider(t *testing.T, open func(t *testing.T) vault.KeyProvider, opts ...Option) {
	t.Helper()
	s := &suite{open: open}
	for _, opt := range opts {
		opt(s)
	}
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			if why := c.skip(s); why != "" {
				t.Skip(why)
			}
			ctx, cancel := context.WithTimeout(t.Context(), clauseTimeout)
			defer cancel()
			c.run(&check{reporter: t, ctx: ctx, t: t, suite: s, sentence: c.sentence})
		})
	}
}

// suite is what the clauses work with.
type suite struct {
	open, other func(t *testing.T) vault.KeyProvider
	outage      func(t *testing.T) (vault.KeyProvider, func())
	secrets     [][]byte
}

// reporter is the part of testing.T that a clause reports through; the suite's own
// tests put another in its place to see clauses fail.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// check is one run of one clause.
type check struct {
	reporter
	ctx      context.Context
	t        *testing.T
	suite    *suite
	sentence string
}

// errorf reports what was seen together with the clause's sentence.
func (c *check) errorf(format string, args ...any) {
	c.Helper()
	c.Errorf(format+"\nthe clause: %s", append(slices.Clone(args), c.sentence)...)
}

// fatalf is errorf and ends the clause.
func (c *check) fatalf(format string, args ...any) {
	c.Helper()
	c.Fatalf(format+"\nthe clause: %s", append(slices.Clone(args), c.sentence)...)
}
