// Package cli is the agentkey program: the reference server, its first start,
// and clients of its HTTP API. It registers no database driver: the program
// that calls [Main] imports those that it wants to support, as "sqlite"
// (modernc.org/sqlite) and "pgx" (github.com/jackc/pgx/v5/stdlib).
//
// Secrets never travel as arguments, which other users of a machine can read:
// tokens come from the environment or a file, credentials from standard input, a
// file or a prompt without echo.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// What Main returns, for the program to exit with.
const (
	exitOK     = 0
	exitFailed = 1 // refused, or failed
	exitUsage  = 2 // the arguments or settings are wrong; nothing was done
)

// Provider opens a key provider. argument is what follows the provider's name
// and a colon in --key-provider, or empty; getenv looks up the environment that
// was given to Main. Errors must not hold a secret.
type Provider func(ctx context.Context, argument string, getenv func(string) (string, bool)) (vault.KeyProvider, error)

// Options is what a program may add. The zero value is good.
type Options struct {
	// Providers are key providers beside the local one, by the names that
	// --key-provider takes. A program that links a provider with an SDK of its own
	// names it here.
	Providers map[string]Provider

	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

// Main runs the program and returns its exit status: 0 when all went well, 1
// when something was refused or failed, 2 when arguments or settings are wrong.
// args are without the program's name; env is as of os.Environ. It returns soon
// after ctx ends.
//
// Main is for whole programs: it takes from the process the right to dump core
// and from the files it makes the access of others (umask). It never exits.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer, o Options) int {
	s := newSession(env, stdin, stdout, stderr, o)
	if err := harden(); err != nil {
		s.complain(err)
		return exitFailed
	}
	return s.run(ctx, args)
}

// program is all commands.
type program struct {
	Config string `env:"AGENTKEY_CONFIG" placeholder:"FILE" help:"File of settings, lines of NAME=VALUE by the names of their environment variables, which count before it. Default: agentkey.conf in the configuration directory, if it is there."`

	Serve       serveCommand        `cmd:"" help:"Run the server."`
	Doctor      doctorCommands      `cmd:"" help:"Check an installation, or its keys and seals; the server may run or not."`
	Demo        demoCommand         `cmd:"" help:"Play the whole loop on a temporary server, in a few seconds."`
	Bench       benchCommand        `cmd:"" help:"Measure how many credentials this machine vends, on databases made for it, beside a bare net/http server."`
	BenchServer benchServerCommand  `cmd:"" hidden:"" help:"A server of the bench."`
	Keys        keysCommands        `cmd:"" help:"Encryption keys."`
	Orgs        orgsCommands        `cmd:"" help:"Organizations, on the database itself."`
	Agent       agentCommands       `cmd:"" help:"What an agent does, with its own key."`
	Agents      agentsCommands      `cmd:"" help:"Agents and their keys."`
	Tools       toolsCommands       `cmd:"" help:"Tools and their credentials."`
	Guide       guideCommands       `cmd:"" help:"Tools' instructions: their versions, and what agents learned."`
	Catalog     configCommands      `cmd:"" name:"config" help:"The catalog of tools as a document."`
	Inbox       inboxCommand        `cmd:"" help:"Everything that waits for a person."`
	Suggestions suggestionsCommands `cmd:"" help:"Tools that agents suggest."`
	Requests    requestsCommands    `cmd:"" help:"Access requests that wait for a decision."`
	Grants      grantsCommands      `cmd:"" help:"Who has access to what."`
	Tokens      tokensCommands      `cmd:"" help:"Administrators' tokens."`
	Admins      adminsCommands      `cmd:"" help:"Administrators."`
	Org         orgCommands         `cmd:"" help:"The organization of your token."`
	Channels    channelsCommands    `cmd:"" name:"notifications" help:"Where notifications are to go."`
	Audit       auditCommands       `cmd:"" help:"The audit log."`
	Incident    incidentCommands    `cmd:"" help:"When something went wrong."`
	Lockdown    orgLock             `cmd:"" help:"Refuse every agent everything, at once."`
	Unlock      orgUnlock           `cmd:"" help:"End a lockdown."`
}

