package integration

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// keyWait is how long an open may take to say ENOKEY.
const keyWait = 5 * time.Second

// beforeTheOutage writes the files for the tests below.
func beforeTheOutage(d *datastore) {
	for _, name := range []string{"a.img", "b.img", "c.nvram", "d.qcow2"} {
		d.Write(name, []byte("content of "+name))
	}
	d.Write("vm.vmx", []byte("a = 1\n"))
}

// lock locks once at most open files are open: the kernel reports a close later, and an open file
// opens without a key.
func (d *datastore) lock(open int64) {
	d.T.Helper()
	mounttest.Eventually(d.T, "the last close", mounttest.Patience, func() error {
		if n := d.Status().IO.OpenFiles; n > open {
			return fmt.Errorf("%d files are open, want %d", n, open)
		}
		return nil
	})
	d.Must("lock", d.Mnt)
}

// wantNoKey checks a mount without keys: encrypted files do not open, everything without need of
// a key works, nothing is made. verified means that the seal of the settings was checked before
// the keys went away: clear files can be made then.
func wantNoKey(t *testing.T, d *datastore, verified bool) {
	t.Helper()
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_RDWR | unix.O_TRUNC} {
		within(t, "open without a key", keyWait, func() {
			if err := mounttest.OpenErr(d.Path("a.img"), flags); !errors.Is(err, unix.ENOKEY) {
				t.Errorf("open a.img (flags %#x): %v, want ENOKEY", flags, err)
			}
		})
	}
	if st, err := os.Stat(d.Path("a.img")); err != nil || st.Size() != int64(len("content of a.img")) {
		t.Errorf("stat a.img: %v, want its size", err)
	}
	for what, err := range map[string]error{
		"rename":      os.Rename(d.Path("b.img"), d.Path("b2.img")),
		"rename back": os.Rename(d.Path("b2.img"), d.Path("b.img")),
		"unlink":      os.Remove(d.Path("c.nvram")),
		"chmod":       os.Chmod(d.Path("d.qcow2"), 0o600),
		"read clear":  mounttest.OpenErr(d.Path("vm.vmx"), unix.O_RDWR),
	} {
		if err != nil {
			t.Errorf("%s without a key: %v", what, err)
		}
	}
	if _, err := os.ReadDir(d.Mnt); err != nil {
		t.Errorf("readdir: %v", err)
	}
	within(t, "create without a key", keyWait, func() {
		if err := mounttest.OpenErr(d.Path("new.img"), unix.O_CREAT|unix.O_RDWR); !errors.Is(err, unix.ENOKEY) {
			t.Errorf("create new.img: %v, want ENOKEY", err)
		}
	})
	d.Absent("new.img", "c.nvram")
	var want error
	if !verified {
		want = unix.ENOKEY
	}
	if err := mounttest.OpenErr(d.Path("new.log"), unix.O_CREAT|unix.O_RDWR); !errors.Is(err, want) {
		t.Errorf("create new.log: %v, want %v", err, want)
	}
	if !verified {
		d.Absent("new.log")
	}
	d.WantForms(map[string]string{"a.img": "encrypted", "b.img": "encrypted", "d.qcow2": "encrypted", "vm.vmx": "clear"})
}

// wantKeys checks that the same files open again.
func wantKeys(t *testing.T, d *datastore) {
	t.Helper()
	for _, name := range []string{"a.img", "b.img", "d.qcow2"} {
		wantSame(t, name, d.Read(name), []byte("content of "+name))
	}
	d.Write("after.img", []byte("made after"))
	d.verify()
}

func TestLockUnlock(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	beforeTheOutage(d)
	d.lock(0)
	wantNoKey(t, d, true)
	d.Must("unlock", d.Mnt)
	wantKeys(t, d)
}

// A mount comes up with no key server, says ENOKEY, and opens the files by itself once
// the server is back.
func TestMountWithoutKMS(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	beforeTheOutage(d)
	d.Unmount()
	s.Stop()
	within(t, "mount without a key server", 15*time.Second, d.Mount)
	wantNoKey(t, d, false)
	s.Start()
	mounttest.Eventually(t, "a.img opens", mounttest.Patience, func() error { return mounttest.OpenErr(d.Path("a.img"), unix.O_RDONLY) })
	wantKeys(t, d)
}

// The same with a server that accepts connections and never answers.
func TestMountWithHungKMS(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	beforeTheOutage(d)
	d.Unmount()
	s.Patient = false
	s.Hang()
	within(t, "mount with a hung key server", 15*time.Second, d.Mount)
	wantNoKey(t, d, false)
	s.Wake()
	mounttest.Eventually(t, "a.img opens", mounttest.Patience, func() error { return mounttest.OpenErr(d.Path("a.img"), unix.O_RDONLY) })
	wantKeys(t, d)
}

// A held key keeps everything working while the server is away; after a lock, only the server
// brings the key back.
func TestOutageWithHeldKeys(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	beforeTheOutage(d)
	s.Stop()
	wantSame(t, "a.img", d.Read("a.img"), []byte("content of a.img"))
	d.Write("during.img", []byte("made in the outage"))
	d.WantForms(map[string]string{"during.img": "encrypted"})
	d.lock(0)
	wantNoKey(t, d, true)
	if r := d.Command("unlock", d.Mnt); r.Code != 3 {
		t.Errorf("unlock with no key server: want exit 3, %v", r)
	}
	within(t, "open while the server is away", keyWait, func() {
		if err := mounttest.OpenErr(d.Path("a.img"), unix.O_RDONLY); !errors.Is(err, unix.ENOKEY) {
			t.Errorf("open a.img: %v, want ENOKEY", err)
		}
	})
	s.Start()
	mounttest.Eventually(t, "unlock", mounttest.Patience, func() error {
		if r := d.Command("unlock", d.Mnt); r.Code != 0 {
			return errors.New(r.String())
		}
		return nil
	})
	mounttest.Eventually(t, "a.img opens", mounttest.Patience, func() error { return mounttest.OpenErr(d.Path("a.img"), unix.O_RDONLY) })
	wantSame(t, "during.img", d.Read("during.img"), []byte("made in the outage"))
	wantKeys(t, d)
}
