// Package ratelimit limits how often a subject may call, exactly: never more
// than the limit in any window of the given length, wherever the window
// begins.
//
// For each subject it keeps the times of the calls that were admitted and are
// still within the window (a sliding window log). The next call passes only
// when fewer than the limit are left. Refused calls are not kept, so they
// extend nothing, and memory grows with admitted calls only. Counters over
// fixed windows, weighted pairs of them and GCRA need less memory, but all
// of them admit more than the limit in some window.
//
// Windows are half-open: a call at t and one exactly a window's length later
// are in no common window, so the second one counts anew.
//
// Times are int64 microseconds since the Unix epoch and are passed in. A time
// before one that was already seen counts as that one: a clock that goes back
// admits no more, at worst less until it has caught up.
//
// Admit with AppendTimes and ParseTimes is the same decision for limiters that
// keep their times elsewhere, such as in a database that several processes
// share.
package ratelimit
