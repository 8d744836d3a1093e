// Package otherfs mounts foreign file systems, for a BACKING on them: widely used ones (bindfs,
// sshfs, ntfs-3g, mergerfs; installed by scripts/packages), and one with chosen faults (Faulty).
package otherfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds are the file systems known to Mount, the test's own directory first.
func Kinds() []string { return []string{"local", "bindfs", "sshfs", "ntfs-3g", "mergerfs"} }

// sftpServer is the server for sshfs, with no network between.
const sftpServer = "/usr/lib/openssh/sftp-server"

// Mount mounts a file system of a kind on the directory dir, until the test ends.
func Mount(t testing.TB, kind, dir string) {
	t.Helper()
	source := t.TempDir()
	switch kind {
	case "local":
		return
	case "bindfs":
		run(t, "bindfs", source, dir)
	case "hard_remove": // a removed file is gone, also for processes with the file open under that name
		run(t, "bindfs", "-o", "hard_remove", source, dir)
	case "mergerfs":
		run(t, "mergerfs", source, dir)
	case "sshfs":
		server := filepath.Join(t.TempDir(), "server")
		if err := os.WriteFile(server, []byte("#!/bin/sh\nexec "+sftpServer+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "sshfs", "-o", "ssh_command="+server, "host:"+source, dir)
	case "ntfs-3g":
		image := filepath.Join(source, "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 64<<20); err != nil {
			t.Fatal(err)
		}
		run(t, "mkntfs", "--quiet", "--fast", "--force", image)
		run(t, "ntfs-3g", image, dir)
	default:
		t.Fatalf("otherfs: %q is not known", kind)
	}
	t.Cleanup(func() { unmount(t, dir) })
}

func run(t testing.TB, command ...string) {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
}

// unmount waits for processes still closing files.
func unmount(t testing.TB, dir string) {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err == nil {
			return
		}
	}
	t.Error(fmt.Errorf("unmount %s: %w", dir, err))
	_ = unix.Unmount(dir, unix.MNT_DETACH)
}
