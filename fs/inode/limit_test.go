package inode

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRaiseDescriptors: the limit of open files is the system's where the process may raise the
// limit so far, and else the hard one.
func TestRaiseDescriptors(t *testing.T) {
	if !inChild(t) {
		return
	}
	most, err := systemDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the child ends with the capability gone
	for _, tt := range []struct {
		what    string
		mayMore bool
		want    func(hard uint64) uint64
	}{
		{"with CAP_SYS_RESOURCE", true, func(uint64) uint64 { return most }},
		{"without", false, func(hard uint64) uint64 { return hard }},
	} {
		if tt.mayMore {
			if !has(t, unix.CAP_SYS_RESOURCE) {
				continue
			}
		} else {
			drop(t, unix.CAP_SYS_RESOURCE)
		}
		const hard = 200
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: hard}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing to do
			if err := RaiseDescriptors(); err != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
				t.Fatal(err)
			}
			if want := tt.want(hard); l.Cur != want || l.Max != want {
				t.Errorf("%s: limits %d, %d; want %d", tt.what, l.Cur, l.Max, want)
			}
		}
	}
}

// capabilities of this thread, in two words.
func capabilities(t *testing.T) (h unix.CapUserHeader, d [2]unix.CapUserData) {
	t.Helper()
	h.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&h, &d[0]); err != nil {
		t.Fatal(err)
	}
	return h, d
}

func has(t *testing.T, c uint) bool {
	t.Helper()
	_, d := capabilities(t)
	return d[c/32].Effective&(1<<(c%32)) != 0
}

func drop(t *testing.T, c uint) {
	t.Helper()
	h, d := capabilities(t)
	d[c/32].Effective &^= 1 << (c % 32)
	if err := unix.Capset(&h, &d[0]); err != nil {
		t.Fatal(err)
	}
}
