package fs

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// as runs a shell script as another user, in dir. The shell itself enters dir: a child of this
// process that entered dir before exec would wait for this mount's server, and the server for the
// child.
func as(t *testing.T, uid, gid uint32, dir, script string) (string, error) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", "cd \"$0\" || exit 99\n"+script, dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := c.CombinedOutput()
	return string(out), err
}

// passable makes the way to a directory passable for other users.
func passable(t *testing.T, dir string) {
	t.Helper()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}

// both runs f on the mount and on a plain directory, and compares the results.
func both(t *testing.T, r *rig, f func(dir string) string) {
	t.Helper()
	plain := t.TempDir()
	passable(t, plain)
	passable(t, r.mnt)
	if got, want := f(r.mnt), f(plain); got != want {
		t.Errorf("on the mount:\n%s\non a plain directory:\n%s", got, want)
	}
}

// names are one of each class.
var names = []string{"a.log", "b.qcow2", "c.vmdk"}

func TestOwnerModeUmask(t *testing.T) {
	r := newRig(t, nil)
	both(t, r, func(dir string) string {
		var out strings.Builder
		for _, sub := range []struct {
			name string
			mode uint32
		}{{"plain", 0o777}, {"setgid", unix.S_ISGID | 0o777}} {
			d := filepath.Join(dir, sub.name)
			if err := os.Mkdir(d, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chown(d, 0, 4321); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(d, sub.mode); err != nil {
				t.Fatal(err)
			}
			o, err := as(t, 1234, 1235, d, `umask 027
				for f in a.log b.qcow2 c.vmdk; do echo x >$f; done
				mkdir d; mkfifo e; ln -s x f
				umask 0; echo >g; echo >h.log; umask 0777; echo >i; echo >j.log
				stat -c '%n %U %G %f' *`)
			if err != nil {
				t.Errorf("%s: %v", o, err)
			}
			out.WriteString(o)
		}
		return out.String()
	})
}

func TestDefaultACL(t *testing.T) {
	r := newRig(t, nil)
	// user::rwx user:99:rwx group::r-x mask::rwx other::---
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 7, 1<<32 - 1}, {2, 7, 99}, {4, 5, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[0]))
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[1]))
		acl = binary.LittleEndian.AppendUint32(acl, e[2])
	}
	both(t, r, func(dir string) string {
		d := filepath.Join(dir, "acl")
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(d, aclDefault, acl, 0); err != nil {
			t.Fatal(err)
		}
		out, err := as(t, 0, 0, d, `umask 077; for f in a.log b.qcow2 c.vmdk; do echo x >$f; done; mkdir d; stat -c '%n %f' *`)
		if err != nil {
			t.Errorf("%s: %v", out, err)
		}
		for _, name := range append(names, "d") {
			got, err := readXattr(filepath.Join(d, name), aclAccess)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			out += string(got)
		}
		return out
	})
}

