package grants_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/matryer/is"
)

func TestTermsValidate(t *testing.T) {
	t.Parallel()
	many := make([]string, grants.MaxScopes+1)
	for i := range many {
		many[i] = fmt.Sprint("scope", i)
	}
	long := strings.Repeat("a", grants.MaxScopeLength)
	for name, tc := range map[string]struct {
		terms grants.Terms
		field string // at fault; empty: none
	}{
		"zero":                 {grants.Terms{}, ""},
		"all":                  {grants.Terms{Duration: 1, MaxVends: 1, Scopes: []string{"repo:read"}}, ""},
		"largest":              {grants.Terms{Duration: grants.MaxDuration, MaxVends: grants.MaxMaxVends, Scopes: many[1:]}, ""},
		"longest scope":        {grants.Terms{Scopes: []string{long}}, ""},
		"negative duration":    {grants.Terms{Duration: -1}, "duration"},
		"too long":             {grants.Terms{Duration: grants.MaxDuration + 1}, "duration"},
		"negative count":       {grants.Terms{MaxVends: -1}, "max_vends"},
		"too many vends":       {grants.Terms{MaxVends: grants.MaxMaxVends + 1}, "max_vends"},
		"empty list of scopes": {grants.Terms{Scopes: []string{}}, "scopes"},
		"too many scopes":      {grants.Terms{Scopes: many}, "scopes"},
		"too long a scope":     {grants.Terms{Scopes: []string{long + "a"}}, "scopes"},
		"empty scope":          {grants.Terms{Scopes: []string{""}}, "scopes"},
		"twice":                {grants.Terms{Scopes: []string{"a", "a"}}, "scopes"},
		"space":                {grants.Terms{Scopes: []string{"a b"}}, "scopes"},
		"control":              {grants.Terms{Scopes: []string{"a\x00"}}, "scopes"},
		"quotation mark":       {grants.Terms{Scopes: []string{`a"`}}, "scopes"},
		"backslash":            {grants.Terms{Scopes: []string{`a\`}}, "scopes"},
		"not ASCII":            {grants.Terms{Scopes: []string{"scöpe"}}, "scopes"},
		"delete":               {grants.Terms{Scopes: []string{"a\x7f"}}, "scopes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			err := tc.terms.Validate()
			if tc.field == "" {
				is.NoErr(err)
				return
			}
			var te *grants.TermsError
			is.True(errors.Is(err, grants.ErrTerms))
			is.True(errors.As(err, &te))
			is.Equal(te.Field, tc.field)
			// Both ways in refuse them.
			_, err = grants.Request(nil, request(tc.terms, 1), now)
			is.True(errors.Is(err, grants.ErrTerms))
			_, err = grants.Approve(pending(t, grants.Terms{}, 1), grants.ApproveInput{By: ada, Terms: tc.terms}, now)
			is.True(errors.Is(err, grants.ErrTerms))
			_, err = grants.Assign(nil, grants.AssignInput{Identity: id, By: ada, Terms: tc.terms}, now)
			is.True(errors.Is(err, grants.ErrTerms))
		})
	}
}

func TestTermsNarrows(t *testing.T) {
	t.Parallel()
	full := grants.Terms{Duration: 10, MaxVends: 10, Scopes: []string{"a", "b"}}
	for name, tc := range map[string]struct {
		terms, asked grants.Terms
		field        string // widened; empty: none
	}{
		"nothing narrows nothing":   {grants.Terms{}, grants.Terms{}, ""},
		"anything narrows nothing":  {full, grants.Terms{}, ""},
		"equal":                     {full, full, ""},
		"order has no meaning":      {grants.Terms{Scopes: []string{"b", "a"}}, grants.Terms{Scopes: []string{"a", "b"}}, ""},
		"tighter":                   {grants.Terms{Duration: 9, MaxVends: 9, Scopes: []string{"b"}}, full, ""},
		"no end":                    {grants.Terms{MaxVends: 1, Scopes: []string{"a"}}, full, "duration"},
		"later end":                 {grants.Terms{Duration: 11}, grants.Terms{Duration: 10}, "duration"},
		"no count":                  {grants.Terms{}, grants.Terms{MaxVends: 10}, "max_vends"},
		"larger count":              {grants.Terms{MaxVends: 11}, grants.Terms{MaxVends: 10}, "max_vends"},
		"no scopes":                 {grants.Terms{}, grants.Terms{Scopes: []string{"a"}}, "scopes"},
		"another scope":             {grants.Terms{Scopes: []string{"a", "c"}}, grants.Terms{Scopes: []string{"a", "b"}}, "scopes"},
		"negative is not a bound":   {grants.Terms{Duration: -1}, grants.Terms{Duration: 10}, "duration"},
		"negative is not a bound 2": {grants.Terms{MaxVends: -1}, grants.Terms{MaxVends: 10}, "max_vends"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			err := tc.terms.Narrows(tc.asked)
			is.Equal(err != nil, tc.field != "")
			is.Equal(widened(err), tc.field)
		})
	}
}

// What was given never stands in an error.
func TestTermsErrorsNameNoValue(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	err := grants.Terms{Scopes: []string{"lin_api_test_not a scope"}}.Validate()
	is.True(!strings.Contains(err.Error(), "lin_api"))
	err = grants.Terms{Duration: 424242}.Narrows(grants.Terms{Duration: 171717})
	is.True(!strings.Contains(err.Error(), "42") && !strings.Contains(err.Error(), "17"))
}
