package memstore

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

func (r *reader) Head(ctx context.Context) (storage.Head, error) {
	if err := r.enter(ctx); err != nil {
		return storage.Head{}, err
	}
	h := r.head
	h.Head, h.Seal = copyHead(h.Head), slices.Clone(h.Seal)
	return h, nil
}

func (r *reader) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	if err := r.enter(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	from = max(from, 0)
	var found []audit.Line
	for seq := from; seq < r.lines.size && seq-from < int64(limit); seq++ {
		found = append(found, copyLine(*r.lines.at(seq)))
	}
	return found, nil
}

func (r *reader) Checkpoints(ctx context.Context, after int64, limit int) ([]storage.Checkpoint, error) {
	if err := r.enter(ctx, checkLimit(limit)); err != nil {
		return nil, err
	}
	first := sort.Search(len(r.checkpoints), func(i int) bool { return r.checkpoints[i].Size > after })
	rest := r.checkpoints[first:]
	var found []storage.Checkpoint
	for _, c := range rest[:min(limit, len(rest))] {
		found = append(found, storage.Checkpoint{Size: c.Size, Signed: slices.Clone(c.Signed)})
	}
	return found, nil
}

func (t *tx) Append(ctx context.Context, a storage.Append) error {
	if err := t.enter(ctx, a.Check(t.head)); err != nil {
		return err
	}
	for _, l := range a.Lines {
		t.lines.push(copyLine(l))
	}
	t.head.Head, t.head.Seal = copyHead(a.Head), slices.Clone(a.Seal)
	if a.Keep {
		t.head.KeptSize, t.head.KeptTime = a.Head.Size, a.Head.Time
		t.checkpoints = append(t.checkpoints, storage.Checkpoint{Size: a.Head.Size, Signed: slices.Clone(a.Head.Signed)})
	}
	return nil
}

func (t *tx) Erase(ctx context.Context, erasures []storage.Erasure) error {
	if err := t.enter(ctx, checkIDs(len(erasures))); err != nil {
		return err
	}
	seqs := make([]int64, len(erasures))
	for i, e := range erasures {
		seqs[i] = e.Seq
	}
	erased := t.lines.erase(seqs, func(i int, line *audit.Line) {
		if erasures[i].Content {
			line.Content = nil
		}
		if erasures[i].Personal {
			line.Personal = nil
		}
	})
	if !erased {
		return t.invalid("erasure of no line")
	}
	return nil
}

// events walks the lines from the end. Lines whose content was removed can't
// match anything any more and are passed over.
func (o *organization) events(ctx context.Context, q storage.EventQuery) (storage.EventPage, error) {
	var p storage.EventPage
	start := o.lines.size
	if q.Before > 0 && !q.Count {
		start = min(start, q.Before)
	}
	for seq := start - 1; seq >= 0; seq-- {
		if err := ctx.Err(); err != nil {
			return storage.EventPage{}, err
		}
		line := o.lines.at(seq)
		if line.Content == nil {
			continue
		}
		event, err := audit.Parse(line.Content)
		if err != nil {
			return storage.EventPage{}, fmt.Errorf("%w: line %d: %w", storage.ErrCorrupt, seq, err)
		}
		if !q.Filter.Match(&event) {
			continue
		}
		if q.Count {
			p.Count++
			p.Latest = max(p.Latest, event.Time)
			continue
		}
		if len(p.Lines) == q.Limit {
			p.Next = p.Lines[len(p.Lines)-1].Seq
			break
		}
		p.Lines = append(p.Lines, copyLine(*line))
	}
	return p, nil
}
