package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/transport"
)

// TestMountpointInBacking: / holds every MOUNTPOINT, though the path ends with a slash.
func TestMountpointInBacking(t *testing.T) {
	for _, backing := range []string{"/", os.TempDir()} {
		d := &daemon{config: Config{Backing: backing, Mountpoint: t.TempDir()}}
		err := d.checkPaths()
		if _, mistake := errors.AsType[*advice.UsageError](err); !mistake {
			t.Errorf("BACKING %s, MOUNTPOINT %s: %v, want a usage error", backing, d.config.Mountpoint, err)
		}
	}
}

// TestInterruptedStart: a start ended by a signal just before the mount reports no mount, and
// leaves none.
func TestInterruptedStart(t *testing.T) {
	t.Setenv("VMCRYPTFS_DEVKMS", filepath.Join(t.TempDir(), "devkms"))
	d := &daemon{
		config: Config{Backing: t.TempDir(), Mountpoint: t.TempDir(), Keys: KeyConfig{Dev: true}},
		log:    slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	var err error
	if d.keys, err = OpenKeys(ctx, d.config.Keys, d.log); err != nil {
		t.Fatal(err)
	}
	defer d.keys.Close()
	if err := d.openStore(ctx); err != nil {
		t.Fatal(err)
	}
	defer d.store.Close()
	cancel(errInterrupted)
	err = d.serve(ctx, func() error {
		t.Error("it says that it is ready")
		return nil
	})
	if !errors.Is(err, errInterrupted) {
		t.Errorf("%v, want that it was interrupted", err)
	}
	if m, err := mounts.Find(d.config.Mountpoint); !errors.Is(err, mounts.ErrNotMounted) {
		t.Errorf("found %+v, %v, want no mount", m, err)
	}
}

// atServer is a server whose mount is found at a place.
type atServer struct {
	transport.Server
	at mounts.Mount
}

func (s atServer) Find() (mounts.Mount, error) { return s.at, nil }

// TestSilentIsNoUnmount: a mount without an answer in time was not unmounted.
func TestSilentIsNoUnmount(t *testing.T) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("silent", dir, "fuse", 0, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd) // closing ends all waiting calls
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := leftDead(atServer{at: mounts.Mount{Mountpoint: dir}}); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("the end of a server whose mount is silent: %v, want that the mount was aborted", err)
	}
}
