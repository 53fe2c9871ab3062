package cli_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/cli"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// printed is what a server prints, and tells when a sign stands in it, as that it has
// started.
type printed struct {
	sign    string
	mu      sync.Mutex
	b       bytes.Buffer
	started chan struct{}
	once    sync.Once
}

// Write keeps what is printed.
func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.b.Write(b)
	if strings.Contains(p.b.String(), p.sign) {
		p.once.Do(func() { close(p.started) })
	}
	return n, err
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// TestServersThatStartTogether wants one key, one organization and one token that
// counts, whoever comes first.
func TestServersThatStartTogether(t *testing.T) {
	t.Parallel()
	for name, extra := range map[string][]string{
		"token in a file":     nil,
		"token that is given": {"AGENTKEY_BOOTSTRAP_TOKEN=bootstrap-token-for-tests-0123456789"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			startTogether(t, extra)
		})
	}
}

// TestLockedDatabase: a server that finds its database locked says so, waits, and
// starts when it is free.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "agentkey.db")
	raw, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_txlock=immediate")
	is.NoErr(err)
	defer raw.Close()
	other, err := raw.BeginTx(t.Context(), nil)
	is.NoErr(err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, log := &printed{started: make(chan struct{}), sign: "listening on"}, &printed{started: make(chan struct{}), sign: "another process has it locked"}
	ended := make(chan int, 1)
	go func() {
		env := []string{"AGENTKEY_DATABASE=sqlite:" + path, "XDG_CONFIG_HOME=" + dir}
		ended <- cli.Main(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, env, strings.NewReader(""), out, log, cli.Options{})
	}()
	select {
	case <-log.started:
	case <-ended:
		t.Fatal(log.String())
	}
	is.Equal(out.String(), "")
	is.NoErr(other.Rollback())
	select {
	case <-out.started:
	case <-ended:
		t.Fatal(log.String())
	}
	stop()
	is.Equal(<-ended, 0)
}

// TestKeyMadeMeanwhile has another process make the key and seal with it between the
// look at the key file and that at the database.
func TestKeyMadeMeanwhile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	env := []string{"XDG_CONFIG_HOME=" + dir}
	store := &meanwhile{Store: memstore.New(), do: func() {}}
	_, _, err := cli.DefaultKey(t.Context(), env, store) // as the other process does
	is.NoErr(err)
	path := filepath.Join(dir, "agentkey", "encryption.key")
	keys, err := localkey.FromFile(path)
	is.NoErr(err)
	manager, err := agentkey.New(t.Context(), agentkey.Config{Storage: store, Keys: keys})
	is.NoErr(err)
	_, err = manager.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Acme", Owner: "Ada"})
	is.NoErr(err)
	is.NoErr(manager.Close(t.Context()))
	is.NoErr(os.Rename(path, path+".kept"))

	_, _, err = cli.DefaultKey(t.Context(), env, store)
	is.True(err != nil && strings.Contains(err.Error(), "there is no key at "+path)) // and makes none
	store.do = sync.OnceFunc(func() { is.NoErr(os.Rename(path+".kept", path)) })
	found, _, err := cli.DefaultKey(t.Context(), env, store)
	is.NoErr(err)
	want, err := keys.CurrentKey(t.Context())
	is.NoErr(err)
	got, err := found.CurrentKey(t.Context())
	is.NoErr(err)
	is.Equal(got, want)
}

// meanwhile does something before the database is looked at.
type meanwhile struct {
	storage.Store
	do func()
}

func (m *meanwhile) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	m.do()
	return m.Store.Organizations(ctx, after, limit)
}

func startTogether(t *testing.T, extra []string) {
	is := is.New(t)
	dir := t.TempDir()
	env := append([]string{"XDG_STATE_HOME=" + filepath.Join(dir, "state"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "config")}, extra...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const n = 4
	var outs [n]*printed
	var logs [n]bytes.Buffer
	ended := make(chan int, n)
	for i := range n {
		outs[i] = &printed{started: make(chan struct{}), sign: "listening on"}
		go func() {
			ended <- cli.Main(ctx, []string{"serve", "--listen", "127.0.0.1:0"}, env, strings.NewReader(""), outs[i], &logs[i], cli.Options{})
		}()
	}
	var all strings.Builder
	for i := range n {
		select {
		case <-outs[i].started:
			all.WriteString(outs[i].String())
		case <-ended:
			stop()
			t.Fatalf("a server did not start: %s %s %s %s", logs[0].String(), logs[1].String(), logs[2].String(), logs[3].String())
		}
	}
	is.Equal(strings.Count(all.String(), " token i"), 1) // "token in FILE" or "token is that of"
	token := "bootstrap-token-for-tests-0123456789"
	files, err := filepath.Glob(filepath.Join(dir, "config", "agentkey", "administrator*"))
	is.NoErr(err)
	if extra == nil {
		is.Equal(len(files), 1)
		b, err := os.ReadFile(files[0])
		is.NoErr(err)
		token = strings.TrimSpace(string(b))
	} else {
		is.Equal(len(files), 0)
	}
	for _, found := range regexp.MustCompile(`listening on +(\S+)`).FindAllStringSubmatch(all.String(), -1) {
		r := run(t.Context(), []string{"AGENTKEY_URL=" + found[1], "AGENTKEY_ADMIN_TOKEN=" + token}, "", "org", "show")
		is.Equal(r.errors, "")
		is.Equal(r.status, 0)
	}
	stop()
	for range n {
		is.Equal(<-ended, 0)
	}
}
