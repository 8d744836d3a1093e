package fs

import (
	"os"
	"testing"
	"time"

	"vmcryptfs/fs/inode"

	"golang.org/x/sys/unix"
)

// TestBelievedOverfull: when there is no room for more believers, no file gets a name of another
// class for a while.
func TestBelievedOverfull(t *testing.T) {
	r := newRig(t, nil)
	later := r.stopClock()
	tab := &r.fs.table
	r.write("a.txt", "")
	r.write("b.txt", "")
	wantErrno(t, "rename to another class", os.Rename(r.path("a.txt"), r.path("a.log")), 0)
	made := giveAway(t, tab, tab.Root().In("a.log"), 5000)
	wantErrno(t, "rename to another class, overfull", os.Rename(r.path("b.txt"), r.path("b.log")), unix.EXDEV)
	wantErrno(t, "rename in a class, overfull", os.Rename(r.path("b.txt"), r.path("c.txt")), 0)
	later(inode.LostFor + time.Second)
	wantErrno(t, "rename to another class, later", os.Rename(r.path("c.txt"), r.path("c.log")), 0)
	for _, n := range made {
		tab.Forget(n.ID, 1)
	}
}

// giveAway enters so many files by one name; each takes the name from the one before.
func giveAway(t *testing.T, tab *inode.Table, at inode.Place, count uint64) (made []*inode.Inode) {
	t.Helper()
	for i := range count {
		fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		st := unix.Stat_t{Dev: 1, Ino: 1<<40 | i, Mode: unix.S_IFREG}
		made = append(made, tab.Enter(fd, &st, 1, at))
	}
	return made
}
