package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unique"
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
// and its memory grows with the number of records, not of events: some 250 bytes for each. To bound it, replay the log several
// times, each time for a part of the records, see [Replay.Only].
type Replay struct {
	next     int64
	gap      int64 // number of the first event after the last gap; 0 when there is none
	records  map[Ref]*replayed
	only     func(Ref) bool // nil: every record
	found    []Discrepancy
	unlisted int64
}

// replayed is what the log says of one record, or of the target of events.
type replayed struct {
	seq, revision int64  // of the last change; no revision: none is known
	state         []byte // and after it the salt that it was hashed with
	salted        int    // where that begins
	removed, seen bool

	statusSeq int64
	status    string // empty: none is known
}

// NewReplay returns a Replay that has seen nothing.
func NewReplay() *Replay {
	return &Replay{records: make(map[Ref]*replayed)}
}

// Only has r follow, from now on, no other records than those of which holds says so, and forget what it knows of others.
// What the log says of one record doesn't depend on what it says of another, so that several passes over the log, each for a
// part of the records, find together what one would find.
func (r *Replay) Only(holds func(Ref) bool) {
	r.only = holds
	held := make(map[Ref]*replayed) // a map that got smaller would keep its memory
	for ref, rec := range r.records {
		if holds(ref) {
			held[ref] = rec
		}
	}
	r.records = held
	r.found = slices.DeleteFunc(r.found, func(d Discrepancy) bool { return !holds(d.Record) })
}

// Held is how many records r holds in memory, those that were removed included.
func (r *Replay) Held() int { return len(r.records) }

// record is what is known of one, and nil if r does not follow it.
func (r *Replay) record(ref Ref) *replayed {
	if r.only != nil && !r.only(ref) {
		return nil
	}
	rec := r.records[ref]
	if rec == nil {
		rec = &replayed{}
		// There are few kinds. An id of an event that was parsed is a part of its whole content.
		r.records[Ref{unique.Make(ref.Kind).Value(), strings.Clone(ref.ID)}] = rec
	}
	return rec
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
	old := r.record(ref)
	if old == nil {
		return
	}
	switch {
	case old.revision == 0:
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
	old.seq, old.revision, old.removed = e.Seq, c.Revision, c.Removed
	old.state, old.salted = slices.Concat(c.State, e.Salt), len(c.State)
}

// status checks that the target's status goes on from where the log left it. What was refused or failed changes nothing.
func (r *Replay) status(e *Event) {
	if e.Outcome != OutcomeOK || e.From == "" && e.To == "" {
		return
	}
	old := r.record(e.Target)
	if old == nil {
		return
	}
	if old.status != "" && old.statusSeq >= r.gap && e.From != "" && e.From != old.status {
		r.find(e.Seq, e.Target, 0, "status before is not the status that the log knows")
	}
	if e.To != "" {
		old.statusSeq, old.status = e.Seq, unique.Make(e.To).Value()
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

// Check compares one record that exists, and that r follows, with what the log says about it, and returns nil when they agree. The function
// state must return the hash of the record's state under the given salt; it is called only when the revisions agree. Check marks the
// record as seen, whether or not it agrees.
func (r *Replay) Check(kind, id string, revision int64, state func(salt []byte) []byte) *Discrepancy {
	ref := Ref{kind, id}
	differs := func(seq int64, problem string) *Discrepancy { return &Discrepancy{seq, ref, revision, problem} }
	rec := r.records[ref]
	if rec == nil || rec.revision == 0 {
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
	case !bytes.Equal(rec.state[:rec.salted], state(bytes.Clone(rec.state[rec.salted:]))):
		return differs(rec.seq, "record's state is not what the log says")
	}
	return nil
}

// Unseen yields, ordered by kind and id, the records that exist according to the log and that Check was never called for.
func (r *Replay) Unseen() iter.Seq[Discrepancy] {
	return func(yield func(Discrepancy) bool) {
		var missing []Ref
		for ref, rec := range r.records {
			if rec.revision > 0 && !rec.removed && !rec.seen {
				missing = append(missing, ref)
			}
		}
		slices.SortFunc(missing, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
		for _, ref := range missing {
			rec := r.records[ref]
			if !yield(Discrepancy{rec.seq, ref, rec.revision, "record is missing"}) {
				return
			}
		}
	}
}
