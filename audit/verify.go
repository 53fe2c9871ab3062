package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxFindings is how many findings about single entries a report lists; the rest are counted.
const maxFindings = 100

// Log is what Verify judges.
type Log struct {
	Installation string
	Organization string
	Entries      Reader
	Verifiers    *Verifiers

	// ContentFrom is the first number whose content must be there: retention removed what stands below. The zero value allows
	// no content to be missing.
	ContentFrom int64

	// Recorded allows content to be missing as far as the log's own events of ActionLogContentRemoved say that retention
	// removed it. It needs no word of whoever holds the log.
	Recorded bool

	// Elsewhere holds signed checkpoints of this log that were kept outside of its database, as receipts or exports: the
	// only means to find that the whole database was put back to an older state.
	Elsewhere [][]byte
}

// Report is what Verify found.
type Report struct {
	Events          int64 // lines in their place
	ContentVerified int64 // of these: the content is what the leaf says and fits its place
	HashVerified    int64 // of these: the content was removed, only the leaf hash is there
	PersonalErased  int64 // events whose personal part was erased
	Proven          int64 // the leaf hashes of the lines below this number are those that a signed root commits to
	Root            Hash  // root over the leaf hashes, as far as they were contiguous
	Findings        []Finding
	Unlisted        int64 // findings beyond those listed
}

// OK reports whether nothing was found.
func (r Report) OK() bool { return len(r.Findings) == 0 }

// Finding is something wrong with the lines From to To, or with at least one of them, as Problem says. Findings are ordered
// by From. No line before the first finding is bad, unless a missing line kept the next signed root from being compared:
// then only what stands below Report.Proven is beyond doubt. Problem never quotes the log.
type Finding struct {
	From, To int64
	Problem  string
}

// Verify reads the whole log and reports everything that is not as it was signed. For each line it checks, in this order, that
// its number follows; that the leaf is the hash of the content; that the content is an event in its canonical form, of this
// number and organization and not earlier than the one before; and that the personal part is the one that was hashed. The
// roots of kept checkpoints, of the head and of checkpoints kept elsewhere are compared with the tree over the leaf hashes.
//
// Damage to content is named by its exact number. Where leaf hashes were edited too, the finding is the range from the last
// signed root that still holds to the first that does not. Memory does not grow with the log. An error means that reading
// failed or ctx ended; the report then says how far it came.
func Verify(ctx context.Context, log Log) (Report, error) {
	v := verification{log: log}
	v.openElsewhere()
	for {
		if err := ctx.Err(); err != nil {
			return v.report, err
		}
		entry, err := log.Entries.Next(ctx)
		switch {
		case err == io.EOF:
			v.conclude()
			return v.report, nil
		case errors.Is(err, ErrFormat):
			v.unreadable()
		case err != nil:
			return v.report, fmt.Errorf("audit: reading the log: %w", err)
		case v.headSeen:
			v.find(v.next, v.next, "an entry after the head")
		case entry.Line != nil:
			v.line(entry.Line)
		case entry.Head != nil:
			v.head(entry.Head)
		default:
			v.checkpoint(entry.Checkpoint)
		}
	}
}

// A verification is the state of Verify between two entries.
type verification struct {
	log       Log
	report    Report
	tree      Tree
	next      int64 // the number that must come next
	last      int64 // time of the last event
	broken    bool  // a leaf is missing: roots can't be compared any more
	skipped   bool  // an entry in the place of next could not be read
	epoch     int64 // of the last checkpoint
	headSeen  bool
	mismatch  []int64      // sizes of checkpoints, since the last root that held, whose root did not
	elsewhere []Checkpoint // not yet reached, ascending by size
	extended  int64        // size of the last checkpoint kept elsewhere that the log extends
	unmet     []unmet      // of those that it does not
	lost      []lostEpoch  // what the log says was lost
	removals  Removals
}

