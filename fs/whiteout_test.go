package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// wantWhiteout checks that there is a whiteout by a name, and that the whiteout is owner's.
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
			// The new name, and a replaced file, do not matter to a whiteout.
			wantErrno(t, "rename of the whiteout", unix.Rename(r.path(tt.from), r.path("taken.vmx")), 0)
			wantWhiteout(t, r.under("taken.vmx"), 0)
		})
	}
}

// TestWhiteoutOfCaller: the whiteout is the caller's; the caller need not be root.
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

// TestOverlayUpper mounts overlays whose upper layer is a datastore, and changes files below:
// whiteouts, opaque directories, files copied up, names of several classes.
func TestOverlayUpper(t *testing.T) {
	for name, options := range map[string]string{
		"plain":    "",
		"features": ",redirect_dir=on,metacopy=on,index=on",
	} {
		t.Run(name, func(t *testing.T) { testOverlayUpper(t, options) })
	}
}

func testOverlayUpper(t *testing.T, options string) {
	r := newRig(t, nil)
	lower := filepath.Join(t.TempDir(), "lower")
	long := strings.Repeat("a line of the log\n", maxConvert/16)
	for _, dir := range []string{lower + "/dir/sub", lower + "/old", r.path("upper"), r.path("work")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"a.img": "disk", "b.log": "log", "long.log": long, "dir/c": "c", "dir/sub/d": "d",
		"moved.log": "moved", "gone.vmx": "gone", "old/e.log": "e", "mode.img": "mode",
	} {
		if err := os.WriteFile(filepath.Join(lower, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	options = fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s%s", lower, r.path("upper"), r.path("work"), options)
	merged, unmount := mountOverlay(t, options)
	at := func(name string) string { return filepath.Join(merged, name) }
	appendTo := func(name, text string) error {
		f, err := os.OpenFile(at(name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	renamed := os.Rename(at("old"), at("new"))
	if errors.Is(renamed, unix.EXDEV) { // of a directory below, without redirect_dir
		renamed = nil
	}
	for _, step := range []struct {
		what string
		err  error
	}{
		{"copy up a disk", appendTo("a.img", "+")},
		{"copy up a log", appendTo("b.log", "+")},
		{"copy up a long log", appendTo("long.log", "+")},
		{"copy up a mode", os.Chmod(at("mode.img"), 0o600)},
		{"remove", os.Remove(at("gone.vmx"))},
		{"rename", os.Rename(at("moved.log"), at("moved.save"))},
		{"rename a directory", renamed},
		{"remove a directory", os.RemoveAll(at("dir"))},
		{"make it anew", os.Mkdir(at("dir"), 0o755)},
		{"write there", os.WriteFile(at("dir/new.log"), []byte("new"), 0o644)},
		{"create", os.WriteFile(at("new.img"), []byte("new"), 0o644)},
		{"link", os.Link(at("new.img"), at("new.log"))},
	} {
		if step.err != nil {
			t.Errorf("%s: %v", step.what, step.err)
		}
	}
	for range 2 {
		for name, text := range map[string]string{
			"a.img": "disk+", "b.log": "log+", "long.log": long + "+", "moved.save": "moved", "mode.img": "mode",
			"dir/new.log": "new", "new.img": "new", "new.log": "new",
		} {
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
		r.remount()
		merged, unmount = mountOverlay(t, options) // overlayfs finds the same layers as before
	}
	unmount()
	wantWhiteout(t, r.under("upper/gone.vmx"), 0)
	wantWhiteout(t, r.under("upper/moved.log"), 0)
	for name, form := range map[string]string{"a.img": "encrypted", "new.img": "encrypted", "new.log": "encrypted", "moved.save": "encrypted", "b.log": "clear"} {
		r.wantForm("upper/"+name, form)
	}
}

// mountOverlay mounts an overlay. unmount is idempotent, and called at the end of the test.
func mountOverlay(t *testing.T, options string) (merged string, unmount func()) {
	t.Helper()
	merged = t.TempDir()
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatalf("mount an overlay (%s): %v", options, err)
	}
	unmount = sync.OnceFunc(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(unmount)
	return merged, unmount
}
