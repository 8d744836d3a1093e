package daemon

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holdToQuotas makes CAP_SYS_RESOURCE ineffective in all threads. A process with the capability
// may exceed quotas. For a write, the kernel looks at the daemon, not at the caller. The
// capability stays permitted, so that package fs can restore the capability for a caller with the
// same. After holdToQuotas no limit of the process can be raised, and protectProcess fails. A
// build with C returns ENOTSUP.
func holdToQuotas() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // of each thread itself
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return nil
	}
	caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps[0])), 0)
	if errno != 0 {
		return fmt.Errorf("lay down CAP_SYS_RESOURCE: %w", errno)
	}
	return nil
}
