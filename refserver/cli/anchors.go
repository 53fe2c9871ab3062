package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/anchor"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// envAnchorWebhook is the URL of the webhook anchor, which is a secret.
const envAnchorWebhook = "AGENTKEY_ANCHOR_WEBHOOK"

// anchorFlags say where heads of the logs are kept besides the database.
type anchorFlags struct {
	Anchor      []string `env:"AGENTKEY_ANCHOR" placeholder:"WHERE" help:"Keep heads of the logs elsewhere: file:DIRECTORY on another volume; webhook, whose URL is in AGENTKEY_ANCHOR_WEBHOOK, or webhook:FILE that holds it; witness:KEY@URL. Give several as a list."`
	InitAnchor  bool     `env:"AGENTKEY_INIT_ANCHOR" help:"Let an anchor begin that has nothing yet although the logs have begun; for one start."`
	AnchorCA    string   `name:"anchor-ca" env:"AGENTKEY_ANCHOR_CA" placeholder:"FILE" help:"Authorities that may sign certificates of webhook and witness, PEM. Default: the system's."`
	Revocations span     `name:"anchor-revocations" env:"AGENTKEY_ANCHOR_REVOCATIONS" default:"0s" placeholder:"TIME" help:"How long what takes access away waits until the anchors have it, at most 10s; 0s: it does not wait. It counts at once in any case."`
}

const maxAnchorWait = 10 * time.Second

// open makes the anchors. It connects to nothing.
func (f anchorFlags) open(s *session) ([]agentkey.Anchor, error) {
	if wait := time.Duration(f.Revocations); wait < 0 || wait > maxAnchorWait {
		return nil, usagef("--anchor-revocations must be from 0s to %v", maxAnchorWait)
	}
	var roots *x509.CertPool
	if f.AnchorCA != "" {
		pem, err := readSmall(f.AnchorCA, "--anchor-ca", 1<<20)
		if err != nil {
			return nil, &usageError{err.Error()}
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, usagef("--anchor-ca: no certificate in PEM")
		}
	}
	seen := make(map[string]bool)
	var out []agentkey.Anchor
	for _, where := range f.Anchor {
		a, err := openAnchor(s, where, roots)
		if err != nil {
			return nil, &usageError{"--anchor: " + strings.TrimPrefix(err.Error(), anchor.ErrConfig.Error()+": ")}
		}
		if seen[a.Name()] {
			return nil, usagef("--anchor: %s is given twice", clean(a.Name()))
		}
		seen[a.Name()] = true
		out = append(out, a)
	}
	if len(out) == 0 && (f.InitAnchor || time.Duration(f.Revocations) > 0) {
		return nil, usagef("--init-anchor and --anchor-revocations need --anchor")
	}
	return out, nil
}

func openAnchor(s *session, where string, roots *x509.CertPool) (agentkey.Anchor, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(where), ":")
	switch kind {
	case "file":
		return anchor.NewFile(rest)
	case "webhook":
		return openWebhook(s, rest, roots)
	case "witness":
		key, url, ok := strings.Cut(rest, "@http")
		if !ok {
			return nil, errors.New("write a witness as witness:KEY@https://HOST/PREFIX")
		}
		return anchor.NewWitness(anchor.WitnessConfig{URL: "http" + url, Key: key, Roots: roots})
	}
	return nil, errors.New("must be file:DIRECTORY, webhook, webhook:FILE or witness:KEY@URL")
}

func openWebhook(s *session, file string, roots *x509.CertPool) (agentkey.Anchor, error) {
	value, ok := s.getenv(envAnchorWebhook)
	switch {
	case strings.Contains(file, "://"):
		return nil, fmt.Errorf("the webhook's URL is a secret: put it into %s, or into a file that webhook:FILE names", envAnchorWebhook)
	case ok && file != "":
		return nil, fmt.Errorf("%s and webhook:FILE are both given; keep one", envAnchorWebhook)
	case !ok && file == "":
		return nil, fmt.Errorf("put the webhook's URL into %s, or into a file that webhook:FILE names", envAnchorWebhook)
	case file != "":
		text, err := readSmall(file, "webhook", 8192)
		if err != nil {
			return nil, err
		}
		value = string(text)
	}
	url := vault.NewSecret([]byte(value))
	defer url.Destroy()
	return anchor.NewWebhook(anchor.WebhookConfig{URL: url, Roots: roots})
}

// besides names the file anchors in the database's own directory: whoever puts that
// back puts them back too.
func besides(at location, anchors []agentkey.Anchor) (names []string) {
	if !at.sqlite() {
		return nil
	}
	database, err := filepath.Abs(filepath.Dir(at.path))
	for _, a := range anchors {
		f, ok := a.(*anchor.File)
		if !ok || err != nil {
			continue
		}
		if rel, err := filepath.Rel(database, f.Dir()); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator)) {
			names = append(names, a.Name())
		}
	}
	return names
}

// anchors says what is kept elsewhere, and how old it is.
func (c *doctorCommand) anchors(ctx context.Context, s *session, at location, store storage.Store, keys vault.KeyProvider, x *examination) {
	anchors, err := c.anchorFlags.open(s)
	if err != nil {
		x.fail("anchors", "%v", err)
		return
	}
	if len(anchors) == 0 {
		return
	}
	for _, name := range besides(at, anchors) {
		x.warn("anchors", "%s is in the directory of the database: whoever puts that back puts both back", name)
	}
	m, err := agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Clock: s.options.Clock, Anchors: anchors, Restoring: true})
	if err != nil {
		x.fail("anchors", "%v", err)
		return
	}
	defer func() { _ = m.Close(context.WithoutCancel(ctx)) }()
	states, err := m.Anchored(ctx)
	if err != nil {
		x.fail("anchors", "%v", err)
	}
	for _, a := range states {
		switch {
		case len(a.RolledBack) > 0:
			x.fail("anchors", "%s: the database does not continue what is kept of %s: it was put back, or is another one; see docs/operations.md, Restoring",
				a.Name, strings.Join(a.RolledBack, ", "))
		case a.Err != nil:
			x.fail("anchors", "%s: %v", a.Name, a.Err)
		case a.Kept == 0:
			x.fail("anchors", "%s has no head of any of %s; `agentkey serve --init-anchor` begins there", a.Name, plural(a.Logs, "log"))
		case a.Events > 0:
			x.warn("anchors", "%s has heads of %d of %s, %s behind; the oldest gap began at %s", a.Name, a.Kept, plural(a.Logs, "log"), plural(a.Events, "event"), when(a.Since))
		default:
			x.ok("anchors", "heads of %s are kept elsewhere, at %s, up to the last event", plural(a.Logs, "log"), a.Name)
		}
	}
}
