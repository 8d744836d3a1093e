package backing

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

const (
	descriptor = "# Disk DescriptorFile\nversion=1\n"
	inSlotB    = layout.DataOffset / 2 // where the design has slot B
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// header encodes a slot of a generation; no key is needed to read it.
func header(generation uint64) []byte {
	h := &layout.Header{Generation: generation, FileID: layout.FileID{1}}
	return h.AppendSlot(nil)
}

// newer is a header of a version that this one does not know.
func newer() []byte {
	slot := header(1)
	slot[8] = 2
	at := len(slot) - sha256.Size
	sum := sha256.Sum256(slot[:at])
	copy(slot[at:], sum[:])
	return slot
}

// part is what lies at an offset of a file.
type part struct {
	off     int64
	content []byte
}

// plantParts makes the file at path, of a length, with a hole around the parts.
func plantParts(t *testing.T, path string, size int64, parts ...part) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	for _, p := range parts {
		_, err := f.WriteAt(p.content, p.off)
		must(t, err)
	}
}

// plantEncrypted makes an encrypted file of so many stored bytes of data, with the slots a and b.
func plantEncrypted(t *testing.T, path string, a, b []byte, data int64) {
	t.Helper()
	plantParts(t, path, layout.DataOffset+data, part{0, a}, part{inSlotB, b})
}

// open opens path as a walk does.
func open(t *testing.T, path string) *cryptfile.OSFile {
	t.Helper()
	b, _, err := Open(unix.AT_FDCWD, path)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// openDir is a descriptor of the directory at path.
func openDir(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// plantKinds makes something of each kind in dir, and gives the kind by name.
func plantKinds(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	plant(t, dir, "file", "x")
	must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	return map[string]uint32{"file": unix.S_IFREG, "dir": unix.S_IFDIR, "link": unix.S_IFLNK, "pipe": unix.S_IFIFO}
}

// makeOld sets an access time before the other times: relatime then has a read leave one.
func makeOld(t *testing.T, path string) {
	t.Helper()
	times := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

// wasRead reports whether an access time was left since makeOld.
func wasRead(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Atim.Sec != 1
}

// asNobody runs f as a user who owns nothing. Root's threads pass permissions; the thread of f, with
// another user's id for files, does not.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Setfsuid(65534)
		if uid, _ := unix.SetfsuidRetUid(-1); uid != 65534 {
			err = errors.Join(err, fmt.Errorf("the thread has uid %d", uid))
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	must(t, <-done)
}
