// Package exact compares the mount with ext4, call by call: the checks of pjdfstest, xfstests and
// fsx, restated. A check does the same in a directory of the mount and in a plain one on the same
// disk, and must see the same in both (oracle_test.go).
package exact

import (
	"os"
	"testing"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "locker":
		os.Exit(playChild(newLocker().obey))
	case "mapper":
		os.Exit(playChild(new(mapper).obey))
	}
	os.Exit(mounttest.Main(m.Run, "mkfs.ext4", "qemu-img", "qemu-io", "qemu-system-x86_64"))
}
