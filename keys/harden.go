package keys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// HardenProcess keeps this process's memory out of core files and out of reach of other
// processes, and out of swap where allowed (design §5). Programs that hold keys call
// HardenProcess once, before the first key. Children inherit all settings except PR_SET_DUMPABLE,
// which ends with execve.
//
// Secrets are locked by themselves. HardenProcess also covers data left on the heap by Go's
// standard library: AES schedules, HMAC states, plaintext buffers.
//
// With PR_SET_DUMPABLE 0 the files in /proc/PID belong to root. A process of any user may still
// follow its own /proc/self/fd (the kernel lets a thread group at its own descriptors), but may
// no longer write /proc/self/coredump_filter and the like.
func HardenProcess() error {
	// First, while the file is still ours.
	if err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0); err != nil {
		// A kernel without core files has none, and /proc may be hidden.
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("leave all memory out of core files: %w", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process not dumpable: %w", err)
	}
	return lockAll()
}

// lockAll keeps the whole process out of swap where no limit on locked memory stands in the way:
// as root, or with no limit. In other processes only Secrets are locked.
//
// MCL_ONFAULT locks a page at the first touch, so reserved address space (Go reserves 64 MiB at a
// time) costs nothing. The Go runtime's MADV_DONTNEED fails on locked pages; the runtime then
// maps fresh pages over them, so memory still goes back.
func lockAll() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("read the limit on locked memory: %w", err)
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			return fmt.Errorf("raise the limit on locked memory: %w", err)
		}
	}
	if !mayLockAll(limit) {
		return nil
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("keep the process out of swap: %w", err)
	}
	return nil
}

// mayLockAll reports whether locked memory is unlimited: under a limit, MCL_FUTURE would make
// later mappings fail. The kernel decides, over a mapping larger than the limit: the capability
// that lifts the limit has no effect in a user namespace. The mapping is not readable, so the
// kernel supplies no memory.
func mayLockAll(limit unix.Rlimit) bool {
	if limit.Cur == unix.RLIM_INFINITY {
		return true
	}
	b, err := unix.Mmap(-1, 0, int(limit.Cur)+os.Getpagesize(), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EAGAIN) { // mmap(2): locked memory
		return false
	}
	return err != nil || unix.Munmap(b) == nil // other errors: no mapping can be as large as the limit
}
