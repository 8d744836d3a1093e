package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"vmcryptfs/fs/admin/mounts"
)

// TestMountpointInBacking: / holds every MOUNTPOINT, though it ends with its slash.
func TestMountpointInBacking(t *testing.T) {
	for _, backing := range []string{"/", os.TempDir()} {
		d := &daemon{config: mountConfig{backing: backing, mountpoint: t.TempDir()}}
		if err := d.checkPaths(); exitCode(err) != exitUsage {
			t.Errorf("BACKING %s, MOUNTPOINT %s: %v, want a usage error", backing, d.config.mountpoint, err)
		}
	}
}

// TestInterruptedStart: a start that a signal ended just before the mount was there tells
// nobody of a mount, and leaves none.
func TestInterruptedStart(t *testing.T) {
	if err := hideHost(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VMCRYPTFS_DEVKMS", filepath.Join(t.TempDir(), "devkms"))
	d := &daemon{
		config: mountConfig{backing: t.TempDir(), mountpoint: t.TempDir(), keys: keyFlags{dev: true}},
		log:    slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	var err error
	if d.keys, err = openKeys(ctx, d.config.keys, d.log); err != nil {
		t.Fatal(err)
	}
	defer d.keys.close()
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
	if m, err := mounts.Find(d.config.mountpoint); !errors.Is(err, mounts.ErrNotMounted) {
		t.Errorf("found %+v, %v, want no mount", m, err)
	}
}
