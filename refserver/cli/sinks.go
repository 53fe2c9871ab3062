package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/sink"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// sinkFlags say where events are shipped to. URL and token of the HTTP sink are
// secrets: they come from the environment, the configuration file, or a file.
type sinkFlags struct {
	Stdout    bool   `env:"STDOUT" help:"Ship events to standard output."`
	File      string `env:"FILE" placeholder:"FILE" help:"Ship events to this file, which is set aside and begun anew by size and age."`
	FileSize  int64  `env:"FILE_SIZE" default:"100" placeholder:"MB" help:"Size of the file in MB at which it is set aside; 0: never."`
	FileAge   span   `env:"FILE_AGE" default:"24h" placeholder:"TIME" help:"Age of the file at which it is set aside, such as 24h; 0s: never."`
	FileKeep  int    `env:"FILE_KEEP" placeholder:"N" help:"Keep so many files that were set aside; 0: all."`
	Syslog    string `env:"SYSLOG" placeholder:"HOST:PORT" help:"Ship events to this receiver of syslog over TLS (RFC 5425)."`
	SyslogMax int    `env:"SYSLOG_MAX" default:"8192" placeholder:"BYTES" help:"The longest message that the receiver takes."`
	HTTPFile  string `name:"http-url-file" env:"HTTP_URL_FILE" placeholder:"FILE" help:"Ship events by POST to the URL in this file, unless an environment variable holds it."`
	TokenFile string `name:"http-token-file" env:"HTTP_TOKEN_FILE" placeholder:"FILE" help:"Bearer token for that URL, unless an environment variable holds it."`
	CA        string `name:"ca" env:"CA" placeholder:"FILE" help:"Authorities that the receiver's certificate is checked with, PEM. Default: the system's."`
	Cert      string `name:"cert" env:"CERT" placeholder:"FILE" help:"Certificate that is shown to the receiver of syslog, PEM."`
	Key       string `name:"key" env:"KEY" placeholder:"FILE" help:"The certificate's key, PEM."`
	Format    string `env:"FORMAT" enum:"jsonl,ocsf" default:"jsonl" help:"jsonl holds the exact bytes that are signed; ocsf is a view of them."`
	Personal  bool   `env:"PERSONAL" help:"Ship personal parts too: labels, addresses, free text. What has left can't be erased here."`
	Timeout   span   `env:"TIMEOUT" default:"10s" placeholder:"TIME" help:"How long a sink may take for one batch."`
}

// Where the secrets of the HTTP sink are, behind the prefix of the other settings.
const (
	envServeSinks = "AGENTKEY_AUDIT_"
	envTailSink   = "AGENTKEY_TAIL_"
	envSinkURL    = "HTTP_URL"
	envSinkToken  = "HTTP_TOKEN"
)

// maxSecretFile bounds a file with a URL or a token.
const maxSecretFile = 4096

// place is a sink as its settings describe it. Nothing is opened or connected to yet.
type place struct {
	name  string
	open  func() (audit.Sink, error)
	reach func(ctx context.Context) error // says whether it is there, and sends nothing
}

