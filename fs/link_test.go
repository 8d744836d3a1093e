package fs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

// wantLinks checks that names are one file of the mount and of BACKING, in a form, with a
// text; also after a remount.
func (r *rig) wantLinks(form, text string, names ...string) {
	r.t.Helper()
	for range 2 {
		for _, name := range names {
			r.wantForm(name, form)
			r.wantRead(name, text)
			r.idle() // while a name in clear is open, a stricter name found later does not open
			for _, at := range []func(string) string{r.path, r.under} {
				var first, st unix.Stat_t
				if err := unix.Stat(at(names[0]), &first); err != nil {
					r.t.Fatal(err)
				}
				if err := unix.Stat(at(name), &st); err != nil {
					r.t.Fatal(err)
				}
				if st.Ino != first.Ino || st.Nlink != uint64(len(names)) {
					r.t.Errorf("%s: inode %d of %d links, want %d of %d", at(name), st.Ino, st.Nlink, first.Ino, len(names))
				}
			}
		}
		r.remount()
	}
}

// TestLinkAcrossClasses: the strictest of several names decides the form.
func TestLinkAcrossClasses(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxConvert/16) + "x"
	for _, tt := range []struct {
		text  string
		names []string // the first is made; each other one is a link to the one before
		form  string
		errno unix.Errno // of the last link
	}{
		{"text", []string{"a.log", "b.log"}, "clear", 0},
		{"text", []string{"a.log", "x"}, "encrypted", 0},
		{"text", []string{"a.log", "x.vswp", "b.log"}, "encrypted", 0},
		{"text", []string{"x", "a.log"}, "encrypted", 0}, // dotlockfile's
		{"text", []string{"x", "a.vmdk"}, "encrypted", 0},
		{"text", []string{"x", "y.vswp"}, "encrypted", 0},
		{"text", []string{"a.log", "a.vmdk"}, "encrypted", 0},
		{descriptor, []string{"a.log", "a.vmdk"}, "clear", 0},
		{descriptor, []string{"a.vmdk", "a.log", "x"}, "encrypted", 0},
		{"text", []string{"a.log", "b.log", "c.log", "x"}, "encrypted", 0}, // at all names
		{"", []string{"a.log", "b.log", "x"}, "empty", 0},
		{long, []string{"x", "a.log"}, "encrypted", 0},
		{long[:maxConvert], []string{"a.log", "x"}, "encrypted", 0},
		{long, []string{"a.log", "x"}, "clear", unix.EXDEV}, // neither can hold
	} {
		t.Run(fmt.Sprintf("%q %d bytes", tt.names, len(tt.text)), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.write(tt.names[0], tt.text)
			r.idle()
			last := len(tt.names) - 1
			for i, name := range tt.names[1:] {
				want := unix.Errno(0)
				if i+1 == last {
					want = tt.errno
				}
				wantErrno(t, "link to "+name, os.Link(r.path(tt.names[i]), r.path(name)), want)
			}
			if tt.errno != 0 {
				tt.names = tt.names[:last]
			}
			r.wantLinks(tt.form, tt.text, tt.names...)
			r.wantEntries(tt.names...)
		})
	}
}

// wantEntries checks that BACKING has those names and no temporaries.
func (r *rig) wantEntries(names ...string) {
	r.t.Helper()
	entries, err := os.ReadDir(r.backing)
	if err != nil {
		r.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Name() != ".vmcryptfs" {
			got = append(got, e.Name())
		}
	}
	slices.Sort(got)
	want := slices.Sorted(slices.Values(names))
	if !slices.Equal(got, want) {
		r.t.Errorf("BACKING has %q, want %q", got, want)
	}
}

// TestLinkRefused: a refused link leaves the file as it was.
func TestLinkRefused(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "text")
	r.write("b", "text")
	wantErrno(t, "reserved", os.Link(r.path("b"), r.path(".vmcryptfs-1")), unix.EPERM)
	wantErrno(t, "taken", os.Link(r.path("a.log"), r.path("b")), unix.EEXIST)
	r.wantForm("a.log", "clear")
	r.dropKeys()
	r.kms.down.Store(true)
	wantErrno(t, "to be encrypted, without a key", os.Link(r.path("a.log"), r.path("x")), unix.ENOKEY)
	wantErrno(t, "encrypted already", os.Link(r.path("b"), r.path("b.log")), 0)
	r.wantForm("a.log", "clear")
	r.wantEntries("a.log", "b", "b.log")
}