// find lists a finding about single lines; a run of the same problem becomes one range.
func (v *verification) find(from, to int64, problem string) {
	list := v.report.Findings
	if n := len(list); n > 0 && list[n-1].Problem == problem && list[n-1].From <= from && from <= list[n-1].To+1 {
		list[n-1].To = max(list[n-1].To, to)
		return
	}
	if len(list) >= maxFindings {
		v.report.Unlisted++
		return
	}
	v.report.Findings = append(list, Finding{from, to, problem})
}

func (v *verification) line(l *Line) {
	if !v.place(l) {
		return
	}
	if !v.broken {
		v.tree.add(l.Leaf, nil)
	}
	v.next++
	v.report.Events++
	if from, problem := v.judge(l); problem != "" {
		v.find(from, l.Seq, problem)
	}
	v.compareElsewhere()
}

// place checks that l stands where its number says, and reports whether it can be judged.
func (v *verification) place(l *Line) bool {
	if l.Seq < 0 || l.Seq >= MaxSize {
		v.find(v.next, v.next, "line's number is out of range")
		return false
	}
	if v.skipped && l.Seq > v.next { // the entry that could not be read stood here
		v.broken = true
		v.next++
	}
	v.skipped = false
	switch {
	case l.Seq < v.next:
		v.find(v.next, v.next, "a line with an earlier number stands here")
		return false
	case l.Seq > v.next:
		v.find(v.next, l.Seq-1, "line is missing")
		v.broken = true
		v.next = l.Seq
	}
	return true
}

// judge checks a line in its place and returns what is wrong with it, and from which number on.
func (v *verification) judge(l *Line) (from int64, problem string) {
	if len(l.Content) == 0 {
		v.report.HashVerified++
		switch {
		case l.Seq >= v.log.ContentFrom && !v.log.Recorded:
			return l.Seq, "content is missing"
		case len(l.Personal) > 0:
			return l.Seq, "personal part without content"
		case l.Seq >= v.log.ContentFrom:
			v.removals.Missing(l.Seq)
		}
		return 0, ""
	}
	if LeafHash(l.Content) != l.Leaf {
		return l.Seq, "content does not match its leaf hash"
	}
	e, err := Parse(l.Content)
	switch {
	case err != nil:
		return l.Seq, "content is not an event"
	case e.Organization != v.log.Organization:
		return l.Seq, "event of another organization"
	case e.Seq < l.Seq:
		// Either line may be the forged one: where a line was inserted, the first to show it is the one that it pushed away.
		// A line that a signed root has proven is not.
		return max(e.Seq, v.report.Proven), "event with the number of an earlier line"
	case e.Seq > l.Seq:
		return l.Seq, "event with the number of a later line"
	case e.Time < v.last:
		return l.Seq, "event is earlier than the one before"
	}
	v.last = e.Time
	v.removals.Event(&e)
	if e.Action == ActionLogEpochOpened {
		v.lost = append(v.lost, newLostEpoch(e))
	}
	return l.Seq, v.personal(l, e.Personal)
}

func (v *verification) personal(l *Line, hash []byte) string {
	switch {
	case len(l.Personal) == 0:
		if len(hash) > 0 {
			v.report.PersonalErased++
		}
	case len(hash) == 0:
		return "personal part that the event does not know"
	case !bytes.Equal(HashPersonal(l.Personal), hash):
		return "personal part does not match its hash"
	}
	v.report.ContentVerified++
	return ""
}

func (v *verification) unreadable() {
	v.find(v.next, v.next, "entry can't be read")
	v.skipped = true
}

// open opens a checkpoint of this log; it lists a finding at the line before the present one when it is none.
func (v *verification) open(signed []byte, what string) (Checkpoint, bool) {
	at := max(v.next-1, 0)
	c, err := OpenCheckpoint(signed, v.log.Verifiers)
	if err != nil {
		problem := what + " is malformed"
		if errors.Is(err, ErrSignature) {
			problem = what + " has no valid signature"
		}
		v.find(at, at, problem)
		return Checkpoint{}, false
	}
	installation, organization, epoch, err := ParseOrigin(c.Origin)
	if err != nil || installation != v.log.Installation || organization != v.log.Organization {
		v.find(at, at, what+" is of another log")
		return Checkpoint{}, false
	}
	if epoch < v.epoch {
		v.find(at, at, what+" is of an earlier epoch than the one before")
		return Checkpoint{}, false
	}
	v.epoch = epoch
	return c, true
}

