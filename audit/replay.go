package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Discrepancy is a disagreement of the log with itself or with the records. Seq is the event that it rests on, or -1 when
// the log has none.
type Discrepancy struct {
	Seq      int64
	Record   Ref
	Revision int64 // the record's, where a record was compared
	Problem  string
}

// Replay follows a log event by event and then compares what it says with the records. It shows what row seals can't: a whole
// old row put back, a row removed, a row that never was decided. It must not be used by more than one goroutine at a time,
// and its memory grows with the number of records, not of events.
type Replay struct {
	next     int64
	gap      int64 // number of the first event after the last gap; 0 when there is none
	records  map[Ref]*replayed
	statuses map[Ref]replayedStatus
	found    []Discrepancy
	unlisted int64
}

type replayed struct {
	seq, revision int64
	state, salt   []byte
	removed, seen bool
}

type replayedStatus struct {
	seq    int64
	status string
}

// NewReplay returns a Replay that has seen nothing.
func NewReplay() *Replay {
	return &Replay{records: make(map[Ref]*replayed), statuses: make(map[Ref]replayedStatus)}
}

// Add follows one more event. Events must come in ascending order, or the error is ErrInvalid. A gap, where retention
// removed content, is allowed: whatever may have happened in it is not held against the log.
func (r *Replay) Add(e Event) error {
	if e.Seq < r.next {
		return fmt.Errorf("%w: replayed events are not in ascending order", ErrInvalid)
	}
	if e.Seq > r.next {
		r.gap = e.Seq
	}
	r.next = e.Seq + 1
	for i := range e.Changes {
		r.change(&e, &e.Changes[i])
	}
	if e.Target != (Ref{}) {
		r.status(&e)
	}
	return nil
}

func (r *Replay) change(e *Event, c *Change) {
	ref := Ref{c.Kind, c.ID}
	old := r.records[ref]
	switch {
	case old == nil:
		if c.Revision != 1 && r.gap == 0 {
			r.find(e.Seq, ref, c.Revision, "first revision is not 1")
		}
	case old.seq < r.gap: // revisions may be missing in between
		if c.Revision <= old.revision && !old.removed {
			r.find(e.Seq, ref, c.Revision, "revision does not rise")
		}
	case old.removed:
		if c.Removed {
			r.find(e.Seq, ref, c.Revision, "record was removed twice")
		} else if c.Revision != 1 && c.Revision != old.revision+1 {
			r.find(e.Seq, ref, c.Revision, "revision does not follow the one before")
		}
	case c.Revision != old.revision+1:
		r.find(e.Seq, ref, c.Revision, "revision does not follow the one before")
	}
	r.records[ref] = &replayed{
		seq: e.Seq, revision: c.Revision, removed: c.Removed,
		state: bytes.Clone(c.State), salt: bytes.Clone(e.Salt),
	}
}

// status checks that the target's status goes on from where the log left it. What was refused or failed changes nothing.
func (r *Replay) status(e *Event) {
	if e.Outcome != OutcomeOK {
		return
	}
	old, known := r.statuses[e.Target]
	if known && old.seq >= r.gap && e.From != "" && e.From != old.status {
		r.find(e.Seq, e.Target, 0, "status before is not the status that the log knows")
	}
	if e.To != "" {
		r.statuses[e.Target] = replayedStatus{e.Seq, e.To}
	}
}

func (r *Replay) find(seq int64, ref Ref, revision int64, problem string) {
	if len(r.found) >= maxFindings {
		r.unlisted++
		return
	}
	r.found = append(r.found, Discrepancy{seq, ref, revision, problem})
}

// Discrepancies returns where the log disagrees with itself, in the order of the log, and how many more there are than are
// listed. The slice is the caller's.
func (r *Replay) Discrepancies() (listed []Discrepancy, unlisted int64) {
	return slices.Clone(r.found), r.unlisted
}

// Check compares one record that exists with what the log says about it, and returns nil when they agree. The function
// state must return the hash of the record's state under the given salt; it is called only when the revisions agree. Check marks the
// record as seen, whether or not it agrees.
func (r *Replay) Check(kind, id string, revision int64, state func(salt []byte) []byte) *Discrepancy {
	ref := Ref{kind, id}
	differs := func(seq int64, problem string) *Discrepancy { return &Discrepancy{seq, ref, revision, problem} }
	rec := r.records[ref]
	if rec == nil {
		if r.gap > 0 {
			return differs(-1, "log knows nothing of it, as far as content was kept")
		}
		return differs(-1, "log knows nothing of it")
	}
	rec.seen = true
	switch {
	case rec.removed:
		return differs(rec.seq, "log says that it was removed")
	case revision < rec.revision:
		return differs(rec.seq, "record is older than the log says")
	case revision > rec.revision:
		return differs(rec.seq, "record is newer than the log says")
	case !bytes.Equal(rec.state, state(bytes.Clone(rec.salt))):
		return differs(rec.seq, "record's state is not what the log says")
	}
	return nil
}

// Unseen yields, ordered by kind and id, the records that exist according to the log and that Check was never called for.
func (r *Replay) Unseen() iter.Seq[Discrepancy] {
	return func(yield func(Discrepancy) bool) {
		order := func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) }
		for _, ref := range slices.SortedFunc(maps.Keys(r.records), order) {
			rec := r.records[ref]
			if rec.removed || rec.seen {
				continue
			}
			if !yield(Discrepancy{rec.seq, ref, rec.revision, "record is missing"}) {
				return
			}
		}
	}
}
