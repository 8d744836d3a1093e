package fs

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/integration/mounttest"
	"vmcryptfs/layout"
)

// opens are the ways to come by a name that writes or reads guest data.
var opens = []struct {
	what  string
	write bool
	do    func(r *rig, name string) error
}{
	{"read", false, opening(unix.O_RDONLY)},
	{"read and write", true, opening(unix.O_RDWR)},
	{"append", true, opening(unix.O_WRONLY | unix.O_APPEND)},
	{"directly", true, opening(unix.O_RDWR | unix.O_DIRECT)},
	{"O_CREAT", true, opening(unix.O_RDWR | unix.O_CREAT)},
	{"O_TRUNC", true, opening(unix.O_WRONLY | unix.O_TRUNC)},
	{"O_CREAT and O_TRUNC", true, opening(unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC)},
	{"truncate", true, func(r *rig, name string) error { return os.Truncate(r.path(name), 1<<20) }},
	{"CREATE of what is there", true, (*rig).createThere},
	{"file handle", true, func(r *rig, name string) error {
		f, err := r.openHandle(r.handleOf(name), unix.O_RDWR)
		return written(f, err, true)
	}},
}

func opening(flags int) func(*rig, string) error {
	return func(r *rig, name string) error {
		fd, err := mounttest.Open(r.path(name), flags, 0o600)
		if err != nil {
			return err
		}
		return written(os.NewFile(uintptr(fd), name), nil, flags&(unix.O_ACCMODE|unix.O_DIRECT) == unix.O_RDWR)
	}
}

// written writes guest data to a file that should not have been opened.
func written(f *os.File, err error, write bool) error {
	if err != nil {
		return err
	}
	if write {
		_, err = f.WriteAt([]byte(guest), 0)
	}
	f.Close()
	return err
}

// createThere is the kernel's request for a name unknown to the kernel, and made by others.
func (r *rig) createThere(name string) error {
	in := fuse.CreateIn{Flags: unix.O_RDWR | unix.O_CREAT, Mode: unix.S_IFREG | 0o600}
	in.NodeId = fuse.FUSE_ROOT_ID
	var out fuse.CreateOut
	status := r.fs.Raw().Create(nil, &in, name, &out)
	if status != fuse.OK {
		return unix.Errno(status)
	}
	r.fs.Raw().Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	r.fs.table.Forget(out.NodeId, 1)
	return nil
}

// byOthers are the ways to give an open file another name in BACKING.
var byOthers = map[string]func(from, to string) error{"linked": os.Link, "renamed": os.Rename}

// TestOpenLogIsNoMemoryImage: other hands give a file open in clear the name of an encrypted one.
// For an open by such a name the file is cleartext under an encrypted name.
func TestOpenLogIsNoMemoryImage(t *testing.T) {
	for how, rename := range byOthers {
		for _, tt := range []struct{ from, to, text string }{
			{"vm.log", "vm.vmss", "line\n"},
			{"vm.log", "vm.vmss", ""},
			{"vm.log", "vm.vmdk", "line\n"},
			{"vm.log", "vm.vmdk", descriptor},
			{"vm.vmdk", "vm.vmss", descriptor},
		} {
			t.Run(fmt.Sprintf("%s %s to %s, %d bytes", how, tt.from, tt.to, len(tt.text)), func(t *testing.T) {
				r := newRig(t, nil)
				r.write(tt.from, tt.text)
				f := r.open(tt.from, os.O_RDWR|os.O_APPEND)
				if err := rename(r.under(tt.from), r.under(tt.to)); err != nil {
					t.Fatal(err)
				}
				for _, open := range opens {
					wantErrno(t, open.what, open.do(r, tt.to), unix.EACCES)
				}
				if got := r.fs.Stats().Denied; got != uint64(len(opens)) {
					t.Errorf("%d refusals counted, want %d", got, len(opens))
				}
				if _, err := f.WriteString("# more\n"); err != nil {
					t.Errorf("write by the log's own handle: %v", err)
				}
				if got, err := os.ReadFile(r.under(tt.to)); err != nil || string(got) != tt.text+"# more\n" {
					t.Errorf("BACKING holds %.60q, %v", got, err)
				}
			})
		}
	}
}

// TestOpenLogByPolicy: the policy for cleartext under an encrypted name decides.
func TestOpenLogByPolicy(t *testing.T) {
	for _, policy := range []Unencrypted{Read, Write} {
		r := newRig(t, func(_ *layout.Settings, c *Config) { c.Unencrypted = policy })
		r.write("vm.log", "line\n")
		r.open("vm.log", os.O_RDWR)
		if err := os.Link(r.under("vm.log"), r.under("vm.vmss")); err != nil {
			t.Fatal(err)
		}
		for _, open := range opens {
			want := unix.Errno(0)
			if policy == Read && open.write {
				want = unix.EACCES
			}
			wantErrno(t, open.what, open.do(r, "vm.vmss"), want)
		}
	}
}