func (v *verification) checkpoint(signed []byte) {
	c, ok := v.open(signed, "kept checkpoint")
	const problem = "kept checkpoint is of another size than the lines before it"
	switch {
	case !ok:
	case c.Size > v.next:
		v.find(v.next, v.next, problem)
	case c.Size < v.next:
		v.find(v.next-1, v.next-1, problem)
	default:
		v.compare(c)
	}
}

// compare holds a signed root of the present size against the tree.
func (v *verification) compare(c Checkpoint) {
	switch {
	case v.broken:
	case c.Root != v.tree.Root():
		v.mismatch = append(v.mismatch[:min(len(v.mismatch), maxFindings)], c.Size)
	default:
		// All lines up to here are the signed ones, so it is the checkpoints in between that are not of this history.
		for _, size := range v.mismatch {
			v.find(max(size-1, 0), max(size-1, 0), "kept checkpoint is of another history")
		}
		v.mismatch = v.mismatch[:0]
		v.report.Proven = c.Size
	}
}

func (v *verification) head(signed []byte) {
	v.headSeen = true
	c, ok := v.open(signed, "head")
	switch {
	case !ok:
	case c.Size > v.next:
		v.conclusion(v.next, c.Size-1, "lines are missing at the end")
	case c.Size < v.next:
		// The root at that size is gone by now, so nothing after the last root that held is proven.
		v.conclusion(min(c.Size, v.report.Proven), v.next-1, "lines that the head does not cover")
	default:
		v.compare(c)
	}
}

// conclusion lists a finding about the whole log, beyond the limit for single lines.
func (v *verification) conclusion(from, to int64, problem string) {
	v.report.Findings = append(v.report.Findings, Finding{from, to, problem})
}

func (v *verification) conclude() {
	if !v.headSeen {
		v.conclusion(v.report.Proven, max(v.next-1, v.report.Proven), "there is no signed head: the end is missing")
	}
	for _, f := range v.removals.Findings() {
		v.conclusion(f.From, f.To, f.Problem)
	}
	if len(v.mismatch) > 0 {
		v.conclusion(v.report.Proven, v.mismatch[0]-1, "leaf hashes are not those that were signed")
	}
	for _, c := range v.elsewhere {
		v.concludeUnmet(c, v.next, c.Size-1, "lines that a checkpoint kept elsewhere covers are missing")
	}
	v.explainUnmet()
	v.report.Root = v.tree.Root()
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int { return cmp.Compare(a.From, b.From) })
}

// openElsewhere opens the checkpoints that were kept elsewhere. Epochs may come in any order here.
func (v *verification) openElsewhere() {
	for _, signed := range v.log.Elsewhere {
		v.epoch = 0
		if c, ok := v.open(signed, "checkpoint kept elsewhere"); ok {
			v.elsewhere = append(v.elsewhere, c)
		}
	}
	v.epoch = 0
	slices.SortFunc(v.elsewhere, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	v.compareElsewhere()
}

// compareElsewhere compares the checkpoints kept elsewhere whose size has been reached. They are never excused by a later
// root: a log that holds a root of its own but not theirs is another history.
func (v *verification) compareElsewhere() {
	for len(v.elsewhere) > 0 && v.elsewhere[0].Size <= v.next {
		c := v.elsewhere[0]
		v.elsewhere = v.elsewhere[1:]
		switch {
		case v.broken:
		case c.Size != v.next || c.Root != v.tree.Root():
			from := v.extended
			if from >= c.Size {
				from = 0 // two checkpoints of one size that differ: both histories were signed
			}
			v.concludeUnmet(c, from, max(c.Size-1, from), "lines are not those that a checkpoint kept elsewhere covers")
		default:
			v.extended = c.Size
		}
	}
}