// TestBindingKeepsACL: the default ACL of the directory, where a conversion's hidden temporary
// lies, is not given to the file.
func TestBindingKeepsACL(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", "x")
	before, err := os.Stat(r.path("a.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	acl := append(binary.LittleEndian.AppendUint32(nil, 2),
		1, 0, 7, 0, 255, 255, 255, 255,
		2, 0, 7, 0, 99, 0, 0, 0,
		4, 0, 7, 0, 255, 255, 255, 255,
		0x10, 0, 7, 0, 255, 255, 255, 255,
		0x20, 0, 7, 0, 255, 255, 255, 255)
	if err := unix.Setxattr(r.mnt, aclDefault, acl, 0); err != nil {
		t.Fatal(err)
	}
	r.write("a.vmdk", descriptor)
	r.wantForm("a.vmdk", "clear")
	after, err := os.Stat(r.path("a.vmdk"))
	if err != nil || after.Mode() != before.Mode() {
		t.Errorf("mode %v, want %v (%v)", after.Mode(), before.Mode(), err)
	}
	if got, err := readXattr(r.path("a.vmdk"), aclAccess); err == nil && len(got) > 0 {
		t.Errorf("the file got an ACL: %x", got)
	}
}

// TestSuidIsCleared by changes of others than root.
func TestSuidIsCleared(t *testing.T) {
	r := newRig(t, nil)
	both(t, r, func(dir string) string {
		var out bytes.Buffer
		for _, uid := range []uint32{0, 1234} {
			for _, mode := range []uint32{0o4777, 0o2777, 0o6767, 0o2767} {
				f := filepath.Join(dir, "g")
				os.Remove(f)
				for _, change := range []string{`printf x >>g`, `truncate -s 3 g`, `fallocate -l 8192 g`, `cat g >/dev/null`, `chgrp 0 g`} {
					if err := os.WriteFile(f, []byte("content"), 0o777); err != nil {
						t.Fatal(err)
					}
					if err := unix.Chown(f, int(uid), int(uid)); err != nil {
						t.Fatal(err)
					}
					if err := unix.Chmod(f, mode); err != nil {
						t.Fatal(err)
					}
					o, err := as(t, uid, uid, dir, change)
					var st unix.Stat_t
					if err := unix.Stat(f, &st); err != nil {
						t.Fatal(err)
					}
					out.WriteString(change + " " + strings.TrimSpace(o) + " ")
					if err != nil {
						out.WriteString("fails ")
					}
					out.WriteString(os.FileMode(st.Mode).String() + "\n")
				}
			}
		}
		return out.String()
	})
}

func TestXattr(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range names {
		r.write(name, "x")
		path := r.path(name)
		for attr, value := range map[string]string{"user.a": "1", "trusted.b": strings.Repeat("v", 1000), "security.c": ""} {
			wantErrno(t, "set "+attr, unix.Setxattr(path, attr, []byte(value), 0), 0)
			if got, err := readXattr(path, attr); err != nil || string(got) != value {
				t.Errorf("%s of %s is %q, %v", attr, name, got, err)
			}
		}
		wantErrno(t, "create again", unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
		wantErrno(t, "replace nothing", unix.Setxattr(path, "user.z", nil, unix.XATTR_REPLACE), unix.ENODATA)
		_, err := unix.Getxattr(path, "trusted.b", make([]byte, 10))
		wantErrno(t, "too little room", err, unix.ERANGE)
		wantErrno(t, "remove", unix.Removexattr(path, "trusted.b"), 0)
		_, err = unix.Getxattr(path, "trusted.b", nil)
		wantErrno(t, "removed", err, unix.ENODATA)
		list, err := listXattrs(path)
		if got := strings.Join(list, " "); err != nil || !strings.Contains(got, "user.a") || strings.Contains(got, "trusted.b") {
			t.Errorf("list: %q, %v", got, err)
		}
	}
	if err := os.Symlink("nowhere", r.path("link")); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "trusted attribute of a link", unix.Lsetxattr(r.path("link"), "trusted.x", []byte("1"), 0), 0)
}

func TestTimesAndStatx(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", "secret")
	want := []unix.Timespec{{Sec: -5, Nsec: 1}, {Sec: 4e9, Nsec: 999999999}}
	if err := unix.UtimesNano(r.path("a"), want); err != nil {
		t.Fatal(err)
	}
	var st, raw unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, r.path("a"), 0, unix.STATX_ALL, &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statx(unix.AT_FDCWD, r.under("a"), 0, unix.STATX_ALL, &raw); err != nil {
		t.Fatal(err)
	}
	if st.Atime.Sec != -5 || st.Mtime.Sec != 4e9 || st.Mtime.Nsec != 999999999 {
		t.Errorf("atime %v mtime %v", st.Atime, st.Mtime)
	}
	if st.Size != 6 || st.Ino != raw.Ino || raw.Mask&unix.STATX_BTIME != 0 && st.Btime.Sec != raw.Btime.Sec {
		t.Errorf("size %d ino %d (%d) btime %v (%v)", st.Size, st.Ino, raw.Ino, st.Btime, raw.Btime)
	}
	if err := os.Symlink("nowhere", r.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, r.path("link"), want, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Errorf("times of a link: %v", err)
	}
	if got, err := os.Readlink(r.path("link")); err != nil || got != "nowhere" {
		t.Errorf("readlink: %q, %v", got, err)
	}
	var a, b unix.Statfs_t
	if err := unix.Statfs(r.mnt, &a); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(r.backing, &b); err != nil {
		t.Fatal(err)
	}
	if a.Blocks != b.Blocks || a.Bsize != b.Bsize || a.Files != b.Files || a.Namelen != b.Namelen {
		t.Errorf("statfs %+v, of BACKING %+v", a, b)
	}
}
