package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"vmcryptfs/layout"
)

// TestPOSIX runs go-fuse's suite on the mount, with files of both forms, and on a plain
// directory beside it, each test in a directory of its own.
func TestPOSIX(t *testing.T) {
	encrypted := newRig(t, nil)
	clear := newRig(t, func(s *layout.Settings, _ *Config) { s.Clear = []string{"*"} })
	tests := make(map[string]func(*testing.T, string))
	for name, f := range posixtest.All {
		tests[name] = f
	}
	// The left-out test wants POSIX locks of one process to exclude one another, which no file
	// system does: only locks forwarded to a FUSE server look so.
	delete(tests, "FcntlFlockLocksFile")
	t.Run("encrypted", func(t *testing.T) { runPOSIX(t, encrypted.mnt, tests) })
	t.Run("clear", func(t *testing.T) { runPOSIX(t, clear.mnt, tests) })
	// The left-out test wants a symbolic link never to be followed, which only the mount promises.
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
