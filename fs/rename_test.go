package fs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"vmcryptfs/byname"

	"golang.org/x/sys/unix"
)

// TestRenameAcrossClasses: the resulting form for each pair of names, content and size.
func TestRenameAcrossClasses(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", maxConvert/16) + "x"
	for _, tt := range []struct {
		from, to string
		text     string
		errno    unix.Errno
		form     string
	}{
		{"a.log", "b.log", "log", 0, "clear"},
		{"a.vswp", "b.vmem", "memory", 0, "encrypted"},
		{"a", "a.log", "unknown", 0, "clear"},                    // an unknown name turns clear
		{"a", "a.log", long, unix.EXDEV, "encrypted"},            // by a copy
		{"a", "a.log", long[:maxConvert], 0, "clear"},            // the longest
		{"a.vswp", "a.log", "memory", 0, "encrypted"},            // rule 7 stays
		{"a-flat.vmdk", "a.vmx", "disk", 0, "encrypted"},         // rule 5 stays
		{"core.1", "core.log", "dump", 0, "encrypted"},           // rule 8 stays
		{"a.log", "a", "log", 0, "encrypted"},                    // convert, then rename
		{"a.log", "a.qcow2", "log", 0, "encrypted"},              //
		{"a.log", "a", long, unix.EXDEV, "clear"},                //
		{"a.log", "a.vmdk", "log", 0, "encrypted"},               // no descriptor
		{"a.log", "a.vmdk", descriptor, 0, "clear"},              // a descriptor
		{"a.vmdk", "a.log", descriptor, 0, "clear"},              //
		{"a.vmdk", "a.qcow2", descriptor, 0, "encrypted"},        //
		{"a.vmdk", "a.log", "KDMV", 0, "clear"},                  // inspect may turn clear
		{"a.vmdk", "b.vmdk", descriptor, 0, "clear"},             //
		{"a", "a.vmdk", descriptor, 0, "clear"},                  // written under a temporary name
		{"a", "a.vmdk", "KDMV", 0, "encrypted"},                  //
		{"a-flat.vmdk", "a.vmdk", descriptor, 0, "encrypted"},    // rule 5 stays
		{"a.log", "a.vswp", "", 0, "empty"},                      // no form yet
		{".vmcryptfs-x", "a.log", "", unix.ENOENT, ""},           // the program's own
		{"a.log", ".vmcryptfs", "text", unix.EPERM, "clear"},     //
		{"a.log", ".vmcryptfs-x-y", "text", unix.EPERM, "clear"}, //
	} {
		name := fmt.Sprintf("%s to %s %d bytes", tt.from, tt.to, len(tt.text))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			if tt.form != "" {
				r.write(tt.from, tt.text)
				r.idle() // the kernel does not wait for a release: open for writing, an empty file has a form
			}
			before, _ := os.Stat(r.path(tt.from))
			// The number lasts as long as the kernel remembers the file, and so here.
			known, err := unix.Open(r.path(tt.from), unix.O_PATH, 0)
			if err != nil && tt.form != "" {
				t.Fatal(err)
			}
			defer func() { unix.Close(known) }()
			err = unix.Rename(r.path(tt.from), r.path(tt.to))
			wantErrno(t, "rename", err, tt.errno)
			if tt.form == "" {
				return
			}
			at := tt.to
			if tt.errno != 0 {
				at = tt.from
			}
			r.wantForm(at, tt.form)
			r.wantRead(at, tt.text)
			after, err := os.Stat(r.path(at))
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the inode number has changed (%v)", err)
			}
			if err := unix.Close(known); err != nil {
				t.Fatal(err)
			}
			known = -1
			r.remount()
			r.wantRead(at, tt.text)
		})
	}
}

