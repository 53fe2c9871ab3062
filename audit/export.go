package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ExportFormat names the format of exported logs.
const ExportFormat = "agentkey-audit/1"

// maxExportLine bounds a line of an export: an event, a personal part and what is around them.
const maxExportLine = (MaxContent+MaxPersonal)*4/3 + 1<<10

// ExportHeader is the first line of an exported log. It says what the file claims to be; nothing vouches for it, so whoever verifies
// a file brings the origin and the keys that they trust.
type ExportHeader struct {
	Origin      string   // the log's origin in its latest epoch
	PublicKeys  []string // the keys that signed it, as note verifier keys
	ContentFrom int64    // the first number whose content retention left
}

// Export writes the log that r reads to w, as one JSON document a line: the header, the lines with their exact bytes and the kept
// checkpoints in their order, and the head. It stops at the first error of r or w, or when ctx ends; what was written by then lacks
// the head and does not verify. It returns ErrInvalid when the header is malformed, or when r reads what the format can't hold
// or ends without a head. It holds one line in memory.
func Export(ctx context.Context, w io.Writer, header ExportHeader, r Reader) error {
	first, err := header.encode()
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	_, _ = out.Write(append(first, '\n')) // the writer keeps its first error for Flush
	headSeen := false
	var line []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("audit: reading the log: %w", err)
		}
		if headSeen {
			return fmt.Errorf("%w: entry after the head", ErrInvalid)
		}
		if line, err = appendEntry(line[:0], entry); err != nil {
			return err
		}
		headSeen = len(entry.Head) > 0
		if _, err := out.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("audit: writing the export: %w", err)
		}
	}
	if !headSeen {
		return fmt.Errorf("%w: log without a head", ErrInvalid)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("audit: writing the export: %w", err)
	}
	return nil
}

// encode returns the header's only spelling.
func (h ExportHeader) encode() ([]byte, error) {
	if _, _, _, err := ParseOrigin(h.Origin); err != nil {
		return nil, fmt.Errorf("%w: export's origin", ErrInvalid)
	}
	if h.ContentFrom < 0 || h.ContentFrom > MaxInteger {
		return nil, fmt.Errorf("%w: export's content_from is out of range", ErrInvalid)
	}
	if _, err := NewVerifiers(h.PublicKeys...); err != nil {
		return nil, fmt.Errorf("%w: export's public keys", ErrInvalid)
	}
	out := []byte("{")
	if h.ContentFrom > 0 {
		out = append(out, `"content_from":`...)
		out = strconv.AppendInt(out, h.ContentFrom, 10)
		out = append(out, ',')
	}
	out = appendString(append(out, `"format":`...), ExportFormat)
	out = appendString(append(out, `,"origin":`...), h.Origin)
	out = append(out, `,"public_keys":[`...)
	for i, key := range h.PublicKeys {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendString(out, key)
	}
	return append(out, "]}"...), nil
}

// appendEntry appends the only spelling of an entry.
func appendEntry(out []byte, e Entry) ([]byte, error) {
	switch {
	case e.Line != nil:
		return appendLine(out, e.Line)
	case len(e.Head) > 0:
		return appendNote(out, "head", e.Head)
	default:
		return appendNote(out, "checkpoint", e.Checkpoint)
	}
}

func appendNote(out []byte, key string, signed []byte) ([]byte, error) {
	if len(signed) == 0 || len(signed) > MaxCheckpoint {
		return nil, fmt.Errorf("%w: %s to be exported is empty or too long", ErrInvalid, key)
	}
	out = append(out, '{', '"')
	out = append(out, key...)
	out = append(out, '"', ':')
	out = appendString(out, strings.ToValidUTF8(string(signed), "\uFFFD")) // what is damaged stays invalid
	return append(out, '}'), nil
}

// appendLine writes content and personal part as they are. An export must not hide damage, nor fail because of it: bytes that
// can't stand in a line of JSON are written in base64 under a key of their own.
func appendLine(out []byte, l *Line) ([]byte, error) {
	if l.Seq < 0 || l.Seq > MaxInteger || len(l.Content) > MaxContent || len(l.Personal) > MaxPersonal {
		return nil, fmt.Errorf("%w: line %d to be exported is too long or its number out of range", ErrInvalid, l.Seq)
	}
	out = append(out, '{')
	out = appendExact(out, "event", l.Content)
	out = append(out, `"leaf":"`...)
	out = base64.StdEncoding.AppendEncode(out, l.Leaf[:])
	out = append(out, `",`...)
	out = appendExact(out, "personal", l.Personal)
	out = append(out, `"seq":`...)
	out = strconv.AppendInt(out, l.Seq, 10)
	return append(out, '}'), nil
}