// open makes the sinks. What can be wrong with their settings shows here; nothing
// is connected to yet.
func (f sinkFlags) open(s *session, prefix string) (all []agentkey.SinkConfig, closeAll func() error, err error) {
	var closers []io.Closer
	done := func() (err error) {
		for _, c := range closers {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	places, err := f.places(s, prefix)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range places {
		one, err := p.open()
		if err != nil {
			return nil, nil, errors.Join(settingError(err), done())
		}
		if c, ok := one.(io.Closer); ok {
			closers = append(closers, c)
		}
		all = append(all, f.config(p, one))
	}
	return all, done, nil
}

func (f sinkFlags) config(p place, one audit.Sink) agentkey.SinkConfig {
	return agentkey.SinkConfig{Name: p.name, Sink: one, Personal: f.Personal, Timeout: time.Duration(f.Timeout)}
}

// settingError is an error of a sink; one of its settings is one of usage.
func settingError(err error) error {
	if errors.Is(err, sink.ErrConfig) {
		return &usageError{err.Error()}
	}
	return err
}

// places reads what the settings say, as far as that can be told without touching
// anything.
func (f sinkFlags) places(s *session, prefix string) (all []place, err error) {
	if f.Timeout == 0 || time.Duration(f.Timeout) > 10*time.Minute {
		return nil, usagef("the timeout of sinks must be 1s to 10m")
	}
	roots, cert, err := f.trust()
	if err != nil {
		return nil, err
	}
	format := sink.Format(f.Format)
	if f.Stdout {
		all = append(all, place{"stdout", func() (audit.Sink, error) { return sink.NewWriter(s.stdout, format) }, func(context.Context) error { return nil }})
	}
	if f.File != "" {
		c := sink.FileConfig{Path: f.File, Format: format, MaxSize: f.FileSize << 20, MaxAge: time.Duration(f.FileAge), Keep: f.FileKeep, Clock: s.options.Clock}
		all = append(all, place{"file", func() (audit.Sink, error) { return sink.NewFile(c) }, func(context.Context) error { return c.Reach() }})
	}
	if f.Syslog != "" {
		hostname, _ := os.Hostname() // without one it is "-"
		one, err := sink.NewSyslog(sink.SyslogConfig{
			Address: f.Syslog, Format: format, Roots: roots, Certificate: cert, Hostname: hostname, MaxMessage: f.SyslogMax,
		})
		if err != nil {
			return nil, settingError(err)
		}
		all = append(all, place{"syslog", func() (audit.Sink, error) { return one, nil }, one.Reach})
	}
	url, err := s.secret(prefix+envSinkURL, f.HTTPFile, "file of the URL")
	if err != nil {
		return nil, err
	}
	token, err := s.secret(prefix+envSinkToken, f.TokenFile, "file of the token")
	if err != nil {
		return nil, err
	}
	switch {
	case url != nil:
		one, err := sink.NewHTTP(sink.HTTPConfig{URL: url, Token: token, Format: format, Roots: roots})
		if err != nil {
			return nil, settingError(err)
		}
		all = append(all, place{"http", func() (audit.Sink, error) { return one, nil }, one.Reach})
	case token != nil:
		return nil, usagef("there is a token for an HTTP sink and no URL: set %s, or give the file of it", prefix+envSinkURL)
	}
	return all, nil
}

// errUnsent is what a sink of doctor answers: it sends nothing.
var errUnsent = errors.New("doctor ships nothing")

type unsent struct{}

func (unsent) Ship(context.Context, audit.Batch) error { return errUnsent }

// sinks asks every sink whether it is there, and sends nothing.
func (c *doctorCommand) sinks(ctx context.Context, s *session, x *examination) (found []agentkey.SinkConfig) {
	places, err := c.Sinks.places(s, envServeSinks)
	if err != nil {
		x.fail("sinks", "%v", err)
		return nil
	}
	for _, p := range places {
		found = append(found, c.Sinks.config(p, unsent{}))
		bounded, cancel := context.WithTimeout(ctx, time.Duration(c.Sinks.Timeout))
		err := p.reach(bounded)
		cancel()
		if err != nil {
			x.fail("sinks", "%s can't be shipped to: %s", p.name, strings.TrimPrefix(err.Error(), "sink: "))
		} else {
			x.ok("sinks", "%s is there; nothing was sent", p.name)
		}
	}
	return found
}

// shipped says how far the sinks are behind.
func (x *examination) shipped(ctx context.Context, m *agentkey.Manager) {
	lags, err := m.Lags(ctx)
	if err != nil {
		x.fail("sinks", "%v", err)
	}
	for _, l := range lags.Sinks {
		if l.Events == 0 {
			x.ok("sinks", "%s has every event", l.Name)
			continue
		}
		x.warn("sinks", "%s has yet to get %s of %s, the oldest of %s; `agentkey serve` ships them", l.Name, plural(l.Events, "event"), plural(l.Logs, "log"), when(l.Since))
	}
}

// secret reads a secret from the environment or a file; nil when it is in
// neither.
func (s *session) secret(variable, file, what string) (*vault.Secret, error) {
	text, ok := s.getenv(variable)
	switch {
	case ok && file != "":
		return nil, usagef("%s and the %s are both given; keep one", variable, what)
	case ok:
		return vault.NewSecret([]byte(strings.TrimSpace(text))), nil
	case file == "":
		return nil, nil
	}
	content, err := readSmall(file, what, maxSecretFile)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	return vault.NewSecret([]byte(strings.TrimSpace(string(content)))), nil
}

// trust reads the authorities and the certificate of our own.
func (f sinkFlags) trust() (roots *x509.CertPool, cert *tls.Certificate, err error) {
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("authorities of the sink: %w", cause(err))
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, nil, usagef("the file of the sink's authorities holds no certificate in PEM")
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, nil, usagef("the certificate that is shown to a sink and its key belong together: give both or neither")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, nil, usagef("the certificate that is shown to a sink and its key can't be read, or don't fit each other")
		}
		cert = &pair
	}
	return roots, cert, nil
}
