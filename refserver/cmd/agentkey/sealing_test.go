package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore/pgxpipe"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// The settings of the program agentkey-sealing, which seals a new credential over
// and over in one organization, with a threshold of its own for data keys, and
// prints a line for each that is stored.
const (
	sealingDatabase     = "AGENTKEY_DATABASE"
	sealingKey          = "AGENTKEY_ENCRYPTION_KEY"
	sealingOrganization = "AGENTKEY_TEST_ORGANIZATION"
	sealingThreshold    = "AGENTKEY_TEST_THRESHOLD"
	sealingWorkers      = "AGENTKEY_TEST_WORKERS"
)

// sealing is that program. It ends when it is killed.
func sealing() {
	if err := sealForEver(context.Background()); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func sealForEver(ctx context.Context) error {
	workers, err := strconv.Atoi(os.Getenv(sealingWorkers))
	threshold, err2 := strconv.ParseInt(os.Getenv(sealingThreshold), 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	m, _, closeAll, err := sealingManager(ctx, os.Getenv, threshold)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range workers {
		go func() {
			for {
				err := sealOne(ctx, m, os.Getenv(sealingOrganization))
				if errors.Is(err, agentkey.ErrUnavailable) {
					continue // as a client would try again: 32 sealers use up such a key in no time
				} else if err != nil {
					failed <- err
				}
				_, _ = os.Stdout.WriteString("sealed\n")
			}
		}()
	}
	return errors.Join(<-failed, closeAll())
}

func sealOne(ctx context.Context, m *agentkey.Manager, organization string) error {
	owner := agentkey.Actor{Organization: organization, Kind: "human", ID: "ann", Role: agentkey.RoleOwner, Auth: "host"}
	_, err := m.AddTool(ctx, owner, agentkey.AddToolInput{
		Name: nameOf("Tool"), AuthType: "api_key", Mode: storage.Shared, Credential: agentkey.NewSecret([]byte("lin_api_test_sealing")),
	})
	return err
}

// sealingManager opens the database that getenv names.
func sealingManager(ctx context.Context, getenv func(string) string, threshold int64) (m *agentkey.Manager, store *bunstore.Store, closeAll func() error, err error) {
	keys, err := localkey.FromEnv(func(name string) (string, bool) { return getenv(name), true }, sealingKey)
	if err != nil {
		return nil, nil, nil, err
	}
	if path, ok := strings.CutPrefix(getenv(sealingDatabase), "sqlite:"); ok {
		store, err = bunstore.OpenSQLite(path)
		if err != nil {
			return nil, nil, nil, err
		}
		closeAll = store.Close
	} else {
		db, err := sql.Open("pgx", getenv(sealingDatabase))
		if err != nil {
			return nil, nil, nil, err
		}
		if store, err = bunstore.New(bunstore.Config{DB: bun.NewDB(db, pgdialect.New()), Pipeline: pgxpipe.Send}); err != nil {
			return nil, nil, nil, err
		}
		closeAll = func() error { return errors.Join(store.Close(), db.Close()) }
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, closeAll())
	}
	unlimited := ratelimit.Policies{}
	for _, tier := range ratelimit.Tiers() {
		unlimited[tier] = ratelimit.Policy{}
	}
	m, err = agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, SealsPerKey: threshold, CatalogLimit: 10_000, Policies: unlimited})
	return m, store, closeAll, err
}

// sealers are processes that seal on one database, and the test that watches them.
type sealers struct {
	t            *testing.T
	environment  []string
	threshold    int64
	organization string
	m            *agentkey.Manager
	store        *bunstore.Store
	stored       int64 // that some process said were
}

func newSealers(t *testing.T, database string, threshold int64) *sealers {
	t.Helper()
	is := is.New(t)
	key, err := localkey.Generate()
	is.NoErr(err)
	set := map[string]string{sealingDatabase: database, sealingKey: key}
	s := &sealers{t: t, threshold: threshold}
	var closeAll func() error
	s.m, s.store, closeAll, err = sealingManager(t.Context(), func(name string) string { return set[name] }, threshold)
	is.NoErr(err)
	t.Cleanup(func() { is.NoErr(closeAll()) })
	o, err := s.m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "acme", Owner: "ann"})
	is.NoErr(err)
	s.organization = o.Organization.ID
	set[sealingOrganization], set[sealingThreshold] = s.organization, strconv.FormatInt(threshold, 10)
	for name, value := range set {
		s.environment = append(s.environment, name+"="+value)
	}
	return s
}