// appendExact appends a member that holds exact bytes, and a comma; nothing for no bytes.
func appendExact(out []byte, key string, b []byte) []byte {
	if len(b) == 0 {
		return out
	}
	out = append(out, '"')
	out = append(out, key...)
	if b[0] == '{' && b[len(b)-1] == '}' && !bytes.ContainsAny(b, "\r\n") && utf8.Valid(b) && json.Valid(b) {
		out = append(append(out, `":`...), b...)
	} else {
		out = base64.StdEncoding.AppendEncode(append(out, `_bytes":"`...), b)
		out = append(out, '"')
	}
	return append(out, ',')
}

// ExportReader reads an exported log. It accepts only what Export writes, byte for byte. It must not be used by more than one
// goroutine at a time.
type ExportReader struct {
	in     *bufio.Reader
	header ExportHeader
}

// NewExportReader reads the first line of an exported log. It returns ErrFormat when it is not the header of one.
func NewExportReader(r io.Reader) (*ExportReader, error) {
	x := &ExportReader{in: bufio.NewReaderSize(r, 64<<10)}
	if start, err := x.in.Peek(1); err == nil && start[0] != '{' {
		return nil, fmt.Errorf("%w: first line is not the header of %s", ErrFormat, ExportFormat) // however long it is
	}
	line, err := x.readLine(nil)
	if err == io.EOF {
		return nil, fmt.Errorf("%w: export is empty", ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	var header struct {
		ContentFrom int64    `json:"content_from"`
		Origin      string   `json:"origin"`
		PublicKeys  []string `json:"public_keys"`
	}
	if json.Unmarshal(line, &header) == nil {
		x.header = ExportHeader{header.Origin, header.PublicKeys, header.ContentFrom}
	}
	if again, err := x.header.encode(); err != nil || !bytes.Equal(again, line) {
		return nil, fmt.Errorf("%w: first line is not the header of %s", ErrFormat, ExportFormat)
	}
	return x, nil
}

// Header returns what the file claims to be.
func (x *ExportReader) Header() ExportHeader {
	h := x.header
	h.PublicKeys = slices.Clone(h.PublicKeys)
	return h
}

// Next returns the next entry, and io.EOF at the end of the file. An entry that is malformed, too long or not ended by a newline
// is ErrFormat, and the next call goes on with the line after it.
func (x *ExportReader) Next(ctx context.Context) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	line, err := x.readLine(ctx.Err)
	if err != nil {
		return Entry{}, err
	}
	return parseEntry(line)
}

var errTooLong = fmt.Errorf("%w: line of the export is too long", ErrFormat)

// readLine returns the next line without its newline, in fresh memory. One that is too long is read to its end, as long as
// ended answers nil; without ended it is not.
func (x *ExportReader) readLine(ended func() error) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := x.in.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
			tooLong = len(line) > maxExportLine
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && !tooLong:
			continue
		case errors.Is(err, bufio.ErrBufferFull) && ended != nil:
			if err := ended(); err != nil {
				return nil, err
			}
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errTooLong
		case err == io.EOF && len(line) == 0:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			return nil, fmt.Errorf("audit: reading the export: %w", err)
		case tooLong:
			return nil, errTooLong
		case err == io.EOF:
			return nil, fmt.Errorf("%w: last line of the export has no end", ErrFormat)
		}
		return line[:len(line)-1], nil
	}
}

// parseEntry reads one line. Writing it again must give the same bytes, which rules out every other spelling.
func parseEntry(line []byte) (Entry, error) {
	if l := scanLine(line); l != nil {
		return Entry{Line: l}, nil
	}
	var raw struct {
		Event         json.RawMessage `json:"event"`
		EventBytes    []byte          `json:"event_bytes"`
		Leaf          []byte          `json:"leaf"`
		Personal      json.RawMessage `json:"personal"`
		PersonalBytes []byte          `json:"personal_bytes"`
		Seq           int64           `json:"seq"`
		Checkpoint    string          `json:"checkpoint"`
		Head          string          `json:"head"`
	}
	malformed := fmt.Errorf("%w: line of the export", ErrFormat)
	if json.Unmarshal(line, &raw) != nil {
		return Entry{}, malformed
	}
	var entry Entry
	switch {
	case len(raw.Leaf) == hashSize:
		entry.Line = &Line{
			Seq: raw.Seq, Leaf: Hash(raw.Leaf),
			Content:  append([]byte(raw.Event), raw.EventBytes...), // one of the two, or writing it again differs
			Personal: append([]byte(raw.Personal), raw.PersonalBytes...),
		}
	case raw.Head != "":
		entry.Head = []byte(raw.Head)
	default:
		entry.Checkpoint = []byte(raw.Checkpoint)
	}
	again, err := appendEntry(make([]byte, 0, len(line)), entry)
	if err != nil || !bytes.Equal(again, line) {
		return Entry{}, malformed
	}
	return entry, nil
}
