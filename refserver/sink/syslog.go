package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/outgoing"
)

// Lengths of a syslog message in bytes: what every receiver takes and what it
// should (RFC 5425, section 4.3.1), and what we would send at most.
const (
	MinMessage     = 2048
	DefaultMessage = 8192
	MaxMessage     = 256 << 10
)

// SyslogConfig describes a receiver of syslog over TLS.
type SyslogConfig struct {
	Address string // HOST:PORT; the port of RFC 5425 is 6514. Required
	Format  Format // required

	// Roots are the authorities that the receiver's certificate is checked with.
	// Nil: the system's. It is always checked, with the host's name.
	Roots *x509.CertPool
	// Certificate shows the receiver who sends. Nil: none.
	Certificate *tls.Certificate

	// Hostname names this machine in messages. Empty: "-".
	Hostname string
	// MaxMessage is the longest message that the receiver takes, in bytes, from
	// MinMessage to MaxMessage. Zero: DefaultMessage.
	MaxMessage int
}

// Syslog is a sink that sends each event as a message of RFC 5424 over TLS, framed
// by its length (RFC 5425, section 4.3). Syslog has no acknowledgement. So each batch
// has a connection of its own, which we close first and which the receiver has to
// close in turn (section 4.4) when it has read everything: only then it counts as
// shipped.
//
// An event whose message would be longer than MaxMessage is sent without its
// personal part, and if that is not enough with its number and leaf hash only. No
// event is left out.
type Syslog struct {
	SyslogConfig
	tls *tls.Config
}

// NewSyslog checks the configuration. It connects to nothing.
func NewSyslog(c SyslogConfig) (*Syslog, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("%w: syslog needs HOST:PORT", ErrConfig)
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = DefaultMessage
	}
	if c.MaxMessage < MinMessage || c.MaxMessage > MaxMessage {
		return nil, fmt.Errorf("%w: syslog's longest message must have %d to %d bytes", ErrConfig, MinMessage, MaxMessage)
	}
	if err := c.Format.check(); err != nil {
		return nil, err
	}
	c.Hostname = header(c.Hostname, 255)
	s := &Syslog{SyslogConfig: c, tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: c.Roots}}
	if c.Certificate != nil {
		s.tls.Certificates = []tls.Certificate{*c.Certificate}
	}
	return s, nil
}

// header is a field of a message's header: printable ASCII without blanks, or "-".
func header(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	if text == "" {
		return "-"
	}
	return text[:min(len(text), limit)]
}

// Reach connects to the receiver, and checks its certificate. It sends nothing. A
// receiver of TLS 1.3 that wants another certificate of ours says so only later.
func (s *Syslog) Reach(ctx context.Context) error {
	if err := outgoing.ReachTLS(ctx, s.Address, s.tls); err != nil {
		return fmt.Errorf("sink: syslog: %w", err)
	}
	return nil
}

// Ship sends the lines of b, and waits until the receiver has read them.
func (s *Syslog) Ship(ctx context.Context, b audit.Batch) error {
	var out bytes.Buffer
	for _, l := range b.Lines {
		message, err := s.message(b.Origin, l)
		if err != nil {
			return err
		}
		out.WriteString(strconv.Itoa(len(message))) // MSG-LEN SP SYSLOG-MSG
		out.WriteByte(' ')
		out.Write(message)
	}
	if err := s.send(ctx, out.Bytes()); err != nil {
		return fmt.Errorf("sink: syslog: %w", outgoing.Plain(err))
	}
	return nil
}

// errUnread says that the receiver went before it had read everything.
var errUnread = errors.New("the receiver did not say that it has read everything")

func (s *Syslog) send(ctx context.Context, text []byte) error {
	raw, err := outgoing.Dialer(true).DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // long past
	defer stop()
	conn := tls.Client(raw, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := conn.Write(text); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	// A receiver has nothing to say but that it closes too.
	n, err := io.Copy(io.Discard, io.LimitReader(conn, 1))
	if err != nil {
		return err
	}
	if n > 0 {
		return errUnread
	}
	return nil
}

// Severities, with the facility "log audit" (RFC 5424, section 6.2.1).
const (
	facility      = 13
	errorSeverity = 3
	warning       = 4
	informational = 6
)

// message is an event as a message of RFC 5424, section 6, without structured data
// and without a mark of its encoding.
func (s *Syslog) message(origin string, l audit.Line) ([]byte, error) {
	severity, action, at := informational, "", "-"
	if e, err := audit.Parse(l.Content); err == nil {
		action, at = string(e.Action), time.UnixMicro(e.Time).UTC().Format("2006-01-02T15:04:05.000000Z")
		switch e.Outcome {
		case audit.OutcomeRefused:
			severity = warning
		case audit.OutcomeFailed:
			severity = errorSeverity
		}
	}
	head := fmt.Sprintf("<%d>1 %s %s agentkey - %s - ", facility*8+severity, at, s.Hostname, header(action, 32))
	for _, shorter := range []func(){func() {}, func() { l.Personal = nil }, func() { l.Content, l.Personal = nil, nil }} {
		shorter()
		text, err := s.Format.encode(origin, l)
		if err != nil {
			return nil, err
		}
		if len(head)+len(text) <= s.MaxMessage {
			return append([]byte(head), text...), nil
		}
	}
	return nil, fmt.Errorf("%w: an event does not fit a message of syslog", ErrConfig)
}
