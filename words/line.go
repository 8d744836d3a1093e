package words

import (
	"strconv"
	"strings"
	"unicode"
)

// Line gives a message as one line without effect on a terminal: names in a message may come from
// anyone with write access to BACKING.
func Line(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return Printable(s)
}

// Printable gives s with every character escaped that a terminal might obey.
func Printable(s string) string {
	clean := strings.IndexFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) < 0
	if clean {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
