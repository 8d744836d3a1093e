package main

import (
	"os"

	"golang.org/x/term"
)

// isTerminal reports whether a person reads f.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// obeys reports whether f is a terminal with colours, able to write over a line. A "dumb" terminal
// (terminfo(5)), as in editors and on serial lines, cannot.
func obeys(f *os.File) bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb" && isTerminal(f)
}
