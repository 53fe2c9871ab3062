package anchor_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"
	"golang.org/x/mod/sumdb/tlog"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/refserver/anchor"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// installation opens an installation of the test again and again.
type installation struct {
	store storage.Store
	keys  vault.KeyProvider
}

func newInstallation(t testing.TB) *installation {
	return &installation{memstore.New(), agentkeytest.Keys(t)}
}

func (in *installation) open(t *testing.T, a agentkey.Anchor) (*agentkey.Manager, error) {
	t.Helper()
	return agentkey.New(t.Context(), agentkey.Config{Storage: in.store, Keys: in.keys, Anchors: []agentkey.Anchor{a}})
}

// grow makes an organization, and closes, which keeps the heads.
func grow(t *testing.T, m *agentkey.Manager) string {
	t.Helper()
	is := is.New(t)
	made, err := m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "acme", Owner: "ann"})
	is.NoErr(err)
	is.NoErr(m.Close(t.Context()))
	return made.Organization.ID
}

func TestFile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	in, dir := newInstallation(t), filepath.Join(t.TempDir(), "heads")
	a, err := anchor.NewFile(dir)
	is.NoErr(err)
	m, err := in.open(t, a)
	is.NoErr(err)
	org := grow(t, m)
	path := filepath.Join(dir, org+".head")
	kept, err := os.ReadFile(path)
	is.NoErr(err)
	is.True(strings.HasPrefix(string(kept), "agentkey/"+m.Installation()+"/"+org+"/1\n"))
	info, err := os.Stat(path)
	is.NoErr(err)
	is.Equal(info.Mode().Perm(), os.FileMode(0o600))

	// A crash can leave the file that was to replace it.
	is.NoErr(os.WriteFile(filepath.Join(dir, "."+org+".head"), kept[:10], 0o600))
	m, err = in.open(t, a)
	is.NoErr(err)
	grow(t, m)

	is.NoErr(os.WriteFile(path, nil, 0o600))
	_, err = in.open(t, a)
	is.True(errors.Is(err, agentkey.ErrAnchorDamaged))
	is.NoErr(os.WriteFile(path, append(kept, 'x'), 0o600))
	_, err = in.open(t, a)
	is.True(errors.Is(err, agentkey.ErrAnchorDamaged))
	is.NoErr(os.Rename(dir, dir+"2"))
	_, err = in.open(t, a)
	is.True(errors.Is(err, agentkey.ErrAnchorMissing))
	_, err = os.Stat(dir)
	is.True(errors.Is(err, os.ErrNotExist)) // nothing is made where nothing is believed
	_, err = newInstallation(t).open(t, must(anchor.NewFile(dir+"2")))
	is.True(errors.Is(err, agentkey.ErrAnchorDamaged)) // another installation's
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// receiver is the service of a webhook.
type receiver struct {
	mu     sync.Mutex
	kept   map[string][]byte
	status int // of everything, unless 0
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := q.URL.Query().Get("log")
	kept, ok := r.kept[log]
	switch {
	case r.status != 0:
		w.WriteHeader(r.status)
	case q.Method == http.MethodGet && !ok:
		w.WriteHeader(http.StatusNotFound)
	case q.Method == http.MethodGet:
		w.Header().Set("ETag", strconv.Quote(string(kept[:0])+fmt.Sprint(len(kept))))
		_, _ = w.Write(kept)
	default:
		r.kept[log], _ = io.ReadAll(q.Body)
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	service := &receiver{kept: make(map[string][]byte)}
	server := httptest.NewServer(service)
	defer server.Close()
	a, err := anchor.NewWebhook(anchor.WebhookConfig{URL: vault.NewSecret([]byte(server.URL + "/secret-path?x=1"))})
	is.NoErr(err)
	is.Equal(a.Name(), "webhook")
	in := newInstallation(t)
	m, err := in.open(t, a)
	is.NoErr(err)
	org := grow(t, m)
	is.True(bytes.HasPrefix(service.kept["agentkey/"+m.Installation()+"/"+org], []byte("agentkey/")))
	service.status = http.StatusInternalServerError
	m, err = in.open(t, a) // away: it fails no start
	is.NoErr(err)
	grow(t, m)
	service.status = 0
	_, err = in.open(t, a)
	is.NoErr(err)
	_, err = newInstallation(t).open(t, a)
	is.NoErr(err) // keeps many installations
	service.kept["agentkey/"+m.Installation()+"/"+org] = []byte("nonsense")
	_, err = in.open(t, a)
	is.True(errors.Is(err, agentkey.ErrAnchorDamaged))
}

func TestSettingsAreRefused(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://example.com/secret", "https://u:p@example.com/secret", "ftp://127.0.0.1/secret", "https:///secret"} {
		_, err := anchor.NewWebhook(anchor.WebhookConfig{URL: vault.NewSecret([]byte(url + " "))})
		if !errors.Is(err, anchor.ErrConfig) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, key := range []string{"", "a", "a+b", "a+00000000+AAAA", "a b+00000000+BAAA"} {
		if _, err := anchor.NewWitness(anchor.WitnessConfig{URL: "https://example.com", Key: key}); !errors.Is(err, anchor.ErrConfig) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// witness is a witness of the protocol that checks proofs by tlog alone.
type witness struct {
	t    *testing.T
	key  ed25519.PrivateKey
	name string

	mu    sync.Mutex
	trees map[string]tlog.Tree
}

func newWitness(t *testing.T) (*witness, string) {
	w := &witness{t: t, key: ed25519.NewKeyFromSeed(make([]byte, 32)), name: "witness.example/w1", trees: make(map[string]tlog.Tree)}
	public := append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
	return w, fmt.Sprintf("%s+%x+%s", w.name, w.id(), base64.StdEncoding.EncodeToString(public))
}

func (w *witness) id() []byte {
	sum := sha256.Sum256(append([]byte(w.name+"\n\x04"), w.key.Public().(ed25519.PublicKey)...))
	return sum[:4]
}

func (w *witness) ServeHTTP(out http.ResponseWriter, q *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, _ := io.ReadAll(q.Body)
	head, note, _ := strings.Cut(string(body), "\n\n")
	text, _, _ := strings.Cut(note, "\n\n")
	lines := strings.Split(text, "\n")
	proofLines := strings.Split(head, "\n")
	old, _ := strconv.ParseInt(strings.TrimPrefix(proofLines[0], "old "), 10, 64)
	size, _ := strconv.ParseInt(lines[1], 10, 64)
	root := must(tlog.ParseHash(lines[2]))
	var proof tlog.TreeProof
	for _, l := range proofLines[1:] {
		proof = append(proof, must(tlog.ParseHash(l)))
	}
	last := w.trees[lines[0]]
	switch {
	case q.URL.Path != "/p/add-checkpoint":
		out.WriteHeader(http.StatusNotFound)
	case old > size:
		out.WriteHeader(http.StatusBadRequest)
	case old != last.N || old == size && root != last.Hash:
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(http.StatusConflict)
		fmt.Fprintf(out, "%d\n", last.N)
	case old > 0 && old < size && tlog.CheckTree(proof, size, root, old, last.Hash) != nil:
		out.WriteHeader(http.StatusUnprocessableEntity)
	default:
		w.trees[lines[0]] = tlog.Tree{N: size, Hash: root}
		signature := append(w.id(), binary.BigEndian.AppendUint64(nil, 1700000000)...)
		signature = append(signature, ed25519.Sign(w.key, []byte("cosignature/v1\ntime 1700000000\n"+text+"\n"))...)
		fmt.Fprintf(out, "— %s %s\n", w.name, base64.StdEncoding.EncodeToString(signature))
	}
}

func TestWitness(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	w, key := newWitness(t)
	server := httptest.NewServer(w)
	defer server.Close()
	in := newInstallation(t)
	again := func() agentkey.Anchor {
		return must(anchor.NewWitness(anchor.WitnessConfig{URL: server.URL + "/p", Key: key}))
	}
	is.Equal(again().Name(), "witness:witness.example/w1")
	m, err := in.open(t, again())
	is.NoErr(err)
	org := grow(t, m)
	origin := "agentkey/" + m.Installation() + "/" + org + "/1"
	first := w.trees[origin]
	is.True(first.N > 0)
	m, err = in.open(t, again()) // it has to ask for the size
	is.NoErr(err)
	grow(t, m)

	for name, tree := range map[string]tlog.Tree{
		"longer": {N: first.N + 5, Hash: first.Hash}, "apart": {N: first.N, Hash: tlog.Hash{1}}, "apart and shorter": {N: first.N - 1, Hash: tlog.Hash{1}},
	} {
		w.trees[origin] = tree
		if _, err := in.open(t, again()); !errors.Is(err, agentkey.ErrRolledBack) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.trees[origin] = first
	system := "agentkey/" + m.Installation() + "/system/1"
	delete(w.trees, system)
	_, err = in.open(t, again())
	is.True(errors.Is(err, agentkey.ErrAnchorMissing))
	is.Equal(w.trees[system].N, int64(0)) // asking cosigns nothing

	// Another key than the one that is known: nothing counts as kept.
	other, _ := newWitness(t)
	other.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	imposter := httptest.NewServer(other)
	defer imposter.Close()
	m, err = newInstallation(t).open(t, must(anchor.NewWitness(anchor.WitnessConfig{URL: imposter.URL + "/p", Key: key})))
	is.NoErr(err)
	states, err := m.Anchored(t.Context())
	is.NoErr(err)
	is.Equal(len(states), 1)
}
