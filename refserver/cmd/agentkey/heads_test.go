//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

// releases are the signed heads that anybody but the servers ever saw.
type releases struct {
	mu    sync.Mutex
	heads map[string]string // by what: how it was first released
	means map[string]int    // how many each way gave
}

func (r *releases) add(means, signed string) {
	if signed == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.heads[signed]; !known {
		r.heads[signed] = means
	}
	r.means[means]++
}

// all are the heads that were released so far. Servers go on releasing them.
func (r *releases) all() (heads map[string]string, means map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.heads), maps.Clone(r.means)
}

// webhook keeps heads as a service of somebody else would, and every one that it
// was ever sent.
func (r *releases) webhook(t *testing.T) (url string) {
	var mu sync.Mutex
	kept := make(map[string]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		log := q.URL.Query().Get("log")
		mu.Lock()
		defer mu.Unlock()
		tag := strconv.Quote(strconv.Itoa(len(kept[log])) + "-" + tlog.RecordHash([]byte(kept[log])).String())
		switch {
		case err != nil:
			w.WriteHeader(http.StatusBadRequest)
		case q.Method == http.MethodGet && kept[log] == "":
			w.WriteHeader(http.StatusNotFound)
		case q.Method == http.MethodGet:
			w.Header().Set("ETag", tag)
			_, _ = io.WriteString(w, kept[log])
		case kept[log] != "" && q.Header.Get("If-Match") != tag || kept[log] == "" && q.Header.Get("If-None-Match") != "*":
			r.add("sent to the webhook", string(body))
			w.WriteHeader(http.StatusPreconditionFailed)
		default:
			r.add("sent to the webhook", string(body))
			kept[log] = string(body)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/heads"
}

// watch looks again and again at whatever shows heads, until stop is called. What
// can't be seen just now, since a server or the database is away, is seen later.
func (r *releases) watch(t *testing.T, db *sql.DB, admins []*client.Admin, dirs []string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	again := func(every time.Duration, look func()) {
		watching.Go(func() {
			for ctx.Err() == nil {
				look()
				pause(ctx, every)
			}
		})
	}
	for _, admin := range admins {
		again(10*time.Millisecond, func() {
			if signed, err := admin.Checkpoint(ctx); err == nil {
				r.add("served over HTTP", signed)
			}
		})
	}
	again(5*time.Millisecond, func() { r.files(dirs) })
	again(5*time.Millisecond, func() { _ = r.query(ctx, "committed", db, "select signed from agentkey_logs where size > 0") })
	stop = sync.OnceFunc(func() { cancel(); watching.Wait() })
	t.Cleanup(stop)
	return stop
}

func (r *releases) files(dirs []string) {
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "*.head"))
		for _, path := range found {
			if text, err := os.ReadFile(path); err == nil {
				r.add("in a file", string(text))
			}
		}
	}
}

func (r *releases) query(ctx context.Context, means string, db *sql.DB, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var signed []byte
		if err := rows.Scan(&signed); err != nil {
			return err
		}
		r.add(means, string(signed))
	}
	return rows.Err()
}

// tree is a log's tree as tlog alone makes it.
type tree struct{ stored []tlog.Hash }

func (l *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(l.stored)) {
			return nil, fmt.Errorf("the log has no hash %d", index)
		}
		out[i] = l.stored[index]
	}
	return out, nil
}

func (l *tree) add(n int64, leaf tlog.Hash) error {
	more, err := tlog.StoredHashesForRecordHash(n, leaf, l)
	l.stored = append(l.stored, more...)
	return err
}

// opened is what a signed head says.
type opened struct {
	organization string
	size         int64
	root         tlog.Hash
}

// open reads a head with the public packages for notes and trees alone.
func open(signed string, known note.Verifiers) (h opened, err error) {
	n, err := note.Open([]byte(signed), known)
	if err != nil {
		return h, err
	}
	lines := strings.Split(n.Text, "\n")
	origin := strings.Split(lines[0], "/")
	if len(lines) < 4 || len(origin) != 4 || origin[3] != "1" {
		return h, fmt.Errorf("not a head of a first epoch: %q", lines[0])
	}
	h.organization = origin[2]
	if h.size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return h, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err == nil && len(root) != tlog.HashSize {
		err = fmt.Errorf("a root of %d bytes", len(root))
	}
	copy(h.root[:], root)
	return h, err
}

// oneHistory wants every head to be the root of as many of its log's first lines: so
// of any two the larger extends the smaller.
func oneHistory(heads map[string]string, known note.Verifiers, logs map[string]*tree) error {
	for signed, means := range heads {
		h, err := open(signed, known)
		if err != nil {
			return fmt.Errorf("%s: %w", means, err)
		}
		log, ok := logs[h.organization]
		if !ok {
			return fmt.Errorf("%s: a head of a log that is not there", means)
		}
		root, err := tlog.TreeHash(h.size, log)
		if err != nil {
			return fmt.Errorf("%s: the log of %s at %d: %w", means, h.organization, h.size, err)
		}
		if root != h.root {
			return fmt.Errorf("%s: the log of %s has another root at %d", means, h.organization, h.size)
		}
	}
	return nil
}