// TestOpenLogWithOtherName of its own class: the log opens by both.
func TestOpenLogWithOtherName(t *testing.T) {
	r := newRig(t, nil)
	r.write("vm.log", "line\n")
	r.open("vm.log", os.O_RDWR)
	if err := os.Link(r.under("vm.log"), r.under("vm-1.log")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vm-1.log", "vm.log"} {
		for _, open := range opens {
			wantErrno(t, open.what, open.do(r, name), 0)
		}
	}
}

// openNode opens a file by its node, as a caller does after an earlier look-up of the name.
func (r *rig) openNode(n *node) error {
	var out fuse.OpenOut
	in := fuse.OpenIn{Flags: unix.O_RDWR}
	in.NodeId = n.ID
	if status := r.fs.Raw().Open(nil, &in, &out); status != fuse.OK {
		return unix.Errno(status)
	}
	r.fs.Raw().Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	return nil
}

// TestRenamedCleartext: cleartext, or an empty file, under an encrypted name is renamed while a
// caller is between its look-up by the name and its open.
func TestRenamedCleartext(t *testing.T) {
	for _, text := range []string{"", "planted"} {
		r := newRig(t, nil)
		r.plant("vm.vmss", text)
		n, err := lookedUp(r.fs, r.fs.table.Root().In("vm.vmss"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.fs.table.Forget(n.ID, 1)
		if err := os.Rename(r.path("vm.vmss"), r.path("vm.log")); err != nil {
			t.Fatal(err)
		}
		if text == "" { // an empty file gets the form of the name it was opened by
			wantErrno(t, "open", r.openNode(n), 0)
			r.wantForm("vm.log", "encrypted")
		} else {
			wantErrno(t, "open", r.openNode(n), unix.EACCES)
		}
	}
}

// TestRenameOfWhatOthersExchanged: the kernel believes a name to be an open log, and other hands
// have put another file there. The memory image made by a rename of the name is not the log.
func TestRenameOfWhatOthersExchanged(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "open\n")
	r.write("b.log", "other\n")
	r.open("a.log", os.O_RDWR)
	exchange(t, r.under("a.log"), r.under("b.log"))
	if err := os.Rename(r.path("a.log"), r.path("vm.vmss")); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(r.path("vm.vmss"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(guest), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b.log", "vm.vmss"} {
		r.wantNoLeak(name)
	}
	r.wantForm("vm.vmss", "encrypted")
	r.wantRead("vm.vmss", guest)
}

func exchange(t *testing.T, a, b string) {
	t.Helper()
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
}

// TestRenameOfLostName: the table has learned of the exchange, and the kernel not yet. ESTALE if
// only BACKING knows; and every node that the kernel may believe to have the new name is judged by
// that name.
func TestRenameOfLostName(t *testing.T) {
	r := newRig(t, nil)
	at := func(name string) inode.Place { return r.fs.table.Root().In(name) }
	r.write("a.log", "open\n")
	r.write("b.log", "other\n")
	r.open("a.log", os.O_RDWR)
	n := known(r.fs, at("a.log"))
	exchange(t, r.under("a.log"), r.under("b.log"))
	to := renaming{from: at("a.log"), to: at("vm.vmss")}
	wantErrno(t, "rename of what the kernel does not know", r.fs.rename(nil, to), unix.ESTALE)
	wantErrno(t, "again, after a look-up", r.fs.rename(nil, to), 0) // but not by the kernel
	wantErrno(t, "open of the log", r.openNode(n), unix.EACCES)
}

// TestHandleOfSeveralNames: a file handle comes by no name, so all names of the file count.
func TestHandleOfSeveralNames(t *testing.T) {
	r := newRig(t, nil)
	var handles []unix.FileHandle
	for i := range 8 { // in any order of the directory
		r.plant(fmt.Sprintf("%d.log", i), "line\n")
		if err := os.Link(r.under(fmt.Sprintf("%d.log", i)), r.under(fmt.Sprintf("%d.vmss", i))); err != nil {
			t.Fatal(err)
		}
		handles = append(handles, r.handleOf(fmt.Sprintf("%d.vmss", i)))
	}
	r.forgetAll()
	for _, h := range handles {
		f, err := r.openHandle(h, unix.O_RDWR)
		wantErrno(t, "open by handle", written(f, err, true), unix.EACCES)
	}
	raw, err := os.ReadFile(r.under("0.vmss"))
	if err != nil || bytes.Contains(raw, []byte(guest)) {
		t.Errorf("guest data in BACKING in clear (%v)", err)
	}
}
