package main

import (
	"os"

	"golang.org/x/term"
)

// isTerminal tells if a person reads f.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// obeys tells if f is a terminal that knows colours and can write over a line. One that is
// "dumb" (terminfo(5)) cannot, as in editors and on serial lines.
func obeys(f *os.File) bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb" && isTerminal(f)
}
