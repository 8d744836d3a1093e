package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// datastore is mounttest's, with the keys fetched by the independent decryptor.
type datastore struct {
	*mounttest.Datastore
	keks map[string][]byte
}

// newDatastore mounts a new datastore the way of the first five minutes: --dev over an
// empty directory.
func newDatastore(t testing.TB, options ...string) *datastore {
	t.Helper()
	return &datastore{mounttest.New(t, options...), map[string][]byte{}}
}

// newUnmounted makes the directories alone.
func newUnmounted(t testing.TB, kms mounttest.KMS, options ...string) *datastore {
	t.Helper()
	return &datastore{mounttest.NewUnmounted(t, kms, options...), map[string][]byte{}}
}

// onTmpfs puts an empty tmpfs where BACKING is; before the first mount.
func (d *datastore) onTmpfs() *datastore {
	d.T.Helper()
	if err := unix.Mount("tmpfs", d.Backing, "tmpfs", 0, "size=2g"); err != nil {
		d.T.Fatal(err)
	}
	d.T.Cleanup(func() { _ = unix.Unmount(d.Backing, unix.MNT_DETACH) })
	return d
}

// mountLine is a mount's line in /proc/self/mounts, "" when there is none.
func mountLine(t testing.TB, mnt string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == mnt {
			return line
		}
	}
	return ""
}
