package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/keys/coredump"
)

// TestNoKeyInCoreOfDaemon: a core of a daemon with keys and an open file contains neither half of
// the file's DEK, nor either part of the KEK; locked memory is counted.
func TestNoKeyInCoreOfDaemon(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	d.Write("disk-flat.vmdk", random(1<<20))
	d.Remount() // the DEK comes out of its header, and the KEK over the network
	f, err := os.OpenFile(d.Path("disk-flat.vmdk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for off := int64(0); off < 1<<20; off += 1 << 16 {
		b := make([]byte, 1<<16)
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	p, done, err := d.openBacking("disk-flat.vmdk")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	dek := []byte(p.dek)
	kek, err := d.kek(d.currentKEK())
	if err != nil {
		t.Fatal(err)
	}
	count := func(what []byte) int {
		t.Helper()
		n, err := coredump.Count(d.PID, what)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if count([]byte(d.Backing)) == 0 {
		t.Error("the search does not even find BACKING's path")
	}
	secrets := map[string][]byte{"KEK, first part": kek[:16], "KEK, second part": kek[16:]}
	if s := d.Status(); !strings.Contains(s.Cipher, "portable") {
		// The search is for whole halves. A vector register holds 16 bytes of a half while the
		// cipher runs, and a signal at that time saves the register on the signal's stack.
		// crypto/aes keeps the portable cipher's schedule on the heap. For both see
		// docs/security.md.
		secrets["DEK, data half"], secrets["DEK, tweak half"] = dek[:32], dek[32:]
	}
	for what, key := range secrets {
		if n := count(key); n != 0 {
			t.Errorf("%s is in %d places that a core file would hold", what, n)
		}
	}
	wantHardened(t, d.PID)
}

// wantHardened checks that the daemon cannot be made to dump core and has its resident memory
// locked (VmLck).
func wantHardened(t *testing.T, pid int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("RLIMIT_CORE of the daemon is %d/%d, want 0", limit.Cur, limit.Max)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmLck:")
	var locked int
	if _, err := fmt.Sscan(after, &locked); err != nil || locked == 0 {
		t.Errorf("VmLck is %d kB (%v), want more", locked, err)
	}
}
