package integration

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestUnencrypted serves a directory of files older than the datastore: the mount option decides,
// but never about a file that still holds a header.
func TestUnencrypted(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct{ read, write error }{
		"deny":  {unix.EACCES, unix.EACCES},
		"read":  {nil, unix.EACCES},
		"write": {nil, nil},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := mounttest.StartKMS(t)
			d := newServed(t, s, "--unencrypted="+mode)
			d.Write("reference.img", plainText)
			id, kek := d.currentKey("reference.img")
			wiped := newForgery("dev", id, kek).file(plainText)
			clear(wiped[:slotSize])
			for name, content := range map[string][]byte{"old.img": plainText, "old.vmdk": plainText, "wiped.img": wiped} {
				if err := os.WriteFile(d.Below(name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"old.img", "old.vmdk"} {
				if err := mounttest.OpenErr(d.Path(name), unix.O_RDONLY); !errors.Is(err, want.read) {
					t.Errorf("open %s to read: %v, want %v", name, err, want.read)
				}
				if err := mounttest.OpenErr(d.Path(name), unix.O_RDWR); !errors.Is(err, want.write) {
					t.Errorf("open %s to write: %v, want %v", name, err, want.write)
				}
			}
			for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
				if err := mounttest.OpenErr(d.Path("wiped.img"), flags); !errors.Is(err, unix.EACCES) {
					t.Errorf("open a file whose slot B is well-formed: %v, want EACCES", err)
				}
			}
			if want.read == nil {
				wantSame(t, "old.img", d.Read("old.img"), plainText)
			}
			if want.write == nil {
				if err := pwriteFile(d.Path("old.img"), "new", 3); err != nil {
					t.Error(err)
				}
				raw, err := os.ReadFile(d.Below("old.img"))
				if err != nil || !bytes.Contains(raw, []byte("planewext")) {
					t.Errorf("a write to a served clear file is not in BACKING (%v)", err)
				}
			}
			if denied := d.Status().IO.Denied; denied == 0 {
				t.Error("status counts nothing denied")
			}
		})
	}
}

// An empty backing file has no form: the first open for writing gives the file the form of its
// class, and the inode number stays.
func TestEmptyBackingFiles(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	for name, form := range map[string]string{"a.img": "encrypted", "b.log": "clear", "c.vmdk": "encrypted", "d": "encrypted"} {
		if err := os.WriteFile(d.Below(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := mounttest.OpenErr(d.Path(name), unix.O_RDONLY); err != nil {
			t.Errorf("open empty %s to read: %v", name, err)
		}
		d.WantForms(map[string]string{name: "empty"})
		// The number lasts as long as the kernel remembers the file: in this test, throughout.
		known, err := unix.Open(d.Path(name), unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		ino := inode(t, d.Path(name))
		if err := pwriteFile(d.Path(name), "some text", 0); err != nil {
			t.Fatal(err)
		}
		d.WantForms(map[string]string{name: form})
		if got := inode(t, d.Path(name)); got != ino {
			t.Errorf("%s: inode number %d after its first write, want %d", name, got, ino)
		}
		if err := unix.Close(known); err != nil {
			t.Fatal(err)
		}
		wantSame(t, name, d.Read(name), []byte("some text"))
	}
	d.verify()
}

// One BACKING is mounted once, a busy mount stays, and an unmount without a mount says so.
func TestMountsAreExclusive(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	second := newUnmounted(t, d.KMS)
	second.Backing = d.Backing
	if r := second.TryMount(); r.Code != 6 {
		t.Errorf("second mount of one BACKING: want exit 6, %v", r)
	}
	if r := second.Command("umount", second.Mnt); r.Code != 5 {
		t.Errorf("umount of what is not mounted: want exit 5, %v", r)
	}
	f, err := os.Create(d.Path("held.img"))
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Command("umount", d.Mnt); r.Code != 6 {
		t.Errorf("umount with an open file: want exit 6, %v", r)
	}
	if _, err := f.Write(plainText); err != nil {
		t.Errorf("write after a refused umount: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	d.Unmount()
	if line := mountLine(t, d.Mnt); line != "" {
		t.Errorf("still mounted: %s", line)
	}
}
