// Package sink has the places that a server ships its audit log to: a stream, a
// rotated file, syslog over TLS, and HTTP. Each is an audit.Sink and keeps its
// contract: what Ship answered nil for is safe, as far as the other side can say so.
//
// Errors hold no URL, no token, and nothing that the other side answered.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/files"
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
		return fmt.Errorf("sink: write: %w", files.Cause(err))
	}
	return nil
}