// sealer is one of the processes.
type sealer struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func (s *sealers) start(workers int) *sealer {
	s.t.Helper()
	cmd := exec.Command(testBinary(s.t, "agentkey-sealing"))
	cmd.Env = append(s.environment, "HOME="+s.t.TempDir(), sealingWorkers+"="+strconv.Itoa(workers))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &sealer{cmd: cmd, out: bufio.NewReader(out)}
}

// await reads until so many more are stored.
func (p *sealer) await(n int64) error {
	for range n {
		if _, err := p.out.ReadString('\n'); err != nil {
			return err
		}
	}
	return nil
}

// kill kills the process, and answers how many more it had stored by then.
func (p *sealer) kill() int64 {
	_ = p.cmd.Process.Kill()
	rest, _ := io.ReadAll(p.out)
	_ = p.cmd.Wait()
	return int64(strings.Count(string(rest), "\n"))
}

// seals are the counts of the seal keys, oldest first, and how many values each
// has sealed.
func (s *sealers) seals() (reserved []int64, values map[string]int64, total int64) {
	s.t.Helper()
	var keys []storage.DataKey
	err := s.store.View(s.t.Context(), s.organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		keys, err = tx.DataKeys(ctx)
		if err != nil {
			return err
		}
		page, err := tx.Tools(ctx, storage.ToolQuery{Limit: storage.MaxPage})
		if err != nil {
			return err
		}
		refs := make([]storage.CredentialRef, len(page.Tools))
		for i, tool := range page.Tools {
			refs[i] = storage.CredentialRef{Tool: tool.ID}
		}
		found, err := tx.Credentials(ctx, refs)
		values = make(map[string]int64)
		for _, c := range found {
			id, err := vault.SealedKeyID(c.Sealed)
			if err != nil {
				return err
			}
			values[id]++
			total++
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(keys, func(a, b storage.DataKey) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
	for _, k := range keys {
		if k.Purpose != vault.PurposeSeal {
			continue
		}
		reserved = append(reserved, k.Reserved)
		if values[k.ID] > k.Reserved || k.Reserved > s.threshold {
			s.t.Errorf("a key sealed %d values, reserved %d seals, and may make %d", values[k.ID], k.Reserved, s.threshold)
		}
	}
	return reserved, values, total
}

// sound wants every count to be possible and every value to open.
func (s *sealers) sound() {
	s.t.Helper()
	d, err := s.m.Diagnose(s.t.Context(), agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	if err != nil || !d.OK() {
		s.t.Errorf("%v: %+v", err, d.Findings)
	}
	_, values, total := s.seals()
	if total < s.stored || d.Opened != total {
		s.t.Errorf("%d values, of which %d open; %d were said to be stored", total, d.Opened, s.stored)
	}
	s.t.Logf("%d values under %d keys; %d were reported before a kill", total, len(values), s.stored)
}

// TestSealsLostByAKill: a process that is killed has reserved its seals before it
// used one, and what is left of its block counts as used: the next process, on the
// same key, begins a block of its own.
func TestSealsLostByAKill(t *testing.T) {
	t.Parallel()
	databases := []string{"sqlite:" + filepath.Join(t.TempDir(), "agentkey.db")}
	if proving() {
		database, err := createDatabase(pgtest.DSN(t))
		is.New(t).NoErr(err)
		databases = append(databases, database)
	}
	for _, database := range databases {
		is := is.New(t)
		s := newSealers(t, database, 2500)
		for _, want := range [][]int64{{1024}, {2048}, {2500}, {2500, 1024}} {
			p := s.start(1)
			is.NoErr(p.await(2))
			s.stored += 2 + p.kill()
			reserved, _, _ := s.seals()
			is.Equal(reserved, want)
		}
		s.sound()
	}
}

// TestSealsOfTwoProcesses: sixteen sealers in each of two processes on one Postgres
// database, which are killed and started again: no data key seals past its
// threshold.
func TestSealsOfTwoProcesses(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	database, err := createDatabase(pgtest.DSN(t))
	is.NoErr(err)
	const threshold = 40
	s := newSealers(t, database, threshold)
	random := rand.New(rand.NewPCG(6, 1))
	nodes := []*sealer{s.start(16), s.start(16)}
	for i := range rounds(2, 30) {
		advance := 10 + random.Int64N(30)
		var waiting sync.WaitGroup
		for _, p := range nodes {
			waiting.Go(func() {
				if err := p.await(advance); err != nil {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		s.stored += 2*advance + nodes[i%2].kill()
		nodes[i%2] = s.start(16)
	}
	for _, p := range nodes {
		s.stored += p.kill()
	}
	reserved, _, total := s.seals()
	is.True(int64(len(reserved)) >= total/threshold)
	s.sound()
}
