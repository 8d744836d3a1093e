package fs

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// TestUnencryptedPolicy: cleartext under a name that is encrypted.
func TestUnencryptedPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy      Unencrypted
		read, write unix.Errno
	}{
		{Deny, unix.EACCES, unix.EACCES},
		{Read, 0, unix.EACCES},
		{Write, 0, 0},
	} {
		r := newRig(t, func(_ *layout.Settings, c *Config) { c.Unencrypted = tt.policy })
		r.plant("a.qcow2", "planted")
		r.plant("b.vmdk", "no descriptor")
		r.plant("c.vmdk", descriptor)
		for _, name := range []string{"a.qcow2", "b.vmdk"} {
			_, err := os.ReadFile(r.path(name))
			wantErrno(t, "read "+name, err, tt.read)
			f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
			wantErrno(t, "open for writing "+name, err, tt.write)
			if err == nil {
				if _, err := f.WriteAt([]byte("P"), 0); err != nil {
					t.Error(err)
				}
				f.Close()
				r.wantForm(name, "clear")
			}
			wantErrno(t, "truncate "+name, os.Truncate(r.path(name), 3), tt.write)
		}
		r.wantRead("c.vmdk", descriptor)
		if got := r.fs.Stats().Denied; tt.policy == Deny && got != 6 || tt.policy == Write && got != 0 {
			t.Errorf("policy %d: %d refusals counted", tt.policy, got)
		}
	}
}

