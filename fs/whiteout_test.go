package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// wantWhiteout checks that there is a whiteout by a name, that is owner's.
func wantWhiteout(t *testing.T, path string, owner uint32) {
	t.Helper()
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 || st.Uid != owner || st.Gid != owner {
		t.Errorf("%s: mode %o, device %d, owner %d:%d, %v; want a whiteout of %d", path, st.Mode, st.Rdev, st.Uid, st.Gid, err, owner)
	}
}

// TestRenameWhiteout leaves a whiteout at the old name, whatever becomes of the file.
func TestRenameWhiteout(t *testing.T) {
	long := strings.Repeat("x", maxConvert+1)
	for _, tt := range []struct {
		from, to, text string
		flags          uint
		form           string
		errno          unix.Errno
	}{
		{"a.log", "b.log", "text", 0, "clear", 0},
		{"a", "b", "text", 0, "encrypted", 0},
		{"a.log", "b", "text", 0, "encrypted", 0},
		{"a", "b.log", "text", 0, "clear", 0},
		{"a.log", "b", "text", unix.RENAME_NOREPLACE, "encrypted", 0},
		{"a.log", "taken", "text", unix.RENAME_NOREPLACE, "clear", unix.EEXIST},
		{"a.log", "taken.log", "text", unix.RENAME_NOREPLACE, "clear", unix.EEXIST},
		{"a.log", "taken", "text", 0, "encrypted", 0},
		{"a.log", "b", long, 0, "clear", unix.EXDEV},
	} {
		t.Run(fmt.Sprintf("%s to %s %d", tt.from, tt.to, tt.flags), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.write(tt.from, tt.text)
			r.write("taken", "taken")
			r.write("taken.log", "taken")
			r.idle()
			err := unix.Renameat2(unix.AT_FDCWD, r.path(tt.from), unix.AT_FDCWD, r.path(tt.to), tt.flags|unix.RENAME_WHITEOUT)
			wantErrno(t, "rename", err, tt.errno)
			if tt.errno != 0 {
				r.wantForm(tt.from, tt.form)
				return
			}
			for range 2 {
				wantWhiteout(t, r.path(tt.from), 0)
				wantWhiteout(t, r.under(tt.from), 0)
				r.wantForm(tt.to, tt.form)
				r.wantRead(tt.to, tt.text)
				r.remount()
			}
			// What it is renamed to, and over, does not matter to a whiteout.
			wantErrno(t, "rename of the whiteout", unix.Rename(r.path(tt.from), r.path("taken.vmx")), 0)
			wantWhiteout(t, r.under("taken.vmx"), 0)
		})
	}
}

// TestWhiteoutOfCaller: the whiteout is the caller's, who need not be root.
func TestWhiteoutOfCaller(t *testing.T) {
	r := newRig(t, nil)
	if err := os.Chmod(r.mnt, 0o777); err != nil {
		t.Fatal(err)
	}
	r.write("a.log", "text")
	err := r.fs.daemon.as(fuse.Owner{Uid: 1234, Gid: 1234}, func() error {
		return unix.Renameat2(unix.AT_FDCWD, r.path("a.log"), unix.AT_FDCWD, r.path("b.log"), unix.RENAME_WHITEOUT)
	})
	wantErrno(t, "rename", err, 0)
	wantWhiteout(t, r.under("a.log"), 1234)
}

// TestOverlayUpper mounts an overlay whose upper layer is a datastore, and changes what lies below:
// whiteouts, opaque directories, files copied up, names of several classes.
func TestOverlayUpper(t *testing.T) {
	r := newRig(t, nil)
	lower, merged := filepath.Join(t.TempDir(), "lower"), t.TempDir()
	long := strings.Repeat("a line of the log\n", maxConvert/16)
	for _, dir := range []string{lower + "/dir/sub", r.path("upper"), r.path("work")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"a.img": "disk", "b.log": "log", "long.log": long, "dir/c": "c", "dir/sub/d": "d", "moved.log": "moved", "gone.vmx": "gone"} {
		if err := os.WriteFile(filepath.Join(lower, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, r.path("upper"), r.path("work"))
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		if errors.Is(err, unix.ENODEV) {
			t.Fatalf("this kernel has no overlayfs: %v", err)
		}
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			if err := unix.Unmount(merged, 0); err != nil {
				t.Error(err)
			}
		}
		mounted = false
	}
	defer unmount()
	at := func(name string) string { return filepath.Join(merged, name) }
	appendTo := func(name, text string) error {
		f, err := os.OpenFile(at(name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	for _, step := range []struct {
		what string
		err  error
	}{
		{"copy up a disk", appendTo("a.img", "+")},
		{"copy up a log", appendTo("b.log", "+")},
		{"copy up a long log", appendTo("long.log", "+")},
		{"remove", os.Remove(at("gone.vmx"))},
		{"rename", os.Rename(at("moved.log"), at("moved.save"))},
		{"remove a directory", os.RemoveAll(at("dir"))},
		{"make it anew", os.Mkdir(at("dir"), 0o755)},
		{"write there", os.WriteFile(at("dir/new.log"), []byte("new"), 0o644)},
		{"create", os.WriteFile(at("new.img"), []byte("new"), 0o644)},
	} {
		if step.err != nil {
			t.Errorf("%s: %v", step.what, step.err)
		}
	}
	for name, text := range map[string]string{"a.img": "disk+", "b.log": "log+", "long.log": long + "+", "moved.save": "moved", "dir/new.log": "new", "new.img": "new"} {
		got, err := os.ReadFile(at(name))
		if err != nil || string(got) != text {
			t.Errorf("%s holds %d bytes, %v, want %d", name, len(got), err, len(text))
		}
	}
	for _, name := range []string{"gone.vmx", "moved.log", "dir/c", "dir/sub"} {
		if _, err := os.Lstat(at(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	unmount()
	wantWhiteout(t, r.under("upper/gone.vmx"), 0)
	wantWhiteout(t, r.under("upper/moved.log"), 0)
	r.wantForm("upper/a.img", "encrypted")
	r.wantForm("upper/new.img", "encrypted")
	r.wantForm("upper/moved.save", "encrypted")
	r.wantForm("upper/b.log", "clear")
}
