package words

import (
	"slices"
	"strings"
)

// Command joins the words of a command line, and quotes words that a shell would read otherwise.
func Command(words []string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("-_./:@%+=,", r) || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	words = slices.Clone(words)
	for i, w := range words {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return !plain(r) }) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
