package fs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/inode"
	"vmcryptfs/integration/mounttest"
)

// handleOf is the file handle of a name on the mount.
func (r *rig) handleOf(name string) (h unix.FileHandle) {
	r.t.Helper()
	err := mounttest.Uninterrupted(func() (err error) {
		h, _, err = unix.NameToHandleAt(unix.AT_FDCWD, r.path(name), 0)
		return err
	})
	if err != nil {
		r.t.Fatalf("handle of %s: %v", name, err)
	}
	return h
}

// openHandle opens a file handle by the mount; the caller closes the file.
func (r *rig) openHandle(h unix.FileHandle, flags int) (*os.File, error) {
	r.t.Helper()
	mnt, err := os.Open(r.mnt)
	if err != nil {
		r.t.Fatal(err)
	}
	defer mnt.Close()
	fd := -1
	err = mounttest.Uninterrupted(func() (err error) {
		fd, err = unix.OpenByHandleAt(int(mnt.Fd()), h, flags|unix.O_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "handle"), nil
}

// wantHandle reads a file by its handle.
func (r *rig) wantHandle(h unix.FileHandle, want string) {
	r.t.Helper()
	f, err := r.openHandle(h, os.O_RDWR)
	if err != nil {
		r.t.Errorf("open by handle: %v", err)
		return
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != want {
		r.t.Errorf("by handle %.40q, %v, want %.40q", got, err, want)
	}
}

func (r *rig) wantStale(what string, h unix.FileHandle) {
	r.t.Helper()
	f, err := r.openHandle(h, os.O_RDONLY)
	if err == nil {
		f.Close()
	}
	wantErrno(r.t, what, err, unix.ESTALE)
}

// TestFileHandles lead to the same files after the kernel has forgotten the files, after a remount,
// and under other names.
func TestFileHandles(t *testing.T) {
	r := newRig(t, nil)
	if err := os.MkdirAll(r.path("d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	handles := map[string]unix.FileHandle{}
	for _, name := range []string{"a.qcow2", "d/b.log", "d/e/c.vmx"} {
		r.write(name, "content of "+name)
		handles[name] = r.handleOf(name)
	}
	check := func(when string) {
		t.Helper()
		for name, h := range handles {
			r.wantHandle(h, "content of "+name)
			if t.Failed() {
				t.Fatalf("%s, %s", name, when)
			}
		}
	}
	check("known")
	r.idle()
	r.forgetAll()
	if n := r.fs.table.Count().Inodes; n != 1 {
		t.Fatalf("%d nodes are known still: nothing is tested", n)
	}
	check("forgotten")
	r.remount()
	check("remounted")
	r.idle()
	r.forgetAll()
	if err := os.Rename(r.under("d/e"), r.under("f")); err != nil { // by other hands
		t.Fatal(err)
	}
	check("moved")
}

// TestHandlesOfOthersThanFiles: the kernel finds the way up from a directory.
func TestHandlesOfOthersThanFiles(t *testing.T) {
	r := newRig(t, nil)
	if err := os.MkdirAll(r.path("d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", r.path("d/link")); err != nil {
		t.Fatal(err)
	}
	dir, root := r.handleOf("d/e"), r.handleOf("")
	link := r.handleOf("d/link")
	r.remount()
	f, err := r.openHandle(dir, unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := os.Readlink(byname.ProcPath(int(f.Fd()))); err != nil || got != r.path("d/e") {
		t.Errorf("directory opened as %s, %v", got, err)
	}
	l, err := r.openHandle(link, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := make([]byte, 100)
	if n, err := unix.Readlinkat(int(l.Fd()), "", target); err != nil || string(target[:n]) != "nowhere" {
		t.Errorf("link by handle: %q, %v", target[:max(n, 0)], err)
	}
	top, err := r.openHandle(root, unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	if names, err := top.Readdirnames(-1); err != nil || strings.Join(names, " ") != "d" {
		t.Errorf("root by handle: %v, %v", names, err)
	}
}

// TestStaleHandles: a handle never leads to another file than its own.
func TestStaleHandles(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "first")
	h := r.handleOf("a.log")
	r.idle()
	r.forgetAll()
	hidden := filepath.Join(filepath.Dir(r.backing), "outside")
	if err := os.Rename(r.under("a.log"), hidden); err != nil {
		t.Fatal(err)
	}
	r.wantStale("of a file that lies outside of BACKING", h)
	if err := os.Rename(hidden, r.under("a.log")); err != nil {
		t.Fatal(err)
	}
	r.wantHandle(h, "first")
	r.idle()
	r.forgetAll()
	if err := os.Remove(r.under("a.log")); err != nil {
		t.Fatal(err)
	}
	r.wantStale("of a removed file", h)
	for range 20 { // one of the new files gets the number, on most file systems
		f, err := os.CreateTemp(r.backing, "*.log")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	r.wantStale("of a removed file whose number was given away", h)

	r.write("b.log", "x")
	r.idle() // an open file is reached by its handle
	h = r.handleOf("b.log")
	if err := os.Remove(r.path("b.log")); err != nil {
		t.Fatal(err)
	}
	r.until("a file removed here is stale", func() bool { // the kernel has it until the release is answered
		f, err := r.openHandle(h, unix.O_PATH)
		if err == nil {
			f.Close()
		}
		return errors.Is(err, unix.ESTALE)
	})
	own := filepath.Join(r.backing, ".vmcryptfs", "datastore.toml")
	var st unix.Stat_t
	if err := unix.Stat(own, &st); err != nil {
		t.Fatal(err)
	}
	if n, err := r.fs.recallID(st.Ino); !errors.Is(err, unix.ESTALE) {
		t.Errorf("the settings by their number: %v, %v", n, err)
	}
}

// TestHandleOfOpenFile: a removed open file is reached by its handle.
func TestHandleOfOpenFile(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", "content")
	h := r.handleOf("a")
	f, err := os.Open(r.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(r.path("a")); err != nil {
		t.Fatal(err)
	}
	r.wantHandle(h, "content")
}

// TestHandleOfFileWithNameOutside: a walk never finds as many names as links. BACKING is walked
// once for all names, and again after the names have changed.
func TestHandleOfFileWithNameOutside(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.log", "line\n")
	outside := filepath.Join(filepath.Dir(r.backing), "outside")
	if err := os.Link(r.under("a.log"), outside); err != nil {
		t.Fatal(err)
	}
	h := r.handleOf("a.log")
	want := func(what string, paths ...string) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(r.under("a.log"), &st); err != nil {
			t.Fatal(err)
		}
		if got, known := r.fs.table.RememberedPaths(&st); !known || strings.Join(got, " ") != strings.Join(paths, " ") {
			t.Errorf("%s: %v, %t, want %v", what, got, known, paths)
		}
	}
	r.until("the names have been these for a while", func() bool {
		var st unix.Stat_t
		return unix.Stat(outside, &st) == nil && inode.Dated(&st)
	})
	for range 2 {
		r.forgetAll()
		r.wantHandle(h, "line\n")
		want("walked", "a.log")
	}
	if err := os.Mkdir(r.under("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(r.under("a.log"), r.under("d/a.vmss")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(outside); err != nil { // as many links as before
		t.Fatal(err)
	}
	r.forgetAll()
	f, err := r.openHandle(h, os.O_RDONLY)
	wantErrno(t, "open with a new name that is encrypted", written(f, err, false), unix.EACCES)
	if err := os.Rename(r.under("d"), r.under("e")); err != nil { // no change of the file
		t.Fatal(err)
	}
	r.forgetAll()
	f, err = r.openHandle(h, os.O_RDONLY)
	wantErrno(t, "open with that name elsewhere", written(f, err, false), unix.EACCES)
}
