package ratelimit

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// Bounds of a Policy.
const (
	MaxLimit  = 100_000
	MinWindow = time.Second
	MaxWindow = 24 * time.Hour
)

// ErrPolicy occurs when a policy is malformed or out of range. Its text says
// what a policy looks like, never what was given.
var ErrPolicy = errors.New(`ratelimit: a policy is "off" or LIMIT/WINDOW such as 60/1m, with a limit of 1 to 100000 and a window of 1s to 24h in whole seconds`)

// Policy is a limit: at most Limit calls in any window of the given length.
// The zero value is off: everything is admitted.
type Policy struct {
	Limit  int
	Window time.Duration // whole seconds
}

// ParsePolicy reads "60/1m", "10/1h" or "off". The window is written as for
// time.ParseDuration. The error is ErrPolicy.
func ParsePolicy(s string) (Policy, error) {
	if s == "off" {
		return Policy{}, nil
	}
	limit, window, found := strings.Cut(s, "/")
	if !found || strings.Trim(limit, "0123456789") != "" {
		return Policy{}, ErrPolicy
	}
	n, err := strconv.Atoi(limit)
	if err != nil || n == 0 {
		return Policy{}, ErrPolicy
	}
	w, err := time.ParseDuration(window)
	if err != nil || w == 0 {
		return Policy{}, ErrPolicy
	}
	p := Policy{Limit: n, Window: w}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// String returns the policy as ParsePolicy reads it.
func (p Policy) String() string {
	if p.Off() {
		return "off"
	}
	w := p.Window.String() // such as 1h0m0s
	if strings.HasSuffix(w, "m0s") {
		w = strings.TrimSuffix(w, "0s")
	}
	if strings.HasSuffix(w, "h0m") {
		w = strings.TrimSuffix(w, "0m")
	}
	return strconv.Itoa(p.Limit) + "/" + w
}

// Off reports whether p admits everything.
func (p Policy) Off() bool { return p == Policy{} }

// Validate returns ErrPolicy unless p is off or within the bounds.
func (p Policy) Validate() error {
	switch {
	case p.Off():
		return nil
	case p.Limit < 1 || p.Limit > MaxLimit,
		p.Window < MinWindow || p.Window > MaxWindow || p.Window%time.Second != 0:
		return ErrPolicy
	}
	return nil
}

// micros is the window in microseconds.
func (p Policy) micros() int64 { return p.Window.Microseconds() }

// Tier names a class of calls that share a limit.
type Tier string

// The tiers and what their subjects are.
const (
	TierPreauth    Tier = "preauth"    // client address, before authentication
	TierRead       Tier = "read"       // agent: catalog and own state
	TierCredential Tier = "credential" // agent: fetching credentials
	TierRequest    Tier = "request"    // agent: access requests and suggestions
	TierAdmin      Tier = "admin"      // administrator: changes
	TierAdminRead  Tier = "admin_read" // administrator: reads
)

// Tiers returns all tiers in a fixed order, in a fresh slice.
func Tiers() []Tier {
	return []Tier{TierPreauth, TierRead, TierCredential, TierRequest, TierAdmin, TierAdminRead}
}

// Policies gives each tier its policy. A tier that is missing has no policy,
// and calls in it are refused; to admit everything, its policy must be off.
type Policies map[Tier]Policy

// DefaultPolicies returns the policies of the contract in a fresh map.
func DefaultPolicies() Policies {
	return Policies{
		TierPreauth:    {Limit: 600, Window: time.Minute},
		TierRead:       {Limit: 120, Window: time.Minute},
		TierCredential: {Limit: 60, Window: time.Minute},
		TierRequest:    {Limit: 10, Window: time.Hour},
		TierAdmin:      {Limit: 30, Window: time.Minute},
		TierAdminRead:  {Limit: 300, Window: time.Minute},
	}
}

// Validate returns ErrPolicy, with the tier's name, for the first tier in the
// order of Tiers whose policy is not valid, and ErrTier for a tier that is
// none of them.
func (p Policies) Validate() error {
	known := maps.Clone(p)
	for _, t := range Tiers() {
		if err := p[t].Validate(); err != nil {
			return fmt.Errorf("%w (tier %s)", err, t)
		}
		delete(known, t)
	}
	if len(known) > 0 {
		return ErrTier
	}
	return nil
}
