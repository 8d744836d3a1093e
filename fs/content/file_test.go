package content

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

var both = Intent{Read: true, Write: true}

// osFile makes a file with content.
func osFile(t *testing.T, content string) *cryptfile.OSFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return cryptfile.NewOSFile(fd)
}

// TestHolders: the first and the last holder, and the last writer, come and go with the lock held
// exclusively; all others come and go beside one another.
func TestHolders(t *testing.T) {
	f := OpenClear(osFile(t, "x"), backing.Clear, both)
	defer f.Close()
	if f.Share(false) {
		t.Error("a file that nobody holds has got a holder without the lock")
	}
	f.Join(true)
	if f.Quit(true) || f.Quit(false) {
		t.Error("the last holder went without the lock")
	}
	if !f.Share(false) || !f.HasWriters() {
		t.Error("a second holder is refused")
	}
	if f.Quit(true) {
		t.Error("the last writer went without the lock")
	}
	if f.Leave(true) || f.HasWriters() {
		t.Error("the writer was the last holder, or is there yet")
	}
	if !f.Lessens() {
		t.Error("a descriptor that writes is kept with no writer")
	}
	if !f.Leave(false) {
		t.Error("the last holder is not the last")
	}
}

// TestHoldersInParallel: as many holders go as come.
func TestHoldersInParallel(t *testing.T) {
	f := OpenClear(osFile(t, "x"), backing.Clear, both)
	defer f.Close()
	f.Join(true)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 2000 {
				if !f.Share(i%2 == 0) || !f.Quit(i%2 == 0) {
					t.Error("a holder is refused, or was the last")
					return
				}
			}
		})
	}
	all.Wait()
	if !f.Leave(true) || f.HasWriters() {
		t.Error("holders are left")
	}
}

// TestInherit: the file in another's place has the other's holders, direct handles, and lost writes
// of which some holder was not told.
func TestInherit(t *testing.T) {
	old, now := OpenClear(osFile(t, "x"), backing.Clear, both), OpenClear(osFile(t, "x"), backing.Descriptor, both)
	old.Join(true)
	old.Join(false)
	old.WantDirect(2)
	old.InheritUnheard(&cryptfile.SyncFailure{Err: unix.EIO})
	now.Inherit(old)
	if failure := now.SyncFailure(); failure == nil || failure.Err != unix.EIO {
		t.Errorf("sync failure %v", failure)
	}
	if now.DirectHandles() != 2 || !now.HasWriters() || now.Leave(true) || !now.Leave(false) {
		t.Error("the holders are others")
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	if err := now.Close(); err != nil {
		t.Error(err)
	}
}

// TestServes: the intents served by an open file, as opened and with another descriptor.
func TestServes(t *testing.T) {
	for _, tt := range []struct {
		form backing.Form
		can  Intent
		want Intent
		does bool
	}{
		{backing.Clear, both, both, true},
		{backing.Encrypted, both, both, true},
		{backing.Clear, Intent{Read: true}, both, false}, // by another descriptor
		{backing.Plain, both, Intent{Read: true}, true},
		{backing.Plain, both, both, false},
		{backing.Empty, both, Intent{Write: true}, false},
		{backing.Clear, Intent{Read: true, Write: true, Append: true}, Intent{Write: true}, false},
		{backing.Clear, Intent{Read: true, Write: true, Append: true}, Intent{Write: true, Append: true}, true},
	} {
		f := OpenClear(osFile(t, "x"), tt.form, tt.can)
		if got := f.Serves(tt.want); got != tt.does {
			t.Errorf("%v that can %+v serves %+v: %v", tt.form, tt.can, tt.want, got)
		}
		f.Close()
	}
}

// TestCopyFrom: the kernel copies bytes from file to file, and none to where a magic would stand.
func TestCopyFrom(t *testing.T) {
	from, to := OpenClear(osFile(t, "0123456789abcdef"), backing.Clear, both), OpenClear(osFile(t, "................"), backing.Clear, both)
	defer from.Close()
	defer to.Close()
	if n, err := to.CopyFrom(from, 0, 4, 8); n != 0 || err != unix.EXDEV {
		t.Errorf("to the beginning: %d, %v", n, err)
	}
	if n, err := to.CopyFrom(from, 2, 8, 4); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p := make([]byte, 16)
	if _, err := to.ReadAt(p, 0); err != nil || string(p) != "........2345...." {
		t.Errorf("%q, %v", p, err)
	}
}

// TestHeal: a file whose header slots differ serves readers, and writers after it is healed.
func TestHeal(t *testing.T) {
	s := newSealed(t)
	b := s.backing(t, 0)
	if _, err := b.WriteAt([]byte("torn"), layout.SlotA.Offset()+30, cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	f := s.open(t, b)
	if !f.Serves(Intent{Read: true}) || f.Serves(both) || !f.Adaptable(both) {
		t.Error("a torn file serves writers, or no readers")
	}
	if !s.slots(t).Differ {
		t.Fatal("the slots are the same: nothing is tested")
	}
	for range 2 { // the second time there is nothing to do
		if err := f.Heal(); err != nil || s.slots(t).Differ || !f.Serves(both) {
			t.Errorf("healed: %v; slots differ: %t", err, s.slots(t).Differ)
		}
	}
}

// TestHealOfAnother: a header that is not the file's own any more is left as it is.
func TestHealOfAnother(t *testing.T) {
	s, other := newSealed(t), newSealed(t)
	b := s.backing(t, 0)
	if _, err := b.WriteAt([]byte("torn"), layout.SlotA.Offset()+30, cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	f := s.open(t, b)
	slot := other.slots(t).Header.AppendSlot(nil)
	if _, err := b.WriteAt(slot, layout.SlotB.Offset(), cryptfile.Volatile); err != nil {
		t.Fatal(err)
	}
	if err := f.Heal(); !errors.Is(err, keys.ErrTampered) || !s.slots(t).Differ || f.Serves(both) {
		t.Errorf("healed by another file's header: %v", err)
	}
}

// TestExchange: the file goes on by the other descriptor, and does what that one can.
func TestExchange(t *testing.T) {
	s := newSealed(t)
	clearFile := osFile(t, "x")
	for what, f := range map[string]*File{
		"clear":     OpenClear(clearFile, backing.Clear, both),
		"encrypted": s.open(t, s.backing(t, 0)),
	} {
		if _, err := f.WriteAt([]byte("yes"), 0, cryptfile.Volatile); err != nil {
			t.Fatal(err)
		}
		f.Join(true)
		if f.Lessens() {
			t.Errorf("%s: a descriptor that only reads is enough for a writer", what)
		}
		f.Join(false)
		f.Leave(true)
		if !f.Lessens() {
			t.Errorf("%s: a descriptor that writes is kept for readers", what)
		}
		old := f.carrier.Fd()
		fd, err := backing.Reopen(old, unix.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		read := Intent{Read: true}
		if err := f.Exchange(fd, read); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if f.carrier.Fd() != fd || f.Can != read || f.Serves(both) || f.Lessens() {
			t.Errorf("%s: descriptor %d, can %+v", what, f.carrier.Fd(), f.Can)
		}
		if _, err := unix.FcntlInt(uintptr(old), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: the old descriptor is open: %v", what, err)
		}
		p := make([]byte, 3)
		if _, err := f.ReadAt(p, 0); err != nil || string(p) != "yes" {
			t.Errorf("%s: %q, %v", what, p, err)
		}
		if _, err := f.WriteAt([]byte("no"), 0, cryptfile.Volatile); !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: write: %v", what, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
