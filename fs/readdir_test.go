package fs

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// entries reads a directory stream to its end.
func entries(t *testing.T, fd int) (names []string, next map[string]int64, ino map[string]uint64) {
	t.Helper()
	next, ino = make(map[string]int64), make(map[string]uint64)
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return names, next, ino
		}
		for rest := buf[:n]; len(rest) > 0; {
			e, size, err := backing.ParseEntry(rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[size:]
			names = append(names, string(e.Name))
			next[string(e.Name)] = int64(e.Off)
			ino[string(e.Name)] = e.Ino
		}
	}
}

// TestReadDir5000: every entry once, from every place that telldir(3) may name.
func TestReadDir5000(t *testing.T) {
	r := newRig(t, nil)
	const count = 5000
	for i := range count {
		r.plant(fmt.Sprintf("file-%04d.log", i), "")
	}
	fd, err := unix.Open(r.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	all, next, ino := entries(t, fd)
	unique := slices.Clone(all)
	slices.Sort(unique)
	if unique = slices.Compact(unique); len(all) != count+2 || len(unique) != len(all) {
		t.Fatalf("%d entries, %d of them different, want %d", len(all), len(unique), count+2)
	}
	for i := 0; i < len(all); i += 700 {
		if _, err := unix.Seek(fd, next[all[i]], unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		if rest, _, _ := entries(t, fd); !slices.Equal(rest, all[i+1:]) {
			t.Errorf("from after entry %d there are %d entries, want %d", i, len(rest), len(all)-i-1)
		}
	}
	for _, name := range all[:20] {
		var st unix.Stat_t
		if err := unix.Stat(r.path(name), &st); err != nil || st.Ino != ino[name] && name != ".." {
			t.Errorf("%s: inode %d in the list, %d by stat (%v)", name, ino[name], st.Ino, err)
		}
	}
	// A removed name and a new one are seen after a rewind.
	if err := os.Remove(r.path("file-0000.log")); err != nil {
		t.Fatal(err)
	}
	r.write("another", "")
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	after, _, _ := entries(t, fd)
	if slices.Contains(after, "file-0000.log") || !slices.Contains(after, "another") {
		t.Error("rewinddir shows what was there before")
	}
}

// TestReadDirAfterConversion: the list shows the number that stat shows.
func TestReadDirAfterConversion(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.Create(r.path("a.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(descriptor); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st, raw unix.Stat_t
	if err := unix.Stat(r.path("a.vmdk"), &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(r.under("a.vmdk"), &raw); err != nil {
		t.Fatal(err)
	}
	if st.Ino == raw.Ino {
		t.Fatal("the backing inode is the same: nothing was converted")
	}
	fd, err := unix.Open(r.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, _, ino := entries(t, fd); ino["a.vmdk"] != st.Ino {
		t.Errorf("the list shows inode %d, stat %d", ino["a.vmdk"], st.Ino)
	}
}