// TestLinkOpen: an open file goes on in its new form after a link, at every name.
func TestLinkOpen(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "first")
	wantErrno(t, "link", os.Link(r.path("a.log"), r.path("b.log")), 0)
	f := r.open("a.log", os.O_RDWR)
	wantErrno(t, "link", os.Link(r.path("b.log"), r.path("x")), 0)
	if _, err := f.WriteAt([]byte(secret), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.idle()
	r.wantLinks("encrypted", secret, "a.log", "b.log", "x")
	if err := os.Remove(r.path("x")); err != nil { // the strict name goes, the form stays
		t.Fatal(err)
	}
	r.wantLinks("encrypted", secret, "a.log", "b.log")
}

// TestLinkWhileWritten: a log of two names is written while it gets a name that is encrypted.
// Whichever comes first, the log does not lie in BACKING in clear once the name is there, and
// nothing is lost.
func TestLinkWhileWritten(t *testing.T) {
	r := newRig(t, nil)
	for i := range 20 {
		names := []string{fmt.Sprint(i, ".log"), fmt.Sprint(i, ".xml"), fmt.Sprint(i, ".vmem")}
		f, err := os.Create(r.path(names[0]))
		if err != nil {
			t.Fatal(err)
		}
		wantErrno(t, "link", os.Link(r.path(names[0]), r.path(names[1])), 0)
		var writing sync.WaitGroup
		writing.Go(func() {
			if _, err := f.WriteString(guest); err != nil {
				t.Error(err)
			}
		})
		opened := make(chan error, 1)
		go func() { // the open may judge the log by its old names while the new one is made
			g, err := os.OpenFile(r.path(names[1]), os.O_RDWR, 0)
			if err == nil {
				err = g.Close()
			}
			opened <- err
		}()
		wantErrno(t, "link", os.Link(r.path(names[i%2]), r.path(names[2])), 0)
		writing.Wait()
		if err := errors.Join(<-opened, f.Close()); err != nil {
			t.Error(err)
		}
		for _, name := range names {
			r.wantForm(name, "encrypted")
			r.wantNoLeak(name)
			r.wantRead(name, guest)
		}
	}
}

// TestLinkEmptyOpening: an open for writing has judged an empty file by a clear name, and begins
// anew when the file gets a name that is encrypted.
func TestLinkEmptyOpening(t *testing.T) {
	r := newRig(t, nil)
	for i := range 20 {
		log, disk := fmt.Sprint(i, ".log"), fmt.Sprint(i, ".img")
		r.plant(log, "")
		linked := make(chan error, 1)
		go func() { linked <- os.Link(r.path(log), r.path(disk)) }()
		err := os.WriteFile(r.path(log), []byte(guest), 0o600)
		if err := errors.Join(err, <-linked); err != nil {
			t.Error(err)
		}
		r.wantForm(disk, "encrypted")
		r.wantNoLeak(disk)
		r.wantRead(disk, guest)
	}
}

// TestRenameOneOfTwo: a file with several names is renamed across classes as one with one name,
// also if the mount knows only one of them yet.
func TestRenameOneOfTwo(t *testing.T) {
	for _, tt := range []struct{ first, second, to, form string }{
		{"b", "c.vswp", "b.log", "encrypted"},
		{"b", "c", "b.log", "encrypted"},
		{"a.log", "b.log", "b", "encrypted"},
		{"a.log", "b.log", "b.vmdk", "encrypted"},
		{"a.log", "b.vmx", "b.xml", "clear"},
	} {
		t.Run(fmt.Sprintf("%s %s to %s", tt.first, tt.second, tt.to), func(t *testing.T) {
			r := newRig(t, nil)
			if err := os.Mkdir(r.path("sub"), 0o755); err != nil {
				t.Fatal(err)
			}
			r.write(tt.first, "text")
			wantErrno(t, "link", os.Link(r.path(tt.first), r.path("sub/"+tt.second)), 0)
			r.idle()
			r.remount()
			wantErrno(t, "rename", os.Rename(r.path("sub/"+tt.second), r.path(tt.to)), 0)
			r.wantLinks(tt.form, "text", tt.first, tt.to)
		})
	}
}

