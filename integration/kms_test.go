package integration

import (
	"testing"
	"time"

	"vmcryptfs/integration/mounttest"
)

// newServed makes and mounts a datastore whose keys are at s.
func newServed(t testing.TB, s *mounttest.Server, options ...string) *datastore {
	t.Helper()
	return &datastore{mounttest.NewServed(t, s, options...), map[string][]byte{}}
}

// within fails when f takes longer than limit, with an allowance for a busy machine: the check is
// for waits that do not end by themselves.
func within(t testing.TB, what string, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit+25*time.Second {
		t.Errorf("%s took %v, want at most %v", what, took.Round(time.Millisecond), limit)
	}
}
