package main

import (
	"slices"
	"strings"
)

// words are the flags as they were given.
func (k keyFlags) words() []string {
	var words []string
	if k.kms != "" {
		words = append(words, "--kms", k.kms)
	}
	if k.dev {
		words = append(words, "--dev")
	}
	return words
}

// shellWords joins words so that a shell reads them as they are.
func shellWords(words []string) string {
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
