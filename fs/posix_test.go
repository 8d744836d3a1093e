package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPOSIX runs go-fuse's suite on the mount and on a plain directory beside it, each
// test in a directory of its own.
func TestPOSIX(t *testing.T) {
	r := newRig(t, nil)
	tests := make(map[string]func(*testing.T, string))
	for name, f := range posixtest.All {
		tests[name] = f
	}
	// It wants POSIX locks of one process to exclude one another, which no file system
	// does: only locks forwarded to a FUSE server look like that.
	delete(tests, "FcntlFlockLocksFile")
	t.Run("mount", func(t *testing.T) { runPOSIX(t, r.mnt, tests) })
	// It wants a symbolic link never to be followed, which only the mount promises.
	delete(tests, "OpenSymlinkRace")
	t.Run("plain", func(t *testing.T) { runPOSIX(t, t.TempDir(), tests) })
}

func runPOSIX(t *testing.T, base string, tests map[string]func(*testing.T, string)) {
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(base, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			f(t, dir)
		})
	}
}
