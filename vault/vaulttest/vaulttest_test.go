package vaulttest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

// local returns a good provider; the same name gives the same key.
func local(t *testing.T, names ...string) vault.KeyProvider {
	t.Helper()
	var keys [][]byte
	for _, name := range names {
		key := sha256.Sum256([]byte("test key, not a secret: " + name))
		keys = append(keys, key[:])
	}
	p, err := localkey.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func other(t *testing.T) vault.KeyProvider { return local(t, "other") }

// The clauses in the interface's comment are those of the suite, in order.
func TestClausesAreThoseOfTheInterface(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	file, err := parser.ParseFile(token.NewFileSet(), "../provider.go", nil, parser.ParseComments)
	is.NoErr(err)
	var doc string
	for _, decl := range file.Decls {
		if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE && d.Specs[0].(*ast.TypeSpec).Name.Name == "KeyProvider" {
			doc = d.Doc.Text()
		}
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\s*\d+\. (\w+):`).FindAllStringSubmatch(doc, -1) {
		names = append(names, m[1])
	}
	is.Equal(names, vaulttest.ClauseNames())
}

// broken is a good provider until one of the functions takes over.
type broken struct {
	vault.KeyProvider
	current func(ctx context.Context) (string, error)
	wrap    func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error)
	unwrap  func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error)
}

func (b broken) CurrentKey(ctx context.Context) (string, error) {
	if b.current == nil {
		return b.KeyProvider.CurrentKey(ctx)
	}
	return b.current(ctx)
}

func (b broken) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if b.wrap == nil {
		return b.KeyProvider.WrapKey(ctx, key, c)
	}
	return b.wrap(ctx, key, c)
}

func (b broken) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	if b.unwrap == nil {
		return b.KeyProvider.UnwrapKey(ctx, w, c)
	}
	return b.unwrap(ctx, w, c)
}

// Format keeps the embedded provider's redaction, which breaking one thing must
// not take away.
func (b broken) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

func (b broken) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// Each provider breaks one clause, and the suite must say which, and only that.
func TestBrokenProvidersAreRejected(t *testing.T) {
	t.Parallel()
	tests := brokenProviders()
	for _, name := range vaulttest.ClauseNames() {
		if !slices.ContainsFunc(tests, func(b brokenProvider) bool { return b.clause == name }) && name != "Unavailable" {
			t.Errorf("no provider breaks the clause %s", name)
		}
	}
	for _, tc := range tests {
		t.Run(tc.clause+"/"+tc.how, func(t *testing.T) {
			t.Parallel()
			failures := vaulttest.Failures(t, func(t *testing.T) vault.KeyProvider {
				return tc.build(local(t, "own"), t)
			}, vaulttest.WithOther(other))
			if got := slices.Sorted(maps.Keys(failures)); !slices.Equal(got, []string{tc.clause}) {
				t.Errorf("clauses that failed: %v, want only %s\n%v", got, tc.clause, failures)
			}
			if !strings.Contains(failures[tc.clause], "the clause: ") {
				t.Errorf("the report does not give the clause: %s", failures[tc.clause])
			}
		})
	}
}

type brokenProvider struct {
	clause, how string
	build       func(good vault.KeyProvider, t *testing.T) vault.KeyProvider
}

func brokenProviders() []brokenProvider {
	return []brokenProvider{
		{"CurrentKey", "names another key", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				w, err := good.WrapKey(ctx, key, c)
				w.Provider += "-old"
				return w, err
			}, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				w.Provider = strings.TrimSuffix(w.Provider, "-old")
				return good.UnwrapKey(ctx, w, c)
			}}
		}},
		{"RoundTrip", "gives other bytes", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				key, err := good.UnwrapKey(ctx, w, c)
				if err == nil && c.Organization == "organization-7" {
					key[31] = 0
				}
				return key, err
			}}
		}},
		{"Ownership", "zeroes the caller's key", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				defer clear(key)
				return good.WrapKey(ctx, key, c)
			}}
		}},
		{"Ownership", "keeps the caller's key", keeper},
		{"KeyLength", "takes any length", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				return good.WrapKey(ctx, append(bytes.Clone(key), make([]byte, 64)...)[:32], c)
			}}
		}},
		{"KeyLength", "gives another error", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				if len(key) != 32 {
					return vault.Wrapped{}, errors.New("wrong length")
				}
				return good.WrapKey(ctx, key, c)
			}}
		}},
		{"ContextBound", "does not bind the organization", unbound(func(c *vault.Context) { c.Organization = "" })},
		{"ContextBound", "does not bind the purpose", unbound(func(c *vault.Context) { c.Purpose = "" })},
		{"ContextBound", "does not bind the key", unbound(func(c *vault.Context) { c.Key = "" })},
		{"ContextBound", "joins fields without lengths", unbound(func(c *vault.Context) {
			c.Installation, c.Organization = c.Installation+c.Organization, ""
		})},
		{"Authenticated", "ignores what follows", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				w.Blob = w.Blob[:min(len(w.Blob), 78)]
				return good.UnwrapKey(ctx, w, c)
			}}
		}},
		{"Authenticated", "ignores the version", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				if w.Blob = bytes.Clone(w.Blob); len(w.Blob) > 0 {
					w.Blob[0] = 1
				}
				return good.UnwrapKey(ctx, w, c)
			}}
		}},
		{"UnknownKey", "does not name it", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				key, err := good.UnwrapKey(ctx, w, c)
				if errors.Is(err, vault.ErrUnknownKey) {
					err = vault.ErrUnknownKey
				}
				return key, err
			}}
		}},
		{"CrossKey", "opens with the other's key", func(_ vault.KeyProvider, t *testing.T) vault.KeyProvider {
			return local(t, "own", "other")
		}},
		{"Bounded", "pads to 5000 bytes", padded},
		{"Concurrent", "fails when called twice at once", alone},
		{"Cancelled", "goes on", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				return good.WrapKey(context.WithoutCancel(ctx), key, c)
			}}
		}},
		{"Redacted", "prints the key in an error", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				w, err := good.WrapKey(ctx, key, c)
				if err != nil {
					err = fmt.Errorf("wrap %x: %w", key, err)
				}
				return w, err
			}}
		}},
		{"Redacted", "prints what it has seen", func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
			return &talkative{KeyProvider: good}
		}},
	}
}

// keeper answers from the very slices that it was given, as long as the context is
// right; the caller has zeroed them by then.
func keeper(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
	var mu sync.Mutex
	kept := map[string][]byte{}
	return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
		w, err := good.WrapKey(ctx, key, c)
		mu.Lock()
		defer mu.Unlock()
		kept[string(w.Blob)] = key
		return w, err
	}, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		key, err := good.UnwrapKey(ctx, w, c)
		if err != nil || kept[string(w.Blob)] == nil {
			return key, err
		}
		return bytes.Clone(kept[string(w.Blob)]), nil
	}}
}

// unbound drops a part of the context before it is bound.
func unbound(drop func(*vault.Context)) func(vault.KeyProvider, *testing.T) vault.KeyProvider {
	return func(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
		return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
			drop(&c)
			return good.WrapKey(ctx, key, c)
		}, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
			drop(&c)
			return good.UnwrapKey(ctx, w, c)
		}}
	}
}

// padded keeps every other clause with a blob that is too large.
func padded(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
	pad := make([]byte, 5000)
	return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
		w, err := good.WrapKey(ctx, key, c)
		if err == nil {
			w.Blob = append(w.Blob, pad...)
		}
		return w, err
	}, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
		cut := len(w.Blob) - len(pad)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if w.Provider == "vaulttest:no-such-key" {
			return good.UnwrapKey(ctx, w, c)
		}
		if cut < 0 || !bytes.Equal(w.Blob[cut:], pad) {
			if current, _ := good.CurrentKey(ctx); w.Provider != current {
				return good.UnwrapKey(ctx, w, c)
			}
			return nil, vault.ErrUnwrap
		}
		w.Blob = w.Blob[:cut]
		return good.UnwrapKey(ctx, w, c)
	}}
}

// alone works for one caller at a time only. It yields while it works, so that
// callers who are there at the same time do meet.
func alone(good vault.KeyProvider, _ *testing.T) vault.KeyProvider {
	var inside atomic.Int32
	return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
		defer inside.Add(-1)
		if inside.Add(1) > 1 {
			return vault.Wrapped{}, errors.New("busy")
		}
		for range 1000 {
			runtime.Gosched()
		}
		return good.WrapKey(ctx, key, c)
	}}
}

// talkative remembers the last key in a field that fmt reaches.
type talkative struct {
	vault.KeyProvider
	mu   sync.Mutex
	last [32]byte
}

func (p *talkative) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	p.mu.Lock()
	copy(p.last[:], key)
	p.mu.Unlock()
	return p.KeyProvider.WrapKey(ctx, key, c)
}

// The clause Unavailable needs an outage, so it has a test of its own.
func TestUnavailableClause(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	down := func(failure error) vaulttest.Option {
		return vaulttest.WithOutage(func(t *testing.T) (vault.KeyProvider, func()) {
			good := local(t, "own")
			var out atomic.Bool
			return broken{KeyProvider: good, wrap: func(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
				if out.Load() {
					return vault.Wrapped{}, failure
				}
				return good.WrapKey(ctx, key, c)
			}, unwrap: func(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
				if out.Load() {
					return nil, failure
				}
				return good.UnwrapKey(ctx, w, c)
			}}, func() { out.Store(true) }
		})
	}
	open := func(t *testing.T) vault.KeyProvider { return local(t, "own") }
	is.Equal(len(vaulttest.Failures(t, open, down(fmt.Errorf("dial: %w", vault.ErrUnavailable)))), 0)
	failures := vaulttest.Failures(t, open, down(errors.New("connection refused")))
	is.Equal(slices.Sorted(maps.Keys(failures)), []string{"Unavailable"})
}

func TestGoodProviderPasses(t *testing.T) {
	t.Parallel()
	vaulttest.TestProvider(t, func(t *testing.T) vault.KeyProvider { return local(t, "own") },
		vaulttest.WithOther(other))
}