// treesOf makes the trees of the leaf hashes in the database.
func treesOf(t *testing.T, db *sql.DB) map[string]*tree {
	t.Helper()
	is := is.New(t)
	rows, err := db.QueryContext(t.Context(), "select organization, seq, hash from agentkey_leaves order by organization, seq")
	is.NoErr(err)
	defer func() { _ = rows.Close() }()
	logs := make(map[string]*tree)
	for rows.Next() {
		var organization string
		var seq int64
		var hash []byte
		is.NoErr(rows.Scan(&organization, &seq, &hash))
		if logs[organization] == nil {
			logs[organization] = new(tree)
		}
		is.NoErr(logs[organization].add(seq, tlog.Hash(hash)))
	}
	is.NoErr(rows.Err())
	return logs
}

// exported makes the tree of the exact bytes that a server exports, and gives the
// heads that stand in the export.
func (r *releases) exported(t *testing.T, admin *client.Admin) *tree {
	t.Helper()
	is := is.New(t)
	var file bytes.Buffer
	is.NoErr(admin.Export(t.Context(), &file))
	log := new(tree)
	for line := range bytes.Lines(file.Bytes()) {
		var l struct {
			Event            json.RawMessage
			Seq              *int64
			Checkpoint, Head string
		}
		is.NoErr(json.Unmarshal(line, &l))
		if l.Seq != nil {
			is.NoErr(log.add(*l.Seq, tlog.RecordHash(l.Event)))
		}
		r.add("exported", l.Checkpoint+l.Head)
	}
	return log
}

// Two servers work on one database and one organization and are killed at any
// moment, both, the one or the other, and so is a connection of the database. All heads that
// were ever released are collected: committed, answered in a receipt, served, kept in the
// database, put into the files of either node, and sent to the webhook. They are of one history,
// and so are proofs between them, by public packages alone.
func TestReleasedHeadsExtendEachOther(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	kills := rounds(2, 60)
	var c *cluster
	dsn, err := createDatabase(pgtest.DSN(t))
	if proving() {
		c = newCluster(t)
		dsn = c.dsn()
	}
	is.NoErr(err)
	db, err := sql.Open("pgx", dsn)
	is.NoErr(err)
	defer func() { _ = db.Close() }()

	r := &releases{heads: make(map[string]string), means: make(map[string]int)}
	shared, hook := newInstallation(t, dsn), r.webhook(t)
	binary := program(t)
	nodes, running, dirs := make([]installed, 2), make([]*process, 2), make([]string, 2)
	urls, admins := make([]string, 2), make([]*client.Admin, 2)
	for i := range nodes {
		dirs[i] = filepath.Join(t.TempDir(), "heads")
		nodes[i] = shared
		nodes[i].environment = append(slices.Clip(shared.environment), "AGENTKEY_ANCHOR=webhook,file:"+dirs[i],
			"AGENTKEY_ANCHOR_WEBHOOK="+hook, "AGENTKEY_ANCHOR_REVOCATIONS=1s")
		running[i] = nodes[i].launch(t, binary, freeAddress(t), "--init-anchor") // the second finds a log that has begun
		running[i].await(t)
		urls[i] = running[i].url()
		admins[i], err = client.NewAdmin(urls[i], shared.token, client.Options{MaxWait: -1})
		is.NoErr(err)
	}
	l := newLoad(t, shared.token, crashClients, urls...)
	stopWatching := r.watch(t, db, admins, dirs)
	stop := l.run(t)
	random := mathrand.New(mathrand.NewPCG(7, uint64(kills)))
	for turn := range kills {
		l.advance(t, random.Int64N(60))
		if c != nil && turn%4 == 3 {
			killConnection(t, db)
			continue
		}
		die := [][]int{{0, 1}, {0}, {1}}[turn%3]
		for _, i := range die {
			running[i].kill()
		}
		for _, i := range die {
			running[i], _ = nodes[i].start(t, binary, running[i].address)
		}
	}
	l.advance(t, 20)
	stop()
	stopWatching()
	l.check(t)
	for _, p := range running {
		is.NoErr(p.cmd.Process.Signal(syscall.SIGTERM)) // which brings the last heads to the anchors
		<-p.finished
	}
	r.files(dirs)
	is.NoErr(r.query(t.Context(), "kept", db, "select signed from agentkey_checkpoints"))
	for _, v := range l.vends {
		var receipt struct{ Checkpoint string }
		is.NoErr(json.Unmarshal(v.receipt, &receipt))
		r.add("in a receipt", receipt.Checkpoint)
	}
	running[0], _ = nodes[0].start(t, binary, running[0].address)
	o, err := admins[0].Organization(t.Context())
	is.NoErr(err)
	r.exported(t, admins[0])
	heads, means := r.all() // and then the logs, which go on
	logs := treesOf(t, db)
	log := r.exported(t, admins[0]) // of whose leaves the exact bytes are known
	is.True(len(log.stored) >= len(l.vends))
	logs[o.ID] = log
	known := knownTo(t, admins[0])
	is.NoErr(oneHistory(heads, known, logs))
	provenBetween(t, admins[0], o.ID, slices.Collect(maps.Keys(heads)), known, log)
	t.Logf("%d kills, %d different heads: %v", kills, len(heads), means)
	for _, way := range []string{"committed", "in a receipt", "served over HTTP", "in a file", "sent to the webhook", "kept", "exported"} {
		is.True(means[way] > 0) // or that way shows nothing
	}
}

