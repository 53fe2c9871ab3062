package audit

import (
	"context"
	"io"
)

// Line is one event as it is stored: the exact bytes, or what is left of them.
type Line struct {
	Seq      int64
	Content  []byte // empty when retention removed it
	Personal []byte // empty when there is none or it was erased
	Leaf     Hash   // kept for ever
}

// Entry is one thing that is read from a log. Exactly one of its fields is set.
type Entry struct {
	Line       *Line
	Checkpoint []byte // a kept signed checkpoint
	Head       []byte // the latest signed checkpoint; the last entry
}

// Reader reads a log from its first line on. A kept checkpoint comes after the last line that it covers, the head comes last,
// and after it io.EOF. An error that is ErrFormat concerns one entry: the next call goes on after it. Any other error ends
// the reading. What was returned is the caller's.
type Reader interface {
	Next(ctx context.Context) (Entry, error)
}

// Kept is a signed checkpoint that a store kept, with the size under which it is filed.
type Kept struct {
	Size   int64
	Signed []byte
}

// Source is the Reader of a stored log: it merges what a store pages through. Both functions return io.EOF at their end. It
// must not be used by more than one goroutine at a time.
type Source struct {
	Lines       func(ctx context.Context) (Line, error) // ascending; required
	Checkpoints func(ctx context.Context) (Kept, error) // ascending by size; nil when none are kept
	Head        []byte                                  // the latest signed head; empty when there is none

	kept  Kept
	held  bool  // kept was read and not yet returned
	dry   bool  // there are no further checkpoints
	seen  int64 // the number after the last line's
	ended bool  // there are no further lines
	done  bool  // the head was returned
}

// Next returns the next entry.
func (s *Source) Next(ctx context.Context) (Entry, error) {
	if !s.held && !s.dry {
		if err := s.pull(ctx); err != nil {
			return Entry{}, err
		}
	}
	if s.held && (s.ended || s.kept.Size <= s.seen) {
		s.held = false
		return Entry{Checkpoint: s.kept.Signed}, nil
	}
	if !s.ended {
		line, err := s.Lines(ctx)
		if err == nil {
			s.seen = line.Seq + 1
			return Entry{Line: &line}, nil
		}
		if err != io.EOF {
			return Entry{}, err
		}
		s.ended = true
		return s.Next(ctx) // what is left of the checkpoints, and the head
	}
	if s.done || len(s.Head) == 0 {
		return Entry{}, io.EOF
	}
	s.done = true
	return Entry{Head: s.Head}, nil
}

func (s *Source) pull(ctx context.Context) error {
	if s.Checkpoints == nil {
		s.dry = true
		return nil
	}
	kept, err := s.Checkpoints(ctx)
	switch {
	case err == io.EOF:
		s.dry = true
	case err != nil:
		return err
	default:
		s.kept, s.held = kept, true
	}
	return nil
}
