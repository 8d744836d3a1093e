package main

import (
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIgnoredSignals: a signal that whoever starts the command has ignored stays so.
func TestIgnoredSignals(t *testing.T) {
	signal.Ignore(unix.SIGINT)
	defer signal.Reset(unix.SIGINT)
	_, stop := interruptible(t.Context())
	defer stop()
	if !signal.Ignored(unix.SIGINT) {
		t.Error("SIGINT is taken back")
	}
	if signal.Ignored(unix.SIGTERM) {
		t.Error("SIGTERM is ignored too")
	}
}
