package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// doctorCommand looks at an installation with the settings that serve would
// have. It makes and migrates nothing. What the log's verification finds is
// recorded in the log, as when the server itself finds it.
type doctorCommand struct {
	serveFlags
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// What a check came to.
const (
	checkOK      = "ok"
	checkWarning = "warning" // works, and somebody should know
	checkFailed  = "failed"
)

// check is one line of an examination. Its detail never holds a secret.
type check struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Detail string `json:"detail"`
}

// examination collects what was found.
type examination struct{ checks []check }

func (x *examination) add(name, status, format string, args ...any) {
	x.checks = append(x.checks, check{name, status, clean(fmt.Sprintf(format, args...))})
}

func (x *examination) ok(name, format string, args ...any) { x.add(name, checkOK, format, args...) }
func (x *examination) warn(name, format string, args ...any) {
	x.add(name, checkWarning, format, args...)
}
func (x *examination) fail(name, format string, args ...any) {
	x.add(name, checkFailed, format, args...)
}

func (x *examination) failed() bool {
	return slices.ContainsFunc(x.checks, func(c check) bool { return c.Status == checkFailed })
}

// clear adds an ok unless a check of that name has found something.
func (x *examination) clear(name, format string, args ...any) {
	if !slices.ContainsFunc(x.checks, func(c check) bool { return c.Check == name }) {
		x.ok(name, format, args...)
	}
}

var errUnwell = errors.New("something failed; what, stands above")

// Run examines and prints.
func (c *doctorCommand) Run(ctx context.Context, s *session, set *settings) error {
	x := &examination{}
	if !c.examine(ctx, s, set, x) {
		x.warn("log", "not looked at: what failed comes first")
	}
	if len(c.Anchor) == 0 {
		x.warn("anchors", "no head is kept elsewhere: whoever holds the signing key could rewrite the log; export it regularly, "+
			"to where the server's operator can't write")
	}
	if err := x.print(s, c.JSON); err != nil {
		return err
	}
	if x.failed() {
		return errUnwell
	}
	return ctx.Err()
}

func (x *examination) print(s *session, asJSON bool) error {
	if asJSON {
		return s.emit(map[string]any{"ok": !x.failed(), "checks": x.checks})
	}
	t := table{titles: []string{"CHECK", "RESULT", "DETAIL"}, wrap: true}
	for _, c := range x.checks {
		t.add(c.Check, c.Status, c.Detail)
	}
	return t.print(s)
}

// examine goes as far as what it finds allows, and says whether it came to the
// logs.
func (c *doctorCommand) examine(ctx context.Context, s *session, set *settings, x *examination) bool {
	c.settings(s, set, x)
	sinks := c.sinks(ctx, s, x)
	at, err := c.locate(s)
	if err != nil {
		x.fail("database", "%v", err)
		return false
	}
	x.files(s, at, c.TLSKey)
	c.sharing(at, x)
	keys, where, keyErr := c.present(ctx, s, at)
	if keyErr != nil {
		x.fail("key", "%v", keyErr)
	}
	store, closeStore, err := at.existing()
	if err != nil {
		x.fail("database", "%v", err)
		return false
	}
	defer func() {
		if err := closeStore(); err != nil {
			x.fail("database", "close: %v", err)
		}
	}()
	if !x.schema(ctx, store, at) || !x.begun(ctx, store, keys, where) || keyErr != nil {
		return false
	}
	c.anchors(ctx, s, at, store, keys, x)
	return c.installation(ctx, s, store, keys, sinks, x)
}

// installation looks at what takes the key to read.
func (c *doctorCommand) installation(ctx context.Context, s *session, store *bunstore.Store, keys vault.KeyProvider, sinks []agentkey.SinkConfig, x *examination) bool {
	m, err := agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Clock: s.options.Clock, Sinks: sinks})
	if err != nil {
		x.fail("key", "%v", err)
		return false
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if err := m.Close(closing); err != nil {
			x.fail("log", "%v", err)
		}
	}()
	x.clear("key", "it unwraps the data keys; the log's public key is %s", m.PublicKey())
	x.clock(ctx, s, store)
	x.shipped(ctx, m)
	x.logs(ctx, s, store, m)
	return true
}

// settings checks what serve would refuse, and what it would only mention.
func (c *doctorCommand) settings(s *session, set *settings, x *examination) {
	for _, name := range set.unknown(s.env) {
		x.warn("settings", "%s is no setting of agentkey", name)
	}
	config, err := c.config(s, slog.New(slog.DiscardHandler))
	if err == nil {
		err = config.Validate()
	}
	if err != nil {
		x.fail("settings", "%v", err)
	} else {
		c.certificate(s, x)
	}
	if err := s.checkBootstrapToken(); err != nil {
		x.fail("settings", "%v", err)
	}
	var off []string
	for tier, p := range c.policies() {
		if p.Off() {
			off = append(off, string(tier))
		}
	}
	if len(off) > 0 {
		slices.Sort(off)
		x.warn("settings", "no limit for %s", strings.Join(off, ", "))
	}
	x.clear("settings", "serve would take them")
	x.ok("listen", "%s", c.listening())
}

