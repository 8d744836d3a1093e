package fs

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// secret is content that is no descriptor.
var secret = strings.Repeat("guest data \x01\x02\x03 ", 40)

func TestBindDescriptorOnClose(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", descriptor)
	r.wantForm("a.vmdk", "clear")
	r.wantRead("a.vmdk", descriptor)
	if got, err := os.ReadFile(r.under("a.vmdk")); err != nil || string(got) != descriptor {
		t.Errorf("BACKING holds %q, %v", got, err)
	}
	if c := r.fs.Stats().Conversions; c != 1 {
		t.Errorf("%d conversions, want 1", c)
	}
}

// TestBindTriesAgain: a descriptor that could not be converted turns clear at its next close, with
// no other write. Until then the failure is logged once.
func TestBindTriesAgain(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := os.Mkdir(r.path("vm"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(r.path("vm/a.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(descriptor); err != nil {
		t.Fatal(err)
	}
	mutable := immutable(t, r.under("vm")) // no temporary for the other form
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.wantRead("vm/a.vmdk", descriptor)
	r.idle()
	r.wantForm("vm/a.vmdk", "encrypted")
	if got := strings.Count(log.String(), "stays encrypted"); got != 1 {
		t.Errorf("logged %d times that it stays encrypted:\n%s", got, log.String())
	}
	mutable()
	r.wantRead("vm/a.vmdk", descriptor)
	r.wantForm("vm/a.vmdk", "clear")
}

func TestNoDescriptorStaysEncrypted(t *testing.T) {
	r := newRig(t, nil)
	for name, text := range map[string]string{
		"sparse.vmdk":  "KDMV" + secret,
		"empty.vmdk":   "",
		"long.vmdk":    descriptor + strings.Repeat("#\n", layout.MaxDescriptor/2),
		"nul.vmdk":     descriptor + "\x00x",
		"other.vmdk.1": descriptor, // no inspect name
	} {
		r.write(name, text)
		r.wantForm(name, "encrypted")
		r.wantRead(name, text)
	}
}

// TestDescriptorGrows: a descriptor, clear by fsync with two handles open, gets disk content
// through one of the handles; no disk content ever lies in BACKING, and both handles and the inode
// number carry on.
func TestDescriptorGrows(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.Create(r.path("a.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(descriptor); err != nil {
		t.Fatal(err)
	}
	before, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "clear")

	g := r.open("a.vmdk", os.O_RDWR)
	if _, err := g.WriteAt([]byte(secret), int64(len(descriptor))); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "encrypted") // written before the answer, so no sync is needed
	for _, h := range []*os.File{f, g} {
		got := make([]byte, len(descriptor)+len(secret))
		if _, err := h.ReadAt(got, 0); err != nil || string(got) != descriptor+secret {
			t.Errorf("through an open handle: %.40q…, %v", got, err)
		}
		after, err := h.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(before, after) {
			t.Error("the inode number shown has changed")
		}
	}
	r.wantRead("a.vmdk", descriptor+secret)
	if raw, err := os.ReadFile(r.under("a.vmdk")); err != nil || bytes.Contains(raw, []byte("guest data")) {
		t.Errorf("guest data in BACKING (%v)", err)
	}
	// And back: the added bytes go away again.
	if err := g.Truncate(int64(len(descriptor))); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "clear")
	r.wantRead("a.vmdk", descriptor)
}

func TestEveryChangeOfDescriptorIsJudged(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(f *os.File) error
		form   string
	}{
		"edit":           {func(f *os.File) error { _, err := f.WriteAt([]byte("2"), 30); return err }, "clear"},
		"append text":    {func(f *os.File) error { _, err := f.WriteAt([]byte("# x\n"), int64(len(descriptor))); return err }, "clear"},
		"control":        {func(f *os.File) error { _, err := f.WriteAt([]byte{1}, 40); return err }, "encrypted"},
		"far write":      {func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 1<<20); return err }, "encrypted"},
		"truncate to 0":  {func(f *os.File) error { return f.Truncate(0) }, "encrypted"},
		"cut first line": {func(f *os.File) error { return f.Truncate(5) }, "encrypted"},
		"cut":            {func(f *os.File) error { return f.Truncate(60) }, "clear"},
		"pad":            {func(f *os.File) error { return f.Truncate(4096) }, "clear"},
		"grow":           {func(f *os.File) error { return f.Truncate(layout.MaxDescriptor + 1) }, "encrypted"},
		"punch": {func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 8)
		}, "encrypted"},
		"allocate": {func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, 100<<10) }, "encrypted"},
		"keep size": {func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 100<<10)
		}, "clear"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.write("a.vmdk", descriptor)
			plain := t.TempDir() + "/plain"
			if err := os.WriteFile(plain, []byte(descriptor), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{r.path("a.vmdk"), plain} {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := tt.change(f); err != nil {
					t.Errorf("%s: %v", path, err)
				}
				if path != plain {
					r.wantForm("a.vmdk", tt.form)
				}
				f.Close()
			}
			want, err := os.ReadFile(plain)
			if err != nil {
				t.Fatal(err)
			}
			r.wantRead("a.vmdk", string(want))
		})
	}
}

