package fs

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

// TestCreateWhatIsKnown: where BACKING tells inodes apart by their numbers alone, a new file can be
// taken for one that other hands removed, with its names. The new file gets the form of those
// names, and its creator does not wait for itself.
func TestCreateWhatIsKnown(t *testing.T) {
	r := newRig(t, nil)
	r.plant("a.img", "")
	r.wantRead("a.img", "") // known, and was open
	r.idle()
	if err := os.Rename(r.under("a.img"), r.under("b.log")); err != nil { // stands for the new one
		t.Fatal(err)
	}
	fd, err := unix.Open(r.under("b.log"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := cryptfile.NewOSFile(fd)
	path, err := r.fs.pathOf(b)
	if err != nil {
		t.Fatal(err)
	}
	created := make(chan *node, 1)
	go func() {
		r.fs.names.RLock() // as whoever creates does
		n, err := r.fs.begin(content.OpenClear(b, backing.Clear, content.Intent{Read: true, Write: true}), path, r.fs.root().In("b.log"))
		r.fs.names.RUnlock()
		n, err = r.fs.begun(nil, n, err)
		wantErrno(t, "create", err, 0)
		created <- n
	}()
	select {
	case n := <-created:
		if err := r.fs.release(n, true); err != nil {
			t.Error(err)
		}
		r.fs.table.Forget(n.ID, 1)
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for ever")
	}
	r.wantForm("b.log", "encrypted")
}
