package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// backupTools copy a tree from one directory to another, which exists and is empty.
var backupTools = map[string]func(t *testing.T, from, to string){
	"rsync": func(t *testing.T, from, to string) {
		mounttest.Tool(t, "rsync", "-aSHAX", from+"/", to+"/")
	},
	"tar": func(t *testing.T, from, to string) {
		archive := filepath.Join(t.TempDir(), "backup.tar")
		// All attributes: by default tar restores only the name space "user".
		mounttest.Tool(t, "tar", "-C", from, "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*", "--acls", "-cf", archive, ".")
		mounttest.Tool(t, "tar", "-C", to, "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive)
	},
	"cp": func(t *testing.T, from, to string) {
		mounttest.Tool(t, "cp", "-a", "--reflink=auto", from+"/.", to+"/")
	},
}

// fillForBackup puts everything easily lost in a backup into a datastore.
func fillForBackup(t *testing.T, d *datastore) {
	t.Helper()
	source, _ := machine(t)
	mounttest.Tool(t, "rsync", "-aSHAX", source+"/", d.Path("vm")+"/")
	mounttest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow2", d.Path("vm/disk.qcow2"), "64M")
	mounttest.Tool(t, "qemu-io", "-c", "write -P 7 1M 3M", "-c", "write -P 8 60M 70k", d.Path("vm/disk.qcow2"))
	mounttest.Tool(t, "truncate", "-s", "900K", d.Path("vm/sparse.log"))
	mounttest.Tool(t, "setfacl", "-m", "u:1234:rw,g:5678:r", d.Path("vm/vm-flat.vmdk"), d.Path("vm/vm.vmx"))
	mounttest.Tool(t, "setfacl", "-d", "-m", "u:1234:rwx", d.Path("vm/sub"))
	for _, name := range []string{"vm/vm-flat.vmdk", "vm/vm.vmx", "vm/sub"} {
		for attribute, value := range map[string]string{"user.b": "2", "trusted.libvirt.security.dac": "+0:+0", "security.test": "x"} {
			if err := unix.Setxattr(d.Path(name), attribute, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBackup backs a datastore up with each tool: BACKING, taken cold and restored on another
// host, and the mount, taken in use and restored through another mount.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := newServed(t, s)
	fillForBackup(t, d)
	held, err := os.OpenFile(d.Path("vm/in-use.img"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	// rsync takes times of the same second for equal, including the times of a directory or link
	// made by rsync in the second in which this one was changed.
	longAgo := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
	err = filepath.WalkDir(d.Mnt, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Type().IsRegular() {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{longAgo, longAgo}, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, back := range backupTools {
		// A guest's last write, not synced: the write was answered, and so is in the copy.
		if _, err := held.WriteAt([]byte("written before "+name), 8<<10); err != nil {
			t.Fatal(err)
		}
		want := manifestOf(t, d.Mnt)
		copied := t.TempDir()
		back(t, d.Mnt, copied)
		wantManifest(t, name+" of the mount", manifestOf(t, copied), want)
		other := newServed(t, s)
		back(t, copied, other.Mnt)
		other.Remount()
		wantManifest(t, name+" into another mount", manifestOf(t, other.Mnt), want)
		other.verify()
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	want := manifestOf(t, d.Mnt)
	d.Unmount()
	for name, back := range backupTools {
		restored := newUnmounted(t, s)
		back(t, d.Backing, restored.Backing)
		wantManifest(t, name+" of BACKING", manifestOf(t, restored.Backing), manifestOf(t, d.Backing))
		onAnotherHost(t, restored, func() {
			wantManifest(t, name+" of BACKING, mounted", manifestOf(t, restored.Mnt), want)
			restored.Write("made-there.nvram", []byte("the seal of the settings is right"))
			restored.verify()
		})
	}
}

// onAnotherHost mounts a datastore like a new host, without this host's memory and processes.
func onAnotherHost(t *testing.T, d *datastore, f func()) {
	t.Helper()
	// A mount by the other host below a shared mount is visible here, too.
	if err := errors.Join(unix.Mount(d.Mnt, d.Mnt, "", unix.MS_BIND, ""), unix.Mount("", d.Mnt, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(d.Mnt, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	here := d.Mnt
	t.Cleanup(func() { _ = unix.Unmount(here, unix.MNT_DETACH) })
	r := mounttest.Run(t, d.KMS.Env(), append(elsewhere(t), mounttest.Program(t), "mount", d.Backing, mnt)...)
	if r.Code != 0 {
		t.Fatal(r)
	}
	d.Mnt = mnt
	f()
	if err := mounttest.Uninterrupted(func() error { return unix.Unmount(mnt, 0) }); err != nil {
		t.Error(err)
	}
}

// elsewhere returns a command that runs its arguments without vmcryptfs's files and processes of
// this host, and without the mounts of other tests, which would not end before the command does.
func elsewhere(t *testing.T) []string {
	t.Helper()
	const host = `set -e
own=$1
shift
others() { awk -v own="$own/" -v what="$1" 'index($5, own) != 1 && $0 ~ what { print $5 }' /proc/self/mountinfo; }
# A shared mount would pass on that something below it is unmounted.
for at in $(others shared:); do mount --make-private "$at" 2>/dev/null || true; done
# By one command: an umount of theirs does not wait long for this.
others 'fuse[.]vmcryptfs' | xargs -r umount --internal-only --lazy 2>/dev/null || true
for dir in /var/lib/vmcryptfs /run/vmcryptfs; do mkdir -p $dir; mount -t tmpfs -o mode=700 none $dir; done
exec "$@"`
	return []string{"unshare", "--mount", "--propagation", "unchanged", "sh", "-c", host, "sh", filepath.Dir(t.TempDir())}
}

// TestRestoreOneFile restores a single encrypted file from a backup of BACKING, beside a running
// mount: under other names, in another directory and in another datastore.
func TestRestoreOneFile(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d, other := newServed(t, s), newServed(t, s)
	content := bytes.Repeat([]byte("of a single file, "), 200_001)
	d.Write("vm-flat.vmdk", content)
	if err := os.Truncate(d.Path("vm-flat.vmdk"), 9<<20+77); err != nil {
		t.Fatal(err)
	}
	content = append(content, make([]byte, 9<<20+77-len(content))...)
	d.Unmount()
	backup := filepath.Join(t.TempDir(), "vm-flat.vmdk")
	mounttest.Tool(t, "cp", "-a", "--sparse=always", d.Below("vm-flat.vmdk"), backup)
	d.Mount()
	d.Write("vm-flat.vmdk", []byte("what came after the backup"))
	for _, place := range []struct {
		d    *datastore
		name string
	}{{d, "restored-flat.vmdk"}, {d, "deeper/down/vm.img"}, {d, "no-extension"}, {d, "vm.log"}, {other, "vm-flat.vmdk"}, {other, "elsewhere/swap.vswp"}} {
		if err := os.MkdirAll(filepath.Dir(place.d.Below(place.name)), 0o755); err != nil {
			t.Fatal(err)
		}
		mounttest.Tool(t, "cp", "-a", "--sparse=always", backup, place.d.Below(place.name))
		wantSame(t, place.name, place.d.Read(place.name), content)
		if err := pwriteFile(place.d.Path(place.name), "new", 4000); err != nil {
			t.Errorf("write to the restored %s: %v", place.name, err)
		}
		place.d.WantForms(map[string]string{place.name: "encrypted"})
		if bytes.Contains(readTree(t, place.d.Backing), []byte("of a single file")) {
			t.Errorf("%s lies in BACKING in clear", place.name)
		}
	}
	wantSame(t, "the file itself", d.Read("vm-flat.vmdk"), []byte("what came after the backup"))
	copy(content[4000:], "new")
	d.Remount()
	other.Remount()
	wantSame(t, "after a remount", d.Read("deeper/down/vm.img"), content)
	wantSame(t, "after a remount", other.Read("vm-flat.vmdk"), content)
}
