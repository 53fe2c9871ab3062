// Package sink has the places that a server ships its audit log to: a stream, a
// rotated file, syslog over TLS, and HTTP. Each is an audit.Sink and keeps its
// contract: what Ship answered nil for is safe, as far as the other side can say so.
//
// Errors hold no URL, no token, and nothing that the other side answered.
package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"syscall"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// Format is the form in which events are written.
type Format string

// The formats.
const (
	JSONL Format = "jsonl" // the exact bytes that are signed, with origin and leaf hash, as audit.Line.Shipped has them
	OCSF  Format = "ocsf"  // a view of them in the terms of the Open Cybersecurity Schema Framework
)

// ErrConfig says that a sink can't be made as it was described.
var ErrConfig = errors.New("sink: configuration")

func (f Format) check() error {
	if f != JSONL && f != OCSF {
		return fmt.Errorf("%w: format must be jsonl or ocsf", ErrConfig)
	}
	return nil
}

// encode is one line in the format, without a newline. What is no event any more
// has no other form than that of the exact bytes.
func (f Format) encode(origin string, l audit.Line) ([]byte, error) {
	if f == OCSF {
		if text, err := l.OCSF(origin); err == nil {
			return text, nil
		}
	}
	return l.Shipped(origin)
}

// lines are all lines of a batch, each with its newline.
func (f Format) lines(b audit.Batch) ([]byte, error) {
	var out []byte
	for _, l := range b.Lines {
		text, err := f.encode(b.Origin, l)
		if err != nil {
			return nil, err
		}
		out = append(append(out, text...), '\n')
	}
	return out, nil
}

// Writer is a sink that writes lines to a stream. It counts as safe what the
// stream has taken.
type Writer struct {
	to     io.Writer
	format Format
}

// NewWriter makes a Writer.
func NewWriter(to io.Writer, format Format) (*Writer, error) {
	return &Writer{to, format}, format.check()
}

// Ship writes the lines of b.
func (w *Writer) Ship(ctx context.Context, b audit.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := w.format.lines(b)
	if err != nil {
		return err
	}
	if _, err := w.to.Write(text); err != nil {
		return fmt.Errorf("sink: write: %w", plain(err))
	}
	return nil
}

// errAddress says that a name led to an address that nothing may be sent to.
var errAddress = errors.New("address is not allowed")

// dialer checks every address right before it is dialed, whatever name led to it:
// never the metadata of a cloud (link-local), never a group or no address at all, and
// without TLS never another machine.
func dialer(tls bool) *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		a := at.Addr().Unmap().WithZone("")
		if err != nil || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || !tls && !a.IsLoopback() {
			return errAddress
		}
		return nil
	}}
}

// plain is an error without what may be a secret: addresses and names, which may
// stand in a URL, and file names.
func plain(err error) error {
	var (
		withURL   *url.Error
		network   *net.OpError
		name      *net.DNSError
		cert      *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		path      *os.PathError
		malformed *net.AddrError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errAddress):
		return errAddress
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &name):
		return errors.New("the name is not known")
	case errors.As(err, &host):
		return errors.New("the certificate is for another name")
	case errors.As(err, &authority), errors.As(err, &cert):
		return errors.New("the certificate is not trusted")
	case errors.As(err, &malformed):
		return errors.New("the address is malformed")
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", network.Op, network.Err)
	case errors.As(err, &withURL):
		return plain(withURL.Err)
	}
	return err
}
