package backing

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// birthAt gives what can be told of the inode at path, by a descriptor of a moment.
func birthAt(t *testing.T, path string, handles bool) (Key, Birth) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	return KeyOf(&st), BirthOf(fd, handles)
}

// TestBirth: an inode keeps its Birth, and the next inode of the number has another.
func TestBirth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for name, handles := range map[string]bool{"by its handle": true, "by its birth time": false} {
		plant(t, dir, "f", "")
		key, birth := birthAt(t, path, handles)
		if birth == 0 {
			t.Skipf("%s: this file system does not say", name)
		}
		plant(t, dir, "f", "more")
		moved := filepath.Join(dir, "moved")
		must(t, os.Rename(path, moved))
		if again, same := birthAt(t, moved, handles); again != key || same != birth {
			t.Errorf("%s: %v of %v is %v of %v after a write and a rename", name, birth, key, same, again)
		}
		must(t, os.Remove(moved))
		if next := reuse(t, path, key, handles); next == birth {
			t.Errorf("%s: two inodes of the number %d have the Birth %v", name, key.Ino, birth)
		}
		must(t, os.Remove(path))
	}
	plant(t, dir, "f", "")
	if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0); err != nil {
		t.Skipf("this file system has no handles: %v", err)
	}
	_, byHandle := birthAt(t, path, true)
	if _, byTime := birthAt(t, path, false); byTime == byHandle {
		t.Errorf("by its handle and by its birth time: %v, want two", byTime)
	}
}

// reuse makes a file at path that has the number of key, and gives its Birth.
func reuse(t *testing.T, path string, key Key, handles bool) Birth {
	t.Helper()
	for i := range 2000 {
		must(t, os.WriteFile(path, nil, 0o644))
		if again, birth := birthAt(t, path, handles); again == key {
			return birth
		}
		if i%2 == 0 { // the number may be free only while another one is taken
			must(t, os.Rename(path, path+"-kept"))
		} else {
			must(t, os.Remove(path))
		}
		time.Sleep(time.Millisecond)
	}
	t.Skip("this file system gives no number twice")
	return 0
}

func TestLastingHandles(t *testing.T) {
	t.Parallel()
	if !LastingHandles(openDir(t, t.TempDir())) {
		t.Error("the handles of a file system on a disk last")
	}
	if LastingHandles(-1) {
		t.Error("what cannot be asked has handles that last")
	}
}

// TestStamp: whatever a write, a truncation, a rename over it or a restored modification time
// changes makes another Stamp; what reading and linking change does not.
func TestStamp(t *testing.T) {
	t.Parallel()
	was := unix.Stat_t{Dev: 1, Ino: 2, Size: 3, Mtim: unix.Timespec{Sec: 4}, Ctim: unix.Timespec{Sec: 5}}
	for name, c := range map[string]struct {
		change func(st *unix.Stat_t)
		same   bool
	}{
		"nothing":           {func(*unix.Stat_t) {}, true},
		"read":              {func(st *unix.Stat_t) { st.Atim.Sec++ }, true},
		"other file system": {func(st *unix.Stat_t) { st.Dev++ }, false},
		"other inode":       {func(st *unix.Stat_t) { st.Ino++ }, false},
		"longer":            {func(st *unix.Stat_t) { st.Size++ }, false},
		"written":           {func(st *unix.Stat_t) { st.Mtim.Nsec++ }, false},
		"times set back":    {func(st *unix.Stat_t) { st.Ctim.Nsec++ }, false},
	} {
		is := was
		c.change(&is)
		if got := StampOf(&is) == StampOf(&was); got != c.same {
			t.Errorf("%s: the same stamp: %t, want %t", name, got, c.same)
		}
	}
}
