package audit

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxID      = 128 // bytes of an id
	maxCode    = 64  // bytes of a code or a kind
	maxEntries = 32  // entries of Details and Extra
)

// A rule says what a string member may hold. The check returns a complaint that never quotes the value, or "". Rules use
// fixed character sets, because Unicode's tables change and what can be parsed must not.
type rule struct {
	required bool
	check    func(string) string
}

var (
	idRule       = rule{check: identifier}
	needID       = rule{true, identifier}
	codeRule     = rule{check: code}
	needCode     = rule{true, code}
	nameRule     = rule{true, name}
	actionRule   = rule{true, actionSyntax}
	outcomeRule  = rule{true, outcomeSyntax}
	ticketRule   = rule{check: ticket}
	detailRule   = rule{check: bounded(1024)}
	labelRule    = rule{check: bounded(1024)}
	addressRule  = rule{check: bounded(128)}
	freeTextRule = rule{check: bounded(16 << 10)}
)

// within reports whether s has 1 to limit bytes, all accepted by ok.
func within(s string, limit int, ok func(byte) bool) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func lowerDigit(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '_' }

func identifier(s string) string {
	if !within(s, maxID, func(b byte) bool { return 0x21 <= b && b <= 0x7e }) {
		return "is not 1 to 128 printable ASCII characters without spaces"
	}
	return ""
}

func code(s string) string {
	if !within(s, maxCode, lowerDigit) {
		return "is not 1 to 64 of a-z, 0-9 and _"
	}
	return ""
}

// name is the rule for what becomes part of an origin: installation and organization.
func name(s string) string {
	ok := func(b byte) bool {
		return lowerDigit(b) || 'A' <= b && b <= 'Z' || b == '.' || b == '-'
	}
	if !within(s, maxID, ok) {
		return "is not 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'"
	}
	return ""
}

func entryKey(s string) string {
	if !within(s, maxCode, lowerDigit) || s[0] < 'a' || s[0] > 'z' {
		return "key is not a-z followed by up to 63 of a-z, 0-9 and _"
	}
	return ""
}

// actionSyntax accepts what Action's comment says. It does not ask whether the action is known, so that a log with actions
// of a later release can still be read and verified.
func actionSyntax(s string) string {
	const complaint = "is not an action"
	if len(s) > maxID {
		return complaint
	}
	parts := 0
	for part := range strings.SplitSeq(s, ".") {
		if !within(part, maxID, lowerDigit) {
			return complaint
		}
		parts++
	}
	if parts < 2 || strings.HasPrefix(s, hostPrefix) && parts < 3 {
		return complaint
	}
	return ""
}

func outcomeSyntax(s string) string {
	switch Outcome(s) {
	case OutcomeOK, OutcomeRefused, OutcomeFailed:
		return ""
	}
	return "is not ok, refused or failed"
}

// ticket counts UTF-16 units, as every length that people are told of.
func ticket(s string) string {
	if complaint := bounded(600)(s); complaint != "" {
		return complaint
	}
	units := 0
	for _, r := range s {
		units++
		if r > 0xffff {
			units++
		}
	}
	if units > 200 {
		return "is longer than 200 characters"
	}
	return ""
}

// bounded accepts any text of at most limit bytes.
func bounded(limit int) func(string) string {
	tooLong := "is longer than " + strconv.Itoa(limit) + " bytes"
	return func(s string) string {
		switch {
		case len(s) > limit:
			return tooLong
		case !utf8.ValidString(s):
			return "is not UTF-8"
		case strings.IndexByte(s, 0) >= 0:
			return "holds a NUL"
		}
		return ""
	}
}
