package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// past and future are access times before and after all others of a file.
var past, future = unix.Timespec{Sec: 1e9}, unix.Timespec{Sec: 4e9}

// openFor opens, calls and closes.
func openFor(path string, flags int, call func(*os.File) error) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return call(f)
}

func readSome(f *os.File) error {
	_, err := f.Read(make([]byte, 10))
	return err
}

// accesses are the operations that may leave an access time.
var accesses = []struct {
	what string
	do   func(path string) error
}{
	{"stat", func(path string) error { _, err := os.Stat(path); return err }},
	{"open", func(path string) error { return openFor(path, os.O_RDWR, func(*os.File) error { return nil }) }},
	{"read", func(path string) error { return openFor(path, os.O_RDONLY, readSome) }},
	{"direct read", func(path string) error {
		return openFor(path, os.O_RDONLY|unix.O_DIRECT, func(f *os.File) error {
			_, err := f.Read(aligned(4096))
			return err
		})
	}},
	{"read by a backup", func(path string) error { return openFor(path, os.O_RDONLY|unix.O_NOATIME, readSome) }},
	{"write of a part", func(path string) error {
		return openFor(path, os.O_RDWR, func(f *os.File) error {
			_, err := f.WriteAt([]byte("xyz"), 700)
			return err
		})
	}},
	{"append", func(path string) error {
		return openFor(path, os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
			_, err := f.WriteString("more")
			return err
		})
	}},
	{"read and write", func(path string) error {
		return openFor(path, os.O_RDWR, func(f *os.File) error {
			if _, err := f.WriteAt([]byte("xyz"), 700); err != nil {
				return err
			}
			return readSome(f)
		})
	}},
	{"truncate", func(path string) error { return os.Truncate(path, 1300) }},
}

// atimeAfter is the access time after an access.
func atimeAfter(t *testing.T, path string, before unix.Timespec, do func(string) error) string {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, 3000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.UtimesNano(path, []unix.Timespec{before, {Sec: 2e9}}); err != nil {
		t.Fatal(err)
	}
	if err := do(path); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Atim == before {
		return "as before"
	}
	return "now"
}

// TestAccessTimes: reads by callers leave access times, as BACKING's mount has them, and nothing
// else does.
func TestAccessTimes(t *testing.T) {
	for name, flags := range map[string]uintptr{"relatime": unix.MS_RELATIME, "noatime": unix.MS_NOATIME, "strictatime": unix.MS_STRICTATIME} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=64m"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			r := newRigAt(t, dir, nil)
			for _, a := range accesses {
				for i, before := range []unix.Timespec{past, future} {
					for j, ext := range []string{".log", ".qcow2"} {
						file := fmt.Sprintf("%s %d%d%s", a.what, i, j, ext)
						want := atimeAfter(t, filepath.Join(dir, file), before, a.do)
						if got := atimeAfter(t, r.path(file), before, a.do); got != want {
							t.Errorf("%s: access time after %s is %s, want %s", file, a.what, got, want)
						}
					}
				}
			}
			r.unmount()
		})
	}
}

// TestConversionIsNoAccess: a file that changes its form keeps its access time.
func TestConversionIsNoAccess(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.bin", "text")
	if err := unix.UtimesNano(r.path("a.bin"), []unix.Timespec{past, {Sec: 2e9}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.path("a.bin"), r.path("b.log")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(r.path("b.log"), &st); err != nil || st.Atim != past {
		t.Errorf("access time %v, %v", st.Atim, err)
	}
	r.wantForm("b.log", "clear") // reads it
}
