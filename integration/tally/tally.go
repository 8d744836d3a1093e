// Package tally lets tests report how much they tried: crash states, kills, boots. make test and
// make test-slow print the sums (scripts/tally), so a reader sees the ground of a green run.
// Failures are printed as reported by go test.
package tally

import (
	"fmt"
	"os"
	"testing"
)

// File is the environment variable with the name of the file to add to; unset, nothing is kept.
const File = "VMCRYPTFS_TALLY"

// Slow reports whether make test-slow runs: tests then take all the time needed, while make test
// runs a representative part.
func Slow() bool { return os.Getenv("VMCRYPTFS_SLOW") != "" }

// Add records that the test tb tries n of what ("kills", "crash states"). Any goroutine of the
// test may call Add.
func Add(tb testing.TB, what string, n int) {
	tb.Helper()
	path := os.Getenv(File)
	if path == "" {
		return
	}
	if err := add(path, what, n); err != nil {
		tb.Errorf("tally: %v", err)
	}
}

// add writes one line with one call: packages are tested side by side.
func add(path, what string, n int) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\t%d\n", what, n)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
