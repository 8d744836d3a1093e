package fs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
)

// TestSetReadOnly: a read-only filesystem removes nothing from BACKING; a filesystem that became
// writable sweeps, and may become read-only again.
func TestSetReadOnly(t *testing.T) {
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.ReadOnly = true })
	leftover := r.fs.temps.host + "00112233445566ff-8899aabbccddeeff"
	r.plant(leftover, "x")
	r.idle()
	if !r.fs.ReadOnly() {
		t.Error("it is not read-only at first")
	}
	if _, err := os.Stat(r.under(leftover)); err != nil {
		t.Errorf("the leftover of a crash, read-only: %v", err)
	}
	r.plant("vm.log", "text")
	if f, err := os.OpenFile(r.path("vm.log"), os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
		f.Close()
		t.Errorf("open for writing, read-only: %v", err)
	}
	if err := r.fs.SetReadOnly(false); err != nil {
		t.Fatal(err)
	}
	r.until("the leftover is gone", func() bool {
		_, err := os.Stat(r.under(leftover))
		return errors.Is(err, os.ErrNotExist)
	})
	if err := errors.Join(r.fs.SetReadOnly(true), r.fs.SetReadOnly(true)); err != nil {
		t.Error(err)
	}
	if !r.fs.ReadOnly() {
		t.Error("it is not read-only again")
	}
}

// TestSetReadOnlyUnfit: with a BACKING unfit to be written, SetReadOnly(false) is an error.
func TestSetReadOnlyUnfit(t *testing.T) {
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.ReadOnly = true })
	r.idle()
	own := r.under(datastore.Dir)
	if err := os.Rename(own, own+"-away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(own+"-away", own)
	if err := r.fs.SetReadOnly(false); !errors.Is(err, unix.ENOENT) || !r.fs.ReadOnly() {
		t.Errorf("writable without a place to test BACKING in: %v", err)
	}
}