func TestRenameFlags(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.log", "b.log", "c", "d.vswp"} {
		r.write(name, "content of "+name)
	}
	rename := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags)
	}
	wantErrno(t, "noreplace", rename("a.log", "b.log", unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErrno(t, "noreplace across classes", rename("a.log", "c", unix.RENAME_NOREPLACE), unix.EEXIST)
	r.wantForm("a.log", "clear") // not converted for nothing
	wantErrno(t, "noreplace across classes, to clear", rename("c", "a.log", unix.RENAME_NOREPLACE), unix.EEXIST)
	r.wantForm("c", "encrypted")
	wantErrno(t, "exchange across classes", rename("a.log", "c", unix.RENAME_EXCHANGE), unix.EXDEV)
	wantErrno(t, "whiteout and exchange", rename("a.log", "b.log", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE), unix.EINVAL)
	wantErrno(t, "exchange", rename("a.log", "b.log", unix.RENAME_EXCHANGE), 0)
	r.wantRead("a.log", "content of b.log")
	r.wantRead("b.log", "content of a.log")
	wantErrno(t, "exchange", rename("c", "d.vswp", unix.RENAME_EXCHANGE), 0)
	r.wantRead("d.vswp", "content of c")
	if err := os.Mkdir(r.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "clear over a directory", rename("a.log", "dir", 0), unix.EISDIR)
	r.wantForm("a.log", "clear")
	wantErrno(t, "noreplace, free", rename("a.log", "f", unix.RENAME_NOREPLACE), 0)
	r.wantForm("f", "encrypted")
	r.wantRead("f", "content of b.log")
}

// TestRenameOpen: handles of the renamed and of the replaced file go on.
func TestRenameOpen(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "first")
	r.write("b", "second")
	a := r.open("a.log", os.O_RDWR)
	b := r.open("b", os.O_RDWR)
	if err := os.Rename(r.path("a.log"), r.path("b")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.WriteAt([]byte("FIR"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.WriteAt([]byte("SEC"), 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := b.ReadAt(got, 0); err != nil || string(got) != "SECond" {
		t.Errorf("the replaced file holds %q, %v", got, err)
	}
	r.wantRead("b", "FIRst")
	r.wantForm("b", "encrypted")
}

// TestTmpfile: a file without a name is encrypted, and gets the form of its first name.
func TestTmpfile(t *testing.T) {
	for _, tt := range []struct {
		name, text, form string
		errno            unix.Errno
	}{
		{"a.qcow2", secret, "encrypted", 0},
		{"a.log", "line\n", "clear", 0},
		{"a.vmdk", descriptor, "clear", 0},
		{"b.vmdk", secret, "encrypted", 0},
		{"b.log", strings.Repeat("x", maxConvert+1), "encrypted", 0}, // too long to be converted
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			fd, err := unix.Open(r.mnt, unix.O_TMPFILE|unix.O_RDWR, 0o640)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "tmpfile")
			defer f.Close()
			if _, err := f.WriteString(tt.text); err != nil {
				t.Fatal(err)
			}
			err = unix.Linkat(unix.AT_FDCWD, byname.ProcPath(fd), unix.AT_FDCWD, r.path(tt.name), unix.AT_SYMLINK_FOLLOW)
			wantErrno(t, "link", err, tt.errno)
			if tt.errno != 0 {
				return
			}
			if _, err := f.WriteAt([]byte("#"), 0); err != nil {
				t.Errorf("write after the link: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			r.wantForm(tt.name, tt.form)
			r.wantRead(tt.name, "#"+tt.text[1:])
			st, err := os.Stat(r.path(tt.name))
			if err != nil || st.Mode() != 0o640 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
		})
	}
}

// TestTmpfileHasItsName: a file that has got a clear name after its birth without one is a file
// like others, even if the answer to the first link was lost.
func TestTmpfileHasItsName(t *testing.T) {
	r := newRig(t, nil)
	fd, err := unix.Open(r.mnt, unix.O_TMPFILE|unix.O_RDWR, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("line\n")); err != nil {
		t.Fatal(err)
	}
	n := r.fs.handles.get(handleThat(t, r.fs, func(h *handle) bool { return h.dir == nil })).node
	if err := r.fs.link(nil, n, newName{Place: r.fs.table.Root().In("a.log")}); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.log", "clear")
	wantErrno(t, "a second link", r.fs.link(nil, n, newName{Place: r.fs.table.Root().In("a.img")}), 0)
	r.wantForm("a.log", "encrypted")
	r.wantForm("a.img", "encrypted")
}
