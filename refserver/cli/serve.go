package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// closeTime bounds how long the end of the server may take once nothing is
// served any more.
const closeTime = 10 * time.Second

type serveCommand struct{ serveFlags }

// serveFlags are the settings of a server.
type serveFlags struct {
	databaseFlags
	encryptionFlags
	limitFlags
	anchorFlags
	Sinks        sinkFlags `embed:"" prefix:"audit-" envprefix:"AGENTKEY_AUDIT_"`
	Listen       string    `env:"AGENTKEY_LISTEN" default:"127.0.0.1:8700" placeholder:"HOST:PORT" help:"Address to listen on; port 0 takes a free one. Plain HTTP is served on loopback only."`
	TLSCert      string    `name:"tls-cert" env:"AGENTKEY_TLS_CERT" placeholder:"FILE" help:"Certificate chain, PEM."`
	TLSKey       string    `name:"tls-key" env:"AGENTKEY_TLS_KEY" placeholder:"FILE" help:"The certificate's key, PEM."`
	BehindProxy  bool      `name:"behind-tls-proxy" env:"AGENTKEY_BEHIND_TLS_PROXY" help:"Serve plain HTTP to a proxy that does TLS; needs --trusted-proxy."`
	TrustedProxy []string  `name:"trusted-proxy" env:"AGENTKEY_TRUSTED_PROXY" placeholder:"CIDR" help:"Address range whose X-Forwarded-For is believed; give several as a list."`
	CORSOrigins  []string  `name:"cors-origins" env:"AGENTKEY_CORS_ORIGINS" placeholder:"ORIGIN" help:"Origin whose web pages may call the agents' API, such as https://app.example.com; give several as a list."`
	Contact      string    `name:"security-contact" env:"AGENTKEY_SECURITY_CONTACT" placeholder:"URI" help:"Where to report a vulnerability, such as mailto:security@example.com; served as /.well-known/security.txt."`
	LeakReports  bool      `env:"AGENTKEY_LEAK_REPORTS" help:"Let anybody report leaked keys at POST /leaked-keys, as secret scanners do; the agent is then suspended."`
	LeakSigners  []string  `env:"AGENTKEY_LEAK_SIGNERS" placeholder:"FILE" help:"PEM file of public keys (ECDSA P-256): only reports signed by one of them count; give several as a list."`
	MetricsFile  string    `name:"metrics-token-file" env:"AGENTKEY_METRICS_TOKEN_FILE" placeholder:"FILE" help:"Token for GET /metrics (Prometheus) and the details of GET /readyz, unless AGENTKEY_METRICS_TOKEN holds it. Without one there are none."`
	LogLevel     string    `env:"AGENTKEY_LOG_LEVEL" enum:"debug,info,warn,error" default:"info" help:"Least severe that is logged: ${enum}."`
	LogFormat    string    `env:"AGENTKEY_LOG_FORMAT" enum:"text,json" default:"text" help:"Form of the log on standard error: ${enum}."`

	replayEvery time.Duration // of the bench, see agentkey.Config
}

// limitFlags are the rate limits, one for each tier, and where their windows are
// kept.
type limitFlags struct {
	SharedLimits *bool `env:"AGENTKEY_SHARED_LIMITS" negatable:"" help:"Keep the windows of agents and administrators in the database, so that all servers on it share them. Default: on Postgres."`

	LimitPreauth    policy `env:"AGENTKEY_LIMIT_PREAUTH" default:"${policy}" placeholder:"N/TIME" help:"Calls of one address, before authentication; or off."`
	LimitRead       policy `env:"AGENTKEY_LIMIT_READ" default:"${policy}" placeholder:"N/TIME" help:"Reads of one agent; or off."`
	LimitCredential policy `env:"AGENTKEY_LIMIT_CREDENTIAL" default:"${policy}" placeholder:"N/TIME" help:"Credentials fetched by one agent; or off."`
	LimitRequest    policy `env:"AGENTKEY_LIMIT_REQUEST" default:"${policy}" placeholder:"N/TIME" help:"Requests of one agent; or off."`
	LimitAdmin      policy `env:"AGENTKEY_LIMIT_ADMIN" default:"${policy}" placeholder:"N/TIME" help:"Changes by one administrator; or off. What takes access away is never limited."`
	LimitAdminRead  policy `env:"AGENTKEY_LIMIT_ADMIN_READ" default:"${policy}" placeholder:"N/TIME" help:"Reads by one administrator; or off."`
}

