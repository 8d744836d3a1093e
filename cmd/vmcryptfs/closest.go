package main

import (
	"strings"

	"vmcryptfs/advice"
)

// closest gives the name most similar to a mistyped word, or "" if no name is similar.
func closest(word string, names []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, name := range names {
		if d := distance(word, name); d < least {
			best, least = name, d
		}
		if len(word) > 2 && strings.HasPrefix(name, word) && best == "" { // cut short
			best = name
		}
	}
	return best
}

// distance counts the letters to be inserted, left out, changed or exchanged with a neighbour to
// turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// didYouMean puts the question "did you mean" in front of other advice.
func didYouMean(closest, otherwise string) string {
	if closest == "" {
		return otherwise
	}
	return "did you mean " + closest + "? " + upperFirst(otherwise)
}

// subcommand gives the error for an unknown command of a group of commands.
func subcommand(of, name, usage string, names ...string) error {
	return advice.New(advice.Usagef("%s: unknown command %q", of, name), didYouMean(closest(name, names), "usage: vmcryptfs "+of+" "+usage))
}