const description = "AgentKey stands between AI agents and the credentials they use.\n\n" +
	"Every flag can be set by the environment variable named beside it, or by a line of that name in a file, see --config. Commands that talk to a server need " +
	"AGENTKEY_URL and AGENTKEY_ADMIN_TOKEN (or --token-file).\n\n" +
	"The exit status is 0 when all went well, 1 when something was refused or failed, 2 when arguments or settings are wrong. " +
	"`agentkey help COMMAND` shows examples."

// run parses and runs one command.
func (s *session) run(ctx context.Context, args []string) int {
	p, err := newParser(s)
	if err != nil {
		s.complain(err)
		return exitFailed
	}
	return p.run(ctx, args)
}

// parser reads the arguments of a session, and its settings.
type parser struct {
	*kong.Kong
	session  *session
	settings *settings
	exited   bool // by --help
}

func newParser(s *session) (*parser, error) {
	p := &parser{session: s, settings: &settings{session: s}}
	var err error
	p.Kong, err = kong.New(&program{},
		kong.Name("agentkey"), kong.Description(description), kong.Exit(func(int) { p.exited = true }),
		kong.Writers(s.stdout, s.stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(formatHelp), kong.Resolvers(p.settings), kong.TypeMapper(reflect.TypeFor[policy](), policyMapper{}))
	if err != nil {
		return nil, fmt.Errorf("agentkey: %w", err)
	}
	if err := p.settings.bind(p.Kong); err != nil {
		return nil, fmt.Errorf("agentkey: %w", err)
	}
	return p, showExamples(p.Model)
}

func (p *parser) run(ctx context.Context, args []string) int {
	s := p.session
	run, status := p.command(ctx, args)
	if run == nil {
		return status
	}
	p = nil // a server has no use for a megabyte of flags
	if err := run(); err != nil {
		s.complain(err)
		var usage *usageError
		if errors.As(err, &usage) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// command parses, and returns what the arguments ask for; or nil and the status,
// once the session has been told why.
func (p *parser) command(ctx context.Context, args []string) (run func() error, status int) {
	s, set := p.session, p.settings
	parsed, err := p.Parse(asHelp(args))
	if p.exited {
		return nil, exitOK
	}
	if set.fileError != nil {
		s.complain(set.fileError)
		return nil, exitUsage
	}
	if err != nil {
		s.complain(set.explain(err, args))
		return nil, exitUsage
	}
	set.used = nil
	switch c := parsed.Selected().Target.Addr().Interface().(type) {
	case interface {
		Run(context.Context, *session, *settings) error
	}:
		return func() error { return c.Run(ctx, s, set) }, exitOK
	case interface {
		Run(context.Context, *session) error
	}:
		return func() error { return c.Run(ctx, s) }, exitOK
	default:
		alone := c.(interface{ Run(*session) error })
		return func() error { return alone.Run(s) }, exitOK
	}
}

// usageError is a wrong setting that only the command itself could notice.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// complain tells what went wrong, and what to do about it where that is known.
func (s *session) complain(err error) {
	_, _ = fmt.Fprintf(s.stderr, "agentkey: %s\n", clean(err.Error()))
	var answered *client.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &answered):
		for _, d := range answered.Details {
			if strings.Contains(answered.Message, d.Message) {
				continue
			}
			_, _ = fmt.Fprintf(s.stderr, "  %s: %s\n", clean(d.Field), clean(d.Message))
		}
		limited := answered.RetryAfter > 0 && answered.Status == http.StatusTooManyRequests
		if answered.Hint != "" && !limited { // which would name a header that is not shown
			_, _ = fmt.Fprintf(s.stderr, "  %s\n", clean(answered.Hint))
		}
		if answered.RetryAfter > 0 {
			_, _ = fmt.Fprintf(s.stderr, "  Try again in %v.\n", answered.RetryAfter)
		}
		if answered.Request != "" && answered.Status >= 500 {
			_, _ = fmt.Fprintf(s.stderr, "  The server's log has more under request %s.\n", clean(answered.Request))
		}
	case errors.As(err, &certificate):
		_, _ = fmt.Fprintln(s.stderr, "  Is AGENTKEY_URL the name that the server's certificate is for?")
	}
}
