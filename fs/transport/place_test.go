package transport

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
)

// TestTakePlace: a mount takes the place of a dead one, again and again, and nothing written to
// the path meanwhile arrives in the directory below.
func TestTakePlace(t *testing.T) {
	for name, source := range map[string]string{
		"beneath":     "/srv/backing",
		"over, below": "/" + strings.Repeat("long", 70), // by mount(2), as on old kernels
	} {
		t.Run(name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, transport string) {
				takePlace(t, Options{FsName: source, AllowOther: true, Transport: transport})
			})
		})
	}
}

func takePlace(t *testing.T, o Options) {
	dir := t.TempDir()
	bare, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	s, err := Serve(dir, newOneDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	stop := writeAlways(t, dir)
	for range 20 {
		abort(t, dir)
		s.Wait()
		dead, err := s.Find()
		if err != nil {
			t.Fatal(err)
		}
		if s, err = Prepare(dir, newOneDir(), o); err != nil {
			t.Fatal(err)
		}
		if err := s.Attach(&dead); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			t.Fatalf("the new mount does not answer: %v", err)
		}
	}
	stop()
	for s.Unmount(true); mounted(t, dir) != ""; { // and the dead ones below
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	s.Wait()
	if names, err := bare.Readdirnames(1); !errors.Is(err, io.EOF) {
		t.Errorf("below the mounts lie %q, %v; want nothing", names, err)
	}
}

// writeAlways makes files in dir all the time, until stop.
func writeAlways(t *testing.T, dir string) (stop func()) {
	var ended atomic.Bool
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for !ended.Load() {
				fd, err := unix.Open(filepath.Join(dir, "guest.img"), unix.O_CREAT|unix.O_WRONLY, 0o644)
				if err == nil {
					t.Error("a file was made: the file system that is mounted has none")
					unix.Close(fd)
					return
				}
			}
		})
	}
	return func() { ended.Store(true); writers.Wait() }
}

// TestAttachRefuses: a mount that is no longer the dead one keeps its place.
func TestAttachRefuses(t *testing.T) {
	dir := t.TempDir()
	s, err := Serve(dir, newOneDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Wait()
	defer s.Unmount(true)
	alive, err := s.Find()
	if err != nil {
		t.Fatal(err)
	}
	other, err := Prepare(dir, newOneDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = other.Attach(&mounts.Mount{ID: alive.ID + 1})
	if !errors.Is(err, mounts.ErrNotMounted) {
		t.Errorf("took the place of a mount that was not named: %v", err)
	}
	other.Wait() // the other mount is gone
	if now, err := s.Find(); err != nil || now != alive {
		t.Errorf("the mount is %+v, %v now, want %+v", now, err, alive)
	}
}
