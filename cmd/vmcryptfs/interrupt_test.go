package main

import (
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// ignoredEnv marks the copy of the test binary started with SIGINT ignored.
const ignoredEnv = "VMCRYPTFS_TEST_IGNORED"

// TestIgnoredSignals: a signal ignored at the start of a command stays ignored. The test needs a
// process of its own, since a process cannot undo ignoring a signal from its start.
func TestIgnoredSignals(t *testing.T) {
	if os.Getenv(ignoredEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		again := exec.Command("sh", "-c", `trap "" INT; exec "$0" -test.run "^TestIgnoredSignals$"`, self)
		again.Env = append(os.Environ(), ignoredEnv+"=1")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	_, stop := interruptible(t.Context())
	defer stop()
	if !signal.Ignored(unix.SIGINT) {
		t.Error("SIGINT is taken back")
	}
	if signal.Ignored(unix.SIGTERM) {
		t.Error("SIGTERM is ignored too")
	}
}
