package audit

import "strconv"

// Removal is what an event of ActionLogContentRemoved says in its details. Its numbers that look back over the whole log let a
// verifier tell what retention removed from what somebody took away.
type Removal struct {
	From, Below  int64 // what was removed with this event lies from From up to, not including, Below
	Removed      int64 // events whose content was removed with this one
	Personal     int64 // personal parts removed with this one, of events whose content stayed
	Bound        int64 // no content at or above this number was ever removed
	Total        int64 // events without content in the whole log, those of this removal included
	ContentDays  int64 // the policy: days that content is kept; 0: for ever
	PersonalDays int64 // the policy: days that personal parts are kept; 0: as long as the content
}

func (r *Removal) fields() map[string]*int64 {
	return map[string]*int64{
		"from": &r.From, "below": &r.Below, "removed": &r.Removed, "personal": &r.Personal, "bound": &r.Bound, "total": &r.Total,
		"content_days": &r.ContentDays, "personal_days": &r.PersonalDays,
	}
}

// Details are r as the details of an event.
func (r Removal) Details() map[string]string {
	details := make(map[string]string)
	for name, n := range r.fields() {
		details[name] = strconv.FormatInt(*n, 10)
	}
	return details
}

// ParseRemoval reads what an event says about removed content; ok is false when it is no such event.
func ParseRemoval(e *Event) (r Removal, ok bool) {
	if e.Action != ActionLogContentRemoved || e.Outcome != OutcomeOK {
		return r, false
	}
	for name, n := range r.fields() {
		v, err := strconv.ParseInt(e.Details[name], 10, 64)
		if err != nil || v < 0 {
			return Removal{}, false
		}
		*n = v
	}
	return r, true
}

// Removals holds the content that is missing from a log against what the log's own events say retention removed. The events
// come after what they speak of, so it is asked once all lines were seen. Its memory does not grow with the log. The zero value
// has seen nothing.
type Removals struct {
	bound, total int64
	missing      int64     // lines without content
	runs         []Finding // the last runs of them
}

// Event looks at an event that is as it was signed.
func (r *Removals) Event(e *Event) {
	if said, ok := ParseRemoval(e); ok && said.Bound <= e.Seq {
		r.bound, r.total = max(r.bound, said.Bound), max(r.total, said.Total)
	}
}

// Missing looks at a line without content. Lines come in ascending order.
func (r *Removals) Missing(seq int64) {
	r.missing++
	if n := len(r.runs); n > 0 && r.runs[n-1].To == seq-1 {
		r.runs[n-1].To = seq
		return
	}
	if len(r.runs) == maxFindings {
		r.runs = append(r.runs[:0], r.runs[1:]...)
	}
	r.runs = append(r.runs, Finding{From: seq, To: seq})
}

// Findings are what is missing although no event says that it was removed. Where only too much is missing the finding is
// the range in which it must be.
func (r *Removals) Findings() (found []Finding) {
	for _, run := range r.runs {
		if run.To >= r.bound {
			found = append(found, Finding{max(run.From, r.bound), run.To, "content is missing"})
		}
	}
	if len(found) == 0 && r.missing > r.total {
		found = append(found, Finding{0, r.bound - 1, "more content is missing than was removed"})
	}
	return found
}
