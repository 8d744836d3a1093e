package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// exchange makes two names of a directory change places until the test ends.
func exchange(t *testing.T, a, b string) {
	t.Helper()
	var running sync.WaitGroup
	stop := make(chan struct{})
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		running.Wait()
	})
}

// A user with write access to OUT's directory replaces a device by a link to another user's file.
// openDevice opens the device it has checked, or nothing.
func TestOpenDeviceExchanged(t *testing.T) {
	const enough, most = 20_000, 2_000_000 // looks; an open by the name was caught within a thousand or so
	dir := t.TempDir()
	victim, out, other := filepath.Join(dir, "victim"), filepath.Join(dir, "out"), filepath.Join(dir, "other")
	if err := os.WriteFile(victim, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Mknod(out, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), os.Symlink(victim, other)); err != nil {
		t.Fatal(err)
	}
	exchange(t, out, other)
	devices, files := 0, 0
	for n := 0; (n < enough || devices == 0 || files == 0) && n < most; n++ {
		f, err := openDevice(out)
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			files++
			continue
		}
		devices++
		_, err = f.Write([]byte("written over"))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if devices == 0 || files == 0 {
		t.Errorf("%d devices, %d files: nothing was exchanged", devices, files)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "bytes" {
		t.Errorf("victim is now %q, %v", b, err)
	}
}

// The output is made, named and, after an error, removed in one directory, even if the directory
// is renamed meanwhile.
func TestOutputDirectoryExchanged(t *testing.T) {
	for _, kept := range []bool{true, false} {
		top := t.TempDir()
		mine, theirs, from := filepath.Join(top, "mine"), filepath.Join(top, "theirs"), filepath.Join(top, "from")
		victim := filepath.Join(theirs, "disk.img")
		if err := errors.Join(os.Mkdir(mine, 0o755), os.Mkdir(theirs, 0o755),
			os.WriteFile(from, nil, 0o600), os.WriteFile(victim, []byte("bytes"), 0o600)); err != nil {
			t.Fatal(err)
		}
		to, err := newOutput(from, filepath.Join(mine, "disk.img"), true)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Rename(mine, mine+".moved"), os.Symlink(theirs, mine)); err != nil {
			t.Fatal(err)
		}
		var want []string
		if kept {
			want = []string{"disk.img"}
			if err := to.keep(true); err != nil {
				t.Error(err)
			}
		}
		to.drop()
		if got := names(t, mine+".moved"); !slices.Equal(got, want) {
			t.Errorf("kept %v: %q, want %q", kept, got, want)
		}
		if got := names(t, theirs); !slices.Equal(got, []string{"disk.img"}) {
			t.Errorf("kept %v: where the path leads now are %q", kept, got)
		}
		if b, err := os.ReadFile(victim); err != nil || string(b) != "bytes" {
			t.Errorf("victim is now %q, %v", b, err)
		}
	}
}

// names gives the names in dir.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
