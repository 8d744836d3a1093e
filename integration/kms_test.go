package integration

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// newServed makes and mounts a datastore whose keys are at s.
func newServed(t testing.TB, s *mounttest.Server, options ...string) *datastore {
	t.Helper()
	return &datastore{mounttest.NewServed(t, s, options...), map[string][]byte{}}
}

// within fails when f takes longer than limit.
func within(t testing.TB, what string, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit {
		t.Errorf("%s took %v, want at most %v", what, took.Round(time.Millisecond), limit)
	}
}

// openErr opens and closes a file and gives open's error.
func openErr(path string, flags int) error {
	fd, err := mounttest.Open(path, flags, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
