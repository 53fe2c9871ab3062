package grants

import (
	"fmt"
	"slices"
	"time"
)

// Limits of Terms.
const (
	// MaxDuration is the longest duration of a grant, ten years.
	MaxDuration int64 = 10 * 366 * 24 * int64(time.Hour/time.Microsecond)
	// MaxMaxVends is the highest limit on the number of vends.
	MaxMaxVends int64 = 1_000_000_000
	// MaxScopes is the largest number of scopes.
	MaxScopes = 64
	// MaxScopeLength is the longest scope in bytes.
	MaxScopeLength = 256
)

// Terms bound what a grant gives. The zero value bounds nothing.
type Terms struct {
	Duration int64 // microseconds from approval; 0: no end
	MaxVends int64 // 0: no limit
	// Scopes are names that mean something to the tool; none: no restriction
	// is named. Each is a scope-token of RFC 6749, section 3.3: visible ASCII
	// without space, quotation mark and backslash. Order has no meaning.
	Scopes []string
}

// IsZero reports whether t bounds nothing.
func (t Terms) IsZero() bool { return t.Duration == 0 && t.MaxVends == 0 && len(t.Scopes) == 0 }

// Equal reports whether t and u bound the same.
func (t Terms) Equal(u Terms) bool {
	return t.Duration == u.Duration && t.MaxVends == u.MaxVends &&
		len(t.Scopes) == len(u.Scopes) && subset(t.Scopes, u.Scopes) && subset(u.Scopes, t.Scopes)
}

// Validate checks ranges and form. The error is a *TermsError around ErrTerms.
// A list of scopes that is present but empty is refused: it would read as
// "nothing" and mean "anything".
func (t Terms) Validate() error {
	if t.Duration < 0 || t.Duration > MaxDuration {
		return termsError("duration", ErrTerms, "must be between 0 and ten years")
	}
	if t.MaxVends < 0 || t.MaxVends > MaxMaxVends {
		return termsError("max_vends", ErrTerms, fmt.Sprintf("must be between 0 and %d", MaxMaxVends))
	}
	return validateScopes(t.Scopes)
}

func validateScopes(scopes []string) error {
	if scopes != nil && len(scopes) == 0 {
		return termsError("scopes", ErrTerms, "must name at least one scope or be left out")
	}
	if len(scopes) > MaxScopes {
		return termsError("scopes", ErrTerms, fmt.Sprintf("must be at most %d", MaxScopes))
	}
	for i, s := range scopes {
		switch {
		case len(s) == 0 || len(s) > MaxScopeLength || !scopeToken(s):
			return termsError("scopes", ErrTerms,
				fmt.Sprintf("must be 1 to %d visible ASCII characters each, without quotation mark and backslash", MaxScopeLength))
		case slices.Contains(scopes[:i], s):
			return termsError("scopes", ErrTerms, "must differ from each other")
		}
	}
	return nil
}

func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Narrows reports whether t is within asked: nothing that asked bounds is
// unbounded or larger in t, and the scopes are a subset. If not, the error is
// a *TermsError around ErrWidened for the first such field. What asked leaves
// unbounded is narrowed by any bound. Equal terms narrow each other.
func (t Terms) Narrows(asked Terms) error {
	if asked.Duration > 0 && (t.Duration <= 0 || t.Duration > asked.Duration) {
		return termsError("duration", ErrWidened, "must not be longer")
	}
	if asked.MaxVends > 0 && (t.MaxVends <= 0 || t.MaxVends > asked.MaxVends) {
		return termsError("max_vends", ErrWidened, "must not be larger")
	}
	if len(asked.Scopes) > 0 && (len(t.Scopes) == 0 || !subset(t.Scopes, asked.Scopes)) {
		return termsError("scopes", ErrWidened, "must be among those already named")
	}
	return nil
}

// within returns t with every bound it leaves open taken from bound, or an
// error if t is malformed or a bound that t names is wider.
func (t Terms) within(bound Terms) (Terms, error) {
	if err := t.Validate(); err != nil {
		return Terms{}, err
	}
	if t.Duration == 0 {
		t.Duration = bound.Duration
	}
	if t.MaxVends == 0 {
		t.MaxVends = bound.MaxVends
	}
	if len(t.Scopes) == 0 {
		t.Scopes = bound.Scopes
	}
	return t, t.Narrows(bound)
}

// end is when a grant approved at the given time ends; 0: never.
func (t Terms) end(approved int64) int64 {
	if t.Duration == 0 {
		return 0
	}
	return approved + t.Duration
}

func (t Terms) clone() Terms {
	t.Scopes = slices.Clone(t.Scopes)
	return t
}

func subset(a, b []string) bool {
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	return true
}

func termsError(field string, err error, text string) error {
	return &TermsError{Field: field, Err: err, text: text}
}