// TestDescriptorOfTwoNames: a cleartext descriptor is encrypted at all its names, known or not,
// before it becomes something else.
func TestDescriptorOfTwoNames(t *testing.T) {
	for _, second := range []string{"b.vmdk", "b.log"} {
		t.Run(second, func(t *testing.T) {
			r := newRig(t, nil)
			r.plant("a.vmdk", descriptor)
			if err := os.Link(r.under("a.vmdk"), r.under(second)); err != nil {
				t.Fatal(err)
			}
			f := r.open("a.vmdk", os.O_WRONLY)
			if _, err := f.WriteAt([]byte(secret), 0); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			r.idle()
			r.wantLinks("encrypted", secret+descriptor[min(len(secret), len(descriptor)):], "a.vmdk", second)
		})
	}
}

// TestDescriptorRenamedOfTwo: when one name turns clear, the text under the other name does not
// become a log, which no write would encrypt.
func TestDescriptorRenamedOfTwo(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.vmdk", descriptor)
	if err := os.Link(r.under("a.vmdk"), r.under("b.vmdk")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.path("a.vmdk")); err != nil {
		t.Fatal(err)
	}
	f := r.open("b.vmdk", os.O_WRONLY)
	wantErrno(t, "rename", os.Rename(r.path("b.vmdk"), r.path("b.log")), 0)
	if _, err := f.WriteAt([]byte(secret), 0); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "encrypted")
}

// TestEmptyOfTwoNames: an empty file with several names gets its form at all of them.
func TestEmptyOfTwoNames(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.log", "")
	if err := os.Link(r.under("a.log"), r.under("x.img")); err != nil {
		t.Fatal(err)
	}
	f := r.open("x.img", os.O_WRONLY)
	if _, err := f.WriteString(secret); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.idle()
	r.wantLinks("encrypted", secret, "x.img", "a.log")
}

// TestLinkOutside: a file with a name outside of BACKING cannot change its form.
func TestLinkOutside(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.log", "text")
	if err := os.Link(r.under("a.log"), r.state+"-outside"); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "link", os.Link(r.path("a.log"), r.path("x")), unix.EXDEV)
	wantErrno(t, "rename", os.Rename(r.path("a.log"), r.path("x")), unix.EXDEV)
	r.wantForm("a.log", "clear")
	r.wantEntries("a.log")
}

// TestPartedName: a name that other hands gave away during a change of form is theirs; at the other
// names the file has the new form.
func TestPartedName(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "text")
	r.write("theirs.log", "other")
	wantErrno(t, "link", os.Link(r.path("a.log"), r.path("b.log")), 0)
	r.idle()
	f := r.fs
	n := f.called(f.root().In("a.log"))
	if err := f.acquire(nil, n, content.Intent{Read: true}); err != nil {
		t.Fatal(err)
	}
	k, err := f.newKey(nil, f.placeOf(n))
	if err != nil {
		t.Fatal(err)
	}
	f.names.Lock()
	n.Mu.Lock()
	err = f.replace(n, func(c cryptfile.Conversion, d *formDir) (cryptfile.Backing, error) {
		d.open = func() (*content.File, error) {
			if err := os.Rename(r.under("theirs.log"), r.under(d.others[0].at.Name)); err != nil {
				return nil, err
			}
			return f.encrypted(n, d.file, k.take(), content.Intent{Read: true, Write: true}, false)
		}
		return c.ToEncrypted(source{n.file.Content}, 4, k.header, k.dek)
	})
	n.Mu.Unlock()
	f.names.Unlock()
	if err := errors.Join(err, f.release(n, false)); err != nil {
		t.Fatal(err)
	}
	r.remount()
	r.wantRead("a.log", "text")
	r.wantForm("a.log", "encrypted")
	r.wantRead("b.log", "other")
	r.wantEntries("a.log", "b.log")
}