// killConnection ends one process of Postgres as if by accident, and waits until Postgres
// has ended all others and recovered.
func killConnection(t *testing.T, db *sql.DB) {
	t.Helper()
	var pid int
	until(t, readyWait, "Postgres has a connection to kill", func() bool {
		return db.QueryRowContext(t.Context(), `select pid from pg_stat_activity where backend_type = 'client backend'
			and pid <> pg_backend_pid() order by state = 'active' desc limit 1`).Scan(&pid) == nil
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	until(t, readyWait, "Postgres has recovered", func() bool {
		var left int
		return db.QueryRowContext(t.Context(), "select count(*) from pg_stat_activity where pid = $1", pid).Scan(&left) == nil && left == 0
	})
}

// knownTo are the keys that a server says that heads are signed with.
func knownTo(t *testing.T, admin *client.Admin) note.Verifiers {
	t.Helper()
	keys, err := admin.PublicKeys(t.Context())
	is.New(t).NoErr(err)
	var all []note.Verifier
	for _, key := range keys {
		v, err := note.NewVerifier(key)
		is.New(t).NoErr(err)
		all = append(all, v)
	}
	return note.VerifierList(all...)
}

// provenBetween has a server prove what stands between heads that it released, and
// checks that with tlog alone.
func provenBetween(t *testing.T, admin *client.Admin, organization string, heads []string, known note.Verifiers, log *tree) {
	t.Helper()
	is := is.New(t)
	var sizes []opened
	for _, signed := range heads {
		h, err := open(signed, known)
		is.NoErr(err)
		if h.organization == organization {
			sizes = append(sizes, h)
		}
	}
	slices.SortFunc(sizes, func(a, b opened) int { return int(a.size - b.size) })
	last := sizes[len(sizes)-1]
	for i := 0; i < len(sizes)-1; i += 1 + len(sizes)/20 {
		early := sizes[i]
		text, err := admin.ConsistencyProof(t.Context(), early.size, last.size)
		is.NoErr(err)
		var grown struct {
			Proof tlog.TreeProof `json:"consistency_proof"`
		}
		is.NoErr(json.Unmarshal(text, &grown))
		is.NoErr(tlog.CheckTree(grown.Proof, last.size, last.root, early.size, early.root))
		text, err = admin.InclusionProof(t.Context(), early.size-1, last.size)
		is.NoErr(err)
		var in struct {
			Leaf  tlog.Hash        `json:"leaf_hash"`
			Proof tlog.RecordProof `json:"inclusion_proof"`
		}
		is.NoErr(json.Unmarshal(text, &in))
		is.Equal(in.Leaf, log.stored[tlog.StoredHashIndex(0, early.size-1)])
		is.NoErr(tlog.CheckRecord(in.Proof, last.size, last.root, early.size-1, in.Leaf))
	}
}

// TestForkIsSeen shows that what the test above relies on can fail.
func TestForkIsSeen(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	skey, vkey, err := note.GenerateKey(rand.Reader, "agentkey/test")
	is.NoErr(err)
	signer, err := note.NewSigner(skey)
	is.NoErr(err)
	verifier, err := note.NewVerifier(vkey)
	is.NoErr(err)
	sign := func(size int64, root tlog.Hash) string {
		signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("agentkey/test/org/1\n%d\n%v\n", size, root)}, signer)
		is.NoErr(err)
		return string(signed)
	}
	log := new(tree)
	var roots []tlog.Hash
	for n := range int64(10) {
		is.NoErr(log.add(n, tlog.RecordHash([]byte{byte(n)})))
		root, err := tlog.TreeHash(n+1, log)
		is.NoErr(err)
		roots = append(roots, root)
	}
	known, logs := note.VerifierList(verifier), map[string]*tree{"org": log}
	is.NoErr(oneHistory(map[string]string{sign(3, roots[2]): "", sign(10, roots[9]): ""}, known, logs))
	for name, forked := range map[string]string{
		"another root": sign(9, roots[9]), "longer": sign(11, roots[9]), "unsigned": strings.Replace(sign(3, roots[2]), "\n3\n", "\n4\n", 1),
		"another log": strings.Replace(sign(3, roots[2]), "/org/", "/other/", 1),
	} {
		if oneHistory(map[string]string{sign(3, roots[2]): "", forked: ""}, known, logs) == nil {
			t.Errorf("%s: was let pass", name)
		}
	}
}