// policy is a limit as an argument: 60/1m or off.
type policy struct{ ratelimit.Policy }

// policyMapper gives the flags of limits their defaults. As variables of the
// whole program these would be looked for in every text of every flag, which was
// most of what a command took to start.
type policyMapper struct{}

// Decode reads what ratelimit.ParsePolicy reads.
func (policyMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("value", &text); err != nil {
		return err
	}
	p, err := ratelimit.ParsePolicy(text)
	if err == nil {
		target.Set(reflect.ValueOf(policy{p}))
	}
	return err
}

// Vars is the default of the flag's tier.
func (policyMapper) Vars(flag *kong.Value) kong.Vars {
	tier := ratelimit.Tier(strings.ReplaceAll(strings.TrimPrefix(flag.Name, "limit-"), "-", "_"))
	return kong.Vars{"policy": ratelimit.DefaultPolicies()[tier].String()}
}

func (f limitFlags) policies() ratelimit.Policies {
	return ratelimit.Policies{
		ratelimit.TierPreauth: f.LimitPreauth.Policy, ratelimit.TierRead: f.LimitRead.Policy,
		ratelimit.TierCredential: f.LimitCredential.Policy, ratelimit.TierRequest: f.LimitRequest.Policy,
		ratelimit.TierAdmin: f.LimitAdmin.Policy, ratelimit.TierAdminRead: f.LimitAdminRead.Policy,
	}
}

// shared says whether the windows are kept in the database.
func (f limitFlags) shared(at location) bool {
	if f.SharedLimits == nil {
		return !at.sqlite()
	}
	return *f.SharedLimits
}