// TestLinkedDescriptor: a file of two names keeps its form. A cleartext descriptor with a name
// outside of BACKING refuses writes that would make something else of the text.
func TestLinkedDescriptor(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.Create(r.path("a.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Link(r.path("a.vmdk"), r.path("b.vmdk")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(descriptor); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r.wantForm("b.vmdk", "encrypted")

	r.write("c.vmdk", descriptor)
	if err := os.Link(r.path("c.vmdk"), r.path("d.vmdk")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(r.under("c.vmdk"), r.state+"-outside"); err != nil {
		t.Fatal(err)
	}
	g, err := os.OpenFile(r.path("d.vmdk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	_, err = g.WriteString(secret)
	wantErrno(t, "write of disk content to a cleartext file with a name outside", err, unix.EACCES)
	r.wantRead("c.vmdk", descriptor)
	if _, err := g.WriteAt([]byte("9"), 30); err != nil {
		t.Errorf("a change that keeps it a descriptor: %v", err)
	}
	// When the link goes, the file binds as any other.
	if err := os.Remove(r.path("b.vmdk")); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "clear")
}

// TestConversionKeepsAttributes: owner, mode, times and extended attributes are those from before.
func TestConversionKeepsAttributes(t *testing.T) {
	r := newRig(t, nil)
	path := r.path("a.vmdk")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(descriptor); err != nil {
		t.Fatal(err)
	}
	times := []unix.Timespec{{Sec: 1e9, Nsec: 5}, {Sec: 1.1e9, Nsec: 7}}
	for what, err := range map[string]error{
		"chown":    unix.Chown(path, 12, 34),
		"chmod":    unix.Chmod(path, unix.S_ISUID|0o751),
		"setxattr": unix.Setxattr(path, "user.note", []byte("kept"), 0),
		"utimens":  unix.UtimesNano(path, times),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	unix.Chmod(path, unix.S_ISUID|0o751)
	if err := unix.UtimesNano(path, times); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "clear")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 12 || st.Gid != 34 || st.Mode != unix.S_IFREG|unix.S_ISUID|0o751 || st.Mtim != times[1] {
		t.Errorf("uid %d gid %d mode %o mtime %v", st.Uid, st.Gid, st.Mode, st.Mtim)
	}
	value := make([]byte, 16)
	n, err := unix.Getxattr(path, "user.note", value)
	if err != nil || string(value[:n]) != "kept" {
		t.Errorf("attribute: %q, %v", value[:max(n, 0)], err)
	}
}

// TestRemovedDescriptorIsEncrypted: an open file without a name is no exception.
func TestRemovedDescriptorIsEncrypted(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", descriptor)
	f := r.open("a.vmdk", os.O_RDWR)
	if err := os.Remove(r.path("a.vmdk")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(secret), 0); err != nil {
		t.Fatal(err)
	}
	if n := r.fs.Stats().OpenEncrypted; n != 1 {
		t.Errorf("%d encrypted files open, want the removed one", n)
	}
	got := make([]byte, len(secret))
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != secret {
		t.Errorf("%.40q, %v", got, err)
	}
}

func TestOverlayAndFriends(t *testing.T) {
	const most = layout.MaxDescriptor + 1
	for name, tt := range map[string]struct {
		got  []byte
		want string
		size int
	}{
		"inside":       {overlay([]byte("abcdef"), []byte("XY"), 2), "abXYef", 6},
		"past end":     {overlay([]byte("abc"), []byte("XY"), 5), "abc\x00\x00XY", 7},
		"at the most":  {overlay(nil, []byte("XY"), layout.MaxDescriptor), "", most},
		"far past":     {overlay([]byte("abc"), []byte("XY"), 1<<40), "", most},
		"cut":          {resize([]byte("abcdef"), 2), "ab", 2},
		"grow":         {resize([]byte("ab"), 4), "ab\x00\x00", 4},
		"grow far":     {resize([]byte("ab"), 1<<40), "", most},
		"zero":         {zeroed([]byte("abcdef"), 1, 2, false), "a\x00\x00def", 6},
		"zero to end":  {zeroed([]byte("abc"), 1, 100, false), "a\x00\x00", 3},
		"zero grows":   {zeroed([]byte("abc"), 2, 3, true), "ab\x00\x00\x00", 5},
		"zero outside": {zeroed([]byte("abc"), 10, 3, false), "abc", 3},
	} {
		if len(tt.got) != tt.size || tt.want != "" && string(tt.got) != tt.want {
			t.Errorf("%s: %.20q of %d bytes, want %q of %d", name, tt.got, len(tt.got), tt.want, tt.size)
		}
	}
}
