package ratelimit

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// Errors of limiters.
var (
	// ErrTier occurs for a tier without a policy.
	ErrTier = errors.New("ratelimit: the tier has no policy")
	// ErrSubject occurs for an empty subject and one above MaxSubject bytes.
	ErrSubject = errors.New("ratelimit: the subject is empty or too long")
	// ErrFull occurs when the limiter already keeps as many live subjects as
	// it may and another one calls. It passes as subjects become idle.
	ErrFull = errors.New("ratelimit: too many subjects")
	// ErrTimes occurs when encoded times are not what AppendTimes wrote.
	ErrTimes = errors.New("ratelimit: encoded times are malformed")
)

// MaxSubject is the longest subject in bytes.
const MaxSubject = 256

// Limiter decides calls. Implementations may be called from several
// goroutines at once.
type Limiter interface {
	// Take decides one call of the subject in the tier at now and, when it
	// is admitted, counts it. An error means that it could not be decided:
	// the caller must refuse.
	Take(ctx context.Context, tier Tier, subject string, now int64) (Decision, error)
}

// Decision is the answer to one call.
type Decision struct {
	Allowed bool
	Policy  Policy
	Limit   int // as in the policy; 0 when it is off
	// Remaining is how many more calls would be admitted at this time.
	Remaining int
	// Reset is the time in microseconds from which one more call is admitted
	// than now, if there are no others: for a refused call, when to come
	// back. It is the time of the call when the policy is off.
	Reset int64
	// RetryAfter is how long a refused call must wait until Reset, by the
	// clock that passed the time of the call; 0 when it was allowed.
	RetryAfter time.Duration
}

// Admit decides one call at now, given the times of the calls admitted so far
// in ascending order, and returns the times to keep: those still within the
// window and, if it is admitted, this one. It takes the slice over: the caller
// goes on with the returned one only. A time before the last kept one, or
// before the epoch, counts as that. The policy must be valid. If it is off,
// everything is admitted and nothing kept.
//
// When the kept times are more than the limit, because it was lowered, calls
// are refused until enough of them have left the window.
func Admit(times []int64, p Policy, now int64) ([]int64, Decision) {
	d := Decision{Policy: p, Limit: p.Limit}
	if p.Off() {
		d.Allowed, d.Reset = true, now
		return nil, d
	}
	at := max(now, 0)
	if len(times) > 0 {
		at = max(at, times[len(times)-1])
	}
	times = live(times, p.micros(), at)
	if len(times) < p.Limit {
		times = append(times, at)
		d.Allowed = true
		d.Remaining = p.Limit - len(times)
	}
	// The call that must leave before one more is admitted: the oldest, or a
	// later one when more are kept than the limit allows.
	d.Reset = sum(times[max(0, len(times)-p.Limit)], p.micros())
	if !d.Allowed {
		d.RetryAfter = wait(now, d.Reset)
	}
	return times, d
}

// live cuts off the times that have left the window at the given time.
func live(times []int64, window, at int64) []int64 {
	for i, t := range times {
		if at-t < window {
			return times[i:]
		}
	}
	return nil
}

// sum adds a window to a time, staying below the end of int64.
func sum(t, window int64) int64 {
	if t > math.MaxInt64-window {
		return math.MaxInt64
	}
	return t + window
}

// wait is the time from now until reset, at most the longest Duration.
func wait(now, reset int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Microsecond)
	if now < 0 && reset > math.MaxInt64+now || reset-now > most {
		return math.MaxInt64
	}
	return time.Duration(reset-now) * time.Microsecond
}

// timesVersion is the first byte of encoded times, version 1:
//
//	0x01 | first time | difference to the one before | …
//
// The numbers are unsigned varints (as in encoding/binary) in their shortest
// form. At 60 calls a minute a time takes about three bytes.
const timesVersion = 1

// AppendTimes appends the encoded times to dst. They must be as Admit
// returned them: ascending and not negative.
func AppendTimes(dst []byte, times []int64) []byte {
	dst = append(dst, timesVersion)
	var last int64
	for _, t := range times {
		dst = binary.AppendUvarint(dst, uint64(t-last))
		last = t
	}
	return dst
}

// ParseTimes reads what AppendTimes wrote, and only that: another version,
// numbers not in their shortest form, times beyond int64 and more than
// MaxLimit of them are ErrTimes.
func ParseTimes(b []byte) ([]int64, error) {
	if len(b) == 0 || b[0] != timesVersion {
		return nil, ErrTimes
	}
	var times []int64
	var last int64
	for b = b[1:]; len(b) > 0; {
		delta, n := binary.Uvarint(b)
		if n <= 0 || n > 1 && b[n-1] == 0 || delta > uint64(math.MaxInt64-last) || len(times) == MaxLimit {
			return nil, ErrTimes
		}
		last += int64(delta)
		times = append(times, last)
		b = b[n:]
	}
	return times, nil
}