func (c *serveFlags) logger(s *session) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // one of four known words
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(s.stderr, options))
	}
	return slog.New(slog.NewTextHandler(s.stderr, options))
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, s *session, set *settings) (err error) {
	log := c.logger(s)
	for _, name := range set.unknown(s.env) {
		log.Warn("this environment variable is no setting of agentkey", "variable", name)
	}
	// Everything that can be wrong with the settings shows before anything is made.
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	config, err := c.config(s, log)
	if err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return &usageError{err.Error()}
	}
	if err := s.checkBootstrapToken(); err != nil {
		return err
	}
	if at.unchecked {
		log.Warn("the connection to the database is not checked: --insecure-database")
	}
	sinks, closeSinks, err := c.Sinks.open(s, envServeSinks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeSinks()) }()
	if c.Sinks.Stdout { // which has events only
		s.stdout = s.stderr
	}
	anchors, err := c.anchorFlags.open(s)
	if err != nil {
		return err
	}
	for _, name := range besides(at, anchors) {
		log.Warn("the anchor is in the directory of the database: whoever puts that back puts both back", "anchor", name)
	}
	in, err := openInstallation(ctx, s, at, c.encryptionFlags, agentkey.Config{
		Anchors: anchors, InitAnchors: c.InitAnchor,
		Policies: c.policies(), SharedLimits: c.shared(at), Logger: log, Clock: s.options.Clock, Sinks: sinks, ReconcileInterval: c.replayEvery,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	defer attend(ctx, in.keys)()
	server, err := refserver.New(in.manager, config)
	if err != nil {
		return err
	}
	// A port that is taken shows before the first token is made.
	if err := server.Listen(); err != nil {
		return err
	}
	administrator, err := s.firstAdministrator(ctx, in.manager)
	if err != nil {
		return err
	}
	err = s.say("database        %s\nencryption key  %s\nadministrator   %s\nlog public key  %s\nlistening on    %s",
		at.name, in.key, administrator, in.manager.PublicKey(), server.URL())
	if err != nil {
		return err
	}
	s.collectSeldom()
	defer giveBack(ctx)()
	return server.Run(ctx)
}

// collectSeldom has garbage collected half as often as usual, unless GOGC says
// how often: a vend leaves some 16 KiB behind, beside few MiB that live. With 256
// connections it takes some 15 MiB.
func (s *session) collectSeldom() {
	if s.env["GOGC"] == "" {
		debug.SetGCPercent(200)
	}
}

// envMetricsToken is the variable that holds the token for metrics.
const envMetricsToken = "AGENTKEY_METRICS_TOKEN"

func (c *serveFlags) config(s *session, log *slog.Logger) (refserver.Config, error) {
	token, err := s.secret(envMetricsToken, c.MetricsFile, "file of the token for metrics")
	return refserver.Config{
		MetricsToken: token,
		Listen:       c.Listen, TLSCert: c.TLSCert, TLSKey: c.TLSKey, BehindTLSProxy: c.BehindProxy, TrustedProxies: c.TrustedProxy, AnchorRevocations: time.Duration(c.Revocations),
		Origins: c.CORSOrigins, SecurityContact: c.Contact, LeakReports: c.LeakReports, LeakSigners: c.LeakSigners, Logger: log, Clock: s.options.Clock,
	}, err
}

// unknown names the variables that look like settings and are none.
func (s *settings) unknown(env map[string]string) []string {
	var names []string
	for name := range env {
		if !secretVariable(name) && strings.HasPrefix(name, "AGENTKEY_") && !strings.HasPrefix(name, "AGENTKEY_TEST_") && !s.known[name] {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// installation is an opened database with its Manager.
type installation struct {
	manager *agentkey.Manager
	keys    vault.KeyProvider
	key     string // where the encryption key is, for people
	closers []func() error
}

// patience is how long a server opens its database in silence. It waits for as long
// as it takes: who gave up in the middle of a migration would begin it anew.
const patience = 5 * time.Second

// openInstallation opens and migrates the database, finds its key and makes the
// Manager of c over both.
func openInstallation(ctx context.Context, s *session, at location, f encryptionFlags, c agentkey.Config) (*installation, error) {
	keys, where, err := f.given(ctx, s, at)
	if err != nil {
		return nil, err
	}
	slow := time.AfterFunc(patience, func() {
		if c.Logger != nil {
			c.Logger.Warn("the database is not open yet: it is being migrated, or another process has it locked", "database", at.name)
		}
	})
	store, closeStore, err := at.open(ctx)
	slow.Stop()
	if err != nil {
		return nil, err
	}
	in := &installation{closers: []func() error{closeStore}}
	if keys == nil {
		if keys, where, err = s.defaultKey(ctx, store); err != nil {
			return nil, errors.Join(err, in.close())
		}
	}
	if c, ok := keys.(io.Closer); ok {
		in.closers = append(in.closers, c.Close)
	}
	in.keys, in.key, c.Storage, c.Keys = keys, where, store, keys
	if in.manager, err = agentkey.New(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", at.name, err), in.close())
	}
	return in, nil
}

// close ends the Manager, then the database. It has its own time: the context
// that the program was given has usually ended by now.
func (in *installation) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var err error
	if in.manager != nil {
		err = in.manager.Close(ctx)
	}
	for _, c := range in.closers {
		err = errors.Join(err, c())
	}
	return err
}

type orgsCommands struct {
	List   orgsList   `cmd:"" help:"List the organizations of the installation."`
	Create orgsCreate `cmd:"" help:"Create an organization; prints its owner's token, once."`
}

type orgsList struct {
	databaseFlags
	encryptionFlags
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// organizationLine is an organization among all.
type organizationLine struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Locked bool   `json:"locked"`
}

// Run lists organizations.
func (c *orgsList) Run(ctx context.Context, s *session) (err error) {
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	in, err := openInstallation(ctx, s, at, c.encryptionFlags, agentkey.Config{Clock: s.options.Clock})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	found, err := in.manager.Organizations(ctx, operator())
	if err != nil {
		return err
	}
	all := make([]organizationLine, len(found))
	t := table{titles: []string{"ID", "NAME", "LOCKED"}}
	for i, o := range found {
		all[i] = organizationLine{o.ID, o.Name, o.Locked}
		t.add(o.ID, o.Name, map[bool]string{true: "yes", false: "no"}[o.Locked])
	}
	if c.JSON {
		return s.emit(all)
	}
	return t.print(s)
}

type orgsCreate struct {
	databaseFlags
	encryptionFlags
	Name  string `arg:"" help:"Name of the organization."`
	Owner string `default:"owner" help:"Name or e-mail address of its owner."`
	JSON  bool   `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run creates an organization.
func (c *orgsCreate) Run(ctx context.Context, s *session) (err error) {
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	in, err := openInstallation(ctx, s, at, c.encryptionFlags, agentkey.Config{Clock: s.options.Clock})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	created, err := createOrganization(ctx, in.manager, agentkey.CreateOrganizationInput{Name: c.Name, Owner: c.Owner})
	if err != nil {
		return err
	}
	if !c.JSON {
		if err := s.say("organization %s (%s) created", clean(created.Organization.Name), created.Organization.ID); err != nil {
			return err
		}
	}
	return s.issued("organization", created.Organization.ID, "token", created.Token.Secret, c.JSON)
}
