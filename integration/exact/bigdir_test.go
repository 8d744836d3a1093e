package exact

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// entry is one entry of getdents64(2).
type entry struct {
	name string
	ino  uint64
	next int64 // offset for reading the entry after
}

// readEntries reads a directory from its present position, with a limited number of calls.
func readEntries(fd int, calls int) (found []entry, err error) {
	buf := make([]byte, 32<<10)
	for range calls {
		n := 0
		err := mounttest.Uninterrupted(func() (err error) { n, err = unix.Getdents(fd, buf); return err })
		if err != nil || n == 0 {
			return found, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			size := binary.NativeEndian.Uint16(rest[16:])
			name := rest[19:size]
			found = append(found, entry{string(name[:slices.Index(name, 0)]), binary.NativeEndian.Uint64(rest), int64(binary.NativeEndian.Uint64(rest[8:]))})
			rest = rest[size:]
		}
	}
	return found, nil
}

const toTheEnd = 1 << 30 // calls

// listedNumbers returns the inode numbers listed by a directory.
func listedNumbers(w *witness, dir string) map[string]uint64 {
	fd, err := mounttest.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must(err)
	entries, err := readEntries(fd, toTheEnd)
	w.must(err)
	w.must(unix.Close(fd))
	numbers := map[string]uint64{}
	for _, e := range entries {
		numbers[e.name] = e.ino
	}
	return numbers
}

// TestBigDirectory makes very many files in a directory through the mount and reads the directory
// while it changes. A file present throughout is returned exactly once, from every reported
// position, and no entry is returned twice.
func TestBigDirectory(t *testing.T) {
	t.Parallel()
	count := 10_000
	if tally.Slow() {
		count = 100_000
	}
	o := newOracle(t)
	w := &witness{t: t, dir: o.d.Path("big"), ext: ".log"}
	w.must(os.Mkdir(w.dir, 0o755))
	dir, err := mounttest.Open(w.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	w.must(err)
	defer func() { _ = unix.Close(dir) }()
	for i := range count {
		w.must(mounttest.Uninterrupted(func() error { return unix.Mknodat(dir, stays(i), unix.S_IFREG|0o644, 0) }))
	}
	all, err := readEntries(dir, toTheEnd)
	w.must(err)
	wantOnce(t, "at rest", all, count)
	if len(all) != count+2 {
		t.Errorf("%d entries at rest, want %d", len(all), count+2)
	}
	for i := 0; i < len(all); i += len(all) / 7 {
		_, err := unix.Seek(dir, all[i].next, unix.SEEK_SET)
		w.must(err)
		rest, err := readEntries(dir, toTheEnd)
		w.must(err)
		if !slices.Equal(rest, all[i+1:]) {
			t.Errorf("after entry %d there are %d, want %d, or not the same", i, len(rest), len(all)-i-1)
		}
	}
	readWhileChanging(w, dir, count)
	for _, e := range all {
		if e.name != "." && e.name != ".." {
			w.must(unix.Unlinkat(dir, e.name, 0))
		}
	}
	w.must(unix.Rmdir(w.dir))
	tally.Add(t, "operations compared", count)
}

func stays(i int) string { return fmt.Sprintf("stays-%06d.log", i) }

// readWhileChanging reads by steps; between the steps other files come, go and are renamed.
func readWhileChanging(w *witness, dir, count int) {
	_, err := unix.Seek(dir, 0, unix.SEEK_SET)
	w.must(err)
	var found []entry
	for step := 0; ; step++ {
		some, err := readEntries(dir, 1)
		w.must(err)
		if len(some) == 0 {
			break
		}
		found = append(found, some...)
		comes, goes := fmt.Sprintf("comes-%06d.log", step), fmt.Sprintf("comes-%06d.log", step-3)
		w.must(unix.Mknodat(dir, comes, unix.S_IFREG|0o644, 0))
		if step >= 3 {
			w.must(unix.Renameat(dir, goes, dir, "r"+goes))
			w.must(unix.Unlinkat(dir, "r"+goes, 0))
		}
	}
	wantOnce(w.t, "while it changes", found, count)
	_, err = unix.Seek(dir, 0, unix.SEEK_SET)
	w.must(err)
	after, err := readEntries(dir, toTheEnd)
	w.must(err)
	wantOnce(w.t, "after a rewind", after, count)
	for _, e := range after {
		if !slices.Contains([]string{".", ".."}, e.name) && e.name[0] != 's' {
			w.must(unix.Unlinkat(dir, e.name, 0))
		}
	}
}

// wantOnce checks that each remaining file is returned once, and no name twice.
func wantOnce(t *testing.T, when string, found []entry, count int) {
	t.Helper()
	times := map[string]int{}
	for _, e := range found {
		if times[e.name]++; times[e.name] == 2 {
			t.Errorf("%s: %s is given twice", when, e.name)
		}
	}
	for i := range count {
		if times[stays(i)] == 0 {
			t.Fatalf("%s: %s is not given", when, stays(i))
		}
	}
}
