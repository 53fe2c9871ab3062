package agentkey

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// normalWords is what stays of a text when case, spelling and punctuation are no
// difference: the letters and digits of any script with the marks on them, in
// NFKC and folded, and one space for each run of anything else. It is empty when
// the text has neither letter nor digit. normalWords of the result is the result.
func normalWords(text string) string {
	text = norm.NFKC.String(strings.Map(visible, text))
	// A Caser is not safe to share. It folds Cherokee both ways; lower case makes it one.
	text = norm.NFKC.String(strings.ToLower(cases.Fold().String(text)))
	var words strings.Builder
	inside, gap := false, false
	for _, r := range text {
		switch {
		case visible(r) < 0:
		case unicode.In(r, unicode.L, unicode.N), inside && unicode.In(r, unicode.Mn, unicode.Mc):
			if gap && words.Len() > 0 {
				words.WriteByte(' ')
			}
			words.WriteRune(r)
			inside, gap = true, false
		default:
			inside, gap = false, true
		}
	}
	return norm.NFKC.String(words.String())
}

// visible drops what shows as nothing, such as joiners and variation selectors:
// with it, two texts that look the same would be different.
func visible(r rune) rune {
	if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
		return -1
	}
	return r
}
