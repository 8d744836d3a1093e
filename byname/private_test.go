package byname

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// foreign is a user id other than root's and the test's own.
const foreign = 12345

// placed makes the directory path with mode, of user uid.
func placed(t *testing.T, path string, mode uint32, uid int) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, -1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused checks that err is nil if want is empty, else one line containing want.
func refused(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == "" && err == nil {
		return
	}
	if want == "" || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
}

func TestPrivateDir(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	for _, c := range []struct {
		name string
		mode uint32
		uid  int
		want string // of the error; empty: none
	}{
		{"private", 0o700, 0, ""},
		{"readable", 0o755, 0, ""},
		{"group", 0o770, 0, "may be written by others (mode 0770): see what is in it, then chmod go-w it"},
		{"all", 0o757, 0, "may be written by others"},
		{"sticky", 0o1777, 0, "may be written by others"},
		{"foreign", 0o700, foreign, "belongs to user 12345, and root must own it: see what is in it, then chown it, or use another one"},
	} {
		dir := placed(t, filepath.Join(top, c.name), c.mode, c.uid)
		link := filepath.Join(top, c.name+".link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, link} { // the target of a link counts
			f, err := MakePrivateDir(path, 0o700)
			refused(t, path, err, c.want)
			f.Close()
		}
	}
}

func TestMakePrivateDir(t *testing.T) {
	top := t.TempDir()
	f, err := MakePrivateDir(filepath.Join(top, "a", "b"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, name := range []string{"a", "a/b"} {
		if info, err := os.Stat(filepath.Join(top, name)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := MakePrivateDir(file, 0o700); err == nil {
		f.Close()
		t.Error("a file passes for a directory")
	}
}

// A private directory lies badly where another user could put another directory in its place.
func TestMakePrivatePath(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	const writable = "may be written by others"
	for _, c := range []struct {
		name string
		mode uint32 // mode of the directory around
		uid  int
		want string
	}{
		{"root's", 0o755, 0, ""},
		{"as /tmp is", 0o1777, 0, ""},
		{"all write", 0o777, 0, writable},
		{"group writes", 0o775, 0, writable},
		{"foreign", 0o755, foreign, "belongs to user 12345"},
		{"foreign and sticky", 0o1777, foreign, "belongs to user 12345"},
	} {
		around := placed(t, filepath.Join(top, c.name), c.mode, c.uid)
		dir := filepath.Join(around, "private")
		_, err := MakePrivatePath(dir, 0o700)
		refused(t, c.name, err, c.want)
		link := filepath.Join(top, c.name+".link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		got, err := MakePrivatePath(link, 0o700)
		refused(t, "link to "+c.name, err, c.want)
		if real, _ := filepath.EvalSymlinks(dir); err == nil && got != real {
			t.Errorf("link to %s leads to %s, want %s", c.name, got, real)
		}
	}
	if got, err := MakePrivatePath("/", 0o700); err != nil || got != "/" {
		t.Errorf("/: %s, %v", got, err)
	}
}