// listening says how the server would be reached. A name in place of an address
// is not repeated: it has not been looked up.
func (c *doctorCommand) listening() string {
	how := "plain HTTP, on this machine only"
	switch {
	case c.BehindProxy:
		how = "plain HTTP to a proxy that does TLS"
	case c.TLSCert != "":
		how = "TLS 1.2 or newer"
	}
	if _, port, err := net.SplitHostPort(c.Listen); err == nil && strings.Trim(port, "0123456789") == "" {
		how += ", port " + port
	}
	return how
}

// soon is how early the end of a certificate is told.
const soon = 14 * day

func (c *doctorCommand) certificate(s *session, x *examination) {
	if c.TLSCert == "" {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil || pair.Leaf == nil {
		x.fail("certificate", "it can't be read")
		return
	}
	now, from, end := s.options.Clock(), pair.Leaf.NotBefore, pair.Leaf.NotAfter
	switch {
	case now.Before(from):
		x.fail("certificate", "it is valid from %s only", when(from))
	case !now.Before(end):
		x.fail("certificate", "it ended at %s", when(end))
	case end.Sub(now) < soon:
		x.warn("certificate", "it ends at %s", when(end))
	default:
		x.ok("certificate", "valid until %s", when(end))
	}
}

// sharing says what several servers on this database would have in common.
func (c *doctorCommand) sharing(at location, x *examination) {
	switch {
	case at.sqlite(): // one machine, usually one server
	case c.shared(at):
		x.ok("limits", "all servers on this database share them")
	default:
		x.warn("limits", "each server counts by itself: several let through several times as much")
	}
	if at.unchecked {
		x.warn("database", "the connection is not checked: whoever stands in between could change what access is decided on")
	}
}

// schema checks that the database answers and has the version of this build.
func (x *examination) schema(ctx context.Context, store *bunstore.Store, at location) bool {
	err := store.Validate(ctx)
	switch {
	case errors.Is(err, storage.ErrSchema):
		x.ok("database", "%s answers", at.name)
		x.fail("migrations", "%v; `agentkey serve` of this version brings an older database up to it, a newer database needs a newer agentkey", err)
		return false
	case err != nil:
		x.fail("database", "%s: %v", at.name, err)
		return false
	}
	x.ok("database", "%s answers", at.name)
	x.ok("migrations", "the database is at the version that this build needs")
	return true
}

// begun checks that there is an installation, and names the keys by id: those
// that its data keys are wrapped with, and the one that is given.
func (x *examination) begun(ctx context.Context, store storage.Store, keys vault.KeyProvider, where string) bool {
	needed, err := wrappers(ctx, store)
	if err != nil {
		x.fail("database", "%v", err)
		return false
	}
	if len(needed) == 0 {
		x.fail("database", "it is empty; `agentkey serve` begins an installation there")
		return false
	}
	x.ok("key ids", "the database is sealed with %s", strings.Join(needed, ", "))
	if keys == nil {
		return true
	}
	current, err := keys.CurrentKey(ctx)
	if err != nil {
		x.fail("key", "%v", err)
		return false
	}
	x.ok("key ids", "the key given is %s, %s", current, where)
	return true
}

// Clocks that differ by more than maxSkew vend nothing; see agentkey.ErrClock.
const (
	maxSkew     = 5 * time.Second
	noticedSkew = time.Second
)

// clock compares this machine's clock with the database's and with the log's.
func (x *examination) clock(ctx context.Context, s *session, store storage.Store) {
	var head storage.Head
	var now time.Time
	err := store.Update(ctx, storage.System, func(ctx context.Context, tx storage.Tx) (err error) {
		head, err = tx.Head(ctx)
		now = s.options.Clock()
		return err
	})
	if err != nil {
		x.fail("clock", "the database takes no changes: %v", err)
		return
	}
	skew := now.Sub(time.UnixMicro(head.Now)).Abs().Round(10 * time.Millisecond)
	switch {
	case head.Now == 0: // SQLite has no clock of its own
	case skew > maxSkew:
		x.fail("clock", "%v away from the database's: this machine would vend nothing", skew)
	case skew > noticedSkew:
		x.warn("clock", "%v away from the database's; beyond %v this machine vends nothing", skew, maxSkew)
	}
	if ahead := time.UnixMicro(head.Time).Sub(now).Round(time.Second); ahead > maxSkew {
		x.warn("clock", "%v behind the log, whose time never goes back: either was set wrong", ahead)
	}
	x.clear("clock", "it agrees with the database and the log")
}
