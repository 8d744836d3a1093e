package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestUnmountBesideHiddenHolder: a mount of the file system lies nowhere, and its descriptor is
// on the way through a socket: nobody can see such a mount. umount then reports that the daemon
// continues to serve, and the daemon ends with the hidden mount.
func TestUnmountBesideHiddenHolder(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	fd, err := unix.OpenTree(unix.AT_FDCWD, d.Mnt, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// While a process has the descriptor, umount names the process, and nothing changes.
	r := d.Command("umount", d.Mnt)
	if r.Code != 6 || !strings.Contains(r.Stderr, "of a mount of it that lies nowhere") {
		t.Errorf("beside a mount that lies nowhere: want exit 6 and who has it, %v", r)
	}
	if _, err := os.Stat(d.Mnt + "/."); err != nil || d.Status().PID != d.PID {
		t.Errorf("it does not serve any more: %v", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	r = d.Command("umount", d.Mnt)
	if r.Code != 6 || !strings.Contains(r.Stderr, "unmounted here, but its daemon serves on until that ends: "+d.Mnt+" is busy: what uses it is not to be seen") {
		t.Errorf("beside a holder that is not to be seen: want exit 6 and that it serves on, %v", r)
	}
	for _, end := range pair {
		if err := unix.Close(end); err != nil {
			t.Error(err)
		}
	}
	d.AwaitExit()
	mounttest.Tool(t, "flock", "--nonblock", d.Backing+"/.vmcryptfs/lock", "true")
}
