package fs

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/inode"
	"vmcryptfs/integration/leak"
	"vmcryptfs/layout"
)

// guest is data that must never lie in BACKING in clear.
const guest = "TOP SECRET guest memory"

func (r *rig) wantNoLeak(name string) {
	r.t.Helper()
	raw, err := os.ReadFile(r.under(name))
	if err != nil {
		r.t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(guest)) {
		r.t.Errorf("%s holds guest data in clear in BACKING", name)
	}
}

// TestOpenEmptyClearFileIsEncrypted by a rename: the open file has the clear form already, though
// no byte was written.
func TestOpenEmptyClearFileIsEncrypted(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.Create(r.path("x.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Mkdir(r.path("x.vmem"), 0o755); err != nil {
		t.Fatal(err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, r.path("x.log"), unix.AT_FDCWD, r.path("x.vmem"), unix.RENAME_EXCHANGE)
	wantErrno(t, "exchange", err, unix.EXDEV)
	if err := os.Link(r.path("x.log"), r.path("y.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.path("x.log"), r.path("z.vmem")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(guest); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"z.vmem", "y.log"} {
		r.wantForm(name, "encrypted")
		r.wantNoLeak(name)
		r.wantRead(name, guest)
	}
}

// TestRenameWhileWritten: whichever comes first, bytes written after the rename are encrypted, and
// no answered write is lost.
func TestRenameWhileWritten(t *testing.T) {
	r := newRig(t, nil)
	for range 30 {
		f, err := os.Create(r.path("x.log"))
		if err != nil {
			t.Fatal(err)
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			if _, err := f.WriteString(guest); err != nil {
				t.Error(err)
			}
		})
		if err := os.Rename(r.path("x.log"), r.path("x.vmem")); err != nil {
			t.Error(err)
		}
		writing.Wait()
		r.wantNoLeak("x.vmem")
		r.wantRead("x.vmem", guest)
		f.Close()
		if err := os.Remove(r.path("x.vmem")); err != nil {
			t.Fatal(err)
		}
	}
}

// unreadable is content that BACKING does not give.
type unreadable struct{ content.Content }

func (unreadable) PeekAt([]byte, int64) (int, error) { return 0, unix.EIO }

// TestUnreadableDescriptor: a text that cannot be judged is not written in clear.
func TestUnreadableDescriptor(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", descriptor)
	r.idle()
	f, err := os.OpenFile(r.path("a.vmdk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := r.fs.handles.get(anyHandle(t, r.fs)).node
	n.Mu.Lock()
	n.file.Content = unreadable{n.file.Content}
	n.Mu.Unlock()
	_, err = f.WriteAt([]byte(guest+"\x00\x01"), 50)
	wantErrno(t, "write", err, unix.EIO)
	r.wantNoLeak("a.vmdk")
}

// TestConversionWithoutDescriptors: such a conversion fails as a whole: the node never goes on with
// a file that has lost its name.
func TestConversionWithoutDescriptors(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", descriptor)
	f := r.open("a.vmdk", os.O_RDWR)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	failed := 0
	var err error
	for spare := range uint64(12) { // one more each time, until there are enough
		low := l
		low.Cur = uint64(leak.Descriptors(t)) + spare
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(guest+"\x00\x01"), 0)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
		r.wantNoLeak("a.vmdk")
		if err == nil {
			break
		}
		wantErrno(t, "write", err, unix.EMFILE)
		r.wantRead("a.vmdk", descriptor)
		failed++
	}
	if err != nil || failed == 0 {
		t.Errorf("%d writes failed, the last with %v", failed, err)
	}
	r.wantForm("a.vmdk", "encrypted")
	if got := r.read("a.vmdk"); got[:len(guest)] != guest {
		t.Errorf("read %q", got)
	}
}

// TestClearByUnprovenRules: an empty file that the built-in rules call clear gets no cleartext
// before the settings are proven, for the settings may call the file encrypted.
func TestClearByUnprovenRules(t *testing.T) {
	r := newRig(t, func(s *layout.Settings, _ *Config) { s.Encrypt = []string{"*.vmx"} })
	r.plant("a.vmx", "")
	r.unmount()
	r.kms.down.Store(true)
	r.mount()
	reader, err := os.Open(r.path("a.vmx"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	wantErrno(t, "write", os.WriteFile(r.path("a.vmx"), []byte(guest), 0), unix.ENOKEY)
	r.wantForm("a.vmx", "empty")
	r.kms.down.Store(false)
	r.cache.Unlock() // forgets the failure
	r.write("a.vmx", guest)
	r.wantForm("a.vmx", "encrypted")
}

// TestRemovedFileGetsNoOtherClass: a file removed in BACKING is no file that never had a name,
// though neither has links.
func TestRemovedFileGetsNoOtherClass(t *testing.T) {
	r := newRig(t, nil)
	r.write("x.vmem", guest)
	f, err := os.Open(r.path("x.vmem"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(r.under("x.vmem")); err != nil {
		t.Fatal(err)
	}
	err = unix.Linkat(unix.AT_FDCWD, byname.ProcPath(int(f.Fd())), unix.AT_FDCWD, r.path("y.log"), unix.AT_SYMLINK_FOLLOW)
	if err == nil {
		t.Error("linked under a clear name")
	}
	if _, err := os.Stat(r.under("y.log")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("y.log: %v", err)
	}
}

// TestOpenDoesNotWait for others' I/O on the same file, nor others' I/O for the open.
func TestOpenDoesNotWait(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", guest)
	r.idle()
	f, err := os.Open(r.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := r.fs.handles.get(anyHandle(t, r.fs)).node
	n.Mu.RLock() // as a slow fsync does
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(r.path("a"))
		done <- err
	}()
	select {
	case err = <-done:
	case <-time.After(time.Minute):
		err = errors.New("still waiting")
	}
	n.Mu.RUnlock()
	if err != nil {
		t.Error(err)
	}
}

// TestOthersAppendToLog: a caller with the log open here sees the appended bytes, once the kernel's
// attributes are too old to be believed.
func TestOthersAppendToLog(t *testing.T) {
	r := newRig(t, nil)
	for _, first := range []string{"", "ab"} {
		r.plant("a.log", first)
		f, err := os.Open(r.path("a.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := make([]byte, 100)
		if n, _ := f.ReadAt(p, 0); string(p[:n]) != first {
			t.Fatalf("read %q", p[:n])
		}
		r.plant("a.log", "abcdef")
		// The test asks for the size anew, and so need not wait for the kernel.
		var st unix.Statx_t
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &st); err != nil {
			t.Fatal(err)
		}
		if n, err := f.ReadAt(p, 0); string(p[:n]) != "abcdef" {
			t.Errorf("after others appended to %q: read %q, %v", first, p[:n], err)
		}
	}
}

// TestOthersAppendedSeenByName: the kernel learns the new size from a lookup, or from READDIRPLUS,
// and a caller with the log open must not get zeros for the new bytes.
func TestOthersAppendedSeenByName(t *testing.T) {
	r := newRig(t, nil)
	for name, look := range map[string]func() error{
		"lookup": func() error { _, err := os.Stat(r.path("a.log")); return err },
		"list":   func() error { _, err := os.ReadDir(r.mnt); return err },
	} {
		r.plant("a.log", "ab")
		f := r.open("a.log", os.O_RDONLY)
		p := make([]byte, 100)
		if n, _ := f.ReadAt(p, 0); string(p[:n]) != "ab" {
			t.Fatalf("read %q", p[:n])
		}
		r.plant("a.log", "abcdef")
		time.Sleep(inode.CacheTime + inode.CacheTime/4)
		if err := look(); err != nil {
			t.Fatal(err)
		}
		if n, err := f.ReadAt(p, 0); string(p[:n]) != "abcdef" {
			t.Errorf("%s: after others appended: read %q, %v", name, p[:n], err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestErrnoOfBacking: the caller is told BACKING's errno.
func TestErrnoOfBacking(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "x")
	r.idle()
	mutable := immutable(t, r.under("a.log"))
	_, err := os.OpenFile(r.path("a.log"), os.O_WRONLY, 0)
	wantErrno(t, "open of an immutable file", err, unix.EPERM)
	r.wantRead("a.log", "x")
	mutable()
}

// immutable makes a file or directory refuse changes, until the returned function is called.
func immutable(t *testing.T, path string) (mutable func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	set := func(flags int) {
		t.Helper()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Fatal(err)
		}
	}
	set(0x10) // FS_IMMUTABLE_FL
	mutable = sync.OnceFunc(func() {
		set(0)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(mutable)
	return mutable
}

// TestDamageWhileOpen is counted.
func TestDamageWhileOpen(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", string(make([]byte, 8192)))
	f := r.open("a", os.O_RDONLY|unix.O_DIRECT)
	if err := os.Truncate(r.under("a"), layout.DataOffset); err != nil {
		t.Fatal(err)
	}
	_, err := f.ReadAt(aligned(4096), 0)
	wantErrno(t, "read", err, unix.EIO)
	if got := r.fs.Stats().Damaged; got != 1 {
		t.Errorf("%d damaged files counted", got)
	}
}

// TestKillPrivilegesKeepsWhatOthersTook: a mode changed by other hands is not put back.
func TestKillPrivilegesKeepsWhatOthersTook(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", "x")
	if err := unix.Chmod(r.path("a"), unix.S_ISUID|0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(r.under("a"), unix.S_ISUID|0o600); err != nil {
		t.Fatal(err)
	}
	r.idle()
	r.open("a", os.O_RDWR)
	n := r.fs.handles.get(anyHandle(t, r.fs)).node
	n.mode.Store(unix.S_IFREG | unix.S_ISUID | 0o777)
	if err := r.fs.killPrivileges(n, &fuse.InHeader{}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(r.under("a")); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}