// TestWipedMagic: a file whose first header was wiped is served as cleartext by no policy.
func TestWipedMagic(t *testing.T) {
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Unencrypted = Write })
	r.write("a", "secret")
	r.idle()
	f, err := os.OpenFile(r.under("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	_, err = os.ReadFile(r.path("a"))
	wantErrno(t, "open", err, unix.EACCES)
}

func TestDamage(t *testing.T) {
	r := newRig(t, nil)
	r.plant("short.log", layout.Magic+"too short")
	r.plant("short", layout.Magic)
	r.write("flipped", "secret")
	r.write("length", "secret")
	r.idle()
	flip(t, r.under("flipped"), 30)
	flip(t, r.under("flipped"), layout.SlotBOffset+30)
	for _, name := range []string{"short.log", "short", "flipped"} {
		_, err := os.ReadFile(r.path(name))
		wantErrno(t, name, err, unix.EIO)
		wantErrno(t, "rename of "+name, os.Rename(r.path(name), r.path(name+"2")), 0)
	}
	if got := r.fs.Stats().Damaged; got != 3 {
		t.Errorf("%d damaged files counted, want 3", got)
	}
	r.idle()
	if err := os.Truncate(r.under("length"), layout.DataOffset+300); err != nil {
		t.Fatal(err)
	}
	r.wantRead("length", "")
}

// TestHeal: a torn slot is repaired by an open for writing, and by no other.
func TestHeal(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", "secret")
	r.idle()
	flip(t, r.under("a"), 30)
	slots := func() (a, b string) {
		raw, err := os.ReadFile(r.under("a"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw[:4096]), string(raw[layout.SlotBOffset:][:4096])
	}
	r.wantRead("a", "secret")
	r.idle()
	if a, b := slots(); a == b {
		t.Error("an open for reading wrote to the header")
	}
	f, err := os.OpenFile(r.path("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if a, b := slots(); a != b {
		t.Error("an open for writing left the slots different")
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestMagicGuard: a cleartext file cannot be made to look encrypted, however the first bytes
// arrive.
func TestMagicGuard(t *testing.T) {
	write := func(pieces ...string) func(*rig, *os.File) error {
		return func(_ *rig, f *os.File) error {
			var err error
			for i := len(pieces) - 1; i >= 0; i-- { // the first piece comes last
				off := int64(len(strings.Join(pieces[:i], "")))
				if _, err = f.WriteAt([]byte(pieces[i]), off); err != nil && i > 0 {
					return nil // refused too early: the test would prove nothing
				}
			}
			return err
		}
	}
	for name, attempt := range map[string]func(*rig, *os.File) error{
		"at once":         write(layout.Magic),
		"with more":       write(layout.Magic + "more"),
		"in two pieces":   write(layout.Magic[:3], layout.Magic[3:]),
		"byte by byte":    write(strings.Split(layout.Magic, "")...),
		"copy_file_range": copyMagic(0),
		"copied tail":     copyMagic(5),
		"appended": func(_ *rig, f *os.File) error {
			if _, err := f.WriteString(layout.Magic[:7]); err != nil {
				return nil
			}
			_, err := f.WriteString(layout.Magic[7:])
			return err
		},
		"mapped": func(_ *rig, f *os.File) error {
			if err := f.Truncate(4096); err != nil {
				return nil
			}
			m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return nil
			}
			defer unix.Munmap(m)
			if err := copyMapped(m, []byte(layout.Magic)); err != nil {
				return nil
			}
			return unix.Msync(m, unix.MS_SYNC)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			f, err := os.Create(r.path("a.log"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			wantErrno(t, "the write that completes the magic", attempt(r, f), unix.EPERM)
			raw, err := os.ReadFile(r.under("a.log"))
			if err != nil || layout.HasMagic(raw) {
				t.Errorf("BACKING begins with the magic (%v)", err)
			}
		})
	}
	t.Run("elsewhere", func(t *testing.T) {
		r := newRig(t, nil)
		r.write("a.log", " "+layout.Magic)
		r.write("b", layout.Magic)
		r.wantRead("b", layout.Magic)
		r.wantForm("b", "encrypted")
	})
}

// copyMagic copies the magic from an encrypted file, whose content may be anything. The first so
// many bytes are written.
func copyMagic(written int) func(*rig, *os.File) error {
	return func(r *rig, f *os.File) error {
		r.write("magic", layout.Magic)
		src, err := os.Open(r.path("magic"))
		if err != nil {
			return nil
		}
		defer src.Close()
		if _, err := f.WriteAt([]byte(layout.Magic[:written]), 0); err != nil {
			return nil
		}
		off := int64(written)
		at := off
		_, err = unix.CopyFileRange(int(src.Fd()), &off, int(f.Fd()), &at, len(layout.Magic)-written, 0)
		return err
	}
}

// TestEmptyBackingFile: a file without a form gets that of its class at the first open for writing,
// and not before.
func TestEmptyBackingFile(t *testing.T) {
	r := newRig(t, nil)
	for name, want := range map[string]string{"a.qcow2": "encrypted", "b.log": "clear", "c.vmdk": "encrypted"} {
		r.plant(name, "")
		reader, err := os.Open(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		r.wantForm(name, "empty")
		f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("content"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(reader); err != nil || string(got) != "content" {
			t.Errorf("%s through an older handle: %q, %v", name, got, err)
		}
		f.Close()
		r.wantForm(name, want)
		r.wantRead(name, "content")
	}
	r.plant("d", "")
	if err := os.Truncate(r.path("d"), 12345); err != nil {
		t.Fatal(err)
	}
	r.wantForm("d", "encrypted")
	r.plant("e", "")
	if err := os.Link(r.under("e"), r.state+"-outside"); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "form for a name outside", os.WriteFile(r.path("e"), []byte("x"), 0), unix.EACCES)
}

func TestReservedNames(t *testing.T) {
	r := newRig(t, nil)
	r.plant(".vmcryptfs-0123-temp", "x")
	for what, err := range map[string]error{
		"create":  os.WriteFile(r.path(".vmcryptfs"), nil, 0o644),
		"mkdir":   os.Mkdir(r.path(".vmcryptfs-dir"), 0o755),
		"symlink": os.Symlink("x", r.path(".vmcryptfs2")),
		"mknod":   unix.Mknod(r.path(".vmcryptfs3"), unix.S_IFIFO|0o644, 0),
	} {
		if what == "create" { // it is there, and so not to be found before it is not to be made
			wantErrno(t, what, err, unix.EPERM)
			continue
		}
		wantErrno(t, what, err, unix.EPERM)
	}
	_, err := os.Stat(r.path(".vmcryptfs"))
	wantErrno(t, "stat", err, unix.ENOENT)
	wantErrno(t, "unlink", os.Remove(r.path(".vmcryptfs-0123-temp")), unix.ENOENT)
	entries, err := os.ReadDir(r.mnt)
	if err != nil || len(entries) > 0 {
		t.Errorf("readdir shows %v, %v", entries, err)
	}
}

// TestHeaderIsNeverClear: no policy serves what holds a header as cleartext, be the file too short
// for one, or written over by other hands while it is open.
func TestHeaderIsNeverClear(t *testing.T) {
	for _, policy := range []Unencrypted{Read, Write} {
		r := newRig(t, func(_ *layout.Settings, c *Config) { c.Unencrypted = policy })
		r.write("disk.img", "content")
		encrypted, err := os.ReadFile(r.under("disk.img"))
		if err != nil {
			t.Fatal(err)
		}
		short := bytes.Clone(encrypted[:layout.DataOffset-1])
		clear(short[:len(layout.Magic)])
		r.plant("short.img", string(short))
		_, err = os.Open(r.path("short.img"))
		wantErrno(t, "open of a cut-off file with a whole slot B", err, unix.EACCES)
		r.write("x.log", "line\n")
		r.open("x.log", os.O_RDWR)
		if err := os.WriteFile(r.under("x.log"), encrypted, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(r.under("x.log"), r.under("x.vmem")); err != nil {
			t.Fatal(err)
		}
		_, err = os.Open(r.path("x.vmem"))
		wantErrno(t, "open in clear of what is encrypted by now", err, unix.EACCES)
	}
}

// TestUnknownNode: an id that no node has is stale.
func TestUnknownNode(t *testing.T) {
	r := newRig(t, nil)
	in := fuse.InHeader{NodeId: 1 << 40}
	for what, got := range map[string]fuse.Status{
		"mkdir":   raw{r.fs}.Mkdir(nil, &fuse.MkdirIn{InHeader: in}, "a", &fuse.EntryOut{}),
		"lookup":  raw{r.fs}.Lookup(nil, &in, "a", &fuse.EntryOut{}),
		"unlink":  raw{r.fs}.Unlink(nil, &in, "a"),
		"tmpfile": raw{r.fs}.Tmpfile(nil, &fuse.CreateIn{InHeader: in}, &fuse.CreateOut{}),
		"opendir": raw{r.fs}.OpenDir(nil, &fuse.OpenIn{InHeader: in}, &fuse.OpenOut{}),
		"rename":  raw{r.fs}.Rename(nil, &fuse.RenameIn{InHeader: in}, "a", "b"),
	} {
		if got != fuse.Status(unix.ESTALE) {
			t.Errorf("%s: %v", what, got)
		}
	}
}
