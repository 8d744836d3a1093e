package libvirt

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) {
	os.Exit(mounttest.Main(func() int {
		// libvirtd's findings about QEMU, which take several seconds, are for all tests.
		if err := unix.Mount("tmpfs", "/var/cache", "tmpfs", 0, "mode=755"); err != nil {
			fmt.Fprintln(os.Stderr, "libvirt: hide /var/cache:", err)
			return 1
		}
		return m.Run()
	}, "libvirtd", "virsh", "qemu-system-x86_64", "qemu-img"))
}
