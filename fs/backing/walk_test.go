package backing

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestWalkIsBounded: whoever may make directories must not make a walk, which each mount
// begins with, take a descriptor and a buffer for each of a hundred thousand levels.
func TestWalkIsBounded(t *testing.T) {
	top, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(top)
	mounttest.Nest(t, top, unix.PathMax/50)
	if err := unix.Mkdirat(top, "e", 0o755); err != nil {
		t.Fatal(err)
	}
	longest, beside := 0, false
	w := Walk{Root: top, Visit: func(_ int, at string, _ *Entry) error {
		longest = max(longest, len(at))
		beside = beside || at == "e"
		return nil
	}}
	err = w.All(context.Background())
	if err != nil || !beside || longest < unix.PathMax/2 || longest > unix.PathMax+unix.NAME_MAX {
		t.Errorf("longest path %d bytes, what lies beside seen: %v, %v", longest, beside, err)
	}
}
