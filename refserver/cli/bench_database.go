package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// benchMade is a database that was made.
type benchMade struct {
	Name    string  `json:"name"`
	Agents  int     `json:"agents"`
	Tools   int     `json:"tools"`
	Grants  int     `json:"grants"`
	Events  int64   `json:"events"`
	Seconds float64 `json:"madeInSeconds"`
	Idle    int64   `json:"idleMemoryBytes,omitempty"`

	at       location
	key      string // the encryption key
	requests [][]byte
}

// benchPairs bounds the grants that are vended: enough that they don't all lie
// in a few pages of a large database.
const benchPairs = 10_000

// locate makes the place of a database: a file, or a schema, that was not there.
func (b *bench) locate(name string) (location, error) {
	setting := b.command.Database
	path, isFile := strings.CutPrefix(setting, "sqlite:")
	switch {
	case setting == "":
		return b.file(filepath.Join(b.dir, name+".db"))
	case isFile:
		return b.file(path)
	}
	at, err := databaseFlags{Database: setting, Schema: "agentkey_bench_" + strings.ToLower(rand.Text()[:16])}.locate(b.session)
	if err != nil {
		return at, err
	}
	u, query, ok := parsePostgres(setting)
	if !ok || !onThisMachine(u, query) {
		return at, usagef("the bench uses a Postgres on this machine only: others would feel its load")
	}
	b.later(func() error { return dropSchema(at) })
	return at, nil
}

func (b *bench) file(path string) (location, error) {
	at, err := sqliteAt(path)
	if err != nil {
		return at, err
	}
	f, err := os.OpenFile(at.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return at, usagef("the file is there already: the bench makes a database of its own, and removes it")
	}
	if err != nil {
		return at, fmt.Errorf("make the database: %w", cause(err))
	}
	b.later(func() error {
		err := os.Remove(at.path)
		for _, companion := range []string{"-wal", "-shm"} {
			if e := os.Remove(at.path + companion); !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
		return err
	})
	return at, f.Close()
}

// dropSchema removes a schema of the bench, whose name was made of letters and
// digits. It has its own time: whoever calls it may have been told to stop.
func dropSchema(at location) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := sql.Open("pgx", at.dsn)
	if err != nil {
		return usagef("the database's URL can't be read, or this build has no driver for it")
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `DROP SCHEMA IF EXISTS "`+at.schema+`" CASCADE`); err != nil {
		return fmt.Errorf("remove the schema %s: %w", at.schema, err)
	}
	return nil
}

// make makes a database and fills it.
func (b *bench) make(ctx context.Context, size benchSize) (_ *benchMade, err error) {
	s := b.session
	began := s.options.Clock()
	at, err := b.locate(size.name)
	if err != nil {
		return nil, err
	}
	made := &benchMade{Name: size.name, Agents: size.Agents, Tools: size.Tools, Grants: size.Grants, at: at}
	if made.key, err = localkey.Generate(); err != nil {
		return nil, err
	}
	keys, err := localkey.FromEnv(func(string) (string, bool) { return made.key, true }, envEncryptionKey)
	if err != nil {
		return nil, err
	}
	store, closeStore, err := at.open(ctx)
	if err != nil {
		return nil, err
	}
	in := &installation{keys: keys, closers: []func() error{closeStore}}
	defer func() { err = errors.Join(err, in.close()) }()
	in.manager, err = agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Policies: unlimited(), Clock: s.options.Clock})
	if err != nil {
		return nil, err
	}
	if err := b.fill(ctx, in.manager, store, keys, size, made); err != nil {
		return nil, fmt.Errorf("fill the database: %w", err)
	}
	made.Seconds = s.options.Clock().Sub(began).Seconds()
	return made, nil
}

// unlimited are policies under which no limit is ever reached.
func unlimited() ratelimit.Policies {
	policies := ratelimit.DefaultPolicies()
	for tier := range policies {
		policies[tier] = ratelimit.Policy{}
	}
	return policies
}

func (b *bench) fill(ctx context.Context, m *agentkey.Manager, store storage.Store, keys vault.KeyProvider, size benchSize, made *benchMade) error {
	p := b.session.progress("making the database " + size.name)
	defer p.end()
	token := newToken()
	defer token.Destroy()
	if _, err := createOrganization(ctx, m, agentkey.CreateOrganizationInput{Name: "Bench", Owner: "bench", Token: token}); err != nil {
		return err
	}
	owner, err := m.Authenticate(ctx, token, agentkey.RequestContext{})
	if err != nil {
		return err
	}
	now := b.session.options.Clock()
	seeded, err := seed.Fill(ctx, seed.Config{
		Manager: m, Store: store, Keys: keys, Actor: owner, From: now, To: now, Assigned: true,
		Progress: func(events int64) { p.set(plural(events, "event")) },
	}, size.Counts)
	if err != nil {
		return err
	}
	var issued int
	made.requests, issued, err = benchRequests(ctx, m, owner, seeded.Open)
	made.Events = seeded.Events + int64(issued)
	return err
}

// benchKey gives an agent a key. A machine that is busy may refuse that for a
// moment, and is asked again until ctx ends.
func benchKey(ctx context.Context, m *agentkey.Manager, owner agentkey.Actor, agent string) (string, error) {
	for {
		issued, err := m.RotateKey(ctx, owner, agent, agentkey.RotateKeyInput{})
		if errors.Is(err, agentkey.ErrUnavailable) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return "", err
		}
		defer issued.Secret.Destroy()
		return string(issued.Secret.Bytes()), nil
	}
}

// benchRequests are the vends of some grants that lie far from each other, in an
// order that is random and the same at each call. It answers how many keys it gave
// to their agents as well.
func benchRequests(ctx context.Context, m *agentkey.Manager, owner agentkey.Actor, open []storage.Pair) ([][]byte, int, error) {
	n := min(len(open), benchPairs)
	pairs := make([]storage.Pair, n)
	keys := make(map[string]string)
	for i := range pairs {
		pairs[i] = open[i*len(open)/n]
		keys[pairs[i].Agent] = ""
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	agents := make(chan string, len(keys))
	for agent := range keys {
		agents <- agent
	}
	close(agents)
	for range 64 { // so that they share commits
		wg.Go(func() {
			for agent := range agents {
				key, err := benchKey(ctx, m, owner, agent)
				mu.Lock()
				keys[agent] = key
				failed = cmp.Or(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	mathrand.New(mathrand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	requests := make([][]byte, n)
	for i, p := range pairs {
		requests[i] = fmt.Appendf(nil, "GET /api/tools/%s/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n", p.Tool, keys[p.Agent])
	}
	return requests, len(keys), failed
}
