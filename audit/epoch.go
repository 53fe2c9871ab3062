package audit

import "strconv"

// Details of the first event of an epoch, which say what became of the one before: its number, and the size and root of the last
// head of it that was known. The root is absent where only the size was known.
const (
	DetailLostEpoch = "lost_epoch"
	DetailLostSize  = "lost_size"
	DetailLostRoot  = "lost_root"
	DetailLostHead  = "lost_head" // the signed checkpoint, where it was known
)

// lostEpoch is what an epoch's first event says.
type lostEpoch struct{ epoch, size int64 }

func newLostEpoch(e Event) (l lostEpoch) {
	l.epoch, _ = strconv.ParseInt(e.Details[DetailLostEpoch], 10, 64)
	l.size, _ = strconv.ParseInt(e.Details[DetailLostSize], 10, 64)
	return l
}

// unmet is a checkpoint kept elsewhere that the log does not extend, and where its finding stands among those listed so far.
type unmet struct {
	Checkpoint
	finding int
}

// concludeUnmet lists a checkpoint that the log does not extend.
func (v *verification) concludeUnmet(c Checkpoint, from, to int64, problem string) {
	v.unmet = append(v.unmet, unmet{c, len(v.report.Findings)})
	v.conclusion(from, to, problem)
}

// explainUnmet says of checkpoints that the log does not extend whether it tells itself that they were lost: they are of a history
// that ended when an older state of the log was continued, and nothing here speaks for or against what they cover.
func (v *verification) explainUnmet() {
	for _, u := range v.unmet {
		_, _, epoch, _ := ParseOrigin(u.Origin) // it was opened
		for _, l := range v.lost {
			if epoch <= l.epoch && u.Size <= l.size {
				v.report.Findings[u.finding].Problem = "a checkpoint kept elsewhere is of an epoch that was lost: the log was continued from an older state"
			}
		}
	}
}
